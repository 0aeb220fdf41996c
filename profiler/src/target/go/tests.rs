use super::{Error, GoRuntime, GoVersion, Layout, Source, TlsG};
use crate::addr::{Bias, Svma};
use crate::gopclntab::Pclntab;
use crate::gopclntab::fixtures::{Build, FORMS, TOOLCHAINS, builds};
use bytes::Bytes;
use object::{Object, RelocationFlags};

fn runtime_of(data: &Bytes) -> Result<GoRuntime, Error> {
    let object = object::File::parse(&**data).expect("an ELF file");
    let table = Pclntab::find(&object, data).expect("no error").expect("a table");
    GoRuntime::find(&object, data, &table).map(|runtime| runtime.expect("a runtime"))
}

fn understood(build: Build) -> GoRuntime {
    runtime_of(&build.bytes()).unwrap_or_else(|e| panic!("{build:?}: {e}"))
}

#[test]
fn versions_are_those_of_the_toolchains() {
    for build in builds() {
        let version = understood(build).version.expect("a version");
        let mut go = std::process::Command::new("go");
        go.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", build.toolchain);
        let expected = crate::gopclntab::fixtures::run(&mut go, &[]);
        assert_eq!(version.raw, expected.trim_end(), "{build:?}");
    }
}

#[test]
fn debug_information_and_the_table_of_releases_agree() {
    for build in builds() {
        let runtime = understood(build);
        let expected = if build.is_stripped() {
            Source::Release
        } else {
            Source::Dwarf
        };
        assert_eq!(runtime.layout_source, expected, "{build:?}");
        let by_release = Layout::of_release(runtime.version.as_ref().expect("a version"));
        assert_eq!(Some(runtime.layout), by_release, "{build:?}");
    }
}

#[test]
fn code_and_headers_agree_where_g_is() {
    for build in builds().filter(|b| b.mode != "c-shared") {
        let data = build.bytes();
        let object = object::File::parse(&*data).expect("an ELF file");
        let tls = understood(build).tls;
        let static_libc = build.ldflags.contains("-static");
        if !static_libc {
            assert_eq!(tls, TlsG::Fixed(-8), "{build:?}");
        }
        // The Go linker alone makes no symbol for it.
        let symbol = object.symbol_by_name("runtime.tlsg");
        assert_eq!(symbol.is_some(), build.cgo && !build.is_stripped(), "{build:?}");
        if symbol.is_some() {
            assert_eq!(TlsG::of_headers(&object), Some(tls), "{build:?}");
        }
    }
}

#[test]
fn a_library_keeps_the_place_of_g_in_its_global_offset_table() {
    for build in builds().filter(|b| b.mode == "c-shared") {
        let data = build.bytes();
        let object = object::File::parse(&*data).expect("an ELF file");
        let TlsG::GotSlot(Svma(slot)) = understood(build).tls else {
            panic!("{build:?}: a fixed offset");
        };
        let relocations = object.dynamic_relocations().expect("relocations");
        let kinds: Vec<_> = relocations
            .filter(|(place, _)| *place == slot)
            .map(|(_, relocation)| relocation.flags())
            .collect();
        let expected = RelocationFlags::Elf {
            r_type: object::elf::R_X86_64_TPOFF64,
        };
        assert_eq!(kinds, [expected], "{build:?}");
    }
}

#[test]
fn only_programs_with_c_have_crosscall2() {
    for build in builds() {
        let runtime = understood(build);
        assert_eq!(runtime.is_cgo(), build.cgo, "{build:?}");
        let data = build.bytes();
        let object = object::File::parse(&*data).expect("an ELF file");
        let symbol = object
            .symbol_by_name("crosscall2")
            .map(|s| object::ObjectSymbol::address(&s));
        if let Some(address) = symbol {
            assert_eq!(
                runtime.crosscall2.map(|range| range.start),
                Some(Svma(address)),
                "{build:?}"
            );
        }
    }
}

#[test]
fn the_walk_gets_addresses_of_the_process() {
    let build = FORMS
        .into_iter()
        .find(|form| form.mode == "pie" && form.cgo)
        .expect("a form");
    let runtime = understood(build);
    let crosscall2 = runtime.crosscall2.clone().expect("a program with C");
    let abi = runtime.abi(Bias(0x5555_0000_0000), -16, Svma(0x1000)..Svma(0x3000));
    assert_eq!((abi.text, abi.text_size), (0x5555_0000_1000, 0x2000));
    assert_eq!((abi.present, abi.tls_g), (1, -16));
    assert_eq!(abi.crosscall2, crosscall2.start.0 + 0x5555_0000_0000);
    assert_eq!(abi.crosscall2_size, crosscall2.end.0 - crosscall2.start.0);
    assert_eq!(
        (abi.g_m, abi.m_curg, abi.g_goid),
        (48, runtime.layout.m_curg, runtime.layout.g_goid)
    );
}

/// A stripped program of `toolchain` that claims to be of another release.
fn claiming(toolchain: &'static str, version: &str) -> Bytes {
    let stripped = FORMS.into_iter().find(|form| form.is_stripped()).expect("a form");
    let build = Build {
        toolchain,
        ..stripped
    };
    let real = understood(build).version.expect("a version").raw;
    assert!(
        version.len() <= real.len(),
        "{version} does not fit in the place of {real}"
    );
    let mut data = build.bytes().to_vec();
    let magic = data
        .windows(14)
        .position(|w| w == b"\xff Go buildinf:")
        .expect("build information");
    data[magic + 32] = version.len() as u8;
    data[magic + 33..][..version.len()].copy_from_slice(version.as_bytes());
    data.into()
}

#[test]
fn a_layout_that_the_code_contradicts_is_refused() {
    let error = runtime_of(&claiming("go1.21.13", "go1.24.1")).expect_err("1.24 has other offsets");
    let expected = Error::Contradiction {
        field: "m.ncgo",
        stated: 328,
        source_of_stated: Source::Release,
        used: 312,
    };
    assert_eq!(error, expected);
}

#[test]
fn an_unknown_release_is_taken_for_the_newest_if_its_code_agrees() {
    let runtime = runtime_of(&claiming("local", "go1.99.1")).expect("the machine's Go is like the newest");
    assert_eq!(runtime.layout_source, Source::NewestRelease);

    let error = runtime_of(&claiming("go1.21.13", "go1.99.1")).expect_err("1.21 is not like the newest");
    assert_eq!(
        error,
        Error::Unknown(GoVersion::parse("go1.99.1").expect("a version"))
    );
}

#[test]
fn old_and_nameless_releases_are_refused() {
    let error = runtime_of(&claiming("go1.21.13", "go1.20.9")).expect_err("1.20 is too old");
    assert_eq!(
        error,
        Error::TooOld(GoVersion::parse("go1.20.9").expect("a version"))
    );
    let error = runtime_of(&claiming("go1.21.13", "unknown")).expect_err("no version");
    assert_eq!(error, Error::NoVersion);
}

#[test]
fn damaged_programs_do_not_panic() {
    for toolchain in TOOLCHAINS {
        let build = Build {
            toolchain,
            ..FORMS[0]
        };
        let data = build.bytes();
        let object = object::File::parse(&*data).expect("an ELF file");
        let table = Pclntab::find(&object, &data).expect("no error").expect("a table");
        let function = super::body(&table, super::sigtramp::NAME).expect("a function");
        let image = crate::gopclntab::Image::new(&object, &data).expect("an image");
        let code = image.bytes(function.entry().0, 110).expect("code");
        for bit in 0..8 * code.len() {
            let mut code = code.to_vec();
            code[bit / 8] ^= 1 << (bit % 8);
            let _ = super::SigTramp::decode(&code, function.entry());
        }
    }
}
