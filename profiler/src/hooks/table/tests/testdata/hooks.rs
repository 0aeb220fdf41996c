//! A library with hooks, in Rust.

#[repr(C)]
pub struct Traceback {
    context: usize,
    sig_context: usize,
    buf: *mut usize,
    max: usize,
}

#[repr(C)]
pub struct Hooks {
    magic: u64,
    version: u64,
    traceback: Option<unsafe extern "C" fn(*mut Traceback)>,
    symbolizer: Option<unsafe extern "C" fn(*mut core::ffi::c_void)>,
}

unsafe extern "C" fn traceback(arg: *mut Traceback) {
    // SAFETY: the profiler passes a block that is its own, and room for at least one address.
    unsafe { *(*arg).buf = 0 };
}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static profiler_traceback_hooks: Hooks = Hooks {
    magic: u64::from_le_bytes(*b"PROFHOOK"),
    version: 0,
    traceback: Some(traceback),
    symbolizer: None,
};
