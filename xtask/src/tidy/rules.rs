//! The rules themselves: text in, findings out.

use std::collections::BTreeSet;
use std::path::Path;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    /// 1 is the first.
    pub line: usize,
    /// The rule, with what broke it where that is not plain.
    pub rule: String,
}

const MAX_LINES: usize = 800;

// Written in two parts, so that the rules do not find themselves.
const UNSAFE: &str = concat!("un", "safe");
const UNFINISHED_WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const UNFINISHED_CODE: [&str; 3] = [
    concat!("to", "do!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
];
const MACHINE_PATHS: [&str; 3] = [
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "home/"),
];

/// The heading of the list that [`check_code_map`] reads.
const CODE_MAP: &str = "## Code map";

/// What a single file can break.
pub fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let is_rust = path.ends_with(".rs");
    let mut findings = Vec::new();
    let mut found = |line: usize, rule: String| {
        findings.push(Finding {
            path: path.to_owned(),
            line,
            rule,
        })
    };

    let n_lines = text.lines().count();
    if is_rust && n_lines > MAX_LINES {
        found(
            MAX_LINES + 1,
            format!("a file has at most {MAX_LINES} lines, this one {n_lines}"),
        );
    }
    for (n, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        if is_rust && !may_be_unsafe(path) && has_word(code, UNSAFE) {
            found(
                n,
                format!(
                    "{UNSAFE} code is only in files called sys.rs, the BPF program, the helper and tests"
                ),
            );
        }
        for word in UNFINISHED_WORDS {
            if has_word(line, word) {
                found(
                    n,
                    format!("{word}: what is unfinished is in an issue, not in the repository"),
                );
            }
        }
        for code in UNFINISHED_CODE {
            if is_rust && line.contains(code) {
                found(
                    n,
                    format!("{code}: there is no unfinished code and no test that does not run"),
                );
            }
        }
        for machine_path in MACHINE_PATHS {
            if starts_path(line, machine_path) {
                found(
                    n,
                    format!("{machine_path}: paths of one machine do not belong into the repository"),
                );
            }
        }
    }
    findings
}

/// Whether the code map in the document at `path` names the modules that there are, and no others.
pub fn check_code_map(path: &str, document: &str, modules: &BTreeSet<String>) -> Vec<Finding> {
    let finding = |line, rule| Finding {
        path: path.to_owned(),
        line,
        rule,
    };
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    let start = document
        .lines()
        .take_while(|line| line.trim_end() != CODE_MAP)
        .count();
    let map = (1..).zip(document.lines()).skip(start + 1);
    for (n, line) in map.take_while(|(_, line)| !line.starts_with("## ")) {
        // A module is an item that begins with its name: "- `unwind/` …".
        let item = line.trim_start().strip_prefix("- `src/");
        let Some((module, _)) = item.and_then(|rest| rest.split_once('`')) else {
            continue;
        };
        if !modules.contains(module) {
            findings.push(finding(
                n,
                format!("the code map names profiler/src/{module}, which does not exist"),
            ));
        }
        named.insert(module);
    }
    for module in modules.iter().filter(|module| !named.contains(module.as_str())) {
        findings.push(finding(
            start + 1,
            format!("the code map does not name profiler/src/{module}"),
        ));
    }
    findings
}

fn may_be_unsafe(path: &str) -> bool {
    let in_tests = path.split('/').rev().skip(1).any(|folder| folder == "tests");
    in_tests
        || path.starts_with("profiler-ebpf/")
        || path.starts_with("profiler/helper/")
        || Path::new(path).ends_with("sys.rs")
}

/// Whether a line has a word that is not part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Whether a line has a path that begins like this; what merely contains it, as `/proc/PID/root/` does, is
/// another path.
fn starts_path(line: &str, beginning: &str) -> bool {
    line.match_indices(beginning).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| is_name(c) || "./~-*}$>".contains(c))
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::{CODE_MAP, MACHINE_PATHS, MAX_LINES, UNFINISHED_CODE, UNFINISHED_WORDS, UNSAFE};
    use super::{check_code_map, check_file};
    use std::collections::BTreeSet;

    fn broken_lines(path: &str, text: &str) -> Vec<usize> {
        check_file(path, text)
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn a_rust_file_has_a_limit_of_lines_and_other_files_have_none() {
        let full = "x\n".repeat(MAX_LINES);
        assert!(broken_lines("a.rs", &full).is_empty());
        assert_eq!(broken_lines("a.rs", &(full.clone() + "x\n")), [MAX_LINES + 1]);
        assert!(broken_lines("a.txt", &(full + "x\n")).is_empty());
    }

    #[test]
    fn only_some_files_may_hold_raw_code() {
        let text = format!("// {UNSAFE} in words\n{UNSAFE}_op_in_fn\nlet x = {UNSAFE} {{ y }};\n");
        assert_eq!(broken_lines("profiler/src/addr.rs", &text), [3]);
        for path in [
            "profiler/src/target/sys.rs",
            "profiler-ebpf/src/main.rs",
            "tests/e2e/a.rs",
            "profiler/src/unwind/tests/real.rs",
        ] {
            assert!(broken_lines(path, &text).is_empty(), "{path}");
        }
        assert_eq!(broken_lines("profiler/src/not_sys.rs", &text), [3]);
        assert_eq!(broken_lines("profiler/src/tests.rs", &text), [3]);
    }

    #[test]
    fn unfinished_work_is_found_in_words_and_in_code() {
        for word in UNFINISHED_WORDS {
            assert_eq!(
                broken_lines("README.md", &format!("fine\nso {word}: later\n")),
                [2]
            );
            assert!(broken_lines("README.md", &format!("{word}LIST\n")).is_empty());
        }
        for code in UNFINISHED_CODE {
            assert_eq!(broken_lines("a.rs", &format!("    {code})\n")), [1]);
            assert!(broken_lines("a.md", code).is_empty());
        }
    }

    #[test]
    fn paths_of_a_machine_are_found_and_paths_that_contain_them_are_not() {
        for path in MACHINE_PATHS {
            assert_eq!(broken_lines("a.sh", &format!("cd {path}x\n")), [1]);
            assert_eq!(broken_lines("a.rs", &format!("\"{path}x\"\n")), [1]);
            assert!(broken_lines("a.rs", &format!("/proc/self{path}etc\n")).is_empty());
            assert!(broken_lines("a.rs", &format!("format!(\"/proc/{{pid}}{path}\")\n")).is_empty());
        }
    }

    #[test]
    fn the_code_map_names_what_there_is() {
        let map = format!(
            "- `src/else.rs`\n{CODE_MAP}\n- `src/unwind/` rows\n- `src/gone.rs`\n## Next\n- `src/addr.rs`\n"
        );
        let modules = BTreeSet::from(["addr.rs", "unwind/"].map(str::to_owned));
        let findings = check_code_map("A.md", &map, &modules);
        let rules: Vec<_> = findings
            .iter()
            .map(|finding| (finding.line, finding.rule.as_str()))
            .collect();
        assert_eq!(
            rules,
            [
                (4, "the code map names profiler/src/gone.rs, which does not exist"),
                (2, "the code map does not name profiler/src/addr.rs"),
            ]
        );
    }
}
