//! The code that a process has mapped, and names for addresses in it.

use crate::addr::{Avma, Bias};
use crate::debuginfo::{Places, Roots, Symbols};
use crate::explain::explain;
use crate::gopclntab::Pclntab;
use crate::target::files;
use crate::target::maps::MapEntry;
use crate::target::process::{self, Process};
use crate::unwind::{ExtTable, ObjectRows};
use bytes::Bytes;

/// An object, or code without one, that a process can execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// What the process calls it; empty for anonymous memory.
    pub name: String,
    /// In how many mappings it is.
    pub mappings: usize,
    /// Their size together, in bytes.
    pub mapped_bytes: u64,
    /// How much of it has unwind rules; or why there is no object, as half a sentence.
    pub rules: Result<Covered, String>,
    /// What is not understood about it: whole sentences without the final stop.
    pub problems: Vec<String>,
}

/// How much of an object's code has unwind rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Size of its code, in bytes.
    pub text_bytes: u64,
    /// How much of it has no rule: there, the walk goes on by frame pointers.
    pub bytes_without_rule: u64,
}

/// Where an address of the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: Avma,
    /// What the process calls the object there; empty for anonymous memory, `None` if there is no code.
    pub object: Option<String>,
    /// The address as the object states it.
    pub stated: Option<u64>,
    /// The function; or why it has no name.
    pub symbol: Result<String, String>,
}

/// What is read of one [`Code`].
pub(super) struct Loaded {
    pub(super) code: Code,
    pub(super) entries: Vec<MapEntry>,
    /// The file and its names, if it is an object.
    pub(super) object: Option<(Bytes, Symbols)>,
    pub(super) pclntab: Option<Pclntab>,
}

/// All code of a process.
pub(super) struct Objects(pub(super) Vec<Loaded>);

impl Objects {
    /// Reads what `process` has mapped.
    pub(super) fn read(process: &Process) -> Result<Self, process::Error> {
        let mut ext = ExtTable::default();
        let places = Roots::default().places(process.pid);
        let objects = group(process.maps()?)
            .into_iter()
            .map(|entries| Loaded::read(process, &places, entries, &mut ext));
        Ok(Self(objects.collect()))
    }

    /// Where an address is.
    pub(super) fn place(&self, address: Avma) -> Place {
        let found = self.0.iter().find_map(|loaded| {
            let holds = |entry: &&MapEntry| (entry.start..entry.end).contains(&address.0);
            Some((loaded, loaded.entries.iter().find(holds)?))
        });
        let Some((loaded, entry)) = found else {
            return Place {
                address,
                object: None,
                stated: None,
                symbol: Err("there is no code".to_owned()),
            };
        };
        let stated = loaded.bias_of(entry).map(|bias| address.to_svma(bias));
        let symbol = match (&loaded.object, stated) {
            (Some((_, symbols)), Some(stated)) => symbols
                .lookup(stated)
                .map(|names| {
                    names
                        .last()
                        .map_or_else(String::new, |name| name.function.clone())
                })
                .map_err(|reason| symbols.explain(&reason)),
            _ => Err("the code is in no object file".to_owned()),
        };
        Place {
            address,
            object: Some(loaded.code.name.clone()),
            stated: stated.map(|stated| stated.0),
            symbol,
        }
    }

    pub(super) fn into_code(self) -> Vec<Code> {
        self.0.into_iter().map(|loaded| loaded.code).collect()
    }
}

impl Loaded {
    fn read(process: &Process, places: &Places, entries: Vec<MapEntry>, ext: &mut ExtTable) -> Self {
        let name = entries
            .first()
            .map(|entry| entry.name.clone())
            .unwrap_or_default();
        let mut loaded = Self {
            code: Code {
                name,
                mappings: entries.len(),
                mapped_bytes: entries.iter().map(|entry| entry.end - entry.start).sum(),
                rules: Err(String::new()),
                problems: Vec::new(),
            },
            entries,
            object: None,
            pclntab: None,
        };
        loaded.code.rules = loaded.read_object(process, places, ext);
        loaded
    }

    fn read_object(
        &mut self,
        process: &Process,
        places: &Places,
        ext: &mut ExtTable,
    ) -> Result<Covered, String> {
        let Some(entry) = self.entries.first() else {
            return Err("not mapped".into());
        };
        let data = files::contents(process, entry)
            .map_err(|error| explain(&error))?
            .bytes;
        let file = object::File::parse(&data[..]).map_err(|error| error.to_string())?;
        let symbols =
            Symbols::open(data.clone(), entry.path(), places.clone()).map_err(|error| error.to_string())?;
        match Pclntab::find(&file, &data) {
            Ok(pclntab) => self.pclntab = pclntab,
            Err(error) => {
                let problem = format!("its table of Go functions cannot be used: {error}");
                self.code.problems.push(problem);
            }
        }
        let debug = symbols
            .debug_file()
            .and_then(|bytes| object::File::parse(&bytes[..]).ok());
        let rows = ObjectRows::read(&file, debug.as_ref(), self.pclntab.as_ref(), ext, || ());
        self.code.problems.extend(rows.unknown_shapes.iter().cloned());
        self.code.problems.extend(symbols.refused());
        let covered = Covered {
            text_bytes: rows.text_bytes(),
            bytes_without_rule: rows.bytes_without_rule(),
        };
        self.object = Some((data.clone(), symbols));
        Ok(covered)
    }

    /// The bias of the object where its first mapping is.
    pub(super) fn bias(&self) -> Option<Bias> {
        self.bias_of(self.entries.first()?)
    }

    fn bias_of(&self, entry: &MapEntry) -> Option<Bias> {
        let (_, symbols) = self.object.as_ref()?;
        // The vDSO is an image in memory: the kernel maps its one segment from the start.
        let offset = if entry.is_file() { entry.offset } else { 0 };
        let stated = symbols.object().svma_of_offset(offset)?;
        Some(Bias(entry.start.wrapping_sub(stated.0)))
    }
}

/// The executable mappings by what they are of, in the order in which that comes first.
fn group(maps: Vec<MapEntry>) -> Vec<Vec<MapEntry>> {
    let mut groups: Vec<Vec<MapEntry>> = Vec::new();
    for entry in maps.into_iter().filter(|entry| entry.executable) {
        let same = |group: &&mut Vec<MapEntry>| {
            let first = group.first();
            first.is_some_and(|first| first.file == entry.file && first.name == entry.name)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::{Objects, group};
    use crate::addr::Avma;
    use crate::target::maps;
    use crate::target::process::Process;

    #[test]
    fn mappings_of_the_same_are_one_and_data_is_none() {
        let text = b"1000-2000 r-xp 00000000 fe:01 7 /a\n2000-3000 rw-p 00001000 fe:01 7 /a\n\
            3000-4000 r-xp 00002000 fe:01 7 /a\n4000-5000 r-xp 00000000 fe:01 8 /a\n\
            5000-6000 rwxp 00000000 00:00 0 \n7000-8000 rwxp 00000000 00:00 0 \n";
        let groups = group(maps::parse(text).0);
        let starts: Vec<Vec<u64>> = groups
            .iter()
            .map(|group| group.iter().map(|entry| entry.start).collect())
            .collect();
        assert_eq!(starts, [vec![0x1000, 0x3000], vec![0x4000], vec![0x5000, 0x7000]]);
    }

    #[test]
    fn our_own_code_has_rules_and_names() {
        let us = Process::open(std::process::id()).expect("we exist");
        let objects = Objects::read(&us).expect("we can be looked at");
        let here = our_own_code_has_rules_and_names as *const () as u64;
        let place = objects.place(Avma(here));
        let name = place.symbol.expect("tests are not stripped");
        assert!(name.ends_with("our_own_code_has_rules_and_names"), "{name}");
        let nowhere = objects.place(Avma(16));
        assert_eq!((nowhere.object, nowhere.stated), (None, None));
        assert!(nowhere.symbol.is_err());

        let code = objects.into_code();
        let own = code.iter().find(|code| Some(&code.name) == place.object.as_ref());
        let covered = own.and_then(|own| own.rules.clone().ok()).expect("an object");
        assert!(covered.text_bytes > 1 << 20, "{covered:?}");
        assert!(
            covered.bytes_without_rule * 10 < covered.text_bytes,
            "{covered:?}"
        );
        let vdso = code
            .iter()
            .find(|code| code.name == "[vdso]")
            .expect("there is one");
        assert!(vdso.rules.is_ok(), "{vdso:?}");
    }
}
