//! What a step answered, in words that can be compared.

use super::step::{Answer, Step, optional};
use serde_json::Value;

pub type Rows = Vec<Vec<Option<String>>>;

pub fn rows(messages: Vec<postgres::SimpleQueryMessage>) -> Rows {
    let row = |message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// What the server answered and what the model does, in words that can be compared: of exports that were not merged
/// the reason is not looked at.
pub fn answered(step: &Step, rows: &Rows) -> Vec<Vec<String>> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut lines: Vec<Vec<String>> = match step {
        Step::Merge { .. } => rows
            .iter()
            .map(|row| {
                let value: Option<Value> = row[1]
                    .as_ref()
                    .map(|text| serde_json::from_str(text).unwrap());
                vec![
                    text(&row[0]),
                    optional(value),
                    text(&row[2]),
                    text(&row[3]),
                    text(&row[4]),
                ]
            })
            .collect(),
        Step::Complete { .. } => rows
            .iter()
            .map(|row| {
                let was_merged = row[1].as_deref() == Some("parent_context");
                let reason = text(&row[3]);
                let said = was_merged && reason != "not changed by the child";
                vec![
                    text(&row[0]),
                    text(&row[1]),
                    text(&row[2]),
                    if said { reason } else { String::new() },
                ]
            })
            .collect(),
        _ => Vec::new(),
    };
    lines.sort();
    lines
}

pub fn expected_answer(answer: &Answer) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = match answer {
        Answer::Nothing => Vec::new(),
        Answer::Merged(outcomes) => outcomes
            .iter()
            .map(|(name, outcome)| {
                let opened = if outcome.opened { "t" } else { "f" };
                vec![
                    name.clone(),
                    optional(outcome.value.as_ref()),
                    real_name(outcome.strategy).to_owned(),
                    outcome.reason.to_owned(),
                    opened.to_owned(),
                ]
            })
            .collect(),
        Answer::Exported(arrived) => arrived
            .iter()
            .map(|(name, destination, outcome)| {
                let strategy = outcome.as_ref().and_then(|outcome| outcome.strategy);
                let reason = outcome.as_ref().map_or("", |outcome| outcome.reason);
                vec![
                    name.clone(),
                    destination.clone(),
                    real_name(strategy).to_owned(),
                    reason.to_owned(),
                ]
            })
            .collect(),
    };
    lines.sort();
    lines
}

/// The name of which a strategy's may be an alias.
fn real_name(strategy: Option<&'static str>) -> &'static str {
    match strategy.unwrap_or_default() {
        "timestamp_latest" => "keep_latest",
        name => name,
    }
}
