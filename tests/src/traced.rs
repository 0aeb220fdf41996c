//! Reads the stacks of pprof files with the places of their frames, from what `go tool pprof -raw` prints: three lists, of
//! which the later ones explain the earlier ones.
//!
//! * samples: `COUNT VALUE: LOCATION…`, then lines of labels
//! * locations: `ID: ADDRESS M=MAPPING FUNCTION FILE:LINE:COLUMN s=LINE`, then a line for each function that this one is
//!   inlined into
//! * mappings: `ID: START/END/OFFSET PATH…`

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
    /// The lines of its labels, as they are.
    pub labels: String,
}

/// Where a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the file has it.
    pub address: u64,
    /// The mapping that holds the address.
    pub mapping: Option<Rc<Mapping>>,
    /// The functions there: the last one, and before it those that are inlined into it. Empty if there is no name.
    pub functions: Vec<Function>,
}

/// A function at a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Source file and line, as `file:line`.
    pub place: String,
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
    /// The names of its functions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|function| &*function.name)
    }

    /// What is in the file at the address.
    pub fn offset(&self) -> Option<u64> {
        let mapping = self.mapping.as_ref()?;
        Some(self.address.checked_sub(mapping.start)? + mapping.offset)
    }
}

/// All stacks, as the file names them.
///
/// # Errors
/// `go tool pprof` cannot read it.
pub fn stacks(file: &Path) -> Result<Vec<Traced>> {
    parse(&tool(file, &["-raw"])?)
}

/// The stacks that `go tool pprof -raw` has printed.
pub(crate) fn parse(text: &str) -> Result<Vec<Traced>> {
    let (text, mappings) = text.split_once("\nMappings\n").context("no mappings")?;
    let (samples, locations) = text.split_once("\nLocations\n").context("no locations")?;
    let samples = samples.split_once("\nSamples:\n").context("no samples")?.1;
    parse_samples(samples, &parse_locations(locations, &parse_mappings(mappings)?)?)
}

fn parse_mappings(text: &str) -> Result<HashMap<u64, Rc<Mapping>>> {
    let parse = |line: &str| {
        let (id, rest) = line.trim_start().split_once(": ")?;
        let mut words = rest.split(' ');
        let mut numbers = words.next()?.split('/').map(hexadecimal);
        let (start, _, offset) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let path = words.next().unwrap_or_default().to_owned();
        Some((id.parse().ok()?, Rc::new(Mapping { start, offset, path })))
    };
    let line = |line| parse(line).with_context(|| format!("not a mapping of pprof's: {line:?}"));
    text.lines().map(line).collect()
}

fn parse_locations(text: &str, mappings: &HashMap<u64, Rc<Mapping>>) -> Result<HashMap<u64, Rc<Place>>> {
    let mut locations: Vec<(u64, Place)> = Vec::new();
    for line in text.lines() {
        let (start, mut rest) = match begin(line.trim_start()) {
            Some((id, address, rest)) => (Some((id, address)), rest),
            None => (None, line),
        };
        if let Some((id, address)) = start {
            let mapping = rest
                .strip_prefix("M=")
                .map(|after| after.split_once(' ').unwrap_or((after, "")));
            rest = mapping.map_or(rest, |(_, after)| after);
            let mapping = mapping
                .and_then(|(number, _)| mappings.get(&number.parse().ok()?))
                .cloned();
            let functions = Vec::new();
            locations.push((
                id,
                Place {
                    address,
                    mapping,
                    functions,
                },
            ));
        }
        let (_, last) = locations
            .last_mut()
            .with_context(|| format!("not a location of pprof's: {line:?}"))?;
        last.functions.extend(function(rest.trim()));
    }
    Ok(locations
        .into_iter()
        .map(|(id, location)| (id, Rc::new(location)))
        .collect())
}

fn parse_samples(text: &str, locations: &HashMap<u64, Rc<Place>>) -> Result<Vec<Traced>> {
    let mut samples: Vec<Traced> = Vec::new();
    // The first line is the heading.
    for line in text.lines().skip(1) {
        match line.split_once(": ") {
            Some((values, ids)) if values.split_ascii_whitespace().all(is_number) => {
                let count = values
                    .split_ascii_whitespace()
                    .next()
                    .and_then(|n| n.parse().ok());
                let location = |id: &str| locations.get(&id.parse().ok()?).cloned();
                let places: Option<_> = ids.split_ascii_whitespace().map(location).collect();
                let place = || format!("not a sample of pprof's: {line:?}");
                samples.push(Traced {
                    count: count.with_context(place)?,
                    places: places.with_context(place)?,
                    labels: String::new(),
                });
            }
            _ => {
                let last = samples.last_mut().context("labels of no sample")?;
                last.labels.push_str(line);
            }
        }
    }
    Ok(samples)
}

/// `ID: ADDRESS rest`.
fn begin(line: &str) -> Option<(u64, u64, &str)> {
    let (id, rest) = line.split_once(": 0x")?;
    let (address, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((id.parse().ok()?, hexadecimal(address)?, rest))
}

/// `name file:line:column s=line`, or nothing. Names can have blanks.
fn function(text: &str) -> Option<Function> {
    let (described, _) = text.rsplit_once(" s=")?;
    let (place, _column) = described.rsplit_once(':')?;
    let (name, place) = place.rsplit_once(' ')?;
    Some(Function {
        name: name.to_owned(),
        place: place.to_owned(),
    })
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_three_lists_are_put_together() {
        let text = "PeriodType: cpu nanoseconds\nSamples:\nsamples/count cpu/nanoseconds[dflt]\n\
            \x20         2    4008016: 1 2 3 \n\
            \x20               mode:[kernel] thread:[t: 1]\n\
            \x20               pid:[7] tid:[8]\n\
            \x20         1    2004008: 3 \n\
            Locations\n\
            \x20    1: 0x1200 M=1 cFunction t.go:66048:0 s=0\n\
            \x20            ns::f<int, long> t.go:512:0 s=0(_ZN2ns1fE)\n\
            \x20    2: 0x48e main.G1 /src/t.go:55:0 s=54\n\
            \x20    3: 0x1500 M=1 \n\
            Mappings\n1: 0x1000/0x2000/0x400 /bin/t  [FN]\n";
        let samples = parse(text).unwrap();
        let shown: Vec<Vec<String>> = samples
            .iter()
            .map(|sample| {
                let functions = |functions: &[super::Function]| -> Vec<String> {
                    functions
                        .iter()
                        .map(|f| format!("{} {}", f.name, f.place))
                        .collect()
                };
                sample
                    .places
                    .iter()
                    .map(|location| {
                        let mapping = location.mapping.as_ref();
                        let file = mapping.map_or_else(String::new, |m| {
                            format!(" {} {:x}", m.path, location.address - m.start + m.offset)
                        });
                        format!(
                            "{:x}{file} {}",
                            location.address,
                            functions(&location.functions).join("<")
                        )
                    })
                    .collect()
            })
            .collect();
        let bare = "1500 /bin/t 900 ";
        assert_eq!(
            shown,
            [
                vec![
                    "1200 /bin/t 600 cFunction t.go:66048<ns::f<int, long> t.go:512",
                    "48e main.G1 /src/t.go:55",
                    bare
                ],
                vec![bare]
            ]
        );
        assert_eq!((samples[0].count, samples[1].count), (2, 1));
        assert!(samples[0].labels.contains("mode:[kernel]") && samples[1].labels.is_empty());
        assert!(parse("Samples:").is_err());
    }
}
