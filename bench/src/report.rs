//! What was measured, as a Markdown table.

/// What a measurement has to reach.
#[derive(Clone, Copy)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// Nothing at all.
    Zero,
    /// Shown beside another row, without a target of its own.
    None,
}

/// What the figures are.
#[derive(Clone, Copy)]
pub enum Unit {
    /// How many times better than what it is measured against.
    Times,
    /// A part of something, 1 being the whole.
    Share,
    /// Bytes.
    Bytes,
}

/// One row of the table.
pub struct Row {
    /// What was measured.
    pub measured: String,
    /// What it was measured against.
    pub against: String,
    /// What it has to reach.
    pub target: Target,
    /// What the figures are.
    pub unit: Unit,
    /// One figure per round.
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

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Unit::Times => format!("{figure:.2} ×"),
            Unit::Share => format!("{figure:.3}"),
            Unit::Bytes => format!("{figure:.0} bytes"),
        }
    }
}

impl Row {
    fn verdict(&self) -> &'static str {
        let reached = match self.target {
            Target::AtLeast(least) => median(&self.figures) >= least,
            Target::Zero => median(&self.figures) == 0.0,
            Target::None => return "",
        };
        if reached { "ok" } else { "below" }
    }

    /// The row in Markdown.
    pub fn markdown(&self) -> String {
        let target = match self.target {
            Target::AtLeast(least) => self.unit.show(least),
            Target::Zero => self.unit.show(0.0),
            Target::None => String::new(),
        };
        let spread = match self.figures.as_slice() {
            [_] => String::new(),
            figures => {
                let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
                let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                format!("{} to {}", self.unit.show(least), self.unit.show(most))
            }
        };
        let median = self.unit.show(median(&self.figures));
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
| measured | against | at least | median | rounds | | here |
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
            "below"
        );
        assert_eq!(row(Target::Zero, &[0.0, 0.0, 40.0]).verdict(), "ok");
        assert_eq!(row(Target::Zero, &[0.0, 1.0, 1.0]).verdict(), "below");
        assert_eq!(row(Target::None, &[1.0]).verdict(), "");
    }

    #[test]
    fn no_figures_reach_nothing() {
        assert_eq!(row(Target::AtLeast(0.0), &[]).verdict(), "below");
    }

    #[test]
    fn a_row_shows_median_and_spread() {
        assert_eq!(
            row(Target::AtLeast(2.0), &[3.0, 1.0, 2.5]).markdown(),
            "| this | that | 2.00 × | 2.50 × | 1.00 × to 3.00 × | ok |  |"
        );
    }
}
