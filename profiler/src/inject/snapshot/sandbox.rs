//! What a symbolizer may do in a snapshot: read. The copy shares descriptors, files and the machine with the process.

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

/// `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    /// How many instructions to skip if the condition holds, and if not.
    jump: (u8, u8),
    k: u32,
}

impl Instruction {
    fn bytes(&self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_le_bytes(), self.k.to_le_bytes());
        [c0, c1, self.jump.0, self.jump.1, k0, k1, k2, k3]
    }
}

/// Loads a word of `struct seccomp_data`.
const fn load(offset: u32) -> Instruction {
    Instruction {
        code: 0x20,
        jump: (0, 0),
        k: offset,
    }
}

const fn is_equal(k: u32, yes: u8, no: u8) -> Instruction {
    Instruction {
        code: 0x15,
        jump: (yes, no),
        k,
    }
}

const fn has_bit(k: u32, yes: u8, no: u8) -> Instruction {
    Instruction {
        code: 0x45,
        jump: (yes, no),
        k,
    }
}

const fn answer(k: u32) -> Instruction {
    Instruction {
        code: 0x06,
        jump: (0, 0),
        k,
    }
}

/// For each call in turn, whether it is that one. Each test stands right before its answer, so no jump is long.
fn program() -> Vec<Instruction> {
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const ARGUMENTS: u32 = 16;
    const X86_64: u32 = 0xc000_003e;
    const ALLOW: Instruction = answer(0x7fff_0000);
    // `SECCOMP_RET_ERRNO | EPERM`.
    const REFUSE: Instruction = answer(0x0005_0001);
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
