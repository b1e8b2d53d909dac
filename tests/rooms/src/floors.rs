//! The floors of the house, and what stands against their order.

use crate::{Import, circles};
use std::collections::BTreeMap;

/// The rooms by floor, from the top to the bottom: a room imports those of lower floors, and those of its own floor
/// in one direction.
pub const FLOORS: [(&str, &[&str]); 7] = [
    ("the door", &["sql"]),
    (
        "the capabilities",
        &[
            "causal",
            "budgets",
            "changes",
            "claims",
            "context",
            "derived",
            "jobs",
            "keys",
            "logs",
            "snapshots",
            "upkeep",
        ],
    ),
    ("the transaction", &["transaction"]),
    ("what a commit hands to", &["behind", "notify"]),
    ("the cache", &["cache"]),
    ("the tables and the workers", &["store", "worker"]),
    (
        "the ground",
        &[
            "call",
            "callback",
            "catalog",
            "counters",
            "encoding",
            "error",
            "error_context",
            "fault",
            "identity",
            "interval",
            "json_text",
            "latch",
            "memory",
            "money",
            "name",
            "reserve",
            "settings",
            "shared",
            "snapshot",
            "subtransaction",
            "sys",
            "user_lock",
            "varlena",
            "versions",
        ],
    ),
];

/// From one room into another.
pub type FromTo<'a> = (&'a str, &'a str);

/// The number of a room's floor, counted from the top.
///
/// # Panics
/// If no floor lists the room.
pub fn floor(room: &str) -> usize {
    let found = FLOORS.iter().position(|(_, rooms)| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("src/{room} stands on no floor: add the room to FLOORS"))
}

/// The imports that go up, and those that close a circle between rooms of one floor, each with a sentence that says
/// so.
pub fn violations(imports: &[Import]) -> BTreeMap<FromTo<'_>, Vec<String>> {
    let between = |it: &&Import| it.from_room != it.to_room;
    let level = imports
        .iter()
        .filter(between)
        .filter(|it| floor(&it.from_room) == floor(&it.to_room))
        .map(|it| (it.from_room.as_str(), it.to_room.as_str()));
    let circles = circles(level);
    let mut found: BTreeMap<FromTo<'_>, Vec<String>> = BTreeMap::new();
    for import in imports.iter().filter(between) {
        let (from, to) = (import.from_room.as_str(), import.to_room.as_str());
        let (name, above) = (FLOORS[floor(from)].0, FLOORS[floor(to)].0);
        let why = if floor(to) < floor(from) {
            format!("`{from}` ({name}) imports `{to}` from a higher floor ({above})")
        } else if circles
            .iter()
            .any(|it| it.contains(from) && it.contains(to))
        {
            format!("`{from}` imports `{to}`, which imports `{from}` in turn (both in {name})")
        } else {
            continue;
        };
        let line = format!("{}:{}: {why}", import.file, import.line);
        let lines = found.entry((from, to)).or_default();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    found
}
