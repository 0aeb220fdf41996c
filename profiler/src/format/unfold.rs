//! Folded stacks back in: the files of [`super::folded`], and those of other tools.
//!
//! What stands first in a line is taken for the name of the thread, as in our files and in those of
//! `stackcollapse-perf.pl`; where it is something else, a flame graph looks the same all the same. Kernel functions
//! are known by `_[k]`, stacks that are not whole by their notes; what else a profile has, a file of folded stacks
//! does not say: ids, addresses, files, lines, kinds of code other than the kernel, and how long a sample is.

use super::folded::KERNEL_SUFFIX;
use super::{Error, stack};
use crate::profile::{Builder, Frame, Kind, Measure, Meta, Origin, Profile, Roots, Summary, Thread};
use profiler_abi::stop::StopReason;
use std::time::{Duration, UNIX_EPOCH};

/// The most distinct parts of stacks: about a gigabyte of memory.
const MAX_NODES: usize = 1 << 24;

/// The name of the thread where a line has nothing but a function.
const NO_THREAD: &str = "[no thread]";

/// Reads a file of folded stacks. Empty lines and comments (`# …`) are passed over.
///
/// # Errors
/// [`Error::NotFolded`] names the line; [`Error::NoSamples`], [`Error::FoldedTooLarge`].
pub fn read(bytes: &[u8]) -> Result<Profile, Error> {
    let mut builder = Builder::default();
    let mut summary = Summary::default();
    let mut program = None;
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |problem| Error::NotFolded {
            line: at + 1,
            problem,
        };
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(wrong("is not text"));
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (stack, count) = line
            .rsplit_once(' ')
            .ok_or(wrong("has no count behind its stack"))?;
        let count: u64 = count
            .parse()
            .ok()
            .ok_or(wrong("does not end in a number of samples"))?;
        let stack = stack.trim_end();
        if ends_in_number(stack) {
            return Err(wrong("has two counts, as in a difference of two profiles"));
        }
        if count == 0 {
            continue;
        }
        let (thread, frames) = stack.split_once(';').unwrap_or((NO_THREAD, stack));
        program.get_or_insert(thread);
        let (stop, frames) = unnoted(frames);
        let from_kernel = frames.is_some_and(|frames| frames.ends_with(KERNEL_SUFFIX));
        let thread = builder.thread(Thread {
            pid: 0,
            tid: 0,
            name: thread.to_owned(),
            process: String::new(),
        });
        let mut ids = Vec::new();
        for name in frames.into_iter().flat_map(|frames| frames.split(';')) {
            ids.push(builder.frame(frame(name)));
        }
        builder.sample(thread, ids, stop, from_kernel, count);
        if builder.stack_nodes() > MAX_NODES {
            return Err(Error::FoldedTooLarge { limit: MAX_NODES });
        }
        summary.kept = summary
            .kept
            .checked_add(count)
            .filter(|&kept| i64::try_from(kept).is_ok())
            .ok_or(wrong("makes the sum of all counts more than 63 bits"))?;
        *summary.by_stop.entry(stop).or_default() += count;
        if from_kernel {
            summary.from_kernel += count;
        }
    }
    let program = program.ok_or(Error::NoSamples)?.to_owned();
    let meta = Meta {
        program,
        pids: Vec::new(),
        start: UNIX_EPOCH,
        duration: Duration::ZERO,
        frequency_hz: 0,
        facts: Vec::new(),
        measure: Measure::default(),
        roots: Roots::default(),
    };
    Ok(builder.finish(meta, summary))
}

/// A name of ours never does: see [`super::folded`].
fn ends_in_number(stack: &str) -> bool {
    stack.rsplit_once(' ').is_some_and(|(_, last)| {
        !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// The reason that a note gives, and the frames behind it.
fn unnoted(frames: &str) -> (StopReason, Option<&str>) {
    let (first, rest) = match frames.split_once(';') {
        Some((first, rest)) => (first, Some(rest)),
        None => (frames, None),
    };
    match stack::stop_of_note(first.as_bytes()) {
        Some(stop) => (stop, rest),
        None => (StopReason::Root, Some(frames)),
    }
}

fn frame(name: &str) -> Frame {
    let (function, kind) = match name.strip_suffix(KERNEL_SUFFIX) {
        Some(function) => (function, Kind::Kernel),
        None if is_nameless(name) => (name, Kind::Unknown),
        None => (name, Kind::Native),
    };
    Frame {
        function: function.to_owned(),
        system_name: None,
        file: None,
        line: None,
        start_line: None,
        module: None,
        address: 0,
        kind,
        origin: match kind {
            Kind::Kernel => Origin::Kernel,
            _ => Origin::Walked,
        },
        inlined: false,
    }
}

/// `[libfoo.so+0x1234]`.
fn is_nameless(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .and_then(|name| name.rsplit_once("+0x"))
        .is_some_and(|(_, offset)| offset.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::format::{Error, folded, pprof, testing};
    use crate::profile::Kind;
    use profiler_abi::stop::StopReason;

    #[test]
    fn our_own_files_come_back_as_they_were() {
        let text = folded::write(&testing::mixed());
        let profile = read(text.as_bytes()).unwrap();
        assert_eq!(folded::write(&profile), text);
        let summary = &profile.summary;
        assert_eq!(
            (summary.kept, summary.complete(), summary.from_kernel),
            (100, 94, 6)
        );
        assert_eq!(summary.by_stop[&StopReason::NoMapping], 1);
        let kind = |name: &str| profile.frames.iter().find(|f| f.function == name).unwrap().kind;
        assert_eq!(kind("handle_mm_fault"), Kind::Kernel);
        assert_eq!(kind("[libz.so.1+0x1f30]"), Kind::Unknown);
        assert_eq!(kind("deflate"), Kind::Native);
    }

    #[test]
    fn as_pprof_they_are_counted_and_have_no_time() {
        let text = folded::write(&testing::mixed());
        let saved = pprof::write(&read(text.as_bytes()).unwrap()).unwrap();
        let profile = pprof::read(&saved).unwrap();
        assert_eq!(profile.meta.frequency_hz, 0);
        assert_eq!(profile.period_ns(), 0);
        assert_eq!(folded::write(&profile), text);
    }

    #[test]
    fn files_of_other_tools_can_be_read() {
        let text = "# a comment\r\n\r\njava;Main.run;a b 3\r\nmain 2\nx;;y 1\nx;gone 0";
        let profile = read(text.as_bytes()).unwrap();
        assert_eq!(
            folded::write(&profile),
            "[no thread];main 2\njava;Main.run;a b 3\nx;[no name];y 1\n"
        );
    }

    #[test]
    fn what_is_no_folded_stack_is_answered_with_the_line() {
        for (text, line, problem) in [
            (&b"a;b 1\n\x1f\x8b\xff 2"[..], 2, "not text"),
            (b"a;b 1\na;b", 2, "no count"),
            (b"a;b c", 1, "number of samples"),
            (b"a;b -1", 1, "number of samples"),
            (b"a;b 1 2", 1, "two counts"),
            (b"a;b 9223372036854775807\na;c 1", 2, "63 bits"),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                matches!(error, Error::NotFolded { line: at, .. } if at == line),
                "{error}"
            );
            assert!(error.to_string().contains(problem), "{error}");
        }
        for nothing in ["", "\n\n", "# 1\n", "a;b 0\n"] {
            assert!(
                matches!(read(nothing.as_bytes()), Err(Error::NoSamples)),
                "{nothing:?}"
            );
        }
    }
}
