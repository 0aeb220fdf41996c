//! `/proc/PID/maps`: bytes in, mappings out. Pure.

/// One line of `/proc/PID/maps` (proc_pid_maps(5)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapEntry {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// The process may execute it.
    pub executable: bool,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Device (major, minor) and inode of the file; inode 0: none.
    pub file: FileId,
    /// Path as the process sees it, or a name in brackets, or nothing. Not to be trusted as a path: a file name may
    /// contain anything, and the file may have been replaced since.
    pub name: String,
}

/// What identifies a file while it is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Major number of the device.
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// Inode; 0: not a file.
    pub inode: u64,
}

impl MapEntry {
    /// The name without the kernel's remark that the file has been unlinked.
    pub fn path(&self) -> &str {
        self.name.strip_suffix(" (deleted)").unwrap_or(&self.name)
    }

    /// Whether it holds the same wherever it is mapped, in whatever process: a file's contents, or the kernel's vDSO.
    pub fn is_shared(&self) -> bool {
        self.is_file() || self.name == "[vdso]"
    }

    /// Whether it is a file's contents rather than anonymous memory, a device's or the kernel's.
    pub fn is_file(&self) -> bool {
        self.file.inode != 0 && self.name.starts_with('/')
    }
}

/// Parses the file. Lines that are not as documented are left out; their number is the second result.
pub fn parse(text: &[u8]) -> (Vec<MapEntry>, usize) {
    let mut entries = Vec::new();
    let mut strange = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match parse_line(line) {
            Some(entry) => entries.push(entry),
            None => strange += 1,
        }
    }
    (entries, strange)
}

fn parse_line(line: &[u8]) -> Option<MapEntry> {
    // The first five fields are the kernel's own and ASCII; what follows the spaces is the name.
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?;
    let offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let name = fields.next().unwrap_or_default();
    let (start, end) = (
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    );
    (start < end).then_some(())?;
    Some(MapEntry {
        start,
        end,
        executable: permissions.as_bytes().get(2) == Some(&b'x'),
        offset: u64::from_str_radix(offset, 16).ok()?,
        file: FileId {
            major: u32::from_str_radix(major, 16).ok()?,
            minor: u32::from_str_radix(minor, 16).ok()?,
            inode,
        },
        name: String::from_utf8_lossy(name.trim_ascii_start()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{FileId, parse};

    #[test]
    fn every_field_of_a_line_comes_back() {
        let text = b"7f1200001000-7f1200003000 r-xp 00002000 fe:01 4242                       /usr/lib/a b (deleted)\n";
        let (entries, strange) = parse(text);
        assert_eq!(strange, 0);
        let entry = &entries[0];
        assert_eq!(
            (entry.start, entry.end, entry.offset),
            (0x7f12_0000_1000, 0x7f12_0000_3000, 0x2000)
        );
        assert!(entry.executable && entry.is_file());
        assert_eq!(
            entry.file,
            FileId {
                major: 0xfe,
                minor: 1,
                inode: 4242
            }
        );
        assert_eq!(entry.name, "/usr/lib/a b (deleted)");
        assert_eq!(entry.path(), "/usr/lib/a b");
    }

    #[test]
    fn anonymous_memory_and_areas_of_the_kernel_are_not_files() {
        let text = b"1000-2000 rwxp 00000000 00:00 0 \n7ff-800 r-xp 00000000 00:00 0    [vdso]\n";
        let (entries, strange) = parse(text);
        assert_eq!(strange, 0);
        assert_eq!(
            entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
            ["", "[vdso]"]
        );
        assert!(entries.iter().all(|e| !e.is_file() && e.executable));
    }

    #[test]
    fn strange_lines_are_counted_and_left_out() {
        let text = b"\xff\n1000-800 r-xp 0 0:0 0\nzz-yy r-xp 0 0:0 0\n1-2\n1000-2000 r-xp 0 0:0 0 /\xff\n";
        let (entries, strange) = parse(text);
        assert_eq!(strange, 4);
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn our_own_maps_are_understood() {
        let text = std::fs::read("/proc/self/maps").expect("own maps");
        let (entries, strange) = parse(&text);
        assert_eq!(strange, 0);
        let here = our_own_maps_are_understood as *const () as u64;
        assert!(
            entries
                .iter()
                .any(|e| e.executable && e.is_file() && e.start <= here && here < e.end)
        );
    }
}
