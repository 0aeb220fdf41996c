//! In a program without Go: a thread that runs code of its own, or waits in a system call that can begin again.
//!
//! It may hold any lock, since raw system calls take none. But it must go on exactly as it would have without us, also
//! if we die in the middle of a call. So it makes a *detour*. While it is stopped, this is written below its red zone,
//! where the ABI has nothing of use:
//!
//! ```text
//! new stack pointer ─► address of libc's `mov $15, %rax; syscall`
//!                      signal frame with all its registers ── as the kernel makes it for a handler
//! ```
//!
//! Then one request sets its registers: to a `syscall; ret` in libc, with a call of ours. If nobody is there to stop it
//! after that, it returns into rt_sigreturn(2), and that to where it was: with all registers, the vector registers
//! and the signal mask included. Usually we are there, and set the registers ourselves.
//!
//! A system call in which it waited begins again, as after a signal that nobody handles. That is no difference to it
//! if nothing has happened in the call yet and it waits without a limit of time: see [`crate::target::waiting`].

use super::{Borrowed, Fault, NO_CALL, SYSCALL_INSTRUCTION, Seized, pid};
use crate::inject::filter::Filters;
use crate::inject::sys;
use crate::target::calls::SystemCalls;
use crate::target::status::Status;
use crate::target::waiting::POLL;
use nix::libc::user_regs_struct;
use nix::sys::ptrace;

/// The bytes below the stack pointer that belong to the interrupted function (System V ABI for x86-64, 3.2.2).
const RED_ZONE: u64 = 128;
/// Room that a stack must have: for the detour, and as much again as a signal handler should find.
const ROOM: u64 = 32 << 10;
/// The selector of 64-bit code (arch/x86/include/asm/segment.h, `__USER_CS`).
const CODE_64: u64 = 0x33;

/// `-ERESTARTSYS`, `-ERESTARTNOINTR` and `-ERESTARTNOHAND` (include/linux/errno.h): the call begins again if no signal is
/// handled.
const BEGINS_AGAIN: [i64; 3] = [-512, -513, -514];
/// `-ERESTART_RESTARTBLOCK`: it goes on with what the kernel remembers of it.
const GOES_ON: i64 = -516;

const EPOLL_WAIT: u64 = 232;
const EPOLL_PWAIT: u64 = 281;
/// Calls that the kernel begins again with another signal mask: rt_sigsuspend, pselect6 and ppoll.
const WITH_MASK: [u64; 3] = [130, 270, 271];

impl<'p> Seized<'p> {
    /// Makes sure that the thread can make a detour and come back, and prepares that.
    pub(super) fn borrow_for_detours(
        self,
        calls: &SystemCalls,
        status: &Status,
        filters: Filters,
    ) -> Result<Borrowed<'p>, Fault> {
        let regs = self.request(ptrace::getregs(pid(self.tid)))?;
        self.begin_epoll_again(&regs, status.pending & !status.blocked)?;
        let Some(after) = resumed(&regs) else {
            return Err(Fault::Unfit);
        };
        let begins_again = after.rip != regs.rip;
        let in_64_bit_code = regs.cs == CODE_64
            && (!begins_again || self.read(after.rip, SYSCALL_INSTRUCTION.len())? == SYSCALL_INSTRUCTION);
        if !in_64_bit_code || self.is_in_sequence()? || !self.is_on_own_stack(&regs)? {
            return Err(Fault::Unfit);
        }
        if !calls.are_there(self.process) {
            return Err(Fault::Unfit);
        }
        let state = sys::extended_state(self.tid).or(Err(Fault::Unfit))?;
        let state = Xsave::in_frame(state).ok_or(Fault::Unfit)?;
        let state_at = regs.rsp.wrapping_sub(RED_ZONE + state.0.len() as u64) & !63;
        let sp = state_at.wrapping_sub(8 + FRAME as u64) & !15;
        let mut detour = calls.sigreturn.0.to_le_bytes().to_vec();
        detour.extend(frame(&after, status.blocked, state_at));
        self.write(state_at, &state.0)?;
        self.write(sp, &detour)?;
        Ok(Borrowed {
            thread: self,
            regs,
            after,
            // The kernel decides whether the call begins again, by the handler of the signal.
            after_signal: regs,
            call: (calls.call.0, sp),
            scratch: sp.wrapping_sub(2 * Borrowed::SCRATCH),
            is_changed: false,
            filters,
            calls: 0,
        })
    }

    /// Whether the thread is in a restartable sequence (rseq(2)), or has been: the kernel aborts it only where it finds it.
    fn is_in_sequence(&self) -> Result<bool, Fault> {
        match sys::rseq(self.tid) {
            Ok(0) => Ok(false),
            // `rseq_cs` is its second word.
            Ok(area) => Ok(self.word(area.wrapping_add(8))? != 0),
            // A kernel that does not say.
            Err(_) => Ok(true),
        }
    }

    /// Whether the thread is on the stack that it was made with, and that has room. glibc and musl keep what the thread
    /// pointer leads to at its upper end; that of the main thread the kernel names. A stack of the program's own making, a
    /// coroutine's or an alternate one, may be small.
    fn is_on_own_stack(&self, regs: &user_regs_struct) -> Result<bool, Fault> {
        let maps = self.process.maps().or(Err(Fault::Unfit))?;
        let stack = maps.iter().find(|map| (map.start..map.end).contains(&regs.rsp));
        Ok(stack.is_some_and(|stack| {
            let is_own = stack.name == "[stack]" || (regs.rsp..stack.end).contains(&regs.fs_base);
            is_own && regs.rsp - stack.start >= ROOM
        }))
    }

    /// epoll_wait(2) is the one common call that our stop ends early, though nothing has happened. The thread was not in it
    /// when we looked, but may be by now: it begins again, unless a signal waits which would have ended it anyway.
    fn begin_epoll_again(&self, regs: &user_regs_struct, pending: u64) -> Result<(), Fault> {
        let is_ended = regs.rax.cast_signed() == -i64::from(nix::libc::EINTR);
        if is_ended && matches!(regs.orig_rax, EPOLL_WAIT | EPOLL_PWAIT) && pending == 0 {
            self.request(ptrace::setregs(pid(self.tid), again(regs)))?;
            return Err(Fault::Unfit);
        }
        Ok(())
    }
}

/// The registers with which a thread that was stopped goes on, if it is certain that it can be made to.
fn resumed(regs: &user_regs_struct) -> Option<user_regs_struct> {
    let mut after = *regs;
    after.orig_rax = NO_CALL;
    if regs.orig_rax.cast_signed() < 0 {
        return Some(after);
    }
    match regs.rax.cast_signed() {
        _ if WITH_MASK.contains(&regs.orig_rax) => None,
        GOES_ON if regs.orig_rax == POLL && (regs.rdx as i32) < 0 => Some(again(regs)),
        GOES_ON => None,
        result if BEGINS_AGAIN.contains(&result) => Some(again(regs)),
        // The call is over.
        _ => Some(after),
    }
}

/// The registers with which an interrupted system call begins again (arch/x86/kernel/signal.c,
/// `arch_do_signal_or_restart`).
fn again(regs: &user_regs_struct) -> user_regs_struct {
    user_regs_struct {
        rax: regs.orig_rax,
        rip: regs.rip.wrapping_sub(SYSCALL_INSTRUCTION.len() as u64),
        orig_rax: NO_CALL,
        ..*regs
    }
}

/// A stack for a copy of a thread that nobody holds: the `ret` behind its system call leads it to exit_group(2).
pub(super) fn stack_to_exit(calls: &SystemCalls, regs: &user_regs_struct, code: u32) -> Vec<u8> {
    const EXIT_GROUP: u64 = 231;
    let exit = user_regs_struct {
        rip: calls.call.0,
        rax: EXIT_GROUP,
        rdi: code.into(),
        ..*regs
    };
    let mut stack = calls.sigreturn.0.to_le_bytes().to_vec();
    stack.extend(frame(&exit, u64::MAX, 0));
    stack
}

/// Size of the part of `struct rt_sigframe` that rt_sigreturn(2) reads: `struct ucontext` with a mask of 8 bytes.
const FRAME: usize = 304;

/// What rt_sigreturn(2) restores: these registers, this signal mask and the extended state at an address, or at 0 none
/// (arch/x86/include/uapi/asm/ucontext.h and sigcontext.h, arch/x86/kernel/signal_64.c).
fn frame(regs: &user_regs_struct, mask: u64, extended_state: u64) -> Vec<u8> {
    /// `UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
    const FLAGS: u64 = 2 | 4;
    const UC_FP_XSTATE: u64 = 1;
    /// No value of `ss_flags`: the alternate stack stays as it is.
    const NO_CHANGE: u64 = 4;
    let has_state = u64::from(extended_state != 0) * UC_FP_XSTATE;
    let segments = (regs.cs & 0xffff) | (regs.ss & 0xffff) << 48;
    let words = [
        FLAGS | has_state,
        0,
        0,
        NO_CHANGE,
        0,
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rdi,
        regs.rsi,
        regs.rbp,
        regs.rbx,
        regs.rdx,
        regs.rax,
        regs.rcx,
        regs.rsp,
        regs.rip,
        regs.eflags,
        segments,
        0,
        0,
        0,
        0,
        extended_state,
    ];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(FRAME - 8, 0);
    bytes.extend(mask.to_le_bytes());
    bytes
}

/// The extended state as a signal frame has it.
struct Xsave(Vec<u8>);

impl Xsave {
    /// Where `struct _fpx_sw_bytes` is, and in what ptrace(2) gives the set of features (`XSTATE_BV` is behind the legacy
    /// part).
    const SOFTWARE: usize = 464;
    const HEADER: usize = 512;
    /// The legacy part and the header.
    const LEAST: usize = 576;
    /// Where AMX begins. A thread that does not use it has no room for it, and a frame with it is refused.
    const BEFORE_AMX: usize = 2696;
    /// `XFEATURE_MASK_XTILE`.
    const AMX: u64 = 1 << 17 | 1 << 18;
    /// `FP_XSTATE_MAGIC1` and `FP_XSTATE_MAGIC2` (sigcontext.h).
    const MAGIC1: u32 = 0x4650_5853;
    const MAGIC2: u32 = 0x4650_5845;

    /// Makes a frame's of what ptrace(2) gave. `None` if that is not as we know it, or AMX is in use.
    fn in_frame(mut state: Vec<u8>) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(*state.get(at..)?.first_chunk()?));
        let (features, in_use) = (word(Self::SOFTWARE)?, word(Self::HEADER)?);
        if state.len() < Self::LEAST || in_use & Self::AMX != 0 {
            return None;
        }
        state.truncate(Self::BEFORE_AMX);
        let size = state.len() as u32;
        let mut software = Vec::with_capacity(48);
        software.extend(Self::MAGIC1.to_le_bytes());
        software.extend((size + 4).to_le_bytes());
        software.extend((features & !Self::AMX).to_le_bytes());
        software.extend(size.to_le_bytes());
        software.resize(48, 0);
        state
            .get_mut(Self::SOFTWARE..Self::HEADER)?
            .copy_from_slice(&software);
        state.extend(Self::MAGIC2.to_le_bytes());
        Some(Self(state))
    }
}

#[cfg(test)]
mod tests {
    use super::{FRAME, Xsave, frame, resumed};
    use crate::words::u64_at;
    use nix::libc::{self, ucontext_t, user_regs_struct};
    use std::mem::offset_of;

    /// A thread behind a `syscall`, with this number and this result.
    fn stopped(orig_rax: i64, rax: i64) -> user_regs_struct {
        user_regs_struct {
            orig_rax: orig_rax.cast_unsigned(),
            rax: rax.cast_unsigned(),
            rip: 0x40_1002,
            rsp: 0x7ffe_0000,
            cs: 0x33,
            ss: 0x2b,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            eflags: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    #[test]
    fn a_frame_is_as_libc_reads_it() {
        let bytes = frame(&stopped(-1, 7), 0x1234, 0x7ffd_0000);
        let word = |at| u64_at(&bytes, at);
        let register = |index: i32| word(offset_of!(ucontext_t, uc_mcontext.gregs) + index as usize * 8);
        assert_eq!(bytes.len(), FRAME);
        assert_eq!(register(libc::REG_RIP), Some(0x40_1002));
        assert_eq!(register(libc::REG_RSP), Some(0x7ffe_0000));
        assert_eq!(register(libc::REG_RAX), Some(7));
        assert_eq!(register(libc::REG_CSGSFS), Some(0x002b_0000_0000_0033));
        assert_eq!(
            word(offset_of!(ucontext_t, uc_mcontext.fpregs)),
            Some(0x7ffd_0000)
        );
        assert_eq!(word(offset_of!(ucontext_t, uc_sigmask)), Some(0x1234));
    }

    #[test]
    fn a_call_begins_again_only_where_that_is_no_difference() {
        let rip = |orig_rax, rax| resumed(&stopped(orig_rax, rax)).map(|after| (after.rip, after.rax));
        // In user mode.
        assert_eq!(rip(-1, -512), Some((0x40_1002, (-512_i64).cast_unsigned())));
        // futex(2), which a signal would begin again.
        assert_eq!(rip(202, -512), Some((0x40_1000, 202)));
        // write(2) is over.
        assert_eq!(rip(1, 100), Some((0x40_1002, 100)));
        // nanosleep(2) knows how much is left, and pselect6(2) another mask.
        assert_eq!(rip(35, -516), None);
        assert_eq!(rip(270, -514), None);
        // poll(2) with a limit of time, and without.
        let mut poll = stopped(7, -516);
        poll.rdx = 100;
        assert!(resumed(&poll).is_none());
        poll.rdx = u64::MAX;
        assert_eq!(resumed(&poll).map(|after| after.rip), Some(0x40_1000));
    }

    #[test]
    fn extended_state_that_is_not_as_known_is_not_restored() {
        let mut state = vec![0; 2696 + 8192];
        state[464] = 0xe7;
        let whole = Xsave::in_frame(state.clone()).expect("no AMX in use");
        assert_eq!(whole.0.len(), 2696 + 4);
        assert_eq!(u64_at(&whole.0, 464), Some(0x0000_0a8c_4650_5853));
        assert_eq!(whole.0[2696..], 0x4650_5845_u32.to_le_bytes());
        state[514] = 4;
        assert!(Xsave::in_frame(state).is_none(), "AMX is in use");
        assert!(Xsave::in_frame(vec![0; 512]).is_none());
    }
}
