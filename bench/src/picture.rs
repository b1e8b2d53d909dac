//! The results as a picture: each ratio on one scale, with its target and its rounds.
//!
//! Colours are in a style sheet, which chooses them by whether the reader's pages are light or dark; whether a target
//! was reached is also in the shape of the mark.

use svg::Document;
use svg::node::Node;
use svg::node::element::{Circle, Line, Polygon, Rectangle, Style, Text, Title};

use crate::report::{Row, Target, Unit, median, wrapped};
use crate::results::Results;

/// Width of the picture.
const WIDTH: f64 = 1000.0;
/// Where texts begin.
const LEFT: f64 = 16.0;
/// Where the scale begins, and ends.
const SCALE: [f64; 2] = [560.0, 880.0];
/// Where the medians stand.
const MEDIANS: f64 = WIDTH - 16.0;
/// Characters of a line of what was measured.
const LINE: usize = 84;
/// Height of a line.
const LINE_HEIGHT: f64 = 14.0;

const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 18px; font-weight: 600 }
.group { font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.median { text-anchor: end }
.tick { font-size: 11px; fill: #59636e; text-anchor: middle }
.paper { fill: #ffffff }
.grid { stroke: #d1d9e0 }
.one { stroke: #59636e }
.target { stroke: #9a6700; stroke-width: 3 }
.round { fill: #59636e; fill-opacity: 0.7 }
.ok { fill: #1a7f37 }
.missed { fill: #cf222e }
.none { fill: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small, .tick { fill: #9198a1 }
.paper { fill: #0d1117 }
.grid { stroke: #3d444d }
.one { stroke: #9198a1 }
.target { stroke: #d29922 }
.round { fill: #9198a1 }
.ok { fill: #3fb950 }
.missed { fill: #f85149 }
.none { fill: #4493f8 }
}
";

/// A logarithmic scale of whole decades.
struct Scale {
    first: f64,
    last: f64,
}

impl Scale {
    /// The one that all ratios and their targets are on.
    fn of(results: &Results) -> Self {
        let rows = results.groups.iter().flat_map(|group| &group.rows);
        let rows = rows.filter(|row| is_ratio(row));
        let all = rows.flat_map(|row| row.figures.iter().copied().chain(target(row)));
        let logarithms = all.filter(|figure| *figure > 0.0).map(f64::log10);
        let (first, last) = logarithms.fold((-1.0_f64, 1.0_f64), |(first, last), next| {
            (first.min(next.floor()), last.max(next.ceil()))
        });
        Scale { first, last }
    }

    fn place(&self, figure: f64) -> f64 {
        let part =
            (figure.log10().clamp(self.first, self.last) - self.first) / (self.last - self.first);
        rounded(SCALE[0] + part * (SCALE[1] - SCALE[0]))
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.first as i32..=self.last as i32).map(|decade| 10_f64.powi(decade))
    }
}

/// A place with so many digits as can be seen.
fn rounded(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

fn is_ratio(row: &Row) -> bool {
    matches!(row.unit, Unit::Times | Unit::Share)
}

fn target(row: &Row) -> Option<f64> {
    match row.target {
        Target::AtLeast(target) | Target::AtMost(target) => Some(target),
        Target::Zero | Target::None => None,
    }
}

/// A text of the table without its Markdown.
fn plain(text: &str) -> String {
    text.replace(['`', '\\'], "")
}

/// The picture, and how much of it is filled.
struct Picture {
    document: Document,
    bottom: f64,
}

impl Picture {
    fn add(&mut self, node: impl Into<Box<dyn Node>>) {
        self.document.append(node);
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        self.add(Text::new(text).set("class", class).set("x", x).set("y", y));
    }

    /// Lines of text on the left.
    fn lines(&mut self, class: &str, text: &str) {
        for line in wrapped(&plain(text), LINE) {
            self.bottom += LINE_HEIGHT;
            let y = self.bottom;
            self.text(class, LEFT, y, &line);
        }
    }

    fn line(&mut self, class: &str, [x, y]: [f64; 2], [to_x, to_y]: [f64; 2]) {
        let line = Line::new().set("class", class).set("x1", x).set("y1", y);
        self.add(line.set("x2", to_x).set("y2", to_y));
    }

    /// A round mark, or where a target was missed a pointed one.
    fn mark(&mut self, class: &str, [x, y]: [f64; 2], says: &str) {
        let title = Title::new(says);
        if class == "missed" {
            let points = format!(
                "{x},{} {},{y} {x},{} {},{y}",
                y - 6.0,
                x + 6.0,
                y + 6.0,
                x - 6.0
            );
            self.add(
                Polygon::new()
                    .set("class", class)
                    .set("points", points)
                    .add(title),
            );
        } else {
            let radius = if class == "round" { 2.0 } else { 5.0 };
            let circle = Circle::new().set("class", class).set("r", radius);
            self.add(circle.set("cx", x).set("cy", y).add(title));
        }
    }

    fn rows(&mut self, scale: &Scale, results: &Results) {
        for group in &results.groups {
            self.bottom += LINE_HEIGHT + 4.0;
            let y = self.bottom;
            self.text("group", LEFT, y, &group.name);
            for row in &group.rows {
                self.row(scale, row);
            }
        }
    }

    fn row(&mut self, scale: &Scale, row: &Row) {
        let top = self.bottom;
        self.lines("", &row.measured);
        if !row.against.is_empty() {
            self.lines("small", &format!("against {}", row.against));
        }
        let y = rounded((top + self.bottom) / 2.0 + 3.0);
        let shown = match row.figures.as_slice() {
            [] => "not measured".to_owned(),
            figures => row.unit.show(median(figures)),
        };
        let class = match row.verdict() {
            "ok" => "ok",
            "missed" => "missed",
            _ => "none",
        };
        self.text("median", MEDIANS, y + 4.0, &shown);
        if is_ratio(row) {
            self.line("grid", [SCALE[0], y], [SCALE[1], y]);
            if let Some(target) = target(row) {
                let x = scale.place(target);
                self.line("target", [x, y - 8.0], [x, y + 8.0]);
            }
            for figure in &row.figures {
                self.mark(
                    "round",
                    [scale.place(*figure), y + 8.0],
                    &row.unit.show(*figure),
                );
            }
            if !row.figures.is_empty() {
                self.mark(class, [scale.place(median(&row.figures)), y], &shown);
            }
        } else if let Target::AtMost(_) | Target::AtLeast(_) | Target::Zero = row.target {
            // No ratio, so no place on the scale: the target in words.
            let says = format!("target {}", row.target.show(row.unit));
            self.text("small", SCALE[0] + 16.0, y + 4.0, &says);
            self.mark(class, [SCALE[0], y], &shown);
        }
        self.bottom += 10.0;
    }

    /// The figures of the scale, and a line down to `bottom` for each.
    fn scale(&mut self, scale: &Scale, bottom: f64) {
        let top = self.bottom;
        for figure in scale.decades() {
            let x = scale.place(figure);
            self.text("tick", x, top - 6.0, &format!("{figure} ×"));
            let class = if figure == 1.0 { "one" } else { "grid" };
            self.line(class, [x, top], [x, bottom]);
        }
    }

    fn legend(&mut self) {
        self.bottom += LINE_HEIGHT + 6.0;
        let y = self.bottom;
        for (place, class, says) in [
            (0.0, "ok", "median, target reached"),
            (180.0, "missed", "median, target missed"),
            (350.0, "none", "median, no target"),
            (500.0, "round", "a round"),
        ] {
            let x = LEFT + 6.0 + place;
            self.mark(class, [x, y - 4.0], says);
            self.text("small", x + 12.0, y, says);
        }
        self.line("target", [606.0, y - 12.0], [606.0, y + 4.0]);
        self.text("small", 616.0, y, "target");
    }
}

/// Draws the results.
pub fn draw(results: &Results) -> String {
    let scale = Scale::of(results);
    let paper = Rectangle::new()
        .set("class", "paper")
        .set("width", "100%")
        .set("height", "100%");
    let mut picture = Picture {
        document: Document::new()
            .set("role", "img")
            .add(Title::new("Ratios with their targets and rounds"))
            .add(Style::new(STYLE))
            .add(paper),
        bottom: 30.0,
    };
    picture.text(
        "title",
        LEFT,
        30.0,
        "state_cache beside plain PostgreSQL, and beside others",
    );
    picture.bottom += 6.0;
    picture.lines("small", &results.described());
    picture.legend();
    picture.bottom += 34.0;
    // The scale lies below the marks, and is as long as they need: that shows when they are drawn.
    let mut trial = Picture {
        document: Document::new(),
        bottom: picture.bottom,
    };
    trial.rows(&scale, results);
    picture.scale(&scale, trial.bottom);
    picture.rows(&scale, results);
    let height = picture.bottom + 16.0;
    let document = picture.document.set("viewBox", (0, 0, WIDTH, height));
    document.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::results::tests::every_kind;

    #[test]
    fn the_picture_is_well_formed_and_has_every_row() {
        let results = every_kind();
        let drawn = draw(&results);
        let picture = roxmltree::Document::parse(&drawn).unwrap();
        let marks = |class: &str, name: &str| {
            let has = |node: &roxmltree::Node| {
                node.attribute("class") == Some(class) && node.has_tag_name(name)
            };
            picture.descendants().filter(has).count()
        };
        let texts: Vec<&str> = picture
            .descendants()
            .filter_map(|node| node.text().map(str::trim))
            .collect();
        let mut ratios = 0;
        for row in results.groups.iter().flat_map(|group| &group.rows) {
            assert!(
                texts.contains(&plain(&row.measured).as_str()),
                "{}",
                row.measured
            );
            if is_ratio(row) {
                ratios += row.figures.len();
            }
        }
        assert!(texts.contains(&"against what <that> & \"this\" is"));
        // One of each kind is the legend's.
        assert_eq!(marks("round", "circle"), ratios + 1);
        assert_eq!(marks("target", "line"), 4 + 1);
        assert_eq!(marks("ok", "circle"), 4 + 1);
        assert_eq!(marks("missed", "polygon"), 1 + 1);
        assert_eq!(draw(&results), drawn);
    }

    #[test]
    fn every_mark_is_on_the_scale() {
        let results = every_kind();
        let scale = Scale::of(&results);
        assert_eq!((scale.first, scale.last), (-2.0, 2.0));
        assert!((scale.place(1.0) - f64::midpoint(SCALE[0], SCALE[1])).abs() < 0.1);
        for figure in [0.0, 1e-9, 0.01, 100.0, 1e9] {
            assert!(
                (SCALE[0]..=SCALE[1]).contains(&scale.place(figure)),
                "{figure}"
            );
        }
    }
}
