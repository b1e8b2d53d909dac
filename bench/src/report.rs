//! What was measured, as a Markdown table.

use serde::{Deserialize, Serialize};

/// What a measurement has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Nothing at all.
    Zero,
    /// Shown beside another row, without a target of its own.
    None,
}

/// What the figures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// How many times better than what it is measured against.
    Times,
    /// A part of something, 1 being the whole.
    Share,
    /// Bytes.
    Bytes,
    /// Things counted.
    Count,
    /// Milliseconds.
    Millis,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub measured: String,
    /// What it was measured against.
    pub against: String,
    /// What it has to reach.
    pub target: Target,
    /// What the figures are.
    pub unit: Unit,
    /// One figure per round; none where it could not be measured.
    pub figures: Vec<f64>,
    /// What the sides took here, each in its own unit: the measured one, then the other.
    pub sides: String,
}

/// The middle figure; the upper one of two.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A text in lines of so many characters, broken between words.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = |line: &String| {
            !line.is_empty() && line.chars().count() + word.chars().count() >= width
        };
        if lines.last().is_some_and(is_full) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

impl Unit {
    /// A figure with its unit.
    pub fn show(self, figure: f64) -> String {
        match self {
            Unit::Times => format!("{figure:.2} ×"),
            Unit::Share => format!("{figure:.3}"),
            Unit::Bytes => format!("{figure:.0} bytes"),
            Unit::Count => format!("{figure:.0}"),
            Unit::Millis => format!("{figure:.2} ms"),
        }
    }
}

impl Target {
    /// As the table shows it; empty where there is none.
    pub fn show(self, unit: Unit) -> String {
        match self {
            Target::AtLeast(least) => format!("≥ {}", unit.show(least)),
            Target::AtMost(most) => format!("≤ {}", unit.show(most)),
            Target::Zero => unit.show(0.0),
            Target::None => String::new(),
        }
    }
}

impl Row {
    /// Whether the target was reached, in a word; empty where there is none.
    pub fn verdict(&self) -> &'static str {
        if self.figures.is_empty() {
            return "not measured";
        }
        let reached = match self.target {
            Target::AtLeast(least) => median(&self.figures) >= least,
            Target::AtMost(most) => median(&self.figures) <= most,
            Target::Zero => median(&self.figures) == 0.0,
            Target::None => return "",
        };
        if reached { "ok" } else { "missed" }
    }

    /// The row in Markdown.
    pub fn markdown(&self) -> String {
        let target = self.target.show(self.unit);
        let spread = match self.figures.as_slice() {
            [] | [_] => String::new(),
            figures => {
                let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
                let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                format!("{} to {}", self.unit.show(least), self.unit.show(most))
            }
        };
        let median = match self.figures.as_slice() {
            [] => String::new(),
            figures => self.unit.show(median(figures)),
        };
        let Row {
            measured,
            against,
            sides,
            ..
        } = self;
        let verdict = self.verdict();
        format!("| {measured} | {against} | {target} | {median} | {spread} | {verdict} | {sides} |")
    }
}

/// The two lines that begin the table.
pub const HEADING: &str = "\
| measured | against | target | median | rounds | | here |
| --- | --- | --- | --- | --- | --- | --- |";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: Target, figures: &[f64]) -> Row {
        Row {
            measured: "this".into(),
            against: "that".into(),
            target,
            unit: Unit::Times,
            figures: figures.to_vec(),
            sides: String::new(),
        }
    }

    #[test]
    fn the_median_decides() {
        assert_eq!(row(Target::AtLeast(2.0), &[1.0, 2.0, 9.0]).verdict(), "ok");
        assert_eq!(
            row(Target::AtLeast(2.1), &[1.0, 2.0, 9.0]).verdict(),
            "missed"
        );
        assert_eq!(row(Target::AtMost(2.0), &[1.0, 2.0, 9.0]).verdict(), "ok");
        assert_eq!(
            row(Target::AtMost(1.9), &[1.0, 2.0, 9.0]).verdict(),
            "missed"
        );
        assert_eq!(row(Target::Zero, &[0.0, 0.0, 40.0]).verdict(), "ok");
        assert_eq!(row(Target::Zero, &[0.0, 1.0, 1.0]).verdict(), "missed");
        assert_eq!(row(Target::None, &[1.0]).verdict(), "");
    }

    #[test]
    fn no_figures_reach_nothing() {
        for target in [Target::AtLeast(0.0), Target::AtMost(1.0), Target::None] {
            assert_eq!(
                row(target, &[]).markdown().split(" | ").nth(5),
                Some("not measured")
            );
        }
    }

    #[test]
    fn a_row_shows_median_and_spread() {
        assert_eq!(
            row(Target::AtLeast(2.0), &[3.0, 1.0, 2.5]).markdown(),
            "| this | that | ≥ 2.00 × | 2.50 × | 1.00 × to 3.00 × | ok |  |"
        );
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = "word ".repeat(40);
        let broken = wrapped(&text, 30);
        assert_eq!(broken.len(), 7);
        assert!(broken.iter().all(|line| line.len() <= 30));
        assert_eq!(broken.join(" "), text.trim());
        assert_eq!(wrapped("", 30), [""]);
    }
}
