//! Which release of Go built an object: `.go.buildinfo` (debug/buildinfo/buildinfo.go).

use crate::gopclntab::Image;
use object::{Object, ObjectSection};
use std::fmt;

const SECTION: &str = ".go.buildinfo";
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The magic is at a multiple of this, also when the section has no name of its own.
const ALIGN: usize = 16;

/// Byte after the magic: size of a pointer.
const PTR_SIZE: usize = 14;
const FLAGS: usize = 15;
/// The strings follow at [`STRINGS`], each behind its length (Go 1.18 and later); else there are pointers to them.
const FLAG_INLINE: u8 = 2;
const FLAG_BIG_ENDIAN: u8 = 1;
const POINTERS: u64 = 16;
const STRINGS: usize = 32;

/// Real ones have some dozen bytes.
const LONGEST: usize = 1 << 10;

/// The release that built an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GoVersion {
    /// Always 1 so far.
    pub major: u32,
    /// 21 of Go 1.21.13.
    pub minor: u32,
    /// 13 of Go 1.21.13; 0 for release candidates and development versions.
    pub patch: u32,
    /// As the linker wrote it, with release candidate, vendor's suffix, and experiments:
    /// `go1.26.8 X:nocoverageredesign`.
    pub raw: String,
}

impl GoVersion {
    /// The release that built `object`, if it says so.
    pub(super) fn find(object: &object::File<'_>, image: &Image) -> Option<Self> {
        let at = match object.section_by_name(SECTION) {
            Some(section) => section.address(),
            None => image.find_aligned(MAGIC, ALIGN)?,
        };
        let info = image.tail(at)?;
        if !info.starts_with(MAGIC) {
            return None;
        }
        let flags = *info.get(FLAGS)?;
        let raw = if flags & FLAG_INLINE != 0 {
            inline_string(info.get(STRINGS..)?)?.to_vec()
        } else if flags & FLAG_BIG_ENDIAN == 0 && info.get(PTR_SIZE) == Some(&8) {
            string_by_pointer(image, at.checked_add(POINTERS)?)?
        } else {
            return None;
        };
        Self::parse(&String::from_utf8(raw).ok()?)
    }

    /// Takes `raw` apart: `go1.21.13`, `go1.27rc1`, `go1.24.4-vendor`, `go1.26.8 X:experiment`,
    /// `devel go1.28-8ac9c2e Tue Feb 3`.
    pub fn parse(raw: &str) -> Option<Self> {
        let release = raw.split(' ').find_map(|word| word.strip_prefix("go"))?;
        let mut numbers = release.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            (part[..digits].parse().ok(), digits == part.len())
        });
        let (major, _) = numbers.next()?;
        let (minor, whole) = numbers.next()?;
        let patch = match numbers.next() {
            Some((patch, _)) if whole => patch,
            _ => None,
        };
        Some(Self {
            major: major?,
            minor: minor?,
            patch: patch.unwrap_or(0),
            raw: raw.to_owned(),
        })
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

/// A string behind its length, which is a varint.
fn inline_string(bytes: &[u8]) -> Option<&[u8]> {
    let (low, rest) = bytes.split_first()?;
    if *low < 0x80 {
        return rest.get(..usize::from(*low));
    }
    let (high, rest) = rest.split_first()?;
    let len = usize::from(low & 0x7f) | usize::from(*high) << 7;
    rest.get(..len).filter(|_| len <= LONGEST && *high < 0x80)
}

/// A pointer to a string header: pointer and length.
fn string_by_pointer(image: &Image, at: u64) -> Option<Vec<u8>> {
    let pair = |at, len| {
        let bytes = image.relocated(at, len)?;
        let mut words = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        Some((words.next()?, words.next().unwrap_or(0)))
    };
    let (header, _) = pair(at, 8)?;
    let (text, len) = pair(header, 16)?;
    let bytes = image.bytes(text, len).filter(|bytes| bytes.len() <= LONGEST)?;
    Some(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::{GoVersion, inline_string};

    fn numbers(raw: &str) -> Option<(u32, u32, u32)> {
        GoVersion::parse(raw).map(|v| (v.major, v.minor, v.patch))
    }

    #[test]
    fn releases_have_their_numbers() {
        assert_eq!(numbers("go1.21.13"), Some((1, 21, 13)));
        assert_eq!(numbers("go1.27"), Some((1, 27, 0)));
    }

    #[test]
    fn suffixes_do_not_matter() {
        assert_eq!(numbers("go1.26.8 X:nocoverageredesign"), Some((1, 26, 8)));
        assert_eq!(numbers("go1.24.4-vendor.2"), Some((1, 24, 4)));
        assert_eq!(numbers("go1.27rc1"), Some((1, 27, 0)));
        assert_eq!(numbers("go1.27rc1.3"), Some((1, 27, 0)));
        assert_eq!(
            numbers("devel go1.28-8ac9c2e Tue Feb 3 X:jsonv2"),
            Some((1, 28, 0))
        );
    }

    #[test]
    fn other_words_are_no_version() {
        for raw in [
            "",
            "go",
            "go1",
            "gox.y",
            "1.21",
            "devel +8ac9c2e",
            "go1.",
            "go99999999999.1",
        ] {
            assert_eq!(numbers(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(inline_string(b"\x02go!"), Some(&b"go"[..]));
        let long = [&[0x80, 1][..], &[b'x'; 128]].concat();
        assert_eq!(inline_string(&long).map(<[u8]>::len), Some(128));
        assert_eq!(inline_string(b"\x04go!"), None);
        assert_eq!(inline_string(b"\xff\xff\x01"), None);
        assert_eq!(inline_string(b""), None);
    }
}
