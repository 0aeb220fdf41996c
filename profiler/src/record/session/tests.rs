//! Asking sampled threads, on the running kernel.

use super::{HookMode, Options, Session};
use crate::addr::Svma;
use crate::profile::Roots;
use crate::sampler::{self, NotAsked, Question, Record, parse};
use crate::target::maps::MapEntry;
use crate::target::process::Process;
use crate::unwind::danger;
use profiler_abi::sample::{Header, UserWord};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Of the target: see testdata/asked.c.
const SIGNAL: u32 = 40;

/// `SI_KERNEL` (include/uapi/asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;

/// The program of testdata/asked.c, running; what it prints; and the address of its handler.
fn target(folder: &tempfile::TempDir) -> (Child, BufReader<std::process::ChildStdout>, u64) {
    let program = folder.path().join("asked");
    let source = folder.path().join("asked.c");
    std::fs::write(&source, include_str!("../testdata/asked.c")).unwrap();
    let built = Command::new("gcc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let handler = line.trim().strip_prefix("0x").unwrap();
    (child, output, u64::from_str_radix(handler, 16).unwrap())
}

/// (thread, interrupted instruction, what the signal carried) → how often.
type Places = BTreeMap<(u32, u64, u64), u64>;

/// Asks the threads of `pid` for a while: the places of the samples that asked, and the counts.
async fn ask(pid: u32, handler: u64, per_window: u32, time: Duration) -> (Places, sampler::AskedCounts) {
    let mut session = Session::new(Options {
        sampling: sampler::Options {
            frequency_hz: 4999,
            max_frames: 64,
            kernel_frames: false,
            follow_children: false,
            scope: sampler::Scope::Listed,
            event: sampler::Event::Tick,
        },
        hooks: HookMode::Off,
        roots: Roots::default(),
        title: String::new(),
        debuginfod: None,
    })
    .unwrap();
    session.watch(Process::open(pid).unwrap()).await.unwrap();
    let question = Question {
        signal: SIGNAL,
        handler,
        per_window,
        filters: 0,
    };
    session.targets.ask(pid, Some(&question));
    session.start().unwrap();
    let begun = Instant::now();
    let mut asked = Places::new();
    while begun.elapsed() < time {
        drain(&mut session, &mut asked);
        std::thread::yield_now();
    }
    session.targets.ask(pid, None);
    session.sampler.stop();
    drain(&mut session, &mut asked);
    (asked, session.sampler.asked().unwrap())
}

fn drain(session: &mut Session, asked: &mut Places) {
    while let Some(bytes) = session.sampler.next_record() {
        if let Some(Record::Sample(sample)) = parse(&bytes)
            && sample.header.flags & Header::ASKED != 0
        {
            assert_eq!(sample.header.flags & Header::FROM_KERNEL, 0);
            let leaf = sample.user().next().map(UserWord::decode);
            let Some(UserWord::Exact(pc)) = leaf else {
                panic!("not a leaf: {leaf:?}");
            };
            let carried = sample.header.flags & Header::COOKIE != 0;
            let cookie = if carried { sample.header.time_ns } else { 0 };
            *asked.entry((sample.header.tid, pc, cookie)).or_default() += 1;
        }
    }
}

/// Lets the target end: the places where it handled the signal.
fn finish(mut child: Child, mut output: impl Read) -> Places {
    drop(child.stdin.take());
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("interrupted 0"),
        "no system call may be interrupted"
    );
    let mut handled = Places::new();
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[tid, pc, code, cookie] = &fields[..] else {
            panic!("{line:?}")
        };
        assert_eq!(code.parse(), Ok(SI_KERNEL));
        let pc = u64::from_str_radix(pc, 16).unwrap();
        let place = (tid.parse().unwrap(), pc, cookie.parse().unwrap());
        *handled.entry(place).or_default() += 1;
    }
    handled
}

/// Whether the code at `pc` is of the allocator of the C library, whose text is at its offset in the file.
fn is_in_allocator(maps: &[MapEntry], pc: u64) -> bool {
    let Some(entry) = maps.iter().find(|entry| (entry.start..entry.end).contains(&pc)) else {
        return false;
    };
    let Ok(bytes) = std::fs::read(entry.path()) else {
        return false;
    };
    let file = object::File::parse(&bytes[..]).unwrap();
    let address = Svma(pc - entry.start + entry.offset);
    danger::zones(&file).iter().any(|zone| zone.contains(&address))
}

#[tokio::test]
async fn threads_are_asked_where_they_were_sampled_and_only_if_they_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let (child, output, handler) = target(&folder);
    let maps = Process::open(child.id()).unwrap().maps().unwrap();
    let (asked, counts) = ask(child.id(), handler, u32::MAX, Duration::from_secs(2)).await;
    let handled = finish(child, output);

    // Every signal was handled, at the very instruction of its sample, and none of them in the allocator.
    assert_eq!(asked, handled);
    assert!(asked.keys().all(|&(_, pc, _)| !is_in_allocator(&maps, pc)));
    let total: u64 = asked.values().sum();
    assert_eq!(counts.asked, total);
    assert!(total > 100, "only {total} were asked");
    let threads: std::collections::BTreeSet<u32> = asked.keys().map(|&(tid, ..)| tid).collect();
    assert_eq!(
        threads.len(),
        5,
        "all but the deaf one, the filtered one and the one without room"
    );
    for (reason, n) in counts.not_asked {
        let expected = matches!(
            reason,
            NotAsked::Blocked | NotAsked::NoStack | NotAsked::Danger | NotAsked::Filtered
        );
        assert!(!expected || n > 0, "{reason:?}: {n}");
    }
}

#[tokio::test]
async fn a_process_that_ends_before_its_hooks_are_looked_at_is_said_to_have_ended() {
    let mut session = Session::new(Options {
        sampling: sampler::Options {
            frequency_hz: 99,
            max_frames: 64,
            kernel_frames: false,
            follow_children: false,
            scope: sampler::Scope::Listed,
            event: sampler::Event::Tick,
        },
        hooks: HookMode::Require,
        roots: Roots::default(),
        title: String::new(),
        debuginfod: None,
    })
    .unwrap();
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let process = Process::open(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = session.watch(process).await.unwrap_err().to_string();
    assert!(refused.ends_with("it has ended"), "{refused}");
}

#[tokio::test]
async fn no_more_threads_are_asked_than_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let (child, output, handler) = target(&folder);
    let (asked, counts) = ask(child.id(), handler, 2, Duration::from_secs(1)).await;
    assert_eq!(asked, finish(child, output));
    // Eleven windows touch a second, and each CPU may miss the count of another once.
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=11 * (2 + cpus)).contains(&counts.asked), "{counts:?}");
    assert!(!counts.not_asked.contains(&(NotAsked::Rate, 0)), "{counts:?}");
}

#[tokio::test]
async fn nobody_is_asked_whose_process_has_another_handler() {
    let folder = tempfile::tempdir().unwrap();
    let (child, output, handler) = target(&folder);
    let (asked, counts) = ask(child.id(), handler + 1, u32::MAX, Duration::from_secs(1)).await;
    assert_eq!(asked, finish(child, output));
    assert_eq!(counts.asked, 0);
    assert!(!counts.not_asked.contains(&(NotAsked::Replaced, 0)), "{counts:?}");
}
