//! Naming the addresses that traceback hooks gave, by the symbolizer of the program that they are of.
//!
//! A symbolizer is asked in a snapshot of its process, which stops a thread of that for a moment
//! ([`crate::inject::snapshot`]). A process that ends takes its names with it, so it is asked not only at the end of a
//! recording but also during it, if there are addresses without a name: a quarter of a second after the beginning,
//! and each time that the recording has become twice as old since. So a long recording costs few snapshots, and a process
//! that ends by itself keeps nameless what it met in the second half of its time only.
//!
//! This goes on beside the recording, on a thread for each process.

use super::collect::Collected;
use crate::addr::Avma;
use crate::hooks::Symbolizer;
use crate::hooks::symbolizer::Named;
use crate::inject::snapshot::{self, Asked, Refused};
use crate::inject::{self, Plan};
use crate::profile::HookNames;
use crate::target::process::Process;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How old a recording is at least when it asks for the first time.
const FIRST: Duration = Duration::from_millis(250);

/// Why nothing was asked, if the program has no symbolizer. Then addresses are shown as numbers, as the protocol says.
const NO_SYMBOLIZER: &str = "the program has registered no symbolizer";

/// Handle of a program: one image of one process. The same number is another address in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramIdx(u32);

/// An address that a traceback hook gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPc {
    /// The program whose hook gave it.
    pub program: ProgramIdx,
    /// The address as the hook gave it, and as its symbolizer knows it.
    pub pc: u64,
}

/// The programs whose hooks are honoured, and what their symbolizers said.
pub struct Naming {
    begun: Instant,
    programs: Vec<Program>,
    /// The program that a process runs now.
    by_pid: HashMap<u32, ProgramIdx>,
    /// How many places have been looked at for addresses.
    n_seen: usize,
    snapshots: Arc<Mutex<Family>>,
}

/// The snapshots that there were, by process id: processes that nobody wants to record.
#[derive(Debug, Default)]
struct Family {
    /// Of those, whether the kernel has reported their birth. It does so once.
    reported: HashMap<u32, bool>,
    /// Born since it was last looked.
    new: Vec<u32>,
}

struct Program {
    process: Arc<Process>,
    plan: Plan,
    conversation: Conversation,
    /// Addresses that came while others are asked for.
    waiting: Vec<u64>,
    /// When to ask again.
    due: Instant,
    /// It runs no more, or its symbolizer is broken.
    is_over: bool,
    n_pcs: u64,
    n_snapshots: u64,
    longest_stop: Duration,
    n_calls: u64,
    calling: Duration,
    /// Why the last time nobody could be asked.
    refused: Option<String>,
}

enum Conversation {
    Resting(Box<Symbolizer>),
    UnderWay(JoinHandle<(Box<Symbolizer>, Reply)>),
    /// The thread that held it panicked.
    Lost,
}

/// What came of asking; `None` if there is no symbolizer.
type Reply = Option<Asked>;

impl Default for Naming {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            programs: Vec::new(),
            by_pid: HashMap::new(),
            n_seen: 0,
            snapshots: Arc::default(),
        }
    }
}

impl Naming {
    /// The hooks of what process `pid` runs now are honoured.
    pub fn watch(&mut self, pid: u32, plan: Plan) {
        let Ok(process) = Process::open(pid) else {
            return;
        };
        self.by_pid.insert(pid, ProgramIdx(self.programs.len() as u32));
        self.programs.push(Program {
            process: Arc::new(process),
            plan,
            conversation: Conversation::Resting(Box::default()),
            waiting: Vec::new(),
            due: self.begun + FIRST,
            is_over: false,
            n_pcs: 0,
            n_snapshots: 0,
            longest_stop: Duration::ZERO,
            n_calls: 0,
            calling: Duration::ZERO,
            refused: None,
        });
    }

    /// Sampling begins.
    pub fn begin(&mut self) {
        self.begun = Instant::now();
        for program in &mut self.programs {
            program.due = self.begun + FIRST;
        }
    }

    /// Process `pid` executes another program.
    pub fn replaced(&mut self, pid: u32) {
        if let Some(at) = self.by_pid.remove(&pid) {
            let program = &mut self.programs[at.0 as usize];
            program.is_over = true;
            program
                .refused
                .get_or_insert_with(|| format!("process {pid} has executed another program"));
        }
    }

    /// The program that process `pid` runs, if its hooks are honoured.
    pub fn program(&self, pid: u32) -> Option<ProgramIdx> {
        self.by_pid.get(&pid).copied()
    }

    /// Whether process `pid` is a snapshot.
    pub fn is_snapshot(&self, pid: u32) -> bool {
        !self.programs.is_empty() && self.family().reported.contains_key(&pid)
    }

    /// Whether a process that the kernel says was born is a snapshot. It is one only once: its number may be given to
    /// another process later.
    pub fn is_birth_of_snapshot(&self, pid: u32) -> bool {
        let mut family = self.family();
        match family.reported.get_mut(&pid) {
            Some(reported @ false) => {
                *reported = true;
                true
            }
            Some(true) => {
                family.reported.remove(&pid);
                false
            }
            None => false,
        }
    }

    /// Snapshots that were made since this was last asked.
    pub fn new_snapshots(&self) -> Vec<u32> {
        std::mem::take(&mut self.family().new)
    }

    fn family(&self) -> std::sync::MutexGuard<'_, Family> {
        // Nobody leaves it half changed.
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called every now and then: asks, if it is time to.
    pub fn tick(&mut self, collected: &Collected) {
        self.take_pcs(collected);
        let now = Instant::now();
        for program in &mut self.programs {
            program.look();
            if now >= program.due && !program.is_over {
                program.ask(&self.snapshots);
                program.due = now + now.saturating_duration_since(self.begun);
            }
        }
    }

    /// The recording is over: asks what is left, and waits for all answers.
    pub fn finish(&mut self, collected: &Collected) {
        self.take_pcs(collected);
        for program in &mut self.programs {
            program.wait();
            if !program.is_over {
                program.ask(&self.snapshots);
            }
        }
        self.programs.iter_mut().for_each(Program::wait);
    }

    /// What the symbolizer said about an address; `None` if it was not asked.
    pub fn named(&self, at: HookPc) -> Option<&Named> {
        let Conversation::Resting(symbolizer) = &self.programs.get(at.program.0 as usize)?.conversation
        else {
            return None;
        };
        symbolizer.named(at.pc)
    }

    /// What became of the addresses; `None` if hooks gave none.
    pub fn account(&self) -> Option<HookNames> {
        let mut names = HookNames::default();
        let mut odd: BTreeMap<&str, u64> = BTreeMap::new();
        let mut not_asked: BTreeMap<&str, u64> = BTreeMap::new();
        for program in self.programs.iter().filter(|program| program.n_pcs > 0) {
            let mut n_asked = 0;
            if let Conversation::Resting(symbolizer) = &program.conversation {
                for (_, named) in symbolizer.all() {
                    n_asked += 1;
                    // Some tell the file that the code is in, and nothing else.
                    if named.functions.iter().any(|function| function.name.is_some()) {
                        names.named += 1;
                    } else {
                        names.unknown += 1;
                    }
                }
                for (oddity, n) in symbolizer.oddities() {
                    *odd.entry(oddity.label()).or_default() += n;
                }
            }
            let left = program.n_pcs.saturating_sub(n_asked);
            if left > 0 {
                let reason = program.refused.as_deref().unwrap_or("the recording was over");
                *not_asked.entry(reason).or_default() += left;
            }
            names.snapshots += program.n_snapshots;
            names.longest_stop = names.longest_stop.max(program.longest_stop);
            names.calls += program.n_calls;
            names.calling += program.calling;
        }
        names.odd = odd.into_iter().collect();
        names.not_asked = not_asked
            .into_iter()
            .map(|(reason, n)| (reason.to_owned(), n))
            .collect();
        let any = self.programs.iter().any(|program| program.n_pcs > 0);
        any.then_some(names)
    }

    fn take_pcs(&mut self, collected: &Collected) {
        let new = collected.places.get(self.n_seen..).unwrap_or_default();
        self.n_seen = collected.places.len();
        for at in new.iter().filter_map(|place| place.said) {
            if let Some(program) = self.programs.get_mut(at.program.0 as usize) {
                program.waiting.push(at.pc);
                program.n_pcs += 1;
            }
        }
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        // A recording that failed. A snapshot that is left alone would stay a zombie.
        self.programs.iter_mut().for_each(Program::wait);
    }
}

impl Program {
    /// Begins to ask, if there is anything to ask.
    fn ask(&mut self, family: &Arc<Mutex<Family>>) {
        let Conversation::Resting(symbolizer) = &mut self.conversation else {
            return;
        };
        self.waiting.drain(..).for_each(|pc| symbolizer.ask(pc));
        if symbolizer.next_call().is_none() {
            return;
        }
        let mut symbolizer = std::mem::take(symbolizer);
        let (process, plan, family) = (Arc::clone(&self.process), self.plan.clone(), Arc::clone(family));
        let thread = std::thread::Builder::new().name("symbolizer".into());
        let started = thread.spawn(move || {
            let reply = converse(&process, &plan, &mut symbolizer, &family);
            (symbolizer, reply)
        });
        self.conversation = match started {
            Ok(thread) => Conversation::UnderWay(thread),
            Err(error) => {
                self.refused = Some(format!("the system gives no thread: {error}"));
                Conversation::Lost
            }
        };
    }

    /// Takes the answers, if they are all there.
    fn look(&mut self) {
        if matches!(&self.conversation, Conversation::UnderWay(thread) if thread.is_finished()) {
            self.wait();
        }
    }

    /// Waits for the answers.
    fn wait(&mut self) {
        match std::mem::replace(&mut self.conversation, Conversation::Lost) {
            Conversation::UnderWay(thread) => match thread.join() {
                Ok((symbolizer, reply)) => {
                    self.conversation = Conversation::Resting(symbolizer);
                    self.learn(reply);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            },
            other => self.conversation = other,
        }
    }

    fn learn(&mut self, reply: Reply) {
        let Some(asked) = reply else {
            self.refused = Some(NO_SYMBOLIZER.into());
            return;
        };
        self.n_snapshots += u64::from(asked.snapshots);
        self.longest_stop = self.longest_stop.max(asked.longest_stop);
        self.n_calls += asked.calls;
        self.calling += asked.calling;
        self.is_over |= matches!(asked.refused, Some(Refused::Broken(..)));
        self.refused = asked.refused.map(|refused| crate::explain::explain(&refused));
    }
}

/// Asks the symbolizer that the process has at this moment.
fn converse(process: &Process, plan: &Plan, symbolizer: &mut Symbolizer, family: &Mutex<Family>) -> Reply {
    let Ok(pointer) = process.memory(plan.symbolizer.0, 8) else {
        let refused = inject::Error::Gone { pid: process.pid };
        return Some(Asked {
            refused: Some(refused.into()),
            ..Asked::default()
        });
    };
    let function = pointer.try_into().map_or(0, u64::from_le_bytes);
    let born = |pid| {
        let mut family = family.lock().unwrap_or_else(PoisonError::into_inner);
        family.reported.insert(pid, false);
        family.new.push(pid);
    };
    (function != 0).then(|| snapshot::ask(process, plan, Avma(function), symbolizer, &born))
}
