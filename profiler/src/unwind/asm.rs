//! Rows from machine code: for functions that nothing else describes.
//!
//! Assembly in C libraries without call frame information, and Go's own assembly where it changes the stack
//! pointer in ways that the linker's table does not follow. One function's instructions are interpreted
//! abstractly: which registers and stack words hold the stack pointer of the entry plus a constant, and where the
//! caller's frame pointer is.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic};
use profiler_abi::rule::Rule;

use super::ext::ExtTable;
use super::rows::Row;
use super::state::State;
use crate::addr::Svma;

/// The longest function that is looked at, in bytes.
const MAX_CODE: usize = 64 << 10;

/// How often the average instruction may be interpreted before the function counts as too tangled.
const ROUNDS: usize = 32;

/// Rows of the function at `entry` with the given machine code; none for code over 64 KiB.
///
/// Followed are jumps within the function, not tables of jumps: what is reached in no other way has
/// [`Rule::NONE`]. Calls are taken to return and to preserve what the System V ABI says.
///
/// In a call instruction the first byte has the rule for a thread that is about to call, the others the rule for
/// one that is in the called function: walks look up return addresses less one.
pub fn rows(entry: Svma, code: &[u8], ext: &mut ExtTable) -> Vec<Row> {
    Function::decode(entry, code).interpret(&mut |_, _, _| {}, ext)
}

/// Amends the state after an instruction by what is known about this very function: called with the instruction
/// and the states before and after it. It must give the same for the same.
pub(super) type Amend<'a> = &'a mut dyn FnMut(&Instruction, &State, &mut State);

/// A decoded function.
pub(super) struct Function {
    /// In ascending order, without gaps.
    pub(super) instructions: Vec<Instruction>,
}

impl Function {
    /// Decodes `code`; nothing if it is too long.
    pub(super) fn decode(entry: Svma, code: &[u8]) -> Self {
        let mut instructions = Vec::new();
        if code.len() <= MAX_CODE && entry.0.checked_add(code.len() as u64).is_some() {
            let decoder = Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE);
            instructions.extend(decoder);
        }
        Self { instructions }
    }

    /// Rows for all instructions.
    pub(super) fn interpret(&self, amend: Amend<'_>, ext: &mut ExtTable) -> Vec<Row> {
        let mut interpreter = Interpreter {
            function: self,
            leaders: self.leaders(),
            states: vec![None; self.instructions.len()],
            info: InstructionInfoFactory::new(),
            amend,
        };
        if !interpreter.run() {
            interpreter.states.fill(None);
        }
        interpreter.rows(ext)
    }

    /// The instructions that something jumps to, and the first.
    fn leaders(&self) -> BTreeSet<usize> {
        let targets = self.instructions.iter().filter_map(|i| self.target(i));
        targets
            .chain((!self.instructions.is_empty()).then_some(0))
            .collect()
    }

    /// Where a jump goes, within the function.
    fn target(&self, instruction: &Instruction) -> Option<usize> {
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                self.instructions.binary_search_by_key(&target, |i| i.ip()).ok()
            }
            _ => None,
        }
    }
}

/// Whether control may go on to the next instruction.
fn falls_through(instruction: &Instruction) -> bool {
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::Return
        | FlowControl::Exception => false,
        // `int3` and `int $3` end what must not be reached; `int $0x80` is a system call.
        FlowControl::Interrupt => instruction.code() == Code::Int_imm8 && instruction.immediate8() != 3,
        _ => true,
    }
}

struct Interpreter<'a> {
    function: &'a Function,
    leaders: BTreeSet<usize>,
    /// The state before each leader that was reached.
    states: Vec<Option<State>>,
    info: InstructionInfoFactory,
    amend: Amend<'a>,
}

impl Interpreter<'_> {
    /// Finds the states of all leaders. False if that takes too long.
    fn run(&mut self) -> bool {
        let mut budget = self.function.instructions.len() * ROUNDS;
        let mut work = BTreeSet::new();
        if let Some(first) = self.states.first_mut() {
            *first = Some(State::entry());
            work.insert(0);
        }
        while let Some(leader) = work.pop_first() {
            let Some(mut state) = self.states[leader].clone() else {
                continue;
            };
            for at in leader.. {
                let Some(instruction) = self.function.instructions.get(at) else {
                    break;
                };
                if at != leader && self.leaders.contains(&at) {
                    self.reach(at, &state, &mut work);
                    break;
                }
                let Some(left) = budget.checked_sub(1) else {
                    return false;
                };
                budget = left;
                self.step(instruction, &mut state);
                if let Some(target) = self.function.target(instruction) {
                    self.reach(target, &state, &mut work);
                }
                if !falls_through(instruction) {
                    break;
                }
            }
        }
        true
    }

    fn step(&mut self, instruction: &Instruction, state: &mut State) {
        let before = state.clone();
        state.step(instruction, &mut self.info);
        (self.amend)(instruction, &before, state);
    }

    /// Control comes to `leader` with `state`.
    fn reach(&mut self, leader: usize, state: &State, work: &mut BTreeSet<usize>) {
        let ip = self.function.instructions[leader].ip();
        let known = &mut self.states[leader];
        let met = match known {
            None => state.clone(),
            Some(known) => {
                let mut met = known.clone();
                met.meet(state.clone(), ip);
                met
            }
        };
        if known.as_ref() != Some(&met) {
            *known = Some(met);
            work.insert(leader);
        }
    }

    /// The rows that the states give.
    fn rows(mut self, ext: &mut ExtTable) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut put = |start, rule| {
            if rows.last().is_none_or(|last| last.rule != rule) {
                rows.push(Row {
                    start: Svma(start),
                    rule,
                });
            }
        };
        let mut current: Option<State> = None;
        for (at, instruction) in self.function.instructions.iter().enumerate() {
            if self.leaders.contains(&at) {
                current = self.states[at].take();
            }
            let Some(state) = &mut current else {
                put(instruction.ip(), Rule::NONE);
                continue;
            };
            put(instruction.ip(), state.rule(ext));
            let before = state.clone();
            state.step(instruction, &mut self.info);
            (self.amend)(instruction, &before, state);
            if instruction.mnemonic() == Mnemonic::Call && instruction.len() > 1 {
                put(instruction.ip() + 1, state.rule(ext));
            }
            if !falls_through(instruction) {
                current = None;
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests;
