//! Filters of system calls (seccomp(2)): what a process's own say of a call, found as the kernel finds it. Pure.
//!
//! A filter is a program for the classic BPF machine, which sees the call as `struct seccomp_data` and returns an action.
//! Of all filters of a thread the most severe action counts (kernel/seccomp.c, `seccomp_run_filters`).

/// An instruction: `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// What to do, of the kinds below.
    pub(super) code: u16,
    /// How many instructions to skip if the condition holds, and if not.
    pub(super) jump: (u8, u8),
    /// The constant.
    pub(super) k: u32,
}

/// Its size, in bytes.
pub(super) const INSTRUCTION: usize = 8;

/// Kinds of instructions (linux/bpf_common.h): class, size or operation, mode or source.
const LOAD: u16 = 0x20;
const LOAD_LEN: u16 = 0x80;
const LOAD_INDEX_LEN: u16 = 0x81;
const LOAD_CONSTANT: u16 = 0x00;
const LOAD_INDEX_CONSTANT: u16 = 0x01;
const LOAD_MEMORY: u16 = 0x60;
const LOAD_INDEX_MEMORY: u16 = 0x61;
const STORE: u16 = 0x02;
const STORE_INDEX: u16 = 0x03;
const ALWAYS: u16 = 0x05;
const RETURN_CONSTANT: u16 = 0x06;
const RETURN: u16 = 0x16;
const TO_INDEX: u16 = 0x07;
const FROM_INDEX: u16 = 0x87;
const CLASS: u16 = 0x07;
const CLASS_COMPUTE: u16 = 0x04;
const CLASS_JUMP: u16 = 0x05;
const OPERATION: u16 = 0xf0;
const EQUAL: u16 = 0x10;
const HAS_BIT: u16 = 0x40;
/// The operand is the index register, not the constant.
const BY_INDEX: u16 = 0x08;

/// Actions (linux/seccomp.h). As signed numbers, the smallest is the most severe.
pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const LOG: u32 = 0x7ffc_0000;
pub(super) const TRACE: u32 = 0x7ff0_0000;
pub(super) const NOTIFY: u32 = 0x7fc0_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const TRAP: u32 = 0x0003_0000;
pub(super) const KILL: u32 = 0x8000_0000;
/// Which bits of a filter's result are the action (`SECCOMP_RET_ACTION_FULL`).
const ACTION: u32 = 0xffff_0000;

/// `AUDIT_ARCH_X86_64` (linux/audit.h).
pub(super) const X86_64: u32 = 0xc000_003e;

/// Where in `struct seccomp_data` the number of the call is, and so on; the lower word of each argument first.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
const PC: u32 = 8;
pub(super) const ARGUMENTS: u32 = 16;
/// Its size.
const DATA: u32 = 64;

/// A system call, as filters see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemCall {
    /// Its number (arch/x86/entry/syscalls/syscall_64.tbl).
    pub(super) number: u64,
    /// Its arguments.
    pub(super) arguments: [u64; 6],
    /// Address of the instruction behind the one that makes it.
    pub(super) pc: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allowed,
    /// It fails; nothing else happens.
    Refused,
    /// It, in words, happens to the thread or the process.
    Forbidden(&'static str),
}

impl Verdict {
    /// What filters do about the call, in words, if they do not let it pass.
    pub(super) fn objection(self) -> Option<&'static str> {
        match self {
            Self::Allowed => None,
            Self::Refused => Some("refuses"),
            Self::Forbidden(how) => Some(how),
        }
    }
}

/// One filter.
#[derive(Clone, Debug)]
pub(super) struct Filter(Vec<Instruction>);

/// The filters of a thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters(Vec<Filter>);

impl Filters {
    pub(super) fn new(filters: Vec<Filter>) -> Self {
        Self(filters)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What becomes of a call.
    pub(super) fn judge(&self, call: &SystemCall) -> Verdict {
        let actions = self.0.iter().map(|filter| filter.action(call));
        let severest = actions.min_by_key(|action| action.cast_signed());
        match severest.unwrap_or(ALLOW) {
            ALLOW | LOG => Verdict::Allowed,
            // Nobody is told of the call: there is no tracer, or it is us, who did not ask for that.
            ERRNO | TRACE => Verdict::Refused,
            NOTIFY => Verdict::Forbidden("lets another process decide on"),
            TRAP => Verdict::Forbidden("sends SIGSYS for"),
            _ => Verdict::Forbidden("ends it for"),
        }
    }
}

impl Filter {
    /// The filter whose program is this, in the kernel's layout.
    pub(super) fn parse(program: &[u8]) -> Self {
        let instructions = program.as_chunks::<INSTRUCTION>().0;
        Self(instructions.iter().copied().map(Instruction::parse).collect())
    }

    /// The action that it returns, that of a broken program if it is not as the kernel lets filters be.
    fn action(&self, call: &SystemCall) -> u32 {
        self.run(call).unwrap_or(KILL) & ACTION
    }

    fn run(&self, call: &SystemCall) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; 16]);
        let mut at = 0;
        loop {
            let Instruction { code, jump, k } = *self.0.get(at)?;
            at += 1;
            let index = k as usize;
            let operand = if code & BY_INDEX == 0 { k } else { x };
            match code {
                LOAD => a = call.word(k)?,
                LOAD_LEN => a = DATA,
                LOAD_INDEX_LEN => x = DATA,
                LOAD_CONSTANT => a = k,
                LOAD_INDEX_CONSTANT => x = k,
                LOAD_MEMORY => a = *memory.get(index)?,
                LOAD_INDEX_MEMORY => x = *memory.get(index)?,
                STORE => *memory.get_mut(index)? = a,
                STORE_INDEX => *memory.get_mut(index)? = x,
                TO_INDEX => x = a,
                FROM_INDEX => a = x,
                RETURN_CONSTANT => return Some(k),
                RETURN => return Some(a),
                ALWAYS => at = at.checked_add(index)?,
                _ if code & CLASS == CLASS_COMPUTE => a = compute(code & OPERATION, a, operand)?,
                _ if code & CLASS == CLASS_JUMP => {
                    let holds = holds(code & OPERATION, a, operand)?;
                    at += usize::from(if holds { jump.0 } else { jump.1 });
                }
                _ => return None,
            }
        }
    }
}

/// `BPF_OP` of computations, in order: add, subtract, multiply, divide, or, and, shift left, shift right, negate, xor.
fn compute(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        // By zero: the program ends with 0, which is the action that ends the thread.
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.wrapping_shl(operand),
        0x70 => a.wrapping_shr(operand),
        0x80 => a.wrapping_neg(),
        0xa0 => a ^ operand,
        _ => return None,
    })
}

/// `BPF_OP` of conditions: those two, and greater, and greater or equal.
fn holds(operation: u16, a: u32, operand: u32) -> Option<bool> {
    Some(match operation {
        EQUAL => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        HAS_BIT => a & operand != 0,
        _ => return None,
    })
}

impl SystemCall {
    /// The word at an offset in `struct seccomp_data`.
    fn word(&self, offset: u32) -> Option<u32> {
        let double = match offset & !7 {
            NUMBER => self.number & 0xffff_ffff | u64::from(X86_64) << 32,
            PC => self.pc,
            at => *self.arguments.get((at - ARGUMENTS) as usize / 8)?,
        };
        match offset & 7 {
            0 => Some(double as u32),
            4 => Some((double >> 32) as u32),
            _ => None,
        }
    }
}

/// Loads a word of `struct seccomp_data`.
pub(super) const fn load(offset: u32) -> Instruction {
    instruction(LOAD, (0, 0), offset)
}

/// Compares the loaded word; skips so many instructions if it is equal, and if not.
pub(super) const fn is_equal(k: u32, yes: u8, no: u8) -> Instruction {
    instruction(CLASS_JUMP | EQUAL, (yes, no), k)
}

/// Likewise, if it has one of these bits.
pub(super) const fn has_bit(k: u32, yes: u8, no: u8) -> Instruction {
    instruction(CLASS_JUMP | HAS_BIT, (yes, no), k)
}

/// Returns an action.
pub(super) const fn answer(action: u32) -> Instruction {
    instruction(RETURN_CONSTANT, (0, 0), action)
}

const fn instruction(code: u16, jump: (u8, u8), k: u32) -> Instruction {
    Instruction { code, jump, k }
}

impl Instruction {
    fn parse(bytes: [u8; INSTRUCTION]) -> Self {
        let [c0, c1, yes, no, k0, k1, k2, k3] = bytes;
        Self {
            code: u16::from_le_bytes([c0, c1]),
            jump: (yes, no),
            k: u32::from_le_bytes([k0, k1, k2, k3]),
        }
    }

    /// As the kernel wants it.
    pub(super) fn bytes(&self) -> [u8; INSTRUCTION] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_le_bytes(), self.k.to_le_bytes());
        [c0, c1, self.jump.0, self.jump.1, k0, k1, k2, k3]
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ALLOW, ARGUMENTS, CLASS_COMPUTE, CLASS_JUMP, ERRNO, Filter, Filters, Instruction, KILL, LOG,
        SystemCall, TRACE, Verdict, answer, instruction, is_equal, load,
    };

    const CALL: SystemCall = SystemCall {
        number: 9,
        arguments: [1, 2, 3, 4, 5, 0xffff_ffff_0000_0006],
        pc: 0x7f00_1234_5678,
    };

    fn action(program: &[Instruction]) -> u32 {
        let bytes: Vec<u8> = program.iter().flat_map(Instruction::bytes).collect();
        Filter::parse(&bytes).action(&CALL)
    }

    /// Whether the program `before`, which leaves a number in the accumulator, leaves this one.
    fn leaves(before: &[Instruction], number: u32) -> bool {
        let end = [is_equal(number, 0, 1), answer(ALLOW), answer(ERRNO)];
        action(&[before, &end].concat()) == ALLOW
    }

    #[test]
    fn every_word_of_a_call_is_seen() {
        let words = [
            9,
            0xc000_003e,
            0x1234_5678,
            0x7f00,
            1,
            0,
            2,
            0,
            3,
            0,
            4,
            0,
            5,
            0,
            6,
            0xffff_ffff,
        ];
        for (offset, word) in (0..).step_by(4).zip(words) {
            assert!(leaves(&[load(offset)], word), "{offset}");
        }
        for offset in [64, 2, u32::MAX] {
            assert_eq!(action(&[load(offset), answer(ALLOW)]), KILL);
        }
    }

    #[test]
    fn instructions_do_what_the_kernel_s_do() {
        let with = |code, k| [load(ARGUMENTS + 8), instruction(code, (0, 0), k)];
        // The second argument, 2, in order as in `compute`, by the constant 5.
        let results: [(u16, u32); 10] = [
            (0x00, 7),
            (0x10, 2_u32.wrapping_sub(5)),
            (0x20, 10),
            (0x30, 0),
            (0x40, 7),
            (0x50, 0),
            (0x60, 64),
            (0x70, 0),
            (0x80, 2_u32.wrapping_neg()),
            (0xa0, 7),
        ];
        for (operation, result) in results {
            assert!(
                leaves(&with(CLASS_COMPUTE | operation, 5), result),
                "{operation:x}"
            );
        }
        // The index register, memory, and a jump over an answer.
        let program = [
            instruction(0x01, (0, 0), 40),
            instruction(0x03, (0, 0), 15),
            instruction(0x60, (0, 0), 15),
            instruction(0x02, (0, 0), 0),
            instruction(0x61, (0, 0), 0),
            instruction(0x05, (0, 0), 1),
            answer(KILL),
            instruction(CLASS_COMPUTE | super::BY_INDEX, (0, 0), 0),
            instruction(0x07, (0, 0), 0),
            instruction(0x87, (0, 0), 0),
        ];
        assert!(leaves(&program, 80));
        for (operation, holds) in [(0x10, false), (0x20, true), (0x30, true), (0x40, true)] {
            let jump = instruction(CLASS_JUMP | operation, (0, 1), 5);
            let found = action(&[load(0), jump, answer(ALLOW), answer(ERRNO)]);
            assert_eq!(found == ALLOW, holds, "{operation:x}");
        }
        assert!(leaves(&[instruction(0x80, (0, 0), 0)], 64));
        assert_eq!(action(&[load(0), instruction(0x16, (0, 0), 0)]), 0);
    }

    #[test]
    fn broken_programs_end_the_process() {
        let programs: [&[Instruction]; 6] = [
            &[],
            &[load(0)],
            &[is_equal(9, 255, 255), answer(ALLOW)],
            &[instruction(0x05, (0, 0), u32::MAX), answer(ALLOW)],
            &[instruction(0x60, (0, 0), 16), answer(ALLOW)],
            &[instruction(0xffff, (0, 0), 0), answer(ALLOW)],
        ];
        for program in programs {
            assert_eq!(action(program), KILL, "{program:?}");
        }
    }

    #[test]
    fn the_severest_of_several_filters_counts() {
        let judge = |actions: &[u32]| {
            let filter = |action: &u32| Filter(vec![answer(*action)]);
            Filters::new(actions.iter().map(filter).collect()).judge(&CALL)
        };
        assert_eq!(judge(&[]), Verdict::Allowed);
        assert_eq!(judge(&[ALLOW, LOG]), Verdict::Allowed);
        assert_eq!(judge(&[ERRNO | 1, ALLOW]), Verdict::Refused);
        assert_eq!(judge(&[TRACE, LOG]), Verdict::Refused);
        assert_eq!(judge(&[ERRNO, 0, ALLOW]), Verdict::Forbidden("ends it for"));
        assert_eq!(judge(&[0x0003_0000, KILL]), Verdict::Forbidden("ends it for"));
    }
}
