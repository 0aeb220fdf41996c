//! How much of an object's code has rules, and what the rest lacks.

use std::fmt;

/// Why a row of call frame information became no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The canonical frame address is an expression of an unknown form.
    CfaExpression,
    /// The canonical frame address is based on a register that a sample does not hold.
    CfaRegister,
    /// An offset has no place in a rule.
    Offset,
    /// The return address is not at a fixed distance from the canonical frame address.
    ReturnAddress,
    /// The caller's stack pointer is not the canonical frame address.
    StackPointer,
    /// The table of extended rules is full.
    TableFull,
}

impl Unsupported {
    /// All causes.
    pub const ALL: [Self; 6] = [
        Self::CfaExpression,
        Self::CfaRegister,
        Self::Offset,
        Self::ReturnAddress,
        Self::StackPointer,
        Self::TableFull,
    ];
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CfaExpression => "frame address is an unknown expression",
            Self::CfaRegister => "frame address is based on an unknown register",
            Self::Offset => "offset does not fit",
            Self::ReturnAddress => "return address is not in the frame",
            Self::StackPointer => "stack pointer is not the frame address",
            Self::TableFull => "too many distinct rules",
        })
    }
}

/// What was found in the unwind tables of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Functions (frame description entries) that were read.
    pub functions: u64,
    /// Rows that they have.
    pub rows: u64,
    /// Entries that were skipped because they are malformed.
    pub malformed: u64,
    /// Rows that became a rule, but one that loses the caller's frame pointer.
    pub frame_pointer_lost: u64,
    unsupported: [u64; Unsupported::ALL.len()],
}

impl Coverage {
    /// Rows that became no rule because of `cause`.
    pub fn unsupported(&self, cause: Unsupported) -> u64 {
        self.unsupported[cause as usize]
    }

    /// Rows that became no rule.
    pub fn unsupported_rows(&self) -> u64 {
        self.unsupported.iter().sum()
    }

    pub(super) fn count(&mut self, cause: Unsupported) {
        self.unsupported[cause as usize] += 1;
    }
}
