//! What commands print: tables for people, one JSON value a line for programs.

use crate::connect::Row;
use crate::failure::Failure;
use clap::{Args, ValueEnum};
use std::io::{IsTerminal, Write};

/// How to print.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
#[group(id = "output_options")]
pub struct Options {
    /// Print JSON: one value a line
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: When,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Text, from the left.
    Text,
    /// A number, from the right.
    Number,
    /// A number of bytes: `4.4 kB`.
    Bytes,
    /// Seconds: `3 min`.
    Span,
    /// A time, without fractions of a second.
    Time,
    /// A status, in its colour.
    Status,
}

/// A column of a table: its name in the row, its title, how it is shown.
pub type Column = (&'static str, &'static str, As);

/// A colour of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Added, fine.
    Green,
    /// Removed, failed.
    Red,
    /// Look at it.
    Yellow,
    /// Names of places.
    Cyan,
    /// Titles.
    Bold,
    /// What matters less.
    Dim,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Cyan => "36",
            Self::Bold => "1",
            Self::Dim => "2",
        }
    }
}

/// Where commands print to.
pub struct Output {
    /// Whether programs read it.
    pub json: bool,
    colours: bool,
}

impl Output {
    /// Standard output, as asked for.
    pub fn new(options: &Options) -> Self {
        let colours = match options.color {
            When::Always => true,
            When::Never => false,
            When::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Self {
            json: options.json,
            colours,
        }
    }

    /// Prints a line as it is.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// Prints a row as JSON.
    pub fn row(&self, row: &Row) -> Result<(), Failure> {
        self.line(&row.json)
    }

    /// Colours a text, where colours are wanted.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{}m{text}\x1b[0m", paint.code()),
            false => text.to_owned(),
        }
    }

    /// Prints rows: as a table, or each as JSON. `nothing` stands for a table without rows.
    pub fn table(&self, columns: &[Column], rows: &[Row], nothing: &str) -> Result<(), Failure> {
        if self.json {
            return rows.iter().try_for_each(|row| self.row(row));
        }
        if rows.is_empty() {
            return self.line(nothing);
        }
        let cell = |row: &Row, (name, _, how): &Column| show(row, name, *how);
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| columns.iter().map(|column| cell(row, column)).collect())
            .collect();
        let widest = |index: usize| {
            let own = columns[index].1.chars().count();
            let most = cells.iter().map(|row| row[index].chars().count()).max();
            own.max(most.unwrap_or(0))
        };
        let widths: Vec<usize> = (0..columns.len()).map(widest).collect();
        let titles: Vec<String> = columns.iter().map(|column| column.1.to_owned()).collect();
        let title = self.join(columns, &widths, &titles, false);
        self.line(&self.paint(Paint::Bold, &title))?;
        for row in &cells {
            self.line(&self.join(columns, &widths, row, true))?;
        }
        Ok(())
    }

    fn join(&self, columns: &[Column], widths: &[usize], cells: &[String], paint: bool) -> String {
        let mut line = String::new();
        for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let right = matches!(column.2, As::Number | As::Bytes | As::Span);
            let padded = match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            };
            match status_paint(cell) {
                Some(colour) if paint && column.2 == As::Status => {
                    line.push_str(&self.paint(colour, &padded))
                }
                _ => line.push_str(&padded),
            }
        }
        line.trim_end().to_owned()
    }

    /// Prints names and values of a row below one another, or the row as JSON.
    pub fn record(&self, columns: &[Column], row: &Row) -> Result<(), Failure> {
        if self.json {
            return self.row(row);
        }
        let widest = columns
            .iter()
            .map(|column| column.1.len())
            .max()
            .unwrap_or(0);
        for (name, title, how) in columns {
            let value = show(row, name, *how);
            if value.is_empty() {
                continue;
            }
            let title = self.paint(Paint::Bold, &format!("{title:<widest$}"));
            self.line(&format!("{title}  {value}"))?;
        }
        Ok(())
    }
}

/// The colour of a status.
pub fn status_paint(status: &str) -> Option<Paint> {
    match status {
        "completed" | "resolved" | "settled" | "ok" => Some(Paint::Green),
        "failed" | "error" | "open" | "damaged" => Some(Paint::Red),
        "running" | "held" => Some(Paint::Cyan),
        "paused" | "warning" | "pending" => Some(Paint::Yellow),
        "cancelled" | "abandoned" | "superseded" | "voided" | "expired" | "info" => {
            Some(Paint::Dim)
        }
        _ => None,
    }
}

/// A value of a row for people; empty for NULL.
pub fn show(row: &Row, name: &str, how: As) -> String {
    let Some(text) = row.text(name) else {
        return String::new();
    };
    let number = row.number(name);
    match (how, number) {
        (As::Bytes, Some(bytes)) => size(bytes),
        (As::Span, Some(seconds)) => span(seconds),
        (As::Time, _) => time(&text),
        _ => clean(&text),
    }
}

/// A number of bytes.
pub fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value.abs() < 1000.0 {
            return match unit == "B" || value >= 100.0 {
                true => format!("{value:.0} {unit}"),
                false => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.0} PB")
}

/// A span of time, in its largest unit.
pub fn span(seconds: f64) -> String {
    let units = [(86400.0, "d"), (3600.0, "h"), (60.0, "min")];
    let past = seconds.abs();
    match units.iter().find(|(length, _)| past >= 2.0 * length) {
        Some((length, unit)) => format!("{:.0} {unit}", (seconds / length).trunc()),
        None if past < 10.0 => format!("{seconds:.1} s"),
        None => format!("{seconds:.0} s"),
    }
}

/// A time as the server has written it, without `T` and fractions.
pub fn time(text: &str) -> String {
    match text.get(..19) {
        Some(second) if text.as_bytes().get(10) == Some(&b'T') => second.replacen('T', " ", 1),
        _ => clean(text),
    }
}

/// A text that cannot steer a terminal: keys and documents are written by anybody.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => cleaned.extend(c.escape_unicode()),
            false => cleaned.push(c),
        }
    }
    cleaned
}

/// A text of several lines that cannot steer a terminal.
pub fn clean_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(clean).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_and_spans_have_units() {
        assert_eq!(size(0.0), "0 B");
        assert_eq!(size(999.0), "999 B");
        assert_eq!(size(4505.6), "4.4 kB");
        assert_eq!(size(5.0 * 1024.0 * 1024.0), "5.0 MB");
        assert_eq!(span(3.25), "3.2 s");
        assert_eq!(span(119.0), "119 s");
        assert_eq!(span(120.0), "2 min");
        assert_eq!(span(200_000.0), "2 d");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("a\x1b[31m\n\u{9b}"), "a\\u{1b}[31m\\u{a}\\u{9b}");
        assert_eq!(clean_lines("{\n \"a\x07\"}"), "{\n \"a\\u{7}\"}");
    }

    #[test]
    fn values_are_as_the_server_wrote_them() {
        let text =
            r#"{"n":1.50,"s":"a\tb","t":"2026-12-01T04:05:06.7+00:00","z":null,"d":{"b":1,"a":2}}"#;
        let row = Row::parse(text.to_owned()).unwrap();
        assert_eq!(show(&row, "n", As::Number), "1.50");
        assert_eq!(show(&row, "s", As::Text), "a\\u{9}b");
        assert_eq!(show(&row, "t", As::Time), "2026-12-01 04:05:06");
        assert_eq!(show(&row, "z", As::Text), "");
        assert_eq!(show(&row, "d", As::Text), r#"{"b":1,"a":2}"#);
        assert_eq!(row.json, text);
    }
}
