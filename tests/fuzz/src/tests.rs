//! Each target on what is known to be worth a look. A fuzzer goes on from there.

use crate::{Samples, TARGETS, find};
use profiler::addr::Svma;
use profiler::gopclntab::Pclntab;
use profiler::symbolize;
use profiler::unwind::{ExtTable, ObjectRows};
use std::path::Path;

/// Numbers that look random and are the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

#[test]
fn every_target_survives_its_seeds_and_simple_damages_of_them() {
    let samples = Samples::build(false).unwrap();
    for target in TARGETS {
        for seed in samples.of(target.name).unwrap() {
            (target.run)(&seed);
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for _ in 0..40 {
                let mut damaged = seed.clone();
                damaged.truncate(1 + random.below(seed.len() * 2));
                for _ in 0..1 + random.below(4) {
                    let at = random.below(damaged.len());
                    damaged[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)];
                }
                (target.run)(&damaged);
            }
        }
        (target.run)(&[]);
    }
}

#[test]
fn the_seeds_of_tables_are_tables() {
    let samples = Samples::build(true).unwrap();
    let go = &samples.of("go").unwrap()[0];
    let (elf, _) = crate::elf::file(go);
    let bytes = bytes::Bytes::from(elf);
    let file = object::File::parse(&*bytes).unwrap();
    let pclntab = Pclntab::find(&file, &bytes).unwrap().expect("Go functions");
    assert!(pclntab.functions().count() > 1000);
    assert!(
        pclntab
            .functions_named("main.main")
            .all(|function| !pclntab.inline_stack(function.entry()).is_empty())
    );

    let mut ext = ExtTable::default();
    for frames in samples.of("call_frames").unwrap() {
        let (elf, _) = crate::elf::file(&frames);
        let file = object::File::parse(&*elf).unwrap();
        assert!(
            ObjectRows::read(&file, None, None, &mut ext, || ())
                .rows
                .as_slice()
                .len()
                > 1
        );
    }
    let (elf, addresses) = crate::elf::file(&samples.of("dwarf").unwrap()[0]);
    let object = symbolize::Object::parse(elf.into(), None).unwrap();
    let names: Vec<_> = addresses
        .iter()
        .filter_map(|at| object.lookup(Svma(*at)).ok())
        .flatten()
        .collect();
    assert!(names.iter().any(|name| name.function == "leaf"), "{names:?}");
}

#[test]
fn what_a_fuzzer_has_found_once_is_found_no_more() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for folder in std::fs::read_dir(found).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let target = find(&name.to_string_lossy()).unwrap_or_else(|| panic!("{name:?} is no target"));
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            (target.run)(&std::fs::read(file.path()).unwrap());
        }
    }
}
