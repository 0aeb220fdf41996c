//! Room in the tables: who gets some, what is done without, and what is freed.
//!
//! Tables have limits, and processes and objects that do not fit are no reason to end a recording: their samples say that
//! there was no room, and they get it when others have gone.

use super::{Tables, Targets};
use crate::explain::explain;
use crate::record::Error;
use crate::record::images::{Content, Held, Loaded, ModuleIdx};
use crate::sampler;
use crate::target::process::{self, Process};
use profiler_abi::stop::StopReason;
use profiler_abi::table::ProcSlot;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this time no walk reads tables any more that nothing names: walks take microseconds.
const SETTLED: Duration = Duration::from_millis(100);

impl Targets {
    /// A process was met whose samples are wanted: it is watched from now on.
    pub fn met(&mut self, pid: u32) {
        match Process::open(pid) {
            Ok(process) => self.admit(pid, process),
            Err(error @ process::Error::Read { .. }) => self.turn_away(pid, &error.into()),
            // It will be met again, if it is not what it seems.
            Err(_) => self.tables.unwatch(pid),
        }
    }

    /// Watches a process with a new program image, or turns it away.
    pub(super) fn admit(&mut self, pid: u32, process: Process) {
        let before = self.processes.get(&pid).map(|watched| watched.slot);
        self.leaving.slots.extend(before);
        if let Err(error) = self.new_image(pid, Some(process)) {
            self.turn_away(pid, &error);
        }
    }

    /// There is no room for a process, or something else does not let it be watched.
    pub(super) fn turn_away(&mut self, pid: u32, error: &Error) {
        let (why, stop) = match error {
            Error::Sampler(_) => (ProcSlot::NO_ROOM, StopReason::NoRoom),
            _ => (ProcSlot::NOT_ALLOWED, StopReason::NotAllowed),
        };
        self.tables.turn_away(pid, why);
        self.turned_away.insert(pid);
        if let Some(watched) = self.processes.get_mut(&pid) {
            // The table of slots is shorter than that.
            self.leaving
                .slots
                .push(std::mem::replace(&mut watched.slot, u32::MAX));
        }
        let reason = explain(error);
        if self.told.insert(reason.clone()) {
            self.warnings.push(format!(
                "process {pid} is not followed: {reason}; samples of such processes say {}",
                stop.label()
            ));
        }
    }

    /// Tries again to watch the processes that were turned away, if some of the tables has become free.
    pub(super) fn admit_again(&mut self) {
        if !std::mem::take(&mut self.made_room) {
            return;
        }
        for pid in std::mem::take(&mut self.turned_away) {
            let process = self.processes.get_mut(&pid).filter(|watched| !watched.ended);
            match process.and_then(|watched| watched.process.take()) {
                Some(process) => self.admit(pid, process),
                None => self.tables.unwatch(pid),
            }
        }
    }

    /// Puts the tables of an object into the maps. `has_rules`: whether those have the extended rules that it refers to.
    pub(super) fn hold(
        &mut self,
        has_rules: Result<(), sampler::Error>,
        n_regions: u32,
        regions: &[(u32, Vec<u8>)],
    ) -> Held {
        let add = |tables: &mut Tables| tables.add_object(n_regions, regions);
        let added = has_rules.and_then(|()| {
            add(&mut self.tables).or_else(|_| {
                self.free_tables(SETTLED);
                add(&mut self.tables)
            })
        });
        match added {
            Ok(table) => Held::Here(table, None),
            Err(error) => {
                let reason = explain(&error);
                if self.told.insert(reason.clone()) {
                    self.warnings.push(format!(
                        "{reason}: code that does not fit is followed by frame pointers only"
                    ));
                }
                Held::NoRoom
            }
        }
    }

    /// Frees the tables of objects that no process has had mapped for so long.
    pub(super) fn free_tables(&mut self, unused_for: Duration) {
        let mapped: HashSet<*const Loaded> = self
            .images
            .values()
            .flat_map(|image| &image.modules)
            .filter_map(|&at| match &self.modules.get(at).content {
                Content::Object(loaded, _) => Some(Arc::as_ptr(loaded)),
                Content::Pending | Content::Bare(_) => None,
            })
            .collect();
        for (_, module) in self.modules.iter() {
            let Content::Object(loaded, _) = &module.content else {
                continue;
            };
            let Ok(mut held) = loaded.table.lock() else {
                continue;
            };
            let Held::Here(_, unused_since) = &mut *held else {
                continue;
            };
            if mapped.contains(&Arc::as_ptr(loaded)) {
                *unused_since = None;
            } else if unused_since.get_or_insert_with(Instant::now).elapsed() >= unused_for
                && let Held::Here(table, _) = std::mem::replace(&mut *held, Held::Freed)
            {
                self.tables.remove_object(table);
                self.made_room = true;
            }
        }
    }

    /// Frees what is known of objects whose tables are gone, and which no sample needs for its names.
    pub(super) fn free_objects(&mut self, is_sampled: impl Fn(ModuleIdx) -> bool) {
        let freed = self.modules.iter().filter(|(at, module)| {
            matches!(&module.content, Content::Object(loaded, _) if loaded.is_freed()) && !is_sampled(*at)
        });
        for at in freed.map(|(at, _)| at).collect::<Vec<_>>() {
            self.modules.set(at, Content::Pending);
        }
    }
}
