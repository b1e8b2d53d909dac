//! Rooms and their floors.

use state_cache_rooms_tests::{Import, Source, circles, violations};
use std::collections::{BTreeMap, BTreeSet};

/// How a line in the header of a room begins that names the files of a circle, and says why it is one.
const NAMES_A_CIRCLE: &str = "//! Circle: ";

#[test]
fn no_room_imports_one_above_it() {
    let imports = Source::read().imports();
    assert!(imports.len() > 500, "{} imports", imports.len());
    let found: Vec<String> = violations(&imports).into_values().flatten().collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The circles of files in each room.
fn circles_of_rooms(imports: &[Import]) -> BTreeMap<&str, Vec<BTreeSet<&str>>> {
    let mut edges: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for import in imports.iter().filter(|it| it.from_room == it.to_room) {
        let edge = (import.file.as_str(), import.to_file.as_str());
        edges.entry(&import.from_room).or_default().push(edge);
    }
    let found = edges
        .into_iter()
        .map(|(room, edges)| (room, circles(edges)));
    found.filter(|(_, circles)| !circles.is_empty()).collect()
}

/// Whether the header of a room names a circle: one of its lines has all files of the circle, each without the
/// folder and in backquotes, and no other file.
fn is_named(header: &str, circle: &BTreeSet<&str>) -> bool {
    let wanted: BTreeSet<&str> = circle.iter().map(|file| short(file)).collect();
    let lines = header
        .lines()
        .filter_map(|it| it.strip_prefix(NAMES_A_CIRCLE));
    lines.into_iter().any(|line| {
        let quoted: BTreeSet<&str> = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|it| it.ends_with(".rs"))
            .collect();
        quoted == wanted
    })
}

/// The path of a file within its room.
fn short(file: &str) -> &str {
    file.splitn(3, '/').last().unwrap()
}

#[test]
fn circles_within_a_room_are_named_in_its_header() {
    let source = Source::read();
    let imports = source.imports();
    let mut unnamed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (room, circles) in circles_of_rooms(&imports) {
        for circle in circles.iter().filter(|it| !is_named(source.door(room), it)) {
            let in_circle = |it: &&Import| {
                circle.contains(it.file.as_str()) && circle.contains(it.to_file.as_str())
            };
            let lines = imports
                .iter()
                .filter(in_circle)
                .filter(|it| it.file != it.to_file);
            let lines = lines.map(|it| format!("{}:{}: imports {}", it.file, it.line, it.to_file));
            unnamed.entry(room).or_default().extend(lines);
        }
    }
    let unnamed: Vec<String> = unnamed.into_values().flatten().collect();
    assert!(unnamed.is_empty(), "\n{}", unnamed.join("\n"));
}

#[test]
fn headers_name_no_circle_that_is_gone() {
    let source = Source::read();
    let imports = source.imports();
    let circles = circles_of_rooms(&imports);
    for room in imports
        .iter()
        .map(|it| it.from_room.as_str())
        .collect::<BTreeSet<_>>()
    {
        let named = source
            .door(room)
            .lines()
            .filter(|it| it.starts_with(NAMES_A_CIRCLE));
        for line in named {
            let still = circles
                .get(room)
                .into_iter()
                .flatten()
                .any(|it| is_named(line, it));
            assert!(still, "src/{room}: there is no such circle: {line}");
        }
    }
}
