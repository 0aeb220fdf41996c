//! From a profile to the messages, and to bytes.

use super::{FORMAT, KINDS, ORIGINS, comment, label, number, proto};
use crate::format::stack::Stack;
use crate::profile::{Frame, FrameId, Kind, Measure, ModuleId, Profile, Sample, Summary};
use prost::Message;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

/// The message for `profile`.
pub(super) fn profile(profile: &Profile) -> proto::Profile {
    Encoder::new(profile).run()
}

/// The message as a file.
pub(super) fn gzip(message: &proto::Profile) -> io::Result<Vec<u8>> {
    crate::format::gzip(&message.encode_to_vec())
}

struct Encoder<'a> {
    profile: &'a Profile,
    out: proto::Profile,
    strings: HashMap<String, i64>,
    /// Ids by everything but the id.
    functions: HashMap<proto::Function, u64>,
    /// Ids by frames, leaf first.
    locations: HashMap<Vec<FrameId>, u64>,
    notes: HashMap<String, u64>,
}

impl<'a> Encoder<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut encoder = Self {
            profile,
            out: proto::Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            notes: HashMap::new(),
        };
        // profile.proto: string_table[0] must be "".
        encoder.string("");
        encoder
    }

    fn run(mut self) -> proto::Profile {
        match self.profile.meta.measure {
            Measure::Cpu => {
                let samples = self.value_type("samples", "count");
                let cpu = self.value_type("cpu", "nanoseconds");
                self.out.sample_type = vec![samples, cpu];
                self.out.period_type = Some(cpu);
                self.out.period = signed(self.profile.period_ns());
                // Where nobody knows how long a sample is, only their number says something.
                let default = if self.out.period == 0 { samples } else { cpu };
                self.out.default_sample_type = default.r#type;
            }
            Measure::OffCpu => {
                let off_cpu = self.value_type("off-cpu", "nanoseconds");
                self.out.sample_type = vec![off_cpu];
                self.out.default_sample_type = off_cpu.r#type;
            }
        }
        let meta = &self.profile.meta;
        self.out.time_nanos = nanoseconds(meta.start.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.out.duration_nanos = nanoseconds(meta.duration);
        for comment in comments(self.profile) {
            let comment = self.string(&comment);
            self.out.comment.push(comment);
        }
        self.mappings();
        for sample in &self.profile.samples {
            let sample = self.sample(sample);
            self.out.sample.push(sample);
        }
        self.out
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&at) = self.strings.get(text) {
            return at;
        }
        let at = self.out.string_table.len() as i64;
        self.out.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), at);
        at
    }

    fn value_type(&mut self, r#type: &str, unit: &str) -> proto::ValueType {
        proto::ValueType {
            r#type: self.string(r#type),
            unit: self.string(unit),
        }
    }

    /// All modules. The flags tell other tools what they need not look up again.
    fn mappings(&mut self) {
        for (at, module) in self.profile.modules.iter().enumerate() {
            let mapping = proto::Mapping {
                id: mapping_id(ModuleId(at as u32)),
                memory_start: module.start,
                memory_limit: module.end,
                file_offset: module.file_offset,
                filename: self.string(&module.path),
                build_id: self.string(module.build_id.as_deref().unwrap_or_default()),
                ..Default::default()
            };
            self.out.mapping.push(mapping);
        }
        for frame in &self.profile.frames {
            if let Some(module) = frame.module {
                let mapping = &mut self.out.mapping[module.0 as usize];
                mapping.has_functions |= frame.kind != Kind::Unknown;
                mapping.has_filenames |= frame.file.is_some();
                mapping.has_line_numbers |= frame.line.is_some();
                mapping.has_inline_frames |= frame.inlined;
            }
        }
    }

    fn sample(&mut self, sample: &Sample) -> proto::Sample {
        let stack = Stack::of(self.profile, sample);
        let mut rest: Vec<FrameId> = stack.frames;
        rest.reverse();
        let mut rest = rest.as_slice();
        let mut location_id = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let (physical, callers) = rest.split_at(self.physical(rest));
            location_id.push(self.location(physical));
            rest = callers;
        }
        if let Some(note) = stack.note {
            location_id.push(self.note(note));
        }
        let mut label = vec![
            self.label(label::THREAD, &stack.thread.name),
            self.number_label(label::TID, stack.thread.tid),
            self.number_label(label::PID, stack.thread.pid),
        ];
        if !stack.thread.process.is_empty() {
            label.push(self.label(label::PROCESS, &stack.thread.process));
        }
        for (key, value) in sample
            .labels
            .iter()
            .flat_map(|at| &self.profile.labels[at.0 as usize])
        {
            let ours = label::OURS.contains(&key.as_str()).then_some(label::PROGRAMS);
            label.push(self.label(&format!("{}{key}", ours.unwrap_or_default()), value));
        }
        if !sample.stop.is_complete() {
            label.push(self.label(label::STOP, sample.stop.label()));
        }
        if sample.from_kernel {
            label.push(self.label(label::MODE, label::KERNEL));
        }
        let mut value = vec![signed(sample.count)];
        if self.profile.meta.measure == Measure::Cpu {
            value.push(signed(sample.count.saturating_mul(self.profile.period_ns())));
        }
        proto::Sample {
            location_id,
            value,
            label,
        }
    }

    fn label(&mut self, key: &str, text: &str) -> proto::Label {
        proto::Label {
            key: self.string(key),
            str: self.string(text),
            num: 0,
        }
    }

    fn number_label(&mut self, key: &str, num: u32) -> proto::Label {
        proto::Label {
            key: self.string(key),
            str: 0,
            num: i64::from(num),
        }
    }

    fn frame(&self, id: FrameId) -> &'a Frame {
        &self.profile.frames[id.0 as usize]
    }

    /// How many of the leaf-first `frames` are one physical frame: a function, and before it those inlined there.
    fn physical(&self, frames: &[FrameId]) -> usize {
        let place = |frame: &Frame| (frame.address, frame.module, frame.origin);
        let first = self.frame(frames[0]);
        let mut inlined = 0;
        while let Some(&caller) = frames.get(inlined + 1)
            && self.frame(frames[inlined]).inlined
            && place(self.frame(caller)) == place(first)
        {
            inlined += 1;
        }
        inlined + 1
    }

    fn location(&mut self, physical: &[FrameId]) -> u64 {
        if let Some(&id) = self.locations.get(physical) {
            return id;
        }
        let mut line = Vec::with_capacity(physical.len());
        for &id in physical {
            let frame = self.frame(id);
            line.push(proto::Line {
                function_id: self.function(frame),
                line: frame.line.map_or(0, i64::from),
            });
        }
        let first = self.frame(physical[0]);
        let id = self.push_location(proto::Location {
            mapping_id: first.module.map_or(0, mapping_id),
            address: first.address,
            line,
            origin: number(&ORIGINS, &first.origin),
            ..Default::default()
        });
        self.locations.insert(physical.to_vec(), id);
        id
    }

    fn note(&mut self, note: String) -> u64 {
        if let Some(&id) = self.notes.get(&note) {
            return id;
        }
        let name = self.string(&note);
        let function_id = self.push_function(proto::Function {
            name,
            system_name: name,
            ..Default::default()
        });
        let id = self.push_location(proto::Location {
            line: vec![proto::Line { function_id, line: 0 }],
            ..Default::default()
        });
        self.notes.insert(note, id);
        id
    }

    fn push_location(&mut self, location: proto::Location) -> u64 {
        let id = self.out.location.len() as u64 + 1;
        self.out.location.push(proto::Location { id, ..location });
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let name = self.string(&frame.function);
        let function = proto::Function {
            id: 0,
            name,
            // As Go does where the linker knows no other name.
            system_name: frame
                .system_name
                .as_deref()
                .map_or(name, |name| self.string(name)),
            filename: self.string(frame.file.as_deref().unwrap_or_default()),
            start_line: frame.start_line.map_or(0, i64::from),
            kind: number(&KINDS, &frame.kind),
        };
        self.push_function(function)
    }

    fn push_function(&mut self, function: proto::Function) -> u64 {
        if let Some(&id) = self.functions.get(&function) {
            return id;
        }
        let id = self.out.function.len() as u64 + 1;
        self.out.function.push(proto::Function { id, ..function });
        self.functions.insert(function, id);
        id
    }
}

/// Ids begin with 1; 0 is "no mapping".
fn mapping_id(module: ModuleId) -> u64 {
    u64::from(module.0) + 1
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn comments(profile: &Profile) -> Vec<String> {
    let meta = &profile.meta;
    let Summary {
        kept,
        by_stop: _,
        from_kernel,
        lost_ring_full,
        lost_ticks,
        withheld_ticks,
        // Of interest while one looks at the recording only; each frame has its origin as a label.
        hooks: _,
        hook_names: _,
        off_cpu: _,
        labels_cut: _,
        debug_files: _,
        missing,
    } = &profile.summary;
    let complete = profile.summary.complete();
    let pids: Vec<String> = meta.pids.iter().map(u32::to_string).collect();
    let mut comments = vec![
        format!("{}={}", comment::PROFILER, env!("CARGO_PKG_VERSION")),
        format!("{}={FORMAT}", comment::FORMAT),
        format!("{}={}", comment::PROGRAM, meta.program),
        format!("{}={}", comment::PIDS, pids.join(",")),
    ];
    if meta.roots.process {
        comments.push(format!("{}={}", comment::ROOTS, comment::PROCESS));
    }
    if meta.roots.per_thread {
        comments.push(format!("{}={}", comment::ROOTS, comment::PER_THREAD));
    }
    for tag in &meta.roots.tags {
        comments.push(format!("{}={tag}", comment::TAG));
    }
    for (name, value) in &meta.facts {
        comments.push(format!("{}{name}={value}", comment::FACT));
    }
    comments.extend([
        format!("summary.kept={kept}"),
        format!("summary.complete={complete}"),
        format!("summary.from_kernel={from_kernel}"),
        format!("{}={lost_ring_full}", comment::LOST_RING_FULL),
        format!("{}={lost_ticks}", comment::LOST_TICKS),
        format!("{}={withheld_ticks}", comment::WITHHELD_TICKS),
    ]);
    for missing in missing {
        let json = serde_json::json!([missing.samples, missing.module, missing.reason]);
        comments.push(format!("{}={json}", comment::MISSING));
    }
    comments
}
