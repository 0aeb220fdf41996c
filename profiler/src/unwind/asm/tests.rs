use iced_x86::{Decoder, DecoderOptions};
use profiler_abi::rule::{Kind, Rule};

use super::rows;
use crate::addr::Svma;
use crate::unwind::dwarf::{CallFrames, text};
use crate::unwind::testing::{build_go, compile, functions, words};
use crate::unwind::{Coverage, ExtTable, Layer, Rows};

/// Compares what the code says with what frame information says, at each instruction where both count from the
/// stack pointer: how many, and where they differ.
fn compare(data: &[u8]) -> (u64, Vec<String>) {
    let file = object::File::parse(data).unwrap();
    let mut ext = ExtTable::default();
    let frames = CallFrames::read(&file, &mut ext, &mut Coverage::default());
    let by_frames = Rows::overlay([frames.eh_frame, frames.debug_frame], &text(&file));
    let mut compared = 0;
    let mut differ = Vec::new();
    for (name, (entry, code)) in functions(&file) {
        // Parts of functions are not entered by calls.
        if name.ends_with(".cold") || by_frames.rule_at(entry) != Rule::sp(8, None).unwrap() {
            continue;
        }
        let mut layer = Layer::default();
        layer.push(
            entry..Svma(entry.0 + code.len() as u64),
            rows(entry, code, &mut ext),
        );
        let by_code = Rows::overlay([layer], &text(&file));
        for i in Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE) {
            let frames = by_frames.rule_at(Svma(i.ip()));
            let code = by_code.rule_at(Svma(i.ip()));
            if frames.kind() == Kind::Sp && code.kind() == Kind::Sp {
                compared += 1;
                if frames.cfa_offset() != code.cfa_offset() {
                    differ.push(format!(
                        "{name} {:#x} {} {}",
                        i.ip(),
                        words(frames, &ext),
                        words(code, &ext)
                    ));
                }
            }
        }
    }
    (compared, differ)
}

#[test]
fn code_and_frame_information_of_a_static_program_agree() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("program");
    let source =
        "#include <stdexcept>\nint main(int n, char **) { throw std::runtime_error(std::to_string(n)); }";
    compile("g++", source, &["-O2", "-static"], &out);
    let (compared, differ) = compare(&std::fs::read(&out).unwrap());
    assert!(compared > 50_000, "{compared}");
    // These push registers and do not say so (glibc, sysdeps/x86_64/submul_1.S and others).
    let differ: Vec<&String> = differ.iter().filter(|line| !line.starts_with("__mpn_")).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn code_and_the_stack_pointer_tables_of_a_go_program_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (compared, differ) = compare(&build_go("local", folder.path()));
    assert!(compared > 20_000, "{compared}");
    // The linker counts pushes in the order of addresses, which is not that of control in these.
    let known = [
        "runtime.asmcgocall.abi0",
        "runtime.rt0_go.abi0",
        "runtime.systemstack.abi0",
    ];
    let differ: Vec<&String> = differ
        .iter()
        .filter(|line| !known.iter().any(|known| line.starts_with(known)))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Rows of machine code at 0x1000, in words.
fn rules(code: &[u8]) -> Vec<(u64, String)> {
    let mut ext = ExtTable::default();
    rows(Svma(0x1000), code, &mut ext)
        .iter()
        .map(|row| (row.start.0 - 0x1000, words(row.rule, &ext)))
        .collect()
}

fn check(code: &[&[u8]], expected: &[(u64, &str)]) {
    let expected: Vec<(u64, String)> = expected.iter().map(|&(at, rule)| (at, rule.to_owned())).collect();
    assert_eq!(rules(&code.concat()), expected);
}

const RET: &[u8] = &[0xc3];

#[test]
fn a_frame_is_left_by_leave() {
    check(
        &[
            &[0x55],                         // 0: push %rbp
            &[0x48, 0x89, 0xe5],             // 1: mov %rsp,%rbp
            &[0x48, 0x81, 0xec, 0, 1, 0, 0], // 4: sub $0x100,%rsp
            &[0x48, 0x29, 0xc4],             // b: sub %rax,%rsp
            &[0xff, 0xd0],                   // e: call *%rax
            &[0xc9],                         // 10: leave
            RET,
        ],
        &[
            (0x0, "sp+8 bp="),
            (0x1, "sp+16 bp="),
            (0x4, "sp+16 bp@-16"),
            (0xb, "sp+272 bp@-16"),
            (0xe, "bp+16 bp@-16"),
            (0x11, "sp+8 bp="),
        ],
    );
}

#[test]
fn an_aligned_stack_without_a_frame_pointer_is_followed_by_the_word_that_holds_the_old_one() {
    check(
        &[
            &[0x48, 0x89, 0xe0],          // 0: mov %rsp,%rax
            &[0x48, 0x83, 0xe4, 0xf0],    // 3: and $-16,%rsp
            &[0x48, 0x83, 0xec, 0x10],    // 7: sub $16,%rsp
            &[0x48, 0x89, 0x44, 0x24, 8], // b: mov %rax,8(%rsp)
            &[0xff, 0xd1],                // 10: call *%rcx
            &[0x48, 0x8b, 0x64, 0x24, 8], // 12: mov 8(%rsp),%rsp
            RET,
        ],
        &[
            (0x0, "sp+8 bp="),
            // On rax, in the innermost frame.
            (0x7, "ax+8 bp="),
            (0x10, "*(sp+8)+8 bp="),
            (0x17, "sp+8 bp="),
        ],
    );
}

#[test]
fn in_a_call_only_what_the_called_function_preserves_counts() {
    check(
        &[
            &[0x49, 0x89, 0xe4],       // 0: mov %rsp,%r12
            &[0x48, 0x89, 0xe0],       // 3: mov %rsp,%rax
            &[0x48, 0x83, 0xe4, 0xf0], // 6: and $-16,%rsp
            &[0xff, 0xd1],             // a: call *%rcx
            &[0x4c, 0x89, 0xe4],       // c: mov %r12,%rsp
            RET,
        ],
        &[
            (0x0, "sp+8 bp="),
            (0xa, "ax+8 bp="),
            (0xb, "12+8 bp="),
            (0xf, "sp+8 bp="),
        ],
    );
}

#[test]
fn what_is_true_on_one_way_only_is_not_true_where_ways_meet() {
    check(
        &[
            &[0x85, 0xff], // 0: test %edi,%edi
            &[0x74, 1],    // 2: je 5
            &[0x50],       // 4: push %rax
            &[0x90],       // 5: nop
            &[0x55],       // 6: push %rbp
            &[0x31, 0xed], // 7: xor %ebp,%ebp
            RET,
        ],
        &[(0x0, "sp+8 bp="), (0x5, "None")],
    );
    // In a loop that pushes, too.
    check(
        &[&[0x90], &[0x50], &[0xeb, 0xfd]],
        &[(0, "sp+8 bp="), (1, "None")],
    );
    // A loop that leaves the stack pointer alone.
    check(
        &[&[0x50], &[0x90], &[0x75, 0xfd], &[0x58], RET],
        &[(0, "sp+8 bp="), (1, "sp+16 bp="), (5, "sp+8 bp=")],
    );
}

#[test]
fn a_lost_frame_pointer_is_said_to_be_lost() {
    check(
        &[
            &[0x48, 0x31, 0xed], // 0: xor %rbp,%rbp
            RET,
        ],
        &[(0, "sp+8 bp="), (3, "sp+8 bp?")],
    );
    // Saved and overwritten.
    check(
        &[
            &[0x55],                         // 0: push %rbp
            &[0x31, 0xed],                   // 1: xor %ebp,%ebp
            &[0xc7, 0x04, 0x24, 0, 0, 0, 0], // 3: movl $0,(%rsp)
            RET,
        ],
        &[
            (0, "sp+8 bp="),
            (1, "sp+16 bp="),
            (3, "sp+16 bp@-16"),
            (0xa, "sp+16 bp?"),
        ],
    );
}

#[test]
fn what_is_not_reached_has_no_rule() {
    check(&[RET, &[0xcc, 0xcc], RET], &[(0, "sp+8 bp="), (1, "None")]);
    assert!(rules(&[]).is_empty());
    assert!(rules(&vec![0x90; (64 << 10) + 1]).is_empty());
    assert_eq!(rules(&vec![0x90; 64 << 10]).len(), 1);
}
