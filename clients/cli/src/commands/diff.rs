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
        print(
            &text("before"),
            &text("after"),
            &from,
            &to,
            *context,
            output,
        )?;
    }
    Ok(match patch {
        "[]" => ExitCode::SUCCESS,
        _ => ExitCode::from(FINDINGS),
    })
}

fn print(
    before: &str,
    after: &str,
    from: &str,
    to: &str,
    context: usize,
    output: &Output,
) -> Result<(), Failure> {
    let diff = TextDiff::from_lines(before, after);
    let groups = diff.grouped_ops(context);
    if groups.is_empty() {
        return Ok(());
    }
    output.line(&output.paint(Paint::Bold, &format!("--- version {from}")))?;
    output.line(&output.paint(Paint::Bold, &format!("+++ version {to}")))?;
    for group in groups {
        if let Some(first) = group.first() {
            let place = format!(
                "@@ line {} → {} @@",
                first.old_range().start + 1,
                first.new_range().start + 1
            );
            output.line(&output.paint(Paint::Cyan, &place))?;
        }
        for change in group.iter().flat_map(|part| diff.iter_changes(part)) {
            let text = clean(change.value().trim_end_matches('\n'));
            let line = match change.tag() {
                ChangeTag::Equal => format!(" {text}"),
                ChangeTag::Delete => output.paint(Paint::Red, &format!("-{text}")),
                ChangeTag::Insert => output.paint(Paint::Green, &format!("+{text}")),
            };
            output.line(&line)?;
        }
    }
    Ok(())
}
