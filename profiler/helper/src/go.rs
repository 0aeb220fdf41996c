//! What the interrupted thread is to Go's runtime.

use crate::shared::Config;
use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

/// The interrupted thread.
pub(crate) struct Thread {
    /// Its id as Go knows it; 0: Go does not know the thread.
    pub(crate) tid: u64,
    /// The goroutine that it runs; 0: none.
    pub(crate) curg: u64,
    /// Whether Go's own signal handler would ask the traceback function for the interrupted code.
    pub(crate) asks_leaf: bool,
}

impl Thread {
    /// The calling thread. The conditions are those of `runtime.cgoSigtramp` (runtime/sys_linux_amd64.s, Go 1.21–1.27).
    ///
    /// # Safety
    /// `config` describes the process, and the thread runs a signal handler.
    pub(crate) unsafe fn current(config: &Config) -> Self {
        let mut thread = Self {
            tid: 0,
            curg: 0,
            // A thread that Go does not know.
            asks_leaf: true,
        };
        if config.go.load(Relaxed) == 0 {
            return thread;
        }
        // SAFETY: g is in the thread's own static TLS block, and null or a g of the running runtime; g.m and m.curg
        // likewise. None of these is freed while the thread runs (an M's g0 and m outlive the thread's signals).
        unsafe {
            let g = word_at_thread_pointer(config.tls_g.load(Relaxed));
            if g == 0 {
                return thread;
            }
            thread.asks_leaf = false;
            let m = word(g, config.g_m.load(Relaxed));
            if m == 0 {
                return thread;
            }
            thread.tid = word(m, config.m_procid.load(Relaxed));
            let curg = word(m, config.m_curg.load(Relaxed));
            if curg == 0 || word(curg, config.g_m.load(Relaxed)) != m {
                return thread;
            }
            thread.curg = curg;
            thread.asks_leaf = half_word(m, config.m_ncgo.load(Relaxed)).cast_signed() > 0
                && word(curg, config.g_syscallsp.load(Relaxed)) != 0
                && half_word(m, config.m_cgo_callers_use.load(Relaxed)) == 0;
        }
        thread
    }
}

/// The contexts of the callbacks that a goroutine is in, oldest first.
pub(crate) struct Contexts {
    array: u64,
    /// How many there are.
    pub(crate) len: u64,
}

impl Contexts {
    /// Those of `curg`, a slice. Only the goroutine's own thread changes it, in an order in which a signal handler on
    /// that thread finds it consistent (runtime/cgocall.go, `cgocallbackg1`).
    ///
    /// # Safety
    /// `curg` is 0 or the goroutine that the calling thread runs.
    pub(crate) unsafe fn of(curg: u64, config: &Config) -> Self {
        if curg == 0 {
            return Self { array: 0, len: 0 };
        }
        let slice = config.g_cgo_ctxt.load(Relaxed);
        // SAFETY: by the contract of this function; the slice's header is part of g.
        let (array, len) = unsafe { (word(curg, slice), word(curg, slice.wrapping_add(8))) };
        Self {
            array,
            len: if array == 0 { 0 } else { len },
        }
    }

    /// The context with this index, which is less than [`Contexts::len`].
    ///
    /// # Safety
    /// The goroutine has not run since [`Contexts::of`].
    pub(crate) unsafe fn get(&self, index: u64) -> u64 {
        // SAFETY: by the contract of this function.
        unsafe { word(self.array, index.wrapping_mul(8)) }
    }
}

/// The thread pointer: x86-64's ABI for thread-local storage wants it at its own address.
pub(crate) fn thread_pointer() -> u64 {
    // SAFETY: every thread of a program with a libc has a thread control block at fs:0.
    unsafe { word_at_thread_pointer(0) }
}

/// # Safety
/// There is a word at this offset from the thread pointer.
unsafe fn word_at_thread_pointer(offset: u64) -> u64 {
    let word;
    // SAFETY: by the contract of this function.
    unsafe {
        asm!("mov {}, fs:[{}]", out(reg) word, in(reg) offset, options(nostack, preserves_flags, readonly))
    };
    word
}

/// # Safety
/// There is an aligned word at `base + offset`.
pub(crate) unsafe fn word(base: u64, offset: u64) -> u64 {
    // SAFETY: by the contract of this function. Volatile: other threads of the process may write it.
    unsafe { (base.wrapping_add(offset) as *const u64).read_volatile() }
}

/// # Safety
/// There are four aligned bytes at `base + offset`.
unsafe fn half_word(base: u64, offset: u64) -> u32 {
    // SAFETY: by the contract of this function. Volatile: other threads of the process may write it.
    unsafe { (base.wrapping_add(offset) as *const u32).read_volatile() }
}
