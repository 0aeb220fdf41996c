//! The processed profile format of the Firefox Profiler, <https://profiler.firefox.com>, version 61. The front end
//! upgrades old versions as it reads them.
//!
//! The format is documented in the front end's repository, `src/types/profile.ts` and
//! `docs-developer/CHANGELOG-formats.md`. It is written here, since the crate for it, `fxprof-processed-profile`, has
//! no place for files, lines and inlined functions.
//!
//! # Time
//!
//! Our samples are counted, not dated, but the format has a time for each row. So each distinct stack of a thread is
//! one row, with the number of its samples as its weight, and lies behind the one before it: **the axis of a thread is
//! the CPU time that its samples stand for, in the order of the stacks, and not the time of day**. Call tree and flame
//! graph count weights and are exact.
//!
//! # What else is where
//!
//! Kinds of code are categories, with the colours of our flame graphs. What stands for a stack that is not whole is a
//! frame of the category `incomplete`. Addresses are offsets in the object file. An inlined function has the address
//! and the native symbol of the function that it is in; since a profile does not keep where functions start, the
//! address of a native symbol is the lowest that was sampled in it. Facts of the recording, and the account of its
//! samples, are under "more info" of the profile.

mod document;
mod tables;

use super::stack::Stack;
use super::{Error, escape, percent, thousands};
use crate::profile::{Kind, Measure, Profile, ThreadId};
use document::{Category, Document, Entry, Markers, Meta, Samples, Section, Thread};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;
use tables::Tables;

/// The version of the format, `meta.preprocessedProfileVersion`.
const VERSION: u32 = 61;

/// How long a sample is on the axis where nobody knows, in milliseconds.
const UNKNOWN_PERIOD_MS: f64 = 1.0;

/// The whole file, as JSON.
///
/// # Errors
/// [`Error::NoSamples`] if there is nothing to show: the front end refuses a profile without threads.
pub fn write(profile: &Profile) -> Result<Vec<u8>, Error> {
    let period_ms = match (profile.meta.measure, profile.period_ns()) {
        (Measure::OffCpu, _) => 1e-6,
        (Measure::Cpu, 0) => UNKNOWN_PERIOD_MS,
        (Measure::Cpu, ns) => ns as f64 / 1e6,
    };
    let mut tables = Tables::new(profile);
    let mut threads: BTreeMap<ThreadId, BTreeMap<u32, u64>> = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.count > 0) {
        let stack = tables.stack(&Stack::of(profile, sample));
        let total = threads
            .entry(sample.thread)
            .or_default()
            .entry(stack)
            .or_default();
        *total = total.saturating_add(sample.count);
    }
    let busiest = threads
        .values()
        .enumerate()
        .max_by_key(|(at, stacks)| {
            (
                stacks.values().copied().map(u128::from).sum::<u128>(),
                std::cmp::Reverse(*at),
            )
        })
        .map(|(at, _)| at)
        .ok_or(Error::NoSamples)?;
    let threads = threads
        .into_iter()
        .map(|(id, stacks)| thread(profile, id, stacks, period_ms))
        .collect();
    let (libs, shared) = tables.finish();
    let document = Document {
        meta: meta(profile, period_ms, busiest),
        libs,
        shared,
        threads,
        pages: [],
        counters: [],
        profiler_overhead: [],
    };
    serde_json::to_vec(&document).map_err(|error| Error::Write(error.into()))
}

/// The colours are names of the front end's; the first grey category is that of frames without one.
fn categories() -> Vec<Category> {
    let color = |kind| match kind {
        Kind::Kernel => "orange",
        Kind::Go => "blue",
        Kind::Native => "yellow",
        Kind::Rust => "brown",
        Kind::Unknown => "grey",
    };
    Kind::ALL
        .into_iter()
        .map(|kind| (kind.label(), color(kind)))
        .chain([("incomplete", "magenta")])
        .map(|(name, color)| Category {
            name,
            color,
            subcategories: ["Other"],
        })
        .collect()
}

/// The number of a kind in [`categories`].
fn category_of(kind: Kind) -> usize {
    Kind::ALL
        .iter()
        .position(|&of| of == kind)
        .unwrap_or(Kind::ALL.len())
}

/// The number of the notes in [`categories`].
const INCOMPLETE: usize = Kind::ALL.len();

fn meta(profile: &Profile, period_ms: f64, busiest: usize) -> Meta {
    let meta = &profile.meta;
    let start = meta.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fact = |wanted: &str| {
        let fact = meta.facts.iter().find(|(name, _)| name == wanted);
        fact.map(|(_, value)| escape(value).into_owned())
    };
    Meta {
        interval: period_ms,
        start_time: start.as_secs_f64() * 1e3,
        product: escape(&meta.program).into_owned(),
        process_type: 0,
        stackwalk: 1,
        debug: false,
        version: 24,
        preprocessed_profile_version: VERSION,
        symbolicated: true,
        imported_from: "profiler",
        platform: "X11",
        oscpu: fact("kernel").map(|kernel| format!("Linux {kernel} x86_64")),
        cpu_name: fact("cpu"),
        categories: categories(),
        marker_schema: [],
        uses_only_one_stack_type: true,
        source_code_is_not_on_searchfox: true,
        initial_selected_threads: [busiest],
        extra: vec![
            Section {
                label: "Samples",
                entries: account(profile),
            },
            Section {
                label: "Recording",
                entries: recording(profile),
            },
        ],
    }
}

fn account(profile: &Profile) -> Vec<Entry> {
    let summary = &profile.summary;
    let share = |n| format!("{} ({})", thousands(n), percent(n, summary.kept));
    let mut entries = vec![
        Entry::new("Samples", thousands(summary.kept)),
        Entry::new("Complete", share(summary.complete())),
    ];
    for (stop, &n) in summary.by_stop.iter().filter(|(stop, _)| !stop.is_complete()) {
        let label = format!("Ended early, {}", stop.label());
        entries.push(Entry::new(&label, format!("{}: {}", share(n), stop.sentence())));
    }
    entries.push(Entry::new("Lost", thousands(summary.lost())));
    entries
}

fn recording(profile: &Profile) -> Vec<Entry> {
    let meta = &profile.meta;
    let mut entries = vec![Entry::new(
        "Duration",
        format!("{:.1} s", meta.duration.as_secs_f64()),
    )];
    if meta.frequency_hz > 0 {
        entries.push(Entry::new(
            "Samples per second and CPU",
            meta.frequency_hz.to_string(),
        ));
    }
    let facts = meta.facts.iter();
    entries.extend(facts.map(|(name, value)| Entry::new(&escape(name), escape(value).into_owned())));
    entries
}

fn thread(profile: &Profile, id: ThreadId, stacks: BTreeMap<u32, u64>, period_ms: f64) -> Thread {
    let thread = &profile.threads[id.0 as usize];
    let main = profile
        .threads
        .iter()
        .find(|other| other.pid == thread.pid && other.tid == other.pid);
    let (stack, weight): (Vec<u32>, Vec<u64>) = stacks.into_iter().unzip();
    let mut before = 0_u64;
    let time = weight
        .iter()
        .map(|n| {
            let start = before as f64 * period_ms;
            before = before.saturating_add(*n);
            start
        })
        .collect();
    Thread {
        process_type: "default",
        process_startup_time: 0.0,
        process_shutdown_time: None,
        register_time: 0.0,
        unregister_time: None,
        paused_ranges: [],
        name: escape(&thread.name).into_owned(),
        is_main_thread: thread.tid == thread.pid,
        process_name: escape(match (thread.process.as_str(), main) {
            ("", Some(main)) => &main.name,
            ("", None) => &profile.meta.program,
            (process, _) => process,
        })
        .into_owned(),
        pid: thread.pid.to_string(),
        tid: thread.tid,
        samples: Samples {
            length: stack.len(),
            stack,
            time,
            weight,
            weight_type: "samples",
        },
        markers: Markers::default(),
    }
}

#[cfg(test)]
mod tests;
