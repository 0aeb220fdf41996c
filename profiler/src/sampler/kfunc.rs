//! Kernel functions that not every kernel has: see [`profiler_abi::kfunc`]. The library that loads the object knows
//! helpers and functions of the object only, so their calls are made what they are to be before it sees them.

use super::btf::Btf;
use profiler_abi::kfunc::{MISSING, SEND_SIGNAL_TASK};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL` (Documentation/bpf/standardization/instruction-set.rst); registers and offset follow.
const CALL: u8 = 0x85;
/// The call is one of a kernel function: `BPF_PSEUDO_KFUNC_CALL` as source register.
const KFUNC: u8 = 2 << 4;
/// `BPF_ALU64 | BPF_MOV | BPF_K`, to register 0: the result of a call.
const RESULT: u8 = 0xb7;

/// The id of `bpf_send_signal_task`, if the running kernel has it.
pub fn send_signal_task(kernel: &Btf) -> Option<u32> {
    kernel.function("bpf_send_signal_task")
}

/// `object` with its calls of [`SEND_SIGNAL_TASK`] as those of the function with this id; `None` if there are none, which
/// its sources have.
pub fn resolve(object: &[u8], function: Option<u32>) -> Option<Vec<u8>> {
    let marked = instruction(CALL, 0, SEND_SIGNAL_TASK);
    let meant = match function {
        Some(id) => instruction(CALL, KFUNC, id),
        None => instruction(RESULT, 0, MISSING.cast_unsigned()),
    };
    let mut resolved = object.to_vec();
    // Code is aligned in the object file to the size of an instruction.
    let (instructions, _) = resolved.as_chunks_mut::<INSTRUCTION>();
    let mut found = false;
    for call in instructions.iter_mut().filter(|bytes| **bytes == marked) {
        *call = meant;
        found = true;
    }
    found.then_some(resolved)
}

fn instruction(code: u8, registers: u8, immediate: u32) -> [u8; INSTRUCTION] {
    let [a, b, c, d] = immediate.to_le_bytes();
    [code, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::{SEND_SIGNAL_TASK, resolve};

    #[test]
    fn a_marked_call_becomes_the_one_that_the_kernel_has_or_a_result() {
        let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
        let marked = [0x85, 0, 0, 0, 1, 0, 0x66, 0x6b];
        assert_eq!(marked[4..], SEND_SIGNAL_TASK.to_le_bytes());
        let object = [exit, marked, exit].concat();
        let call = [0x85, 0x20, 0, 0, 0x34, 0x12, 0, 0];
        assert_eq!(resolve(&object, Some(0x1234)), Some([exit, call, exit].concat()));
        let missing = [0xb7, 0, 0, 0, 0xda, 0xff, 0xff, 0xff];
        assert_eq!(resolve(&object, None), Some([exit, missing, exit].concat()));
    }

    #[test]
    fn an_object_without_the_call_is_none_of_ours() {
        assert_eq!(resolve(&[0; 64], Some(1)), None);
        assert!(resolve(super::super::OBJECT, None).is_some());
    }
}
