//! The rows of one object, from everything that describes its code.

use super::kernel::SystemCalls;
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
    /// rules go to `ext`. `release` is called when a large part of the file has been read and is not needed again soon.
    pub fn read(
        file: &object::File<'_>,
        debug: Option<&object::File<'_>>,
        pclntab: Option<&Pclntab>,
        ext: &mut ExtTable,
        release: impl Fn(),
    ) -> Self {
        let text = dwarf::text(file);
        let code = |range| dwarf::code_of(file, range);
        let SystemCalls {
            signal_returns,
            clones,
        } = SystemCalls::find(&text, code, &release);
        let mut coverage = Coverage::default();
        let mut frames = dwarf::CallFrames::read(file, ext, &mut coverage);
        // Stripping takes `.debug_frame` away, which is all that some programs have.
        if let Some(debug) = debug.filter(|_| !dwarf::has_call_frames(file)) {
            frames.debug_frame = dwarf::CallFrames::read(debug, ext, &mut coverage).debug_frame;
        }
        release();
        // The first layer that covers an address counts: what can be nothing else, Go's own table for Go's code, then what
        // the program itself unwinds by.
        let mut layers = vec![signal_returns];
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
        rows.fill(kernel::clones(&clones, &rows, ext), &text);
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

#[cfg(test)]
mod tests {
    use super::ObjectRows;
    use crate::unwind::ExtTable;
    use std::path::Path;
    use std::process::Command;

    /// A program without `.eh_frame`, its debug file and the rest.
    fn build(folder: &Path) {
        let code = "int f(int x) { char a[x + 9]; a[x] = 1; __asm__(\"\" ::\"r\"(a)); return a[x]; }\n\
                    void _start(void) { f(7); for (;;); }\n";
        std::fs::write(folder.join("a.c"), code).unwrap();
        let run = |command: &str| {
            let mut words = command.split(' ');
            let mut command = Command::new(words.next().unwrap());
            assert!(
                command
                    .args(words)
                    .current_dir(folder)
                    .status()
                    .unwrap()
                    .success()
            );
        };
        run("gcc -g -O1 -nostdlib -static -fno-asynchronous-unwind-tables a.c -o whole");
        run("objcopy --only-keep-debug whole debug");
        run("strip whole -o stripped");
    }

    #[test]
    fn a_stripped_program_without_eh_frame_takes_its_rows_from_the_debug_file() {
        let folder = tempfile::tempdir().unwrap();
        build(folder.path());
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let (whole, debug, stripped) = (read("whole"), read("debug"), read("stripped"));
        let rows = |file: &[u8], debug: Option<&[u8]>| {
            let file = object::File::parse(file).unwrap();
            let debug = debug.map(|debug| object::File::parse(debug).unwrap());
            ObjectRows::read(&file, debug.as_ref(), None, &mut ExtTable::default(), || ())
        };
        let expected = rows(&whole, None);
        assert_eq!(expected.coverage.functions, 2);
        assert_ne!(
            rows(&stripped, None).bytes_without_rule(),
            expected.bytes_without_rule()
        );
        let with_debug = rows(&stripped, Some(&debug));
        assert_eq!(with_debug.bytes_without_rule(), expected.bytes_without_rule());
        assert_eq!(with_debug.coverage.functions, 2);
        // What the program has itself goes first, whatever the debug file says.
        let twice = rows(&whole, Some(&debug));
        assert_eq!(twice.coverage.functions, 2);
    }
}
