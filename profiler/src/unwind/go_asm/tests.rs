use super::{GoAsmFunction, UnknownShape, rows};
use crate::addr::Svma;
use crate::unwind::ExtTable;
use crate::unwind::testing::{Random, build_go, functions, words};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use profiler_abi::rule::Rule;

/// Where rows start, from the entry of the function in hexadecimal, and their rules in words.
type Expected = &'static str;

/// Functions that are the same in all releases. Their symbols' names may end in `.abi0`.
const ALL: &[(&str, Expected)] = &[
    (
        "runtime.cgocallback",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+40 bp@-16, b5: go CgoCallback 0, \
         10c: sp+40 bp@-16, 13f: sp+16 bp@-16, 140: sp+8 bp=",
    ),
    (
        "runtime.systemstack",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 42: go SystemStack 0, 6b: sp+16 bp@-16, \
         80: sp+8 bp=, 81: sp+16 bp@-16, 88: sp+8 bp=, 8a: sp+16 bp@-16",
    ),
    ("gogo", "0: sp+8 bp=, f: go Gogo 0"),
    ("runtime.gogo", "0: sp+8 bp="),
    ("runtime.morestack_noctxt", "0: sp+8 bp="),
    ("runtime.cgoSigtramp", "0: sp+8 bp="),
    ("gosave_systemstack_switch", "0: sp+8 bp="),
    ("runtime.goexit", "0: End"),
    ("runtime.mstart", "0: End"),
    ("runtime.rt0_go", "0: End"),
    ("runtime.clone", "0: sp+8 bp=, 60: End"),
    ("runtime.sigreturn__sigaction", "-1: SigFrame"),
    (
        "runtime.sigtramp",
        "0: sp+8 bp=, 4: sp+56 bp=, e: sp+56 bp@-16, 38: sp+80 bp@-16, 4a: sp+56 bp@-16, \
         67: sp+56 bp=, 6b: sp+8 bp=",
    ),
    // On the system stack from +0x4d to +0x79, but with the caller's record in the frame pointer.
    (
        "runtime.nanotime1",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+32 bp@-16, 4d: bp+16 bp@-16, \
         79: sp+32 bp@-16, a3: sp+16 bp@-16, a4: sp+8 bp=, a5: bp+16 bp@-16",
    ),
    (
        "time.now",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+32 bp@-16, 4d: bp+16 bp@-16, \
         9d: sp+32 bp@-16, be: sp+16 bp@-16, bf: sp+8 bp=, c0: bp+16 bp@-16",
    ),
    (
        "runtime.callCgoMmap",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+32 bp@-16, 32: bp+16 bp@-16, \
         3c: sp+32 bp@-16, 45: sp+16 bp@-16, 46: sp+8 bp=",
    ),
    (
        "runtime.sigfwd",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 1e: bp+16 bp@-16, 23: sp+16 bp@-16, \
         24: sp+8 bp=",
    ),
];

const GO_1_21: &[(&str, Expected)] = &[
    (
        "runtime.asmcgocall",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 47: bp+16 bp@-16, 67: go AsmCgoCall 5, \
         82: sp+16 bp@-16, 87: sp+8 bp=, 88: sp+16 bp@-16, 8c: sp+80 bp@-16, 90: bp+16 bp@-16, \
         a5: *(sp+40)+16 bp@-16, ae: sp+16 bp@-16, b3: sp+8 bp=",
    ),
    (
        "runtime.mcall",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 47: End, 54: None",
    ),
    ("runtime.morestack", "0: sp+8 bp=, 86: go MoreStack 0"),
    (
        "crosscall2",
        "0: sp+8 bp=, 4: sp+56 bp=, e: sp+56 bp@-16, 2a: sp+80 bp@-16, 41: sp+56 bp@-16, \
         5e: sp+56 bp=, 62: sp+8 bp=",
    ),
];

const CROSSCALL2_SINCE_1_22: (&str, Expected) = (
    "crosscall2",
    // The second record of +0xc does not matter.
    "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+64 bp@-16, 2e: sp+88 bp@-16, \
     45: sp+64 bp@-16, 66: sp+16 bp@-16, 67: sp+8 bp=",
);

const MORESTACK_SINCE_1_24: (&str, Expected) = ("runtime.morestack", "0: sp+8 bp=, 71: go MoreStack 0");

const GO_1_24: &[(&str, Expected)] = &[
    (
        "runtime.asmcgocall",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 47: bp+16 bp@-16, 60: go AsmCgoCall 0, \
         7d: sp+16 bp@-16, 82: sp+8 bp=, 83: sp+16 bp@-16, 87: sp+32 bp@-16, 8b: bp+16 bp@-16, \
         99: *(sp+0)+16 bp@-16, a4: sp+16 bp@-16, a9: sp+8 bp=",
    ),
    (
        "runtime.mcall",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 47: End, 55: None",
    ),
    MORESTACK_SINCE_1_24,
    CROSSCALL2_SINCE_1_22,
];

const GO_1_26: &[(&str, Expected)] = &[
    (
        "runtime.asmcgocall",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 47: bp+16 bp@-16, 60: go AsmCgoCall 0, \
         7d: sp+16 bp@-16, 82: sp+8 bp=, 83: sp+16 bp@-16, 94: sp+32 bp@-16, 98: bp+16 bp@-16, \
         a6: *(sp+0)+16 bp@-16, b1: sp+16 bp@-16, b6: sp+8 bp=",
    ),
    (
        "runtime.mcall",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 47: End, 5c: None",
    ),
    MORESTACK_SINCE_1_24,
    CROSSCALL2_SINCE_1_22,
    (
        "runtime.vgetrandom1",
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+32 bp@-16, 56: bp+16 bp@-16, \
         5b: sp+32 bp@-16, 76: sp+16 bp@-16, 77: sp+8 bp=",
    ),
];

fn check(release: &str, expected: &[(&str, Expected)]) {
    let folder = tempfile::tempdir().unwrap();
    let program = build_go(release, folder.path());
    let file = object::File::parse(&*program).unwrap();
    let functions = functions(&file);
    for (name, expected) in ALL.iter().chain(expected) {
        let assembly = functions.get(&format!("{name}.abi0"));
        let &(entry, code) = assembly
            .or_else(|| functions.get(*name))
            .unwrap_or_else(|| panic!("{release} has {name}"));
        let mut ext = ExtTable::default();
        let function = GoAsmFunction {
            name,
            entry,
            code,
            top_frame: false,
        };
        let rows = rows(&function, &mut ext).unwrap();
        let found: Vec<String> = rows
            .iter()
            .map(|row| match row.start.0.checked_sub(entry.0) {
                Some(at) => format!("{at:x}: {}", words(row.rule, &ext)),
                None => format!("-{:x}: {}", entry.0 - row.start.0, words(row.rule, &ext)),
            })
            .collect();
        assert_eq!(found.join(", "), *expected, "{release}, {name}");
    }
}

#[test]
fn rules_of_go_1_21_are_exact() {
    check("go1.21.13", GO_1_21);
}

#[test]
fn rules_of_go_1_24_are_exact() {
    check("go1.24.11", GO_1_24);
}

#[test]
fn rules_of_go_1_26_are_exact() {
    check("go1.26.8", GO_1_26);
}

#[test]
fn the_machines_go_has_no_unknown_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let program = build_go("local", folder.path());
    let file = object::File::parse(&*program).unwrap();
    let mut seen = 0;
    for (name, (entry, code)) in functions(&file) {
        let function = GoAsmFunction {
            name: name.trim_end_matches(".abi0"),
            entry,
            code,
            top_frame: false,
        };
        rows(&function, &mut ExtTable::default()).unwrap();
        seen += 1;
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn crosscall1_which_has_no_frame_information_is_read_from_its_code() {
    // runtime/cgo/gcc_amd64.S: it pushes six registers, rbp second.
    let code = [
        0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x89, 0xfb, 0x48, 0x89, 0xd7, 0xff,
        0xd6, 0xff, 0xd3, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3,
    ];
    let mut ext = ExtTable::default();
    let function = GoAsmFunction {
        name: "crosscall1",
        entry: Svma(0),
        code: &code,
        top_frame: false,
    };
    let rules: Vec<Rule> = rows(&function, &mut ext)
        .unwrap()
        .iter()
        .map(|row| row.rule)
        .collect();
    let expected = [8, 16, 24, 32, 40, 48, 56, 48, 40, 32, 24, 16, 8]
        .map(|cfa| Rule::sp(cfa, None).unwrap().losing_r12());
    assert_eq!(rules, expected);
}

#[test]
fn c_called_on_an_aligned_stack_is_left_by_the_word_that_holds_the_old_stack_pointer() {
    // runtime/asm_amd64.s, asmcgocall_no_g, which Linux programs have no use for.
    let code = [
        &[0x55][..],                    // 0: push %rbp
        &[0x48, 0x89, 0xe5],            // 1: mov %rsp,%rbp
        &[0x48, 0x83, 0xec, 0x20],      // 4: sub $0x20,%rsp
        &[0x48, 0x89, 0xe2],            // 8: mov %rsp,%rdx
        &[0x48, 0x83, 0xe4, 0xf0],      // b: and $-16,%rsp
        &[0x48, 0x89, 0x54, 0x24, 0x8], // f: mov %rdx,8(%rsp)
        &[0xff, 0xd0],                  // 14: call *%rax
        &[0x48, 0x8b, 0x54, 0x24, 0x8], // 16: mov 8(%rsp),%rdx
        &[0x48, 0x89, 0xd4],            // 1b: mov %rdx,%rsp
        &[0x48, 0x83, 0xc4, 0x20],      // 1e: add $0x20,%rsp
        &[0x5d],                        // 22: pop %rbp
        &[0xc3],                        // 23: ret
    ]
    .concat();
    let mut ext = ExtTable::default();
    let function = GoAsmFunction {
        name: "runtime.asmcgocall_no_g",
        entry: Svma(0),
        code: &code,
        top_frame: false,
    };
    let rows = rows(&function, &mut ext).unwrap();
    let found: Vec<String> = rows
        .iter()
        .map(|row| format!("{:x}: {}", row.start.0, words(row.rule, &ext)))
        .collect();
    assert_eq!(
        found.join(", "),
        "0: sp+8 bp=, 1: sp+16 bp=, 4: sp+16 bp@-16, 8: sp+48 bp@-16, f: bp+16 bp@-16, \
         15: *(sp+8)+48 bp@-16, 1e: sp+48 bp@-16, 22: sp+16 bp@-16, 23: sp+8 bp="
    );
}

#[test]
fn outermost_functions_end_the_stack_but_for_signal_trampolines() {
    let rows = |name, top_frame| {
        let function = GoAsmFunction {
            name,
            entry: Svma(0x1000),
            code: &[0x90, 0xc3],
            top_frame,
        };
        rows(&function, &mut ExtTable::default()).unwrap()[0].rule
    };
    assert_eq!(rows("runtime.some_root", true), Rule::END);
    let leaf = Rule::sp(8, None).unwrap().losing_r12();
    assert_eq!(rows("runtime.some_leaf", false), leaf);
    assert_eq!(rows("runtime.sigtramp", true), leaf);
}

#[test]
fn an_unknown_shape_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let program = build_go("local", folder.path());
    let file = object::File::parse(&*program).unwrap();
    let functions = functions(&file);
    // The instruction that is replaced by `nop`s, and what is missed then.
    for (name, mnemonic, missing) in [
        (
            "runtime.asmcgocall",
            Mnemonic::Sub,
            "the depth of the goroutine's stack pointer and g are not taken from the system stack",
        ),
        (
            "runtime.asmcgocall",
            Mnemonic::Call,
            "nothing is called on the system stack",
        ),
        (
            "runtime.cgocallback",
            Mnemonic::Push,
            "", // A frame of another size is none of its business.
        ),
    ] {
        let (entry, code) = functions[&format!("{name}.abi0")];
        let mut code = code.to_vec();
        for i in Decoder::with_ip(64, &code.clone(), 0, DecoderOptions::NONE) {
            if i.mnemonic() == mnemonic {
                code[i.ip() as usize..][..i.len()].fill(0x90);
            }
        }
        let function = GoAsmFunction {
            name,
            entry,
            code: &code,
            top_frame: false,
        };
        let result = rows(&function, &mut ExtTable::default());
        if missing.is_empty() {
            result.unwrap();
        } else {
            assert_eq!(
                result,
                Err(UnknownShape {
                    function: name.to_owned(),
                    missing
                })
            );
        }
    }
}

#[test]
fn no_code_makes_it_panic_or_run_long() {
    let names = [
        "runtime.asmcgocall",
        "runtime.systemstack",
        "runtime.cgocallback",
        "x",
    ];
    let mut random = Random::new(3);
    for round in 0..400 {
        // Short jumps, pushes and arithmetic on the stack pointer, tangled; every fourth time, any bytes.
        let code: Vec<u8> = (0..random.below(600))
            .flat_map(|_| match (round % 4, random.below(7)) {
                (0, _) => vec![random.next() as u8],
                (_, 0) => vec![0x74, random.next() as u8],
                (_, 1) => vec![0x50 + random.below(8) as u8],
                (_, 2) => vec![0x58 + random.below(8) as u8],
                (_, 3) => vec![0x48, 0x83, 0xec, random.next() as u8],
                (_, 4) => vec![0x48, 0x89, 0xc4 | (random.below(8) as u8 * 8)],
                (_, 5) => vec![0x48, 0x8b, 0x66, random.next() as u8],
                _ => vec![0xeb, random.next() as u8],
            })
            .collect();
        for name in names {
            for entry in [Svma(0x1000), Svma(0), Svma(u64::MAX - 700)] {
                let function = GoAsmFunction {
                    name,
                    entry,
                    code: &code,
                    top_frame: false,
                };
                // An unknown shape is an answer too.
                if let Ok(rows) = rows(&function, &mut ExtTable::default()) {
                    assert!(rows.is_sorted_by(|a, b| a.start < b.start));
                }
            }
        }
    }
}
