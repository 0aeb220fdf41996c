//! Real objects whose separate files are where users have them, in folders that stand for root directories.

use super::debuginfod::Fetched;
use super::{Places, Root, Symbols};
use crate::addr::Svma;
use crate::symbolize::{Name, Object, Reason};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const CODE: &str = "
struct one { int a, b, c; struct one *next; };
struct two { struct one ones[4]; long x, y, z; struct two *other; } twos;
static inline __attribute__((always_inline)) int inner(int x)
{
    __asm__ volatile(\"here: nop\");
    return x * 3 + twos.ones[1].b;
}
__attribute__((noinline)) int work(int x) { return inner(x) + 1; }
int main(int argc, char **argv) { return work(argc); }
";

/// A stripped program at `/usr/bin/server` of a root directory, and its debug file, which is nowhere yet.
pub(super) struct Installed {
    folder: TempDir,
    pub(super) stripped: Bytes,
    pub(super) debug: PathBuf,
    pub(super) build_id: Option<String>,
    pub(super) work: Svma,
    pub(super) names: Vec<Name>,
}

const PATH: &str = "/usr/bin/server";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &Path) -> Bytes {
    Bytes::from(std::fs::read(path).unwrap())
}

fn put(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

impl Installed {
    pub(super) fn new(options: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("server.c"), CODE).unwrap();
        run(Command::new("gcc")
            .current_dir(folder.path())
            .args(["-O2", "-g", "server.c", "-o", "whole"])
            .args(options.split_whitespace()));
        run(Command::new("objcopy")
            .args(["--only-keep-debug", "whole", "server.debug"])
            .current_dir(folder.path()));
        run(Command::new("objcopy")
            .args(["-S", "--add-gnu-debuglink=server.debug", "whole", "server"])
            .current_dir(folder.path()));
        let symbols = run(Command::new("nm").arg(at("whole")));
        let address = symbols.lines().find_map(|line| line.strip_suffix(" t here"));
        let work = Svma(u64::from_str_radix(address.unwrap(), 16).unwrap());
        let whole = Object::parse(read(&at("whole")), None).unwrap();
        let names = whole.lookup(work).unwrap();
        assert_eq!(names.len(), 2, "{names:?}");
        put(&at("server"), &at("root/usr/bin/server"));
        std::fs::create_dir_all(at("host")).unwrap();
        Self {
            stripped: read(&at("server")),
            debug: at("server.debug"),
            build_id: whole.gnu_build_id(),
            work,
            names,
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file in the process' root directory (`root`) or in the host's (`host`).
    fn in_root(&self, root: &str, path: &str) -> PathBuf {
        self.file(&format!("{root}{path}"))
    }

    fn path_of_build_id(&self) -> String {
        super::find::path_of_build_id(self.build_id.as_ref().unwrap()).unwrap()
    }

    pub(super) fn places(&self) -> Places {
        let root = |name| Root::open(self.file(name).to_str().unwrap()).ok();
        Places {
            own: root("root"),
            host: root("host"),
        }
    }

    pub(super) fn symbols(&self) -> Symbols {
        Symbols::open(self.stripped.clone(), PATH, self.places()).unwrap()
    }

    fn is_named(&self) -> bool {
        let symbols = self.symbols();
        assert_eq!(symbols.refused(), [] as [String; 0]);
        match symbols.lookup(self.work) {
            Ok(names) => {
                assert_eq!(names, self.names);
                true
            }
            Err(reason) => {
                assert_eq!(reason, Reason::NoSymbols);
                false
            }
        }
    }
}

const LINKED: [&str; 3] = [
    "/usr/bin/server.debug",
    "/usr/bin/.debug/server.debug",
    "/usr/lib/debug/usr/bin/server.debug",
];

#[test]
fn debug_files_are_found_in_each_customary_place() {
    for options in [
        "",
        "-Wl,--build-id=none",
        "-gz=zlib",
        "-Wl,--compress-debug-sections=zstd",
    ] {
        let program = Installed::new(options);
        assert!(!program.is_named());
        let by_id = program.build_id.as_ref().map(|_| program.path_of_build_id());
        for path in LINKED.into_iter().map(str::to_owned).chain(by_id) {
            let place = program.in_root("root", &path);
            put(&program.debug, &place);
            assert!(program.is_named(), "{options}: {path}");
            assert_eq!(program.symbols().debug_path(), Some(&*path));
            std::fs::remove_file(place).unwrap();
        }
    }
}

#[test]
fn on_the_host_debug_files_are_found_by_build_id_only() {
    let program = Installed::new("");
    for path in LINKED {
        put(&program.debug, &program.in_root("host", path));
    }
    assert!(!program.is_named());
    put(
        &program.debug,
        &program.in_root("host", &program.path_of_build_id()),
    );
    assert!(program.is_named());

    // A process that is gone, and one that sees what we see.
    let gone = Places {
        own: None,
        ..program.places()
    };
    let symbols = Symbols::open(program.stripped.clone(), PATH, gone).unwrap();
    assert_eq!(symbols.lookup(program.work).unwrap(), program.names);
    let same = Places {
        host: None,
        ..program.places()
    };
    let symbols = Symbols::open(program.stripped.clone(), PATH, same).unwrap();
    assert_eq!(symbols.lookup(program.work), Err(Reason::NoSymbols));
}

#[test]
fn files_of_other_builds_are_refused_and_the_right_one_is_still_found() {
    for options in ["", "-Wl,--build-id=none"] {
        let program = Installed::new(options);
        let other = Installed::new(&format!("{options} -O1 -DOTHER"));
        let truncated = program.file("truncated");
        let whole = read(&program.debug);
        std::fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
        let empty = program.file("empty");
        std::fs::write(&empty, "").unwrap();
        for (wrong, why) in [
            (&other.debug, "belongs to another build"),
            (&truncated, ""),
            (&empty, "no ELF file"),
        ] {
            let first = program.in_root("root", LINKED[0]);
            put(wrong, &first);
            let symbols = program.symbols();
            assert_eq!(symbols.lookup(program.work), Err(Reason::NoSymbols));
            let [refused] = &symbols.refused()[..] else {
                panic!("{:?}", symbols.refused());
            };
            assert!(
                refused.starts_with("/usr/bin/server.debug is refused: ") && refused.contains(why),
                "{refused}"
            );

            let right = program.in_root("root", LINKED[2]);
            put(&program.debug, &right);
            let symbols = program.symbols();
            assert_eq!(symbols.lookup(program.work).unwrap(), program.names);
            assert_eq!(symbols.refused().len(), 1);
            std::fs::remove_file(right).unwrap();
        }
    }
}

#[test]
fn a_link_that_is_a_path_leads_nowhere() {
    let program = Installed::new("-Wl,--build-id=none");
    put(&program.debug, &program.in_root("root", "/etc/server.debug"));
    let mut bytes = program.stripped.to_vec();
    let at = bytes
        .windows(12)
        .position(|window| window == b"server.debug")
        .unwrap();
    bytes[at..at + 12].copy_from_slice(b"../../etc/x\0");
    let symbols = Symbols::open(bytes.into(), PATH, program.places()).unwrap();
    assert_eq!(symbols.lookup(program.work), Err(Reason::NoSymbols));
    assert_eq!(symbols.refused(), [] as [String; 0]);
}

#[test]
fn supplementary_files_are_found_by_name_and_by_build_id() {
    let program = Installed::new("");
    // What dwz finds twice has to be large enough to be worth moving.
    std::fs::copy(&program.debug, program.file("twin.debug")).unwrap();
    run(Command::new("dwz")
        .current_dir(program.folder.path())
        .args(["-m", "common.debug", "-M", "../../lib/common.debug"])
        .args(["server.debug", "twin.debug"]));
    put(&program.debug, &program.in_root("root", LINKED[2]));
    let common = program.file("common.debug");
    let id = Object::parse(read(&common), None)
        .unwrap()
        .gnu_build_id()
        .unwrap();
    let by_id = super::find::path_of_build_id(&id).unwrap();

    let without = program.symbols().lookup(program.work);
    assert_ne!(without.unwrap_or_default(), program.names);
    let places = [
        ("root", "/usr/lib/debug/lib/common.debug"),
        ("root", &by_id),
        ("host", &by_id),
    ];
    for (root, path) in places {
        let place = program.in_root(root, path);
        put(&common, &place);
        assert!(program.is_named(), "{root}{path}");
        put(&program.file("whole"), &place);
        let refused = program.symbols().refused();
        assert!(refused[0].contains(" is refused: "), "{path}: {refused:?}");
        std::fs::remove_file(place).unwrap();
    }
}

#[test]
fn files_of_split_units_are_opened_when_they_are_needed() {
    let program = Installed::new("");
    let built = program.file("root/build");
    std::fs::create_dir_all(&built).unwrap();
    std::fs::copy(program.file("server.c"), built.join("server.c")).unwrap();
    // As the process has its files, the folder is /build.
    let prefix = format!("-fdebug-prefix-map={}=/build", built.display());
    let names = |options: &[&str]| {
        run(Command::new("gcc")
            .current_dir(&built)
            .args(["-O2", "-g", "-c", "server.c", &prefix])
            .args(options));
        run(Command::new("gcc")
            .current_dir(&built)
            .args(["-g", "server.o", "-o", "server"]));
        read(&built.join("server"))
    };
    let whole = Object::parse(names(&["-gdwarf-4"]), None).unwrap();
    let expected = whole.lookup(program.work).unwrap();
    assert_eq!(expected[0].file.as_deref(), Some("/build/server.c"));

    let split = names(&["-gsplit-dwarf", "-gdwarf-4"]);
    let lookup = || {
        let symbols = Symbols::open(split.clone(), PATH, program.places()).unwrap();
        let names = symbols.lookup(program.work).unwrap();
        (names == expected, symbols.refused())
    };
    let nothing_refused: Vec<String> = Vec::new();
    assert_eq!(lookup(), (true, nothing_refused.clone()), "where it was built");
    run(Command::new("dwp")
        .current_dir(&built)
        .args(["server.dwo", "-o", "server.dwp"]));
    let dwo = program.in_root("root", "/usr/bin/server.dwo");
    std::fs::rename(built.join("server.dwo"), &dwo).unwrap();
    assert_eq!(lookup(), (true, nothing_refused.clone()), "beside the program");
    std::fs::remove_file(&dwo).unwrap();
    assert_eq!(lookup(), (false, nothing_refused.clone()), "nowhere");
    put(
        &built.join("server.dwp"),
        &program.in_root("root", "/usr/bin/server.dwp"),
    );
    assert_eq!(lookup(), (true, nothing_refused), "in a package");

    std::fs::write(program.in_root("root", "/usr/bin/server.dwp"), "no package").unwrap();
    let (named, refused) = lookup();
    assert!(!named);
    assert!(
        refused[0].starts_with("/usr/bin/server.dwp is refused: "),
        "{refused:?}"
    );
}

#[test]
fn who_has_no_name_hears_which_file_would_give_one() {
    let program = Installed::new("");
    let text = program.symbols().explain(&Reason::NoSymbols);
    let id = program.build_id.as_ref().unwrap();
    assert!(
        text.contains("-dbgsym") && text.contains("DEBUGINFOD_URLS") && text.contains(id),
        "{text}"
    );
    assert_eq!(
        program.symbols().explain(&Reason::NotCode),
        Reason::NotCode.explain()
    );
    put(&program.debug, &program.in_root("root", LINKED[0]));
    let text = program.symbols().explain(&Reason::BetweenSymbols);
    assert!(!text.contains("DEBUGINFOD_URLS"), "{text}");
}

/// What a server would have answered.
fn fetched(file: &Path) -> Result<Fetched, String> {
    Ok(Fetched {
        bytes: read(file),
        from: "fetched".to_owned(),
    })
}

#[test]
fn what_servers_send_is_used_and_what_it_refers_to_is_asked_for_too() {
    let program = Installed::new("");
    std::fs::copy(&program.debug, program.file("twin.debug")).unwrap();
    run(Command::new("dwz").current_dir(program.folder.path()).args([
        "-m",
        "common.debug",
        "server.debug",
        "twin.debug",
    ]));
    let mut symbols = program.symbols();
    let id = program.build_id.clone().unwrap();
    assert_eq!(symbols.wanted().as_ref(), Some(&id));
    assert!(symbols.ask());
    assert!(!symbols.ask(), "once");
    assert_eq!(
        symbols.notes(),
        ["debuginfod had not answered when the recording was over"]
    );

    symbols.answer(&id, fetched(&program.debug));
    let common = symbols.wanted().unwrap();
    assert_ne!(common, id);
    symbols.answer(&common, fetched(&program.file("common.debug")));
    assert_eq!(symbols.wanted(), None);
    assert_eq!(symbols.lookup(program.work).unwrap(), program.names);
    let note = format!(
        "debuginfod: the file of build id {id} was fetched; the file of build id {common} was fetched"
    );
    assert_eq!(symbols.notes(), [note]);
}

#[test]
fn what_servers_do_not_have_is_asked_for_once() {
    let program = Installed::new("");
    let id = program.build_id.clone().unwrap();
    let other = Installed::new("-O1 -DOTHER");
    for (answer, note) in [
        (Err("nobody has it".to_owned()), "nobody has it"),
        (fetched(&other.debug), "belongs to another build"),
    ] {
        let mut symbols = program.symbols();
        assert!(symbols.ask());
        symbols.answer(&id, answer);
        assert_eq!(symbols.wanted(), None);
        assert!(!symbols.ask());
        assert!(symbols.notes()[0].contains(note), "{:?}", symbols.notes());
        let text = symbols.explain(&Reason::NoSymbols);
        assert!(
            text.contains("-dbgsym") && !text.contains("DEBUGINFOD_URLS"),
            "{text}"
        );
    }
    // Who has everything asks nobody.
    put(&program.debug, &program.in_root("root", LINKED[0]));
    assert!(!program.symbols().ask());
}
