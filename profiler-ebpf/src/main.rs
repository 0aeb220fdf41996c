//! The BPF programs: two take samples, on the CPU and off it; two keep track of processes that come and change.
//!
//! Build it with `cargo xtask bpf`. On any other target this file is an empty program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bpf {
    mod labels;
    mod machine;
    mod maps;
    mod record;
    mod sample;
    mod scope;
    mod switch;
    mod tasks;
    mod trigger;

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // The verifier refuses a program that could get here, so nothing can.
        loop {}
    }

    /// Some helpers are only for programs under a licence compatible with the GPL.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
