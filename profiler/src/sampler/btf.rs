//! Where a field is in a struct of the running kernel, and which functions it has, from its BTF
//! (Documentation/bpf/btf.rst).
//!
//! Only what these questions need is read. The crates that parse BTF either keep their types private or carry a
//! licence that a statically linked program cannot meet.

use crate::words::u32_at;
use std::io;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// Structs inside structs are followed this deep, far more than the kernel nests them.
const MAX_DEPTH: usize = 8;

/// Kinds of types, include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
}

/// The parsed type information of the kernel.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type's record; type ids start at 1.
    types: Vec<usize>,
}

impl Btf {
    /// Reads the running kernel's.
    ///
    /// # Errors
    /// The file is missing (a kernel built without `CONFIG_DEBUG_INFO_BTF`) or is not BTF.
    pub fn of_kernel() -> io::Result<Self> {
        Self::parse(std::fs::read("/sys/kernel/btf/vmlinux")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not BTF"))
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        if u16_at(&data, 0)? != MAGIC {
            return None;
        }
        let header_len = u32_at(&data, 4)? as usize;
        let types_at = header_len.checked_add(u32_at(&data, 8)? as usize)?;
        let types_end = types_at.checked_add(u32_at(&data, 12)? as usize)?;
        let strings = header_len.checked_add(u32_at(&data, 16)? as usize)?;
        if header_len < HEADER_LEN || types_end > data.len() || strings > data.len() {
            return None;
        }
        let mut types = Vec::new();
        let mut at = types_at;
        while at < types_end {
            types.push(at);
            let info = u32_at(&data, at + 4)?;
            let n = (info & 0xffff) as usize;
            at += 12
                + match info >> 24 & 31 {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => n * 12,
                    kind::ENUM | kind::FUNC_PROTO => n * 8,
                    _ => 0,
                };
        }
        Some(Self { data, strings, types })
    }

    /// Offset in bytes of a field, named by its path (`["thread", "fsbase"]`), in the struct `name`. Members of
    /// anonymous structs and unions count as members of the struct around them, as in C.
    pub fn field_offset(&self, name: &str, path: &[&str]) -> Option<u32> {
        let mut of = self.types.iter().copied().find(|&at| {
            u32_at(&self.data, at + 4).is_some_and(|info| info >> 24 & 31 == kind::STRUCT)
                && self.name(at).is_some_and(|found| found == name.as_bytes())
        })?;
        let mut offset = 0;
        for (i, field) in path.iter().enumerate() {
            let (bits, type_id) = self.member(of, field, 0)?;
            offset += bits / 8;
            if i + 1 < path.len() {
                of = self.record(type_id)?;
            }
        }
        Some(offset)
    }

    /// Whether one of the kernel's enumerations has a constant of this name.
    pub fn has_enumerator(&self, name: &str) -> bool {
        self.types.iter().any(|&at| {
            let info = u32_at(&self.data, at + 4).unwrap_or(0);
            let size = match info >> 24 & 31 {
                kind::ENUM => 8,
                kind::ENUM64 => 12,
                _ => return false,
            };
            (0..(info & 0xffff) as usize).any(|i| self.name(at + 12 + i * size) == Some(name.as_bytes()))
        })
    }

    /// The id of the function with this name, by which BPF programs call it.
    pub fn function(&self, name: &str) -> Option<u32> {
        let index = self.types.iter().position(|&at| {
            u32_at(&self.data, at + 4).is_some_and(|info| info >> 24 & 31 == kind::FUNC)
                && self.name(at).is_some_and(|found| found == name.as_bytes())
        })?;
        u32::try_from(index + 1).ok()
    }

    /// Offset in bits and type of a member of the struct or union whose record is at `at`.
    fn member(&self, at: usize, field: &str, depth: usize) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let info = u32_at(&self.data, at + 4)?;
        // With the flag, a member's offset also carries the size of a bit field in its top byte.
        let mask = if info >> 31 != 0 { 0xff_ffff } else { u32::MAX };
        for i in 0..(info & 0xffff) as usize {
            let record = at + 12 + i * 12;
            let type_id = u32_at(&self.data, record + 4)?;
            let bits = u32_at(&self.data, record + 8)? & mask;
            let name = self.name(record)?;
            if name == field.as_bytes() {
                return Some((bits, type_id));
            }
            if name.is_empty()
                && let Some(inner) = self.record(type_id)
                && let Some((inner_bits, found)) = self.member(inner, field, depth + 1)
            {
                return Some((bits + inner_bits, found));
            }
        }
        None
    }

    fn record(&self, type_id: u32) -> Option<usize> {
        self.types.get((type_id as usize).checked_sub(1)?).copied()
    }

    /// The name whose offset in the strings is at `at`.
    fn name(&self, at: usize) -> Option<&[u8]> {
        let start = self.strings.checked_add(u32_at(&self.data, at)? as usize)?;
        let rest = self.data.get(start..)?;
        rest.split(|&byte| byte == 0).next()
    }
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::Btf;

    #[test]
    fn the_running_kernel_says_where_its_fields_are() {
        let btf = Btf::of_kernel().expect("this kernel has BTF");
        let pid = btf.field_offset("task_struct", &["pid"]).expect("pid");
        // include/linux/sched.h declares them one after the other.
        assert_eq!(btf.field_offset("task_struct", &["tgid"]), Some(pid + 4));
        let thread = btf.field_offset("task_struct", &["thread"]).expect("thread");
        let fsbase = btf
            .field_offset("task_struct", &["thread", "fsbase"])
            .expect("fsbase");
        assert!(fsbase > thread);
        assert_eq!(btf.field_offset("task_struct", &["no_such_field"]), None);
        assert_eq!(btf.field_offset("no_such_struct", &["pid"]), None);
    }

    #[test]
    fn helpers_of_the_kernel_are_known_by_name() {
        let btf = Btf::of_kernel().expect("this kernel has BTF");
        assert!(btf.has_enumerator("BPF_FUNC_map_lookup_elem"));
        assert!(!btf.has_enumerator("BPF_FUNC_no_such_helper"));
    }

    #[test]
    fn members_of_anonymous_unions_are_found() {
        let btf = Btf::of_kernel().expect("this kernel has BTF");
        // struct page keeps nearly everything in anonymous unions and structs.
        assert!(btf.field_offset("page", &["mapping"]).is_some());
    }

    #[test]
    fn cut_off_bytes_are_refused() {
        let whole = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        for len in [0, 1, 23, 24, 1000, whole.len() / 2] {
            assert!(Btf::parse(whole[..len].to_vec()).is_none());
        }
    }
}
