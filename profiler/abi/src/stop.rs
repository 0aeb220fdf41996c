//! Why a walk ended. Numbers are part of the format of a sample: never reuse one.

macro_rules! stop_reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal, $sentence:literal;)*) => {
        /// Why the walk of a user stack ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum StopReason { $($(#[$doc])* $name = $number,)* }

        impl StopReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with number `n`.
            pub const fn from_bits(n: u32) -> Option<Self> {
                match n { $($number => Some(Self::$name),)* _ => None }
            }

            /// A short name for labels and machine-readable output.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What happened, for people; completes "the walk ended because …".
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

stop_reasons! {
    /// The outermost frame was reached.
    Root = 0, "root", "the outermost frame was reached";
    /// There was no user stack: a kernel thread, or a process that has given up its memory.
    NoUserStack = 1, "no-user-stack", "the task has no user stack";
    /// The limit of frames was reached. The innermost frames are kept.
    MaxFrames = 2, "max-frames", "the stack is deeper than the limit of frames";
    /// The program counter is in no executable mapping that we know.
    NoMapping = 3, "no-mapping", "the address is in no known executable mapping";
    /// The mapping is known, but no rule covers the address and the frame pointer leads nowhere.
    NoRule = 4, "no-rule", "no unwind rule covers the address and the frame pointer leads nowhere";
    /// A word of the stack could not be read.
    Unreadable = 5, "unreadable", "a word of the stack could not be read";
    /// The caller's stack pointer is not above the callee's.
    NotAdvancing = 6, "not-advancing", "the stack pointer did not advance";
    /// The rule needs a register whose value is known only in the innermost frame.
    RegisterLost = 7, "register-lost", "the rule needs a register that callees may have changed";
    /// The thread's g could not be found, so a stack switch could not be followed.
    NoG = 8, "no-g", "the goroutine of the thread could not be found";
    /// `asmcgocall` did not hold a goroutine stack where it keeps one.
    BadCgoCall = 9, "bad-cgocall", "runtime.asmcgocall did not name the goroutine's stack";
    /// The list of `cgocallback` frames did not have one for this callback.
    BadCgoCallback = 10, "bad-cgocallback", "runtime.cgocallback did not name the C stack";
    /// The tables of the process were being replaced.
    TablesChanging = 11, "tables-changing", "the unwind tables of the process were being replaced";
    /// The address is in a mapping whose tables are not built yet.
    TablesPending = 12, "tables-pending", "the unwind tables of the mapping were still being built";
    /// The return address is 0 though no rule says that the frame is the outermost one.
    NullReturn = 13, "null-return", "the return address is 0 although the frame is not known to be the outermost";
    /// The goroutine that the runtime was switching from or to did not say where it stands.
    BadGoSwitch = 14, "bad-go-switch", "a stack switch of the Go runtime did not say where the goroutine stands";
    /// An exception is being delivered: the unwinder has begun to replace its own frame by that of the handler.
    FramesReplaced = 15, "frames-replaced", "an exception was replacing the frames of the stack by its handler's";
    /// The thread runs 32-bit code, whose stacks nothing here understands.
    Code32 = 16, "code-32-bit", "the code is 32-bit";
    /// There are more processes, mappings or unwind rules than the tables hold.
    NoRoom = 17, "no-room", "the tables had no room for its process";
    /// The process may not be looked at, not even by us.
    NotAllowed = 18, "not-allowed", "its process may not be looked at";
}

impl StopReason {
    /// Whether the stack is whole: everything from the leaf to the outermost frame is in it.
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Root)
    }
}

#[cfg(test)]
mod tests {
    use super::StopReason;

    #[test]
    fn numbers_lead_back_to_their_reasons() {
        for &reason in StopReason::ALL {
            assert_eq!(StopReason::from_bits(reason as u32), Some(reason));
        }
        assert_eq!(StopReason::from_bits(StopReason::ALL.len() as u32), None);
    }
}
