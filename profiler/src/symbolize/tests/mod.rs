//! Lookups in real files: compiled here and now, with what the compilers of this machine make of them.
//!
//! Sources mark instructions with labels in assembly and lines with comments, so that expectations name neither
//! addresses nor numbers of lines.

mod c;
mod cpp;
mod hostile;
mod rust;
mod separate;

use super::{Name, Object, Reason};
use crate::addr::Svma;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A program that was compiled from one source file.
struct Program {
    folder: TempDir,
    source: &'static str,
    path: PathBuf,
}

impl Program {
    /// Compiles with `compiler OPTIONS SOURCE -o PATH`, split at spaces.
    fn new(source: &'static str, extension: &str, compiler: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("source").with_extension(extension);
        std::fs::write(&file, source).unwrap();
        let path = folder.path().join("program");
        let mut words = compiler.split(' ').filter(|word| !word.is_empty());
        run(Command::new(words.next().unwrap())
            .args(words)
            .arg(&file)
            .arg("-o")
            .arg(&path)
            .current_dir(folder.path()));
        Self { folder, source, path }
    }

    /// Another file beside the program.
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn object(&self) -> Object {
        Object::parse(read(&self.path), None).unwrap()
    }

    /// The number of the only line with that text.
    fn line(&self, text: &str) -> Option<u32> {
        let mut lines = (1..)
            .zip(self.source.lines())
            .filter(|(_, line)| line.contains(text));
        let (number, _) = lines.next().unwrap();
        assert!(lines.next().is_none(), "{text} is on several lines");
        Some(number)
    }

    /// The address of a symbol, as `nm` has it.
    fn address(&self, symbol: &str) -> Svma {
        let symbols = symbols_of(&self.path, &[]);
        let found = symbols.iter().find(|(_, _, name)| name == symbol);
        found
            .unwrap_or_else(|| panic!("no symbol {symbol} in {symbols:?}"))
            .0
    }

    /// What the file says about the address of a label.
    fn names_at(&self, label: &str) -> Vec<Name> {
        self.object().lookup(self.address(label)).unwrap()
    }

    /// Function, line, line of the declaration and whether it is inlined, at a label.
    fn shown_at(&self, label: &str) -> Vec<(String, Option<u32>, Option<u32>, bool)> {
        let names = self.names_at(label).into_iter();
        names
            .map(|name| (name.function, name.line, name.start_line, name.inlined))
            .collect()
    }
}

fn read(path: &Path) -> Bytes {
    Bytes::from(std::fs::read(path).unwrap())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The defined symbols of a file, as address, kind and name.
fn symbols_of(path: &Path, options: &[&str]) -> Vec<(Svma, char, String)> {
    let text = run(Command::new("nm").arg("--defined-only").args(options).arg(path));
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let address = u64::from_str_radix(words[0], 16).unwrap();
            (
                Svma(address),
                words[1].chars().next().unwrap(),
                words[2].to_owned(),
            )
        })
        .collect()
}

fn functions(names: &[Name]) -> Vec<&str> {
    names.iter().map(|name| name.function.as_str()).collect()
}
