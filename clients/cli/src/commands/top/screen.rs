//! The screen of `top`: 80 columns and 24 lines are enough.

use super::figures::Figures;
use crate::connect::Row;
use crate::output::{clean, size, span};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, RenderDirection, Sparkline, Table};
use std::collections::VecDeque;
use std::time::Duration;

/// Draws.
pub fn draw(frame: &mut Frame<'_>, figures: &Figures, interval: Duration, paused: bool) {
    // The title stays where there is no room for all of the rest.
    let halves = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]);
    let [title, rest] = halves.areas(frame.area());
    let rows = Layout::vertical([
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Min(4),
        Constraint::Length(5),
    ]);
    let [first, second, classes, workers] = rows.areas(rest);
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let [reads, writes] = halves.areas(first);
    let [memory, messages] = halves.areas(second);
    draw_title(frame, title, figures, interval, paused);
    draw_reads(frame, reads, figures);
    draw_writes(frame, writes, figures);
    draw_memory(frame, memory, figures);
    draw_messages(frame, messages, figures);
    draw_classes(frame, classes, figures);
    draw_workers(frame, workers, figures);
}

/// A number a second, in few characters.
fn rate(value: f64) -> String {
    match value {
        value if value >= 10_000_000.0 => format!("{:.0}M", value / 1e6),
        value if value >= 10_000.0 => format!("{:.0}k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

fn dim(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::DIM))
}

fn bold(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
}

/// Names and rates on a line.
fn pairs(figures: &Figures, pairs: &[(&'static str, &str)]) -> Line<'static> {
    let mut spans = Vec::new();
    for (title, name) in pairs {
        let value = figures.rate(name);
        spans.push(dim(format!("{title} ")));
        spans.push(match value > 0.0 {
            true => bold(rate(value)),
            false => Span::raw("0"),
        });
        spans.push(Span::raw("  "));
    }
    Line::from(spans)
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &'static str) -> Rect {
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

/// The line of an area that has such a number; nothing where the area is too small.
fn line_of(area: Rect, number: u16) -> Rect {
    let height = u16::from(number < area.height);
    Rect::new(area.x, area.y.saturating_add(number), area.width, height).intersection(area)
}

fn lines(frame: &mut Frame<'_>, area: Rect, from: u16, text: Vec<Line<'static>>) {
    for (index, line) in text.into_iter().enumerate() {
        frame.render_widget(Paragraph::new(line), line_of(area, from + index as u16));
    }
}

fn spark(frame: &mut Frame<'_>, area: Rect, values: &VecDeque<u64>, color: Color) {
    // The newest one stands at the right.
    let newest_first: Vec<u64> = values.iter().rev().copied().collect();
    let sparkline = Sparkline::default()
        .data(&newest_first)
        .direction(RenderDirection::RightToLeft)
        .style(Style::new().fg(color));
    frame.render_widget(sparkline, area);
}

fn draw_title(
    frame: &mut Frame<'_>,
    area: Rect,
    figures: &Figures,
    interval: Duration,
    paused: bool,
) {
    let about = |name: &str| clean(&figures.now.database.text(name).unwrap_or_default());
    let l1 = clean(&figures.now.total.text("l1").unwrap_or_default());
    let state = match paused {
        true => "paused".to_owned(),
        false => format!("every {} s", interval.as_secs_f64()),
    };
    let line = Line::from(vec![
        bold(format!("state-cache  {}", about("name"))),
        Span::raw(format!("  {}  L1 {l1}  {state}  ", about("time"))),
        dim("p pauses, q ends"),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_reads(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let inner = panel(frame, area, " Reads a second ");
    let percent = figures.hit_rate();
    let percent = percent.map_or_else(String::new, |percent| format!("L1 {percent:.1} %"));
    let mut first = pairs(figures, &[("hits", "hits"), ("validated", "validated")]);
    first.push_span(Span::raw(percent));
    lines(frame, inner, 0, vec![first]);
    spark(frame, line_of(inner, 1), &figures.history[0], Color::Green);
    let misses = pairs(
        figures,
        &[
            ("misses", "misses"),
            ("evicted", "misses_evicted"),
            ("changed", "misses_changed"),
        ],
    );
    lines(frame, inner, 2, vec![misses]);
    spark(frame, line_of(inner, 3), &figures.history[1], Color::Red);
    let around = pairs(
        figures,
        &[
            ("own", "bypass_own"),
            ("writers", "bypass_writers"),
            ("snapshot", "bypass_snapshot"),
        ],
    );
    let more = pairs(
        figures,
        &[
            ("serializable", "bypass_serializable"),
            ("rights", "bypass_privileges"),
            ("off", "bypass_off"),
        ],
    );
    lines(frame, inner, 4, vec![around, more]);
}

fn draw_writes(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let inner = panel(frame, area, " Writes a second ");
    let written = pairs(
        figures,
        &[("written", "states_written"), ("deleted", "states_deleted")],
    );
    lines(frame, inner, 0, vec![written]);
    spark(frame, line_of(inner, 1), &figures.history[2], Color::Cyan);
    let mut flushes = pairs(figures, &[("flushes", "flushes")]);
    flushes.push_span(match figures.flush_ms() {
        Some(time) => Span::raw(format!("{time:.2} ms each")),
        None => dim("(track_timing is off)"),
    });
    let same = pairs(
        figures,
        &[
            ("unchanged", "duplicates_skipped"),
            ("conflicts", "conflicts"),
        ],
    );
    let behind = pairs(
        figures,
        &[
            ("left behind", "left_behind"),
            ("written through", "written_through"),
        ],
    );
    let worker = pairs(
        figures,
        &[
            ("by the worker", "behind_flushed"),
            ("computed", "evaluations"),
        ],
    );
    lines(frame, inner, 2, vec![flushes, same, behind, worker]);
}

fn draw_memory(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let inner = panel(frame, area, " L1 ");
    let (used, total) = (figures.value("memory_used"), figures.value("memory_total"));
    let share = if total > 0.0 {
        100.0 * used / total
    } else {
        0.0
    };
    let memory = Line::from(vec![
        bold(size(used)),
        Span::raw(format!(" of {} ({share:.0} %)", size(total))),
        dim("  entries "),
        Span::raw(format!("{:.0}", figures.value("entries"))),
    ]);
    let moved = pairs(
        figures,
        &[
            ("evictions", "evictions"),
            ("expired", "expirations"),
            ("too large", "too_large"),
        ],
    );
    let filled = pairs(figures, &[("fills", "fills"), ("refused", "fills_refused")]);
    lines(frame, inner, 0, vec![memory, moved, filled]);
}

fn draw_messages(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let inner = panel(frame, area, " Messages and write-behind ");
    let worker = figures.worker();
    let number = |name: &str| worker.and_then(|row| row.number(name)).unwrap_or(0.0);
    let mut told = pairs(figures, &[("messages", "notifications")]);
    told.push_span(dim("untold "));
    told.push_span(Span::raw(size(number("untold"))));
    lines(frame, inner, 0, vec![told]);
    spark(frame, line_of(inner, 1), &figures.history[3], Color::Yellow);
    let behind = Line::from(vec![
        dim("unwritten "),
        Span::raw(format!("{:.0}", number("backlog"))),
        dim("  lag "),
        Span::raw(span(number("lag_seconds"))),
        dim("  dirty "),
        Span::raw(format!("{:.0}", figures.value("dirty"))),
    ]);
    lines(frame, inner, 2, vec![behind]);
}

fn draw_classes(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let mut classes: Vec<(&Row, f64)> = figures
        .now
        .classes
        .iter()
        .map(|row| {
            (
                row,
                ["hits", "misses", "states_written"]
                    .iter()
                    .map(|it| figures.class_rate(row, it))
                    .sum(),
            )
        })
        .collect();
    classes.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let rows = classes.iter().map(|(row, _)| {
        let number = |name: &str| row.number(name).unwrap_or(0.0);
        ratatui::widgets::Row::new([
            clean(&row.text("class").unwrap_or_default()),
            format!("{:>8.0}", number("entries")),
            format!("{:>8}", size(number("bytes"))),
            format!("{:>7}", rate(figures.class_rate(row, "hits"))),
            format!("{:>7}", rate(figures.class_rate(row, "misses"))),
            format!("{:>7}", rate(figures.class_rate(row, "states_written"))),
            format!("{:>7}", rate(figures.class_rate(row, "conflicts"))),
            format!("{:>7.0}", number("dirty")),
        ])
    });
    let widths = [
        Constraint::Min(16),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let header = [
        "class", " entries", "    size", " hits/s", " miss/s", "write/s", "confl/s", "  dirty",
    ];
    let table = Table::new(rows, widths)
        .header(ratatui::widgets::Row::new(header).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::bordered().title(" Classes "));
    frame.render_widget(table, area);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let rows = figures.now.workers.iter().map(|row| {
        let text = |name: &str| clean(&row.text(name).unwrap_or_default());
        let doing = match text("activity") {
            nothing if nothing.is_empty() => text("last_error"),
            activity => activity,
        };
        ratatui::widgets::Row::new([
            text("database"),
            text("pid"),
            text("state"),
            format!("{:>9}", text("backlog")),
            format!(
                "{:>7}",
                row.number("lag_seconds").map(span).unwrap_or_default()
            ),
            doing,
        ])
    });
    let widths = [
        Constraint::Length(16),
        Constraint::Length(7),
        Constraint::Length(14),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Min(10),
    ];
    let header = [
        "database",
        "pid",
        "state",
        "unwritten",
        "    lag",
        "doing, or last error",
    ];
    let table = Table::new(rows, widths)
        .header(ratatui::widgets::Row::new(header).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::bordered().title(" Workers "));
    frame.render_widget(table, area);
}
