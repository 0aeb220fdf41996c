//! Interactive flame graph, drawn by `inferno` from the same lines that folded files have, coloured by kind of
//! frame.
//!
//! Names of the target cannot become markup: [`super::escape`] leaves no character that XML forbids, and inferno
//! writes them as text only, with `<`, `>`, `&` and quotes escaped. A colour belongs to a name: where code of two
//! kinds shares one, the kind that stands first in the legend gives it, and a thread that is named like a function
//! is coloured like it. In the same way a function that the program's traceback hook gave in one stack is marked as the
//! hook's in all of them: in a box of its own it would tear its callers' and callees' boxes apart.

use super::folded::{self, Stacks};
use super::text::{percent, thousands};
use super::{Error, escape, palette};
use crate::profile::{Kind, Measure, Meta, Origin, Profile};
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options};
use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::io;

/// In pixels.
const FONT_SIZE: usize = 12;

/// Longest name of a program in the title, in characters: the title must not reach the controls beside it.
const MAX_PROGRAM: usize = 32;

/// Ends the names of frames that a hook gave, between us and inferno. No name of a target has it: [`escape`].
const HOOK_MARK: char = '\u{fdd0}';

/// What the box of such a frame says.
const HOOK_WORDS: &str = "; as the program&apos;s traceback hook says";

/// The whole SVG file. It is 1200 pixels wide until a browser fits it to its window.
///
/// # Errors
/// [`Error::NoSamples`] if there is nothing to draw.
pub fn write(profile: &Profile) -> Result<Vec<u8>, Error> {
    if profile.samples.iter().all(|sample| sample.count == 0) {
        return Err(Error::NoSamples);
    }
    let stacks = Stacks::of(profile);
    let mut palette = palette(profile, &stacks);
    let hooked = hooked(profile);
    let lines: Vec<String> = stacks
        .lines()
        .iter()
        .map(|line| marked(line, &stacks.roots, &hooked))
        .collect();
    let svg = draw(&lines, profile, &mut palette).map_err(Error::Write)?;
    Ok(with_swatches(with_hook_words(svg)))
}

/// The names of frames that a hook gave.
fn hooked(profile: &Profile) -> HashSet<String> {
    let frames = profile.frames.iter().filter(|frame| frame.origin == Origin::Hook);
    frames.map(folded::frame_name).collect()
}

/// A line with these names marked, but not what it begins with.
fn marked(line: &str, roots: &BTreeSet<String>, hooked: &HashSet<String>) -> String {
    let (stack, count) = line.rsplit_once(' ').unwrap_or((line, ""));
    let mut is_root = true;
    let mut line = String::with_capacity(line.len());
    for name in stack.split(';') {
        is_root &= roots.contains(name);
        line.push_str(name);
        line.extend((!is_root && hooked.contains(name)).then_some(HOOK_MARK));
        line.push(';');
    }
    line.pop();
    line + " " + count
}

/// The graph with words in the titles of marked boxes, and without marks. The words go into the parentheses at the end,
/// which inferno's script takes off to find the name.
fn with_hook_words(svg: Vec<u8>) -> Vec<u8> {
    const START: &str = "<title>";
    const END: &str = ")</title>";
    let Ok(text) = std::str::from_utf8(&svg) else {
        return svg;
    };
    if !text.contains(HOOK_MARK) {
        return svg;
    }
    let mut pieces = text.split(START);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str(START);
        match piece.split_once(END) {
            Some((title, rest)) if title.contains(HOOK_MARK) => {
                out.extend([title, HOOK_WORDS, END, rest]);
            }
            _ => out.push_str(piece),
        }
    }
    out.retain(|c| c != HOOK_MARK);
    out.into_bytes()
}

/// The graph of lines in which stacks with a common beginning stand together.
fn draw(lines: &[String], profile: &Profile, palette: &mut PaletteMap) -> io::Result<Vec<u8>> {
    let mut options = Options::default();
    options.title = title(profile);
    if profile.meta.measure == Measure::OffCpu {
        options.count_name = "ns".to_owned();
    }
    options.subtitle = Some(legend_in_words());
    options.palette_map = Some(palette);
    options.bgcolors = Some(BackgroundColor::Flat(Color::new(255, 255, 255)));
    options.font_size = FONT_SIZE;
    // The only mode in which inferno takes the order of its lines as given; it reads them from the last to the first.
    // Sorted by bytes, as it would sort them, `f.func1` tears the box of `f` in two.
    options.flame_chart = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), &mut svg)?;
    Ok(svg)
}

/// A differential graph of lines that end in two counts, before and after, and stand in the order of [`draw`].
///
/// # Errors
/// [`Error::NoSamples`] if there is nothing to draw.
pub(crate) fn difference(lines: &[String], title: String) -> Result<Vec<u8>, Error> {
    if lines.is_empty() {
        return Err(Error::NoSamples);
    }
    let mut options = Options::default();
    options.title = title;
    options.bgcolors = Some(BackgroundColor::Flat(Color::new(255, 255, 255)));
    options.font_size = FONT_SIZE;
    options.flame_chart = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), &mut svg)
        .map_err(Error::Write)?;
    Ok(svg)
}

/// A colour for every name in the graph.
fn palette(profile: &Profile, stacks: &Stacks) -> PaletteMap {
    let mut palette = PaletteMap::default();
    // inferno's row of all samples has no name.
    palette.insert("", palette::THREAD.middle());
    // What is inserted later wins.
    for root in &stacks.roots {
        palette.insert(root, palette::THREAD.middle());
    }
    for note in &stacks.notes {
        palette.insert(note, palette::NOTE.middle());
    }
    for kind in Kind::ALL.into_iter().rev() {
        for frame in profile.frames.iter().filter(|frame| frame.kind == kind) {
            let name = folded::frame_name(frame);
            let color = palette::of_kind(kind).color(&name);
            palette.insert(name, color);
        }
    }
    for mut name in hooked(profile) {
        let color = palette::HOOK.color(&name);
        name.push(HOOK_MARK);
        palette.insert(name, color);
    }
    palette
}

/// `server (PID 4711) · 5.0 s · 1,234 samples · 99.8 % complete`; or `off-CPU time: server …· 12.3 s off the CPU · …`.
fn title(profile: &Profile) -> String {
    let meta = &profile.meta;
    let summary = &profile.summary;
    let (what, much) = match meta.measure {
        Measure::Cpu => ("", format!("{} samples", thousands(summary.kept))),
        Measure::OffCpu => (
            "off-CPU time: ",
            format!("{:.3} s off the CPU", summary.kept as f64 / 1e9),
        ),
    };
    format!(
        "{what}{}{} · {:.1} s · {much} · {} complete",
        program(meta),
        pids(meta),
        meta.duration.as_secs_f64(),
        percent(summary.complete(), summary.kept),
    )
}

fn program(meta: &Meta) -> String {
    let name = escape(&meta.program);
    if name.chars().count() <= MAX_PROGRAM {
        return name.into_owned();
    }
    name.chars().take(MAX_PROGRAM - 1).chain(['…']).collect()
}

fn pids(meta: &Meta) -> String {
    match meta.pids.as_slice() {
        [] => String::new(),
        [pid] => format!(" (PID {pid})"),
        pids => format!(" ({} processes)", pids.len()),
    }
}

/// What the legend says: a kind, and the word for its colour.
fn legend() -> impl Iterator<Item = (String, Color)> {
    Kind::ALL
        .into_iter()
        .map(|kind| (kind.label(), palette::of_kind(kind)))
        .chain([("by a hook", palette::HOOK), ("incomplete", palette::NOTE)])
        .map(|(label, band)| (format!("{label} ({})", band.word), band.middle()))
}

fn legend_in_words() -> String {
    legend().map(|(words, _)| words).collect::<Vec<_>>().join(" · ")
}

/// The graph with swatches in the legend: they replace the subtitle, whose place inferno has kept free. Should a new
/// version of inferno write the subtitle otherwise, the legend stays in words.
fn with_swatches(svg: Vec<u8>) -> Vec<u8> {
    const SUBTITLE: &str = "<text id=\"subtitle\"";
    const END: &str = "</text>";
    let Ok(text) = std::str::from_utf8(&svg) else {
        return svg;
    };
    // Before it stands nothing of the target's but the title, in which every `<` is escaped.
    let Some((before, rest)) = text.split_once(SUBTITLE) else {
        return svg;
    };
    let Some((_, after)) = rest.split_once(END) else {
        return svg;
    };
    [before, &swatches(), after].concat().into_bytes()
}

fn swatches() -> String {
    // A character of a monospace font is 0.6 em wide.
    const CHARACTER: f64 = FONT_SIZE as f64 * 0.6;
    const SWATCH: f64 = FONT_SIZE as f64;
    const GAP: f64 = 5.0;
    const BETWEEN: f64 = 20.0;
    // inferno puts the baseline of the subtitle here.
    const BASELINE: f64 = FONT_SIZE as f64 * 4.0;
    let items: Vec<(f64, String, Color)> = legend()
        .map(|(words, color)| {
            (
                SWATCH + GAP + words.chars().count() as f64 * CHARACTER,
                words,
                color,
            )
        })
        .collect();
    let width: f64 = items.iter().map(|(width, ..)| width + BETWEEN).sum::<f64>() - BETWEEN;
    // A nested image can be placed in percent of a width that changes; a group cannot.
    let mut svg = String::from(r#"<svg id="legend" x="50%" overflow="visible">"#);
    // inferno shows it so faintly that nobody finds it; its rules for a search in progress still win.
    svg.push_str("<style>#search { opacity:0.6; }</style>");
    let mut x = -width / 2.0;
    for (width, words, color) in items {
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            r##"<rect x="{x:.1}" y="{:.1}" width="{SWATCH:.0}" height="{SWATCH:.0}" fill="rgb({},{},{})" stroke="#888"/><text x="{:.1}" y="{BASELINE:.1}">{words}</text>"##,
            BASELINE - SWATCH + 2.0,
            color.r,
            color.g,
            color.b,
            x + SWATCH + GAP,
        );
        x += width + BETWEEN;
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::{title, write};
    use crate::format::palette;
    use crate::format::testing::{self, Recording};
    use crate::profile::{Frame, Kind, Origin, Profile};
    use inferno::flamegraph::color::Color;
    use profiler_abi::stop::StopReason;

    fn svg(profile: &Profile) -> String {
        String::from_utf8(write(profile).unwrap()).unwrap()
    }

    /// Title and fill of every box.
    fn boxes(svg: &str) -> Vec<(&str, &str)> {
        svg.split("<title>")
            .skip(1)
            .map(|rest| {
                let (title, rest) = rest.split_once("</title>").unwrap();
                let fill = rest.split("fill=\"").nth(1).unwrap().split('"').next().unwrap();
                (title, fill)
            })
            .collect()
    }

    fn rgb(color: Color) -> String {
        format!("rgb({},{},{})", color.r, color.g, color.b)
    }

    #[test]
    fn every_box_counts_what_the_folded_file_counts() {
        let svg = svg(&testing::mixed());
        let boxes = boxes(&svg);
        for title in [
            "all (100 samples, 100%)",
            "server (98 samples, 98.00%)",
            "[incomplete: no-rule] (3 samples, 3.00%)",
            "[no stack: no-mapping] (1 samples, 1.00%)",
            "main.main (94 samples, 94.00%)",
            "deflate (34 samples, 34.00%)",
            "handle_mm_fault (4 samples, 4.00%)",
            "internal/bytealg.IndexByteString (60 samples, 60.00%)",
        ] {
            let times = boxes.iter().filter(|(t, _)| *t == title).count();
            assert_eq!(times, 1, "{title}: {boxes:?}");
        }
    }

    #[test]
    fn boxes_have_the_colour_of_their_kind() {
        let svg = svg(&testing::mixed());
        let fill = |start: &str| {
            boxes(&svg)
                .into_iter()
                .find(|(t, _)| t.starts_with(start))
                .unwrap()
                .1
                .to_owned()
        };
        assert_eq!(fill("all "), rgb(palette::THREAD.middle()));
        assert_eq!(fill("server "), rgb(palette::THREAD.middle()));
        assert_eq!(fill("[incomplete: no-rule]"), rgb(palette::NOTE.middle()));
        assert_eq!(
            fill("main.main"),
            rgb(palette::of_kind(Kind::Go).color("main.main"))
        );
        assert_eq!(
            fill("deflate"),
            rgb(palette::of_kind(Kind::Native).color("deflate"))
        );
        assert_eq!(
            fill("handle_mm"),
            rgb(palette::of_kind(Kind::Kernel).color("handle_mm_fault_[k]"))
        );
        assert_eq!(
            fill("[libz"),
            rgb(palette::of_kind(Kind::Unknown).color("[libz.so.1+0x1f30]"))
        );
    }

    #[test]
    fn frames_that_a_hook_gave_are_marked_and_their_names_are_as_harmless_as_others() {
        let mut r = Recording::new();
        let evil = "<script>\u{1b}[2J;\u{fdd0}) (</title>".to_owned() + &"x".repeat(1 << 20);
        let [main, score, evil_frame] =
            ["main.main", "score", &evil].map(|name| r.frame(name, Kind::Native, false));
        r.sample(
            (1, 1, "worker"),
            &[main, score, evil_frame],
            StopReason::Root,
            false,
            10,
        );
        let mut profile = r.finish();
        for frame in &mut profile.frames[1..] {
            frame.origin = Origin::Hook;
        }
        // The same function as walked, in another stack.
        let walked = Frame {
            origin: Origin::Walked,
            ..profile.frames[1].clone()
        };
        profile.frames.push(walked);
        let svg = svg(&profile);
        well_formed(&svg);
        assert!(!svg.contains('\u{fdd0}'));
        let boxes = boxes(&svg);
        let words = "; as the program&apos;s traceback hook says)";
        let fill = |start: &str, end: &str| {
            let mut found = boxes
                .iter()
                .filter(|(t, _)| t.starts_with(start) && t.ends_with(end));
            let (_, fill) = found.next().unwrap_or_else(|| panic!("{start}"));
            assert_eq!(found.next(), None, "{start}");
            (*fill).to_owned()
        };
        assert_eq!(fill("worker (", "100.00%)"), rgb(palette::THREAD.middle()));
        assert_eq!(
            fill("main.main (", "100.00%)"),
            rgb(palette::of_kind(Kind::Native).color("main.main"))
        );
        assert_eq!(
            fill("score (10 samples, 100.00%", words),
            rgb(palette::HOOK.color("score"))
        );
        fill(r"&lt;script&gt;\u{1b}[2J:\u{fdd0}) (&lt;/title&gt;xxx", words);
    }

    #[test]
    fn a_function_is_one_box_also_beside_its_closures() {
        let mut r = Recording::new();
        let [main, func, callee] =
            ["main.f", "main.f.func1", "main.g"].map(|name| r.frame(name, Kind::Go, false));
        let root = r.frame("main.main", Kind::Go, false);
        for stack in [&[root, main][..], &[root, func], &[root, main, callee]] {
            r.sample((1, 1, "x"), stack, StopReason::Root, false, 10);
        }
        let svg = svg(&r.finish());
        let found: Vec<_> = boxes(&svg)
            .into_iter()
            .filter(|(t, _)| t.starts_with("main.f ("))
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.starts_with("main.f (20 samples"), "{found:?}");
    }

    #[test]
    fn the_title_says_what_was_recorded() {
        let mut profile = testing::mixed();
        assert_eq!(
            title(&profile),
            "server (PID 4711) · 5.0 s · 100 samples · 94.0 % complete"
        );
        profile.meta.pids = vec![1, 2];
        profile.meta.program = "x".repeat(100);
        profile.summary.kept = 1_234_567;
        let expected = format!(
            "{}… (2 processes) · 5.0 s · 1,234,567 samples · <0.1 % complete",
            "x".repeat(31)
        );
        assert_eq!(title(&profile), expected);
    }

    #[test]
    fn the_legend_has_a_swatch_for_every_kind() {
        let svg = svg(&testing::mixed());
        let legend = svg
            .split(r#"<svg id="legend""#)
            .nth(1)
            .unwrap()
            .split("</svg>")
            .next()
            .unwrap();
        for kind in Kind::ALL {
            let band = palette::of_kind(kind);
            assert!(legend.contains(&rgb(band.middle())), "{legend}");
            assert!(
                legend.contains(&format!(">{} ({})<", kind.label(), band.word)),
                "{legend}"
            );
        }
        assert!(legend.contains(">incomplete (pink)<"), "{legend}");
        assert!(
            !svg.contains(r#"id="subtitle""#),
            "the swatches replace the words"
        );
    }

    #[test]
    fn names_of_the_target_cannot_become_markup() {
        let mut r = Recording::new();
        let names = [
            "<script>alert(1)</script>",
            "a\"b'c&d;e",
            "]]><x/>",
            "esc\u{1b}[2J\u{0}\u{ffff}\u{202e}",
            "</title></g></svg>",
            &String::from_utf8_lossy(b"bad\xff\xfeutf8"),
        ];
        for name in names {
            let frame = r.frame(name, Kind::Native, false);
            r.sample((1, 1, name), &[frame], StopReason::Root, false, 1);
        }
        let mut profile = r.finish();
        profile.meta.program = "<script>\u{8}<text id=\"subtitle\"".to_owned();
        let svg = svg(&profile);

        well_formed(&svg);
        assert_eq!(svg.matches("<script").count(), 1, "only inferno's own");
        let boxes = boxes(&svg);
        for title in [
            "&lt;script&gt;alert(1)&lt;/script&gt; (",
            "a&quot;b&apos;c&amp;d:e (",
            "]]&gt;&lt;x/&gt; (",
            r"esc\u{1b}[2J\u{0}\u{ffff}\u{202e} (",
            "&lt;/title&gt;&lt;/g&gt;&lt;/svg&gt; (",
            "bad\u{fffd}\u{fffd}utf8 (",
        ] {
            // Once as a thread, once as a function.
            assert_eq!(
                boxes.iter().filter(|(t, _)| t.starts_with(title)).count(),
                2,
                "{title}: {boxes:?}"
            );
        }
        assert!(svg.contains(r#"<svg id="legend""#));
    }

    /// Tags are balanced, entities are XML's own, and there is no character that XML 1.0 forbids.
    fn well_formed(svg: &str) {
        assert!(svg.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        assert!(!svg.contains(['\u{fffe}', '\u{ffff}']));
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some((text, tag)) = rest.split_once('<') {
            for entity in text.split('&').skip(1) {
                let name = entity.split(';').next().unwrap();
                assert!(["lt", "gt", "amp", "quot", "apos"].contains(&name), "&{entity}");
            }
            let end = |tail: &str| tag.find(tail).map(|at| at + tail.len()).unwrap();
            let len = if tag.starts_with("!--") {
                end("-->")
            } else if tag.starts_with("![CDATA[") {
                end("]]>")
            } else {
                let len = end(">");
                let inner = &tag[..len - 1];
                if let Some(name) = inner.strip_prefix('/') {
                    assert_eq!(open.pop(), Some(name));
                } else if !inner.starts_with(['!', '?']) && !inner.ends_with('/') {
                    open.push(inner.split(' ').next().unwrap());
                }
                len
            };
            rest = &tag[len..];
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
