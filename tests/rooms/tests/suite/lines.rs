//! How long lines of code are. Those of the pages are looked at in `tests/docs`.

use state_cache_rooms_tests::root;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Columns of a line at most.
const COLUMNS: usize = 118;
/// Columns that a tab takes, as rustfmt counts them.
const TAB: usize = 4;

/// What is looked at: folders, and in each the endings of the names of the files that count.
const LOOKED_AT: [(&str, &[&str]); 9] = [
    ("src", &["rs"]),
    ("clients", &["rs", "toml", "py"]),
    ("crates", &["rs", "toml"]),
    ("sql", &["sql"]),
    ("tests", &["rs"]),
    ("scripts", &["", "sh"]),
    ("bench", &["rs", "sql", "sh", "md"]),
    ("demo", &["rs", "sql", "sh", "md"]),
    ("examples", &["rs", "sql", "sh", "py", "js", "mjs", "md"]),
];

fn columns(line: &str) -> usize {
    line.chars().map(|c| if c == '\t' { TAB } else { 1 }).sum()
}

/// The lines of a file that are too long.
fn too_long<'a>(name: &Path, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<String> {
    let long = lines.filter(|(_, line)| columns(line) > COLUMNS);
    let told =
        long.map(|(at, line)| format!("{}:{}: {} columns", name.display(), at + 1, columns(line)));
    told.collect()
}

/// The files below a folder, or one file, by the endings of their names: each with its text.
fn files(path: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in WalkDir::new(root().join(path)).sort_by_file_name() {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(root()).unwrap();
        let ending = name.extension().map_or("", |it| it.to_str().unwrap());
        let is_built = name
            .iter()
            .any(|part| part == "target" || part == "node_modules");
        if entry.file_type().is_file() && endings.contains(&ending) && !is_built {
            found.push((
                name.to_owned(),
                std::fs::read_to_string(entry.path()).unwrap(),
            ));
        }
    }
    assert!(!found.is_empty(), "{path} has no file of {endings:?}");
    found
}

#[test]
fn no_line_of_code_is_too_long() {
    let files = LOOKED_AT
        .iter()
        .flat_map(|(folder, endings)| files(folder, endings));
    let found: Vec<_> = files
        .flat_map(|(name, text)| too_long(&name, text.lines().enumerate()))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
