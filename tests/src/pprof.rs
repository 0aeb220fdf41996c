//! Reads pprof files through `go tool pprof`, as those who use them do.

use crate::traced::{self, Function, Place, Traced};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    let text = crate::programs::run(Command::new("go").args(["tool", "pprof", "-raw"]).args(files))?;
    Ok(traced::parse(&text)?.iter().map(sample).collect())
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

/// A sample with each of its functions as a frame.
fn sample(traced: &Traced) -> Sample {
    let frames = |place: &Rc<Place>| -> Vec<Frame> {
        let address = place.address;
        let frame = |function: &Function| Frame {
            function: function.name.clone(),
            place: function.place.clone(),
            address,
        };
        match &place.functions[..] {
            [] => vec![Frame {
                function: format!("{address:#x}"),
                place: String::new(),
                address,
            }],
            functions => functions.iter().map(frame).collect(),
        }
    };
    Sample {
        count: traced.count,
        frames: traced.places.iter().flat_map(frames).collect(),
        from_kernel: traced.labels.contains("mode:[kernel]"),
    }
}

/// The name without pprof's remark that the function was inlined.
fn plain(name: &str) -> &str {
    name.trim_end_matches(" (partial-inline)")
        .trim_end_matches(" (inline)")
}

#[cfg(test)]
mod tests {
    use super::{Frame, Sample, parse_top, parse_traces, sample, self_time, traced_total};
    use crate::programs::{self, Form};
    use crate::target::Target;
    use crate::traced;

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
    fn a_frame_without_a_name_is_called_by_its_address() {
        let text = "\nSamples:\nsamples/count cpu/nanoseconds[dflt]\n\
            \x20         2    4008016: 1 2 \n\
            \x20               mode:[kernel] thread:[t: 1]\n\
            Locations\n\
            \x20    1: 0x200 inner t.go:66048:0 s=0\n\
            \x20            outer t.go:512:0 s=0\n\
            \x20    2: 0x500 M=1 \n\
            Mappings\n";
        let samples: Vec<_> = traced::parse(text).unwrap().iter().map(sample).collect();
        let frame = |function: &str, place: &str, address| Frame {
            function: function.to_owned(),
            place: place.to_owned(),
            address,
        };
        let frames = vec![
            frame("inner", "t.go:66048", 0x200),
            frame("outer", "t.go:512", 0x200),
            frame("0x500", "", 0x500),
        ];
        let expected = Sample {
            count: 2,
            frames,
            from_kernel: true,
        };
        assert_eq!(samples, [expected]);
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
