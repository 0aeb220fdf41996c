//! The closing table of a run: what was taken, kept and lost, as text and as JSON.

use super::escape;
use super::text::{percent, pretty_json, thousands};
use crate::profile::{HookAnswers, HookNames, OffCpu, Profile, Summary};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Modules without symbols that the text lists; the JSON has all of them.
const MAX_MODULES: usize = 10;

/// A table for a terminal, ended by a newline. What comes from the target is escaped.
pub fn text(profile: &Profile) -> String {
    let mut table = Table::default();
    match &profile.summary.off_cpu {
        Some(account) => off_cpu(&mut table, profile, account),
        None => samples(&mut table, profile),
    }
    lost(&mut table, &profile.summary);
    if profile.summary.labels_cut > 0 {
        table.row(
            0,
            "labels cut",
            profile.summary.labels_cut,
            "samples whose goroutine had more than 8 labels, or one of more than 128 bytes",
        );
    }
    hooks(&mut table, profile.summary.hooks.as_ref());
    hook_names(&mut table, profile.summary.hook_names.as_ref());
    let mut out = table.render();
    missing(&mut out, &profile.summary);
    debug_files(&mut out, &profile.summary);
    out
}

fn samples(table: &mut Table, profile: &Profile) {
    let summary = &profile.summary;
    let (seconds, hz) = (profile.meta.duration.as_secs_f64(), profile.meta.frequency_hz);
    let share = |n| percent(n, summary.kept);
    let early = summary.kept.saturating_sub(summary.complete());
    table.row(
        0,
        "samples",
        summary.kept,
        format!("in {seconds:.1} s at {hz} Hz"),
    );
    if summary.kept == 0 {
        return;
    }
    table.row(1, "complete", summary.complete(), share(summary.complete()));
    table.row(1, "ended early", early, share(early));
    for (stop, &n) in summary.by_stop.iter().filter(|(stop, _)| !stop.is_complete()) {
        table.row(2, stop.label(), n, stop.sentence());
    }
    table.row(
        1,
        "in the kernel",
        summary.from_kernel,
        share(summary.from_kernel),
    );
}

fn off_cpu(table: &mut Table, profile: &Profile, account: &OffCpu) {
    let summary = &profile.summary;
    let OffCpu {
        min,
        blocks,
        short,
        short_time,
        without_room,
        still,
    } = *account;
    let ms = |ns: u64| ns / 1_000_000;
    let share = |ns| format!("ms, {}", percent(ns, summary.kept));
    let seconds = profile.meta.duration.as_secs_f64();
    let (blocks, at_least) = (thousands(blocks), min.as_secs_f64() * 1e3);
    table.row(
        0,
        "off the CPU",
        ms(summary.kept),
        format!("ms in {seconds:.1} s, in {blocks} waits of at least {at_least} ms"),
    );
    if summary.kept > 0 {
        table.row(1, "complete", ms(summary.complete()), share(summary.complete()));
        for (stop, &ns) in summary.by_stop.iter().filter(|(stop, _)| !stop.is_complete()) {
            table.row(1, stop.label(), ms(ns), format!("ms: {}", stop.sentence()));
        }
    }
    let short_ms = short_time.as_secs_f64() * 1e3;
    table.row(
        0,
        "shorter",
        short,
        format!("waits, {short_ms:.1} ms in all: not in the profile"),
    );
    table.row(
        0,
        "not over",
        still,
        "waits when the recording ended: not in the profile",
    );
    if without_room > 0 {
        table.row(
            0,
            "no room",
            without_room,
            "waits of more threads than there was room for: not in the profile",
        );
    }
}

fn lost(table: &mut Table, summary: &Summary) {
    table.row(0, "lost", summary.lost(), "");
    let causes = [
        (
            "ring-full",
            summary.lost_ring_full,
            "the ring buffer was full: we did not drain it fast enough",
        ),
        (
            "ticks",
            summary.lost_ticks,
            "the kernel put the sampling clock off while it ran for the target",
        ),
    ];
    for (label, n, sentence) in causes.into_iter().filter(|(_, n, _)| *n > 0) {
        table.row(1, label, n, sentence);
    }
    if summary.withheld_ticks > 0 {
        table.row(
            0,
            "withheld",
            summary.withheld_ticks,
            "ticks while a hypervisor or a long interrupt had the CPU: the target did not run",
        );
    }
}

fn hooks(table: &mut Table, hooks: Option<&HookAnswers>) {
    let Some(hooks) = hooks else { return };
    table.row(
        0,
        "hook answers",
        hooks.used,
        "stacks are as the program's own hooks gave them",
    );
    let unanswered = ("not in time; the stack is as walked", hooks.unanswered);
    let others = hooks.refused.iter().chain(&hooks.not_asked).copied();
    for (reason, n) in std::iter::once(unanswered).chain(others).filter(|(_, n)| *n > 0) {
        table.row(1, "without", n, reason);
    }
    table.row(
        0,
        "longest stop",
        micros(hooks.longest_stop),
        "µs of a thread, to let the hooks' caller in or out",
    );
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn hook_names(table: &mut Table, names: Option<&HookNames>) {
    let Some(names) = names else { return };
    table.row(
        0,
        "hook names",
        names.named,
        "addresses that the program's own symbolizer named",
    );
    if names.unknown > 0 {
        table.row(1, "unknown", names.unknown, "its symbolizer does not know them");
    }
    for (reason, n) in &names.not_asked {
        table.row(1, "not asked", *n, escape(reason));
    }
    for (label, n) in &names.odd {
        table.row(1, "odd", *n, *label);
    }
    if names.snapshots > 0 {
        let ms = names.longest_stop.as_secs_f64() * 1e3;
        let remark =
            format!("of the process, to ask in; one of its threads was stopped for {ms:.1} ms at most");
        table.row(1, "snapshots", names.snapshots, remark);
    }
}

fn missing(out: &mut String, summary: &Summary) {
    if summary.missing.is_empty() {
        return;
    }
    out.push_str("\nmodules without symbols, and how many samples have frames in them\n");
    let mut table = Table::default();
    for missing in summary.missing.iter().take(MAX_MODULES) {
        table.row(
            1,
            &escape(&missing.module),
            missing.samples,
            escape(&missing.reason),
        );
    }
    out.push_str(&table.render());
    if let more @ 1.. = summary.missing.len().saturating_sub(MAX_MODULES) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  and {more} more");
    }
}

fn debug_files(out: &mut String, summary: &Summary) {
    if summary.debug_files.is_empty() {
        return;
    }
    out.push_str("\nseparate debug files\n");
    let files = summary.debug_files.iter();
    let width = files
        .clone()
        .map(|file| escape(&file.module).chars().count())
        .max();
    let width = width.unwrap_or_default();
    // Writing to a String cannot fail.
    for file in files.take(MAX_MODULES) {
        let _ = writeln!(
            out,
            "  {:width$}  {}",
            escape(&file.module),
            escape(&file.outcome)
        );
    }
    if let more @ 1.. = summary.debug_files.len().saturating_sub(MAX_MODULES) {
        let _ = writeln!(out, "  and {more} more");
    }
}

/// Rows of label, number and remark, aligned.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String, String)>,
}

impl Table {
    fn row(&mut self, depth: usize, label: &str, n: u64, remark: impl Into<String>) {
        let label = format!("{:indent$}{label}", "", indent = 2 * depth);
        self.rows.push((label, thousands(n), remark.into()));
    }

    fn render(&self) -> String {
        let width = |cell: fn(&(String, String, String)) -> &str| {
            self.rows
                .iter()
                .map(|row| cell(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (labels, numbers) = (width(|row| &row.0), width(|row| &row.1));
        let mut out = String::new();
        for (label, number, remark) in &self.rows {
            let line = format!("{label:labels$}  {number:>numbers$}  {remark}");
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// The table for programs: one JSON object, ended by a newline.
///
/// The names of its fields are stable. Fields may be added; when one is renamed, removed or changes its meaning,
/// `schema` becomes 2.
///
/// | field | what |
/// |---|---|
/// | `schema` | 1 |
/// | `program`, `pids` | what was recorded |
/// | `start_unix_ms`, `duration_seconds`, `frequency_hz` | when, how long, samples per second and CPU |
/// | `facts` | facts of host and target, by name |
/// | `samples.kept` | samples in the profile |
/// | `samples.complete`, `samples.complete_percent` | those whose stacks are whole; 100 if there are no samples |
/// | `samples.from_kernel` | those that interrupted kernel code |
/// | `samples.ended_early` | a list of `reason`, `samples`, `sentence` for each way in which walks ended early |
/// | `lost.total`, `lost.ring_full`, `lost.ticks` | samples that are not in the profile, by cause |
/// | `off_cpu` | if time off the CPU was recorded, and the numbers under `samples` are nanoseconds: `min_ns`; how many waits are in the profile, `blocks`; how many were shorter, and for how long, `short` and `short_ns`; `still`, not over at the end; `without_room` |
/// | `labels_cut` | samples whose goroutine had more than 8 labels, or one of more than 128 bytes: not all of that is in the profile |
/// | `withheld_ticks` | ticks of the clock while a hypervisor or a long interrupt had the CPU; not lost, the target did not run |
/// | `hooks.used`, `hooks.unanswered`, `hooks.refused`, `hooks.not_asked` | if traceback hooks were asked: samples with their answers, without, and why |
/// | `hooks.longest_stop_us` | the longest time that a thread was stopped for that, in microseconds |
/// | `hook_names.named`, `hook_names.unknown`, `hook_names.odd`, `hook_names.not_asked` | if traceback hooks gave addresses: how many the program's symbolizer named, how many it did not know, what was odd, and why others were not asked for |
/// | `hook_names.snapshots`, `hook_names.longest_stop_us` | how many copies of processes were made to ask in, and the longest time that a thread was stopped for one, in microseconds |
/// | `hook_names.calls`, `hook_names.calling_us` | how often symbolizers were called, and how long that took, in microseconds |
/// | `modules_without_symbols` | a list of `module`, `samples`, `reason`, most samples first |
/// | `debug_files` | if there are any: a list of `module`, `outcome` for separate debug files that were refused, fetched or not to be had |
///
/// Names are not escaped beyond what JSON demands.
pub fn json(profile: &Profile) -> String {
    pretty_json(&Document::of(profile))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    program: &'a str,
    pids: &'a [u32],
    start_unix_ms: u64,
    duration_seconds: f64,
    frequency_hz: u64,
    facts: BTreeMap<&'a str, &'a str>,
    samples: Samples,
    lost: Lost,
    withheld_ticks: u64,
    #[serde(skip_serializing_if = "is_none")]
    labels_cut: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    off_cpu: Option<Waits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<Hooks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_names: Option<Names<'a>>,
    modules_without_symbols: Vec<WithoutSymbols<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    debug_files: Vec<DebugFileOf<'a>>,
}

#[derive(Serialize)]
struct Samples {
    kept: u64,
    complete: u64,
    complete_percent: f64,
    from_kernel: u64,
    ended_early: Vec<EndedEarly>,
}

#[derive(Serialize)]
struct EndedEarly {
    reason: &'static str,
    samples: u64,
    sentence: &'static str,
}

#[derive(Serialize)]
struct Lost {
    total: u64,
    ring_full: u64,
    ticks: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's")]
fn is_none(n: &u64) -> bool {
    *n == 0
}

#[derive(Serialize)]
struct Waits {
    min_ns: u64,
    blocks: u64,
    short: u64,
    short_ns: u64,
    still: u64,
    without_room: u64,
}

impl Waits {
    fn of(account: &OffCpu) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            min_ns: ns(account.min),
            blocks: account.blocks,
            short: account.short,
            short_ns: ns(account.short_time),
            still: account.still,
            without_room: account.without_room,
        }
    }
}

#[derive(Serialize)]
struct Hooks {
    used: u64,
    unanswered: u64,
    longest_stop_us: u64,
    refused: BTreeMap<&'static str, u64>,
    not_asked: BTreeMap<&'static str, u64>,
}

impl Hooks {
    fn of(hooks: &HookAnswers) -> Self {
        Self {
            used: hooks.used,
            unanswered: hooks.unanswered,
            longest_stop_us: micros(hooks.longest_stop),
            refused: hooks.refused.iter().copied().collect(),
            not_asked: hooks.not_asked.iter().copied().collect(),
        }
    }
}

#[derive(Serialize)]
struct Names<'a> {
    named: u64,
    unknown: u64,
    odd: BTreeMap<&'static str, u64>,
    not_asked: BTreeMap<&'a str, u64>,
    snapshots: u64,
    longest_stop_us: u64,
    calls: u64,
    calling_us: u64,
}

impl<'a> Names<'a> {
    fn of(names: &'a HookNames) -> Self {
        Self {
            named: names.named,
            unknown: names.unknown,
            odd: names.odd.iter().copied().collect(),
            not_asked: names
                .not_asked
                .iter()
                .map(|(reason, n)| (&**reason, *n))
                .collect(),
            snapshots: names.snapshots,
            longest_stop_us: micros(names.longest_stop),
            calls: names.calls,
            calling_us: micros(names.calling),
        }
    }
}

#[derive(Serialize)]
struct WithoutSymbols<'a> {
    module: &'a str,
    samples: u64,
    reason: &'a str,
}

#[derive(Serialize)]
struct DebugFileOf<'a> {
    module: &'a str,
    outcome: &'a str,
}

impl<'a> Document<'a> {
    fn of(profile: &'a Profile) -> Self {
        let (meta, summary) = (&profile.meta, &profile.summary);
        let start = meta.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            schema: 1,
            program: &meta.program,
            pids: &meta.pids,
            start_unix_ms: u64::try_from(start.as_millis()).unwrap_or(u64::MAX),
            duration_seconds: meta.duration.as_secs_f64(),
            frequency_hz: meta.frequency_hz,
            facts: meta
                .facts
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
            samples: Samples {
                kept: summary.kept,
                complete: summary.complete(),
                complete_percent: summary.complete_percent(),
                from_kernel: summary.from_kernel,
                ended_early: summary
                    .by_stop
                    .iter()
                    .filter(|(stop, _)| !stop.is_complete())
                    .map(|(stop, &samples)| EndedEarly {
                        reason: stop.label(),
                        samples,
                        sentence: stop.sentence(),
                    })
                    .collect(),
            },
            lost: Lost {
                total: summary.lost(),
                ring_full: summary.lost_ring_full,
                ticks: summary.lost_ticks,
            },
            withheld_ticks: summary.withheld_ticks,
            labels_cut: summary.labels_cut,
            off_cpu: summary.off_cpu.as_ref().map(Waits::of),
            hooks: summary.hooks.as_ref().map(Hooks::of),
            hook_names: summary.hook_names.as_ref().map(Names::of),
            debug_files: summary
                .debug_files
                .iter()
                .map(|file| DebugFileOf {
                    module: &file.module,
                    outcome: &file.outcome,
                })
                .collect(),
            modules_without_symbols: summary
                .missing
                .iter()
                .map(|missing| WithoutSymbols {
                    module: &missing.module,
                    samples: missing.samples,
                    reason: &missing.reason,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{json, text};
    use crate::format::testing::{self, Recording};
    use crate::profile::{DebugFile, HookNames, Kind, Measure, Missing, OffCpu};
    use profiler_abi::stop::StopReason;
    use std::time::Duration;

    #[test]
    fn the_table_accounts_for_every_sample() {
        assert_eq!(
            text(&testing::mixed()),
            "\
samples            100  in 5.0 s at 997 Hz
  complete          94  94.0 %
  ended early        6  6.0 %
    no-user-stack    2  the task has no user stack
    no-mapping       1  the address is in no known executable mapping
    no-rule          3  no unwind rule covers the address and the frame pointer leads nowhere
  in the kernel      6  6.0 %
lost                 5
  ring-full          5  the ring buffer was full: we did not drain it fast enough

modules without symbols, and how many samples have frames in them
  /lib/libz.so.1  3  it is stripped; install zlib1g-dbgsym
"
        );
    }

    #[test]
    fn separate_debug_files_are_listed_with_what_became_of_them() {
        let mut profile = testing::empty();
        let file = |module: &str, outcome: &str| DebugFile {
            module: module.to_owned(),
            outcome: outcome.to_owned(),
        };
        profile.summary.debug_files = vec![
            file("a", "/a.debug is refused: it is of another build"),
            file("lib\u{1b}z.so", "fetched"),
        ];
        let text = text(&profile);
        let (_, list) = text.split_once("\nseparate debug files\n").unwrap();
        assert_eq!(
            list,
            "  a              /a.debug is refused: it is of another build\n  lib\\u{1b}z.so  fetched\n"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&profile)).unwrap();
        assert_eq!(json["debug_files"][0]["module"], "a");
        assert_eq!(json["debug_files"][1]["outcome"], "fetched");
    }

    #[test]
    fn an_idle_target_has_a_short_table() {
        assert_eq!(
            text(&testing::empty()),
            "\
samples  0  in 5.0 s at 997 Hz
lost     0
"
        );
    }

    #[test]
    fn large_numbers_are_aligned_and_long_lists_cut() {
        let mut r = Recording::new();
        let main = r.frame("main", Kind::Native, false);
        r.sample((1, 1, "x"), &[main], StopReason::Root, false, 1_234_567);
        let missing = |n: u64| Missing {
            module: format!("/lib/{n}.so"),
            samples: 13 - n,
            reason: "stripped".to_owned(),
        };
        r.lost(0, 42, (0..13).map(missing).collect());
        assert_eq!(
            text(&r.finish()),
            "\
samples          1,234,567  in 5.0 s at 997 Hz
  complete       1,234,567  100.0 %
  ended early            0  0.0 %
  in the kernel          0  0.0 %
lost                    42
  ticks                 42  the kernel put the sampling clock off while it ran for the target

modules without symbols, and how many samples have frames in them
  /lib/0.so  13  stripped
  /lib/1.so  12  stripped
  /lib/2.so  11  stripped
  /lib/3.so  10  stripped
  /lib/4.so   9  stripped
  /lib/5.so   8  stripped
  /lib/6.so   7  stripped
  /lib/7.so   6  stripped
  /lib/8.so   5  stripped
  /lib/9.so   4  stripped
  and 3 more
"
        );
    }

    #[test]
    fn waits_are_accounted_for_in_milliseconds() {
        let mut r = Recording::new();
        let main = r.frame("main", Kind::Native, false);
        r.sample((1, 1, "x"), &[main], StopReason::Root, true, 1_500_000_000);
        r.sample((1, 1, "x"), &[main], StopReason::NoRule, true, 500_000_000);
        let mut profile = r.finish();
        profile.meta.measure = Measure::OffCpu;
        profile.summary.off_cpu = Some(OffCpu {
            min: Duration::from_millis(1),
            blocks: 40,
            short: 1234,
            short_time: Duration::from_micros(5600),
            without_room: 0,
            still: 3,
        });
        assert_eq!(
            text(&profile),
            "\
off the CPU  2,000  ms in 5.0 s, in 40 waits of at least 1 ms
  complete   1,500  ms, 75.0 %
  no-rule      500  ms: no unwind rule covers the address and the frame pointer leads nowhere
shorter      1,234  waits, 5.6 ms in all: not in the profile
not over         3  waits when the recording ended: not in the profile
lost             0
"
        );
    }

    #[test]
    fn who_named_what_hooks_gave_is_in_the_account() {
        let mut profile = testing::empty();
        profile.summary.hook_names = Some(HookNames {
            named: 41,
            unknown: 1,
            odd: vec![("never came to an end", 2)],
            not_asked: vec![("process 1 has ended\u{1b}".to_owned(), 3)],
            snapshots: 4,
            longest_stop: Duration::from_micros(1500),
            calls: 21,
            calling: Duration::from_micros(2500),
        });
        assert_eq!(
            text(&profile),
            "\
samples       0  in 5.0 s at 997 Hz
lost          0
hook names   41  addresses that the program's own symbolizer named
  unknown     1  its symbolizer does not know them
  not asked   3  process 1 has ended\\u{1b}
  odd         2  never came to an end
  snapshots   4  of the process, to ask in; one of its threads was stopped for 1.5 ms at most
"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&profile)).unwrap();
        assert_eq!(
            json["hook_names"],
            serde_json::json!({
                "named": 41,
                "unknown": 1,
                "odd": {"never came to an end": 2},
                "not_asked": {"process 1 has ended\u{1b}": 3},
                "snapshots": 4,
                "longest_stop_us": 1500,
                "calls": 21,
                "calling_us": 2500,
            })
        );
    }

    #[test]
    fn names_of_the_target_cannot_move_the_cursor() {
        let mut r = Recording::new();
        let evil = "\u{1b}[2J\n\u{202e}".to_owned();
        let (module, reason) = (evil.clone(), evil);
        r.lost(
            0,
            0,
            vec![Missing {
                module,
                samples: 1,
                reason,
            }],
        );
        let table = text(&r.finish());
        assert!(
            table.ends_with("  \\u{1b}[2J\\n\\u{202e}  1  \\u{1b}[2J\\n\\u{202e}\n"),
            "{table}"
        );
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json(&testing::mixed())).unwrap(),
            serde_json::json!({
                "schema": 1,
                "program": "server",
                "pids": [4711],
                "start_unix_ms": 1_700_000_000_123_u64,
                "duration_seconds": 5.04,
                "frequency_hz": 997,
                "facts": {"kernel": "6.1.0", "go": "go1.26.0 X=y"},
                "samples": {
                    "kept": 100,
                    "complete": 94,
                    "complete_percent": 94.0,
                    "from_kernel": 6,
                    "ended_early": [
                        {"reason": "no-user-stack", "samples": 2, "sentence": "the task has no user stack"},
                        {
                            "reason": "no-mapping",
                            "samples": 1,
                            "sentence": "the address is in no known executable mapping",
                        },
                        {
                            "reason": "no-rule",
                            "samples": 3,
                            "sentence": "no unwind rule covers the address and the frame pointer leads nowhere",
                        },
                    ],
                },
                "lost": {"total": 5, "ring_full": 5, "ticks": 0},
                "withheld_ticks": 0,
                "modules_without_symbols": [
                    {
                        "module": "/lib/libz.so.1",
                        "samples": 3,
                        "reason": "it is stripped; install zlib1g-dbgsym",
                    },
                ],
            })
        );
    }
}
