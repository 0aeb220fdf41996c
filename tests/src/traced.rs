//! Reads the stacks of pprof files with the places of their frames.

use crate::pprof::tool;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

/// One stack of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// How many samples.
    pub count: u64,
    /// Where the frames are, innermost first.
    pub places: Vec<Rc<Place>>,
}

/// Where a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the file has it.
    pub address: u64,
    /// The mapping that holds the address.
    pub mapping: Option<Rc<Mapping>>,
    /// The functions there: the last one, and before it those that are inlined into it. Empty if there is no name.
    pub functions: Vec<String>,
}

/// A mapping of the profiled process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it starts.
    pub start: u64,
    /// What is there: an offset in the file.
    pub offset: u64,
    /// The file.
    pub path: String,
}

impl Traced {
    /// Whether the sample was taken in the kernel, as far as kernel frames were recorded.
    pub fn from_kernel(&self) -> bool {
        let is_kernel = |place: &Rc<Place>| {
            place
                .mapping
                .as_ref()
                .is_some_and(|mapping| mapping.path == "[kernel]")
        };
        self.places.first().is_some_and(is_kernel)
    }
}

impl Place {
    /// What is in the file at the address.
    pub fn offset(&self) -> Option<u64> {
        let mapping = self.mapping.as_ref()?;
        Some(self.address.checked_sub(mapping.start)? + mapping.offset)
    }
}

/// All stacks, by `go tool pprof -raw`.
pub fn stacks(file: &Path) -> Result<Vec<Traced>> {
    parse_raw(&tool(file, &["-raw"])?)
}

/// Three lists: samples (`COUNT TIME: LOCATION…`), locations (`ID: ADDRESS M=MAPPING FUNCTION FILE…`, and a line for each
/// function that it is inlined into), mappings (`ID: START/END/OFFSET PATH…`). The later ones explain the earlier ones.
fn parse_raw(text: &str) -> Result<Vec<Traced>> {
    let (text, mappings) = text.split_once("\nMappings\n").context("no mappings")?;
    let (samples, locations) = text.split_once("\nLocations\n").context("no locations")?;
    let samples = samples.split_once("\nSamples:\n").context("no samples")?.1;

    let mut by_id = HashMap::new();
    for line in mappings.lines() {
        let place = || format!("not a mapping of pprof's: {line:?}");
        let (id, rest) = line.trim_start().split_once(": ").with_context(place)?;
        let mut words = rest.split(' ');
        let mut numbers = words.next().with_context(place)?.split('/').map(hexadecimal);
        let mut number = || numbers.next().with_context(place)?;
        let (start, _, offset) = (number()?, number()?, number()?);
        let path = words.next().unwrap_or_default().to_owned();
        by_id.insert(format!("M={id}"), Rc::new(Mapping { start, offset, path }));
    }

    let mut places: Vec<(u64, Place)> = Vec::new();
    for line in locations.lines() {
        let place = || format!("not a location of pprof's: {line:?}");
        let mut words = line.split_ascii_whitespace().peekable();
        let id = words.peek().and_then(|word| word.strip_suffix(':')?.parse().ok());
        if let Some(id) = id {
            let address = hexadecimal(words.nth(1).with_context(place)?)?;
            let mapping = words.next_if(|word| word.starts_with("M="));
            let mapping = mapping.and_then(|id| by_id.get(id)).cloned();
            let functions = Vec::new();
            places.push((
                id,
                Place {
                    address,
                    mapping,
                    functions,
                },
            ));
        }
        if let (Some(function), Some((_, last))) = (words.next(), places.last_mut()) {
            last.functions.push(function.to_owned());
        }
    }
    let places: HashMap<u64, Rc<Place>> = places
        .into_iter()
        .map(|(id, place)| (id, Rc::new(place)))
        .collect();

    let mut stacks = Vec::new();
    for line in samples.lines() {
        // Others are labels of the sample before, or the heading.
        let Some((values, ids)) = line.split_once(": ") else {
            continue;
        };
        let Some(count) = values
            .split_ascii_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
        else {
            continue;
        };
        let place = |id: &str| places.get(&id.parse().ok()?).cloned();
        let places = ids
            .split_ascii_whitespace()
            .map(|id| place(id).with_context(|| format!("no location {id}")));
        stacks.push(Traced {
            count,
            places: places.collect::<Result<_>>()?,
        });
    }
    Ok(stacks)
}

fn hexadecimal(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).with_context(|| format!("not a hexadecimal number: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::parse_raw;

    #[test]
    fn raw_profiles_are_put_together() {
        let text = "PeriodType: cpu nanoseconds\nSamples:\nsamples/count cpu/nanoseconds\n\
            \x20         3   12000000: 1 2 \n                thread:[t]\n          1    4000000: 3 \nLocations\n\
            \x20    1: 0x1010 M=1 inner /a.c:0:0 s=0\n             outer /a.c:9:0 s=0\n\
            \x20    2: 0x1020 M=1 \n     3: 0x5 other /b.c:1:0 s=0\nMappings\n1: 0x1000/0x2000/0x400 /a.so abc [FN]\n";
        let stacks = parse_raw(text).unwrap();
        let shown: Vec<_> = stacks
            .iter()
            .map(|stack| {
                let places = stack
                    .places
                    .iter()
                    .map(|place| (place.offset(), place.functions.join("<")));
                (stack.count, places.collect::<Vec<_>>())
            })
            .collect();
        let inlined = (Some(0x410), "inner<outer".to_owned());
        assert_eq!(
            shown,
            [
                (3, vec![inlined, (Some(0x420), String::new())]),
                (1, vec![(None, "other".to_owned())])
            ]
        );
        assert!(parse_raw("Samples:").is_err());
    }
}
