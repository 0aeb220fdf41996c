//! Two kinds of address that look alike and must not be mixed.

use std::fmt;

/// An *actual* virtual address: where something is in a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Avma(pub u64);

/// A *stated* virtual address: where an object file says that something is (`p_vaddr`, `st_value`, DWARF).
///
/// In an executable that is not position independent the two have the same number, which is why a mix-up
/// passes simple tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Svma(pub u64);

/// What to add to a stated address of an object to get the actual one in a process. Wrapping: an object may
/// state high addresses and be loaded below them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bias(pub u64);

impl Svma {
    /// Where the process has it.
    pub const fn to_avma(self, bias: Bias) -> Avma {
        Avma(self.0.wrapping_add(bias.0))
    }
}

impl Avma {
    /// What the object file calls it.
    pub const fn to_svma(self, bias: Bias) -> Svma {
        Svma(self.0.wrapping_sub(bias.0))
    }
}

impl fmt::Display for Avma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Svma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
