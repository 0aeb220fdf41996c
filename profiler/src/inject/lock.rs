//! Whose a helper is: a living profiler has its file locked.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::ops::Deref;

/// The file of a helper, locked until this is dropped: others see that the helper is in use.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Locked {
    /// # Errors
    /// `EWOULDBLOCK` if somebody else has locked it.
    pub(super) fn new(file: File) -> rustix::io::Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it would do only when everybody has: a program that we are just starting has a copy until it executes
        // (flock(2)). To unlock what we have locked cannot fail.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Locked;
    use rustix::io::Errno;
    use std::fs::File;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_it_locked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let first = Locked::new(open()).unwrap();
        let _copy = first.try_clone().unwrap();
        assert_eq!(Locked::new(open()).err(), Some(Errno::WOULDBLOCK));
        drop(first);
        Locked::new(open()).unwrap();
    }
}
