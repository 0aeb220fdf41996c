//! The shared tables, filled stack by stack.

use super::document::{Lib, Shared};
use super::{INCOMPLETE, category_of};
use crate::format::escape;
use crate::format::stack::Stack;
use crate::profile::{Frame, FrameId, Kind, Module, ModuleId, Profile};
use std::collections::HashMap;

/// The largest address that the front end takes.
const MAX_ADDRESS: u64 = i32::MAX as u64;

/// The type of a resource that is a library (`ResourceType`).
const LIBRARY: u32 = 1;

/// A frame of the table: ours, and what its stack says about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct InStack {
    frame: FrameId,
    /// How many functions, towards the root, it was inlined into.
    depth: u32,
    /// The function whose code it is.
    symbol: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Function {
    name: u32,
    resource: Option<u32>,
    source: Option<u32>,
    line: Option<u32>,
}

/// The tables, and the places of what is in them.
pub(super) struct Tables<'a> {
    profile: &'a Profile,
    shared: Shared,
    libs: Vec<Lib>,
    strings: HashMap<String, u32>,
    sources: HashMap<u32, u32>,
    resources: HashMap<ModuleId, u32>,
    /// Resources by path and build id.
    files: HashMap<(&'a str, Option<&'a str>), u32>,
    functions: HashMap<Function, u32>,
    symbols: HashMap<(u32, u32), u32>,
    frames: HashMap<InStack, u32>,
    notes: HashMap<String, u32>,
    stacks: HashMap<(Option<u32>, u32), u32>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            shared: Shared::default(),
            libs: Vec::new(),
            strings: HashMap::new(),
            sources: HashMap::new(),
            resources: HashMap::new(),
            files: HashMap::new(),
            functions: HashMap::new(),
            symbols: HashMap::new(),
            frames: HashMap::new(),
            notes: HashMap::new(),
            stacks: HashMap::new(),
        }
    }

    /// The place of a stack's leaf.
    pub(super) fn stack(&mut self, stack: &Stack<'_>) -> u32 {
        let mut leaf = None;
        if let Some(note) = &stack.note {
            let frame = self.note(note);
            leaf = Some(self.node(None, frame));
        }
        let (mut depth, mut symbol) = (0, None);
        for &id in &stack.frames {
            let frame = &self.profile.frames[id.0 as usize];
            if frame.inlined && leaf.is_some() {
                depth += 1;
            } else {
                depth = 0;
                symbol = self.symbol(frame);
            }
            let frame = self.frame(InStack {
                frame: id,
                depth,
                symbol,
            });
            leaf = Some(self.node(leaf, frame));
        }
        // A stack without a frame has a note.
        leaf.unwrap_or(0)
    }

    pub(super) fn finish(self) -> (Vec<Lib>, Shared) {
        (self.libs, self.shared)
    }

    fn node(&mut self, caller: Option<u32>, frame: u32) -> u32 {
        let table = &mut self.shared.stack_table;
        *self.stacks.entry((caller, frame)).or_insert_with(|| {
            table.frame.push(frame);
            table.prefix.push(caller);
            next(&mut table.length)
        })
    }

    fn frame(&mut self, key: InStack) -> u32 {
        if let Some(&at) = self.frames.get(&key) {
            return at;
        }
        let frame = &self.profile.frames[key.frame.0 as usize];
        let function = self.function(frame);
        let address = self.address(frame).unwrap_or(-1);
        let table = &mut self.shared.frame_table;
        table.address.push(address);
        table.inline_depth.push(key.depth);
        table.category.push(category_of(frame.kind));
        table.func.push(function);
        table.native_symbol.push(key.symbol);
        table.line.push(frame.line);
        let at = self.finish_frame();
        self.frames.insert(key, at);
        at
    }

    fn note(&mut self, note: &str) -> u32 {
        if let Some(&at) = self.notes.get(note) {
            return at;
        }
        let name = self.string(note);
        let function = self.push_function(Function {
            name,
            resource: None,
            source: None,
            line: None,
        });
        let table = &mut self.shared.frame_table;
        table.address.push(-1);
        table.inline_depth.push(0);
        table.category.push(INCOMPLETE);
        table.func.push(function);
        table.native_symbol.push(None);
        table.line.push(None);
        let at = self.finish_frame();
        self.notes.insert(note.to_owned(), at);
        at
    }

    /// The columns that are the same in every row.
    fn finish_frame(&mut self) -> u32 {
        let table = &mut self.shared.frame_table;
        table.subcategory.push(0);
        table.inner_window_id.push(0);
        table.column.push(None);
        next(&mut table.length)
    }

    fn function(&mut self, frame: &Frame) -> u32 {
        let name = self.string(&escape(&frame.function));
        let source = frame.file.as_ref().map(|file| self.source(&escape(file)));
        let resource = frame.module.map(|id| self.resource(id));
        self.push_function(Function {
            name,
            resource,
            source,
            line: frame.start_line,
        })
    }

    fn push_function(&mut self, function: Function) -> u32 {
        let table = &mut self.shared.func_table;
        *self.functions.entry(function.clone()).or_insert_with(|| {
            table.name.push(function.name);
            table.is_js.push(false);
            table.relevant_for_js.push(false);
            table.resource.push(function.resource.map_or(-1, i64::from));
            table.source.push(function.source);
            table.line_number.push(function.line);
            table.column_number.push(None);
            next(&mut table.length)
        })
    }

    /// The symbol that a function which is not inlined has; none for code without a name.
    fn symbol(&mut self, frame: &Frame) -> Option<u32> {
        let address = self.address(frame)?;
        if frame.kind == Kind::Unknown {
            return None;
        }
        let resource = self.resource(frame.module?);
        let name = self.string(&escape(&frame.function));
        let lib = self.shared.resource_table.lib[resource as usize];
        let table = &mut self.shared.native_symbols;
        let at = *self.symbols.entry((resource, name)).or_insert_with(|| {
            table.lib_index.push(lib);
            table.address.push(address);
            table.name.push(name);
            table.function_size.push(None);
            next(&mut table.length)
        });
        let lowest = &mut table.address[at as usize];
        *lowest = address.min(*lowest);
        Some(at)
    }

    /// Where a frame is in its object file.
    fn address(&self, frame: &Frame) -> Option<i64> {
        let module = &self.profile.modules[frame.module?.0 as usize];
        let offset = frame
            .address
            .checked_sub(module.start)?
            .checked_add(module.file_offset)?;
        (offset <= MAX_ADDRESS).then_some(offset as i64)
    }

    /// The resource of a module, and its library.
    fn resource(&mut self, id: ModuleId) -> u32 {
        if let Some(&at) = self.resources.get(&id) {
            return at;
        }
        let module = &self.profile.modules[id.0 as usize];
        // The mappings of one file are one library.
        let file = (&*module.path, module.build_id.as_deref());
        let at = match self.files.get(&file) {
            Some(&at) => at,
            None => {
                let lib = lib(module);
                let name = self.string(&lib.name);
                let table = &mut self.shared.resource_table;
                table.lib.push(self.libs.len());
                table.name.push(name);
                table.host.push(None);
                table.r#type.push(LIBRARY);
                self.libs.push(lib);
                next(&mut table.length)
            }
        };
        self.files.insert(file, at);
        self.resources.insert(id, at);
        at
    }

    fn source(&mut self, file: &str) -> u32 {
        let filename = self.string(file);
        let table = &mut self.shared.sources;
        *self.sources.entry(filename).or_insert_with(|| {
            table.id.push(None);
            table.filename.push(filename);
            table.start_line.push(1);
            table.start_column.push(1);
            table.source_map_url.push(None);
            next(&mut table.length)
        })
    }

    fn string(&mut self, text: &str) -> u32 {
        if let Some(&at) = self.strings.get(text) {
            return at;
        }
        let at = self.shared.string_array.len() as u32;
        self.shared.string_array.push(text.to_owned());
        self.strings.insert(text.to_owned(), at);
        at
    }
}

/// The place of the row that was just added.
fn next(length: &mut usize) -> u32 {
    let at = *length;
    *length += 1;
    at as u32
}

fn lib(module: &Module) -> Lib {
    let path = escape(&module.path).into_owned();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let build_id = module.build_id.as_deref().filter(|id| is_hexadecimal(id));
    Lib {
        arch: "x86_64",
        debug_name: name.clone(),
        name,
        debug_path: path.clone(),
        path,
        breakpad_id: build_id.and_then(breakpad_id).unwrap_or_default(),
        code_id: build_id.map(str::to_owned),
    }
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What Breakpad makes of a build id in hexadecimal: its first 16 bytes as a GUID, whose first three fields are
/// little-endian, and an age of 0.
fn breakpad_id(build_id: &str) -> Option<String> {
    let digits = build_id.get(..32)?.to_ascii_uppercase();
    let reversed = |from: usize, to: usize| -> String {
        (from..to)
            .step_by(2)
            .rev()
            .filter_map(|at| digits.get(at..at + 2))
            .collect()
    };
    Some(format!(
        "{}{}{}{}0",
        reversed(0, 8),
        reversed(8, 12),
        reversed(12, 16),
        digits.get(16..)?
    ))
}

#[cfg(test)]
mod tests {
    use super::breakpad_id;

    #[test]
    fn a_build_id_becomes_that_of_breakpad() {
        // From the documentation of fxprof-processed-profile and its crate debugid.
        assert_eq!(
            breakpad_id("d183da7fa4eba0f2c12ff4e9bd7d8d81f6b8ee2b").as_deref(),
            Some("7FDA83D1EBA4F2A0C12FF4E9BD7D8D810")
        );
        assert_eq!(breakpad_id("d183"), None);
    }
}
