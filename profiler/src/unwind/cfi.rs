//! One row of DWARF call frame information as a [`Rule`], for x86-64.

use gimli::{
    CfaRule, EndianSlice, LittleEndian, Operation, RegisterRule, UnwindExpression, UnwindSection, X86_64,
};
use profiler_abi::rule::{ExtRule, Rule};
use profiler_abi::sample::Regs;

use super::coverage::Unsupported;
use super::ext::ExtTable;

/// The bytes of a section.
pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// The size of an address.
const ENCODING: gimli::Encoding = gimli::Encoding {
    address_size: 8,
    format: gimli::Format::Dwarf32,
    version: 4,
};

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One rule for all addresses of the row.
    Rule {
        rule: Rule,
        /// The caller's frame pointer cannot be told.
        frame_pointer_lost: bool,
    },
    /// Slots of a procedure linkage table: the CFA is sp + 8, and sp + 16 from this byte of each slot of 16 on.
    Plt {
        /// First byte of a slot after its index was pushed.
        pushed: u8,
    },
}

/// Where the CFA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cfa {
    /// `register + offset`.
    Register { register: gimli::Register, offset: i64 },
    /// `*(register + offset) + addend`.
    Deref {
        register: gimli::Register,
        offset: i64,
        addend: i64,
    },
    /// `rsp + 8 + ((rip & 15) >= pushed) * 8`.
    Plt { pushed: u8 },
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FramePointer {
    Same,
    AtCfa(i64),
    AtBp(i64),
    Lost,
}

/// Turns a row into a rule.
pub(super) fn meaning<'a>(
    section: &impl UnwindSection<Bytes<'a>>,
    row: &gimli::UnwindTableRow<usize>,
    return_address: gimli::Register,
    ext: &mut ExtTable,
) -> Result<Meaning, Unsupported> {
    let ra_offset = match row.register(return_address) {
        // "The return address is undefined" is how a program says that nothing called it.
        Some(RegisterRule::Undefined) => {
            return Ok(Meaning::Rule {
                rule: Rule::END,
                frame_pointer_lost: false,
            });
        }
        Some(RegisterRule::Offset(offset)) => offset,
        _ => return Err(Unsupported::ReturnAddress),
    };
    match row.register(X86_64::RSP) {
        None | Some(RegisterRule::ValOffset(0)) => {}
        // As in setcontext(3), which is about to go somewhere else.
        Some(_) => return Err(Unsupported::StackPointer),
    }
    let cfa = match row.cfa() {
        &CfaRule::RegisterAndOffset { register, offset } => Cfa::Register { register, offset },
        CfaRule::Expression(expression) => {
            cfa_expression(section, expression).ok_or(Unsupported::CfaExpression)?
        }
    };
    let bp = match row.register(X86_64::RBP) {
        // The System V ABI has callees preserve rbp.
        None | Some(RegisterRule::SameValue) => FramePointer::Same,
        Some(RegisterRule::Offset(offset)) => FramePointer::AtCfa(offset),
        Some(RegisterRule::Expression(expression)) => bp_expression(section, &expression),
        _ => FramePointer::Lost,
    };
    let bp = match (cfa, bp) {
        // gcc ends functions that realign the stack with `pop %rbp; lea -8(%r10),%rsp; ret` and only takes back
        // what it said of the CFA. Back on rsp, the frame is gone and rbp is the caller's.
        (
            Cfa::Register {
                register: X86_64::RSP,
                ..
            },
            FramePointer::AtBp(_),
        ) => FramePointer::Same,
        (_, bp) => bp,
    };
    if let Cfa::Plt { pushed } = cfa {
        return match (ra_offset, bp) {
            (-8, FramePointer::Same) => Ok(Meaning::Plt { pushed }),
            _ => Err(Unsupported::CfaExpression),
        };
    }
    let rule = match packed(cfa, ra_offset, bp) {
        Some(rule) => match row.register(X86_64::R12) {
            // The System V ABI has callees preserve r12.
            None | Some(RegisterRule::SameValue) => rule,
            Some(RegisterRule::Offset(offset)) => rule.saving_r12(offset),
            _ => rule.losing_r12(),
        },
        None => extended(cfa, ra_offset, bp, ext)?,
    };
    Ok(Meaning::Rule {
        rule,
        frame_pointer_lost: bp == FramePointer::Lost,
    })
}

fn packed(cfa: Cfa, ra_offset: i64, bp: FramePointer) -> Option<Rule> {
    let bp_offset = match bp {
        FramePointer::Same => None,
        FramePointer::AtCfa(offset) => Some(offset),
        FramePointer::AtBp(_) | FramePointer::Lost => return None,
    };
    match cfa {
        Cfa::Register { register, offset } if ra_offset == -8 => match register {
            X86_64::RSP => Rule::sp(offset, bp_offset),
            X86_64::RBP => Rule::bp(offset, bp_offset),
            _ => None,
        },
        _ => None,
    }
}

fn extended(cfa: Cfa, ra_offset: i64, bp: FramePointer, ext: &mut ExtTable) -> Result<Rule, Unsupported> {
    let (register, offset, addend, deref) = match cfa {
        Cfa::Register { register, offset } => (register, offset, 0, 0),
        Cfa::Deref {
            register,
            offset,
            addend,
        } => (register, offset, addend, ExtRule::DEREF),
        Cfa::Plt { .. } => return Err(Unsupported::CfaExpression),
    };
    let (bp_offset, at_bp) = match bp {
        FramePointer::Same => (ExtRule::BP_SAME, 0),
        FramePointer::Lost => (ExtRule::BP_LOST, 0),
        FramePointer::AtCfa(offset) => (saved_at(offset)?, 0),
        FramePointer::AtBp(offset) => (saved_at(offset)?, ExtRule::BP_AT_BP),
    };
    let rule = ext.rule(ExtRule {
        reg: Regs::from_dwarf(register.0)
            .filter(|&reg| reg != Regs::RIP)
            .ok_or(Unsupported::CfaRegister)?,
        flags: deref | at_bp,
        offset: narrow(offset)?,
        addend: narrow(addend)?,
        ra_offset: narrow(ra_offset)?,
        bp_offset,
    });
    if rule == Rule::NONE {
        return Err(Unsupported::TableFull);
    }
    Ok(rule)
}

fn narrow(offset: i64) -> Result<i32, Unsupported> {
    i32::try_from(offset).ok().ok_or(Unsupported::Offset)
}

/// An offset of the saved frame pointer; not one of the numbers with a meaning of their own.
fn saved_at(offset: i64) -> Result<i32, Unsupported> {
    match narrow(offset)? {
        ExtRule::BP_SAME | ExtRule::BP_LOST => Err(Unsupported::Offset),
        offset => Ok(offset),
    }
}

/// Reads an expression of at most `limit` operations: what is longer matches nothing here.
fn operations<'a>(
    section: &impl UnwindSection<Bytes<'a>>,
    expression: &UnwindExpression<usize>,
    limit: usize,
) -> Option<Vec<Operation<Bytes<'a>>>> {
    let bytes = expression.get(section).ok()?;
    let mut operations = bytes.operations(ENCODING);
    let mut out = Vec::new();
    while let Some(operation) = operations.next().ok()? {
        if out.len() == limit {
            return None;
        }
        out.push(operation);
    }
    Some(out)
}

/// The forms of CFA expressions that compilers, linkers and OpenSSL's assembly write:
///
/// * `breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus` — procedure linkage table (binutils,
///   bfd/elf64-x86-64.c, where the number is 11, or 10, 9 or 5 in tables with branch protection);
/// * `breg6 -8; deref` — gcc's dynamic realign argument pointer (gcc/config/i386/i386.cc);
/// * `breg7 40; deref; plus_uconst 8` — a stack pointer kept in a realigned frame (crypto/perlasm).
fn cfa_expression<'a>(
    section: &impl UnwindSection<Bytes<'a>>,
    expression: &UnwindExpression<usize>,
) -> Option<Cfa> {
    use Operation::{And, Deref, Ge, Plus, PlusConstant, RegisterOffset, Shl, UnsignedConstant};

    let operations = operations(section, expression, 9)?;
    match *operations.as_slice() {
        [RegisterOffset { register, offset, .. }] => Some(Cfa::Register { register, offset }),
        [
            RegisterOffset { register, offset, .. },
            Deref {
                size: 8,
                space: false,
                ..
            },
            ref rest @ ..,
        ] => {
            let addend = match *rest {
                [] => 0,
                [PlusConstant { value }] | [UnsignedConstant { value }, Plus] => i64::try_from(value).ok()?,
                _ => return None,
            };
            Some(Cfa::Deref {
                register,
                offset,
                addend,
            })
        }
        [
            RegisterOffset {
                register: X86_64::RSP,
                offset: 8,
                ..
            },
            RegisterOffset {
                register: X86_64::RA,
                offset: 0,
                ..
            },
            UnsignedConstant { value: 15 },
            And,
            UnsignedConstant { value: pushed },
            Ge,
            UnsignedConstant { value: 3 },
            Shl,
            Plus,
        ] => Some(Cfa::Plt {
            pushed: u8::try_from(pushed).ok().filter(|&pushed| pushed < 16)?,
        }),
        _ => None,
    }
}

/// gcc says of a function that realigns its stack that rbp was saved where rbp points: `breg6 0`.
fn bp_expression<'a>(
    section: &impl UnwindSection<Bytes<'a>>,
    expression: &UnwindExpression<usize>,
) -> FramePointer {
    match operations(section, expression, 1).as_deref() {
        Some(
            &[
                Operation::RegisterOffset {
                    register: X86_64::RBP,
                    offset,
                    ..
                },
            ],
        ) => FramePointer::AtBp(offset),
        _ => FramePointer::Lost,
    }
}
