//! What is to be known of the Go runtime in an object before its stacks can be walked: the release, where g is,
//! and where its fields are.
//!
//! Facts come from debug information, else from a table of releases, and are checked against the code of
//! `runtime.cgoSigtramp`, which uses the same offsets. A wrong offset would make the walk read nonsense, so a
//! contradiction is an error.

mod dwarf;
pub mod hooks;
mod layout;
mod sigtramp;
pub mod sites;
pub mod threads;
mod tls;
mod version;

#[cfg(test)]
mod tests;

pub use layout::Layout;
pub use tls::TlsG;
pub use version::GoVersion;

use crate::addr::{Avma, Bias, Svma};
use crate::gopclntab::{Function, Image, Pclntab};
use bytes::Bytes;
use profiler_abi::go::GoLayout;
use sigtramp::SigTramp;
use std::fmt;
use std::io;
use std::ops::Range;

/// The minor release since which labels are a list (runtime/pprof/label.go).
const FIRST_WITH_LABEL_LISTS: u32 = 24;

/// Where a [`Layout`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The object's debug information.
    Dwarf,
    /// What programs of the same minor release have.
    Release,
    /// What programs of the newest known release have.
    NewestRelease,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dwarf => "the debug information",
            Self::Release => "the table of Go releases",
            Self::NewestRelease => "the newest known Go release",
        })
    }
}

/// Why the Go runtime of an object is not understood. Stacks of the object can be walked up to the first switch
/// between Go and C.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too old.
    #[error("the program was built with {0}; Go 1.{oldest} or later is needed", oldest = layout::OLDEST_MINOR)]
    TooOld(GoVersion),
    /// The object does not say which release built it, and has no debug information.
    #[error(
        "the program does not say which Go release built it, and has no debug information with the layout of the \
         runtime: build it without -ldflags=-w"
    )]
    NoVersion,
    /// Newer than this profiler, and not like the newest release that it knows.
    #[error(
        "the program was built with {0}, which this version of the profiler does not know, and has no debug \
         information with the layout of the runtime: build it without -ldflags=-w"
    )]
    Unknown(GoVersion),
    /// Two facts about one field.
    #[error(
        "{field} is at offset {stated} by {source_of_stated}, but the code of runtime.cgoSigtramp uses {used}: \
         this runtime is not like that of any known Go release"
    )]
    Contradiction {
        /// Go's name of the field.
        field: &'static str,
        /// The offset that was expected, in bytes.
        stated: u32,
        /// Where it was expected from.
        source_of_stated: Source,
        /// The offset in the code, in bytes.
        used: u32,
    },
    /// There is no way to find g.
    #[error(
        "neither the code of runtime.cgoSigtramp nor the symbol runtime.tlsg tells where the threads of the program \
         keep their goroutine"
    )]
    NoTls,
}

/// The Go runtime of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoRuntime {
    /// The release that built it, if it says so.
    pub version: Option<GoVersion>,
    /// Where fields are.
    pub layout: Layout,
    /// Where the layout comes from.
    pub layout_source: Source,
    /// Where a thread's g is.
    pub tls: TlsG,
    /// How it keeps the labels of goroutines, a form of [`GoLayout`]; `None` if the program cannot give any, or that is not
    /// known.
    pub label_form: Option<u32>,
    /// The function through which C calls Go; only programs with cgo have it.
    pub crosscall2: Option<Range<Svma>>,
}

impl GoRuntime {
    /// Finds the runtime in `object`, which was parsed from `data` and has the functions of `pclntab`.
    ///
    /// `None` if there is Go code, but no runtime.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is a runtime that is not understood.
    pub fn find(object: &object::File<'_>, data: &Bytes, pclntab: &Pclntab) -> Result<Option<Self>, Error> {
        let (Some(image), Some(function)) = (Image::new(object, data), body(pclntab, sigtramp::NAME)) else {
            return Ok(None);
        };
        let decoded = code(&image, &function, sigtramp::MAX_CODE)
            .and_then(|code| SigTramp::decode(&code, function.entry()));

        let version = GoVersion::find(object, &image);
        let (layout, layout_source) = layout(object, version.as_ref())?;
        match decoded.map(|decoded| decoded.contradicts(&layout)) {
            Some(None) => {}
            None if layout_source != Source::NewestRelease => {}
            Some(Some((field, stated, used))) if layout_source != Source::NewestRelease => {
                return Err(Error::Contradiction {
                    field,
                    stated,
                    source_of_stated: layout_source,
                    used,
                });
            }
            _ => return Err(version.map_or(Error::NoVersion, Error::Unknown)),
        }
        let tls = decoded.map(|decoded| decoded.tls_g);
        // Only programs that use labels have it.
        let label_form = body(pclntab, "runtime/pprof.runtime_setProfLabel")
            .and(version.as_ref())
            .map(|version| match version.minor {
                ..FIRST_WITH_LABEL_LISTS => GoLayout::LABEL_MAP,
                FIRST_WITH_LABEL_LISTS.. => GoLayout::LABEL_LIST,
            });
        Ok(Some(Self {
            label_form,
            version,
            layout,
            layout_source,
            tls: tls.or_else(|| TlsG::of_headers(object)).ok_or(Error::NoTls)?,
            crosscall2: body(pclntab, "crosscall2").map(|f| f.entry()..f.end()),
        }))
    }

    /// Whether the program has C code that can call Go, and Go code that can call C.
    pub fn is_cgo(&self) -> bool {
        self.crosscall2.is_some()
    }

    /// What the walk in the kernel needs. `tls_g` is the offset of g from the thread pointer in bytes: that of
    /// [`TlsG::Fixed`], or what the process has in the [`TlsG::GotSlot`]; `text` is where its Go code is.
    pub fn abi(&self, bias: Bias, tls_g: i64, text: Range<Svma>) -> GoLayout {
        let crosscall2 = self.crosscall2.as_ref();
        GoLayout {
            present: 1,
            tls_g,
            g_m: self.layout.g_m,
            g_stack_hi: self.layout.g_stack_hi,
            g_sched_sp: self.layout.g_sched_sp,
            g_sched_pc: self.layout.g_sched_pc,
            g_goid: self.layout.g_goid,
            m_g0: self.layout.m_g0,
            m_curg: self.layout.m_curg,
            crosscall2: crosscall2.map_or(0, |range| range.start.to_avma(bias).0),
            crosscall2_size: crosscall2.map_or(0, |range| range.end.0.saturating_sub(range.start.0)),
            text: text.start.to_avma(bias).0,
            text_size: text.end.0.saturating_sub(text.start.0),
            g_labels: self.label_form.map_or(0, |_| self.layout.g_labels),
            label_form: self.label_form.unwrap_or_default(),
        }
    }
}

/// The assembly function `name`: a wrapper that the linker made for it has the same name.
fn body<'a>(pclntab: &'a Pclntab, name: &'a str) -> Option<Function<'a>> {
    pclntab.functions_named(name).find(|f| !f.is_wrapper())
}

/// The code of `function`, at most `limit` bytes.
fn code(image: &Image, function: &Function<'_>, limit: u64) -> Option<Bytes> {
    let size = function.end().0.saturating_sub(function.entry().0);
    image.bytes(function.entry().0, size.min(limit))
}

/// Reads so many bytes at an address of a process.
pub type ReadMemory<'a> = &'a dyn Fn(Avma, usize) -> io::Result<Vec<u8>>;

/// The word at an address of a process.
fn word(read: ReadMemory<'_>, address: Avma) -> io::Result<u64> {
    let bytes = read(address, 8)?;
    let word = bytes.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_le_bytes(*word))
}

/// The layout of the object's runtime by the best source there is.
fn layout(object: &object::File<'_>, version: Option<&GoVersion>) -> Result<(Layout, Source), Error> {
    if let Some(old) = version.filter(|v| (v.major, v.minor) < (1, layout::OLDEST_MINOR)) {
        return Err(Error::TooOld(old.clone()));
    }
    if let Some(layout) = Layout::of_dwarf(object) {
        return Ok((layout, Source::Dwarf));
    }
    let version = version.ok_or(Error::NoVersion)?;
    Ok(match Layout::of_release(version) {
        Some(layout) => (layout, Source::Release),
        None => (Layout::newest(), Source::NewestRelease),
    })
}
