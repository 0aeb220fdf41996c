//! Rows of the Go runtime's assembly functions, among them those that change stacks.
//!
//! A function that changes stacks is told by its name, and the places where it does so by what its instructions
//! do: which one loads the stack pointer from memory or from a register that does not hold an address of the own
//! stack. The places are the same in Go 1.21–1.27 (runtime/asm_amd64.s), the instructions around them are not.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use profiler_abi::rule::{GoSwitch, Rule};

use super::asm::Function;
use super::ext::ExtTable;
use super::rows::Row;
use super::state::{Away, State};
use crate::addr::Svma;

/// An assembly function of a Go program.
#[derive(Clone, Copy, Debug)]
pub struct GoAsmFunction<'a> {
    /// Its name as `.gopclntab` has it: without the suffix `.abi0` of the symbol table.
    pub name: &'a str,
    /// Where it starts.
    pub entry: Svma,
    /// Its machine code.
    pub code: &'a [u8],
    /// Whether its flags say that it is the outermost function of its stack (`abi.FuncFlagTopFrame`).
    pub top_frame: bool,
}

/// A function that changes stacks does not look like the known versions of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{function} does not look as in Go 1.21–1.27: {missing}")]
pub struct UnknownShape {
    /// Its name.
    pub function: String,
    /// What was not found.
    pub missing: &'static str,
}

/// Rows of `function`. The first starts at its entry or, for the function that returns from signal handlers,
/// one byte before: its address is a return address that no call instruction precedes.
///
/// # Errors
///
/// If a function that changes stacks has an unknown shape. [`super::asm::rows`] then is the best that there is.
pub fn rows(function: &GoAsmFunction<'_>, ext: &mut ExtTable) -> Result<Vec<Row>, UnknownShape> {
    let all = |start, rule| Ok(vec![Row { start, rule }]);
    let code = || Function::decode(function.entry, function.code);
    match Kind::of(function) {
        Kind::Plain => Ok(code().interpret(&mut |_, _, _| {}, ext)),
        Kind::CallsC => Ok(code().interpret(&mut after_c, ext)),
        Kind::Root => all(function.entry, Rule::END),
        Kind::SignalReturn => all(Svma(function.entry.0.saturating_sub(1)), Rule::SIG_FRAME),
        Kind::Switches(switch) => switch.rows(&code(), ext).map_err(|missing| UnknownShape {
            function: function.name.to_owned(),
            missing,
        }),
    }
}

enum Kind {
    /// The code says all.
    Plain,
    /// It aligns the system stack and calls C.
    CallsC,
    /// The outermost function of a stack.
    Root,
    /// Signal handlers return to it.
    SignalReturn,
    /// It changes stacks.
    Switches(Switch),
}

impl Kind {
    fn of(function: &GoAsmFunction<'_>) -> Self {
        let go = |switch| SwitchRule::AtOnce(Rule::go(switch, 0));
        let (leaves_by, rule, returns_by) = match function.name {
            "runtime.asmcgocall" => (OpKind::Memory, SwitchRule::AfterCall, Some(OpKind::Register)),
            "runtime.cgocallback" => (OpKind::Register, go(GoSwitch::CgoCallback), Some(OpKind::Memory)),
            "runtime.systemstack" => (OpKind::Memory, go(GoSwitch::SystemStack), Some(OpKind::Memory)),
            // The scheduler runs on and never returns here.
            "runtime.mcall" => (OpKind::Memory, SwitchRule::AtOnce(Rule::END), None),
            "runtime.morestack" => (OpKind::Memory, go(GoSwitch::MoreStack), None),
            "gogo" | "runtime.gogo" => (OpKind::Memory, go(GoSwitch::Gogo), None),
            // In the new thread, which nothing called.
            "runtime.clone" => (OpKind::Register, SwitchRule::AtOnce(Rule::END), None),
            "runtime.asmcgocall_no_g" => return Self::CallsC,
            "runtime.goexit" | "runtime.mstart" | "runtime.rt0_go" | "_rt0_amd64" | "_rt0_amd64_linux" => {
                return Self::Root;
            }
            "runtime.sigreturn" | "runtime.sigreturn__sigaction" => return Self::SignalReturn,
            // Outermost for Go, but the kernel made it look as if the signal trampoline had called it.
            "runtime.sigtramp" => return Self::Plain,
            _ if function.top_frame => return Self::Root,
            _ => return Self::Plain,
        };
        Self::Switches(Switch {
            leaves_by,
            rule,
            returns_by,
        })
    }
}

/// How a function changes stacks.
struct Switch {
    /// Where the new stack pointer comes from when it leaves its stack.
    leaves_by: OpKind,
    rule: SwitchRule,
    /// Where the old one comes from when it comes back; `None` if it does not.
    returns_by: Option<OpKind>,
}

/// What is in force on the other stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SwitchRule {
    /// This rule, from the first instruction on.
    AtOnce(Rule),
    /// `asmcgocall`: while it prepares the call its own frame pointer leads back. Once C runs, the goroutine's
    /// stack may move, and what the function left on the system stack is the only way.
    AfterCall,
}

impl Switch {
    /// The rows, or what is missing in the code.
    fn rows(&self, code: &Function, ext: &mut ExtTable) -> Result<Vec<Row>, &'static str> {
        if !code.instructions.iter().any(|i| new_stack_pointer(i).is_some()) {
            // Wrappers between calling conventions, and `runtime.gogo`, which jumps to `gogo`.
            return Ok(code.interpret(&mut |_, _, _| {}, ext));
        }
        let after_call = match self.rule {
            SwitchRule::AtOnce(_) => None,
            SwitchRule::AfterCall => Some(asmcgocall_rule(&code.instructions)?),
        };
        let (mut leaves, mut returns, mut strays) = (false, false, false);
        let mut amend = |instruction: &Instruction, before: &State, after: &mut State| {
            match (new_stack_pointer(instruction), before.away) {
                (Some(by), None) if after.stack_offset().is_none() => {
                    match before.stack_pointer().filter(|_| before.stack_offset().is_some()) {
                        Some(left) if by == self.leaves_by => {
                            leaves = true;
                            let rule = match self.rule {
                                SwitchRule::AtOnce(rule) => Some(rule),
                                SwitchRule::AfterCall => None,
                            };
                            after.away = Some(Away { rule, left });
                        }
                        _ => strays = true,
                    }
                }
                (Some(by), Some(away)) if Some(by) == self.returns_by => {
                    returns = true;
                    after.away = None;
                    after.set_stack_pointer(away.left);
                }
                (Some(_), Some(_)) => strays = true,
                _ => {}
            }
            if let Some(rule) = after_call {
                after_c(instruction, before, after);
                if let Some(away) = &mut after.away
                    && instruction.mnemonic() == Mnemonic::Call
                {
                    away.rule = Some(rule);
                }
            }
        };
        let rows = code.interpret(&mut amend, ext);
        if strays {
            Err("the stack pointer changes in one more place")
        } else if !leaves {
            Err("no instruction goes over to another stack")
        } else if !returns && self.returns_by.is_some() {
            Err("no instruction returns to its own stack")
        } else {
            Ok(rows)
        }
    }
}

/// After C was called on another stack or an aligned one, the frame pointer is not the way back: C preserves it,
/// but a callback may have moved the stack that it points to.
fn after_c(instruction: &Instruction, before: &State, after: &mut State) {
    if instruction.mnemonic() == Mnemonic::Call && before.stack_offset().is_none() {
        after.forget_frame_pointer();
    }
}

/// Where an instruction takes the stack pointer from, if it replaces it: a register or memory.
fn new_stack_pointer(instruction: &Instruction) -> Option<OpKind> {
    let replaces = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RSP;
    replaces.then(|| instruction.op1_kind())
}

/// The rule of `asmcgocall` while C runs. It left two words on the system stack: how far the goroutine's stack
/// pointer is below the end of its stack, and g. Where they are is seen when they are used after the call:
/// `mov slot+8(%rsp),%rdi; mov 8(%rdi),%rsi; sub slot(%rsp),%rsi; …; mov %rsi,%rsp`.
fn asmcgocall_rule(instructions: &[Instruction]) -> Result<Rule, &'static str> {
    let mut rest = instructions.iter();
    let mut find = |wanted: &dyn Fn(&&Instruction) -> bool| rest.by_ref().find(wanted);
    let loads_stack_pointer = |i: &&Instruction| new_stack_pointer(i) == Some(OpKind::Memory);
    find(&loads_stack_pointer).ok_or("no instruction goes over to another stack")?;
    let call = find(&|i| i.mnemonic() == Mnemonic::Call).ok_or("nothing is called on the system stack")?;
    if call.len() < 2 {
        return Err("a call of one byte");
    }
    let mut slots = [None; 2];
    for instruction in rest.take_while(|i| new_stack_pointer(i).is_none()) {
        let on_stack = instruction.op1_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RSP
            && instruction.memory_index() == Register::None;
        match instruction.mnemonic() {
            Mnemonic::Mov if on_stack => slots[0] = Some(instruction.memory_displacement64()),
            Mnemonic::Sub if on_stack => slots[1] = Some(instruction.memory_displacement64()),
            _ => {}
        }
    }
    match slots {
        [Some(g), Some(depth)] if depth % 8 == 0 && depth < 1 << 12 && g == depth + 8 => {
            Ok(Rule::go(GoSwitch::AsmCgoCall, (depth / 8) as u32))
        }
        _ => Err("the depth of the goroutine's stack pointer and g are not taken from the system stack"),
    }
}

#[cfg(test)]
mod tests;
