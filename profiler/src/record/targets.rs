//! Keeps the tables of the BPF side in step with the watched processes: what each has mapped, forks, execs, ends.

mod room;

use super::Error;
use super::images::{Content, Image, Loaded, Mapped, ModuleIdx, Modules, bias, mapping};
use super::loader::{Done, Job, Loader};
use crate::addr::{Avma, Bias};
use crate::hooks::table::Table;
use crate::inject::{Accept, GoPlan, Plan, Runtime};
use crate::merge::Code;
use crate::sampler::{self, NewCode, Question, Scope, Tables};
use crate::target::calls::SystemCalls;
use crate::target::files;
use crate::target::go::TlsG;
use crate::target::maps::MapEntry;
use crate::target::process::{self, Process};
use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a process is left alone after its mappings were read, at least: a walk that meets an address in no mapping asks
/// for them, and one that does so again and again would keep us busy.
const RESCAN_PAUSE: Duration = Duration::from_millis(20);

/// The same, as a multiple of the time that reading them took.
const RESCAN_PAUSE_FACTOR: u32 = 9;

/// How often it is looked for objects that no process has mapped any more.
const LOOK: Duration = Duration::from_secs(1);

/// For how long their tables are kept: short processes often come again.
const KEEP: Duration = Duration::from_secs(10);

/// The watched processes.
pub struct Targets {
    tables: Tables,
    loader: Loader,
    /// Everything that was ever mapped.
    pub modules: Modules,
    /// Modules whose objects are being read.
    pending: HashSet<ModuleIdx>,
    images: HashMap<u32, Image>,
    processes: HashMap<u32, Watched>,
    /// Processes whose mappings have to be read again.
    rescan: HashSet<u32>,
    /// Processes that have ended and slots that exec has left, since the last tick. Samples of theirs may be under way
    /// until the next one.
    leaving: Leaving,
    /// Processes for which there was no room.
    turned_away: HashSet<u32>,
    /// Some of the tables has become free since they were last tried again.
    made_room: bool,
    /// What was full, as far as the user has been told.
    told: HashSet<String>,
    /// When it was last looked for objects that nobody has mapped any more.
    looked: Instant,
    /// Which processes are watched: those that were asked for, or each that is met.
    scope: Scope,
    /// What each process was called when it was last looked at.
    pub names: HashMap<u32, Arc<str>>,
    /// What there is to tell the user, since it was last taken.
    pub warnings: Vec<String>,
}

/// What is not needed any more.
#[derive(Debug, Default)]
struct Leaving {
    processes: Vec<u32>,
    slots: Vec<u32>,
}

/// A watched process.
#[derive(Debug)]
struct Watched {
    /// The process; `None` if it had ended before we could open it.
    process: Option<Process>,
    slot: u32,
    scanned: Option<Instant>,
    /// How long it is left alone after that.
    pause: Duration,
    ended: bool,
    /// Its mappings did not fit into the tables, which was told.
    overflowed: bool,
    /// What it had spent on a CPU before samples were taken, in nanoseconds.
    on_cpu_before: Option<u64>,
}

impl Targets {
    /// No process yet.
    ///
    /// # Errors
    /// The system does not give another thread.
    pub fn new(tables: Tables, scope: Scope) -> std::io::Result<Self> {
        Ok(Self {
            tables,
            loader: Loader::start()?,
            modules: Modules::default(),
            pending: HashSet::new(),
            images: HashMap::new(),
            processes: HashMap::new(),
            rescan: HashSet::new(),
            leaving: Leaving::default(),
            turned_away: HashSet::new(),
            made_room: false,
            told: HashSet::new(),
            looked: Instant::now(),
            scope,
            names: HashMap::new(),
            warnings: Vec::new(),
        })
    }

    /// Watches a process. Its tables are complete when this returns.
    ///
    /// # Errors
    /// The process cannot be looked at, or a table is full.
    pub async fn watch(&mut self, process: Process) -> Result<(), Error> {
        self.new_image(process.pid, Some(process))?;
        self.load_all().await;
        Ok(())
    }

    /// Brings the tables of a process that is watched up to date. They are complete when this returns.
    ///
    /// # Errors
    /// The process cannot be looked at, or a table is full.
    pub async fn look_again(&mut self, pid: u32) -> Result<(), Error> {
        self.scan(pid)?;
        self.load_all().await;
        Ok(())
    }

    async fn load_all(&mut self) {
        while self.loader.is_busy() {
            let done = self.loader.next().await;
            self.loaded(done);
        }
    }

    /// Sampling begins.
    pub fn begin(&mut self) {
        for watched in self.processes.values_mut() {
            watched.on_cpu_before = watched.process.as_ref().and_then(Process::on_cpu_ns);
        }
    }

    /// The program image in a slot.
    pub fn image(&self, slot: u32) -> Option<&Image> {
        self.images.get(&slot)
    }

    /// An object that was asked for; waits for ever if none was.
    pub async fn next_object(&mut self) -> Done {
        self.loader.next().await
    }

    /// Called every now and then: notices processes that have ended, and makes room where it is not needed any more; not
    /// of the names of modules that samples are in. False if none of the processes that were asked for is left.
    pub fn tick(&mut self, is_sampled: impl Fn(ModuleIdx) -> bool) -> bool {
        self.forget();
        self.notice_ends();
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.free_tables(KEEP);
            self.free_objects(is_sampled);
        }
        self.admit_again();
        self.scope != Scope::Listed
            || self.processes.is_empty()
            || self.processes.values().any(|watched| !watched.ended)
    }

    /// A process, watched or not, has mapped code.
    pub fn new_code(&mut self, new: &NewCode) {
        if let Some(watched) = self.processes.get(&new.pid) {
            if let Some(image) = self.images.get_mut(&watched.slot) {
                image.new_code(new);
            }
            self.rescan.insert(new.pid);
        }
    }

    /// A walk met an address in none of the mappings of process `pid`.
    pub fn remap(&mut self, pid: u32) {
        if self.processes.contains_key(&pid) {
            self.rescan.insert(pid);
        }
    }

    /// Any process may have mapped new code.
    pub fn remap_all(&mut self) {
        self.rescan.extend(self.processes.keys());
    }

    /// From now on threads of process `pid` are asked what their hooks say; or not any more.
    pub fn ask(&mut self, pid: u32, question: Option<&Question>) {
        let slot = self.processes.get(&pid).map(|watched| watched.slot);
        if let Some(image) = slot.and_then(|slot| self.images.get(&slot)) {
            self.tables.ask(&image.slot, pid, question);
        }
    }

    /// What honouring the hooks of process `pid` takes; `None` if it has no program that can register any, and no table.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn plan(&self, pid: u32) -> Result<Option<Plan>, String> {
        let Some(watched) = self.processes.get(&pid) else {
            return Ok(None);
        };
        let Some(image) = self.images.get(&watched.slot) else {
            return Ok(None);
        };
        let objects = || {
            image
                .entries
                .iter()
                .zip(&image.modules)
                .filter_map(|(entry, &at)| {
                    let (loaded, bias) = self.modules.get(at).object(entry)?;
                    Some((loaded, bias, loaded.object.lock().ok()?))
                })
        };
        let errno_location =
            objects().find_map(|(_, bias, object)| Some(object.errno_location?.to_avma(bias)));
        for (loaded, bias, object) in objects() {
            let Some(sites) = object.hooks.clone()? else {
                continue;
            };
            let Some(runtime) = object.go.as_ref() else {
                continue;
            };
            let layout = runtime.layout;
            drop(object);
            let go = go_layout(image.pid, loaded, bias).ok_or("where its threads keep g cannot be read")?;
            return Ok(Some(Plan {
                traceback: sites.variables.traceback.to_avma(bias),
                symbolizer: sites.variables.symbolizer.to_avma(bias),
                errno_location,
                accept: Accept::KERNEL,
                runtime: Runtime::Go(Box::new(GoPlan {
                    futex: sites.futex.start.to_avma(bias)..sites.futex.end.to_avma(bias),
                    tls_g: go.tls_g,
                    layout,
                    g_stack_lo: 0,
                    m_procid: layout.m_procid,
                    m_lockedg: layout.m_lockedg,
                    exit: sites.exit.to_avma(bias),
                    callers: sites.variables.callers.to_avma(bias),
                    call_traceback: sites.call_traceback.map(|address| address.to_avma(bias)),
                    signal_handlers: sites
                        .signal_handlers
                        .iter()
                        .map(|address| address.to_avma(bias))
                        .collect(),
                    async_preempt: sites.async_preempt.map(|address| address.to_avma(bias)),
                    threads: sites.threads.map(|threads| (threads, bias)),
                })),
            }));
        }
        if objects().any(|(_, _, object)| object.go.is_some()) {
            return Ok(None);
        }
        let Some(process) = &watched.process else {
            return Ok(None);
        };
        let executable = process.executable();
        let mut tables = Vec::new();
        for (entry, &at) in image.entries.iter().zip(&image.modules) {
            let Some((loaded, bias)) = self.modules.get(at).object(entry) else {
                continue;
            };
            let Ok(object) = loaded.object.lock() else {
                continue;
            };
            if let Some(table) = object.hook_table.clone()? {
                let is_executable = executable.as_deref() == Some(entry.name.as_str());
                tables.push((is_executable, table.to_avma(bias)));
            }
        }
        // The executable is the first that is loaded; libraries are mapped below those that were loaded before.
        let Some(&(_, table)) = tables.iter().max() else {
            return Ok(None);
        };
        let memory = process
            .memory(table.0, Table::SIZE)
            .map_err(|error| error.to_string())?;
        Table::read(&memory).map_err(|error| error.to_string())?;
        let calls =
            SystemCalls::find(process).ok_or("no library of it has code that makes any system call")?;
        Ok(Some(Plan {
            traceback: Avma(table.0.wrapping_add(Table::TRACEBACK)),
            symbolizer: Avma(table.0.wrapping_add(Table::SYMBOLIZER)),
            errno_location,
            accept: Accept::KERNEL,
            runtime: Runtime::Table(calls),
        }))
    }

    /// What kind of code is at an address of the program image in `slot`, in a generation of its mappings.
    pub fn code_at(&self, slot: u32, generation: u32, address: Avma) -> Code {
        let found = self
            .images
            .get(&slot)
            .and_then(|image| image.find(generation, address));
        let Some((at, in_module)) = found else {
            return Code::Native;
        };
        let Content::Object(loaded, bias) = &self.modules.get(at).content else {
            return Code::Native;
        };
        let Ok(object) = loaded.object.lock() else {
            return Code::Native;
        };
        let address = in_module.to_svma(*bias);
        match (&object.pclntab, &object.hooks) {
            (_, Ok(Some(sites))) if sites.asmcgocall.contains(&address) => Code::AsmCgoCall,
            (Some(pclntab), _) if pclntab.lookup(address).is_some() => Code::Go,
            _ => Code::Native,
        }
    }

    /// Time that the watched processes have spent on a CPU since samples are taken, in nanoseconds, as far as they
    /// still exist.
    pub fn on_cpu_ns(&self) -> u64 {
        let each = self.processes.values().filter_map(|watched| {
            let now = watched.process.as_ref()?.on_cpu_ns()?;
            Some(now.saturating_sub(watched.on_cpu_before?))
        });
        each.sum()
    }

    /// Process `parent` forked: `child` is watched with its tables.
    pub fn forked(&mut self, child: u32, parent: u32) {
        let Some(slot) = self.processes.get(&parent).map(|parent| parent.slot) else {
            return;
        };
        let process = Process::open(child).ok();
        let ended = process.is_none();
        if ended {
            self.leaving.processes.push(child);
        }
        self.processes.insert(
            child,
            Watched {
                process,
                slot,
                scanned: Some(Instant::now()),
                pause: RESCAN_PAUSE,
                ended,
                overflowed: false,
                on_cpu_before: Some(0),
            },
        );
    }

    /// A child of a watched process is none of ours: it is not recorded.
    pub fn disown(&mut self, pid: u32) {
        self.tables.unwatch(pid);
        self.processes.remove(&pid);
    }

    /// Process `pid` has called exec.
    pub fn execed(&mut self, pid: u32) {
        match Process::open(pid) {
            Ok(process) => self.admit(pid, process),
            // It has ended already; its few samples say so themselves.
            Err(_) => {
                if let Some(watched) = self.processes.get_mut(&pid) {
                    watched.ended = true;
                    self.leaving.processes.push(pid);
                }
            }
        }
    }

    fn new_image(&mut self, pid: u32, process: Option<Process>) -> Result<(), Error> {
        let slot = self.tables.new_slot()?;
        let index = slot.index;
        let on_cpu_before = self.processes.get(&pid).and_then(|watched| watched.on_cpu_before);
        let name: Arc<str> = process
            .as_ref()
            .map(Process::name)
            .or_else(|| self.names.get(&pid).map(|name| name.to_string()))
            .unwrap_or_default()
            .into();
        self.names.insert(pid, Arc::clone(&name));
        self.images.insert(index, Image::new(slot, pid, name));
        self.processes.insert(
            pid,
            Watched {
                process,
                slot: index,
                scanned: None,
                pause: RESCAN_PAUSE,
                ended: false,
                overflowed: false,
                on_cpu_before,
            },
        );
        self.scan(pid)?;
        let Some(image) = self.images.get(&index) else {
            return Ok(());
        };
        // It did not fit. Of those that were asked for, the walk at least says where they were interrupted.
        let overflowed = self.processes.get(&pid).is_some_and(|watched| watched.overflowed);
        if self.scope != Scope::Listed && overflowed {
            return Err(sampler::Error::Full { what: "mappings" }.into());
        }
        // Only now, when its tables are as complete as they get at once.
        Ok(self.tables.watch(pid, &image.slot)?)
    }

    /// Reads the mappings of the processes whose turn it is.
    pub fn rescan_due(&mut self) {
        let due: Vec<u32> = self
            .rescan
            .iter()
            .copied()
            .filter(|pid| {
                self.processes
                    .get(pid)
                    .is_none_or(|watched| watched.scanned.is_none_or(|at| at.elapsed() >= watched.pause))
            })
            .collect();
        for pid in due {
            self.rescan.remove(&pid);
            let begun = Instant::now();
            if let Err(error) = self.scan(pid) {
                self.turn_away(pid, &error);
            }
            if let Some(watched) = self.processes.get_mut(&pid) {
                watched.pause = RESCAN_PAUSE.max(begun.elapsed() * RESCAN_PAUSE_FACTOR);
            }
        }
    }

    /// Reads the mappings of a process and brings the tables of its image up to date.
    fn scan(&mut self, pid: u32) -> Result<(), Error> {
        let Some(watched) = self.processes.get_mut(&pid) else {
            return Ok(());
        };
        watched.scanned = Some(Instant::now());
        let slot = watched.slot;
        if self.images.get(&slot).is_some_and(|image| image.pid != pid) {
            // A child that had all from its parent, and goes its own way now.
            let process = watched.process.take();
            self.leaving.slots.push(slot);
            return self.new_image(pid, process);
        }
        let Some(process) = &watched.process else {
            return Ok(());
        };
        let mut entries = match process.maps() {
            Ok(entries) => entries,
            // It is ending; `notice_ends` will see that.
            Err(process::Error::Gone { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        entries.retain(|entry| entry.executable);
        let Some(image) = self.images.get_mut(&slot) else {
            return Ok(());
        };
        if image.entries == entries {
            image.is_up_to_date();
            return Ok(());
        }
        for entry in &entries {
            let at = self.modules.intern(pid, entry);
            if self.modules.get(at).has_to_be_read() && self.pending.insert(at) {
                self.request(pid, entry, at);
            }
        }
        if let Some(image) = self.images.get_mut(&slot) {
            image.modules = entries
                .iter()
                .map(|entry| self.modules.intern(pid, entry))
                .collect();
            image.entries = entries;
        }
        self.publish(slot)
    }

    /// Asks for the object of a new module, unless another module has it already, or there is none: JIT compilers map code
    /// in ten thousands of pieces.
    fn request(&mut self, pid: u32, entry: &MapEntry, at: ModuleIdx) {
        if !entry.is_shared() {
            self.pending.remove(&at);
            let none = files::Error::NotAFile {
                name: entry.name.clone(),
            };
            self.modules.set(at, Content::Bare(none.to_string()));
            return;
        }
        let twin = self.modules.iter().find_map(|(_, module)| match &module.content {
            Content::Object(loaded, _)
                if entry.is_file() && module.entry.file == entry.file && !loaded.is_freed() =>
            {
                Some(Arc::clone(loaded))
            }
            _ => None,
        });
        if let Some(loaded) = twin {
            self.pending.remove(&at);
            let content = place(loaded, &self.modules.get(at).entry);
            self.modules.set(at, content);
            return;
        }
        self.loader.request(Job {
            pid,
            entry: entry.clone(),
            module: at,
        });
    }

    /// Takes an object that was asked for.
    pub fn loaded(&mut self, done: Done) {
        let Done {
            job,
            object,
            ext_rules,
        } = done;
        let has_rules = self.tables.add_ext_rules(&ext_rules);
        let at = job.module;
        let content = match object {
            Ok(mut object) => {
                for problem in &object.problems {
                    self.warnings.push(format!("{}: {problem}", job.entry.name));
                }
                let regions = std::mem::take(&mut object.regions);
                let table = self.hold(has_rules, object.n_regions, &regions);
                let loaded = Loaded::new(*object, table);
                place(Arc::new(loaded), &self.modules.get(at).entry)
            }
            Err(reason) => {
                if let Some((pid, entry)) = self.another_with(at, job.pid) {
                    self.loader.request(Job {
                        pid,
                        entry,
                        module: at,
                    });
                    return;
                }
                Content::Bare(reason)
            }
        };
        self.pending.remove(&at);
        self.modules.set(at, content);
        let slots: Vec<u32> = self
            .images
            .iter()
            .filter(|(_, image)| image.modules.contains(&at))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            if let Err(error) = self.publish(slot)
                && let Some(pid) = self.images.get(&slot).map(|image| image.pid)
            {
                self.turn_away(pid, &error);
            }
        }
    }

    /// If process `pid`, from which a module could not be read, has ended: another one that has it, and where.
    fn another_with(&self, at: ModuleIdx, pid: u32) -> Option<(u32, MapEntry)> {
        let is_alive = |pid: u32| {
            let process = self
                .processes
                .get(&pid)
                .and_then(|watched| watched.process.as_ref());
            process.is_some_and(|process| !has_ended(process))
        };
        if is_alive(pid) {
            return None;
        }
        self.images
            .values()
            .filter(|image| image.pid != pid && is_alive(image.pid))
            .find_map(|image| {
                let index = image.modules.iter().position(|&module| module == at)?;
                Some((image.pid, image.entries.get(index)?.clone()))
            })
    }

    /// Makes the mappings of an image, as far as they are known, those that walks use from now on.
    fn publish(&mut self, slot: u32) -> Result<(), Error> {
        let Some(image) = self.images.get_mut(&slot) else {
            return Ok(());
        };
        let mut mapped = Vec::with_capacity(image.entries.len());
        let mut mappings = Vec::with_capacity(image.entries.len());
        let mut go: Vec<GoLayout> = Vec::new();
        for (entry, &at) in image.entries.iter().zip(&image.modules) {
            let module = self.modules.get(at);
            let runtime = module
                .object(entry)
                .and_then(|(loaded, bias)| go_layout(image.pid, loaded, bias));
            // An object can have its code in several mappings.
            go.extend(runtime.filter(|runtime| go.last().is_none_or(|last| last.text != runtime.text)));
            mappings.push(mapping(entry, module));
            mapped.push(Mapped::new(entry, at, &self.modules));
        }
        if go.len() > MAX_RUNTIMES {
            self.warnings.push(format!(
                "process {} has {} Go runtimes; call chains through more than {MAX_RUNTIMES} of them end early",
                image.pid,
                go.len()
            ));
        }
        go.resize(MAX_RUNTIMES, GoLayout::default());
        if let Some(go) = go.first_chunk() {
            self.tables.set_go(&image.slot, go);
        }
        match self.tables.publish(&mut image.slot, &mappings) {
            Ok(generation) => image.add_generation(generation, mapped.into()),
            // One process that maps too much is no reason to end the recording of all.
            Err(sampler::Error::Full { what }) => {
                let pid = image.pid;
                if let Some(watched) = self.processes.get_mut(&pid)
                    && !std::mem::replace(&mut watched.overflowed, true)
                {
                    self.warnings.push(format!(
                        "process {pid} has {} mappings of code, and the table of {what} has no room for them: its stacks \
                         end where it has mapped something since",
                        mappings.len()
                    ));
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Stops watching processes that have ended.
    fn notice_ends(&mut self) {
        let running = self.processes.iter().filter(|(_, watched)| !watched.ended);
        let (pids, mut fds): (Vec<u32>, Vec<PollFd<'_>>) = running
            .filter_map(|(&pid, watched)| {
                Some((pid, PollFd::new(&watched.process.as_ref()?.pidfd, PollFlags::IN)))
            })
            .unzip();
        if poll(&mut fds, Some(&AT_ONCE)).is_ok_and(|ended| ended == 0) {
            return;
        }
        let ended = pids
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty());
        let ended: Vec<u32> = ended.map(|(pid, _)| pid).collect();
        for pid in ended {
            if let Some(watched) = self.processes.get_mut(&pid) {
                watched.ended = true;
            }
            self.tables.unwatch(pid);
            self.leaving.processes.push(pid);
        }
    }

    /// Gives the places of processes that had ended by the last tick to others.
    fn forget(&mut self) {
        let Leaving { processes, mut slots } = std::mem::take(&mut self.leaving);
        for pid in processes {
            // Unless its number has been given to another process in the meantime.
            if self.processes.get(&pid).is_some_and(|watched| watched.ended)
                && let Some(watched) = self.processes.remove(&pid)
            {
                slots.push(watched.slot);
            }
        }
        for slot in slots {
            if self.processes.values().all(|watched| watched.slot != slot)
                && let Some(image) = self.images.remove(&slot)
            {
                self.tables.remove_slot(image.slot);
                self.made_room = true;
            }
        }
    }

    /// What was mapped, and what each process was called. The tables go.
    pub fn without_tables(self) -> (Modules, HashMap<u32, Arc<str>>) {
        (self.modules, self.names)
    }

    /// The Go release of a program with a Go runtime, as a fact.
    pub fn go_version(&self) -> Option<(String, String)> {
        self.modules.iter().find_map(|(_, module)| {
            let Content::Object(loaded, _) = &module.content else {
                return None;
            };
            let object = loaded.object.lock().ok()?;
            let go = object.go.as_ref()?;
            Some(("go".to_owned(), go.version.as_ref()?.to_string()))
        })
    }
}

/// A module with an object, loaded where `entry` has it.
fn place(loaded: Arc<Loaded>, entry: &MapEntry) -> Content {
    let svma = loaded.object.lock().ok().and_then(|object| {
        // The vDSO is an image in memory: the kernel maps its one segment from the start.
        object
            .symbols
            .object()
            .svma_of_offset(if entry.is_file() { entry.offset } else { 0 })
    });
    match svma {
        Some(svma) => Content::Object(loaded, bias(entry, svma)),
        None => Content::Bare("the mapping is of no segment of the file".into()),
    }
}

/// What the walk has to know of the Go runtime in a module, if there is one.
fn go_layout(pid: u32, loaded: &Loaded, bias: Bias) -> Option<GoLayout> {
    let object = loaded.object.lock().ok()?;
    let go = object.go.as_ref()?;
    let tls_g = match go.tls {
        TlsG::Fixed(offset) => offset,
        TlsG::GotSlot(slot) => {
            let bytes = Process::open(pid).ok()?.memory(slot.to_avma(bias).0, 8).ok()?;
            i64::from_le_bytes(*bytes.first_chunk()?)
        }
    };
    let text = object.pclntab.as_ref()?.text_range();
    Some(go.abi(bias, tls_g, text))
}

fn has_ended(process: &Process) -> bool {
    let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&AT_ONCE)).is_ok_and(|ready| ready > 0)
}

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

#[cfg(test)]
mod tests;
