//! Where a thread keeps its g: an offset from the thread pointer (the base of `fs`).

use crate::addr::Svma;
use iced_x86::{Instruction, OpKind, Register};
use object::elf::PT_TLS;
use object::read::elf::ProgramHeader;
use object::{Object, ObjectSymbol};

/// How far from the thread pointer g is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsG {
    /// This far, in every process; negative. Executables.
    Fixed(i64),
    /// As far as the word (i64) at this address says, once the loader has set it. Shared libraries and plugins.
    GotSlot(Svma),
}

/// What a Go program that does not use the system's thread-local storage does: `arch_prctl` makes the thread
/// pointer point behind `m.tls[0]` (runtime/sys_linux_amd64.s, `settls`).
const WITHOUT_PT_TLS: i64 = -8;

impl TlsG {
    /// What `load`, which reads `fs`, and the load of a register before it say.
    pub(super) fn of_load(load: &Instruction, before: &Instruction) -> Option<Self> {
        let displacement = load.memory_displacement64().cast_signed();
        if load.memory_index() != Register::None {
            return None;
        }
        if load.memory_base() == Register::None {
            return Some(Self::Fixed(displacement));
        }
        if before.op0_register() != load.memory_base() {
            return None;
        }
        match before.op1_kind() {
            OpKind::Memory if before.is_ip_rel_memory_operand() && displacement == 0 => {
                Some(Self::GotSlot(Svma(before.ip_rel_memory_address())))
            }
            OpKind::Immediate32to64 | OpKind::Immediate64 => {
                let constant = before.immediate(1).cast_signed();
                Some(Self::Fixed(constant.checked_add(displacement)?))
            }
            _ => None,
        }
    }

    /// What the headers and the symbol `runtime.tlsg` of an executable say.
    pub(super) fn of_headers(object: &object::File<'_>) -> Option<Self> {
        let object::File::Elf64(elf) = object else {
            return None;
        };
        let endian = elf.endian();
        let segment = elf
            .elf_program_headers()
            .iter()
            .find(|p| p.p_type(endian) == PT_TLS);
        let Some(segment) = segment else {
            return Some(Self::Fixed(WITHOUT_PT_TLS));
        };
        // The thread pointer is at the end of the executable's block, rounded up (TLS variant II).
        let size = segment
            .p_memsz(endian)
            .checked_next_multiple_of(segment.p_align(endian).max(1))?;
        let symbol = object.symbol_by_name("runtime.tlsg")?;
        Some(Self::Fixed(symbol.address().checked_signed_diff(size)?))
    }
}
