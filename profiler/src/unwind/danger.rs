//! Code that may hold a lock which a traceback hook needs: a thread that is in it is not asked.
//!
//! Hooks walk stacks with the unwinders of libgcc or LLVM, which look objects up under the dynamic loader's lock (before
//! glibc 2.35 always), and some allocate. A hook that is run by a signal in the middle of these waits for a lock that
//! the interrupted code holds, for ever.

use crate::addr::Svma;
use object::{Object, ObjectSymbol, SymbolKind};
use std::ops::Range;

/// Objects that are such code as a whole, by the start of their file's name: dynamic loaders, unwinders, allocators.
const OBJECTS: [&str; 8] = [
    "ld-linux",
    "ld-musl",
    "libgcc_s.",
    "libunwind",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
    "libbacktrace",
];

/// Functions in other objects: the allocator and the loader's interface of C libraries, unwinders linked statically,
/// and fork, which takes the allocator's locks.
const FUNCTIONS: [&str; 33] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "cfree",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "malloc_trim",
    "malloc_info",
    "malloc_stats",
    "mallinfo",
    "mallinfo2",
    "malloc_usable_size",
    "sysmalloc",
    "malloc_consolidate",
    "dl_iterate_phdr",
    "dladdr",
    "dladdr1",
    "dlopen",
    "dlmopen",
    "dlclose",
    "dlsym",
    "dlvsym",
    "dlerror",
    "dlinfo",
    "backtrace",
    "fork",
    "vfork",
    "_Fork",
];

/// Starts of names of functions: glibc's own, libgcc's, LLVM's, jemalloc's, mimalloc's.
const PREFIXES: [&str; 14] = [
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_free",
    "__libc_memalign",
    "_int_malloc",
    "_int_free",
    "_int_realloc",
    "_dl_",
    "_Unwind_",
    "__register_frame",
    "__deregister_frame",
    "unw_",
    "je_",
];

/// Whether a whole object is such code, by the name of its file.
pub fn is_zone(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    OBJECTS.iter().any(|start| name.starts_with(start))
}

/// The functions of an object that are.
pub fn zones(file: &object::File<'_>) -> Vec<Range<Svma>> {
    let functions = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text);
    functions
        .filter(|symbol| symbol.name_bytes().is_ok_and(is_dangerous))
        .map(|symbol| {
            let start = symbol.address();
            Svma(start)..Svma(start.saturating_add(symbol.size()))
        })
        .collect()
}

fn is_dangerous(name: &[u8]) -> bool {
    FUNCTIONS.iter().any(|function| name == function.as_bytes())
        || PREFIXES.iter().any(|start| name.starts_with(start.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{is_dangerous, is_zone, zones};
    use std::process::Command;

    #[test]
    fn loaders_and_unwinders_are_known_by_their_files() {
        for path in [
            "/lib64/ld-linux-x86-64.so.2",
            "/usr/lib/libgcc_s.so.1",
            "ld-musl-x86_64.so.1",
        ] {
            assert!(is_zone(path), "{path}");
        }
        for path in ["/lib/libc.so.6", "/opt/ld-linux/server", ""] {
            assert!(!is_zone(path), "{path}");
        }
    }

    #[test]
    fn the_allocator_of_the_c_library_is_found_by_its_symbols() {
        let asked = Command::new("gcc")
            .arg("-print-file-name=libc.so.6")
            .output()
            .unwrap();
        let bytes = std::fs::read(String::from_utf8(asked.stdout).unwrap().trim()).unwrap();
        let file = object::File::parse(&bytes[..]).unwrap();
        let zones = zones(&file);
        for name in ["malloc", "free", "dl_iterate_phdr"] {
            use object::{Object, ObjectSymbol};
            let symbol = file
                .dynamic_symbols()
                .find(|symbol| symbol.name() == Ok(name))
                .unwrap_or_else(|| panic!("no {name}"));
            assert!(
                zones
                    .iter()
                    .any(|zone| zone.start.0 == symbol.address() && zone.end > zone.start),
                "{name}"
            );
        }
        assert!(!is_dangerous(b"mallocate") && !is_dangerous(b"main.free"));
    }
}
