//! The file format of speedscope, <https://www.speedscope.app>: one profile for each thread, the busiest first.
//!
//! The format is defined by speedscope's `file-format-schema.json`. It has no kinds of code, so kernel functions end
//! in `_[k]`, as in folded stacks, and a function whose source is unknown has its object file in that place. Weights
//! are nanoseconds of CPU time, or numbers of samples if it is not known for how long one stands. The order of the
//! samples is that of the names, not that of time, which no profile of ours has.

use super::folded::KERNEL_SUFFIX;
use super::stack::Stack;
use super::{Error, escape};
use crate::profile::{FrameId, Kind, Measure, Profile, ThreadId};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The whole file.
///
/// # Errors
/// [`Error::NoSamples`] if there is nothing to show: speedscope refuses such a file.
pub fn write(profile: &Profile) -> Result<Vec<u8>, Error> {
    let table = Frames::of(profile);
    let mut profiles = threads(profile, &table);
    if profiles.is_empty() {
        return Err(Error::NoSamples);
    }
    profiles.sort_by_key(|thread| Reverse(thread.end_value));
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared { frames: table.frames },
        profiles,
        name: escape(&profile.meta.program).into_owned(),
        active_profile_index: 0,
        exporter: concat!("profiler@", env!("CARGO_PKG_VERSION")),
    };
    serde_json::to_vec(&file).map_err(|error| Error::Write(error.into()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared,
    profiles: Vec<Thread>,
    name: String,
    active_profile_index: u32,
    exporter: &'static str,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

/// A function. speedscope takes two entries for two functions, so the line is that where the function starts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

impl Frame {
    fn of(profile: &Profile, frame: &crate::profile::Frame) -> Self {
        let mut name = escape(&frame.function).into_owned();
        if frame.kind == Kind::Kernel {
            name.push_str(KERNEL_SUFFIX);
        }
        let object = || frame.module.map(|id| &profile.modules[id.0 as usize].path);
        Self {
            name,
            file: frame
                .file
                .as_ref()
                .or_else(object)
                .map(|file| escape(file).into_owned()),
            line: frame.start_line,
        }
    }

    fn note(text: String) -> Self {
        Self {
            name: text,
            file: None,
            line: None,
        }
    }
}

/// One thread. `type` is `sampled`: a list of stacks with weights.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Thread {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    /// Root first.
    samples: Vec<Vec<u32>>,
    weights: Vec<u64>,
}

/// Every function and note, in the order of their names, and so of their numbers.
struct Frames {
    frames: Vec<Frame>,
    /// Numbers of the profile's frames.
    numbers: Vec<u32>,
}

impl Frames {
    fn of(profile: &Profile) -> Self {
        let own: Vec<Frame> = profile
            .frames
            .iter()
            .map(|frame| Frame::of(profile, frame))
            .collect();
        let notes = profile
            .samples
            .iter()
            .filter_map(|sample| Stack::of(profile, sample).note);
        let all: BTreeSet<Frame> = own.iter().cloned().chain(notes.map(Frame::note)).collect();
        let mut table = Self {
            frames: all.into_iter().collect(),
            numbers: Vec::new(),
        };
        table.numbers = own.iter().map(|frame| table.number(frame)).collect();
        table
    }

    /// The number of a frame that is in the table.
    fn number(&self, frame: &Frame) -> u32 {
        self.frames.binary_search(frame).unwrap_or_else(|place| place) as u32
    }

    fn number_of(&self, id: FrameId) -> u32 {
        self.numbers[id.0 as usize]
    }
}

fn threads(profile: &Profile, table: &Frames) -> Vec<Thread> {
    let (unit, weight) = match (profile.meta.measure, profile.period_ns()) {
        (Measure::OffCpu, _) => ("nanoseconds", 1),
        (Measure::Cpu, 0) => ("none", 1),
        (Measure::Cpu, ns) => ("nanoseconds", ns),
    };
    let mut stacks: BTreeMap<ThreadId, BTreeMap<Vec<u32>, u64>> = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.count > 0) {
        let stack = Stack::of(profile, sample);
        let note = stack.note.map(|note| table.number(&Frame::note(note)));
        let frames = stack.frames.iter().map(|&id| table.number_of(id));
        let key = note.into_iter().chain(frames).collect();
        let total = stacks.entry(sample.thread).or_default().entry(key).or_default();
        *total = total.saturating_add(sample.count.saturating_mul(weight));
    }
    stacks
        .into_iter()
        .map(|(id, stacks)| {
            let (samples, weights): (Vec<_>, Vec<u64>) = stacks.into_iter().unzip();
            let thread = &profile.threads[id.0 as usize];
            Thread {
                r#type: "sampled",
                name: format!(
                    "{} (thread {} of {})",
                    escape(&thread.name),
                    thread.tid,
                    thread.pid
                ),
                unit,
                start_value: 0,
                end_value: weights.iter().fold(0, |sum: u64, &n| sum.saturating_add(n)),
                samples,
                weights,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::format::testing::{self, Recording};
    use crate::profile::{Kind, Profile};
    use profiler_abi::stop::StopReason;
    use serde_json::{Value, json};

    fn document(profile: &Profile) -> Value {
        serde_json::from_slice(&write(profile).unwrap()).unwrap()
    }

    /// The stacks of a thread as names, with their weights.
    fn stacks(document: &Value, thread: usize) -> Vec<(String, u64)> {
        let profile = &document["profiles"][thread];
        let name = |frame: &Value| {
            let at = frame.as_u64().unwrap() as usize;
            document["shared"]["frames"][at]["name"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let line = |stack: &Value| {
            let names: Vec<_> = stack.as_array().unwrap().iter().map(name).collect();
            names.join(";")
        };
        let samples = profile["samples"].as_array().unwrap().iter().map(line);
        let weights = profile["weights"].as_array().unwrap().iter();
        samples.zip(weights.map(|n| n.as_u64().unwrap())).collect()
    }

    #[test]
    fn the_file_keeps_to_the_published_schema() {
        let schema: Value = serde_json::from_str(include_str!("testdata/speedscope.schema.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let document = document(&testing::mixed());
        let errors: Vec<_> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        // The validator refuses what the schema does not allow.
        let mut broken = document.clone();
        broken["profiles"][0]["unit"] = json!("parsecs");
        assert!(!validator.is_valid(&broken));
    }

    #[test]
    fn each_thread_is_a_profile_and_the_busiest_stands_first() {
        let document = document(&testing::mixed());
        let names: Vec<_> = document["profiles"]
            .as_array()
            .unwrap()
            .iter()
            .map(|profile| profile["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "server (thread 4711 of 4711)",
                "server (thread 4713 of 4711)",
                "kworker/0:1 (thread 9 of 9)",
                "server (thread 4712 of 4711)"
            ]
        );
    }

    #[test]
    fn weights_are_cpu_time_and_stacks_those_of_the_folded_file() {
        let period = 1_000_000_000 / 997;
        let document = document(&testing::mixed());
        let first = &document["profiles"][0];
        assert_eq!(first["unit"], "nanoseconds");
        assert_eq!(first["endValue"], json!(77 * period));
        let c = "runtime.main;main.main;main.handle;runtime.cgocall;runtime.asmcgocall;compress;deflate";
        assert_eq!(
            stacks(&document, 0),
            [
                ("[incomplete: no-rule];[libz.so.1+0x1f30]".to_owned(), 3 * period),
                (c.to_owned(), 10 * period),
                (
                    format!("{c};asm_exc_page_fault_[k];handle_mm_fault_[k]"),
                    4 * period
                ),
                (
                    "runtime.main;main.main;main.handle;strings.Index;internal/bytealg.IndexByteString"
                        .to_owned(),
                    60 * period
                ),
            ]
        );
        assert_eq!(
            stacks(&document, 3),
            [("[no stack: no-mapping]".to_owned(), period)]
        );
    }

    #[test]
    fn samples_of_unknown_length_are_counted() {
        let mut profile = testing::mixed();
        profile.meta.frequency_hz = 0;
        let document = document(&profile);
        assert_eq!(document["profiles"][0]["unit"], "none");
        assert_eq!(document["profiles"][0]["endValue"], json!(77));
    }

    #[test]
    fn a_function_is_one_frame_wherever_it_was_sampled() {
        let mut r = Recording::new();
        let object = r.module("/bin/x", 0x1000);
        let twice = [10, 20].map(|_| r.frame_in("f", Kind::Native, false, Some(object), None));
        for frame in twice {
            r.sample((1, 1, "x"), &[frame], StopReason::Root, false, 1);
        }
        let document = document(&r.finish());
        assert_eq!(
            document["shared"]["frames"],
            json!([{"name": "f", "file": "/bin/x"}])
        );
        assert_eq!(stacks(&document, 0).len(), 1);
    }
}
