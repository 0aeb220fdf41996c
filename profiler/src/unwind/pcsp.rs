//! Rows of functions that the Go compiler made, from their stack pointer table.

use std::ops::Range;

use profiler_abi::rule::Rule;

use super::rows::Row;
use crate::addr::Svma;

/// Rows of a function. Each delta of its `pcsp` table says for a range of addresses how many bytes the stack
/// pointer is below its value at entry.
///
/// Where a function has a frame, its first instruction pushes the caller's frame pointer (cmd/internal/obj/x86/
/// obj6.go, `preprocess`, Go 1.21–1.27), so with any delta above 0 it is right below the return address.
/// Assembly functions may do as they like: [`super::asm`] reads their code.
///
/// A delta that is negative or no multiple of a word gives [`Rule::NONE`].
pub fn rows(deltas: impl IntoIterator<Item = (Range<Svma>, i32)>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (range, delta) in deltas {
        let rule = rule(delta);
        if rows.last().is_none_or(|last| last.rule != rule) {
            rows.push(Row {
                start: range.start,
                rule,
            });
        }
    }
    rows
}

fn rule(delta: i32) -> Rule {
    let rule = match delta {
        0 => Rule::sp(8, None),
        1.. => Rule::sp(i64::from(delta) + 8, Some(-16)),
        _ => None,
    };
    rule.map_or(Rule::NONE, Rule::losing_r12)
}

#[cfg(test)]
mod tests {
    use super::rows;
    use crate::addr::Svma;
    use crate::unwind::Row;
    use profiler_abi::rule::Rule;
    use std::ops::Range;

    fn at_0x1000((offsets, delta): (Range<u64>, i32)) -> (Range<Svma>, i32) {
        (Svma(0x1000 + offsets.start)..Svma(0x1000 + offsets.end), delta)
    }

    #[test]
    fn a_frame_has_the_callers_frame_pointer_below_the_return_address() {
        let deltas = [
            (0..5, 0),
            (5..9, 8),
            (9..40, 0x48),
            (40..44, 8),
            (44..45, 0),
            (45..50, 0),
        ]
        .map(at_0x1000);
        let row = |offset: u64, rule: Option<Rule>| Row {
            start: Svma(0x1000 + offset),
            rule: rule.expect("fits").losing_r12(),
        };
        assert_eq!(
            rows(deltas),
            [
                row(0, Rule::sp(8, None)),
                row(5, Rule::sp(16, Some(-16))),
                row(9, Rule::sp(0x50, Some(-16))),
                row(40, Rule::sp(16, Some(-16))),
                row(44, Rule::sp(8, None)),
            ]
        );
    }

    #[test]
    fn impossible_deltas_give_no_rule() {
        let rules: Vec<Rule> = rows([(0..1, -8), (1..2, 0), (2..3, 12), (3..4, i32::MIN)].map(at_0x1000))
            .iter()
            .map(|row| row.rule)
            .collect();
        assert_eq!(
            rules,
            [
                Rule::NONE,
                Rule::sp(8, None).expect("fits").losing_r12(),
                Rule::NONE
            ]
        );
    }
}
