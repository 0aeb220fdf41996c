//! Code with which any thread of a process can make any system call, and come back from it.
//!
//! Every C library has both pieces. The first is in functions whose calls cannot fail, getppid(2) for one. The second is
//! what `sa_restorer` points to; unwinders know signal frames by its bytes, so it is the same everywhere (libgcc's
//! config/i386/linux-unwind.h; glibc's and musl's `__restore_rt`).

use super::maps::MapEntry;
use super::process::Process;
use crate::addr::Avma;

/// `syscall; ret`.
const CALL: [u8; 3] = [0x0f, 0x05, 0xc3];
/// `mov $15, %rax; syscall`: rt_sigreturn(2).
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];
/// The most code that is searched in one mapping, in bytes. C libraries have two million.
const MAX_CODE: u64 = 64 << 20;

/// Where the pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCalls {
    /// Makes the call that the registers say, and returns to the address on the stack.
    pub call: Avma,
    /// Restores the registers from the signal frame on the stack.
    pub sigreturn: Avma,
}

impl SystemCalls {
    /// Finds them in the code that `process` has mapped from files. `None` if it has none, or we may not look.
    pub fn find(process: &Process) -> Option<Self> {
        let maps = process.maps().ok()?;
        let (mut call, mut sigreturn) = (None, None);
        let code = maps.iter().filter(|map| map.executable && map.is_file());
        for map in code.filter(|map| map.end - map.start <= MAX_CODE) {
            let Ok(bytes) = process.memory(map.start, (map.end - map.start) as usize) else {
                continue;
            };
            call = call.or_else(|| find(map, &bytes, &CALL));
            sigreturn = sigreturn.or_else(|| find(map, &bytes, &SIGRETURN));
            if let (Some(call), Some(sigreturn)) = (call, sigreturn) {
                return Some(Self { call, sigreturn });
            }
        }
        None
    }

    /// Whether they still are there.
    pub fn are_there(&self, process: &Process) -> bool {
        let has = |at: Avma, code: &[u8]| process.memory(at.0, code.len()).is_ok_and(|found| found == code);
        has(self.call, &CALL) && has(self.sigreturn, &SIGRETURN)
    }
}

fn find(map: &MapEntry, bytes: &[u8], code: &[u8]) -> Option<Avma> {
    let at = bytes.windows(code.len()).position(|window| window == code)?;
    Some(Avma(map.start + at as u64))
}

#[cfg(test)]
mod tests {
    use super::SystemCalls;
    use crate::addr::Avma;
    use crate::target::process::Process;

    #[test]
    fn our_own_libc_has_both() {
        let us = Process::open(std::process::id()).expect("we exist");
        let found = SystemCalls::find(&us).expect("there is a libc");
        assert!(found.are_there(&us));
        let elsewhere = SystemCalls {
            call: Avma(found.call.0 + 1),
            ..found
        };
        assert!(!elsewhere.are_there(&us));
    }
}
