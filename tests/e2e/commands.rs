//! What the commands do that read saved profiles, and those about the host and about the profiler itself.

use anyhow::{Context, Result, ensure};
use profiler_tests::profiler::{Recorder, Recording, as_nobody, command};
use profiler_tests::programs::{self, Form};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, pprof};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The files that a recording writes beside those that all have.
const FORMATS: [&str; 4] = ["svg", "json", "json.gz", "speedscope.json"];

/// A recording of Go that calls C that calls Go, and a folder with `out.` and each of [`FORMATS`].
fn recorded() -> Result<(Recording, tempfile::TempDir)> {
    let mut target = Target::start(programs::go("go_nested", "local", Form::Exe, "")?.command())?;
    let folder = tempfile::tempdir()?;
    let mut args = vec![
        "-p".to_owned(),
        target.pid().to_string(),
        "-F".to_owned(),
        "499".to_owned(),
    ];
    for format in FORMATS {
        args.push("-o".to_owned());
        args.push(
            folder
                .path()
                .join("out")
                .with_extension(format)
                .display()
                .to_string(),
        );
    }
    let mut recorder = Recorder::start(args)?;
    recorder.wait_until_sampling()?;
    target.work_for(Duration::from_secs(2))?;
    target.finish()?;
    let recording = recorder.wait()?;
    for function in ["main.goBurn", "c_leaf1"] {
        let stacks = recording.stacks()?;
        ensure!(stacks.with_frame(function) > 0, "no {function} in {stacks:?}");
    }
    Ok((recording, folder))
}

/// Runs a command that has to succeed, and returns its output.
fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Result<String> {
    let output = command(args)?.output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}

#[test]
fn a_saved_profile_gives_the_files_that_the_recording_gave() -> Result<()> {
    let _guard = exclusive();
    let (recording, folder) = recorded()?;
    let saved = recording.pprof();
    for format in FORMATS {
        let again = folder.path().join("again").with_extension(format);
        run(["convert", text(&saved)?, text(&again)?])?;
        let recorded = fs::read(folder.path().join("out").with_extension(format))?;
        ensure!(fs::read(&again)? == recorded, ".{format} is another file");
    }
    let drawn = folder.path().join("drawn.svg");
    run(["flamegraph", text(&saved)?, "-o", text(&drawn)?])?;
    ensure!(fs::read(&drawn)? == fs::read(folder.path().join("out.svg"))?);

    // And through a format that says less, stacks and counts are the same.
    let folded = saved.with_extension("").with_extension("folded");
    let [first, second, last] = ["a.pb.gz", "b.svg", "c.folded"].map(|name| folder.path().join(name));
    run(["convert", text(&folded)?, text(&first)?])?;
    run(["convert", text(&folded)?, text(&second)?])?;
    run(["convert", text(&first)?, text(&last)?])?;
    ensure!(fs::read(&folded)? == fs::read(&last)?);
    ensure!(pprof::traced_total(&first)? == recording.stacks()?.total());
    Ok(())
}

#[test]
fn every_format_has_the_same_samples() -> Result<()> {
    let _guard = exclusive();
    let (recording, folder) = recorded()?;
    let total = recording.stacks()?.total();
    let read =
        |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(folder.path().join(name))?)?) };
    let sum = |document: &Value, list: &str, weights: &str| -> u64 {
        let parts = document[list].as_array().into_iter().flatten();
        let weights = parts.flat_map(|part| {
            part.pointer(weights)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        });
        weights.filter_map(Value::as_u64).sum()
    };
    ensure!(sum(&read("out.json")?, "threads", "/samples/weight") == total);
    let period = 1_000_000_000 / 499;
    ensure!(sum(&read("out.speedscope.json")?, "profiles", "/weights") == total * period);
    Ok(())
}

#[test]
fn a_report_counts_as_go_tool_pprof_does() -> Result<()> {
    let _guard = exclusive();
    let (recording, _folder) = recorded()?;
    let saved = recording.pprof();
    let report = run(["report", text(&saved)?, "--limit", "100000", "--min-share", "0"])?;
    let of_pprof = pprof::self_time(&saved)?;
    let mut own = BTreeMap::<&str, u64>::new();
    for row in report
        .lines()
        .skip_while(|line| !line.starts_with("self"))
        .skip(1)
    {
        let mut words = row.split_whitespace();
        let (Some(n), Some(name)) = (words.next(), words.next_back()) else {
            continue;
        };
        *own.entry(name).or_default() += n.replace(',', "").parse::<u64>()?;
    }
    for (name, n) in &of_pprof {
        ensure!(
            own.get(name.as_str()) == Some(n),
            "{name}: pprof counts {n} in\n{report}"
        );
    }
    ensure!(
        own.values().sum::<u64>() == recording.stacks()?.total(),
        "{report}"
    );
    let kind_of = |name: &str| {
        report
            .lines()
            .find(|line| line.ends_with(name))
            .map(|line| line.contains(" Go "))
    };
    ensure!(
        kind_of("main.goBurn") == Some(true) && kind_of("c_leaf1") == Some(false),
        "{report}"
    );

    let tree = run([
        "report",
        text(&saved)?,
        "--tree",
        "--focus",
        "c_leaf1",
        "--limit",
        "1000",
    ])?;
    let place = |name: &str| tree.lines().position(|line| line.ends_with(name));
    ensure!(
        place("runtime.asmcgocall") < place("c_leaf1") && place("c_leaf1").is_some(),
        "{tree}"
    );

    let twice = run(["report", text(&saved)?, text(&saved)?])?;
    let total = recording.stacks()?.total();
    // Thousands are set apart.
    let without_commas = twice.replace(',', "");
    ensure!(
        without_commas
            .matches(&format!(" {total} samples at 499 Hz"))
            .count()
            == 2,
        "{twice}"
    );
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let saved = folder.path().join("x.folded");
    fs::write(&saved, "a;b 1\n")?;
    for args in [
        vec!["report", text(&saved)?],
        vec!["doctor"],
        vec!["completions", "bash"],
        vec!["man"],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = command(&args)?.stdout(writer).output()?;
        ensure!(output.stderr.is_empty(), "{args:?}: {output:?}");
        ensure!(output.status.success(), "{args:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_used_is_named_and_nothing_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = folder.path().join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    };
    let good = file("good.folded", b"a;b 1\n")?;
    let saved = folder.path().join("good.pb.gz");
    run(["convert", text(&good)?, text(&saved)?])?;
    let whole = fs::read(&saved)?;
    let cut = file("cut.pb.gz", &whole[..whole.len() / 2])?;
    let garbage = file("garbage.pb.gz", b"this is no profile\n")?;
    let empty = file("empty.pb.gz", b"")?;
    let broken = file("broken.folded", b"a;b 1\na;b\n")?;
    let missing = folder.path().join("missing.pb.gz");
    let out = folder.path().join("out.svg");
    for (input, problem) in [
        (&cut, "gzip"),
        (&garbage, "pprof"),
        (&empty, "empty"),
        (&broken, "line 2"),
        (&missing, "No such file"),
        (&folder.path().to_path_buf(), "directory"),
    ] {
        for args in [
            vec!["report", text(input)?],
            vec!["flamegraph", text(input)?, "-o", text(&out)?],
            vec!["convert", text(input)?, text(&out)?],
        ] {
            refused(&args, &[text(input)?, problem])?;
        }
    }
    for (output, problem) in [
        ("out.txt", ".speedscope.json"),
        ("out", ".pb.gz"),
        ("no/such/out.svg", "No such file"),
        ("/sys/out.svg", "/sys/out.svg"),
    ] {
        let output = folder.path().join(output);
        refused(
            &["convert", text(&good)?, text(&output)?],
            &[text(&output)?, problem],
        )?;
    }
    let other = folder.path().join("out.folded");
    refused(
        &["flamegraph", text(&good)?, "-o", text(&other)?],
        &["out.folded", "convert"],
    )?;

    let mut left: Vec<_> = fs::read_dir(folder.path())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    left.sort();
    ensure!(
        left == [
            "broken.folded",
            "cut.pb.gz",
            "empty.pb.gz",
            "garbage.pb.gz",
            "good.folded",
            "good.pb.gz"
        ],
        "{left:?}"
    );
    Ok(())
}

/// The command fails with exit code 1, and says all of these.
fn refused(args: &[&str], words: &[&str]) -> Result<()> {
    let output = command(args)?.output()?;
    ensure!(output.status.code() == Some(1), "{args:?}: {output:?}");
    let stderr = stderr(&output);
    for word in words {
        ensure!(
            stderr.contains(word),
            "{args:?}: there is no {word:?} in:\n{stderr}"
        );
    }
    ensure!(!stderr.contains("panicked"), "{stderr}");
    Ok(())
}

#[test]
fn the_doctor_says_whether_recordings_work_here() -> Result<()> {
    let _guard = exclusive();
    let document: Value = serde_json::from_str(&run(["doctor", "--json"])?)?;
    ensure!(
        document["schema"] == 1 && document["can_record"] == true,
        "{document:#}"
    );
    let state = |document: &Value, name: &str| -> Option<String> {
        let checks = document["checks"].as_array()?;
        let check = checks.iter().find(|check| check["name"] == name)?;
        Some(check["state"].as_str()?.to_owned())
    };
    for name in ["kernel", "capabilities", "btf", "bpf_helpers", "trial"] {
        ensure!(
            state(&document, name).as_deref() == Some("ok"),
            "{name}: {document:#}"
        );
    }
    ensure!(
        run(["doctor"])?
            .trim_end()
            .lines()
            .next_back()
            .is_some_and(|line| line.starts_with("recordings work"))
    );

    let as_nobody = as_nobody(["doctor", "--json"])?;
    ensure!(as_nobody.status.code() == Some(1), "{as_nobody:?}");
    let document: Value = serde_json::from_slice(&as_nobody.stdout)?;
    ensure!(document["can_record"] == false, "{document:#}");
    ensure!(
        state(&document, "capabilities").as_deref() == Some("fails"),
        "{document:#}"
    );
    ensure!(
        state(&document, "trial").as_deref() == Some("open"),
        "{document:#}"
    );
    ensure!(document.to_string().contains("sudo"), "{document:#}");
    Ok(())
}

#[test]
fn bash_completes_commands_options_and_values() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("profiler.bash");
    fs::write(&script, run(["completions", "bash"])?)?;
    let complete = |words: &str, at: u32| -> Result<Vec<String>> {
        let output = Command::new("bash")
            .args(["--norc", "-euc"])
            .arg(format!(
                "source '{}'; complete -p profiler >&2; COMP_WORDS=(profiler {words}); COMP_CWORD={at}; \
                 _profiler profiler \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$COMP_CWORD-1]}}\"; \
                 printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                script.display()
            ))
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(stderr(&output).contains("-F _profiler profiler"), "{output:?}");
        Ok(String::from_utf8(output.stdout)?
            .lines()
            .map(str::to_owned)
            .collect())
    };
    ensure!(complete("rec", 1)? == ["record"]);
    ensure!(complete("report --so", 2)? == ["--sort"]);
    ensure!(complete("report --sort ''", 3)? == ["self", "total"]);
    for shell in ["zsh", "fish"] {
        let script = run(["completions", shell])?;
        ensure!(
            script.contains("flamegraph") && script.contains("min-share"),
            "{shell}: {script}"
        );
    }
    refused(&["completions", "tcsh"], &["tcsh", "fish"])
}

#[test]
fn each_command_has_a_manual_page() -> Result<()> {
    let folder = tempfile::tempdir()?;
    run(["man", text(folder.path())?])?;
    let help = run(["--help"])?;
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|&command| command != "help");
    let mut pages: Vec<String> = commands.map(|command| format!("profiler-{command}.1")).collect();
    ensure!(pages.len() >= 8, "{help}");
    pages.push("profiler.1".to_owned());
    for page in &pages {
        let path = folder.path().join(page);
        // With every warning on, and no output.
        let output = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-z"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .context("cannot run groff")?;
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{page}: {output:?}"
        );
    }
    ensure!(fs::read_dir(folder.path())?.count() == pages.len());
    ensure!(run(["man"])? == fs::read_to_string(folder.path().join("profiler.1"))?);
    refused(&["man", "/no/such/directory"], &["/no/such/directory"])
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
