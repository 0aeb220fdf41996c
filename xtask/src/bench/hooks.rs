//! What honouring traceback hooks costs a program.

use super::Figure;
use super::paired::{self, record, recorded, round, spread, spread_of};
use anyhow::{Result, ensure};
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::target::Target;

/// Recordings whose stops are looked at.
const RECORDINGS: usize = 40;
/// So often that a question is more than the differences between two measurements.
const OFTEN: &str = "4999";
/// How often the time of a question is measured.
const QUESTIONS: usize = 12;
/// Sizes of programs that are copied, in MiB.
const SIZES: [u32; 4] = [0, 64, 256, 448];
const COPIES: usize = 5;

pub(super) fn run() -> Result<Vec<Figure>> {
    let program = programs::go("hook_cost", "local", Form::Exe, "")?;
    let mut figures = Vec::new();
    for callbacks in [0, 2] {
        for (rate, promised) in [("99", "1 %"), ("999", "3 %")] {
            let args = ["-F", rate, "--hooks=require"];
            for slower in paired::slower(&program, callbacks, &[paired::ours(&args)])? {
                let (middle, spread) = spread_of(&mut slower?, "%")?;
                figures.push(Figure::new(
                    format!("slowdown at {rate} Hz, {callbacks} contexts{spread}"),
                    format!("{middle:.2} %"),
                    promised,
                ));
            }
        }
        figures.push(question(&program, callbacks)?);
    }
    figures.extend(stops(&program)?);
    for size in SIZES {
        figures.push(snapshot(&program, size)?);
    }
    figures.push(symbolizer(&program)?);
    Ok(figures)
}

/// The time of a question: of the signal, the handler and the hook.
fn question(program: &Program, callbacks: u32) -> Result<Figure> {
    let mut target = Target::start(program.command())?;
    let mut times = Vec::new();
    for _ in 0..QUESTIONS {
        let (without, _) = recorded(&mut target, callbacks, &["-F", OFTEN, "--hooks=off"])?;
        let (with, recording) = recorded(&mut target, callbacks, &["-F", OFTEN, "--hooks=require"])?;
        let answers = recording.summary()?.hook_answers()?;
        ensure!(answers > 0, "the hook gave no answer");
        times.push((with - without) / answers as f64 / 1e3);
    }
    target.finish()?;
    let (least, middle, most) = spread(&mut times)?;
    Ok(Figure::new(
        format!("time of a question, {callbacks} contexts ({least:.1} to {most:.1} µs)"),
        format!("{middle:.1} µs"),
        "",
    ))
}

/// The longest stop of a thread in each of many recordings: to let the helper in, and out.
fn stops(program: &Program) -> Result<Vec<Figure>> {
    let mut target = Target::start(program.command())?;
    let mut stops = Vec::new();
    for _ in 0..RECORDINGS {
        let recording = record(&mut target, &["--hooks=require"], |target| round(target, 0))?.1;
        stops.push(recording.summary()?.longest_stop_us()? as f64 / 1e3);
    }
    target.finish()?;
    let (_, middle, most) = spread(&mut stops)?;
    let near_most = stops[RECORDINGS * 99 / 100];
    let what = |what: &str| format!("longest stop of a thread, {RECORDINGS} recordings: {what}");
    Ok(vec![
        Figure::new(what("median"), format!("{middle:.2} ms"), ""),
        Figure::new(what("99th percentile"), format!("{near_most:.2} ms"), ""),
        Figure::new(what("most"), format!("{most:.2} ms"), "20 ms"),
    ])
}

/// How long a thread is stopped for a copy of a process that has taken so much memory.
fn snapshot(program: &Program, mebibytes: u32) -> Result<Figure> {
    let mut target = Target::start(program.command())?;
    target.command(&format!("grow {mebibytes}"))?;
    ensure!(target.read_line()? == "1" || mebibytes == 0, "there is no memory");
    let mut times = Vec::new();
    for _ in 0..COPIES {
        let recording = record(&mut target, &["--hooks=require"], |target| round(target, 0))?.1;
        times.push(recording.summary()?.names_longest_stop_us()? as f64 / 1e3);
    }
    target.finish()?;
    let (middle, spread) = spread_of(&mut times, "ms")?;
    Ok(Figure::new(
        format!("stop for a snapshot, {mebibytes} MiB{spread}"),
        format!("{middle:.2} ms"),
        "",
    ))
}

/// How fast a symbolizer is asked.
fn symbolizer(program: &Program) -> Result<Figure> {
    let mut target = Target::start(program.command())?;
    target.command("addresses")?;
    target.read_line()?;
    let (_, recording) = recorded(&mut target, 0, &["-F", "999", "--hooks=require"])?;
    target.finish()?;
    let (calls, time_us) = recording.summary()?.symbolizer_calls()?;
    ensure!(time_us > 0, "no symbolizer was asked");
    Ok(Figure::new(
        format!("calls of a symbolizer per second, of {calls}"),
        format!("{}", calls * 1_000_000 / time_us),
        "",
    ))
}
