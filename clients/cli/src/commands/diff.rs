//! `diff`: what two versions of a state differ in, in colours or as a patch.

use super::no_state;
use crate::connect::Database;
use crate::failure::{FINDINGS, Failure};
use crate::output::{Output, Paint, clean};
use clap::Args;
use similar::{ChangeTag, TextDiff};
use std::process::ExitCode;

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The key
    pub key: String,
    /// The first version
    pub from: u64,
    /// The second version; none: the current one
    pub to: Option<u64>,
    /// The class
    #[arg(short, long, default_value = "run")]
    pub class: String,
    /// Lines around each difference
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub context: usize,
}

/// Compares; differences are exit code 1, as of `diff`.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let Arguments {
        key,
        class,
        from,
        to,
        context,
    } = arguments;
    let to = match to {
        Some(to) => to.to_string(),
        None => {
            let row = database.one(
                "SELECT @.state_version($2, class => $1) AS version",
                &[Some(class), Some(key)],
            )?;
            row.and_then(|row| row.text("version"))
                .ok_or_else(|| no_state(class, key))?
        }
    };
    let from = from.to_string();
    let parameters = [Some(class.as_str()), Some(key), Some(&from), Some(&to)];
    let row = database
        .one(
            "SELECT @.state_diff($2, $3::bigint, $4::bigint, class => $1) AS patch,
                jsonb_pretty(@.state_at($2, $3::bigint, class => $1)) AS before,
                jsonb_pretty(@.state_at($2, $4::bigint, class => $1)) AS after",
            &parameters,
        )?
        .ok_or_else(|| no_state(class, key))?;
    let patch = row.raw("patch").unwrap_or("[]");
    if output.json {
        output.line(patch)?;
    } else {
        let text = |name: &str| row.text(name).unwrap_or_default();
        for line in lines(&text("before"), &text("after"), &from, &to, *context) {
            let paint = match line.kind {
                Kind::Same => None,
                Kind::Title => Some(Paint::Bold),
                Kind::Place => Some(Paint::Cyan),
                Kind::Removed => Some(Paint::Red),
                Kind::Added => Some(Paint::Green),
            };
            output.line(&paint.map_or_else(
                || line.text.clone(),
                |paint| output.paint(paint, &line.text),
            ))?;
        }
    }
    Ok(match patch {
        "[]" => ExitCode::SUCCESS,
        _ => ExitCode::from(FINDINGS),
    })
}

/// A line of a comparison.
pub struct Line {
    /// What the line is.
    pub kind: Kind,
    /// The line, with the sign that `diff` gives it.
    pub text: String,
}

/// What a line of a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The name of a version.
    Title,
    /// Where the lines below stand.
    Place,
    /// In both versions.
    Same,
    /// In the first one only.
    Removed,
    /// In the second one only.
    Added,
}

/// What two texts differ in, with so many lines around each difference; nothing if they are the same.
pub fn lines(before: &str, after: &str, from: &str, to: &str, context: usize) -> Vec<Line> {
    let diff = TextDiff::from_lines(before, after);
    let groups = diff.grouped_ops(context);
    if groups.is_empty() {
        return Vec::new();
    }
    let line = |kind, text| Line { kind, text };
    let mut lines = vec![
        line(Kind::Title, format!("--- version {from}")),
        line(Kind::Title, format!("+++ version {to}")),
    ];
    for group in groups {
        if let Some(first) = group.first() {
            let place = format!(
                "@@ line {} → {} @@",
                first.old_range().start + 1,
                first.new_range().start + 1
            );
            lines.push(line(Kind::Place, place));
        }
        for change in group.iter().flat_map(|part| diff.iter_changes(part)) {
            let text = clean(change.value().trim_end_matches('\n'));
            lines.push(match change.tag() {
                ChangeTag::Equal => line(Kind::Same, format!(" {text}")),
                ChangeTag::Delete => line(Kind::Removed, format!("-{text}")),
                ChangeTag::Insert => line(Kind::Added, format!("+{text}")),
            });
        }
    }
    lines
}
