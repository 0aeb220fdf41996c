//! What the code of `runtime.cgoSigtramp` gives away.
//!
//! The function (runtime/sys_linux_amd64.s) is in every Go program for Linux, stripped or not, and has had one
//! shape in all of Go 1.21–1.27:
//!
//! ```text
//! cgoTraceback, _cgo_callers: loaded and tested
//! AX = g, from thread-local storage        forms: see `TlsG`
//! AX = g_m(AX)
//! CX = m_ncgo(AX), 32 bits
//! CX = m_curg(AX)
//! CX = g_syscallsp(CX)
//! R8 = m_cgoCallers(AX)
//! CX = m_cgoCallersUse(AX), 32 bits
//! ```
//!
//! with a test and a conditional jump after each.

use super::layout::Layout;
use super::tls::TlsG;
use crate::addr::Svma;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

/// The name of the function in the table of functions.
pub(super) const NAME: &str = "runtime.cgoSigtramp";
/// The most of its code that is decoded, in bytes; what is of interest lies in the first 110.
pub(super) const MAX_CODE: u64 = 256;

/// The fields that the function uses, under Go's names, in the order of their use: register that holds the
/// struct, register that the field is loaded into.
const LOADS: [(&str, Register, Register); 6] = [
    ("g.m", Register::RAX, Register::RAX),
    ("m.ncgo", Register::RAX, Register::ECX),
    ("m.curg", Register::RAX, Register::RCX),
    ("g.syscallsp", Register::RCX, Register::RCX),
    ("m.cgoCallers", Register::RAX, Register::R8),
    ("m.cgoCallersUse", Register::RAX, Register::ECX),
];

/// What was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SigTramp {
    pub(super) tls_g: TlsG,
    /// `runtime.cgoTraceback` and `_cgo_callers`; `None` in plugins, whose code finds them through its global offset
    /// table, since they are the host's.
    pub(super) variables: Option<[Svma; 2]>,
    /// Offsets of the fields of [`LOADS`].
    offsets: [u32; LOADS.len()],
}

impl SigTramp {
    /// Decodes `code`, which starts at `address`. `None` if it has another shape.
    pub(super) fn decode(code: &[u8], address: Svma) -> Option<Self> {
        let decoder = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE);
        let mut loads = decoder.into_iter().filter(is_load);
        let mut before = Vec::new();
        let g = loads.find(|load| {
            let found = load.segment_prefix() == Register::FS;
            if !found {
                before.push(*load);
            }
            found
        })?;
        let tls_g = TlsG::of_load(&g, before.last()?).filter(|_| g.op0_register() == Register::RAX)?;
        let mut offsets = [0; LOADS.len()];
        for (offset, (_, base, target)) in offsets.iter_mut().zip(LOADS) {
            let load = loads.next()?;
            let fits = load.memory_base() == base
                && load.memory_index() == Register::None
                && load.op0_register() == target;
            *offset = u32::try_from(load.memory_displacement64())
                .ok()
                .filter(|_| fits)?;
        }
        Some(Self {
            tls_g,
            variables: variables(&before),
            offsets,
        })
    }

    /// The first field that `layout` has elsewhere: its name, where `layout` has it, where the code has it.
    pub(super) fn contradicts(&self, layout: &Layout) -> Option<(&'static str, u32, u32)> {
        let stated = |name| {
            layout
                .fields()
                .find(|&(field, _)| field == name)
                .map(|(_, offset)| offset)
        };
        LOADS
            .iter()
            .zip(self.offsets)
            .filter_map(|(&(name, ..), used)| Some((name, stated(name)?, used)))
            .find(|(_, stated, used)| stated != used)
    }
}

/// What the first two loads before that of g are of.
fn variables(before: &[Instruction]) -> Option<[Svma; 2]> {
    let address = |load: &Instruction| {
        (load.is_ip_rel_memory_operand() && load.op0_register() == Register::RAX)
            .then(|| Svma(load.ip_rel_memory_address()))
    };
    Some([address(before.first()?)?, address(before.get(1)?)?])
}

/// Whether the instruction sets a register from memory or to a constant.
fn is_load(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Mov_r64_rm64 | Code::Mov_r32_rm32 => instruction.op1_kind() == OpKind::Memory,
        Code::Mov_rm64_imm32 | Code::Mov_r64_imm64 => instruction.op0_kind() == OpKind::Register,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, SigTramp, TlsG};
    use crate::addr::Svma;

    /// go1.21.13, statically linked.
    const FIXED: &[u8] =
        b"\x48\x8b\x05\xa1\xdf\x08\x00\x48\x85\xc0\x74\x6f\x48\x8b\x05\xed\x95\x08\x00\x48\x85\xc0\
        \x74\x63\x64\x48\x8b\x04\x25\xf8\xff\xff\xff\x48\x85\xc0\x74\x5a\x48\x8b\x40\x30\x48\x85\xc0\x74\x4c\
        \x8b\x88\x38\x01\x00\x00\x85\xc9\x74\x42\x48\x8b\x88\xc0\x00\x00\x00\x48\x85\xc9\x74\x36\
        \x48\x8b\x49\x70\x48\x85\xc9\x74\x2d\x4c\x8b\x80\x40\x01\x00\x00\x4d\x85\xc0\x74\x21\
        \x8b\x88\x3c\x01\x00\x00\x85\xc9\x75\x17";

    fn with_tls_load(load: &[u8]) -> Vec<u8> {
        let (start, end) = (24, 33);
        [&FIXED[..start], load, &FIXED[end..]].concat()
    }

    fn tls_of(load: &[u8]) -> Option<TlsG> {
        SigTramp::decode(&with_tls_load(load), Svma(0x45cc00)).map(|s| s.tls_g)
    }

    #[test]
    fn all_forms_of_the_load_of_g_are_known() {
        // mov %fs:-0x58,%rax
        assert_eq!(
            tls_of(b"\x64\x48\x8b\x04\x25\xa8\xff\xff\xff"),
            Some(TlsG::Fixed(-0x58))
        );
        // mov $-8,%rcx; mov %fs:(%rcx),%rax
        let constant = b"\x48\xc7\xc1\xf8\xff\xff\xff\x64\x48\x8b\x01";
        assert_eq!(tls_of(constant), Some(TlsG::Fixed(-8)));
        // mov 0xd5f41(%rip),%rcx; mov %fs:(%rcx),%rax
        let slot = b"\x48\x8b\x0d\x41\x5f\x0d\x00\x64\x48\x8b\x01";
        let after = 0x45cc00 + 24 + 7;
        assert_eq!(tls_of(slot), Some(TlsG::GotSlot(Svma(after + 0xd5f41))));
    }

    #[test]
    fn other_loads_of_g_are_refused() {
        // mov %fs:(%rcx),%rax with another register set before
        assert_eq!(tls_of(b"\x48\xc7\xc2\xf8\xff\xff\xff\x64\x48\x8b\x01"), None);
        // mov %fs:(%rcx,%rdx),%rax
        assert_eq!(tls_of(b"\x48\xc7\xc1\xf8\xff\xff\xff\x64\x48\x8b\x04\x11"), None);
        // mov %fs:-8,%rbx
        assert_eq!(tls_of(b"\x64\x48\x8b\x1c\x25\xf8\xff\xff\xff"), None);
        // no load at all
        assert_eq!(tls_of(b""), None);
    }

    #[test]
    fn a_field_elsewhere_is_named() {
        let decoded = SigTramp::decode(FIXED, Svma(0)).expect("a known shape");
        let version = crate::target::go::GoVersion::parse("go1.21.13").expect("a version");
        let mut layout = Layout::of_release(&version).expect("a known release");
        assert_eq!(decoded.contradicts(&layout), None);
        layout.m_curg = 184;
        assert_eq!(decoded.contradicts(&layout), Some(("m.curg", 184, 192)));
    }

    #[test]
    fn the_variables_are_those_that_are_loaded_first() {
        let start = 0x45cc00;
        let decoded = SigTramp::decode(FIXED, Svma(start)).expect("a known shape");
        let traceback = start + 7 + 0x8dfa1;
        let callers = start + 19 + 0x895ed;
        assert_eq!(decoded.variables, Some([Svma(traceback), Svma(callers)]));

        // mov 0x1000(%rip),%rcx; mov (%rcx),%rax: the address of the first is in a table.
        let through_table = [b"\x48\x8b\x0d\x00\x10\x00\x00\x48\x8b\x01", &FIXED[7..]].concat();
        let decoded = SigTramp::decode(&through_table, Svma(start)).expect("a known shape");
        assert_eq!(decoded.variables, None);
    }

    #[test]
    fn cut_code_is_refused() {
        for len in 0..FIXED.len() - 8 {
            assert_eq!(SigTramp::decode(&FIXED[..len], Svma(0)), None, "{len} bytes");
        }
    }
}
