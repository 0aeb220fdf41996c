//! Reads pprof files through `go tool pprof`, as those who use them do.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Samples of each function in which the leaf of a stack was, by `go tool pprof -top`.
pub fn self_time(file: &Path) -> Result<BTreeMap<String, u64>> {
    parse_top(&tool(file, &["-top", "-functions"])?)
}

/// All samples, by `go tool pprof -traces`.
pub fn traced_total(file: &Path) -> Result<u64> {
    parse_traces(&tool(file, &["-traces"])?)
}

/// One sample, or several equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How many.
    pub count: u64,
    /// The frames, innermost first, inlined functions included.
    pub frames: Vec<Frame>,
    /// Whether our profile says that kernel code was interrupted.
    pub from_kernel: bool,
}

/// One frame of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its name; the address if it has none.
    pub function: String,
    /// Source file and line, as `file:line`.
    pub place: String,
    /// Where it is, in the process.
    pub address: u64,
}

/// The samples of all these files together, by `go tool pprof -raw`, which names what the files do not.
pub fn samples(files: &[PathBuf]) -> Result<Vec<Sample>> {
    parse_raw(&crate::programs::run(
        Command::new("go").args(["tool", "pprof", "-raw"]).args(files),
    )?)
}

/// What `go tool pprof -raw` prints: every sample, with its values and labels.
pub fn raw(file: &Path) -> Result<String> {
    crate::programs::run(Command::new("go").args(["tool", "pprof", "-raw"]).arg(file))
}

pub(crate) fn tool(file: &Path, mode: &[&str]) -> Result<String> {
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

/// Samples (`value value: location location …`, then lines of labels), and locations (`id: address M=mapping name
/// file:line:column s=line`, a line for each function, the address on the first one).
fn parse_raw(text: &str) -> Result<Vec<Sample>> {
    let mut lines = text.lines().skip_while(|line| *line != "Samples:").skip(2);
    let mut samples: Vec<(u64, Vec<u64>, bool)> = Vec::new();
    for line in lines.by_ref().take_while(|line| *line != "Locations") {
        let place = || format!("not a sample of pprof's: {line:?}");
        match line.split_once(": ") {
            Some((values, locations)) if values.split_whitespace().all(is_number) => {
                let count = values.split_whitespace().next().with_context(place)?.parse()?;
                let locations = locations
                    .split_whitespace()
                    .map(str::parse)
                    .collect::<Result<_, _>>()?;
                samples.push((count, locations, false));
            }
            _ if line.contains("mode:[kernel]") => samples.last_mut().with_context(place)?.2 = true,
            _ => {}
        }
    }
    let mut locations: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
    let (mut id, mut address) = (0, 0);
    for line in lines.take_while(|line| *line != "Mappings") {
        let mut rest = line.trim_start();
        if let Some((number, after)) = rest.split_once(": 0x")
            && is_number(number)
        {
            let (hex, after) = after.split_once(' ').unwrap_or((after, ""));
            (id, address) = (number.parse()?, u64::from_str_radix(hex, 16)?);
            let described = after.split_once(' ').filter(|_| after.starts_with("M="));
            rest = described.map_or(after, |(_, after)| after);
        }
        locations.entry(id).or_default().push(frame(rest.trim(), address));
    }
    let frames = |ids: &[u64]| {
        ids.iter()
            .filter_map(|id| locations.get(id))
            .flatten()
            .cloned()
            .collect()
    };
    Ok(samples
        .into_iter()
        .map(|(count, ids, from_kernel)| Sample {
            count,
            frames: frames(&ids),
            from_kernel,
        })
        .collect())
}

/// `name file:line:column s=line`, or nothing.
fn frame(text: &str, address: u64) -> Frame {
    let described = text.rsplit_once(" s=").and_then(|(described, _)| {
        let (place, _column) = described.rsplit_once(':')?;
        place.rsplit_once(' ')
    });
    let (function, place) = described.unwrap_or(("", ""));
    Frame {
        function: match function {
            "" => format!("{address:#x}"),
            function => function.to_owned(),
        },
        place: place.to_owned(),
        address,
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name without pprof's remark that the function was inlined.
fn plain(name: &str) -> &str {
    name.trim_end_matches(" (partial-inline)")
        .trim_end_matches(" (inline)")
}

#[cfg(test)]
mod tests {
    use super::{parse_raw, parse_top, parse_traces, self_time, traced_total};
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
    }

    #[test]
    fn a_raw_profile_has_all_frames_with_their_places() {
        let text = "PeriodType: cpu nanoseconds\nSamples:\nsamples/count cpu/nanoseconds[dflt]\n\
            \x20         2    4008016: 1 2 3 \n\
            \x20               mode:[kernel] thread:[t: 1]\n\
            \x20               pid:[7] tid:[8]\n\
            \x20         1    2004008: 3 \n\
            Locations\n\
            \x20    1: 0x200 cFunction t.go:66048:0 s=0\n\
            \x20            ns::f<int, long> t.go:512:0 s=0(_ZN2ns1fE)\n\
            \x20    2: 0x48e M=1 main.G1 /src/t.go:55:0 s=54\n\
            \x20    3: 0x500 M=1 \n\
            Mappings\n1: 0x402000/0x560000/0x2000 /bin/t  [FN]\n";
        let samples = parse_raw(text).unwrap();
        let shown: Vec<String> = samples[0]
            .frames
            .iter()
            .map(|frame| format!("{} {} {:x}", frame.function, frame.place, frame.address))
            .collect();
        assert_eq!(
            shown,
            [
                "cFunction t.go:66048 200",
                "ns::f<int, long> t.go:512 200",
                "main.G1 /src/t.go:55 48e",
                "0x500  500"
            ]
        );
        assert!(samples[0].from_kernel && !samples[1].from_kernel);
        assert_eq!((samples[0].count, samples[1].frames.len()), (2, 1));
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
