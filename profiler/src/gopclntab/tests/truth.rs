use crate::addr::Svma;
use crate::gopclntab::fixtures::{Build, FORMS, TOOLCHAINS, builds};
use crate::gopclntab::{Function, Pclntab};
use object::{Object, ObjectSection, ObjectSegment};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

fn table_of(build: Build) -> Pclntab {
    let data = build.bytes();
    let object = object::File::parse(&*data).expect("an ELF file");
    let table = Pclntab::find(&object, &data).unwrap_or_else(|e| panic!("{build:?}: {e}"));
    table.unwrap_or_else(|| panic!("{build:?}: no table"))
}

fn one<'a>(table: &'a Pclntab, name: &'a str) -> Function<'a> {
    let mut found = table.functions_named(name).filter(|f| !f.is_wrapper());
    match (found.next(), found.next()) {
        (Some(function), None) => function,
        (first, second) => panic!("{name} should be one function, not {first:?} and {second:?}"),
    }
}

/// The address after the last instruction: padding follows.
fn end_of_code(function: &Function<'_>) -> u64 {
    function
        .sp_deltas()
        .last()
        .map_or(function.entry().0, |(run, _)| run.end.0)
}

/// Some addresses of each function, the last one among them.
fn sampled_addresses(table: &Pclntab) -> Vec<u64> {
    let addresses = table.functions().flat_map(|function| {
        let code = function.entry().0..end_of_code(&function);
        let last = code.clone().last();
        code.step_by(61).chain(last)
    });
    addresses.collect()
}

#[test]
fn instructions_come_from_where_the_program_itself_says() {
    for build in builds() {
        let table = table_of(build);
        let mut addresses = sampled_addresses(&table);
        // The program is asked for the address after, which must be in the same function.
        addresses.retain(|&a| table.lookup(Svma(a + 1)).is_some_and(|f| f.entry().0 <= a));
        assert!(
            addresses.len() > 8_000,
            "{build:?}: {} addresses",
            addresses.len()
        );
        let answers = build.answers(one(&table, "main.main").entry().0, &addresses);
        assert_eq!(answers.len(), addresses.len(), "{build:?}");
        // The runtime takes the first name in the table for none.
        let nameless = table.name_at(0);
        for (address, answer) in addresses.into_iter().zip(answers) {
            let stack = table.inline_stack(Svma(address));
            let frame = stack
                .first()
                .unwrap_or_else(|| panic!("{build:?}: {address:#x}: {answer}"));
            let name = if frame.name == nameless { "" } else { frame.name };
            let found = format!("{}\t{}\t{}", printed(name), frame.file, frame.line);
            assert_eq!(found, answer, "{build:?} at {address:#x}");
        }
    }
}

/// What stack traces print of a name: `funcNameForPrint` in runtime/symtab.go: everything from the first `[` to the last `]` becomes `[...]`.
fn printed(name: &str) -> Cow<'_, str> {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            Cow::Owned(format!("{}[...]{}", &name[..open], &name[close + 1..]))
        }
        _ => Cow::Borrowed(name),
    }
}

type Slice = gimli::EndianRcSlice<gimli::LittleEndian>;

fn debug_section(object: &object::File<'_>, id: gimli::SectionId) -> Slice {
    let section = object.section_by_name(id.name());
    let bytes = section.map_or(Cow::Borrowed(&[][..]), |s| {
        s.uncompressed_data().expect("a section")
    });
    Slice::new(bytes.into(), gimli::LittleEndian)
}

#[test]
fn inlined_calls_are_those_of_the_debug_information() {
    for toolchain in TOOLCHAINS {
        let build = Build {
            toolchain,
            cgo: true,
            mode: "pie",
            ldflags: "",
        };
        let table = table_of(build);
        let data = build.bytes();
        let object = object::File::parse(&*data).expect("an ELF file");
        let dwarf = gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(debug_section(&object, id)));
        let context = addr2line::Context::from_dwarf(dwarf.expect("DWARF")).expect("DWARF");
        let (mut same, mut inlined, mut other_line) = (0, 0, 0);
        for address in sampled_addresses(&table) {
            let mut frames = context.find_frames(address).skip_all_loads().expect("DWARF");
            let (mut names, mut lines) = (Vec::new(), Vec::new());
            while let Some(frame) = frames.next().expect("DWARF") {
                if let (Some(function), Some(location)) = (frame.function, frame.location) {
                    names.push(function.raw_name().expect("a name").into_owned());
                    // Relative to the directory of the compilation unit, which Go gives as ".".
                    let file = location.file.unwrap_or_default().trim_start_matches("./");
                    lines.push(format!("{file}:{}", location.line.unwrap_or_default()));
                }
            }
            // Some generated functions have no line in the debug information.
            if names.is_empty() {
                continue;
            }
            let stack = table.inline_stack(Svma(address));
            let found_names: Vec<_> = stack.iter().map(|f| f.name).collect();
            let found_lines: Vec<_> = stack.iter().map(|f| format!("{}:{}", f.file, f.line)).collect();
            assert_eq!(found_names, names, "{build:?} at {address:#x}");
            inlined += usize::from(stack.len() > 1);
            match found_lines == lines {
                true => same += 1,
                false => other_line += 1,
            }
        }
        // The line program of Go 1.21 lacks some of the lines that the runtime's table has.
        let lacking = if toolchain == "go1.21.13" { same / 1000 } else { 0 };
        assert!(other_line <= lacking, "{build:?}: {other_line} other lines");
        assert!(
            same > 8_000 && inlined > 1_000,
            "{build:?}: {same} the same, {inlined} inlined"
        );
    }
}

#[test]
fn stack_pointers_move_as_the_debug_information_says() {
    use gimli::UnwindSection;
    for toolchain in TOOLCHAINS {
        let build = Build {
            toolchain,
            cgo: false,
            mode: "exe",
            ldflags: "",
        };
        let table = table_of(build);
        let data = build.bytes();
        let object = object::File::parse(&*data).expect("an ELF file");
        let frames: gimli::DebugFrame<_> = debug_section(&object, gimli::SectionId::DebugFrame).into();
        let (bases, mut context) = (gimli::BaseAddresses::default(), gimli::UnwindContext::new());
        let mut entries = frames.entries(&bases);
        let mut checked = 0;
        while let Some(entry) = entries.next().expect("an entry") {
            let gimli::CieOrFde::Fde(partial) = entry else {
                continue;
            };
            let fde = partial
                .parse(gimli::DebugFrame::cie_from_offset)
                .expect("an entry");
            let function = table.lookup(Svma(fde.initial_address())).expect("a function");
            let mut rows = fde.rows(&frames, &bases, &mut context).expect("rows");
            while let Some(row) = rows.next_row().expect("a row") {
                let &gimli::CfaRule::RegisterAndOffset {
                    register: gimli::X86_64::RSP,
                    offset,
                } = row.cfa()
                else {
                    panic!("{build:?}: {function:?}: {row:?}");
                };
                let mut deltas = function.sp_deltas();
                let delta =
                    deltas.find_map(|(run, delta)| run.contains(&Svma(row.start_address())).then_some(delta));
                assert_eq!(
                    delta.map(|d| i64::from(d) + 8),
                    Some(offset),
                    "{build:?}: {function:?}: {row:?}"
                );
                checked += 1;
            }
        }
        assert!(checked > 4_000, "{build:?}: {checked} rows");
    }
}

#[test]
fn runs_of_a_function_touch_and_stay_inside() {
    let build = Build {
        toolchain: "local",
        ..FORMS[0]
    };
    let table = table_of(build);
    for function in table.functions() {
        let mut at = function.entry();
        for (run, _) in function.sp_deltas() {
            assert_eq!(run.start, at, "{function:?}");
            at = run.end;
        }
        assert!(at <= function.end(), "{function:?} ends before {at}");
    }
}

#[test]
fn facts_of_functions_are_those_of_the_source() {
    let source = include_str!("../testdata/main.go");
    let line_of = |text: &str| {
        1 + source
            .lines()
            .position(|line| line.starts_with(text))
            .expect("a line") as u32
    };
    for build in builds() {
        let table = table_of(build);
        let apply = table
            .functions()
            .find(|f| f.name().starts_with("main.apply[go.shape."))
            .expect("a generic function");
        assert_eq!(apply.start_line(), line_of("func apply"));

        assert!(one(&table, "runtime.goexit").is_top_frame());
        assert!(one(&table, "runtime.goexit").is_asm());
        assert!(one(&table, "runtime.gogo").is_asm() || one(&table, "gogo").is_asm());
        assert!(!one(&table, "main.work").is_top_frame() && !one(&table, "main.work").is_asm());
        assert!(
            one(&table, "runtime.asmcgocall").func_id() == 2,
            "abi.FuncID_asmcgocall"
        );
        for name in ["main.(*square).area", "main.group.area"] {
            let wrappers: Vec<_> = table.functions_named(name).map(|f| f.is_wrapper()).collect();
            assert_eq!(wrappers, [true], "{build:?}: {name}");
        }

        // clamped is inlined into product, product into square.area.
        let area = one(&table, "main.square.area");
        let deepest = (area.entry().0..area.end().0)
            .map(|pc| table.inline_stack(Svma(pc)))
            .max_by_key(Vec::len);
        let deepest = deepest.expect("the function has instructions");
        let names: Vec<_> = deepest.iter().map(|f| (f.name, f.start_line)).collect();
        let expected = [
            ("main.clamped", line_of("func clamped")),
            ("main.product", line_of("func product")),
            ("main.square.area", line_of("func (s square) area")),
        ];
        assert_eq!(names, expected, "{build:?}");
        assert_eq!(deepest[2].line, line_of("func (s square) area"));
        assert_eq!(deepest[1].line, line_of("\treturn clamped(a)"));
    }
}

#[test]
fn addresses_outside_the_table_are_in_no_function() {
    for build in builds() {
        let table = table_of(build);
        let range = table.text_range();
        for outside in [0, range.start.0 - 1, range.end.0, u64::MAX] {
            assert!(table.lookup(Svma(outside)).is_none(), "{build:?} {outside:#x}");
            assert_eq!(table.inline_stack(Svma(outside)), []);
        }
        assert!(table.lookup(Svma(range.end.0 - 1)).is_some());
    }
}

/// Everything that a table says of functions.
fn contents(data: Vec<u8>) -> Vec<String> {
    let data = bytes::Bytes::from(data);
    let object = object::File::parse(&*data).expect("an ELF file");
    let table = Pclntab::find(&object, &data).expect("no error").expect("a table");
    let functions = table
        .functions()
        .map(|f| format!("{f:?} {:?}", table.inline_stack(f.entry())));
    functions.collect()
}

#[test]
fn addresses_are_taken_from_relocations() {
    for build in builds().filter(|build| build.mode != "exe") {
        let mut data = build.bytes().to_vec();
        let object = object::File::parse(&*data).expect("an ELF file");
        let relocations = object.dynamic_relocations().expect("relocations");
        let places = relocations.filter_map(|(place, relocation)| {
            let flags = object::RelocationFlags::Elf {
                r_type: object::elf::R_X86_64_RELATIVE,
            };
            let segments = object.segments().filter(|_| relocation.flags() == flags);
            let (start, file) = segments
                .map(|s| (s.address(), s.file_range()))
                .find(|(start, file)| (*start..start + file.1).contains(&place))?;
            Some((file.0 + place - start) as usize)
        });
        let places: Vec<_> = places.collect();
        assert!(places.len() > 100, "{build:?}: {} relocations", places.len());
        // A linker may leave the addend out of the place.
        for place in places {
            data[place..place + 8].fill(0);
        }
        assert_eq!(contents(data), contents(build.bytes().to_vec()), "{build:?}");
    }
}

#[test]
fn a_table_is_found_without_section_headers() {
    for build in FORMS.map(|form| Build {
        toolchain: "go1.21.13",
        ..form
    }) {
        let mut data = build.bytes().to_vec();
        let expected = contents(data.clone());
        // e_shoff, then e_shentsize, e_shnum, e_shstrndx.
        data[0x28..0x30].fill(0);
        data[0x3a..0x40].fill(0);
        assert_eq!(contents(data), expected, "{build:?}");
    }
}

#[test]
fn a_program_without_go_has_no_table() {
    let data = bytes::Bytes::from(std::fs::read("/proc/self/exe").expect("this program"));
    let object = object::File::parse(&*data).expect("an ELF file");
    assert!(Pclntab::find(&object, &data).expect("no error").is_none());
}

#[test]
fn functions_are_where_the_symbol_table_has_them() {
    let unstripped = FORMS.iter().filter(|form| !form.is_stripped());
    for build in unstripped.flat_map(|form| TOOLCHAINS.map(|toolchain| Build { toolchain, ..*form })) {
        let table = table_of(build);
        let mut symbols: HashMap<u64, BTreeSet<String>> = HashMap::new();
        for (address, name) in build.nm() {
            // Symbols say which calling convention they have, and have no dots that no C program could have.
            let name = name.strip_suffix(".abi0").unwrap_or(&name).replace('·', ".");
            symbols.entry(address).or_default().insert(name);
        }
        let mut count = 0;
        for function in table.functions() {
            let names = symbols.get(&function.entry().0);
            let known = names.is_some_and(|names| names.contains(&function.name().replace('·', ".")));
            assert!(known, "{build:?}: {function:?} is called {names:?}");
            assert_eq!(
                table.lookup(function.entry()).map(|f| f.entry()),
                Some(function.entry())
            );
            count += 1;
        }
        assert!(count > 1000, "{build:?}: {count} functions");
    }
}
