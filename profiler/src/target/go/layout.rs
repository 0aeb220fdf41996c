//! Where the fields of `runtime.g` and `runtime.m` are.

use super::GoVersion;

macro_rules! layout {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// Offsets in `runtime.g` and `runtime.m`, in bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Layout { $($(#[$doc])* pub $field: u32,)* }

        impl Layout {
            /// The fields under Go's names for them.
            pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, u32)> {
                [$(($name, self.$field)),*].into_iter()
            }

            /// Asks `offset` for each field by Go's name for it, until it does not know one.
            pub(super) fn from_names(mut offset: impl FnMut(&'static str) -> Option<u32>) -> Option<Self> {
                Some(Self { $($field: offset($name)?,)* })
            }
        }
    };
}

layout! {
    /// Upper end of the goroutine's stack.
    g_stack_hi: "g.stack.hi",
    /// The thread (M) that runs the goroutine.
    g_m: "g.m",
    /// Stack pointer of a goroutine that is not running.
    g_sched_sp: "g.sched.sp",
    /// Program counter of a goroutine that is not running.
    g_sched_pc: "g.sched.pc",
    /// Stack pointer while in a system call or in C; else 0.
    g_syscallsp: "g.syscallsp",
    /// The goroutine's number.
    g_goid: "g.goid",
    /// The contexts of the C code that called back into this goroutine: a slice.
    g_cgo_ctxt: "g.cgoCtxt",
    /// The profiler labels.
    g_labels: "g.labels",
    /// The goroutine of the thread's system stack.
    m_g0: "m.g0",
    /// The goroutine that the thread runs.
    m_curg: "m.curg",
    /// How many calls of C are in progress.
    m_ncgo: "m.ncgo",
    /// Whether [`Layout::m_cgo_callers`] is being read.
    m_cgo_callers_use: "m.cgoCallersUse",
    /// Pointer to the C stack that a traceback hook reported.
    m_cgo_callers: "m.cgoCallers",
    /// The thread's id, as the process sees it.
    m_procid: "m.procid",
    /// The next thread in the list of all.
    m_alllink: "m.alllink",
    /// The goroutine that runs on this thread only; while it is parked, the thread waits for it.
    m_lockedg: "m.lockedg",
}

/// The first minor release that is supported.
pub(super) const OLDEST_MINOR: u32 = 21;

/// What differs between releases. All else has been where [`Release::layout`] puts it since Go 1.21.
struct Release {
    g_syscallsp: u32,
    g_goid: u32,
    g_cgo_ctxt: u32,
    g_labels: u32,
    m_curg: u32,
    m_ncgo: u32,
    m_cgo_callers_use: u32,
    m_cgo_callers: u32,
    m_procid: u32,
    m_alllink: u32,
    m_lockedg: u32,
}

const fn release(g: [u32; 4], m: [u32; 7]) -> Release {
    let [g_syscallsp, g_goid, g_cgo_ctxt, g_labels] = g;
    let [
        m_curg,
        m_ncgo,
        m_cgo_callers_use,
        m_cgo_callers,
        m_procid,
        m_alllink,
        m_lockedg,
    ] = m;
    Release {
        g_syscallsp,
        g_goid,
        g_cgo_ctxt,
        g_labels,
        m_curg,
        m_ncgo,
        m_cgo_callers_use,
        m_cgo_callers,
        m_procid,
        m_alllink,
        m_lockedg,
    }
}

/// By minor release, from [`OLDEST_MINOR`] on: types `g`, `m` and `gobuf` in runtime/runtime2.go for linux/amd64,
/// as the debug information of programs built with the named release states them.
const RELEASES: [Release; 7] = [
    // go1.21.13.
    release([112, 152, 320, 344], [192, 312, 316, 320, 72, 336, 352]),
    // go1.22.10: m loses 8 bytes before ncgo.
    release([112, 152, 320, 344], [192, 304, 308, 312, 72, 328, 344]),
    // go1.23.9: g.syscallbp is new.
    release([112, 160, 328, 352], [192, 304, 308, 312, 72, 328, 344]),
    // go1.24.11: m grows before ncgo.
    release([112, 160, 328, 352], [192, 328, 332, 336, 72, 352, 368]),
    // go1.25.5: gobuf.ret is gone, and g and m begin with a gobuf or hold one.
    release([104, 152, 320, 344], [184, 320, 324, 328, 64, 344, 360]),
    // go1.26.6: g grows before parentGoid, m before p.
    release([104, 152, 328, 352], [184, 328, 332, 336, 64, 352, 384]),
    // go1.27.2.
    release([104, 152, 328, 352], [184, 328, 332, 336, 64, 352, 384]),
];

impl Release {
    const fn layout(&self) -> Layout {
        Layout {
            g_stack_hi: 8,
            g_m: 48,
            g_sched_sp: 56,
            g_sched_pc: 64,
            g_syscallsp: self.g_syscallsp,
            g_goid: self.g_goid,
            g_cgo_ctxt: self.g_cgo_ctxt,
            g_labels: self.g_labels,
            m_g0: 0,
            m_curg: self.m_curg,
            m_ncgo: self.m_ncgo,
            m_cgo_callers_use: self.m_cgo_callers_use,
            m_cgo_callers: self.m_cgo_callers,
            m_procid: self.m_procid,
            m_alllink: self.m_alllink,
            m_lockedg: self.m_lockedg,
        }
    }
}

impl Layout {
    /// What releases of `version`'s minor number have.
    pub fn of_release(version: &GoVersion) -> Option<Self> {
        let index = version
            .minor
            .checked_sub(OLDEST_MINOR)
            .filter(|_| version.major == 1)?;
        Some(RELEASES.get(index as usize)?.layout())
    }

    /// What the newest known release has: a guess for newer ones, to be checked.
    pub(super) const fn newest() -> Self {
        RELEASES[RELEASES.len() - 1].layout()
    }
}
