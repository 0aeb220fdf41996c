//! Fetching debug files of objects that samples are in, while it is recorded, on a thread of its own: nobody waits for a
//! server who does not want to.

use super::collect::Collected;
use super::images::{Content, Loaded, ModuleIdx, Modules};
use crate::debuginfo::debuginfod::{Client, Settings};
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use tokio::sync::mpsc as tokio_mpsc;

/// The thread; there is none if no server is to be asked. It ends soon after this is dropped.
#[derive(Debug, Default)]
pub struct Fetching(Option<Thread>);

#[derive(Debug)]
struct Thread {
    objects: mpsc::Sender<Arc<Loaded>>,
    done: tokio_mpsc::UnboundedReceiver<()>,
    waiting: usize,
    /// Modules whose objects have been asked for what they want.
    asked: HashSet<ModuleIdx>,
    stop: Arc<AtomicBool>,
}

impl Fetching {
    /// Starts the thread, if any server is to be asked.
    ///
    /// # Errors
    /// The system does not give another thread.
    pub fn start(settings: Option<Settings>) -> std::io::Result<Self> {
        let Some(settings) = settings else {
            return Ok(Self(None));
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = Client::new(settings, Arc::clone(&stop));
        let (objects, work) = mpsc::channel::<Arc<Loaded>>();
        let (finished, done) = tokio_mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("debuginfod".into())
            .spawn(move || {
                for loaded in work {
                    fetch(&mut client, &loaded);
                    if finished.send(()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self(Some(Thread {
            objects,
            done,
            waiting: 0,
            asked: HashSet::new(),
            stop,
        })))
    }

    /// Called every now and then: asks for the files of objects that samples have come to be in.
    pub fn tick(&mut self, collected: &Collected, modules: &Modules) {
        let Some(thread) = &mut self.0 else { return };
        let new: BTreeSet<ModuleIdx> = collected.modules.difference(&thread.asked).copied().collect();
        for at in new {
            // Others have not been read yet, or never will be.
            let Content::Object(loaded, _) = &modules.get(at).content else {
                continue;
            };
            thread.asked.insert(at);
            let wants = loaded.object.lock().is_ok_and(|mut object| object.symbols.ask());
            if wants && thread.objects.send(Arc::clone(loaded)).is_ok() {
                thread.waiting += 1;
            }
        }
        while thread.done.try_recv().is_ok() {
            thread.waiting -= 1;
        }
    }

    /// Whether files are still being fetched.
    pub fn is_busy(&self) -> bool {
        self.0.as_ref().is_some_and(|thread| thread.waiting > 0)
    }

    /// Waits until they are there, or are not to be had.
    pub async fn finish(&mut self) {
        let Some(thread) = &mut self.0 else { return };
        while thread.waiting > 0 && thread.done.recv().await.is_some() {
            thread.waiting -= 1;
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Fetches what an object wants: its debug file, then the supplementary file that this refers to.
fn fetch(client: &mut Client, loaded: &Loaded) {
    let wanted = || loaded.object.lock().ok()?.symbols.wanted();
    while let Some(build_id) = wanted() {
        // The lock is free in the meantime.
        let fetched = client.fetch(&build_id);
        let Ok(mut object) = loaded.object.lock() else {
            return;
        };
        object.symbols.answer(&build_id, fetched);
    }
}
