//! Random documents that dwell on what is hard: counts around jsonb's stride of 32, keys that a path must
//! escape, numbers with scale or beyond any machine type, empty containers, characters of every length.

use crate::json::Json;

/// Deepest nesting of any document that comes from here: below the 128 at which common JSON parsers stop.
pub const MAX_DEPTH: usize = 100;

/// Deepest nesting of a random document; histories nest deeper by wrapping.
const RANDOM_DEPTH: usize = 5;

/// Numbers by which implementations differ.
const NUMBERS: [&str; 22] = [
    "0",
    "-0",
    "0.0",
    "0.00",
    "1",
    "1.0",
    "1.00",
    "-1",
    "10000",
    "9999",
    "-0.001",
    "1e2",
    "1E+4",
    "1.5e-3",
    "0.1000",
    "1e400",
    "-1e400",
    "1e-400",
    "9007199254740993",
    "18446744073709551616",
    "123456789012345678901234567890.123456789",
    "99999999999999999999999999999999999999999e30",
];

/// SplitMix64: a sequence that its seed decides.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.draw() % bound).unwrap_or(0)
    }

    /// One of the elements of an array that is not empty.
    pub fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[self.below(N)]
    }

    /// A key, often one that came before.
    pub fn key(&mut self) -> String {
        match self.below(12) {
            0 => String::new(),
            1 => self
                .pick(["é", "ключ", "日本", "𝄞", "k\u{301}", "éa", "ê"])
                .to_owned(),
            2 => self
                .pick(["/", "~", "a/b", "m~n", "~1", "~0", "//~~", "~01"])
                .to_owned(),
            3 => self
                .pick(["\"", "\\", "line\nbreak", "\u{1}", " ", "-", "01", "'"])
                .to_owned(),
            4 => "a".repeat(1 + self.below(6)),
            5 => format!("shared-prefix-{}", "x".repeat(self.below(40))),
            6 => format!("{}", self.below(12)),
            _ => format!("k{}", self.below(140)),
        }
    }

    /// Some words.
    pub fn text(&mut self) -> String {
        let words = [
            "plan",
            "tool",
            "résumé",
            "ключ",
            "日本語",
            "𝄞",
            "a/b",
            "\"q\"",
            "\n",
            "~",
        ];
        let mut text = String::new();
        for _ in 0..self.below(14) {
            text.push_str(self.pick(words));
            text.push(' ');
        }
        text
    }

    /// A number.
    pub fn number(&mut self) -> Json {
        Json::Number(match self.below(4) {
            0 => self.pick(NUMBERS).to_owned(),
            1 => format!("{}", self.draw().cast_signed() >> self.below(63)),
            2 => format!("{}.{:02}", self.below(20), 10 * self.below(10)),
            _ => format!("{}", self.below(30)),
        })
    }

    /// A value that is no container.
    pub fn scalar(&mut self) -> Json {
        match self.below(8) {
            0 => Json::Null,
            1 => Json::Bool(self.below(2) == 0),
            2..=4 => self.number(),
            5 => Json::String("s".repeat(self.below(90))),
            _ => Json::String(self.text()),
        }
    }

    /// How many elements a container gets; many only near the root.
    fn count(&mut self, depth: usize) -> usize {
        match self.below(if depth == 0 { 12 } else { 10 + 8 * depth }) {
            0 => 0,
            1 => 1,
            2 => self.pick([15, 16, 17, 31, 32, 33]),
            3 if depth < 2 => self.pick([63, 64, 65, 66, 95, 96, 97, 130]),
            _ => 2 + self.below(5),
        }
    }

    /// A value at this depth of a document, 0 being its root.
    pub fn value(&mut self, depth: usize) -> Json {
        match self.below(3 + 2 * depth) {
            0 if depth < RANDOM_DEPTH => self.object(depth),
            1 if depth < RANDOM_DEPTH => self.array(depth),
            _ => self.scalar(),
        }
    }

    /// An array at this depth.
    pub fn array(&mut self, depth: usize) -> Json {
        Json::Array(
            (0..self.count(depth))
                .map(|_| self.value(depth + 1))
                .collect(),
        )
    }

    /// An object at this depth.
    pub fn object(&mut self, depth: usize) -> Json {
        let count = self.count(depth);
        Json::object((0..count).map(|_| (self.key(), self.value(depth + 1))))
    }

    /// Puts a slice in any order.
    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for last in (1..elements.len()).rev() {
            elements.swap(last, self.below(last + 1));
        }
    }
}
