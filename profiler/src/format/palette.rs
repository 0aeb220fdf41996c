//! Colours by kind of frame.
//!
//! Each kind has a band between two near colours, and a function always has the same place in it, so that
//! neighbours can be told apart and a function is found again in the next graph. The bands were chosen so that
//! black text is readable on all of them and that they differ for people with any of the three kinds of
//! dichromacy as well; a test holds them to that.

use crate::profile::Kind;
use inferno::flamegraph::color::Color;

/// The colours of one sort of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Band {
    /// The word for the colour.
    pub(super) word: &'static str,
    from: [u8; 3],
    to: [u8; 3],
}

impl Band {
    const fn new(word: &'static str, from: [u8; 3], to: [u8; 3]) -> Self {
        Self { word, from, to }
    }

    /// The colour of the function `name`.
    pub(super) fn color(&self, name: &str) -> Color {
        let hash = hash(name);
        self.at((hash ^ (hash >> 32)) as u8)
    }

    /// The colour in the middle, for a legend.
    pub(super) fn middle(&self) -> Color {
        self.at(128)
    }

    fn at(&self, place: u8) -> Color {
        let channel = |i: usize| {
            let (from, to) = (u32::from(self.from[i]), u32::from(self.to[i]));
            ((from * (255 - u32::from(place)) + to * u32::from(place)) / 255) as u8
        };
        Color {
            r: channel(0),
            g: channel(1),
            b: channel(2),
        }
    }
}

/// Frames of a kind.
pub(super) const fn of_kind(kind: Kind) -> Band {
    match kind {
        Kind::Kernel => Band::new("orange", [235, 148, 52], [243, 172, 86]),
        Kind::Go => Band::new("blue", [137, 186, 254], [167, 206, 255]),
        Kind::Native => Band::new("yellow", [229, 241, 87], [241, 249, 123]),
        Kind::Rust => Band::new("brown", [185, 110, 85], [197, 126, 101]),
        Kind::Unknown => Band::new("grey", [176, 176, 176], [188, 188, 188]),
    }
}

/// Frames that a traceback hook of the program gave, in whatever language.
pub(super) const HOOK: Band = Band::new("green", [96, 240, 160], [116, 249, 176]);

/// The notes that stand for missing frames.
pub(super) const NOTE: Band = Band::new("pink", [218, 140, 200], [218, 140, 200]);

/// Threads and the row of all samples.
pub(super) const THREAD: Band = Band::new("light grey", [225, 225, 225], [225, 225, 225]);

/// FNV-1a, 64 bits: the same on every host and in every version, unlike the hash of std.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{Band, HOOK, NOTE, THREAD, hash, of_kind};
    use crate::profile::Kind;
    use std::collections::HashSet;

    /// Linear RGB of what people with full colour vision and with protanopia, deuteranopia and tritanopia see
    /// (Machado, Oliveira and Fernandes 2009, severity 1).
    const EYES: [[[f64; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    ];

    fn linear(color: [u8; 3]) -> [f64; 3] {
        color.map(|c| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        })
    }

    fn times(matrix: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum())
    }

    /// CIE L*a*b* under D65.
    fn lab(linear: [f64; 3]) -> [f64; 3] {
        let xyz = [
            [0.4124, 0.3576, 0.1805],
            [0.2126, 0.7152, 0.0722],
            [0.0193, 0.1192, 0.9505],
        ];
        let [x, y, z] = times(&xyz, linear.map(|c| c.clamp(0.0, 1.0)));
        let [x, y, z] = [x / 0.95047, y, z / 1.08883].map(|t: f64| {
            if t > 0.008856 {
                t.cbrt()
            } else {
                7.787 * t + 16.0 / 116.0
            }
        });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn bands() -> Vec<Band> {
        Kind::ALL
            .into_iter()
            .map(of_kind)
            .chain([HOOK, NOTE, THREAD])
            .collect()
    }

    #[test]
    fn black_text_is_readable_on_every_colour() {
        for band in bands() {
            for color in [band.from, band.to] {
                let [r, g, b] = linear(color);
                let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
                // WCAG 2 asks for a contrast of 4.5.
                assert!((luminance + 0.05) / 0.05 > 5.0, "{} {color:?}", band.word);
            }
        }
    }

    #[test]
    fn no_two_kinds_look_alike_to_any_eye() {
        let bands = bands();
        for eye in &EYES {
            let seen = |color| lab(times(eye, linear(color)));
            for (at, one) in bands.iter().enumerate() {
                for other in &bands[at + 1..] {
                    let nearest = [one.from, one.to]
                        .into_iter()
                        .flat_map(|a| [other.from, other.to].map(|b| (seen(a), seen(b))))
                        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt())
                        .fold(f64::INFINITY, f64::min);
                    // A difference of about 2 can just be seen. Rows of threads are known by their place too.
                    let least = if *other == THREAD { 9.5 } else { 14.0 };
                    assert!(nearest > least, "{} and {}: {nearest}", one.word, other.word);
                }
            }
        }
    }

    #[test]
    fn a_function_keeps_its_colour_and_neighbours_differ() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
        let go = of_kind(Kind::Go);
        let names = (0..100).map(|i| go.color(&format!("main.f{i}")));
        assert!(names.collect::<HashSet<_>>().len() > 10);
    }
}
