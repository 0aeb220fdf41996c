//! What is known about registers and stack before an instruction: the values of the abstract interpretation in
//! [`super::asm`].

use std::collections::BTreeMap;

use iced_x86::{
    Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register,
};
use profiler_abi::rule::{ExtRule, Rule};
use profiler_abi::sample::Regs;

use super::ext::ExtTable;

/// The most stack slots that are followed at once.
const MAX_SLOTS: usize = 64;

/// What an address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Base {
    /// The stack pointer at the function's entry, where the return address is.
    Entry,
    /// What the instruction here last put into the stack pointer: an aligned or a loaded one.
    SetAt(u64),
    /// The stack pointer with which the instruction here was last reached, where ways to it differ.
    MetAt(u64),
}

/// An address: so many bytes above its base.
pub(super) type Address = (Base, i64);

/// What a register or a word of the stack holds, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// An address of the stack.
    Address(Address),
    /// The frame pointer of the caller.
    CallerBp,
}

/// A stack that the code has gone over to, and the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away {
    /// The rule in force there, if the state cannot tell it.
    pub(super) rule: Option<Rule>,
    /// The stack pointer that was left, and that the code returns to.
    pub(super) left: Address,
}

/// The state before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    registers: [Option<Value>; 16],
    slots: BTreeMap<Address, Value>,
    pub(super) away: Option<Away>,
}

const RSP: usize = 4;
const RBP: usize = 5;

/// Registers that a called function need not preserve (System V ABI): rax, rcx, rdx, rsi, rdi, r8 to r11.
const CALLER_SAVED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

/// The index in [`Regs`] of each general register, in the order of their encodings.
const REGS: [u32; 16] = [
    Regs::RAX,
    Regs::RCX,
    Regs::RDX,
    Regs::RBX,
    Regs::RSP,
    Regs::RBP,
    Regs::RSI,
    Regs::RDI,
    Regs::R8,
    Regs::R9,
    Regs::R10,
    Regs::R11,
    Regs::R12,
    Regs::R13,
    Regs::R14,
    Regs::R15,
];

impl State {
    /// The state at a function's entry.
    pub(super) fn entry() -> Self {
        let mut registers = [None; 16];
        registers[RSP] = Some(Value::Address((Base::Entry, 0)));
        registers[RBP] = Some(Value::CallerBp);
        Self {
            registers,
            slots: BTreeMap::new(),
            away: None,
        }
    }

    /// The stack pointer.
    pub(super) fn stack_pointer(&self) -> Option<Address> {
        self.address_in(RSP)
    }

    /// How far the stack pointer is above its value at entry, if that is known.
    pub(super) fn stack_offset(&self) -> Option<i64> {
        match self.stack_pointer() {
            Some((Base::Entry, offset)) => Some(offset),
            _ => None,
        }
    }

    /// Makes `address` the stack pointer.
    pub(super) fn set_stack_pointer(&mut self, address: Address) {
        self.registers[RSP] = Some(Value::Address(address));
    }

    /// The frame pointer is not to be relied on.
    pub(super) fn forget_frame_pointer(&mut self) {
        self.registers[RBP] = None;
    }

    fn address_in(&self, register: usize) -> Option<Address> {
        match self.registers[register] {
            Some(Value::Address(address)) => Some(address),
            _ => None,
        }
    }

    /// What is true in both states, for an instruction at `ip` that both lead to.
    pub(super) fn meet(&mut self, mut other: Self, ip: u64) {
        let met = Base::MetAt(ip);
        if self.stack_pointer() != other.stack_pointer() {
            // Each time that the instruction is reached, what it is reached with gets this name anew.
            for state in [&mut *self, &mut other] {
                if state.stack_pointer() != Some((met, 0)) {
                    state.drop_base(met);
                    state.set_stack_pointer((met, 0));
                }
            }
        }
        for (mine, other) in self.registers.iter_mut().zip(other.registers) {
            if *mine != other {
                *mine = None;
            }
        }
        self.slots
            .retain(|slot, value| other.slots.get(slot) == Some(value));
        if self.away != other.away {
            self.away = None;
        }
    }

    fn drop_base(&mut self, base: Base) {
        let of_base = |value: &Value| matches!(value, Value::Address((b, _)) if *b == base);
        for register in &mut self.registers {
            register.take_if(|value| of_base(value));
        }
        self.slots.retain(|slot, value| slot.0 != base && !of_base(value));
    }

    /// The state after `instruction`, if it goes on to the next one.
    pub(super) fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Add | Mnemonic::Sub
                if instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64() =>
            {
                let value = self.computed(instruction);
                self.assign(instruction.op0_register().number(), value, instruction.ip());
            }
            Mnemonic::Mov
                if instruction.op0_kind() == OpKind::Memory
                    && instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register().is_gpr64() =>
            {
                let value = self.registers[instruction.op1_register().number()];
                if let Some(address) = self.memory(instruction) {
                    self.store(address, 8, value);
                }
            }
            Mnemonic::Push if instruction.stack_pointer_increment() == -8 => {
                let value = match instruction.op0_kind() {
                    OpKind::Register if instruction.op0_register().is_gpr64() => {
                        self.registers[instruction.op0_register().number()]
                    }
                    OpKind::Memory => self.memory(instruction).and_then(|slot| self.load(slot)),
                    _ => None,
                };
                self.push(value);
            }
            Mnemonic::Pop
                if instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64() =>
            {
                let value = self.pop();
                self.assign(instruction.op0_register().number(), value, instruction.ip());
            }
            Mnemonic::Leave => {
                let value = self.registers[RBP].filter(|value| matches!(value, Value::Address(_)));
                self.assign(RSP, value, instruction.ip());
                self.registers[RBP] = self.pop();
            }
            Mnemonic::Call => {
                for register in CALLER_SAVED {
                    self.registers[register] = None;
                }
                self.drop_below_stack_pointer(0);
            }
            _ => self.other(instruction, info),
        }
    }

    /// What `mov`, `lea`, `add` or `sub` puts into its register.
    fn computed(&self, instruction: &Instruction) -> Option<Value> {
        let immediate = |i: &Instruction| i.try_immediate(1).ok().map(|n| n as i64);
        let moved = |by: Option<i64>| {
            let (base, offset) = self.address_in(instruction.op0_register().number())?;
            Some(Value::Address((base, offset.checked_add(by?)?)))
        };
        match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Mov, OpKind::Register) if instruction.op1_register().is_gpr64() => {
                self.registers[instruction.op1_register().number()]
            }
            (Mnemonic::Mov, OpKind::Memory) => self.memory(instruction).and_then(|slot| self.load(slot)),
            (Mnemonic::Lea, OpKind::Memory) => self.memory(instruction).map(Value::Address),
            (Mnemonic::Add, _) => moved(immediate(instruction)),
            (Mnemonic::Sub, _) => moved(immediate(instruction).and_then(i64::checked_neg)),
            _ => None,
        }
    }

    /// An instruction that is not followed: what it writes is unknown.
    fn other(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let info = info.info_options(instruction, InstructionInfoOptions::NONE);
        let writes = |access| {
            matches!(
                access,
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            )
        };
        for memory in info.used_memory().iter().filter(|memory| writes(memory.access())) {
            let base = memory.base().full_register();
            // Pushed words are dropped when the stack pointer comes back up.
            if memory.index() != Register::None || !base.is_gpr64() || is_thread_segment(memory.segment()) {
                continue;
            }
            if let Some((base, offset)) = self.address_in(base.number()) {
                let at = offset.wrapping_add(memory.displacement() as i64);
                let size = memory.memory_size().size().max(1) as i64;
                self.store((base, at), size, None);
            }
        }
        let moves_stack_pointer =
            instruction.is_stack_instruction() && instruction.stack_pointer_increment() != 0;
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            let register = used.register().full_register();
            if !register.is_gpr64() || register == Register::RSP && moves_stack_pointer {
                continue;
            }
            self.assign(register.number(), None, instruction.ip());
        }
        if moves_stack_pointer && let Some((base, offset)) = self.stack_pointer() {
            let by = i64::from(instruction.stack_pointer_increment());
            self.assign(
                RSP,
                Some(Value::Address((base, offset.wrapping_add(by)))),
                instruction.ip(),
            );
        }
    }

    /// The address of the memory operand, if it is on the stack.
    fn memory(&self, instruction: &Instruction) -> Option<Address> {
        let base = instruction.memory_base();
        if !base.is_gpr64()
            || instruction.memory_index() != Register::None
            || is_thread_segment(instruction.memory_segment())
        {
            return None;
        }
        let (base, offset) = self.address_in(base.number())?;
        Some((
            base,
            offset.checked_add(instruction.memory_displacement64() as i64)?,
        ))
    }

    fn assign(&mut self, register: usize, value: Option<Value>, ip: u64) {
        if register != RSP {
            self.registers[register] = value;
            return;
        }
        match value {
            Some(Value::Address(address)) => {
                self.set_stack_pointer(address);
                // The red zone (System V ABI): 128 bytes below the stack pointer keep their values.
                self.drop_below_stack_pointer(128);
            }
            _ => {
                let base = Base::SetAt(ip);
                self.drop_base(base);
                self.set_stack_pointer((base, 0));
            }
        }
    }

    fn drop_below_stack_pointer(&mut self, red_zone: i64) {
        if let Some((base, offset)) = self.stack_pointer() {
            let lowest = offset.saturating_sub(red_zone);
            self.slots.retain(|slot, _| slot.0 != base || slot.1 >= lowest);
        }
    }

    fn load(&self, address: Address) -> Option<Value> {
        self.slots.get(&address).copied()
    }

    fn store(&mut self, (base, offset): Address, size: i64, value: Option<Value>) {
        let written = (base, offset.saturating_sub(7))..(base, offset.saturating_add(size));
        self.slots.retain(|slot, _| !written.contains(slot));
        if let Some(value) = value
            && self.slots.len() < MAX_SLOTS
        {
            self.slots.insert((base, offset), value);
        }
    }

    fn push(&mut self, value: Option<Value>) {
        if let Some((base, offset)) = self.stack_pointer() {
            let slot = (base, offset.wrapping_sub(8));
            self.store(slot, 8, value);
            self.set_stack_pointer(slot);
        }
    }

    fn pop(&mut self) -> Option<Value> {
        let (base, offset) = self.stack_pointer()?;
        let value = self.load((base, offset));
        self.set_stack_pointer((base, offset.wrapping_add(8)));
        self.drop_below_stack_pointer(128);
        value
    }

    /// The rule for an instruction in this state: on the stack pointer if its distance from the entry is known,
    /// else on the frame pointer, else on a word of the stack that holds such an address, else on another
    /// register (which only the innermost frame can follow).
    pub(super) fn rule(&self, ext: &mut ExtTable) -> Rule {
        if let Some(rule) = self.away.and_then(|away| away.rule) {
            return rule;
        }
        // Distances are from the CFA, which is above the return address.
        let below_cfa = |register: usize| match self.address_in(register) {
            Some((Base::Entry, offset)) => 8_i64.checked_sub(offset).filter(|&distance| distance > 0),
            _ => None,
        };
        let saved_bp = self.saved_frame_pointer();
        let packed_bp = match saved_bp {
            ExtRule::BP_SAME => Some(None),
            ExtRule::BP_LOST => None,
            offset => Some(Some(i64::from(offset))),
        };
        for (register, pack) in [
            (RSP, Rule::sp as fn(i64, Option<i64>) -> Option<Rule>),
            (RBP, Rule::bp),
        ] {
            if let (Some(distance), Some(bp)) = (below_cfa(register), packed_bp)
                && let Some(rule) = pack(distance, bp)
            {
                // What becomes of other registers is not looked at.
                return rule.losing_r12();
            }
        }
        let on = |register: usize, flags, offset: i64, addend: i64| {
            Some(ExtRule {
                reg: REGS[register],
                flags,
                offset: i32::try_from(offset).ok()?,
                addend: i32::try_from(addend).ok()?,
                ra_offset: -8,
                bp_offset: saved_bp,
            })
        };
        let plain = |register| below_cfa(register).and_then(|distance| on(register, 0, distance, 0));
        let rule = plain(RSP)
            .or_else(|| plain(RBP))
            .or_else(|| {
                let (register, offset, addend) = self.slot_with_entry()?;
                on(register, ExtRule::DEREF, offset, addend)
            })
            .or_else(|| (0..16).find_map(plain));
        rule.map_or(Rule::NONE, |rule| ext.rule(rule))
    }

    /// Where the caller's frame pointer is, as [`ExtRule::bp_offset`] says it. Of several copies the one nearest
    /// to the return address counts: it was saved first.
    fn saved_frame_pointer(&self) -> i32 {
        if self.registers[RBP] == Some(Value::CallerBp) {
            return ExtRule::BP_SAME;
        }
        let saved = self
            .slots
            .iter()
            .rev()
            .find_map(|(slot, value)| match (slot, value) {
                ((Base::Entry, offset), Value::CallerBp) => i32::try_from(offset.checked_sub(8)?).ok(),
                _ => None,
            });
        saved.unwrap_or(ExtRule::BP_LOST)
    }

    /// A word of the stack, on rsp or rbp, that holds an address counted from the entry: the register, the
    /// word's distance from it, and the distance of the CFA from what the word holds.
    fn slot_with_entry(&self) -> Option<(usize, i64, i64)> {
        [RSP, RBP].into_iter().find_map(|register| {
            let (base, from) = self.address_in(register)?;
            self.slots.iter().find_map(|(slot, value)| match value {
                Value::Address((Base::Entry, held)) if slot.0 == base => {
                    Some((register, slot.1.checked_sub(from)?, 8_i64.checked_sub(*held)?))
                }
                _ => None,
            })
        })
    }
}

fn is_thread_segment(segment: Register) -> bool {
    matches!(segment, Register::FS | Register::GS)
}
