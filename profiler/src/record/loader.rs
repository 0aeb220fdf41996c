//! Reading object files on a thread of its own, so that a large one does not keep samples waiting.

use super::images::ModuleIdx;
use super::objects::Object;
use crate::debuginfo::Roots;
use crate::explain::explain;
use crate::inject;
use crate::target::Mapped;
use crate::target::files;
use crate::target::maps::MapEntry;
use crate::target::process::Process;
use crate::unwind::ExtTable;
use bytes::Bytes;
use profiler_abi::rule::ExtRule;
use std::sync::mpsc;
use tokio::sync::mpsc as tokio_mpsc;

/// A mapping whose object is wanted.
#[derive(Debug)]
pub struct Job {
    /// A process that has it.
    pub pid: u32,
    /// The mapping.
    pub entry: MapEntry,
    /// The module that it is of.
    pub module: ModuleIdx,
}

/// What came of a [`Job`].
pub struct Done {
    /// The mapping.
    pub job: Job,
    /// The object, or why there is none.
    pub object: Result<Box<Object>, String>,
    /// All extended rules so far.
    pub ext_rules: Vec<ExtRule>,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Loader {
    jobs: mpsc::Sender<Job>,
    done: tokio_mpsc::UnboundedReceiver<Done>,
    waiting: usize,
}

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system does not give another thread.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (finished, done) = tokio_mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("object-loader".into())
            .spawn(move || {
                let (mut ext, mut roots) = (ExtTable::default(), Roots::default());
                let mut waiting = Vec::new();
                while let Some(job) = smallest(&work, &mut waiting) {
                    let object = contents(&job).and_then(|file| {
                        let places = roots.places(job.pid);
                        let object = Object::read(job.entry.path(), &file, places, &mut ext)?;
                        Ok(Box::new(object))
                    });
                    let ext_rules = ext.rules().to_vec();
                    if finished
                        .send(Done {
                            job,
                            object,
                            ext_rules,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(Self {
            jobs,
            done,
            waiting: 0,
        })
    }

    /// Asks for an object.
    pub fn request(&mut self, job: Job) {
        // The thread cannot have ended: it holds on to its end of `done` as long as we hold ours.
        if self.jobs.send(job).is_ok() {
            self.waiting += 1;
        }
    }

    /// The next object that is ready; waits for ever if none was asked for.
    pub async fn next(&mut self) -> Done {
        match self.done.recv().await {
            Some(done) => {
                self.waiting -= 1;
                done
            }
            None => std::future::pending().await,
        }
    }

    /// Whether objects are still being read.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0
    }
}

/// Takes the job with the least code: many are done before one that is large would be. Waits if there is none; `None` if
/// there will be none any more.
fn smallest(work: &mpsc::Receiver<Job>, waiting: &mut Vec<Job>) -> Option<Job> {
    waiting.extend(work.try_iter());
    if waiting.is_empty() {
        return work.recv().ok();
    }
    let code = |job: &Job| job.entry.end.saturating_sub(job.entry.start);
    let (at, _) = waiting.iter().enumerate().min_by_key(|(_, job)| code(job))?;
    Some(waiting.swap_remove(at))
}

fn contents(job: &Job) -> Result<Mapped, String> {
    if let Some(ours) = inject::object(&job.entry.name) {
        return Ok(Bytes::from_static(ours).into());
    }
    let process = Process::open(job.pid).map_err(|error| explain(&error))?;
    files::contents(&process, &job.entry).map_err(|error| explain(&error))
}
