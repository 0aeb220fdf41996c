//! Writing and reading, against ourselves, Go's tools and damaged files.

use super::tables::Limits;
use super::{decode, encode, proto, read, write};
use crate::format::testing::{self, Recording, said};
use crate::format::{Error, folded};
use crate::profile::{Frame, Kind, Measure, Missing, Origin, Profile};
use flate2::Compression;
use flate2::write::GzEncoder;
use profiler_abi::stop::StopReason;
use prost::Message;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn plain(profile: &Profile) -> Vec<u8> {
    encode::profile(profile).encode_to_vec()
}

/// Every field of a frame, every kind and origin, names that need care.
fn peculiar() -> Profile {
    let mut r = Recording::new();
    let module = r.module("/opt/a b;c\n", 0x1000);
    let empty = r.module("", 0x9000);
    let kinds = [Kind::Kernel, Kind::Go, Kind::Native, Kind::Rust, Kind::Unknown];
    let origins = [Origin::Kernel, Origin::Walked, Origin::Hook];
    let mut frames = Vec::new();
    for (at, kind) in kinds.into_iter().enumerate() {
        for origin in origins {
            for inlined in [false, true] {
                frames.push(r.any_frame(Frame {
                    // The same name for all: they must not be taken for one function.
                    function: "f;\u{202e}\"<&>".to_owned(),
                    system_name: (at % 2 == 0).then(|| "_ZN1fE".to_owned()),
                    file: (at % 3 == 0).then(|| "/src/ß.c".to_owned()),
                    line: (at % 3 == 0).then_some(u32::MAX),
                    start_line: (at % 3 == 0).then_some(1),
                    module: [Some(module), None, Some(empty)][at % 3],
                    address: u64::MAX - at as u64,
                    kind,
                    origin,
                    inlined,
                }));
            }
        }
    }
    // Its last frame, the leaf, must not decide whether the sample interrupted the kernel.
    let leaf = r.any_frame(Frame {
        function: "leaf".to_owned(),
        system_name: None,
        file: None,
        line: None,
        start_line: None,
        module: None,
        address: 0,
        kind: Kind::Native,
        origin: Origin::Walked,
        inlined: false,
    });
    frames.push(leaf);
    for (n, &stop) in StopReason::ALL.iter().enumerate() {
        let n = n as u32;
        r.sample((1, n, "a\"b"), &frames, stop, false, 3);
        r.sample((2, n, ""), &[leaf], stop, true, u64::from(n) + 1);
        r.sample((0, 0, "swapper"), &[], stop, false, 7);
    }
    let missing = |module: &str, samples| Missing {
        module: module.to_owned(),
        samples,
        reason: "line 1\nline=2 \"quoted\"".to_owned(),
    };
    r.lost(12, 34, vec![missing("/lib/x=y.so", 9), missing("", 1)]);
    r.finish()
}

fn assert_same(read: &Profile, written: &Profile) {
    assert_eq!(read.meta, written.meta);
    assert_eq!(read.summary, written.summary);
    assert_eq!(said(read), said(written));
    assert_eq!(read.modules, written.modules);
    assert_eq!(read.threads.len(), written.threads.len());
    assert_eq!(folded::write(read), folded::write(written));
}

#[test]
fn what_was_written_is_read_back_whole() {
    for profile in [testing::mixed(), peculiar()] {
        assert_same(&read(&write(&profile).unwrap()).unwrap(), &profile);
        assert_same(&read(&plain(&profile)).unwrap(), &profile);
    }
}

#[test]
fn a_physical_frame_is_one_location_with_its_inlined_functions() {
    let message = encode::profile(&testing::mixed());
    let string = |at: i64| message.string_table[at as usize].as_str();
    let lines: Vec<Vec<&str>> = message
        .location
        .iter()
        .map(|location| {
            let function = |line: &proto::Line| &message.function[line.function_id as usize - 1];
            location
                .line
                .iter()
                .map(|line| string(function(line).name))
                .collect()
        })
        .collect();
    assert!(
        lines.contains(&vec!["internal/bytealg.IndexByteString", "strings.Index"]),
        "{lines:?}"
    );
    assert!(lines.contains(&vec!["main.main"]), "{lines:?}");
    // Kernel stack, nameless code and notes included, each place is there once.
    assert_eq!(message.location.len(), 16);
}

#[test]
fn time_off_the_cpu_comes_back() {
    let mut profile = testing::mixed();
    profile.meta.measure = Measure::OffCpu;
    profile.meta.frequency_hz = 0;
    let back = read(&write(&profile).unwrap()).unwrap();
    assert_eq!(back.meta.measure, Measure::OffCpu);
    assert_eq!(folded::write(&back), folded::write(&profile));
}

#[test]
fn the_head_says_what_is_measured_and_how() {
    let message = encode::profile(&testing::mixed());
    let string = |at: i64| message.string_table[at as usize].as_str();
    let pair = |t: &proto::ValueType| (string(t.r#type), string(t.unit));
    assert_eq!(
        message.sample_type.iter().map(pair).collect::<Vec<_>>(),
        [("samples", "count"), ("cpu", "nanoseconds")]
    );
    assert_eq!(
        message.period_type.as_ref().map(pair),
        Some(("cpu", "nanoseconds"))
    );
    assert_eq!(message.period, 1_003_009);
    assert_eq!(string(message.default_sample_type), "cpu");
    assert_eq!(message.time_nanos, 1_700_000_000_123_456_789);
    assert_eq!(message.duration_nanos, 5_040_000_000);
    let comments: Vec<&str> = message.comment.iter().map(|&at| string(at)).collect();
    assert_eq!(
        comments[1..],
        [
            "format=1",
            "program=server",
            "pids=4711",
            "fact.kernel=6.1.0",
            "fact.go=go1.26.0 X=y",
            "summary.kept=100",
            "summary.complete=94",
            "summary.from_kernel=6",
            "summary.lost_ring_full=5",
            "summary.lost_ticks=0",
            "summary.withheld_ticks=0",
            r#"missing=[3,"/lib/libz.so.1","it is stripped; install zlib1g-dbgsym"]"#,
        ]
    );
    let flags: Vec<_> = message
        .mapping
        .iter()
        .map(|m| {
            (
                string(m.filename),
                m.has_functions,
                m.has_filenames,
                m.has_line_numbers,
                m.has_inline_frames,
            )
        })
        .collect();
    assert_eq!(
        flags,
        [
            ("/srv/server", true, true, true, true),
            ("/lib/libz.so.1", true, false, false, false),
            ("[kernel]", true, false, false, false),
        ]
    );
}

/// What a file means when another tool has written it anew and dropped the fields it does not know.
#[test]
fn without_our_fields_kinds_are_guessed_and_stacks_are_the_same() {
    let profile = testing::mixed();
    let mut message = encode::profile(&profile);
    message.function.iter_mut().for_each(|function| function.kind = 0);
    message
        .location
        .iter_mut()
        .for_each(|location| location.origin = 0);
    message.comment.clear();
    let again = read(&message.encode_to_vec()).unwrap();
    // The nameless frame is the only one that cannot be told.
    let mut expected = said(&profile);
    for (frame, _) in expected.iter_mut().flat_map(|row| &mut row.1) {
        if frame.kind == Kind::Unknown {
            frame.kind = Kind::Native;
        }
    }
    expected.sort_by_key(|row| format!("{row:?}"));
    assert_eq!(said(&again), expected);
    assert_eq!(again.meta.program, "server");
    assert_eq!(again.meta.pids, [9, 4711]);
    assert_eq!(again.summary.by_stop, profile.summary.by_stop);
}

#[test]
fn a_note_alone_gives_the_reason_of_a_sample_without_labels() {
    let mut message = encode::profile(&testing::mixed());
    message.sample.iter_mut().for_each(|sample| sample.label.clear());
    let again = read(&message.encode_to_vec()).unwrap();
    assert_eq!(again.summary.by_stop, testing::mixed().summary.by_stop);
    assert_eq!(again.threads.len(), 1);
    assert_eq!((again.threads[0].tid, &*again.threads[0].name), (0, "server"));
}

#[test]
fn addresses_that_nobody_named_are_called_by_module_and_offset() {
    let mut message = encode::profile(&testing::mixed());
    for location in &mut message.location {
        location.line.clear();
    }
    let again = read(&message.encode_to_vec()).unwrap();
    let exe = again
        .frames
        .iter()
        .find(|frame| frame.module.is_some_and(|m| m.0 == 0))
        .unwrap();
    let offset = exe.address - 0x40_0000 + 0x1000;
    assert_eq!(exe.function, format!("[server+{offset:#x}]"));
    assert_eq!(exe.kind, Kind::Unknown);
}

fn pprof(file: &Path, arguments: &[&str]) -> String {
    let output = Command::new("go")
        .args(["tool", "pprof", "-symbolize=none"])
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The stacks that `go tool pprof -traces` prints, as folded lines.
fn traces(text: &str) -> BTreeMap<String, u64> {
    let mut stacks = BTreeMap::new();
    for block in text.split("-----------+-------------------------------------------------------") {
        let (mut thread, mut count, mut frames) = ("", None, Vec::new());
        for line in block.lines().filter(|line| line.starts_with(' ')) {
            let line = line.trim();
            match line.split_once("  ").map(|(a, b)| (a, b.trim())) {
                Some(("thread:", name)) => thread = name,
                Some((key, _)) if key.ends_with(':') => {}
                Some((n, leaf)) if count.is_none() => {
                    count = n.trim().parse::<u64>().ok();
                    frames.push(leaf);
                }
                _ => frames.push(line),
            }
        }
        if let Some(count) = count {
            frames.push(thread);
            let stack: Vec<&str> = frames
                .iter()
                .rev()
                .map(|f| f.trim_end_matches(" (inline)"))
                .collect();
            *stacks.entry(stack.join(";")).or_default() += count;
        }
    }
    stacks
}

#[test]
fn go_tool_pprof_shows_the_stacks_of_the_folded_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.pb.gz");
    std::fs::write(&file, write(&testing::mixed()).unwrap()).unwrap();

    let expected: BTreeMap<String, u64> = folded::write(&testing::mixed())
        .replace("_[k]", "")
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(stack, count)| (stack.to_owned(), count.parse().unwrap()))
        .collect();
    assert_eq!(expected.values().sum::<u64>(), 100);
    assert_eq!(
        traces(&pprof(&file, &["-traces", "-sample_index=samples"])),
        expected
    );

    let top = pprof(&file, &["-top", "-sample_index=samples"]);
    assert!(top.contains("100% of 100 total"), "{top}");
    let top = pprof(&file, &["-top"]);
    assert!(
        top.contains("Type: cpu") && top.contains("Duration: 5.04s"),
        "{top}"
    );
    assert!(top.contains("File: server"), "{top}");
    let tags = pprof(&file, &["-tags", "-sample_index=samples"]);
    for tag in [
        "stop: Total 6 ",
        "mode: Total 6 ",
        "thread: Total 100",
        "pid: Total 100",
        "no-user-stack",
    ] {
        assert!(tags.contains(tag), "{tag}: {tags}");
    }
}

#[test]
fn what_go_tool_pprof_has_rewritten_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.pb.gz");
    let profile = testing::mixed();
    std::fs::write(&file, write(&profile).unwrap()).unwrap();
    let rewritten = directory.path().join("rewritten.pb.gz");
    pprof(&file, &["-proto", "-output", rewritten.to_str().unwrap()]);

    let again = read(&std::fs::read(rewritten).unwrap()).unwrap();
    assert_eq!(folded::write(&again), folded::write(&profile));
    assert_eq!(again.summary, profile.summary);
    assert_eq!(again.meta.facts, profile.meta.facts);
}

const BUSY: &str = r#"
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

//go:noinline
func busy(end time.Time) (n int) {
	for time.Now().Before(end) {
		for i := 0; i < 100000; i++ {
			n += i % 7
		}
	}
	return n
}

func main() {
	cpu, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(cpu)
	runtime.KeepAlive(busy(time.Now().Add(600 * time.Millisecond)))
	pprof.StopCPUProfile()
	cpu.Close()
	heap, _ := os.Create(os.Args[2])
	pprof.WriteHeapProfile(heap)
	heap.Close()
}
"#;

#[test]
fn profiles_of_a_real_go_program_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("main.go"), BUSY).unwrap();
    let status = Command::new("go")
        .args(["build", "-o", "busy", "main.go"])
        .current_dir(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let status = Command::new(path("busy"))
        .args([path("cpu"), path("heap")])
        .status()
        .unwrap();
    assert!(status.success());

    let profile = read(&std::fs::read(path("cpu")).unwrap()).unwrap();
    assert_eq!(profile.meta.program, "busy");
    assert_eq!(profile.meta.frequency_hz, 100);
    assert!(
        profile
            .frames
            .iter()
            .any(|f| f.function == "main.busy" && f.kind == Kind::Go)
    );
    let text = folded::write(&profile);
    assert!(text.contains("busy;runtime.main;main.main;main.busy"), "{text}");
    // Go's own reader agrees about every stack.
    let theirs = traces(&pprof(&path("cpu"), &["-traces", "-sample_index=samples"]));
    let ours: BTreeMap<String, u64> = text
        .lines()
        .map(|line| line.strip_prefix("busy").unwrap().rsplit_once(' ').unwrap())
        .map(|(stack, count)| (stack.to_owned(), count.parse().unwrap()))
        .collect();
    assert_eq!(ours, theirs);

    let error = read(&std::fs::read(path("heap")).unwrap()).unwrap_err();
    assert!(matches!(error, Error::NotCpu { .. }), "{error}");
    assert!(error.to_string().contains("alloc_space/bytes"), "{error}");
}

#[test]
fn what_is_no_profile_is_refused_with_the_reason() {
    let gz = |bytes: &[u8]| {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    };
    for (bytes, reason) in [
        (vec![], "it is empty"),
        (gz(b""), "it is empty"),
        (b"main;foo 3\n".to_vec(), "neither gzip nor protobuf"),
        (b"<?xml version=\"1.0\"?>".to_vec(), "neither gzip nor protobuf"),
        (b"{\"schema\": 1}".to_vec(), "neither gzip nor protobuf"),
        (b"\x7fELF\x02\x01\x01".to_vec(), "neither gzip nor protobuf"),
        (gz(b"main;foo 3\n"), "neither gzip nor protobuf"),
        (b"\x1f\x8bnonsense".to_vec(), "gzip data cannot be unpacked"),
        (
            gz(&plain(&testing::mixed()))[..200].to_vec(),
            "gzip data cannot be unpacked",
        ),
        (plain(&testing::mixed())[..200].to_vec(), "ends in the middle"),
        // Only an unknown field.
        (vec![0xa0, 0x06, 1], "no sample_type"),
        (plain(&testing::empty()), "the profile has no samples"),
    ] {
        let message = read(&bytes).unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn references_to_nothing_are_damage() {
    let broken = |change: fn(&mut proto::Profile)| {
        let mut message = encode::profile(&testing::mixed());
        change(&mut message);
        read(&message.encode_to_vec()).unwrap_err().to_string()
    };
    for (message, what) in [
        (
            broken(|p| p.sample[0].location_id[0] = 99),
            "there is no location 99",
        ),
        (
            broken(|p| p.location[0].mapping_id = 99),
            "there is no mapping 99",
        ),
        (
            broken(|p| p.location[0].line[0].function_id = 99),
            "there is no function 99",
        ),
        (broken(|p| p.function[0].name = -1), "there is no string -1"),
        (
            broken(|p| p.sample[0].label[0].key = i64::MAX),
            "there is no string 9223372036854775807",
        ),
        (broken(|p| p.location[1].id = 1), "there are two locations 1"),
        (broken(|p| p.function[1].id = 1), "there are two functions 1"),
        (broken(|p| p.mapping[1].id = 1), "there are two mappings 1"),
        (broken(|p| p.sample[0].value.clear()), "a sample has 0 values"),
        (broken(|p| p.sample[0].value[0] = -5), "negative count"),
        (
            broken(|p| p.sample.iter_mut().for_each(|s| s.value[0] = i64::MAX)),
            "more than 63 bits",
        ),
        (
            broken(|p| p.string_table[0] = "x".to_owned()),
            "first string is not empty",
        ),
        (
            broken(|p| p.string_table[1] = "x".repeat(1 << 21)),
            "a string of 2097152 bytes",
        ),
        (
            broken(|p| p.sample[0].location_id = vec![1; 1 << 21]),
            "a sample of 2",
        ),
        (
            broken(|p| p.sample[0].location_id = vec![1; 200_000]),
            "more than 131072 frames",
        ),
    ] {
        assert!(
            message.contains("damaged") && message.contains(what),
            "{what}: {message}"
        );
    }
}

#[test]
fn no_damaged_file_brings_the_reader_down() {
    let bytes = plain(&testing::mixed());
    let survive = |bytes: &[u8]| match read(bytes) {
        // What is accepted can be written again.
        Ok(profile) => assert!(!plain(&profile).is_empty() && !folded::write(&profile).is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    for end in 0..bytes.len() {
        survive(&bytes[..end]);
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            survive(&flipped);
        }
    }
    let zipped = write(&testing::mixed()).unwrap();
    for at in 0..zipped.len() {
        let mut flipped = zipped.clone();
        flipped[at] ^= 0x10;
        survive(&flipped);
    }
}

#[test]
fn a_gzip_bomb_is_refused_before_it_fills_the_memory() {
    let limits = Limits {
        unpacked: 1 << 20,
        ..Limits::default()
    };
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    // A string table of 4 MiB of nothing.
    gz.write_all(&[0x32, 0].repeat(2 << 20)).unwrap();
    let bomb = gz.finish().unwrap();
    assert!(bomb.len() < 1 << 16);
    let error = decode::profile(&bomb, limits).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { what: "the unpacked file", limit } if limit == 1 << 20),
        "{error}"
    );
    assert_eq!(Limits::default().unpacked, 1 << 30);
}

#[test]
fn small_files_cannot_ask_for_large_tables() {
    let limits = Limits {
        tables: 1 << 20,
        ..Limits::default()
    };
    let refused = |change: fn(&mut proto::Profile)| {
        let mut message = encode::profile(&testing::mixed());
        change(&mut message);
        let bytes = message.encode_to_vec();
        assert!(bytes.len() < 1 << 20, "{}", bytes.len());
        let error = decode::profile(&bytes, limits).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    };
    assert!(decode::profile(&plain(&testing::mixed()), limits).is_ok());
    // Empty strings, 2 bytes each.
    refused(|p| p.string_table.resize(100_000, String::new()));
    // Empty comments, 1 byte each.
    refused(|p| p.comment.resize(500_000, 0));
    // Empty mappings.
    refused(|p| {
        p.mapping.extend((10..60_000).map(|id| proto::Mapping {
            id,
            ..Default::default()
        }))
    });
    // A location of many lines.
    refused(|p| p.location[0].line.resize(100_000, proto::Line::default()));
    // One long name, in many places.
    refused(|p| {
        p.function[0].name = p.string_table.len() as i64;
        p.string_table.push("x".repeat(100_000));
        let line = proto::Line {
            function_id: 1,
            line: 0,
        };
        p.location[0].line = (0..20).map(|at| proto::Line { line: at, ..line }).collect();
    });
    // Deep stacks that share nothing.
    refused(|p| {
        let sample = p.sample[0].clone();
        for at in 0..20 {
            let mut deep = sample.clone();
            deep.location_id = (0..10_000).map(|i| 1 + u64::from(i % 7 == at)).collect();
            p.sample.push(deep);
        }
    });
    // Many samples of one deep stack, which cost nothing but time.
    refused(|p| {
        let mut deep = p.sample[0].clone();
        deep.location_id = vec![1; 5_000];
        p.sample.extend(std::iter::repeat_n(deep, 190));
    });
    // A thread of its own for every sample.
    refused(|p| {
        let sample = p.sample[0].clone();
        for tid in 0..10_000 {
            let mut other = sample.clone();
            other.label[1].num = tid;
            p.sample.push(other);
        }
    });
}

#[test]
fn a_file_of_a_newer_version_is_refused_as_such() {
    let mut message = encode::profile(&testing::mixed());
    let format = message
        .string_table
        .iter_mut()
        .find(|text| *text == "format=1")
        .unwrap();
    *format = "format=2".to_owned();
    let error = read(&encode::gzip(&message).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 2, known: 1 }), "{error}");
}
