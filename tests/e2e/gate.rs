//! What `profiler check` and `profiler diff` say about programs that really got slower, and about files of every kind.

use anyhow::{Context, Result, ensure};
use profiler_tests::programs::{self, Form};
use profiler_tests::synthetic::Run;
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full, profiler, usage};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// How the builds of `batch` are recorded: runs of about 0.75 s of CPU time, at 4,999 Hz, which is some 3,700 samples.
const RECORD: [&str; 4] = ["check", "-F", "4999", "--record"];

/// Runs of a build that is the same work.
const SAME: &str = "8";

/// Runs of a slower build: of 15 % and 10 % in the full test, of 40 % and 30 % in the quick one.
///
/// A function with a fifth of them varies by 3.3 % by chance; with 2 % of its own from run to run, the difference of the means of
/// 8 and 8 has a standard error of 1.9 %. A rise of 15 % is 0.140 as a logarithm, and a regression if the lower bound
/// (1.08 standard errors below) is above 5 %, which is 0.049: that is so unless the estimate is 3.7 standard errors too low, once in
/// thousands of checks. The whole program varies by 1.6 %, or 2.6 % with the same 2 %: 10 % more of everything are
/// 0.095, and missed if the estimate is 2.5 standard errors too low, once in 160.
///
/// With 4 and 4 runs and 40 % the logarithm is 0.336, the standard error 2.7 %, and the lower bound 1.13 of them below the
/// estimate: it is above 0.049 unless that is 9 too low. 30 % more of everything are 0.262.
const SLOWER: [&str; 2] = ["8", "4"];

/// What a check of two builds of `batch` came to.
struct Outcome {
    code: Option<i32>,
    json: Value,
    github: String,
    junit: String,
    markdown: String,
    stdout: String,
}

impl Outcome {
    /// So many runs of the build with these tags against as many of the one without any.
    fn of(tags: &str, runs: &str) -> Result<Self> {
        let _guard = exclusive();
        let old = programs::go("batch", "local", Form::Exe, "")?.path;
        let new = programs::go("batch", "local", Form::Exe, tags)?.path;
        let folder = TempDir::new()?;
        let mut command = profiler::command(RECORD)?;
        command
            .arg(runs)
            .arg("--against")
            .arg(&old)
            .args(["--format", "text"]);
        for format in ["json", "github", "junit", "markdown"] {
            let path = folder.path().join(format);
            command.arg(format!("--format={format}={}", path.display()));
        }
        // Paths of annotations are relative to this.
        command.env(
            "GITHUB_WORKSPACE",
            fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?,
        );
        let used = usage::of(command.arg("--").arg(&new))?;
        let read = |format: &str| {
            fs::read_to_string(folder.path().join(format)).with_context(|| format!("{format}: {used:?}"))
        };
        Ok(Self {
            code: used.status.code(),
            json: serde_json::from_str(&read("json")?)?,
            github: read("github")?,
            junit: read("junit")?,
            markdown: read("markdown")?,
            stdout: used.stdout.clone(),
        })
    }

    /// Functions that are blamed.
    fn blamed(&self) -> Vec<&str> {
        let findings = self.json["findings"].as_array().into_iter().flatten();
        findings
            .filter(|finding| finding["evidence"]["status"] == "regression")
            .filter_map(|finding| finding["function"].as_str())
            .collect()
    }
}

#[test]
fn a_c_function_that_works_more_is_found_in_every_report() -> Result<()> {
    let outcome = Outcome::of(full(["slow_c", "slower_c"]), full(SLOWER))?;
    ensure!(outcome.code == Some(2), "{}", outcome.stdout);
    ensure!(outcome.blamed().contains(&"c_hash"), "{}", outcome.stdout);
    ensure!(outcome.stdout.starts_with("REGRESSION: ") && outcome.stdout.contains("c_hash"));
    let place = "::error file=tests/targets/batch/batch.c,line=";
    ensure!(
        outcome.github.lines().any(|line| line.starts_with(place)),
        "{}",
        outcome.github
    );
    ensure!(
        outcome.junit.contains(">tests/targets/batch/batch.c:"),
        "{}",
        outcome.junit
    );
    ensure!(
        outcome.markdown.contains("<code>c&#95;hash</code>"),
        "{}",
        outcome.markdown
    );
    Ok(())
}

#[test]
fn a_go_function_that_works_more_is_found() -> Result<()> {
    let outcome = Outcome::of(full(["slow_go", "slower_go"]), full(SLOWER))?;
    ensure!(outcome.code == Some(2), "{}", outcome.stdout);
    ensure!(outcome.blamed().contains(&"main.lookup"), "{}", outcome.stdout);
    let place = "::error file=tests/targets/batch/main.go,line=";
    ensure!(
        outcome.github.lines().any(|line| line.starts_with(place)),
        "{}",
        outcome.github
    );
    Ok(())
}

#[test]
fn a_program_that_works_more_everywhere_is_found() -> Result<()> {
    let outcome = Outcome::of(full(["slow_all", "slower_all"]), full(SLOWER))?;
    ensure!(outcome.code == Some(2), "{}", outcome.stdout);
    let program = &outcome.json["program"]["evidence"];
    ensure!(program["status"] == "regression", "{}", outcome.stdout);
    Ok(())
}

#[test]
fn the_same_work_in_other_functions_passes() -> Result<()> {
    let outcome = Outcome::of("refactored", SAME)?;
    ensure!(outcome.code == Some(0), "{}", outcome.stdout);
    ensure!(outcome.stdout.contains("moved"), "{}", outcome.stdout);
    Ok(())
}

/// Runs of both sides, written to a folder.
struct Sides {
    folder: TempDir,
    baseline: Vec<PathBuf>,
    candidate: Vec<PathBuf>,
}

impl Sides {
    /// So many of each; the candidate's are younger.
    fn of(runs: u64, baseline: &Run, candidate: &Run) -> Result<Self> {
        let folder = TempDir::new()?;
        let side = |name: &str, run: &Run, first: u64| -> Result<Vec<PathBuf>> {
            (first..first + runs)
                .map(|seed| {
                    let path = folder.path().join(format!("{name}-{seed}.pb.gz"));
                    fs::write(&path, Run { seed, ..run.clone() }.write()?)?;
                    Ok(path)
                })
                .collect()
        };
        Ok(Self {
            baseline: side("old", baseline, 0)?,
            candidate: side("new", candidate, runs)?,
            folder,
        })
    }

    fn check(&self) -> Result<usage::Usage> {
        check(&self.baseline, &self.candidate, &[])
    }
}

fn check(baseline: &[PathBuf], candidate: &[PathBuf], more: &[&str]) -> Result<usage::Usage> {
    let mut command = profiler::command(["check", "--baseline"])?;
    usage::of(
        command
            .args(baseline)
            .arg("--candidate")
            .args(candidate)
            .args(more),
    )
}

#[test]
fn files_that_cannot_be_compared_are_named_and_nothing_is_written() -> Result<()> {
    let sides = Sides::of(3, &Run::default(), &Run::default())?;
    let folder = TempDir::new()?;
    let good = Run::default().write()?;
    let bad = |change: fn(&mut Run)| {
        let mut run = Run::default();
        change(&mut run);
        run.write()
    };
    let cases = [
        (
            "elsewhere.pb.gz",
            bad(|run| run.package = "elsewhere")?,
            "no function in common",
        ),
        ("empty.pb.gz", bad(|run| run.stacks = 0)?, "no samples"),
        ("nothing.pb.gz", Vec::new(), "empty"),
        (
            "heap.pb.gz",
            bad(|run| run.types = [("inuse_objects", "count"), ("inuse_space", "bytes")])?,
            "not a CPU profile",
        ),
        (
            "wall.pb.gz",
            bad(|run| run.types = [("samples", "count"), ("wall", "nanoseconds")])?,
            "wall/nanoseconds",
        ),
        ("rate.pb.gz", bad(|run| run.period = 10_000_000)?, "100 Hz"),
        ("cut.pb.gz", good[..good.len() / 2].to_vec(), "gzip"),
        (
            "newer.pb.gz",
            bad(|run| run.comments = vec!["format=99".into()])?,
            "newer",
        ),
        ("text.pb.gz", b"no profile at all".to_vec(), "pprof"),
    ];
    let report = folder.path().join("report.json");
    fs::write(&report, "of the last run")?;
    let graph = folder.path().join("graph.svg");
    let mut inputs: Vec<(PathBuf, &str)> = Vec::new();
    for (name, bytes, problem) in &cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes)?;
        inputs.push((path, problem));
    }
    let directory = folder.path().join("directory");
    fs::create_dir(&directory)?;
    inputs.push((directory, "directory"));
    inputs.push((folder.path().join("missing.pb.gz"), "No such file"));
    let there = || -> Result<Vec<OsString>> {
        let mut names: Vec<_> = fs::read_dir(folder.path())?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    };
    let before = there()?;
    for (path, problem) in &inputs {
        let name = path.file_name().and_then(OsStr::to_str).context("a name")?;
        let formats = [format!("--format=json={}", report.display())];
        let checked = check(&sides.baseline, std::slice::from_ref(path), &[&formats[0]])?;
        let mut diff = profiler::command(["diff"])?;
        diff.arg(&sides.baseline[0]).arg(path).arg("-o").arg(&graph);
        for used in [checked, usage::of(&mut diff)?] {
            ensure!(used.status.code() == Some(1), "{name}: {used:?}");
            ensure!(
                used.stderr.contains(name) && used.stderr.contains(problem),
                "{name}: {used:?}"
            );
            ensure!(used.stdout.is_empty(), "{name}: {used:?}");
        }
        ensure!(there()? == before, "{name}: {:?}", there()?);
        ensure!(fs::read_to_string(&report)? == "of the last run", "{name}");
    }
    Ok(())
}

#[test]
fn data_that_cannot_show_it_are_inconclusive() -> Result<()> {
    let run = Run::default();
    let host = |cpu: &str| Run {
        comments: vec![format!("fact.cpu={cpu}")],
        ..Run::default()
    };
    let cut = Run {
        cut: 5,
        ..Run::default()
    };
    let tiny = Run {
        stacks: 20,
        weight: 1,
        ..Run::default()
    };
    for (runs, baseline, candidate, why) in [
        (2, &run, &run, "at least 3 are needed"),
        (1, &run, &run, "at least 3 are needed"),
        (5, &tiny, &tiny, "record"),
        (5, &run, &cut, "stacks are whole"),
        (5, &host("Model 1"), &host("Model 2"), "the processor differs"),
    ] {
        let used = Sides::of(runs, baseline, candidate)?.check()?;
        ensure!(used.status.code() == Some(3), "{why}: {used:?}");
        ensure!(
            used.stdout.starts_with("INCONCLUSIVE: ") && used.stdout.contains(why),
            "{why}: {used:?}"
        );
    }
    // So that it was not anything else.
    let used = Sides::of(5, &run, &run)?.check()?;
    ensure!(used.status.code() == Some(0), "{used:?}");
    Ok(())
}

#[test]
fn swapped_and_identical_sides_are_noticed() -> Result<()> {
    let sides = Sides::of(5, &Run::default(), &Run::default())?;
    let used = check(&sides.candidate, &sides.baseline, &[])?;
    ensure!(
        used.stdout.contains("make sure that they are not swapped"),
        "{used:?}"
    );
    let used = check(&sides.baseline, &sides.baseline, &[])?;
    ensure!(
        used.status.code() == Some(3) && used.stdout.contains("same recording"),
        "{used:?}"
    );
    Ok(())
}

/// Checks the candidate's files against a directory.
fn kept(directory: &Path, option: &str, candidate: &[PathBuf], more: &[&str]) -> Result<usage::Usage> {
    let mut command = profiler::command(["check", option])?;
    // The synthetic runs are of 2023.
    command
        .arg(directory)
        .args(["--max-age", "100000", "--candidate"]);
    usage::of(command.args(candidate).args(more))
}

/// Files below a directory of directories, by the name of the inner one.
fn files(directory: &Path) -> Result<Vec<(String, usize)>> {
    let mut counts = Vec::new();
    for folder in fs::read_dir(directory)? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().into_owned();
        counts.push((name, fs::read_dir(folder.path())?.count()));
    }
    counts.sort();
    Ok(counts)
}

#[test]
fn a_directory_keeps_the_runs_of_what_did_not_get_slower() -> Result<()> {
    let folder = TempDir::new()?;
    let directory = folder.path().join("baselines");
    let host = |cpu: &str, weight: u64| Run {
        comments: vec![format!("fact.cpu={cpu}"), "fact.kernel=6.1.0-13".into()],
        weight,
        ..Run::default()
    };
    let sides = Sides::of(4, &host("Some CPU @ 3/GHz", 4), &host("Some CPU @ 3/GHz", 4))?;
    let class = "some-cpu-3-ghz_6.1.0-13".to_owned();

    let used = kept(&directory, "--update", &sides.baseline, &[])?;
    ensure!(
        used.status.code() == Some(0) && used.stderr.contains("no verdict"),
        "{used:?}"
    );
    ensure!(
        files(&directory)? == [(class.clone(), 4)],
        "{:?}",
        files(&directory)?
    );

    let used = kept(&directory, "--baseline-dir", &sides.candidate, &[])?;
    ensure!(
        used.status.code() == Some(0) && used.stdout.starts_with("PASS"),
        "{used:?}"
    );
    ensure!(files(&directory)? == [(class.clone(), 4)], "it was to look only");
    let used = kept(&directory, "--update", &sides.candidate, &[])?;
    ensure!(
        used.status.code() == Some(0) && used.stdout.starts_with("PASS"),
        "{used:?}"
    );
    ensure!(
        files(&directory)? == [(class.clone(), 8)],
        "{:?}",
        files(&directory)?
    );

    // What was kept is seen, and twice the cost is not kept.
    let used = kept(&directory, "--update", &sides.candidate, &[])?;
    ensure!(
        used.status.code() == Some(3) && used.stdout.contains("same recording"),
        "{used:?}"
    );
    let slow = Sides::of(9, &host("Some CPU @ 3/GHz", 8), &host("Other", 4))?;
    let used = kept(&directory, "--update", &slow.baseline[8..], &[])?;
    ensure!(used.status.code() == Some(3), "one run is not enough: {used:?}");
    let later = Sides::of(20, &host("Some CPU @ 3/GHz", 4), &host("Some CPU @ 3/GHz", 8))?;
    let used = kept(&directory, "--update", &later.candidate[..4], &[])?;
    ensure!(used.status.code() == Some(2), "{used:?}");
    ensure!(
        files(&directory)? == [(class.clone(), 8)],
        "{:?}",
        files(&directory)?
    );

    // The youngest are kept.
    let used = kept(&directory, "--update", &later.baseline[10..14], &["--keep", "6"])?;
    ensure!(used.status.code() == Some(0), "{used:?}");
    ensure!(
        files(&directory)? == [(class.clone(), 6)],
        "{:?}",
        files(&directory)?
    );

    // Where the slower code is accepted it takes the place of the other.
    let used = kept(
        &directory,
        "--update",
        &later.candidate[..4],
        &["--fail-on", "never"],
    )?;
    ensure!(used.status.code() == Some(0), "{used:?}");
    ensure!(
        files(&directory)? == [(class.clone(), 4)],
        "{:?}",
        files(&directory)?
    );

    // Another host has nothing to do with it.
    let used = kept(&directory, "--baseline-dir", &slow.candidate, &[])?;
    ensure!(
        used.status.code() == Some(3) && used.stdout.contains("nothing to compare"),
        "{used:?}"
    );
    let used = kept(&directory, "--update", &slow.candidate, &[])?;
    ensure!(used.status.code() == Some(0), "{used:?}");
    ensure!(
        files(&directory)? == [("other_6.1.0-13".to_owned(), 9), (class, 4)],
        "{:?}",
        files(&directory)?
    );

    // Runs of 2023 are too old.
    let mut command = profiler::command(["check", "--baseline-dir"])?;
    command.arg(&directory).arg("--candidate").args(&slow.candidate);
    let used = usage::of(&mut command)?;
    ensure!(
        used.status.code() == Some(3) && used.stdout.contains("nothing to compare"),
        "{used:?}"
    );
    Ok(())
}

#[test]
fn a_directory_that_is_a_file_is_refused_and_left_alone() -> Result<()> {
    let sides = Sides::of(1, &Run::default(), &Run::default())?;
    let file = sides.folder.path().join("file");
    fs::write(&file, "text")?;
    let used = kept(&file, "--update", &sides.candidate, &[])?;
    ensure!(
        used.status.code() == Some(1) && used.stderr.contains("not a directory"),
        "{used:?}"
    );
    ensure!(fs::read_to_string(&file)? == "text");
    Ok(())
}

#[test]
fn profiles_of_go_itself_are_compared() -> Result<()> {
    let _guard = exclusive();
    let folder = TempDir::new()?;
    let program = programs::go("go_pprof", "local", Form::Exe, "")?;
    let mut own = Vec::new();
    let mut target = Target::start(program.command())?;
    for number in 0..2 {
        let path = folder.path().join(format!("own-{number}.pb.gz"));
        target.command(&format!("profile 0.5 {} 100", path.display()))?;
        target.read_line()?;
        own.push(path);
    }
    target.finish()?;
    // And of a benchmark.
    fs::write(folder.path().join("go.mod"), "module bench\n\ngo 1.21\n")?;
    fs::write(
        folder.path().join("bench_test.go"),
        "package bench\n\nimport \"testing\"\n\nvar sink uint64\n\n//go:noinline\nfunc burn(x uint64, n int) uint64 {\n\
         \tfor i := 0; i < n; i++ {\n\t\tx = x*6364136223846793005 + 1\n\t}\n\treturn x\n}\n\n\
         func BenchmarkBurn(b *testing.B) {\n\tfor i := 0; i < b.N; i++ {\n\t\tsink = burn(sink, 1000)\n\t}\n}\n",
    )?;
    let mut benchmark = Vec::new();
    for number in 0..2 {
        let path = folder.path().join(format!("benchmark-{number}.pb.gz"));
        let mut command = Command::new("go");
        command
            .current_dir(folder.path())
            .args(["test", "-bench", ".", "-benchtime", "0.3s", "-cpuprofile"]);
        let used = usage::of(command.arg(&path))?;
        ensure!(used.status.success(), "{used:?}");
        benchmark.push(path);
    }
    for (files, function) in [(own, "main.share8"), (benchmark, "bench.burn")] {
        let used = usage::of(profiler::command(["diff"])?.args(&files))?;
        ensure!(
            used.status.success() && used.stdout.contains(function),
            "{used:?}"
        );
        ensure!(used.stdout.contains("CPU s each"), "{used:?}");
        let used = check(&files[..1], &files[1..], &[])?;
        ensure!(used.status.code() == Some(3), "{used:?}");
    }
    Ok(())
}

#[test]
fn large_profiles_take_little_memory() -> Result<()> {
    let large = Run {
        stacks: 50_000,
        ..Run::default()
    };
    let used = Sides::of(3, &large, &large)?.check()?;
    ensure!(used.status.code() == Some(0), "{used:?}");
    ensure!(used.peak_memory < 500 << 20, "{} MiB", used.peak_memory >> 20);
    Ok(())
}
