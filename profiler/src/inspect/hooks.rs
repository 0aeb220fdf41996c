//! The Go runtime of a process: its hooks by name, and its threads.

use super::Go;
use super::objects::{Loaded, Objects, Place};
use crate::addr::{Avma, Bias};
use crate::explain::explain;
use crate::gopclntab::Pclntab;
use crate::target::go::hooks::{HookVariables, Hooks};
use crate::target::go::threads::{self, Thread, Threads};
use crate::target::go::{GoRuntime, ReadMemory, Source};
use crate::target::process::Process;
use bytes::Bytes;
use std::error::Error;
use std::ops::Range;

/// A Go program, or a library with a Go runtime.
#[derive(Clone, Debug)]
pub struct GoProgram {
    /// What the process calls the object.
    pub object: String,
    /// The release that built it, if it says so.
    pub version: Option<String>,
    /// Whether it has C that can call Go, and Go that can call C.
    pub cgo: bool,
    /// Where the layout of its runtime is known from.
    pub layout_source: Source,
    /// Its hooks; `None` if it has no function to register them. Or why they are not known: a whole sentence without
    /// the final stop.
    pub hooks: Result<Option<NamedHooks>, String>,
    /// The threads of its runtime; or why they are not known: a whole sentence without the final stop.
    pub threads: Result<Vec<Thread>, String>,
}

/// The hooks of a process, with names; `None` is nil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHooks {
    /// The traceback function.
    pub traceback: Option<Place>,
    /// The context function.
    pub context: Option<Place>,
    /// The symbolizer function.
    pub symbolizer: Option<Place>,
    /// The function that calls the traceback function in a signal handler.
    pub callers: Option<Place>,
}

impl NamedHooks {
    /// Without names.
    pub fn addresses(&self) -> Hooks {
        let address = |place: &Option<Place>| place.as_ref().map(|place| place.address);
        Hooks {
            traceback: address(&self.traceback),
            context: address(&self.context),
            symbolizer: address(&self.symbolizer),
            callers: address(&self.callers),
        }
    }
}

/// Finds the Go runtime of `process` in the first of its `objects` that has one, and where idle threads of it wait.
pub(super) fn find(process: &Process, objects: &mut Objects) -> (Go, Option<Range<Avma>>) {
    let mut not_understood = Go::Absent;
    for (i, loaded) in objects.0.iter().enumerate() {
        match runtime(loaded) {
            None => {}
            Some(Err(problem)) => {
                if matches!(not_understood, Go::Absent) {
                    not_understood = Go::NotUnderstood {
                        object: loaded.code.name.clone(),
                        problem,
                    };
                }
            }
            Some(Ok((runtime, bias))) => {
                let futex = loaded.pclntab.as_ref().and_then(threads::wait_function);
                let futex = futex.map(|code| code.start.to_avma(bias)..code.end.to_avma(bias));
                let program = look(process, objects, &objects.0[i], &runtime, bias);
                return (Go::Found(Box::new(program)), futex);
            }
        }
    }
    (not_understood, None)
}

/// The runtime in an object; `None` if it has none.
fn runtime(loaded: &Loaded) -> Option<Result<(GoRuntime, Bias), String>> {
    let (data, _) = loaded.object.as_ref()?;
    let file = object::File::parse(&data[..]).ok()?;
    match GoRuntime::find(&file, data, loaded.pclntab.as_ref()?) {
        Ok(runtime) => {
            let runtime = runtime?;
            let bias = loaded.bias().ok_or("the mapping is of no segment of the file");
            Some(bias.map(|bias| (runtime, bias)).map_err(str::to_owned))
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Looks at the runtime that was found in `loaded`.
fn look(process: &Process, objects: &Objects, loaded: &Loaded, runtime: &GoRuntime, bias: Bias) -> GoProgram {
    let read = |address: Avma, len: usize| process.memory(address.0, len);
    GoProgram {
        object: loaded.code.name.clone(),
        version: runtime.version.as_ref().map(ToString::to_string),
        cgo: runtime.is_cgo(),
        layout_source: runtime.layout_source,
        hooks: hooks(objects, loaded, runtime, bias, &read),
        threads: live_threads(loaded, runtime, bias, &read),
    }
}

fn hooks(
    objects: &Objects,
    loaded: &Loaded,
    runtime: &GoRuntime,
    bias: Bias,
    read: ReadMemory<'_>,
) -> Result<Option<NamedHooks>, String> {
    let variables = in_object(loaded, |file, data, pclntab| {
        HookVariables::find(file, data, pclntab, runtime)
    })?;
    let Some(variables) = variables else {
        return Ok(None);
    };
    let hooks = variables
        .read(bias, read)
        .map_err(|error| format!("the memory of the process cannot be read: {error}"))?;
    let place = |address: Option<Avma>| address.map(|address| objects.place(address));
    Ok(Some(NamedHooks {
        traceback: place(hooks.traceback),
        context: place(hooks.context),
        symbolizer: place(hooks.symbolizer),
        callers: place(hooks.callers),
    }))
}

fn live_threads(
    loaded: &Loaded,
    runtime: &GoRuntime,
    bias: Bias,
    read: ReadMemory<'_>,
) -> Result<Vec<Thread>, String> {
    let threads = in_object(loaded, |file, data, pclntab| {
        Threads::find(file, data, pclntab, runtime)
    })?;
    threads.read(bias, read).map_err(|error| explain(&error))
}

/// Asks `ask` about the object file and Go table of `loaded`.
fn in_object<T, E: Error>(
    loaded: &Loaded,
    ask: impl FnOnce(&object::File<'_>, &Bytes, &Pclntab) -> Result<T, E>,
) -> Result<T, String> {
    let (Some((data, _)), Some(pclntab)) = (&loaded.object, &loaded.pclntab) else {
        return Err("it is no Go program".into());
    };
    let file = object::File::parse(&data[..]).map_err(|error| error.to_string())?;
    ask(&file, data, pclntab).map_err(|error| explain(&error))
}
