//! How names and numbers look to people.

use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write;

/// `text` with everything made visible that a terminal, a browser or a line-based format could obey: control
/// characters, line separators, marks that change the direction of writing, and the two code points that XML 1.0
/// forbids. They appear as `\n` or `\u{202e}`; everything else stays as it is, backslashes too, so the result is to
/// be read and not to be converted back.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A document without maps whose keys are not strings, as JSON for people and programs, with a line's end.
pub fn pretty_json(document: &impl Serialize) -> String {
    // Other keys are all that could fail.
    let mut json = serde_json::to_string_pretty(document).unwrap_or_default();
    json.push('\n');
    json
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Noncharacters, which are for use inside of a program: the flame graph uses one. Unicode's bidirectional formatting characters (UAX #9), line and paragraph separator, and the
            // code points that XML 1.0 leaves out of `Char`.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share as `99.8 %`. Rounded down, so that `100.0 %` means all of them; what is more than nothing but would be
/// shown as `0.0 %` is `<0.1 %`.
pub fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    if tenths == 0 && part > 0 {
        return "<0.1 %".to_owned();
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(out, "{}.{} %", tenths / 10, tenths % 10);
    out
}

#[cfg(test)]
mod tests {
    use super::{escape, percent, thousands};
    use std::borrow::Cow;

    #[test]
    fn harmless_text_is_not_copied() {
        for text in ["", "main.main", "ns::Größe<T>", "日本語", r"C:\temp", "a\u{a0}b"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_made_visible() {
        assert_eq!(escape("a\u{1b}[2Jb\r\n\t"), r"a\u{1b}[2Jb\r\n\t");
        assert_eq!(escape("\u{202e}txt\u{2069}"), r"\u{202e}txt\u{2069}");
        assert_eq!(escape("\u{0}\u{7f}\u{9b}\u{2028}"), r"\u{0}\u{7f}\u{9b}\u{2028}");
        assert_eq!(escape("\u{fffe}\u{ffff}\u{fffd}"), "\\u{fffe}\\u{ffff}\u{fffd}");
    }

    #[test]
    fn thousands_are_separated() {
        let shown: Vec<String> = [0, 7, 999, 1000, 12_345, 999_999, 1_000_000, u64::MAX]
            .into_iter()
            .map(thousands)
            .collect();
        assert_eq!(
            shown,
            [
                "0",
                "7",
                "999",
                "1,000",
                "12,345",
                "999,999",
                "1,000,000",
                "18,446,744,073,709,551,615"
            ]
        );
    }

    #[test]
    fn a_share_is_never_rounded_up() {
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(percent(0, 10), "0.0 %");
        assert_eq!(percent(1, 1_000_000), "<0.1 %");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(999_999, 1_000_000), "99.9 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0 %");
    }
}
