//! Which functions of the source an instruction belongs to (`inlineUnwinder` in runtime/symtabinl.go).

use super::Pclntab;
use super::function::Function;
use crate::addr::Svma;
use crate::words::u32_at;

/// `abi.PCDATA_InlTreeIndex`.
const PCDATA_INL_TREE_INDEX: u32 = 2;
/// `abi.FUNCDATA_InlTree`.
const FUNCDATA_INL_TREE: u8 = 3;

// Offsets in `runtime.inlinedCall`, the same in Go 1.21–1.27.
const CALL_FUNC_ID: usize = 0;
const CALL_NAME_OFF: usize = 4;
const CALL_PARENT_PC: usize = 8;
const CALL_START_LINE: usize = 12;
const CALL_SIZE: usize = 16;

/// The most runs of tables that finding one stack may look at. Ordinary functions need hundreds, the largest
/// generated ones some hundred thousand.
const BUDGET: u32 = 1 << 22;

/// One function of the source, of those that an instruction belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalFrame<'a> {
    /// See [`Function::name`].
    pub name: &'a str,
    /// As the compiler was given it, or as `-trimpath` made it; empty if unknown.
    pub file: &'a str,
    /// The line that is executing, or that holds the inlined call of the next inner frame; 0 if unknown.
    pub line: u32,
    /// The line of the `func` keyword.
    pub start_line: u32,
    /// See [`Function::func_id`].
    pub func_id: u8,
    /// Whether Go hides the frame.
    pub wrapper: bool,
}

/// An entry of an inline tree.
struct InlinedCall {
    func_id: u8,
    name: i32,
    parent: u32,
    start_line: u32,
}

impl InlinedCall {
    fn read(trees: &[u8], tree: usize, index: usize) -> Option<Self> {
        let at = index.checked_mul(CALL_SIZE)?.checked_add(tree)?;
        let entry = trees.get(at..)?.first_chunk::<CALL_SIZE>()?;
        Some(Self {
            func_id: entry[CALL_FUNC_ID],
            name: u32_at(entry, CALL_NAME_OFF)?.cast_signed(),
            parent: u32_at(entry, CALL_PARENT_PC)?,
            start_line: u32_at(entry, CALL_START_LINE)?,
        })
    }
}

impl Pclntab {
    /// The functions of the source that the instruction at `pc` belongs to, innermost first; the last is the
    /// machine's function. For a return address pass the address minus one: the call, not what follows it.
    ///
    /// Empty if `pc` is in no Go function.
    pub fn inline_stack(&self, pc: Svma) -> Vec<LogicalFrame<'_>> {
        let mut frames = Vec::new();
        let Some(function) = self.lookup(pc) else {
            return frames;
        };
        let tree = function.funcdata(FUNCDATA_INL_TREE);
        let mut offset = (pc.0 - function.entry().0) as u32;
        let mut budget = BUDGET;
        let Some(mut source) = function.source(offset, &mut budget) else {
            return frames;
        };
        let mut outer = i32::MAX;
        while let Some(tree) = tree {
            let index = function.pcdata(PCDATA_INL_TREE_INDEX, offset, &mut budget);
            // A call is always entered into the tree before the calls inlined into it, so that indices fall.
            let Some(index) = index.filter(|&i| i < outer) else {
                break;
            };
            let call = usize::try_from(index)
                .ok()
                .and_then(|index| InlinedCall::read(&self.trees, tree, index));
            let Some(call) = call else {
                break;
            };
            frames.push(LogicalFrame {
                name: self.name_at(call.name),
                file: source.0,
                line: source.1,
                start_line: call.start_line,
                func_id: call.func_id,
                wrapper: self.is_wrapper(call.func_id),
            });
            outer = index;
            offset = call.parent;
            source = function.source(offset, &mut budget).unwrap_or_default();
        }
        frames.push(LogicalFrame {
            name: function.name(),
            file: source.0,
            line: source.1,
            start_line: function.start_line(),
            func_id: function.func_id(),
            wrapper: function.is_wrapper(),
        });
        frames
    }

    /// Whether the inline trees of this table make sense if they are counted from the start of `trees`: there
    /// are some, and the first call of each of the first trees has a name that starts where a name starts, and a
    /// caller in the function.
    pub(super) fn trees_fit(&self, trees: &[u8]) -> bool {
        const ENOUGH: usize = 32;
        let with_tree = self
            .functions()
            .filter_map(|f| Some((f, f.funcdata(FUNCDATA_INL_TREE)?)));
        let mut with_tree = with_tree.take(ENOUGH).peekable();
        with_tree.peek().is_some()
            && with_tree.all(|(function, tree)| {
                InlinedCall::read(trees, tree, 0).is_some_and(|call| self.call_fits(&function, &call))
            })
    }

    fn call_fits(&self, function: &Function<'_>, call: &InlinedCall) -> bool {
        let name_starts = match usize::try_from(call.name) {
            Ok(0) => true,
            Ok(at) => self.names.get(at - 1) == Some(&0),
            Err(_) => false,
        };
        name_starts && !self.name_at(call.name).is_empty() && call.parent < function.size()
    }
}
