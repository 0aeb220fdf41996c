//! `profiler diff`.

use super::{args, outputs, sides};
use anyhow::{Context, Result, bail};
use profiler::compare::{Difference, Pair, report};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the result of the command")]
pub fn run(args: &args::Diff) -> Result<ExitCode> {
    let (baseline, candidate) = sides_of(args)?;
    let outputs = args
        .outputs
        .iter()
        .map(|path| Ok((path, format(path)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut pair = Pair::with_stacks();
    sides::load(&mut pair, &baseline, &candidate)?;
    pair.check()?;
    // Everything is made before anything is written.
    let files = outputs
        .into_iter()
        .map(|(path, format)| {
            let bytes = match format {
                Format::Svg => report::difference::svg(&pair)
                    .with_context(|| format!("cannot draw {}", path.display()))?,
                Format::Folded => report::difference::folded(&pair).into_bytes(),
            };
            Ok((path, bytes))
        })
        .collect::<Result<Vec<_>>>()?;
    for (path, bytes) in &files {
        outputs::write(path, bytes)?;
    }
    print!(
        "{}",
        report::difference::text(&pair, &Difference::of(&pair), args.top)
    );
    for (path, _) in files {
        println!("wrote {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

enum Format {
    Svg,
    Folded,
}

fn format(path: &Path) -> Result<Format> {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let format = if name.ends_with(".svg") {
        Format::Svg
    } else if name.ends_with(".folded") {
        Format::Folded
    } else {
        bail!(
            "cannot tell the format of {} from its name: end it in .svg (differential flame graph) or .folded (stacks \
             with both counts)",
            path.display()
        );
    };
    outputs::check(path)?;
    Ok(format)
}

/// Two files are the two sides; more need `--new` between them.
fn sides_of(args: &args::Diff) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    match (args.files.as_slice(), args.new.as_slice()) {
        ([baseline, candidate], []) => Ok((vec![baseline.clone()], vec![candidate.clone()])),
        (files, []) => bail!(
            "{} files and no --new: name two files, or the files of each side as BASE… --new NEW…",
            files.len()
        ),
        (files, new) => Ok((files.to_vec(), new.to_vec())),
    }
}
