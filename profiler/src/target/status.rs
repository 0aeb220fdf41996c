//! `/proc/PID/status` and `/proc/PID/task/TID/syscall`: bytes in, facts out. Pure.

/// What is read of `/proc/PID/status` (proc_pid_status(5)). A line that the kernel does not write is 0: it does not
/// have what the line is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is doing: a letter, in ASCII.
    pub state: u8,
    /// The id in the innermost namespace: the one that the thread itself sees.
    pub id_inside: u32,
    /// The process that traces it; 0 if none does.
    pub tracer: u32,
    /// 0 if it may make all system calls, 1 in strict mode, 2 with a filter.
    pub seccomp: u32,
    /// Memory of its process that is in no file, in memory or in swap, in bytes.
    pub anonymous: u64,
    /// Signals that wait for the thread or its process. Of these masks, bit N - 1 is for signal N.
    pub pending: u64,
    /// Signals that the thread blocks.
    pub blocked: u64,
    /// Signals that the process ignores.
    pub ignored: u64,
    /// Signals that the process has a handler for.
    pub caught: u64,
    /// Capabilities in effect; bit numbers are in capabilities(7).
    pub capabilities: u64,
    /// It has a shadow stack (Documentation/arch/x86/shstk.rst).
    pub shadow_stack: bool,
}

impl Status {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Whether it has been stopped, by SIGSTOP or a debugger.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Whether it sleeps, and a signal wakes it.
    pub fn is_asleep(&self) -> bool {
        self.state == b'S'
    }

    /// Whether it sleeps and no signal wakes it: on a disk, or frozen.
    pub fn is_uninterruptible(&self) -> bool {
        self.state == b'D'
    }

    /// Parses the file. What is not as documented is 0.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut status = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let number = || value.trim().parse().unwrap_or(0);
            let mask = || u64::from_str_radix(value.trim(), 16).unwrap_or(0);
            match key {
                "State" => status.state = value.trim().bytes().next().unwrap_or(0),
                "NSpid" => {
                    let innermost = value.split_whitespace().next_back();
                    status.id_inside = innermost.and_then(|id| id.parse().ok()).unwrap_or(0);
                }
                "TracerPid" => status.tracer = number(),
                "RssAnon" | "VmSwap" => {
                    let kib = value
                        .trim()
                        .strip_suffix(" kB")
                        .and_then(|kib| kib.parse::<u64>().ok());
                    status.anonymous = status
                        .anonymous
                        .saturating_add(kib.unwrap_or(0).saturating_mul(1024));
                }
                "Seccomp" => status.seccomp = number(),
                "SigPnd" | "ShdPnd" => status.pending |= mask(),
                "SigBlk" => status.blocked = mask(),
                "SigIgn" => status.ignored = mask(),
                "SigCgt" => status.caught = mask(),
                "CapEff" => status.capabilities = mask(),
                "x86_Thread_features" => {
                    status.shadow_stack = value.split_whitespace().any(|feature| feature == "shstk");
                }
                _ => {}
            }
        }
        status
    }
}

/// A system call that a thread waits in (proc_pid_syscall(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// The stack pointer.
    pub sp: u64,
    /// The program counter: behind the instruction that made the call.
    pub pc: u64,
}

impl Syscall {
    /// Parses the file. `None` if the thread runs, or waits for something else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let hex: Vec<u64> = words
            .map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
            .collect::<Option<_>>()?;
        let [a, b, c, d, e, f, sp, pc] = hex[..] else {
            return None;
        };
        Some(Self {
            number,
            arguments: [a, b, c, d, e, f],
            sp,
            pc,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Status, Syscall};

    #[test]
    fn every_field_comes_back() {
        let text = b"Name:\tx: y\nState:\tS (sleeping)\nNSpid:\t4711\t12\nTracerPid:\t7\nRssAnon:\t      40 kB\nVmSwap:\t       2 kB\nSeccomp:\t2\nSigPnd:\t0000000000000001\n\
            ShdPnd:\t0000000000000002\nSigBlk:\t0000000000000400\nSigIgn:\t0000000000001000\n\
            SigCgt:\tfffffffc00000000\nCapEff:\t0000000000080000\nx86_Thread_features:\tshstk wrss \n";
        let expected = Status {
            state: b'S',
            id_inside: 12,
            anonymous: 42 << 10,
            tracer: 7,
            seccomp: 2,
            pending: 3,
            blocked: 0x400,
            ignored: 0x1000,
            caught: 0xffff_fffc_0000_0000,
            capabilities: 1 << 19,
            shadow_stack: true,
        };
        assert_eq!(Status::parse(text), expected);
    }

    #[test]
    fn what_is_missing_or_strange_is_zero() {
        let text = b"State:\nSeccomp:\tx\nSigBlk:\t\nTracerPid\nNSpid:\nx86_Thread_features:\t\n\xff:\xff\n";
        assert_eq!(Status::parse(text), Status::default());
        assert_eq!(Status::parse(b""), Status::default());
    }

    #[test]
    fn our_own_status_is_understood() {
        let text = std::fs::read("/proc/self/status").expect("own status");
        let status = Status::parse(&text);
        assert_eq!((status.id_inside, status.tracer), (std::process::id(), 0));
    }

    #[test]
    fn a_thread_in_a_system_call_says_which_and_where_from() {
        let text = b"202 0x1 0x80 0x0 0x0 0x0 0x0 0x7ffe00 0x45c0ff\n";
        let expected = Syscall {
            number: 202,
            arguments: [1, 0x80, 0, 0, 0, 0],
            sp: 0x7ffe00,
            pc: 0x45c0ff,
        };
        assert_eq!(Syscall::parse(text), Some(expected));
    }

    #[test]
    fn a_thread_that_is_in_no_system_call_says_none() {
        for text in [
            "running\n",
            "-1 0x7ffe00 0x45c0ff\n",
            "",
            "202 0x1\n",
            "202 1 2 3 4 5 6 7 8\n",
        ] {
            assert_eq!(Syscall::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
