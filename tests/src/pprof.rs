//! Reads pprof files through `go tool pprof`, as those who use them do.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

/// Samples of each function in which the leaf of a stack was, by `go tool pprof -top`.
pub fn self_time(file: &Path) -> Result<BTreeMap<String, u64>> {
    parse_top(&tool(file, &["-top", "-functions"])?)
}

/// All samples, by `go tool pprof -traces`.
pub fn traced_total(file: &Path) -> Result<u64> {
    parse_traces(&tool(file, &["-traces"])?)
}

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
        self.places.first().is_some_and(|place| place.in_file("[kernel]"))
    }
}

impl Place {
    /// Whether the address is in this file.
    pub fn in_file(&self, path: &str) -> bool {
        self.mapping.as_ref().is_some_and(|mapping| mapping.path == path)
    }

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

fn tool(file: &Path, mode: &[&str]) -> Result<String> {
    crate::programs::run(
        Command::new("go")
            .args(["tool", "pprof"])
            .args(mode)
            // All of them, as they are.
            .args([
                "-sample_index=samples",
                "-nodecount=1000000",
                "-nodefraction=0",
                "-edgefraction=0",
            ])
            .arg("-symbolize=none")
            .arg(file),
    )
}

/// Lines after the heading: `flat flat% sum% cum cum% name`.
fn parse_top(text: &str) -> Result<BTreeMap<String, u64>> {
    let mut functions = BTreeMap::new();
    let rows = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("flat "))
        .skip(1);
    for row in rows {
        let place = || format!("not a row of pprof's: {row:?}");
        let (flat, rest) = row.trim_start().split_once(' ').with_context(place)?;
        let flat: u64 = flat.parse().with_context(place)?;
        let mut name = rest;
        for _ in 0..4 {
            name = name.trim_start().split_once(' ').with_context(place)?.1;
        }
        if flat > 0 {
            *functions.entry(plain(name.trim()).to_owned()).or_default() += flat;
        }
    }
    Ok(functions)
}

/// Blocks divided by rules; the first line of each starts with the number of its samples.
fn parse_traces(text: &str) -> Result<u64> {
    let mut total = 0;
    for block in text.split("-----------+").skip(1) {
        // Past the rest of the rule, and past labels (`name: value`).
        let lines = block.lines().skip(1);
        let weight = lines
            .map(str::trim_start)
            .find_map(|line| line.split(' ').next()?.parse::<u64>().ok());
        total += weight.unwrap_or(0);
    }
    Ok(total)
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

/// The name without pprof's remark that the function was inlined.
fn plain(name: &str) -> &str {
    name.trim_end_matches(" (partial-inline)")
        .trim_end_matches(" (inline)")
}

#[cfg(test)]
mod tests {
    use super::{parse_raw, parse_top, parse_traces, self_time, stacks, traced_total};
    use crate::programs::{self, Form};
    use crate::target::Target;

    #[test]
    fn a_profile_of_go_is_read_with_all_its_samples() {
        let program = programs::go("go_pprof", "local", Form::Exe, "").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.pb.gz");
        let mut target = Target::start(program.command()).unwrap();
        target
            .command(&format!("profile 0.5 {} 100", file.display()))
            .unwrap();
        assert_eq!(
            target.read_line().unwrap(),
            format!("profiled {}", file.display())
        );
        assert!(target.finish().unwrap().status.success());
        let functions = self_time(&file).unwrap();
        assert!(functions.values().sum::<u64>() > 0);
        assert_eq!(functions.values().sum::<u64>(), traced_total(&file).unwrap());
        let stacks = stacks(&file).unwrap();
        let all = stacks.iter().map(|stack| stack.count).sum::<u64>();
        assert_eq!(all, traced_total(&file).unwrap());
        assert!(stacks.iter().any(|stack| {
            stack
                .places
                .iter()
                .any(|place| place.functions == ["main.share8"])
        }));
    }

    #[test]
    fn rows_of_top_become_functions() {
        let text = "File: t\nType: samples\nDuration: 4s, Total samples = 10 \n\
            Showing nodes accounting for 10, 100% of 10 total\n      flat  flat%   sum%        cum   cum%\n\
            \x20        7 70.00% 70.00%          9 90.00%  main.share8\n\
            \x20        3 30.00%   100%          3 30.00%  gotarget.Step (inline)\n\
            \x20        0     0%   100%         10   100%  ns::f<int, long>\n";
        let functions = parse_top(text).unwrap();
        assert_eq!(
            functions.into_iter().collect::<Vec<_>>(),
            [("gotarget.Step".to_owned(), 3), ("main.share8".to_owned(), 7)]
        );
    }

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

    #[test]
    fn blocks_of_traces_are_summed() {
        let text = "File: t\nType: samples\n-----------+-------------------------------------------------------\n\
            \x20    thread:  worker\n\
            \x20       12   main.share8\n\
            \x20            main.round\n\
            -----------+-------------------------------------------------------\n\
            \x20        3   gotarget.Step (inline)\n\
            \x20            main.share2\n\
            -----------+-------------------------------------------------------\n";
        assert_eq!(parse_traces(text).unwrap(), 15);
    }
}
