//! The archive that Linux unpacks as its first file system (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::path::Path;

/// An archive of files, in the format `newc`.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// Adds a file that everybody may execute, and the folders it is in. `path` is absolute.
    pub fn add(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_start_matches('/');
        let above = Path::new(path).ancestors().skip(1);
        let folders: Vec<_> = above
            .filter_map(|folder| folder.to_str().filter(|name| !name.is_empty()))
            .collect();
        for folder in folders.into_iter().rev() {
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, &[]);
            }
        }
        self.entry(path, PROGRAM, content);
    }

    /// The bytes of the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let name_size = name.len() as u32 + 1;
        self.bytes.extend(b"070701");
        // Inode, mode, user, group, links, time, size, device, device of a special file, length of the name, check sum.
        let size = content.len() as u32;
        for word in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend(format!("{word:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn folders_come_before_what_is_in_them_and_only_once() {
        let mut archive = Archive::default();
        archive.add("/lib/a/one", b"1");
        archive.add("/lib/two", b"22");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].split('\0').next().unwrap_or_default())
            .collect();
        assert_eq!(names, ["lib", "lib/a", "lib/a/one", "lib/two", "TRAILER!!!"]);
        assert_eq!(bytes.len() % 4, 0);
    }
}
