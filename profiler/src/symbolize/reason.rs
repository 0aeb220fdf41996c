//! Why an address has no name, and what would give it one.

use std::fmt;

/// Why an address has no name.
///
/// `Display` is a whole sentence without the final stop; [`Reason::remedy`] says what the user can do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The file has neither DWARF nor `.symtab`, and the address is in no function that it exports.
    NoSymbols,
    /// The file has symbols, but none covers the address.
    BetweenSymbols,
    /// The address is in no section with code.
    NotCode,
    /// The file could not be opened or read; the system's cause.
    Unreadable(String),
    /// The file was read, but is no ELF file that we understand; what is wrong with it.
    Malformed(String),
    /// The file that is at the path now is not the one the process mapped.
    FileChanged,
    /// Code in memory that no file backs, from a JIT compiler; the process id as the process itself sees it.
    Anonymous {
        /// Decides the name of the map file.
        pid: u32,
    },
    /// The process has a map of its JIT code, but the address is not in it.
    NotInPerfMap,
    /// No mapping of the process covers the address.
    Unmapped,
    /// `/proc/kallsyms` shows every address as zero.
    KernelAddressesHidden,
    /// The kernel has no symbol at the address.
    NotInKernel,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSymbols => f.write_str("the file is stripped: it names no function at the address"),
            Self::BetweenSymbols => f.write_str("no symbol of the file covers the address"),
            Self::NotCode => f.write_str("the address is in no section with code of the file"),
            Self::Unreadable(cause) => write!(f, "the file could not be read: {cause}"),
            Self::Malformed(what) => write!(f, "the file is not an object file that can be read: {what}"),
            Self::FileChanged => f.write_str("the file was replaced after the process mapped it"),
            Self::Anonymous { .. } => {
                f.write_str("the code is in anonymous memory, where a JIT compiler puts it")
            }
            Self::NotInPerfMap => f.write_str("the map of JIT code does not cover the address"),
            Self::Unmapped => f.write_str("no mapping of the process covers the address"),
            Self::KernelAddressesHidden => f.write_str("the kernel hides its addresses (kptr_restrict)"),
            Self::NotInKernel => f.write_str("no symbol of the kernel covers the address"),
        }
    }
}

impl Reason {
    /// What would give the address a name, as an instruction without the final stop; `None` if nothing would.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoSymbols => "install its debug package (-dbgsym, -debuginfo), or build it with -g \
                                and do not strip it"
                .to_owned(),
            Self::BetweenSymbols => "install its debug package (-dbgsym, -debuginfo), or build it with -g; \
                                     hand-written assembly needs .type and .size"
                .to_owned(),
            Self::Unreadable(_) => "run as root, and while the process still runs".to_owned(),
            Self::FileChanged => "restart the process, so that it runs the file that is there now".to_owned(),
            Self::Anonymous { pid } => format!(
                "have the JIT write /tmp/perf-{pid}.map (node --perf-basic-prof, \
                 java -XX:+DumpPerfMapAtExit, DOTNET_PerfMapEnabled=1, python -X perf)"
            ),
            Self::KernelAddressesHidden => {
                "run as root, and if that is not enough: sysctl kernel.kptr_restrict=1".to_owned()
            }
            Self::NotCode | Self::Malformed(_) | Self::NotInPerfMap | Self::Unmapped | Self::NotInKernel => {
                return None;
            }
        })
    }

    /// The sentence and, if there is one, the remedy.
    pub fn explain(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self}; {remedy}"),
            None => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_with_a_remedy_says_both() {
        assert_eq!(
            Reason::KernelAddressesHidden.explain(),
            "the kernel hides its addresses (kptr_restrict); run as root, and if that is not enough: \
             sysctl kernel.kptr_restrict=1"
        );
        assert_eq!(
            Reason::Unmapped.explain(),
            "no mapping of the process covers the address"
        );
    }

    #[test]
    fn the_remedy_for_anonymous_memory_names_the_file() {
        let remedy = Reason::Anonymous { pid: 7 }.remedy().unwrap();
        assert!(remedy.contains("/tmp/perf-7.map"), "{remedy}");
    }
}
