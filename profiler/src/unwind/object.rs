//! The rows of one object, from everything that describes its code.

use super::{Coverage, ExtTable, Rows, bare, dwarf, go, kernel};
use crate::addr::Svma;
use crate::gopclntab::Pclntab;
use object::Object as _;
use std::ops::Range;

/// What is known of an object's code.
#[derive(Debug, Default)]
pub struct ObjectRows {
    /// The rows.
    pub rows: Rows,
    /// Where the object has code.
    pub text: Vec<Range<Svma>>,
    /// What its call frame information was worth.
    pub coverage: Coverage,
    /// Functions of its Go runtime through which chains may break. Whole sentences without the final stop.
    pub unknown_shapes: Vec<String>,
}

impl ObjectRows {
    /// Reads the rows of `file`, whose Go functions are in `pclntab`, and whose separate debug file is `debug`. Extended
    /// rules go to `ext`.
    pub fn read(
        file: &object::File<'_>,
        debug: Option<&object::File<'_>>,
        pclntab: Option<&Pclntab>,
        ext: &mut ExtTable,
    ) -> Self {
        let mut coverage = Coverage::default();
        let mut frames = dwarf::CallFrames::read(file, ext, &mut coverage);
        // Stripping takes `.debug_frame` away, which is all that some programs have.
        if let Some(debug) = debug.filter(|_| !dwarf::has_call_frames(file)) {
            frames.debug_frame = dwarf::CallFrames::read(debug, ext, &mut coverage).debug_frame;
        }
        let text = dwarf::text(file);
        let code = |range| dwarf::code_of(file, range);
        // The first layer that covers an address counts: what can be nothing else, Go's own table for Go's code, then what
        // the program itself unwinds by.
        let mut layers = vec![kernel::signal_returns(&text, code)];
        let mut unknown_shapes = Vec::new();
        if let Some(pclntab) = pclntab {
            let go = go::read(pclntab, code, ext);
            unknown_shapes = go.unknown_shapes;
            layers.push(go.layer);
        }
        layers.extend([frames.eh_frame, frames.debug_frame]);
        layers.push(kernel::start(Svma(file.entry()), &text, code));
        let mut rows = Rows::overlay(layers, &text);
        rows.fill(bare::read(file, &rows, code, ext), &text);
        Self {
            rows,
            text,
            coverage,
            unknown_shapes,
        }
    }

    /// How many bytes of code the object has.
    pub fn text_bytes(&self) -> u64 {
        // No rows leave all of it without a rule; ranges that overlap count once.
        Rows::default().bytes_without_rule(&self.text)
    }

    /// How many of them have no rule.
    pub fn bytes_without_rule(&self) -> u64 {
        self.rows.bytes_without_rule(&self.text)
    }
}
