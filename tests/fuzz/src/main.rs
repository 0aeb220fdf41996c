//! The targets under libFuzzer; `PROFILER_FUZZ_TARGET` says which. `cargo xtask fuzz` builds and runs it.
#![no_main]

use profiler_fuzz::Target;
use std::sync::LazyLock;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("PROFILER_FUZZ_TARGET").unwrap_or_default();
    profiler_fuzz::find(&name)
        .unwrap_or_else(|| panic!("PROFILER_FUZZ_TARGET is {name:?}, which is no target"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
