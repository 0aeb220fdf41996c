//! What a recording took, kept and lost: the table at the end of every run.

use profiler_abi::stop::StopReason;
use std::collections::BTreeMap;
use std::time::Duration;

/// Accounts for every sample of a recording. All numbers but those of [`Missing`] are samples; of time off the CPU, kept
/// ones are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// In the profile; the sum over `by_stop`.
    pub kept: u64,
    /// Kept samples by the way their walk ended.
    pub by_stop: BTreeMap<StopReason, u64>,
    /// Kept samples that interrupted kernel code.
    pub from_kernel: u64,
    /// Lost because we could not drain them fast enough.
    pub lost_ring_full: u64,
    /// Ticks of the sampling clock that never came while a target was in a system call that had
    /// interrupts off.
    pub lost_ticks: u64,
    /// Ticks that never came because a hypervisor or a long interrupt had taken the CPU away. Not lost: the target did
    /// not run.
    pub withheld_ticks: u64,
    /// What the traceback hooks of the program had to say; `None` if they were not asked.
    pub hooks: Option<HookAnswers>,
    /// Who named what the traceback hooks gave; `None` if they gave nothing.
    pub hook_names: Option<HookNames>,
    /// Kept samples whose labels are not all there: there were more of them, or longer ones, than are read.
    pub labels_cut: u64,
    /// What became of the times that threads were off the CPU, if those were recorded.
    pub off_cpu: Option<OffCpu>,
    /// Modules that frames were in but that gave them no name, most samples first.
    pub missing: Vec<Missing>,
    /// What became of separate files with debug information of modules that frames are in, where that is not plain.
    pub debug_files: Vec<DebugFile>,
}

/// What became of the times that threads were off the CPU to wait for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffCpu {
    /// Shorter ones are not in the profile.
    pub min: Duration,
    /// Those that are in it.
    pub blocks: u64,
    /// Those that were shorter.
    pub short: u64,
    /// How long those were in all.
    pub short_time: Duration,
    /// Those for whose stacks there was no room.
    pub without_room: u64,
    /// Those that had not ended when the recording did.
    pub still: u64,
}

/// What became of the questions to traceback hooks. All numbers but [`HookAnswers::longest_stop`] are samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookAnswers {
    /// Whose stacks are as the hooks answered.
    pub used: u64,
    /// Whose threads were asked and did not answer in time; their stacks are as walked.
    pub unanswered: u64,
    /// Answers that were not used, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// The longest time that a thread of a program was stopped, to let the helper in or out.
    pub longest_stop: Duration,
    /// Whose threads had C on their stacks and were not asked, by reason; their stacks are as walked.
    pub not_asked: Vec<(&'static str, u64)>,
}

/// What the symbolizer hooks of programs said about the addresses that their traceback hooks gave. All numbers but the
/// last four are addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookNames {
    /// Named by a symbolizer.
    pub named: u64,
    /// A symbolizer was asked, and does not know their functions.
    pub unknown: u64,
    /// With which a conversation was not as it should be, by what was odd. They may have names.
    pub odd: Vec<(&'static str, u64)>,
    /// No symbolizer was asked, by reason.
    pub not_asked: Vec<(String, u64)>,
    /// How many snapshots of processes were made to ask.
    pub snapshots: u64,
    /// The longest time that a thread of a process was stopped for one.
    pub longest_stop: Duration,
    /// How often symbolizers were called.
    pub calls: u64,
    /// How long that took.
    pub calling: Duration,
}

/// A module whose functions have no names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The module.
    pub module: String,
    /// Samples with at least one nameless frame in it.
    pub samples: u64,
    /// Why there are no names, and what would give them.
    pub reason: String,
}

/// A separate file with debug information.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DebugFile {
    /// The module that it is of, or seemed to be.
    pub module: String,
    /// What became of it: a whole sentence without the final stop.
    pub outcome: String,
}

impl Summary {
    /// Samples whose stacks are whole.
    pub fn complete(&self) -> u64 {
        self.by_stop
            .iter()
            .filter(|(stop, _)| stop.is_complete())
            .map(|(_, n)| n)
            .sum()
    }

    /// Samples that are not in the profile.
    pub fn lost(&self) -> u64 {
        self.lost_ring_full + self.lost_ticks
    }

    /// Share of kept samples that are whole, in percent; 100 if there are none.
    pub fn complete_percent(&self) -> f64 {
        if self.kept == 0 {
            100.0
        } else {
            self.complete() as f64 * 100.0 / self.kept as f64
        }
    }
}
