//! Giving names to places, each once, and making a profile of the counts.

use super::collect::{Area, Collected, Key, Place, PlaceIdx};
use super::images::{Content, Module, ModuleIdx, Modules};
use super::naming::Naming;
use super::objects::Object;
use crate::addr::{Avma, Svma};
use crate::hooks::symbolizer::Function;
use crate::profile::{
    Builder, DebugFile, Frame, FrameId, Kind, Meta, Missing, Module as ProfileModule, ModuleId, Profile,
    Summary, Thread,
};
use crate::symbolize::{Kallsyms, KernelSymbol, Name, PerfMap, Reason};
use crate::target::maps::MapEntry;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// What the places of one area are called: for each its frames, innermost first; or why it has no name, and what would
/// give it one.
type Names = Vec<(PlaceIdx, Result<Vec<Name>, String>)>;

/// Makes the profile.
pub fn profile(
    collected: &Collected,
    modules: &Modules,
    naming: &Naming,
    processes: &HashMap<u32, Arc<str>>,
    meta: Meta,
    mut summary: Summary,
) -> Profile {
    let mut by_area: BTreeMap<Area, Vec<PlaceIdx>> = BTreeMap::new();
    for (i, place) in collected.places.iter().enumerate() {
        by_area.entry(place.area).or_default().push(PlaceIdx(i as u32));
    }
    let names = name_all(&by_area, collected, modules, naming);

    let mut builder = Builder::default();
    let kernel = by_area.contains_key(&Area::Kernel).then(|| {
        builder.module(ProfileModule {
            path: "[kernel]".into(),
            build_id: None,
            start: 0xffff_8000_0000_0000,
            end: u64::MAX,
            file_offset: 0,
        })
    });
    let mut module_ids: HashMap<ModuleIdx, ModuleId> = HashMap::new();
    for area in by_area.keys() {
        if let Area::Module(at) = area {
            module_ids.insert(*at, builder.module(profile_module(modules.get(*at))));
        }
    }
    let mut frames: HashMap<PlaceIdx, Vec<FrameId>> = HashMap::new();
    let mut nameless: HashMap<PlaceIdx, String> = HashMap::new();
    for (at, named) in names.into_iter().flatten() {
        let place = &collected.places[at.0 as usize];
        let module = match place.area {
            Area::Kernel => kernel,
            Area::Module(module) => module_ids.get(&module).copied(),
            Area::Nowhere => None,
        };
        let logical = named.unwrap_or_else(|reason| {
            nameless.insert(at, reason);
            vec![nameless_name(place, modules)]
        });
        let ids = logical
            .into_iter()
            .map(|name| {
                builder.frame(Frame {
                    function: name.function,
                    system_name: name.system_name,
                    file: name.file,
                    line: name.line,
                    start_line: name.start_line,
                    module,
                    address: place.address.0,
                    kind: name.kind,
                    origin: place.origin,
                    inlined: name.inlined,
                })
            })
            .collect();
        frames.insert(at, ids);
    }

    let mut missing: HashMap<String, (u64, String)> = HashMap::new();
    for (key, &count) in &collected.counts {
        let thread = builder.thread(Thread {
            pid: key.tgid,
            tid: key.tid,
            name: key.comm.clone(),
            process: process_name(key, processes),
        });
        let root_first = key.stack.iter().rev().flat_map(|at| {
            frames
                .get(at)
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .rev()
                .copied()
        });
        let labels = builder.labels(key.labels.clone());
        builder.labelled(thread, labels, root_first, key.stop, key.from_kernel, count);
        *summary.by_stop.entry(key.stop).or_default() += count;
        if key.from_kernel {
            summary.from_kernel += count;
        }
        let mut seen = HashSet::new();
        for at in &key.stack {
            if let Some(reason) = nameless.get(at) {
                let module = module_name(&collected.places[at.0 as usize], modules);
                if seen.insert(module.clone()) {
                    missing.entry(module).or_insert_with(|| (0, reason.clone())).0 += count;
                }
            }
        }
    }
    summary.missing = missing
        .into_iter()
        .map(|(module, (samples, reason))| Missing {
            module,
            samples,
            reason,
        })
        .collect();
    summary
        .missing
        .sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.module.cmp(&b.module)));
    summary.debug_files = debug_files(module_ids.keys().map(|at| modules.get(*at)));
    builder.finish(meta, summary)
}

/// What the process of a stack is called.
fn process_name(key: &Key, processes: &HashMap<u32, Arc<str>>) -> String {
    if !key.process.is_empty() {
        return key.process.to_string();
    }
    // Its first samples came before it was looked at.
    match processes.get(&key.tgid) {
        Some(name) if key.tid != key.tgid => name.to_string(),
        _ => key.comm.clone(),
    }
}

/// What became of separate debug files of modules that frames are in, by module.
fn debug_files<'a>(modules: impl Iterator<Item = &'a Module>) -> Vec<DebugFile> {
    let of_module = |module: &Module| {
        let name = file_name(&module.entry);
        let Content::Object(loaded, _) = &module.content else {
            return Vec::new();
        };
        let Ok(object) = loaded.object.lock() else {
            return Vec::new();
        };
        let refused = object.symbols.notes().into_iter().map(|outcome| DebugFile {
            module: name.clone(),
            outcome,
        });
        refused.collect()
    };
    let mut files: Vec<DebugFile> = modules.flat_map(of_module).collect();
    // An object can be mapped in several pieces.
    files.sort();
    files.dedup();
    files
}

/// Names the places of all areas, on as many threads as there are CPUs.
fn name_all(
    by_area: &BTreeMap<Area, Vec<PlaceIdx>>,
    collected: &Collected,
    modules: &Modules,
    naming: &Naming,
) -> Vec<Names> {
    let work = Mutex::new(by_area.iter());
    let results = Mutex::new(Vec::with_capacity(by_area.len()));
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(by_area.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // A poisoned lock means that another thread panicked; the scope passes that on.
                    let Some((area, places)) = work.lock().ok().and_then(|mut work| work.next()) else {
                        return;
                    };
                    let names = name_area(*area, places, collected, modules, naming);
                    if let Ok(mut results) = results.lock() {
                        results.push((*area, names));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    // In order of area: the profile of equal samples is equal.
    results.sort_by_key(|(area, _)| *area);
    results.into_iter().map(|(_, names)| names).collect()
}

fn name_area(
    area: Area,
    places: &[PlaceIdx],
    collected: &Collected,
    modules: &Modules,
    naming: &Naming,
) -> Names {
    let named = |look_up: &mut dyn FnMut(Avma) -> Result<Vec<Name>, String>| {
        places
            .iter()
            .map(|&at| {
                let place = &collected.places[at.0 as usize];
                let said = place.said.and_then(|said| naming.named(said));
                let functions = said.map_or(&[][..], |said| &said.functions);
                (at, told_or_found(functions, || look_up(place.address)))
            })
            .collect()
    };
    let each = |look_up: &dyn Fn(Avma) -> Result<Vec<Name>, Reason>| {
        named(&mut |address| look_up(address).map_err(|reason| reason.explain()))
    };
    match area {
        Area::Nowhere => each(&|_| Err(Reason::Unmapped)),
        Area::Kernel => {
            let text = std::fs::read("/proc/kallsyms").unwrap_or_default();
            let kallsyms = Kallsyms::parse(Bytes::from(text));
            each(&|address| kallsyms.lookup(address).map(|symbol| vec![kernel_name(symbol)]))
        }
        Area::Module(at) => {
            let module = modules.get(at);
            match &module.content {
                Content::Object(loaded, bias) => match loaded.object.lock() {
                    Ok(object) => named(&mut |address| {
                        let names = name_in_object(&object, address.to_svma(*bias));
                        names.map_err(|reason| object.symbols.explain(&reason))
                    }),
                    Err(_) => each(&|_| Err(Reason::Unmapped)),
                },
                Content::Pending => each(&|_| {
                    Err(Reason::Unreadable(
                        "the recording ended before it had been read".into(),
                    ))
                }),
                Content::Bare(why) if module.entry.is_file() => {
                    each(&|_| Err(Reason::Unreadable(why.clone())))
                }
                Content::Bare(_) => {
                    let map = perf_map(module.pid);
                    each(&|address| match &map {
                        Some(map) => map.lookup(address).map(|name| vec![name]),
                        None => Err(Reason::Anonymous { pid: module.pid }),
                    })
                }
            }
        }
    }
}

/// The functions at an address. What the program's own symbolizer says goes before what is found otherwise, unless it names
/// no function: some give the file that the code is in, and nothing else.
fn told_or_found(
    told: &[Function],
    find: impl FnOnce() -> Result<Vec<Name>, String>,
) -> Result<Vec<Name>, String> {
    let Some(last) = told.len().checked_sub(1) else {
        return find();
    };
    let names = || {
        let names = told.iter().enumerate().map(|(i, function)| {
            let (name, file) = (function.name.as_deref(), function.file.as_deref());
            Name::told(name, file, function.line, i < last)
        });
        names.collect()
    };
    if told.iter().any(|function| function.name.is_some()) {
        return Ok(names());
    }
    let mut found = find().unwrap_or_else(|_| names());
    // A symbol has no line, which the program may know.
    if let ([name], [function]) = (&mut found[..], told)
        && name.line.is_none()
        && function.line.is_some()
    {
        name.file.clone_from(&function.file);
        name.line = function.line;
    }
    Ok(found)
}

/// The map that a JIT compiler left, as the process sees `/tmp`; in a container it may go by another pid.
fn perf_map(pid: u32) -> Option<PerfMap> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
    let inner = inner.and_then(|pid| pid.parse().ok()).unwrap_or(pid);
    [
        format!("/proc/{pid}/root/tmp/perf-{inner}.map"),
        format!("/tmp/perf-{pid}.map"),
    ]
    .iter()
    .find_map(|path| std::fs::read(path).ok())
    .map(|text| PerfMap::parse(&Bytes::from(text)))
}

/// The functions at a stated address of an object: Go's by its own table, everything else by DWARF and symbols.
fn name_in_object(object: &Object, address: Svma) -> Result<Vec<Name>, Reason> {
    if let Some(pclntab) = &object.pclntab {
        let frames = pclntab.inline_stack(address);
        let n = frames.len();
        // Wrappers only adapt a calling convention or a method set; Go hides them in its own stacks too.
        let names: Vec<Name> = frames
            .into_iter()
            .enumerate()
            .filter(|(_, frame)| !frame.wrapper)
            .map(|(i, frame)| Name {
                function: frame.name.to_owned(),
                system_name: None,
                file: (!frame.file.is_empty()).then(|| frame.file.to_owned()),
                line: (frame.line != 0).then_some(frame.line),
                start_line: (frame.start_line != 0).then_some(frame.start_line),
                kind: Kind::Go,
                inlined: i + 1 < n,
            })
            .collect();
        if n > 0 {
            return Ok(names);
        }
    }
    object.symbols.lookup(address)
}

fn kernel_name(symbol: KernelSymbol) -> Name {
    let KernelSymbol { mut name, module } = symbol;
    if let Some(module) = module {
        name.system_name = Some(format!("{} [{module}]", name.function));
    }
    name
}

/// A frame without a name: where it is has to do.
fn nameless_name(place: &Place, modules: &Modules) -> Name {
    let (module, offset) = match place.area {
        Area::Module(at) => {
            let entry = &modules.get(at).entry;
            (
                module_name(place, modules),
                place
                    .address
                    .0
                    .wrapping_sub(entry.start)
                    .wrapping_add(entry.offset),
            )
        }
        Area::Kernel | Area::Nowhere => (module_name(place, modules), place.address.0),
    };
    let kind = if place.area == Area::Kernel {
        Kind::Kernel
    } else {
        Kind::Unknown
    };
    Name {
        function: format!("[{module}+{offset:#x}]"),
        system_name: None,
        file: None,
        line: None,
        start_line: None,
        kind,
        inlined: false,
    }
}

/// What a module is called in a frame without a name: the last part of its path.
fn module_name(place: &Place, modules: &Modules) -> String {
    match place.area {
        Area::Kernel => "kernel".into(),
        Area::Nowhere => "unmapped".into(),
        Area::Module(at) => file_name(&modules.get(at).entry),
    }
}

fn file_name(entry: &MapEntry) -> String {
    let name = entry.path().rsplit('/').next().unwrap_or_default();
    match name.trim_matches(['[', ']']) {
        "" => "anonymous".into(),
        name => name.into(),
    }
}

fn profile_module(module: &Module) -> ProfileModule {
    let build_id = match &module.content {
        Content::Object(loaded, _) => loaded
            .object
            .lock()
            .ok()
            .and_then(|object| object.symbols.object().build_id()),
        Content::Pending | Content::Bare(_) => None,
    };
    let entry = &module.entry;
    let path = if entry.name.is_empty() {
        "[anonymous]".to_owned()
    } else {
        entry.path().to_owned()
    };
    ProfileModule {
        path,
        build_id,
        start: entry.start,
        end: entry.end,
        file_offset: entry.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::told_or_found;
    use crate::hooks::symbolizer::Function;
    use crate::symbolize::Name;

    fn function(name: Option<&str>, file: &str, line: Option<u32>) -> Function {
        Function {
            name: name.map(str::to_owned),
            file: Some(file.to_owned()),
            line,
            entry: None,
        }
    }

    fn symbol() -> Name {
        Name {
            file: None,
            ..Name::told(Some("score"), None, None, false)
        }
    }

    fn shown(
        told: &[Function],
        found: Result<Vec<Name>, String>,
    ) -> Vec<(String, Option<String>, Option<u32>)> {
        let names = told_or_found(told, || found).unwrap().into_iter();
        names.map(|name| (name.function, name.file, name.line)).collect()
    }

    #[test]
    fn a_symbolizer_that_knows_the_file_only_is_heard_only_if_nobody_knows_the_function() {
        let object = function(None, "/usr/bin/server", None);
        let nobody = || Err("stripped".to_owned());
        let told = std::slice::from_ref(&object);
        assert_eq!(
            shown(told, Ok(vec![symbol()])),
            [("score".to_owned(), None, None)]
        );
        let by_place = ("[server]".to_owned(), Some("/usr/bin/server".to_owned()), None);
        assert_eq!(shown(told, nobody()), [by_place]);

        let line = [function(None, "/src/score.c", Some(7))];
        let with_line = ("score".to_owned(), Some("/src/score.c".to_owned()), Some(7));
        assert_eq!(shown(&line, Ok(vec![symbol()])), [with_line]);

        let named = [
            function(Some("inner"), "a.c", Some(1)),
            function(None, "b.c", Some(2)),
        ];
        let functions: Vec<_> = shown(&named, Ok(vec![symbol()]))
            .into_iter()
            .map(|name| name.0)
            .collect();
        assert_eq!(functions, ["inner", "[b.c:2]"]);

        assert_eq!(shown(&[], Ok(vec![symbol()])), [("score".to_owned(), None, None)]);
        assert_eq!(told_or_found(&[], nobody), nobody());
    }
}
