//! Profiles for tests.

use crate::profile::{
    Builder, Frame, FrameId, Kind, Measure, Meta, Missing, Module, ModuleId, Origin, Profile, Roots, Sample,
    Summary, Thread,
};
use profiler_abi::stop::StopReason;
use std::time::{Duration, UNIX_EPOCH};

/// Builds profiles with few words.
pub(super) struct Recording {
    builder: Builder,
    summary: Summary,
    address: u64,
}

impl Recording {
    pub(super) fn new() -> Self {
        Self {
            builder: Builder::default(),
            summary: Summary::default(),
            address: 0x40_1000,
        }
    }

    pub(super) fn module(&mut self, path: &str, start: u64) -> ModuleId {
        self.builder.module(Module {
            path: path.to_owned(),
            build_id: Some(format!("{start:016x}")),
            start,
            end: start + 0x10_0000,
            file_offset: 0x1000,
        })
    }

    /// A frame without a file. One that is inlined has the address of the frame before.
    pub(super) fn frame(&mut self, function: &str, kind: Kind, inlined: bool) -> FrameId {
        self.frame_in(function, kind, inlined, None, None)
    }

    pub(super) fn frame_in(
        &mut self,
        function: &str,
        kind: Kind,
        inlined: bool,
        module: Option<ModuleId>,
        file: Option<(&str, u32)>,
    ) -> FrameId {
        if !inlined {
            self.address += 0x10;
        }
        self.builder.frame(Frame {
            function: function.to_owned(),
            system_name: None,
            file: file.map(|(file, _)| file.to_owned()),
            line: file.map(|(_, line)| line),
            start_line: file.map(|(_, line)| line.saturating_sub(3).max(1)),
            module,
            address: self.address,
            kind,
            origin: if kind == Kind::Kernel {
                Origin::Kernel
            } else {
                Origin::Walked
            },
            inlined,
        })
    }

    pub(super) fn any_frame(&mut self, frame: Frame) -> FrameId {
        self.builder.frame(frame)
    }

    pub(super) fn sample(
        &mut self,
        (pid, tid, name): (u32, u32, &str),
        root_first: &[FrameId],
        stop: StopReason,
        from_kernel: bool,
        count: u64,
    ) {
        let name = name.to_owned();
        let thread = self.builder.thread(Thread {
            pid,
            tid,
            name,
            process: String::new(),
        });
        self.builder
            .sample(thread, root_first.iter().copied(), stop, from_kernel, count);
        self.summary.kept += count;
        *self.summary.by_stop.entry(stop).or_default() += count;
        if from_kernel {
            self.summary.from_kernel += count;
        }
    }

    pub(super) fn lost(&mut self, ring_full: u64, ticks: u64, missing: Vec<Missing>) {
        self.summary.lost_ring_full = ring_full;
        self.summary.lost_ticks = ticks;
        self.summary.missing = missing;
    }

    pub(super) fn finish(self) -> Profile {
        let meta = Meta {
            program: "server".to_owned(),
            pids: vec![4711],
            start: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
            duration: Duration::from_millis(5_040),
            frequency_hz: 997,
            facts: vec![
                ("kernel".to_owned(), "6.1.0".to_owned()),
                ("go".to_owned(), "go1.26.0 X=y".to_owned()),
            ],
            measure: Measure::default(),
            roots: Roots::default(),
        };
        self.builder.finish(meta, self.summary)
    }
}

/// Nothing happened.
pub(super) fn empty() -> Profile {
    Recording::new().finish()
}

/// A hundred samples of every sort: Go, C, kernel, inlined, nameless, incomplete, without a frame.
pub(super) fn mixed() -> Profile {
    let mut r = Recording::new();
    let exe = r.module("/srv/server", 0x40_0000);
    let libz = r.module("/lib/libz.so.1", 0x7f00_0000_0000);
    let kernel = r.module("[kernel]", 0xffff_ffff_8100_0000);

    let go = |r: &mut Recording, name, line, inlined| {
        r.frame_in(name, Kind::Go, inlined, Some(exe), Some(("/src/main.go", line)))
    };
    let root = go(&mut r, "runtime.main", 283, false);
    let main = go(&mut r, "main.main", 20, false);
    let handle = go(&mut r, "main.handle", 40, false);
    let cgocall = go(&mut r, "runtime.cgocall", 157, false);
    let asmcgocall = go(&mut r, "runtime.asmcgocall", 900, false);
    let index = go(&mut r, "strings.Index", 1200, false);
    let byte = go(&mut r, "internal/bytealg.IndexByteString", 30, true);
    let compress = r.frame_in("compress", Kind::Native, false, Some(exe), Some(("/src/z.c", 9)));
    let deflate = r.frame_in("deflate", Kind::Native, false, Some(libz), None);
    let nameless = r.frame_in("[libz.so.1+0x1f30]", Kind::Unknown, false, Some(libz), None);
    let fault = r.frame_in("asm_exc_page_fault", Kind::Kernel, false, Some(kernel), None);
    let mm = r.frame_in("handle_mm_fault", Kind::Kernel, false, Some(kernel), None);
    let worker = r.frame_in("worker_thread", Kind::Kernel, false, Some(kernel), None);
    let work = r.frame_in("process_one_work", Kind::Kernel, false, Some(kernel), None);

    let server = (4711, 4711, "server");
    let c = [root, main, handle, cgocall, asmcgocall, compress, deflate];
    r.sample(
        server,
        &[root, main, handle, index, byte],
        StopReason::Root,
        false,
        60,
    );
    r.sample(server, &c, StopReason::Root, false, 10);
    r.sample((4711, 4713, "server"), &c, StopReason::Root, false, 20);
    r.sample(
        server,
        &[&c[..], &[fault, mm]].concat(),
        StopReason::Root,
        true,
        4,
    );
    r.sample(server, &[nameless], StopReason::NoRule, false, 3);
    r.sample((4711, 4712, "server"), &[], StopReason::NoMapping, false, 1);
    r.sample(
        (9, 9, "kworker/0:1"),
        &[worker, work],
        StopReason::NoUserStack,
        true,
        2,
    );
    r.lost(
        5,
        0,
        vec![Missing {
            module: "/lib/libz.so.1".to_owned(),
            samples: 3,
            reason: "it is stripped; install zlib1g-dbgsym".to_owned(),
        }],
    );
    r.finish()
}

/// What a profile says, whatever the order of its tables.
pub(super) type Said = Vec<(Thread, Vec<(Frame, Option<Module>)>, StopReason, bool, u64)>;

pub(super) fn said(profile: &Profile) -> Said {
    let frame = |frame: &Frame| {
        let module = frame.module.map(|id| profile.modules[id.0 as usize].clone());
        let frame = Frame {
            module: None,
            ..frame.clone()
        };
        (frame, module)
    };
    let row = |sample: &Sample| {
        (
            profile.threads[sample.thread.0 as usize].clone(),
            profile.walk(sample.stack).map(frame).collect(),
            sample.stop,
            sample.from_kernel,
            sample.count,
        )
    };
    let mut rows: Said = profile.samples.iter().map(row).collect();
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}
