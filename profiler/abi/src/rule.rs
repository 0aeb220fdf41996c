//! Unwind rules: how to get from one frame to its caller, packed in 32 bits.
//!
//! A rule answers three questions for a range of instructions: where is the canonical frame address (CFA, the
//! value of the stack pointer before the call instruction pushed the return address), where is the return
//! address, and where is the caller's frame pointer. On x86-64 nearly every function keeps the return address
//! at CFA − 8, so the packed form leaves it out; whatever does not fit becomes an [`ExtRule`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The part of a packed rule that says what the other bits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// No rule covers this address. The walk tries a frame-pointer step.
    None = 0,
    /// CFA = stack pointer + offset.
    Sp = 1,
    /// CFA = frame pointer + offset.
    Bp = 2,
    /// The rule is entry `index` of the table of [`ExtRule`]s.
    Ext = 3,
    /// The outermost frame of a stack (`_start`, `clone3`, `runtime.goexit`, `runtime.mstart`): nothing called it.
    End = 4,
    /// A slot of a procedure linkage table: CFA = sp + 8, or sp + 16 once the slot has pushed its index, which
    /// is so from byte 11 of the 16-byte slot on.
    Plt = 5,
    /// A signal trampoline: the stack pointer is the address of the `ucontext` the kernel pushed, and every
    /// register of the interrupted code is in it.
    SigFrame = 6,
    /// A stack switch of the Go runtime: see [`GoSwitch`].
    Go = 7,
}

/// Where the Go runtime changes stacks, and how the walk follows. Each is a case of `walk::go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum GoSwitch {
    /// In `runtime.asmcgocall` on the system stack, at or after the call of C: the two words that it left there
    /// (depth of the goroutine's stack pointer below `g.stack.hi`, and g) name the goroutine's stack. The
    /// parameter is the offset of the depth from the stack pointer, in words; g is the word after it.
    AsmCgoCall = 0,
    /// In `runtime.cgocallback` on the goroutine's stack: the older C segment goes on at the frame that
    /// `cgocallback` left on the system stack, which the list headed by `g0.sched.sp` names.
    CgoCallback = 1,
    /// In `runtime.systemstack` on the system stack: the goroutine goes on at `curg.sched.sp`.
    SystemStack = 2,
    /// In `runtime.morestack` on the system stack: the function that needed more stack is at
    /// `curg.sched.pc` with stack pointer `curg.sched.sp`.
    MoreStack = 3,
    /// In `gogo` after it loaded the new stack pointer: the goroutine resumes at `g.sched.pc`.
    Gogo = 4,
}

impl GoSwitch {
    /// The switch with number `n`, if there is one.
    #[inline(always)]
    pub const fn from_bits(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::AsmCgoCall),
            1 => Some(Self::CgoCallback),
            2 => Some(Self::SystemStack),
            3 => Some(Self::MoreStack),
            4 => Some(Self::Gogo),
            _ => None,
        }
    }
}

/// A packed rule.
///
/// ```text
/// bits 0..3   kind
/// Sp, Bp:     bits 3..8   n: caller's frame pointer is at CFA − 8·n (0: it is still in the register)
///             bits 8..28  CFA offset / 8
///             bits 28..31 n: caller's r12 is at CFA − 8·n (0: it is still in the register; 1: nothing tells it)
/// Ext:        bits 3..31  index
/// Go:         bits 3..8   GoSwitch, bits 8..31 its parameter
/// all:        bit 31      the code is in a danger zone
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Rule(pub u32);

impl Rule {
    /// No rule.
    pub const NONE: Self = Self(Kind::None as u32);
    /// The outermost frame.
    pub const END: Self = Self(Kind::End as u32);
    /// A procedure linkage table slot.
    pub const PLT: Self = Self(Kind::Plt as u32);
    /// A signal trampoline.
    pub const SIG_FRAME: Self = Self(Kind::SigFrame as u32);

    const BP_SLOT_MAX: i64 = 31;
    const OFFSET_MAX: i64 = (1 << 20) - 1;
    const R12_SHIFT: u32 = 28;
    const R12_LOST: u32 = 1;
    const DANGER: u32 = 1 << 31;

    /// The rule of code that may not be interrupted by a signal whose handler calls foreign code: it may hold a lock
    /// that the handler needs.
    pub const fn dangerous(self) -> Self {
        Self(self.0 | Self::DANGER)
    }

    /// Whether the code is in a danger zone.
    #[inline(always)]
    pub const fn is_dangerous(self) -> bool {
        self.0 & Self::DANGER != 0
    }

    /// CFA = sp + `cfa_offset`, caller's frame pointer at CFA + `bp_offset` (bytes; `None`: unchanged).
    /// `None` if the numbers do not fit the packed form.
    pub const fn sp(cfa_offset: i64, bp_offset: Option<i64>) -> Option<Self> {
        Self::pack(Kind::Sp, cfa_offset, bp_offset)
    }

    /// CFA = bp + `cfa_offset`; see [`Rule::sp`].
    pub const fn bp(cfa_offset: i64, bp_offset: Option<i64>) -> Option<Self> {
        Self::pack(Kind::Bp, cfa_offset, bp_offset)
    }

    /// The rule of an `Sp` or `Bp` frame that has the caller's r12 at CFA + `offset` (bytes). Compilers push the six
    /// registers that callees preserve first: what is further away is said to be lost.
    #[must_use]
    pub const fn saving_r12(self, offset: i64) -> Self {
        match -offset / 8 {
            slot @ 2..=7 if offset % 8 == 0 => Self(self.0 | (slot as u32) << Self::R12_SHIFT),
            _ => self.losing_r12(),
        }
    }

    /// The rule of an `Sp` or `Bp` frame in which nothing tells the caller's r12: in Go no register is preserved.
    #[must_use]
    pub const fn losing_r12(self) -> Self {
        Self(self.0 | Self::R12_LOST << Self::R12_SHIFT)
    }

    /// Entry `index` of the table of extended rules.
    pub const fn ext(index: u32) -> Self {
        Self(Kind::Ext as u32 | index << 3)
    }

    /// A stack switch of the Go runtime.
    pub const fn go(switch: GoSwitch, parameter: u32) -> Self {
        Self(Kind::Go as u32 | (switch as u32) << 3 | parameter << 8)
    }

    const fn pack(kind: Kind, cfa_offset: i64, bp_offset: Option<i64>) -> Option<Self> {
        if cfa_offset < 0 || cfa_offset % 8 != 0 || cfa_offset / 8 > Self::OFFSET_MAX {
            return None;
        }
        let slot = match bp_offset {
            None => 0,
            Some(o) if o < 0 && o % 8 == 0 && -o / 8 <= Self::BP_SLOT_MAX => -o / 8,
            Some(_) => return None,
        };
        Some(Self(
            kind as u32 | (slot as u32) << 3 | ((cfa_offset / 8) as u32) << 8,
        ))
    }

    /// What the other bits mean.
    #[inline(always)]
    pub const fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::Sp,
            2 => Kind::Bp,
            3 => Kind::Ext,
            4 => Kind::End,
            5 => Kind::Plt,
            6 => Kind::SigFrame,
            7 => Kind::Go,
            _ => Kind::None,
        }
    }

    /// `Sp` and `Bp`: offset of the CFA, in bytes.
    #[inline(always)]
    pub const fn cfa_offset(self) -> u64 {
        (self.0 >> 8 & Self::OFFSET_MAX as u32) as u64 * 8
    }

    /// `Sp` and `Bp`: how far below the CFA the caller's frame pointer is, in bytes; 0 if it was not saved.
    #[inline(always)]
    pub const fn bp_below_cfa(self) -> u64 {
        (self.0 >> 3 & 31) as u64 * 8
    }

    /// `Sp` and `Bp`: what becomes of r12, which was `at`, in a frame with this CFA.
    #[inline(always)]
    pub const fn r12(self, at: R12, cfa: u64) -> R12 {
        match self.0 >> Self::R12_SHIFT & 7 {
            0 => at,
            Self::R12_LOST => R12::LOST,
            slot => R12(cfa.wrapping_sub(slot as u64 * 8)),
        }
    }

    /// `Ext`: index of the extended rule.
    #[inline(always)]
    pub const fn ext_index(self) -> u32 {
        (self.0 & !Self::DANGER) >> 3
    }

    /// `Go`: number of the [`GoSwitch`].
    #[inline(always)]
    pub const fn go_switch(self) -> u32 {
        self.0 >> 3 & 31
    }

    /// `Go`: parameter of the switch.
    #[inline(always)]
    pub const fn go_parameter(self) -> u32 {
        (self.0 & !Self::DANGER) >> 8
    }
}

/// Where r12 of a frame is, the one register beside sp and bp that is followed through frames of C: the Go runtime keeps the
/// goroutine's stack pointer in it while the race detector runs on the system stack (runtime/race_amd64.s, `racecall`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct R12(u64);

impl R12 {
    /// In the register, as the sample or the last signal frame has it.
    pub const IN_REGISTER: Self = Self(0);
    /// Nobody knows.
    pub const LOST: Self = Self(1);

    /// The address of the word that it is in, if it is in one.
    #[inline(always)]
    pub const fn saved(self) -> Option<u64> {
        match self {
            Self::IN_REGISTER | Self::LOST => None,
            Self(at) => Some(at),
        }
    }
}

/// A rule that the packed form cannot say: CFA = (*)(reg + offset) + addend, with saved registers anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtRule {
    /// The register that the CFA is based on: an index of [`crate::sample::Regs`], whatever the architecture's
    /// debug format calls it. Any register but sp, bp and r12 is known only in the innermost frame and in one that a
    /// signal interrupted.
    pub reg: u32,
    /// Bits: [`ExtRule::DEREF`], [`ExtRule::BP_AT_BP`], [`ExtRule::MAY_BE_REPLACED`], [`ExtRule::BEGINS_THREADS`].
    pub flags: u32,
    /// Added to the register, in bytes.
    pub offset: i32,
    /// Added to what [`ExtRule::DEREF`] read, in bytes.
    pub addend: i32,
    /// Return address at CFA + this, in bytes.
    pub ra_offset: i32,
    /// Caller's frame pointer at CFA + this, in bytes; [`ExtRule::BP_SAME`] if it is still in the register,
    /// [`ExtRule::BP_LOST`] if nothing tells it.
    pub bp_offset: i32,
}

impl ExtRule {
    /// The CFA is what memory holds at reg + offset, plus the addend; without it, reg + offset itself.
    pub const DEREF: u32 = 1;
    /// `bp_offset` counts from the frame pointer, not from the CFA. gcc's functions that realign the stack are
    /// like that: the frame pointer points to the caller's, and the CFA is behind a pointer next to it.
    pub const BP_AT_BP: u32 = 2;
    /// The frame may be one that is being replaced by another: the rule holds if the return address is behind a
    /// call of the very function, else nothing tells the caller.
    pub const MAY_BE_REPLACED: u32 = 4;
    /// A system call that begins a thread returns here twice: the rule is that of the thread that made it. The new one, which
    /// finds 0 in rax (clone(2)), is on a stack of its own, and nothing called it.
    pub const BEGINS_THREADS: u32 = 8;
    /// The caller's frame pointer was not saved.
    pub const BP_SAME: i32 = i32::MIN;
    /// The caller's frame pointer cannot be told: the walk goes on with none (0).
    pub const BP_LOST: i32 = i32::MIN + 1;
}

#[cfg(test)]
mod tests {
    use super::{GoSwitch, Kind, R12, Rule};

    #[test]
    fn packed_numbers_come_back() {
        for cfa in [8, 16, 4096, ((1 << 20) - 1) * 8] {
            for bp in [None, Some(-16), Some(-248)] {
                let rule = Rule::sp(cfa, bp).expect("fits");
                assert_eq!(rule.kind(), Kind::Sp);
                assert_eq!(rule.cfa_offset(), cfa as u64);
                assert_eq!(rule.bp_below_cfa(), -bp.unwrap_or(0) as u64);
            }
        }
    }

    #[test]
    fn r12_is_followed() {
        let rule = Rule::sp(((1 << 20) - 1) * 8, Some(-248))
            .expect("fits")
            .dangerous();
        for at in [R12::IN_REGISTER, R12::LOST, R12(0x7000)] {
            assert_eq!(rule.r12(at, 0x8000), at);
            assert_eq!(rule.losing_r12().r12(at, 0x8000), R12::LOST);
            for offset in (-56..=-16).step_by(8) {
                let saving = rule.saving_r12(offset);
                assert_eq!(
                    saving.r12(at, 0x8000).saved(),
                    Some(0x8000_u64.wrapping_add_signed(offset))
                );
                assert_eq!(
                    (saving.cfa_offset(), saving.bp_below_cfa()),
                    (rule.cfa_offset(), 248)
                );
                assert!(saving.is_dangerous());
            }
            for offset in [-64, -8, 0, 8, -20] {
                assert_eq!(rule.saving_r12(offset).r12(at, 0x8000), R12::LOST, "{offset}");
            }
        }
    }

    #[test]
    fn a_danger_zone_changes_nothing_else() {
        let rule = Rule::sp(((1 << 20) - 1) * 8, Some(-16)).expect("fits");
        let marked = rule.dangerous();
        assert!(marked.is_dangerous() && !rule.is_dangerous());
        assert_eq!(
            (marked.kind(), marked.cfa_offset(), marked.bp_below_cfa()),
            (rule.kind(), rule.cfa_offset(), 16)
        );
        assert_eq!(Rule::ext(7).dangerous().ext_index(), 7);
        assert_eq!(Rule::go(GoSwitch::AsmCgoCall, 5).dangerous().go_parameter(), 5);
        assert_eq!(Rule::NONE.dangerous().kind(), Kind::None);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(Rule::sp(-8, None), None);
        assert_eq!(Rule::sp(12, None), None);
        assert_eq!(Rule::sp((1 << 20) * 8, None), None);
        assert_eq!(Rule::bp(16, Some(-256)), None);
        assert_eq!(Rule::bp(16, Some(0)), None);
        assert_eq!(Rule::bp(16, Some(-12)), None);
    }

    #[test]
    fn go_switches_come_back() {
        for n in 0..5 {
            let switch = GoSwitch::from_bits(n).expect("a switch");
            let rule = Rule::go(switch, 5);
            assert_eq!(
                (rule.kind(), rule.go_switch(), rule.go_parameter()),
                (Kind::Go, n, 5)
            );
        }
        assert_eq!(GoSwitch::from_bits(5), None);
    }
}
