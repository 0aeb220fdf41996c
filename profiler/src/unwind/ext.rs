//! The table of extended rules, shared by all objects of a recording.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use profiler_abi::rule::{ExtRule, Kind, Rule};
use profiler_abi::sample::Regs;

/// Hands out indices for [`ExtRule`]s; equal rules get the same index.
#[derive(Debug, Default)]
pub struct ExtTable {
    rules: Vec<ExtRule>,
    index: HashMap<ExtRule, u32>,
    refused: u64,
}

impl ExtTable {
    /// The most rules that the table takes. Real programs have a few dozen; a file that wants more is broken or
    /// hostile.
    pub const CAPACITY: usize = 1 << 16;

    /// The packed rule that refers to `rule`; [`Rule::NONE`] if the table is full.
    pub fn rule(&mut self, rule: ExtRule) -> Rule {
        let next = self.rules.len();
        match self.index.entry(rule) {
            Entry::Occupied(known) => Rule::ext(*known.get()),
            Entry::Vacant(new) if next < Self::CAPACITY => {
                let index = next as u32;
                new.insert(index);
                self.rules.push(rule);
                Rule::ext(index)
            }
            Entry::Vacant(_) => {
                self.refused += 1;
                Rule::NONE
            }
        }
    }

    /// The rule that is `rule` with more flags; `rule` itself if it is none that has a CFA.
    pub fn flagged(&mut self, rule: Rule, flags: u32) -> Rule {
        let plain = match rule.kind() {
            Kind::Sp | Kind::Bp => ExtRule {
                reg: if rule.kind() == Kind::Sp {
                    Regs::RSP
                } else {
                    Regs::RBP
                },
                flags: 0,
                // Both numbers are of at most 27 bits.
                offset: rule.cfa_offset() as i32,
                addend: 0,
                ra_offset: -8,
                bp_offset: match rule.bp_below_cfa() {
                    0 => ExtRule::BP_SAME,
                    below => -(below as i32),
                },
            },
            Kind::Ext => self.rules[rule.ext_index() as usize],
            _ => return rule,
        };
        self.rule(ExtRule {
            flags: plain.flags | flags,
            ..plain
        })
    }

    /// All rules, by index.
    pub fn rules(&self) -> &[ExtRule] {
        &self.rules
    }

    /// How often a rule was refused because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::ExtTable;
    use profiler_abi::rule::{ExtRule, Rule};
    use profiler_abi::sample::Regs;

    fn on_r10(offset: i32) -> ExtRule {
        ExtRule {
            reg: Regs::R10,
            flags: 0,
            offset,
            addend: 0,
            ra_offset: -8,
            bp_offset: ExtRule::BP_SAME,
        }
    }

    #[test]
    fn equal_rules_share_an_index() {
        let mut table = ExtTable::default();
        assert_eq!(table.rule(on_r10(0)), Rule::ext(0));
        assert_eq!(table.rule(on_r10(8)), Rule::ext(1));
        assert_eq!(table.rule(on_r10(0)), Rule::ext(0));
        assert_eq!(table.rules(), [on_r10(0), on_r10(8)]);
    }

    #[test]
    fn a_full_table_refuses_new_rules_and_counts_them() {
        let mut table = ExtTable::default();
        for offset in 0..ExtTable::CAPACITY as i32 {
            assert_ne!(table.rule(on_r10(offset)), Rule::NONE);
        }
        assert_eq!(table.rule(on_r10(-1)), Rule::NONE);
        assert_eq!(table.rule(on_r10(-2)), Rule::NONE);
        assert_eq!(table.rule(on_r10(7)), Rule::ext(7));
        assert_eq!((table.rules().len(), table.refused()), (ExtTable::CAPACITY, 2));
    }
}
