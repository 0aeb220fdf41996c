//! `profiler convert` and `profiler flamegraph`: a saved profile in another format.

use super::{args, inputs, outputs, stdout};
use anyhow::{Context, Result, bail};
use profiler::format::{self, Format};
use std::path::Path;
use std::process::ExitCode;

/// Runs `profiler convert`.
pub fn run(args: &args::Convert) -> Result<ExitCode> {
    write(&args.input, &args.output, Format::from_path(&args.output)?)
}

/// Runs `profiler flamegraph`.
pub fn flamegraph(args: &args::Flamegraph) -> Result<ExitCode> {
    match Format::from_path(&args.output) {
        Ok(Format::Svg) => write(&args.file, &args.output, Format::Svg),
        Ok(_) => bail!(
            "a flame graph is written as .svg, and {} has another extension: for other formats there is `profiler convert`",
            args.output.display()
        ),
        Err(error) => Err(error.into()),
    }
}

/// Everything is read and made before anything is written.
fn write(input: &Path, output: &Path, format: Format) -> Result<ExitCode> {
    outputs::check(output)?;
    let profile = inputs::read(input)?;
    let bytes = format::write(&profile, format)
        .with_context(|| format!("cannot write {} as {}", input.display(), output.display()))?;
    outputs::write(output, &bytes)?;
    stdout::write(format!("wrote {}\n", output.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
