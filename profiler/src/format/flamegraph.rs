//! Interactive flame graph, drawn by `inferno` from the same lines that folded files have, coloured by kind of
//! frame.
//!
//! Names of the target cannot become markup: [`super::escape`] leaves no character that XML forbids, and inferno
//! writes them as text only, with `<`, `>`, `&` and quotes escaped. A colour belongs to a name: where code of two
//! kinds shares one, the kind that stands first in the legend gives it, and a thread that is named like a function
//! is coloured like it.

use super::text::{percent, thousands};
use super::{Error, escape, folded, palette, stack};
use crate::profile::{Kind, Meta, Profile};
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options};
use std::fmt::Write;
use std::io;

/// In pixels.
const FONT_SIZE: usize = 12;

/// Longest name of a program in the title, in characters: the title must not reach the controls beside it.
const MAX_PROGRAM: usize = 32;

/// Most process ids in the title.
const MAX_PIDS: usize = 3;

/// The whole SVG file. It is 1200 pixels wide until a browser fits it to its window.
///
/// # Errors
/// [`Error::NoSamples`] if there is nothing to draw.
pub fn write(profile: &Profile) -> Result<Vec<u8>, Error> {
    let mut stacks: Vec<(String, u64)> = folded::stacks(profile).into_iter().collect();
    if stacks.is_empty() {
        return Err(Error::NoSamples);
    }
    // Frame by frame. By bytes `a.b` would come between `a` and `a;c`, and the box of `a` would be torn in two.
    stacks.sort_by(|(a, _), (b, _)| a.split(';').cmp(b.split(';')));
    let mut palette = palette(profile, &stacks);
    let svg = draw(&stacks, title(profile), &mut palette).map_err(Error::Write)?;
    Ok(with_swatches(svg))
}

fn draw(stacks: &[(String, u64)], title: String, palette: &mut PaletteMap) -> io::Result<Vec<u8>> {
    let mut options = Options::default();
    options.title = title;
    options.subtitle = Some(legend_in_words());
    options.palette_map = Some(palette);
    options.bgcolors = Some(BackgroundColor::Flat(Color::new(255, 255, 255)));
    options.font_size = FONT_SIZE;
    // The only mode in which inferno takes the order of its lines as given. It reads them from the last to the first.
    options.flame_chart = true;
    let lines: Vec<String> = stacks
        .iter()
        .rev()
        .map(|(stack, count)| format!("{stack} {count}"))
        .collect();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg)
}

/// A colour for every name in the graph.
fn palette(profile: &Profile, stacks: &[(String, u64)]) -> PaletteMap {
    let mut palette = PaletteMap::default();
    // inferno's row of all samples has no name.
    palette.insert("", palette::THREAD.middle());
    // What is inserted later wins.
    for (stack, _) in stacks {
        let mut names = stack.split(';');
        for thread in names.by_ref().take(1) {
            palette.insert(thread, palette::THREAD.middle());
        }
        for note in names.take(1).filter(|name| stack::stop_of_note(name).is_some()) {
            palette.insert(note, palette::NOTE.middle());
        }
    }
    for kind in Kind::ALL.into_iter().rev() {
        for frame in profile.frames.iter().filter(|frame| frame.kind == kind) {
            let name = folded::frame_name(frame);
            let color = palette::of_kind(kind).color(&name);
            palette.insert(name, color);
        }
    }
    palette
}

/// `server (PID 4711) · 5.0 s · 1,234 samples · 99.8 % complete`.
fn title(profile: &Profile) -> String {
    let meta = &profile.meta;
    let summary = &profile.summary;
    format!(
        "{}{} · {:.1} s · {} samples · {} complete",
        program(meta),
        pids(meta),
        meta.duration.as_secs_f64(),
        thousands(summary.kept),
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
    let shown: Vec<String> = meta.pids.iter().take(MAX_PIDS).map(u32::to_string).collect();
    match meta.pids.len() {
        0 => String::new(),
        1 => format!(" (PID {})", shown[0]),
        n if n <= MAX_PIDS => format!(" (PIDs {})", shown.join(", ")),
        n => format!(" (PIDs {} and {} more)", shown.join(", "), n - MAX_PIDS),
    }
}

/// What the legend says: a kind, and the word for its colour.
fn legend() -> impl Iterator<Item = (String, Color)> {
    Kind::ALL
        .into_iter()
        .map(|kind| (kind.label(), palette::of_kind(kind)))
        .chain([("incomplete", palette::NOTE)])
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
