//! What an object file says about the separate files that belong to it, and whether a file is one of them.

use super::elf::{Elf, Error};
use super::string_at;
use bytes::Bytes;
use flate2::Crc;

/// `n_type` of the note of owner `GNU` that holds the build id.
const NT_GNU_BUILD_ID: u32 = 3;
/// `n_type` of the note of owner `Go` that holds the build id (cmd/link/internal/ld/elf.go).
const ELF_NOTE_GOBUILDID_TAG: u32 = 4;
/// Longest build id that is believed, in bytes. A SHA-512 has 64.
const MAX_BUILD_ID: usize = 64;
/// Longest path to a separate file, in bytes: `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// A supplementary file, with what several debug files have in common, as `dwz -m` makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AltLink {
    /// Where it is, absolute or from the folder of the file that has this link. Comes from the file and may hold anything.
    pub path: String,
    /// Its build id, in hexadecimal.
    pub build_id: String,
}

/// The GNU build id, in hexadecimal.
pub(super) fn gnu_build_id(elf: &Elf) -> Option<String> {
    let note = elf.note(b"GNU", NT_GNU_BUILD_ID)?;
    (1..=MAX_BUILD_ID).contains(&note.len()).then(|| hex(&note))
}

/// The build id that the Go linker writes.
pub(super) fn go_build_id(elf: &Elf) -> Option<String> {
    let note = elf.note(b"Go", ELF_NOTE_GOBUILDID_TAG)?;
    Some(String::from_utf8_lossy(&note).into_owned())
}

/// `.gnu_debuglink`: a name, zeros up to a multiple of four, a CRC-32.
pub(super) fn debug_link(elf: &Elf) -> Option<(&[u8], u32)> {
    let data = &elf.section(".gnu_debuglink")?.data;
    let name = string_at(data, 0, data.len())?;
    let at = (name.len() + 1).next_multiple_of(4);
    let checksum = data.get(at..at + 4)?.try_into().ok()?;
    Some((name, u32::from_le_bytes(checksum)))
}

/// `.gnu_debugaltlink`: a path that ends with a zero byte, then a build id.
pub(super) fn alt_link(elf: &Elf) -> Option<AltLink> {
    let data = &elf.section(".gnu_debugaltlink")?.data;
    let path = string_at(data, 0, MAX_PATH)?;
    let build_id = data.get(path.len() + 1..)?;
    (1..=MAX_BUILD_ID)
        .contains(&build_id.len())
        .then(|| -> Option<AltLink> {
            Some(AltLink {
                path: String::from_utf8(path.to_vec()).ok()?,
                build_id: hex(build_id),
            })
        })?
}

/// Whether `debug` has the debug information of `elf`: they have the same build id; or, where one of them has none, it
/// has the checksum that `elf` asks for. Without either nothing says that they belong together.
pub(super) fn check_same_build(elf: &Elf, debug: &Elf, debug_bytes: &Bytes) -> Result<(), Error> {
    match (gnu_build_id(elf), gnu_build_id(debug), debug_link(elf)) {
        (Some(expected), Some(found), _) => check_build_id(&expected, Some(found)),
        (_, _, Some((_, expected))) => {
            let mut checksum = Crc::new();
            checksum.update(debug_bytes);
            if checksum.sum() == expected {
                return Ok(());
            }
            Err(Error::DebugFileDiffers {
                expected: format!("checksum {expected:08x}"),
                found: format!("checksum {:08x}", checksum.sum()),
            })
        }
        (Some(expected), None, None) => check_build_id(&expected, None),
        (None, _, None) => Err(Error::DebugFileDiffers {
            expected: "neither a build id nor a checksum".to_owned(),
            found: "nothing to compare with".to_owned(),
        }),
    }
}

/// Whether a build id is the expected one.
pub(super) fn check_build_id(expected: &str, found: Option<String>) -> Result<(), Error> {
    if found.as_deref() == Some(expected) {
        return Ok(());
    }
    Err(Error::DebugFileDiffers {
        expected: format!("build id {expected}"),
        found: found.map_or_else(|| "no build id".to_owned(), |found| format!("build id {found}")),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
