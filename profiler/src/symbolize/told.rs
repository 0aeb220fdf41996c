//! Names that the program itself tells.

use super::{Name, demangle};
use crate::profile::Kind;

impl Name {
    /// A function of which the program itself has told name, file and line, or some of that. The name may be no symbol,
    /// so nothing is taken for the suffix of one. Without a name the function is called by its place: `[file.c:12]`.
    pub fn told(name: Option<&str>, file: Option<&str>, line: Option<u32>, inlined: bool) -> Self {
        let name = match name {
            Some(name) if demangle::is_mangled(name.as_bytes()) => Self::of_symbol(name.as_bytes()),
            Some(name) => Self::of_text(name.to_owned()),
            None => Self::of_text(place(file.unwrap_or_default(), line)),
        };
        Self {
            file: file.map(str::to_owned),
            line,
            inlined,
            ..name
        }
    }

    fn of_text(function: String) -> Self {
        Self {
            function,
            system_name: None,
            file: None,
            line: None,
            start_line: None,
            kind: Kind::Native,
            inlined: false,
        }
    }
}

fn place(file: &str, line: Option<u32>) -> String {
    let file = file.rsplit('/').next().unwrap_or_default();
    match line {
        Some(line) => format!("[{file}:{line}]"),
        None => format!("[{file}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use crate::profile::Kind;

    #[test]
    fn symbols_are_made_readable_and_other_text_is_left_as_it_is() {
        for (told, function, system_name, kind) in [
            ("_ZN2ns3fooEi", "ns::foo", Some("_ZN2ns3fooEi"), Kind::Native),
            (
                "_RNvCskwGfYPst2Cb_3foo3bar",
                "foo::bar",
                Some("_RNvCskwGfYPst2Cb_3foo3bar"),
                Kind::Rust,
            ),
            (
                "LazyCompile:~f.cold@12",
                "LazyCompile:~f.cold@12",
                None,
                Kind::Native,
            ),
        ] {
            let name = Name::told(Some(told), Some("/src/a.c"), Some(7), true);
            let expected = Name {
                function: function.to_owned(),
                system_name: system_name.map(str::to_owned),
                file: Some("/src/a.c".to_owned()),
                line: Some(7),
                start_line: None,
                kind,
                inlined: true,
            };
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn a_function_without_a_name_is_called_by_its_place() {
        let function = |file, line| Name::told(None, file, line, false).function;
        assert_eq!(function(Some("/src/a.c"), Some(7)), "[a.c:7]");
        assert_eq!(function(Some("cgo symbolizer"), None), "[cgo symbolizer]");
    }
}
