//! From the names that linkers use to the names that people use.

use crate::profile::Kind;
use cpp_demangle::DemangleOptions;
use std::fmt::{self, Write};

/// A symbol, made readable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// The name without parameters, return type, hash, version or suffix of the compiler.
    pub(super) function: String,
    /// The symbol, if it differs.
    pub(super) system_name: Option<String>,
    /// By the way the name is mangled; [`Kind::Native`] if it is not.
    pub(super) kind: Kind,
}

/// Symbols longer than this are not demangled, in bytes.
const MAX_MANGLED: usize = 16 << 10;
/// How many places are tried as the end of a name whose types are not understood.
const MAX_NAME_ENDS: usize = 64;
/// Names longer than this stay mangled, in bytes: both manglings can repeat a part by two characters, and that
/// part can hold repetitions itself.
const MAX_DEMANGLED: usize = 64 << 10;

/// Makes a symbol readable: C++ and Rust (both manglings) are demangled, versions and the suffixes that compilers
/// give to copies and parts of a function go. `name@plt` keeps its end.
pub(super) fn plain(symbol: &str) -> Plain {
    let (base, end) = match symbol.strip_suffix("@plt") {
        Some(base) => (base, "@plt"),
        None => (symbol, ""),
    };
    let base = without_compiler_suffix(without_version(base));
    let (name, kind) = if let Some(name) = rust(base) {
        (Some(name), Kind::Rust)
    } else {
        (cpp(base), Kind::Native)
    };
    let function = name.unwrap_or_else(|| base.to_owned()) + end;
    Plain {
        system_name: (function != symbol).then(|| symbol.to_owned()),
        function,
        kind,
    }
}

/// Whether a symbol is mangled in a way that [`plain`] knows.
pub(super) fn is_mangled(symbol: &[u8]) -> bool {
    symbol.starts_with(b"_Z") || symbol.starts_with(b"_R")
}

/// `memcpy` of `memcpy@@GLIBC_2.14`.
fn without_version(symbol: &str) -> &str {
    match symbol.find('@') {
        None | Some(0) => symbol,
        Some(at) => &symbol[..at],
    }
}

/// Suffixes of GCC and LLVM for what is still the same function in the source: the unlikely part of it
/// (`.cold`), a part that was not put inside its callers (`.part`), copies for certain arguments (`.constprop`,
/// `.isra`, `.clone`), and names made unique in link-time optimization (`.lto_priv`, `.llvm`, `.localalias`).
/// Most are followed by a number, and several may follow one another.
fn without_compiler_suffix(symbol: &str) -> &str {
    const SUFFIXES: [&str; 8] = [
        ".cold",
        ".part",
        ".constprop",
        ".isra",
        ".clone",
        ".lto_priv",
        ".llvm",
        ".localalias",
    ];
    let mut rest = symbol;
    loop {
        let unnumbered = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        let word = match unnumbered.strip_suffix('.') {
            Some(word) if unnumbered.len() < rest.len() => word,
            _ => rest,
        };
        match SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix)) {
            Some(shorter) if !shorter.is_empty() => rest = shorter,
            _ => return rest,
        }
    }
}

fn rust(symbol: &str) -> Option<String> {
    let looks_so = symbol.starts_with("_R") || is_legacy_rust(symbol);
    if !looks_so || symbol.len() > MAX_MANGLED {
        return None;
    }
    let name = rustc_demangle::try_demangle(symbol).ok()?;
    let mut out = Bounded::default();
    // The alternate form leaves the hash out.
    write!(out, "{name:#}").ok()?;
    Some(out.0)
}

/// The legacy mangling is that of a C++ name, told apart by its last part: `17h`, 16 digits of a hash, `E`.
fn is_legacy_rust(symbol: &str) -> bool {
    let hash = symbol
        .strip_suffix('E')
        .and_then(|s| s.len().checked_sub(19).and_then(|at| s.get(at..)));
    symbol.starts_with("_ZN")
        && hash.is_some_and(|hash| {
            hash.strip_prefix("17h")
                .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        })
}

fn cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") || symbol.len() > MAX_MANGLED {
        return None;
    }
    if let Some((thunk, target)) = thunk(symbol) {
        return Some(format!("{thunk} to {}", cpp_function(&format!("_Z{target}"))?));
    }
    cpp_function(symbol)
}

fn cpp_function(symbol: &str) -> Option<String> {
    cpp_encoding(symbol).or_else(|| {
        // cpp_demangle does not know every expression that can stand in a return type, as in that of std::swap. The
        // types follow the name, so take the shortest name that is whole, and other types.
        let ends = symbol.match_indices('E').map(|(at, _)| at + 1);
        ends.take(MAX_NAME_ENDS)
            .find_map(|end| cpp_encoding(&format!("{}vv", &symbol[..end])))
    })
}

fn cpp_encoding(symbol: &str) -> Option<String> {
    let options = DemangleOptions::new()
        .no_params()
        .no_return_type()
        .hide_expression_literal_types();
    let mut out = Bounded::default();
    cpp_demangle::Symbol::new(symbol)
        .ok()?
        .structured_demangle(&mut out, &options)
        .ok()?;
    // What stands behind the parameters of a method, when the parameters are gone; `operator&&` has no space.
    let mut name = &out.0[..];
    while let Some(shorter) = [" const", " volatile", " &", " &&"]
        .iter()
        .find_map(|qualifier| name.strip_suffix(qualifier))
    {
        name = shorter;
    }
    // cpp_demangle separates an empty pack of arguments from those before it.
    Some(name.replace(", >", ">"))
}

/// What kind of thunk a symbol is, and the mangled name of the function it leads to (Itanium C++ ABI, 5.1.4.3):
/// `Th` and a number, or `Tv` and two, each with an underscore behind it and an `n` before it if negative.
fn thunk(symbol: &str) -> Option<(&'static str, &str)> {
    let number = |s: &'_ str| -> Option<usize> {
        let digits = s.strip_prefix('n').unwrap_or(s);
        let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.strip_prefix('_').map(|rest| s.len() - rest.len())
    };
    if let Some(rest) = symbol.strip_prefix("_ZTh") {
        return Some(("non-virtual thunk", &rest[number(rest)?..]));
    }
    let rest = symbol.strip_prefix("_ZTv")?;
    let rest = &rest[number(rest)?..];
    Some(("virtual thunk", &rest[number(rest)?..]))
}

/// A string that refuses to grow without bound.
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len() + s.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(symbol: &str) -> String {
        plain(symbol).function
    }

    #[test]
    fn cpp_names_lose_parameters_and_return_types_but_keep_templates() {
        for (symbol, name) in [
            ("_ZN2ns5Class6methodEib", "ns::Class::method"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back",
            ),
            ("_ZN2ns3addIidEEDTplfp_fp0_ET_T0_", "ns::add<int, double>"),
            ("_ZNK5AdderclEi", "Adder::operator()"),
            ("_ZNK4WrapIiEcviEv", "Wrap<int>::operator int"),
            ("_ZN1XaaERKS_", "X::operator&&"),
            ("_ZN1XadERKS_", "X::operator&"),
            ("_ZN1XcvRiEv", "X::operator int&"),
            ("_ZN1XD2Ev", "X::~X"),
            ("_ZN12_GLOBAL__N_16hiddenEv", "(anonymous namespace)::hidden"),
            ("_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()"),
            (
                "_ZZNK4shop6Basket4bestEvENKUlRKNS_4ItemES3_E_clES3_S3_",
                "shop::Basket::best() const::{lambda(shop::Item const&, shop::Item const&)#1}::operator()",
            ),
            (
                "_ZSt4swapIN4shop4ItemEENSt9enable_ifIXsrSt6__and_IJSt6__not_ISt15__is_tuple_likeIT_EESt21\
                 is_move_constructibleIS6_ESt18is_move_assignableIS6_EEE5valueEvE4typeERS6_SG_",
                "std::swap<shop::Item>",
            ),
            ("_ZNKR3Str4viewEv", "Str::view"),
            ("_ZNO3Str4takeEv", "Str::take"),
            (
                "_ZN4llvm15AnalysisManagerINS_8FunctionEJEE5clearEv",
                "llvm::AnalysisManager<llvm::Function>::clear",
            ),
            ("_ZThn16_N1B1fEv", "non-virtual thunk to B::f"),
            ("_ZTv0_n24_N1B1fEv", "virtual thunk to B::f"),
        ] {
            assert_eq!(
                plain(symbol),
                Plain {
                    function: name.to_owned(),
                    system_name: Some(symbol.to_owned()),
                    kind: Kind::Native
                }
            );
        }
    }

    #[test]
    fn rust_names_of_both_manglings_lose_their_hash() {
        for (symbol, name) in [
            (
                "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE",
                "core::fmt::Formatter::pad",
            ),
            (
                "_ZN52_$LT$T$u20$as$u20$alloc..slice..hack..ConvertVec$GT$6to_vec17h0123456789abcdefE",
                "<T as alloc::slice::hack::ConvertVec>::to_vec",
            ),
            (
                "_RNvCskwGfYPst2Cb_3foo16example_function",
                "foo::example_function",
            ),
            ("_RNCNvC4main4main0", "main::main::{closure#0}"),
            (
                "_ZN4main4work17h0123456789abcdefE.llvm.1234567890123456789",
                "main::work",
            ),
        ] {
            let plain = plain(symbol);
            assert_eq!(plain.function, name);
            assert_eq!(plain.kind, Kind::Rust);
            assert_eq!(plain.system_name.as_deref(), Some(symbol));
        }
    }

    #[test]
    fn cpp_is_not_taken_for_rust() {
        assert_eq!(plain("_ZN3foo3barE").kind, Kind::Native);
        assert_eq!(plain("_ZN3foo3barEv").kind, Kind::Native);
        assert_eq!(plain("_ZN3foo17h0123456789abcdefEv").kind, Kind::Native);
    }

    #[test]
    fn versions_and_the_suffixes_of_compilers_go() {
        for (symbol, name) in [
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("memcpy@GLIBC_2.2.5", "memcpy"),
            ("@odd", "@odd"),
            ("f.cold", "f"),
            ("f.cold.3", "f"),
            ("f.part.0", "f"),
            ("f.constprop.0.isra.0.cold", "f"),
            ("f.lto_priv.12", "f"),
            ("_ZN2ns1fEi.part.0.cold", "ns::f"),
            ("f.avx2", "f.avx2"),
            ("part.0", "part.0"),
            (".cold", ".cold"),
            ("v1.2", "v1.2"),
        ] {
            assert_eq!(function(symbol), name);
        }
    }

    #[test]
    fn slots_of_the_linkage_table_keep_their_end() {
        assert_eq!(function("puts@plt"), "puts@plt");
        assert_eq!(function("_ZN2ns1fEv@plt"), "ns::f@plt");
    }

    #[test]
    fn a_plain_name_is_its_own_system_name() {
        assert_eq!(
            plain("main"),
            Plain {
                function: "main".to_owned(),
                system_name: None,
                kind: Kind::Native
            }
        );
    }

    #[test]
    fn names_that_unfold_without_end_stay_as_they_are() {
        // f<a<int, int>, b<S1, S1>, b<S3, S3>, …>: each argument is twice as long as the one before it.
        let mut bomb = "_Z1fI1aIiiE1bIS1_S1_E".to_owned();
        for number in 3..60 {
            let last = base36(number);
            bomb.push_str(&format!("S2_IS{last}_S{last}_E"));
        }
        bomb.push_str("Evv");
        assert_eq!(function(&bomb), bomb);
        assert_eq!(
            function("_Z1fI1aIiiE1bIS1_S1_ES2_IS3_S3_EEvv"),
            "f<a<int, int>, b<a<int, int>, a<int, int> >, \
             b<b<a<int, int>, a<int, int> >, b<a<int, int>, a<int, int> > > >"
        );
        for hostile in [
            "_Z".to_owned() + &"N".repeat(1 << 20),
            "_Z".to_owned() + &"N".repeat(MAX_MANGLED - 2),
            "_ZN".to_owned() + &"1a".repeat(8000) + "Ev",
            "_Z1f".to_owned() + &"P".repeat(16_000) + "i",
            "_Z1fI".to_owned() + &"I".repeat(8_000) + &"E".repeat(8_000) + "vv",
            "_ZTh".to_owned(),
            "_ZTv_".to_owned(),
            "_ZTvn1_n_".to_owned(),
            "_R".to_owned() + &"INvC1a".repeat(2000),
            "_RNvC1a".to_owned() + &"B_".repeat(4000),
            "_R".to_owned() + &"N".repeat(16_000),
        ] {
            assert_eq!(function(&hostile), hostile);
        }
    }

    /// The digits of the Itanium C++ ABI for the substitution `number`, which starts at `S_`, `S0_`, `S1_`.
    fn base36(number: usize) -> String {
        let digit = |n: usize| char::from_digit(n as u32, 36).unwrap().to_ascii_uppercase();
        match number {
            0..36 => digit(number).to_string(),
            _ => format!("{}{}", digit(number / 36), digit(number % 36)),
        }
    }
}
