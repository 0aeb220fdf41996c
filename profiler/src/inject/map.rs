//! Putting the helper into the target.

use super::error::Error;
use super::image::Image;
use super::leave::Region;
use super::leftovers::{self, NAME};
use super::lock::Locked;
use super::sys::SharedMap;
use super::thread::{Call, Fault};
use super::{GoPlan, Plan, Runtime, borrow, check};
use crate::addr::Avma;
use crate::target::preflight::{self, Outcome};
use crate::target::process::Process;
use profiler_helper::shared::{MAGIC, VERSION};
use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

/// `MFD_CLOEXEC | MFD_ALLOW_SEALING`.
const MEMFD_FLAGS: u64 = 1 | 2;
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;

/// A process that has the helper in its memory, as one file without a name: code that it may execute, and behind it
/// memory that it shares with us. Nothing leads there yet. Should we die, the next run finds it by its name.
#[derive(Debug)]
pub struct Mapped {
    pub(super) process: Process,
    pub(super) plan: Plan,
    pub(super) image: &'static Image,
    pub(super) region: Region,
    /// Locked for as long as we are there.
    pub(super) _memfd: Locked,
    /// The longest time that a thread has been stopped.
    pub(super) longest_stop: Duration,
}

/// What has been done so far.
#[derive(Default)]
struct Progress {
    /// The descriptor in the target, and ours.
    memfd: Option<(u64, Locked)>,
    base: Option<u64>,
    is_split: bool,
}

impl Mapped {
    /// Checks that `process` may be touched, removes what a killed profiler left, and maps the helper.
    ///
    /// # Errors
    /// The process is left as it was, and the error says which condition does not hold.
    pub fn new(process: Process, plan: Plan) -> Result<Self, Error> {
        check(&process)?;
        if let Runtime::Go(go) = &plan.runtime {
            check_callers(&process, go)?;
        }
        leftovers::remove(&process, &plan)?;
        let image = Image::built()?;
        let mut progress = Progress::default();
        let done = borrow(&process, &plan, |thread| {
            if progress.memfd.is_none() {
                let name = thread.scratch(NAME.to_bytes_with_nul())?;
                let fd = thread.call(Call::MemfdCreate, [name, MEMFD_FLAGS, 0, 0, 0, 0])?;
                let memfd = fill(&process, fd, image);
                let memfd = memfd.map_err(|source| access(&process, "fill the helper's memory", source))?;
                progress.memfd = Some((fd, memfd));
            }
            let Some((fd, _)) = progress.memfd else {
                return Err(Fault::Unfit);
            };
            if progress.base.is_none() {
                let arguments = [0, image.len(), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0];
                progress.base = Some(thread.call(Call::Mmap, arguments)?);
            }
            let Some(base) = progress.base else {
                return Err(Fault::Unfit);
            };
            if !progress.is_split {
                let (at, len) = (base.wrapping_add(image.shared), image.len() - image.shared);
                let arguments = [
                    at,
                    len,
                    PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_FIXED,
                    fd,
                    image.shared,
                ];
                thread.call(Call::Mmap, arguments)?;
                progress.is_split = true;
            }
            thread.call(Call::Close, [fd, 0, 0, 0, 0, 0])?;
            Ok(base)
        });
        let mapped = done.and_then(|(base, longest_stop)| {
            let (_, memfd) = progress
                .memfd
                .take()
                .ok_or(Error::Image("it was mapped without a file"))?;
            let shared = SharedMap::new(&memfd, image.shared);
            let shared = shared.map_err(|source| access(&process, "share the helper's memory", source))?;
            Ok((base, longest_stop, memfd, shared))
        });
        let (base, longest_stop, memfd, shared) = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                // Without our lock the remains are nobody's.
                drop(progress);
                let _ = leftovers::remove(&process, &plan);
                return Err(error);
            }
        };
        plan.write_to(&shared.config);
        shared.version.store(VERSION, Relaxed);
        shared.magic.store(MAGIC, Release);
        let region = Region {
            base,
            len: image.len(),
            shared_at: base.wrapping_add(image.shared),
            shared,
        };
        Ok(Self {
            process,
            plan,
            image,
            region,
            _memfd: memfd,
            longest_stop,
        })
    }
}

/// Checks that Go's runtime has a function that calls hooks.
fn check_callers(process: &Process, plan: &GoPlan) -> Result<(), Error> {
    let value = process.memory(plan.callers.0, 8);
    let value = value.map_err(|source| access(process, "read the memory", source))?;
    let callers = value.try_into().map_or(0, u64::from_le_bytes);
    let maps = process.maps().unwrap_or_default();
    let is_code = |address: Avma| {
        maps.iter()
            .any(|map| map.executable && (map.start..map.end).contains(&address.0))
    };
    let condition = preflight::callers((callers != 0).then_some(Avma(callers)), is_code);
    match condition.outcome {
        Outcome::Fails => Err(Error::refused(process.pid, condition)),
        Outcome::Holds | Outcome::Unknown => Ok(()),
    }
}

/// Fills the file that the target has as descriptor `fd`. Sealed, so that nobody can cut off what others have mapped.
fn fill(process: &Process, fd: u64, image: &Image) -> io::Result<Locked> {
    let path = format!("/proc/{}/fd/{fd}", process.pid);
    if !leftovers::is_ours(&path) {
        return Err(io::Error::other(
            "another thread of the process has closed its descriptor",
        ));
    }
    let memfd = Locked::new(File::options().read(true).write(true).open(path)?)?;
    ftruncate(&*memfd, image.len())?;
    memfd.write_all_at(&image.code, 0)?;
    fcntl_add_seals(&*memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd)
}

fn access(process: &Process, what: &'static str, source: io::Error) -> Error {
    Error::Access {
        pid: process.pid,
        what,
        source,
    }
}
