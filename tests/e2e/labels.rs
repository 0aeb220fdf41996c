//! Labels of goroutines, exactly as the program set them.

use anyhow::{Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::pprof;
use profiler_tests::profiler::record;
use profiler_tests::programs::{self, Form};
use profiler_tests::target::Target;

/// Before and after Go kept labels in another form.
const TOOLCHAINS: [&str; 2] = ["go1.21.13", "local"];

/// Each function with the values of `request` and `tenant` that it runs with.
const FUNCTIONS: [(&str, [&str; 2]); 4] = [
    ("main.checkout", ["checkout", "blue ✓"]),
    ("main.browse", ["browse", "[no tenant]"]),
    ("main.plain", ["[no request]", "[no tenant]"]),
    ("main.many", ["[no request]", "[no tenant]"]),
];

#[test]
fn each_sample_has_the_labels_that_its_goroutine_had() -> Result<()> {
    let _guard = exclusive();
    for (toolchain, form) in TOOLCHAINS.into_iter().zip([Form::Stripped, Form::Exe]) {
        let program = programs::go("go_labels", toolchain, form, "")?;
        let target = Target::start(program.command())?;
        let pid = target.pid().to_string();
        let arguments = [
            "-p", &pid, "-F", "999", "-d", "1.5", "--tag", "request", "--tag", "tenant",
        ];
        let recording = record(arguments)?;
        ensure!(target.finish()?.status.success());
        let stacks = recording.stacks()?;
        for (function, [request, tenant]) in FUNCTIONS {
            ensure!(
                stacks.with_frame(function) >= 50,
                "{toolchain}: {function} is missing"
            );
            for stack in stacks
                .stacks
                .iter()
                .filter(|stack| stack.frames.iter().any(|f| f == function))
            {
                ensure!(
                    stack.comm == request && stack.frames[0] == tenant,
                    "{toolchain}: {function} has other labels: {stack:?}"
                );
            }
        }
        let raw = pprof::raw(&recording.pprof())?;
        for label in ["request:[checkout]", "tenant:[blue ✓]", "request:[browse]"] {
            ensure!(raw.contains(label), "{toolchain}: no {label}");
        }
        let many = stacks.with_frame("main.many");
        let cut = recording.summary()?.labels_cut()?;
        ensure!(
            cut >= many,
            "{toolchain}: labels of {cut} samples are cut, {many} had too many"
        );
    }
    Ok(())
}
