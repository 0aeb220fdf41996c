//! File formats: a [`Profile`] in, bytes out, and pprof and folded stacks back in.
//!
//! All formats show the same samples: [`stack`] decides, once for all of them, what stands for a stack that is not
//! whole, so that the totals of a recording are equal in every file that is made of it.
//!
//! Nothing here does I/O. Names come from the target and are hostile: [`escape`] makes them harmless.

pub mod firefox;
pub mod flamegraph;
pub mod folded;
mod palette;
pub mod pprof;
pub mod speedscope;
pub mod stack;
pub mod summary;
#[cfg(test)]
mod testing;
mod text;
pub mod unfold;

pub use text::{escape, percent, pretty_json, thousands};

use crate::profile::Profile;
use flate2::{Compression, GzBuilder};
use std::io::{self, Write};
use std::path::Path;

/// A format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Interactive flame graph.
    Svg,
    /// `profile.proto`, compressed with gzip.
    Pprof,
    /// One line per stack: `comm;frame;…;frame COUNT`.
    Folded,
    /// What <https://www.speedscope.app> reads.
    Speedscope,
    /// What <https://profiler.firefox.com> reads.
    Firefox,
    /// The same, compressed with gzip.
    FirefoxGzip,
}

impl Format {
    /// Every format. Where the end of a name fits two of them, the one that stands first has it.
    pub const ALL: [Self; 6] = [
        Self::Svg,
        Self::Pprof,
        Self::Folded,
        Self::Speedscope,
        Self::Firefox,
        Self::FirefoxGzip,
    ];

    /// The end of the names of its files.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Svg => ".svg",
            Self::Pprof => ".pb.gz",
            Self::Folded => ".folded",
            Self::Speedscope => ".speedscope.json",
            Self::Firefox => ".json",
            Self::FirefoxGzip => ".json.gz",
        }
    }

    /// The format that a file of this name has. Upper and lower case are alike.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] if the name ends in no known extension, or is nothing but one.
    pub fn from_path(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lower = name.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|format| {
                lower
                    .strip_suffix(format.extension())
                    .is_some_and(|stem| !stem.is_empty())
            })
            .ok_or_else(|| Error::UnknownFormat {
                name: escape(&path.to_string_lossy()).into_owned(),
            })
    }
}

/// The content of a file in `format`. Equal profiles give equal bytes.
///
/// # Errors
/// [`Error::NoSamples`] if there is nothing to draw; only pprof and folded stacks can be empty.
pub fn write(profile: &Profile, format: Format) -> Result<Vec<u8>, Error> {
    match format {
        Format::Svg => flamegraph::write(profile),
        Format::Pprof => pprof::write(profile),
        Format::Folded => Ok(folded::write(profile).into_bytes()),
        Format::Speedscope => speedscope::write(profile),
        Format::Firefox => firefox::write(profile),
        Format::FirefoxGzip => gzip(&firefox::write(profile)?).map_err(Error::Write),
    }
}

/// `bytes`, compressed. The header holds no time, so that equal bytes make equal files.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gz = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    gz.write_all(bytes)?;
    gz.finish()
}

/// Why a profile could not be written or read. What comes from a file is escaped in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name of a file does not say which format it should have.
    #[error(
        "cannot tell the format of \"{name}\" from its name: end it in .svg (flame graph), .pb.gz (pprof), .folded \
         (folded stacks), .json or .json.gz (Firefox Profiler) or .speedscope.json (speedscope)"
    )]
    UnknownFormat {
        /// The name, escaped.
        name: String,
    },
    /// There is not a single sample.
    #[error("the profile has no samples: nothing of the target ran on a CPU while it was taken")]
    NoSamples,
    /// The bytes are something else than pprof.
    #[error("not a pprof file: {0}")]
    NotPprof(String),
    /// The bytes began as pprof, but cannot all be understood.
    #[error("the pprof file is damaged: {0}")]
    Damaged(String),
    /// The gzip container is damaged or cut off.
    #[error("the pprof file is damaged: its gzip data cannot be unpacked: {0}")]
    Gzip(#[source] io::Error),
    /// A file of a newer version of this program.
    #[error(
        "the pprof file has notes of a newer profiler (format {found}; this version knows {known}): update this one"
    )]
    Newer {
        /// What the file says.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// A pprof file of something else than time on or off the CPU.
    #[error(
        "not a CPU profile: it measures {found}, where a CPU profile has samples/count and cpu/nanoseconds, and one of time \
         off the CPU off-cpu/nanoseconds; take one with `profiler record` or from /debug/pprof/profile"
    )]
    NotCpu {
        /// The sample types found, as `type/unit`, escaped.
        found: String,
    },
    /// The file, or what would be made of it, is larger than any real profile.
    #[error("the pprof file is too large: {what} would take more than {limit} bytes of memory")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes are something else than folded stacks.
    #[error("not a file of folded stacks: line {line} {problem}")]
    NotFolded {
        /// The line, 1 being the first.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file of folded stacks is larger than any real profile.
    #[error("the folded stacks are too large: they have more than {limit} different callers and callees")]
    FoldedTooLarge {
        /// The limit.
        limit: usize,
    },
    /// A writer failed.
    #[error("cannot write the profile: {0}")]
    Write(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::{Error, Format, testing, write};
    use std::path::Path;

    #[test]
    fn the_name_of_a_file_chooses_its_format() {
        for (name, format) in [
            ("a.svg", Format::Svg),
            ("/x.y/b.pb.gz", Format::Pprof),
            ("c.d.folded", Format::Folded),
            ("UPPER.SVG", Format::Svg),
            ("a.json", Format::Firefox),
            ("a.json.gz", Format::FirefoxGzip),
            ("a.speedscope.json", Format::Speedscope),
            (".speedscope.json", Format::Firefox),
        ] {
            assert_eq!(Format::from_path(Path::new(name)).unwrap(), format, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        for name in ["a.txt", "a.gz", "svg", ".svg", "..", "", "x\u{1b}[2J"] {
            let error = Format::from_path(Path::new(name)).unwrap_err();
            assert!(matches!(error, Error::UnknownFormat { .. }), "{name}");
            let message = error.to_string();
            for format in Format::ALL {
                assert!(message.contains(format.extension()), "{message}");
            }
            assert!(!message.contains('\u{1b}'), "{message}");
        }
    }

    #[test]
    fn equal_profiles_give_equal_bytes_in_every_format() {
        for format in Format::ALL {
            assert_eq!(
                write(&testing::mixed(), format).unwrap(),
                write(&testing::mixed(), format).unwrap(),
                "{format:?}"
            );
        }
    }

    #[test]
    fn an_empty_profile_cannot_be_drawn_but_written() {
        let empty = testing::empty();
        for format in [
            Format::Svg,
            Format::Speedscope,
            Format::Firefox,
            Format::FirefoxGzip,
        ] {
            assert!(
                matches!(write(&empty, format), Err(Error::NoSamples)),
                "{format:?}"
            );
        }
        assert_eq!(write(&empty, Format::Folded).unwrap(), b"");
        assert!(write(&empty, Format::Pprof).is_ok());
    }
}
