//! What honouring the hooks of a program takes beside the hooks themselves: functions of its Go runtime.

use super::hooks::{Error, HookVariables};
use super::threads::{self, Threads};
use super::{GoRuntime, body, sigtramp};
use crate::addr::Svma;
use crate::gopclntab::Pclntab;
use bytes::Bytes;
use object::{Object, ObjectSymbol};
use std::ops::Range;

/// The C function of Go 1.26 and later that calls a traceback function for the thread sanitizer to see
/// (runtime/cgo/gcc_traceback.c).
const CALL_TRACEBACK: &str = "x_cgo_call_traceback_function";

/// Where they are in an object with a Go runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSites {
    /// The hooks.
    pub variables: HookVariables,
    /// `runtime.futex`, in which threads wait that have nothing to do.
    pub futex: Range<Svma>,
    /// `runtime.exit`, which ends the process.
    pub exit: Svma,
    /// `runtime.asmcgocall`, which calls C.
    pub asmcgocall: Range<Svma>,
    /// The functions that the runtime installs as signal handlers.
    pub signal_handlers: Vec<Svma>,
    /// `runtime.asyncPreempt`, which Go code seems to have called when it was preempted.
    pub async_preempt: Option<Svma>,
    /// [`CALL_TRACEBACK`], if there is one.
    pub call_traceback: Option<Svma>,
    /// The list of the runtime's threads, if it was found.
    pub threads: Option<Threads>,
}

impl HookSites {
    /// Finds them in `object`, which was parsed from `data`, has the functions of `pclntab` and the runtime `go`.
    /// `None` if the program cannot register hooks, or has no C to call them for.
    ///
    /// # Errors
    /// [`Error`] if it is not certain where they are.
    pub fn find(
        object: &object::File<'_>,
        data: &Bytes,
        pclntab: &Pclntab,
        go: &GoRuntime,
    ) -> Result<Option<Self>, Error> {
        if !go.is_cgo() {
            return Ok(None);
        }
        let Some(variables) = HookVariables::find(object, data, pclntab, go)? else {
            return Ok(None);
        };
        let range = |name| {
            let function = body(pclntab, name).ok_or(Error::Missing(name))?;
            Ok::<_, Error>(function.entry()..function.end())
        };
        let handlers = [sigtramp::NAME, "runtime.sigtramp"];
        let symbol = object.symbol_by_name(CALL_TRACEBACK);
        Ok(Some(Self {
            variables,
            futex: threads::wait_function(pclntab).ok_or(Error::Missing("runtime.futex"))?,
            exit: range("runtime.exit")?.start,
            asmcgocall: range("runtime.asmcgocall")?,
            signal_handlers: handlers
                .iter()
                .flat_map(|name| pclntab.functions_named(name))
                .map(|function| function.entry())
                .collect(),
            async_preempt: body(pclntab, "runtime.asyncPreempt").map(|function| function.entry()),
            call_traceback: symbol.map(|symbol| Svma(symbol.address())),
            threads: Threads::find(object, data, pclntab, go).ok(),
        }))
    }
}
