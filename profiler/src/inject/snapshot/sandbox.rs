//! What a symbolizer may do in a snapshot: read. The copy shares descriptors, files and the machine with the process.

use crate::inject::filter::{
    self, ARCHITECTURE, ARGUMENTS, Instruction, NUMBER, X86_64, answer, has_bit, is_equal, load,
};
use std::io;

/// How much memory a symbolizer may map beyond what the process has, in bytes. Debug information of large programs takes
/// hundreds of MiB.
const GROWTH: u64 = 1 << 30;

/// The system calls that it may make (arch/x86/entry/syscalls/syscall_64.tbl): what reading files and managing memory
/// takes. All others fail with EPERM: writing, sending, killing, starting processes and threads, removing files.
const ALLOWED: [u32; 50] = [
    0,   // read
    3,   // close
    4,   // stat
    5,   // fstat
    6,   // lstat
    8,   // lseek
    9,   // mmap
    10,  // mprotect
    11,  // munmap
    12,  // brk
    13,  // rt_sigaction
    14,  // rt_sigprocmask
    15,  // rt_sigreturn
    17,  // pread64
    19,  // readv
    21,  // access
    24,  // sched_yield
    25,  // mremap
    27,  // mincore
    28,  // madvise
    35,  // nanosleep
    39,  // getpid
    60,  // exit
    63,  // uname
    78,  // getdents
    79,  // getcwd
    89,  // readlink
    96,  // gettimeofday
    97,  // getrlimit
    99,  // sysinfo
    102, // getuid
    104, // getgid
    107, // geteuid
    108, // getegid
    110, // getppid
    131, // sigaltstack
    186, // gettid
    201, // time
    202, // futex
    217, // getdents64
    221, // fadvise64
    228, // clock_gettime
    230, // clock_nanosleep
    231, // exit_group
    262, // newfstatat
    267, // readlinkat
    269, // faccessat
    295, // preadv
    318, // getrandom
    332, // statx
];
/// open(2) and openat(2), with the number of the argument that says what for.
const OPENING: [(u32, u32); 2] = [(2, 1), (257, 2)];
/// `O_WRONLY | O_RDWR | O_CREAT | O_TRUNC`.
const WRITING: u32 = 0o1 | 0o2 | 0o100 | 0o1000;

/// The limits of a snapshot: resources of setrlimit(2), and bytes.
pub(super) fn limits(tid: u32) -> io::Result<[(u64, u64); 2]> {
    const RLIMIT_CORE: u64 = 4;
    const RLIMIT_AS: u64 = 9;
    let statm = std::fs::read_to_string(format!("/proc/{tid}/statm"))?;
    let pages = statm
        .split(' ')
        .next()
        .and_then(|pages| pages.parse::<u64>().ok());
    let size = pages.unwrap_or(0).saturating_mul(4096);
    // A core file would be as large as the process.
    Ok([(RLIMIT_CORE, 0), (RLIMIT_AS, size.saturating_add(GROWTH))])
}

/// Whether a signal says that the code itself has failed: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
pub(super) const fn is_crash(signal: i32) -> bool {
    matches!(signal, 4 | 5 | 6 | 7 | 8 | 11 | 31)
}

/// The filter as a snapshot has it at `address`, and the address that seccomp(2) is given.
pub(super) fn filter(address: u64) -> (Vec<u8>, u64) {
    let program = program();
    let mut bytes: Vec<u8> = program.iter().flat_map(Instruction::bytes).collect();
    let header = address + bytes.len() as u64;
    // `struct sock_fprog`: a count and a pointer, aligned.
    bytes.extend((program.len() as u64).to_le_bytes());
    bytes.extend(address.to_le_bytes());
    (bytes, header)
}

/// The arguments of prctl(2) that gives up ever gaining privileges, without which not everybody may install a filter, and of
/// seccomp(2) for the filter.
pub(super) fn calls(filter: u64) -> [[u64; 6]; 2] {
    const PR_SET_NO_NEW_PRIVS: u64 = 38;
    const SECCOMP_SET_MODE_FILTER: u64 = 1;
    [
        [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0],
        [SECCOMP_SET_MODE_FILTER, 0, filter, 0, 0, 0],
    ]
}

/// For each call in turn, whether it is that one. Each test stands right before its answer, so no jump is long.
fn program() -> Vec<Instruction> {
    const ALLOW: Instruction = answer(filter::ALLOW);
    const EPERM: u32 = 1;
    const REFUSE: Instruction = answer(filter::ERRNO | EPERM);
    let mut program = vec![load(ARCHITECTURE), is_equal(X86_64, 1, 0), REFUSE, load(NUMBER)];
    for (number, argument) in OPENING {
        program.extend([
            is_equal(number, 0, 4),
            load(ARGUMENTS + 8 * argument),
            has_bit(WRITING, 0, 1),
            REFUSE,
            ALLOW,
        ]);
    }
    for number in ALLOWED {
        program.extend([is_equal(number, 0, 1), ALLOW]);
    }
    program.push(REFUSE);
    program
}

#[cfg(test)]
mod tests {
    use super::program;
    use crate::inject::filter::{Filter, Filters, SystemCall, Verdict};

    #[test]
    fn reading_is_allowed_and_all_else_refused() {
        let bytes: Vec<u8> = program().iter().flat_map(|one| one.bytes()).collect();
        let filters = Filters::new(vec![Filter::parse(&bytes)]);
        let judge = |number, arguments| {
            filters.judge(&SystemCall {
                number,
                arguments,
                pc: 0,
            })
        };
        let (o_rdonly, o_cloexec, o_wronly, o_rdwr, o_creat) = (0, 0o2_000_000, 1, 2, 0o100);
        for flags in [o_rdonly, o_cloexec] {
            assert_eq!(judge(2, [7, flags, 0, 0, 0, 0]), Verdict::Allowed);
            assert_eq!(judge(257, [7, 7, flags, 0, 0, 0]), Verdict::Allowed);
        }
        for flags in [o_wronly, o_rdwr, o_rdonly | o_creat] {
            assert_eq!(judge(2, [0, flags, 0, 0, 0, 0]), Verdict::Refused);
            assert_eq!(judge(257, [0, 0, flags, 0, 0, 0]), Verdict::Refused);
        }
        // read, mmap, exit_group, statx; write, fork, kill, unlink, io_uring_enter, one that does not exist.
        for number in [0, 9, 231, 332] {
            assert_eq!(judge(number, [u64::MAX; 6]), Verdict::Allowed, "{number}");
        }
        for number in [1, 57, 62, 87, 426, 100_000] {
            assert_eq!(judge(number, [0; 6]), Verdict::Refused, "{number}");
        }
    }
}
