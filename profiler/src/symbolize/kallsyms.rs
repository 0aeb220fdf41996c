//! `/proc/kallsyms`: the functions of the kernel, its modules and BPF programs.
//!
//! A line is `ffffffff81000000 T _text`, with `[module]` after a tabulator for what is not in the kernel's image
//! (kernel/kallsyms.c, `s_show`).

use super::{Name, Reason};
use crate::addr::Avma;
use crate::profile::Kind;
use bytes::Bytes;

/// The functions of a running kernel.
#[derive(Debug)]
pub struct Kallsyms {
    /// Ascending, one for each address.
    symbols: Vec<Symbol>,
    text: Bytes,
    hidden: bool,
}

/// A function of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSymbol {
    /// Its name; never inlined, without file and line.
    pub name: Name,
    /// The module it is in, `bpf` for BPF programs, `None` for the kernel's image.
    pub module: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    /// Where in the text its name starts.
    name: u32,
    local: bool,
}

/// Sizes are not listed. What no symbol follows in its module ends this far behind the end of its page, as perf
/// has it (tools/perf/util/symbol.c, `symbols__fixup_end`).
const LAST: u64 = 4096;

impl Kallsyms {
    /// Reads the text of `/proc/kallsyms`. Lines that do not look as they should are skipped, and so is all that
    /// is no code.
    pub fn parse(text: Bytes) -> Self {
        let mut symbols = Vec::with_capacity(text.len() / 48);
        let mut start = 0;
        for line in text.split(|&b| b == b'\n') {
            symbols.extend(u32::try_from(start).ok().and_then(|start| symbol(line, start)));
            start += line.len() + 1;
        }
        let hidden = !symbols.is_empty() && symbols.iter().all(|symbol: &Symbol| symbol.address == 0);
        // Of several at one address, a global one; of these the first, which is how the kernel orders them.
        symbols.sort_unstable_by_key(|symbol| (symbol.address, symbol.local, symbol.name));
        symbols.dedup_by_key(|symbol| symbol.address);
        Self {
            symbols,
            text,
            hidden,
        }
    }

    /// The function at an address.
    pub fn lookup(&self, address: Avma) -> Result<KernelSymbol, Reason> {
        if self.hidden {
            return Err(Reason::KernelAddressesHidden);
        }
        let after = self.symbols.partition_point(|symbol| symbol.address <= address.0);
        let symbol = after.checked_sub(1).and_then(|at| self.symbols.get(at));
        let symbol = symbol.ok_or(Reason::NotInKernel)?;
        let (name, module) = self.name_and_module(symbol);
        let next = self.symbols.get(after);
        if next.is_none_or(|next| self.name_and_module(next).1 != module) {
            let end = symbol.address.saturating_add(LAST).checked_next_multiple_of(LAST);
            if address.0 >= end.unwrap_or(u64::MAX) {
                return Err(Reason::NotInKernel);
            }
        }
        Ok(KernelSymbol {
            name: Name {
                kind: Kind::Kernel,
                ..Name::of_symbol(name)
            },
            module: module.map(|module| String::from_utf8_lossy(module).into_owned()),
        })
    }

    fn name_and_module(&self, symbol: &Symbol) -> (&[u8], Option<&[u8]>) {
        let rest = &self.text[symbol.name as usize..];
        let line = rest.split(|&b| b == b'\n').next().unwrap_or_default();
        let mut words = line.split(|&b| b == b'\t');
        let name = words.next().unwrap_or_default();
        let module = words
            .next()
            .and_then(|word| word.strip_prefix(b"[")?.strip_suffix(b"]"));
        (&name[..name.len().min(super::MAX_SYMBOL)], module)
    }
}

/// The symbol of a line that starts at `start` of the text, if it is code.
fn symbol(line: &[u8], start: u32) -> Option<Symbol> {
    let digits = line.iter().position(|&b| b == b' ')?;
    let address = hexadecimal(&line[..digits])?;
    let &[b' ', kind, b' ', first, ..] = &line[digits..] else {
        return None;
    };
    let local = match kind {
        b't' | b'w' => true,
        b'T' | b'W' => false,
        _ => return None,
    };
    first.is_ascii_graphic().then_some(Symbol {
        address,
        name: start + digits as u32 + 3,
        local,
    })
}

/// Up to 16 hexadecimal digits.
pub(super) fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 t local_alias
ffffffff81000000 T _text
ffffffff81000100 t do_one.constprop.0
ffffffff81000180 W weak_one
ffffffff81000200 D not_code
this line is broken
ffffffff81000300 T
ffffffffzz000300 T no_number
ffffffff81000400 T _etext
0000000000001000 A per_cpu
ffffffffc0001000 t xfs_read\t[xfs]
ffffffffc0001100 t xfs_write\t[xfs]
ffffffffc0200000 t ext4_read\t[ext4]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_sd_fw_ingress\t[bpf]
";

    fn find(kallsyms: &Kallsyms, address: u64) -> Result<(String, Option<String>), Reason> {
        let found = kallsyms.lookup(Avma(address))?;
        assert_eq!(found.name.kind, Kind::Kernel);
        Ok((found.name.function, found.module))
    }

    fn core(name: &str) -> Result<(String, Option<String>), Reason> {
        Ok((name.to_owned(), None))
    }

    fn module(name: &str, module: &str) -> Result<(String, Option<String>), Reason> {
        Ok((name.to_owned(), Some(module.to_owned())))
    }

    #[test]
    fn functions_reach_to_the_next_one() {
        let kallsyms = Kallsyms::parse(Bytes::from(TEXT));
        assert_eq!(find(&kallsyms, 0xffff_ffff_80ff_ffff), Err(Reason::NotInKernel));
        assert_eq!(find(&kallsyms, 0xffff_ffff_8100_0100), core("do_one"));
        assert_eq!(find(&kallsyms, 0xffff_ffff_8100_017f), core("do_one"));
        assert_eq!(find(&kallsyms, 0xffff_ffff_8100_03ff), core("weak_one"));
    }

    #[test]
    fn of_several_names_at_one_address_a_global_one_wins() {
        let kallsyms = Kallsyms::parse(Bytes::from(TEXT));
        assert_eq!(find(&kallsyms, 0xffff_ffff_8100_0004), core("_stext"));
        let swapped = Kallsyms::parse(Bytes::from("ff10 t local\nff10 T global\n"));
        assert_eq!(find(&swapped, 0xff10), core("global"));
    }

    #[test]
    fn modules_and_bpf_programs_are_named_and_end_where_they_end() {
        let kallsyms = Kallsyms::parse(Bytes::from(TEXT));
        assert_eq!(find(&kallsyms, 0xffff_ffff_c000_1080), module("xfs_read", "xfs"));
        assert_eq!(find(&kallsyms, 0xffff_ffff_c000_2fff), module("xfs_write", "xfs"));
        assert_eq!(find(&kallsyms, 0xffff_ffff_c000_3000), Err(Reason::NotInKernel));
        assert_eq!(
            find(&kallsyms, 0xffff_ffff_c020_0001),
            module("ext4_read", "ext4")
        );
        assert_eq!(
            find(&kallsyms, 0xffff_ffff_c030_0010),
            module("bpf_prog_6deef7357e7b4530_sd_fw_ingress", "bpf")
        );
        assert_eq!(find(&kallsyms, u64::MAX), Err(Reason::NotInKernel));
    }

    #[test]
    fn hidden_addresses_are_recognised() {
        let text = "0000000000000000 T _stext\n0000000000000000 t xfs_read\t[xfs]\n";
        let kallsyms = Kallsyms::parse(Bytes::from(text));
        assert_eq!(
            find(&kallsyms, 0xffff_ffff_8100_0000),
            Err(Reason::KernelAddressesHidden)
        );
    }

    #[test]
    fn an_empty_list_knows_nothing() {
        let kallsyms = Kallsyms::parse(Bytes::new());
        assert_eq!(find(&kallsyms, 0), Err(Reason::NotInKernel));
    }

    #[test]
    fn the_running_kernel_agrees_with_every_line_of_its_own() {
        let text = std::fs::read("/proc/kallsyms").unwrap();
        let kallsyms = Kallsyms::parse(Bytes::from(text.clone()));
        if kallsyms.hidden {
            return;
        }
        let text = String::from_utf8(text).unwrap();
        let mut checked = 0;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (
                words.next().unwrap(),
                words.next().unwrap(),
                words.next().unwrap(),
            );
            let address = u64::from_str_radix(address, 16).unwrap();
            let first = kallsyms
                .symbols
                .partition_point(|symbol| symbol.address < address);
            if !"tTwW".contains(kind) {
                continue;
            }
            checked += 1;
            let symbol = &kallsyms.symbols[first];
            assert_eq!(symbol.address, address, "{line}");
            if !symbol.local && kind == "t" {
                continue;
            }
            let found = kallsyms.lookup(Avma(address)).unwrap();
            let (found_name, found_module) = kallsyms.name_and_module(symbol);
            if found_name == name.as_bytes() {
                let module = words.next().map(|word| word.trim_matches(['[', ']']));
                assert_eq!(found.module.as_deref(), module, "{line}");
                assert_eq!(found_module, module.map(str::as_bytes), "{line}");
            }
        }
        assert!(checked > 10_000, "{checked}");
    }
}
