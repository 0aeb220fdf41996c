//! Which threads of a program without Go can be stopped for a moment, and make system calls meanwhile, so that they do not
//! notice. Looking only.

use super::process::{Process, Task};
use super::status::Syscall;

/// poll(2).
pub const POLL: u64 = 7;
const READ: u64 = 0;
const PAUSE: u64 = 34;
const WAIT4: u64 = 61;
const FUTEX: u64 = 202;
const WAITID: u64 = 247;

/// Those of `tasks` that wait for as long as it takes or run, in this order: of those that wait nobody notices that they
/// are stopped.
pub fn candidates<'t>(process: &Process, tasks: impl Iterator<Item = &'t Task>) -> Vec<u32> {
    let (mut waiting, mut running) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.syscall {
            Some(call) if waits(process, &call) => waiting.push(task.tid),
            None if task.status.state == b'R' => running.push(task.tid),
            _ => {}
        }
    }
    waiting.append(&mut running);
    waiting
}

/// Whether a call waits without a limit of time, and begins again (signal(7)) after a signal that nobody handles.
fn waits(process: &Process, call: &Syscall) -> bool {
    let [descriptor, operation, timeout, limit, ..] = call.arguments;
    match call.number {
        // FUTEX_WAIT and FUTEX_WAIT_BITSET, with or without FUTEX_PRIVATE_FLAG.
        FUTEX => matches!(operation & 0x7f, 0 | 9) && limit == 0,
        PAUSE | WAIT4 | WAITID => true,
        POLL => (timeout as i32) < 0,
        // Sockets can have a limit of time, and devices a will of their own.
        READ => std::fs::read_link(format!("/proc/{}/fd/{descriptor}", process.pid))
            .is_ok_and(|file| file.to_string_lossy().starts_with("pipe:[")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::candidates;
    use crate::target::process::{Process, Task};
    use crate::target::status::{Status, Syscall};

    fn task(tid: u32, state: u8, call: Option<(u64, [u64; 4])>) -> Task {
        let syscall = call.map(|(number, [a, b, c, d])| Syscall {
            number,
            arguments: [a, b, c, d, 0, 0],
            sp: 0x7fff_0000,
            pc: 0x40_1000,
        });
        let status = Status {
            state,
            ..Status::default()
        };
        Task { tid, status, syscall }
    }

    #[test]
    fn those_that_wait_without_a_limit_come_before_those_that_run() {
        let us = Process::open(std::process::id()).expect("we exist");
        let limited = 0x7fff_1000;
        let tasks = [
            task(1, b'R', None),
            task(2, b'S', Some((202, [0x1000, 0x80, 0, 0]))),
            task(3, b'S', Some((202, [0x1000, 0x189, 0, 0]))),
            task(4, b'S', Some((202, [0x1000, 0x80, 0, limited]))),
            task(5, b'S', Some((202, [0x1000, 0x81, 0, 0]))),
            task(6, b'S', Some((7, [0x1000, 1, u64::MAX, 0]))),
            task(7, b'S', Some((7, [0x1000, 1, 100, 0]))),
            task(8, b'S', Some((232, [4, 0x1000, 1, u64::MAX]))),
            task(9, b'S', Some((34, [0; 4]))),
            // In the kernel, but in no call.
            task(10, b'S', None),
        ];
        assert_eq!(candidates(&us, tasks.iter()), [2, 3, 6, 9, 1]);
    }
}
