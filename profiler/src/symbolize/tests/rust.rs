//! Rust: generics, closures and methods of traits, in both manglings.

use super::{Program, functions, read};
use crate::addr::Svma;
use crate::profile::Kind;
use object::elf::PF_X;
use object::{Object as _, ObjectSegment, SegmentFlags};

const SHAPES: &str = include_str!("testdata/shapes.rs");

/// The legacy mangling is that of the compiler unless it was told otherwise; not so in later ones.
#[test]
fn generics_closures_and_inlined_functions_have_names_and_lines_in_both_manglings() {
    for mangling in ["", "-C symbol-mangling-version=v0"] {
        let program = Program::new(
            SHAPES,
            "rs",
            &format!("rustc --edition 2024 -O -C debuginfo=1 {mangling}"),
        );
        let price = program.names_at("in_price");
        let legacy = price[0].system_name.as_ref().unwrap().starts_with("_ZN");
        let (method, closure) = if legacy {
            (
                "<source::shop::Basket<T> as source::shop::Price>::price",
                "source::main::{{closure}}",
            )
        } else {
            (
                "<source::shop::Basket<u32> as source::shop::Price>::price",
                "source::main::{closure#0}",
            )
        };
        assert_eq!(functions(&price), [method]);
        assert_eq!(price[0].line, program.line("// price is here"));
        assert_eq!(price[0].kind, Kind::Rust);

        let discount = program.names_at("in_discount");
        assert_eq!(functions(&discount), ["source::shop::discount", "source::main"]);
        assert_eq!(discount[0].line, program.line("// discount is here"));
        assert_eq!(discount[1].line, program.line("// main calls discount"));
        assert!(discount[0].inlined && !discount[1].inlined);

        let names = program.names_at("in_closure");
        assert_eq!(names[0].function, closure);
        assert_eq!(names[0].line, program.line("// closure is here"));
        assert!(names[1].function.starts_with("source::apply"), "{names:?}");
        assert_eq!(names[1].line, program.line("// apply calls"));
        assert!(names.iter().all(|name| name.kind == Kind::Rust));
    }
}

#[test]
fn without_dwarf_the_mangling_tells_rust() {
    let program = Program::new(
        SHAPES,
        "rs",
        "rustc --edition 2024 -O -C debuginfo=0 -C strip=none",
    );
    let names = program.names_at("in_price");
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].kind, Kind::Rust);
    assert!(
        names[0].function.ends_with("as source::shop::Price>::price"),
        "{names:?}"
    );
}

/// Rust's own linker, lld, begins segments anywhere in the file; what is mapped begins a little before.
#[test]
fn the_first_page_of_code_begins_before_the_code() {
    const PAGE: u64 = 4096;
    let program = Program::new(SHAPES, "rs", "rustc --edition 2024 -O");
    let file = read(&program.path);
    let file = object::File::parse(&file[..]).unwrap();
    let is_code = |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.contains(PF_X));
    let code = file.segments().find(|s| is_code(s.flags())).unwrap();
    let (offset, address) = (code.file_range().0, code.address());
    let found = program.object().svma_of_offset(offset & !(PAGE - 1));
    assert_eq!(found, Some(Svma(address & !(PAGE - 1))));
}
