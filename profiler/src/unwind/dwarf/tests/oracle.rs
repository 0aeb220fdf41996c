//! What a row of call frame information means, found out by running it: both the row and the rule made of it step
//! a machine with arbitrary registers and memory, and must agree on where they get.

use std::num::NonZeroU64;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, Encoding, EndianSlice, EvaluationResult, Format, LittleEndian, Location,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, Value, X86_64,
};
use object::{Object, ObjectSection};
use profiler_abi::rule::{ExtRule, Kind, Rule};
use profiler_abi::sample::Regs;

use crate::unwind::ExtTable;

/// A machine: registers by DWARF number, and memory that is a function of the address.
pub(super) struct Machine {
    pub(super) pc: u64,
    seed: u64,
}

/// The frame before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is none.
    Outermost,
    Caller {
        stack_pointer: u64,
        return_address: u64,
        /// `None`: cannot be told.
        frame_pointer: Option<u64>,
    },
}

fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

impl Machine {
    pub(super) fn new(pc: u64, seed: u64) -> Self {
        Self { pc, seed }
    }

    fn register(&self, dwarf: u16) -> u64 {
        match gimli::Register(dwarf) {
            X86_64::RA => self.pc,
            _ => mix(self.seed, dwarf.into()) & 0x7fff_ffff_fff8,
        }
    }

    fn memory(&self, address: u64) -> u64 {
        mix(address, !self.seed) & 0x7fff_ffff_fff8
    }

    /// Evaluates an expression as DWARF says.
    fn evaluate(
        &self,
        section: &EhFrame<Slice<'_>>,
        expression: &UnwindExpression<usize>,
        cfa: Option<u64>,
    ) -> u64 {
        let encoding = Encoding {
            address_size: 8,
            format: Format::Dwarf32,
            version: 4,
        };
        let mut evaluation = expression.get(section).unwrap().evaluation(encoding);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut result = evaluation.evaluate().unwrap();
        loop {
            result = match result {
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.register(register.0);
                    evaluation.resume_with_register(Value::Generic(value)).unwrap()
                }
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    let value = self.memory(address);
                    evaluation.resume_with_memory(Value::Generic(value)).unwrap()
                }
                EvaluationResult::Complete => break,
                other => panic!("{other:?}"),
            };
        }
        match evaluation.as_result()[0].location {
            Location::Address { address } => address,
            other => panic!("{other:?}"),
        }
    }

    /// The step that a row describes.
    pub(super) fn step_by_row(
        &self,
        section: &EhFrame<Slice<'_>>,
        row: &gimli::UnwindTableRow<usize>,
    ) -> Step {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(register.0).wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(section, expression, None),
        };
        let saved = |register| match row.register(register) {
            None | Some(RegisterRule::SameValue) => Some(self.register(register.0)),
            Some(RegisterRule::Undefined) => None,
            Some(RegisterRule::Offset(offset)) => Some(self.memory(cfa.wrapping_add_signed(offset))),
            Some(RegisterRule::Expression(expression)) => {
                Some(self.memory(self.evaluate(section, &expression, Some(cfa))))
            }
            Some(other) => panic!("{other:?}"),
        };
        match saved(X86_64::RA) {
            None => Step::Outermost,
            Some(return_address) => Step::Caller {
                stack_pointer: match row.register(X86_64::RSP) {
                    None => cfa,
                    Some(_) => saved(X86_64::RSP).unwrap(),
                },
                return_address,
                frame_pointer: saved(X86_64::RBP),
            },
        }
    }

    /// The step that a rule describes.
    pub(super) fn step_by_rule(&self, rule: Rule, ext: &ExtTable) -> Step {
        let sp = self.register(X86_64::RSP.0);
        let bp = self.register(X86_64::RBP.0);
        let packed = |cfa: u64, below: u64| Step::Caller {
            stack_pointer: cfa,
            return_address: self.memory(cfa.wrapping_sub(8)),
            frame_pointer: Some(match below {
                0 => bp,
                below => self.memory(cfa.wrapping_sub(below)),
            }),
        };
        match rule.kind() {
            Kind::Sp => packed(sp.wrapping_add(rule.cfa_offset()), rule.bp_below_cfa()),
            Kind::Bp => packed(bp.wrapping_add(rule.cfa_offset()), rule.bp_below_cfa()),
            Kind::Plt => packed(sp.wrapping_add(if self.pc % 16 >= 11 { 16 } else { 8 }), 0),
            Kind::End => Step::Outermost,
            Kind::Ext => {
                let rule = ext.rules()[rule.ext_index() as usize];
                let dwarf = (0..16).find(|&n| Regs::from_dwarf(n) == Some(rule.reg)).unwrap();
                let mut cfa = self.register(dwarf).wrapping_add_signed(rule.offset.into());
                if rule.flags & ExtRule::DEREF != 0 {
                    cfa = self.memory(cfa).wrapping_add_signed(rule.addend.into());
                }
                let from = if rule.flags & ExtRule::BP_AT_BP != 0 {
                    bp
                } else {
                    cfa
                };
                Step::Caller {
                    stack_pointer: cfa,
                    return_address: self.memory(cfa.wrapping_add_signed(rule.ra_offset.into())),
                    frame_pointer: match rule.bp_offset {
                        ExtRule::BP_SAME => Some(bp),
                        ExtRule::BP_LOST => None,
                        offset => Some(self.memory(from.wrapping_add_signed(offset.into()))),
                    },
                }
            }
            kind => panic!("{kind:?} says nothing of its own"),
        }
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Calls `check` with each row of an object's `.eh_frame`: the section, whether it is a signal frame's, and the
/// row, cut to its function.
pub(super) fn each_row(
    file: &object::File<'_>,
    mut check: impl FnMut(&EhFrame<Slice<'_>>, bool, &gimli::UnwindTableRow<usize>, std::ops::Range<u64>),
) {
    let section = file.section_by_name(".eh_frame").unwrap();
    let data = section.uncompressed_data().unwrap();
    let frames = EhFrame::new(&data, LittleEndian);
    let bases = BaseAddresses::default()
        .set_eh_frame(section.address())
        .set_text(file.section_by_name(".text").unwrap().address());
    let mut context = UnwindContext::new();
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        let mut table = fde.rows(&frames, &bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            let range = row.start_address()..row.end_address().min(fde.end_address());
            if NonZeroU64::new(range.end.saturating_sub(range.start)).is_some() {
                check(&frames, fde.is_signal_trampoline(), row, range);
            }
        }
    }
}
