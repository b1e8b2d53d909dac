//! Names that users meet, and the pages that explain them.

use state_cache_docs_tests::{files_below, pages, read};
use std::collections::BTreeSet;
use std::path::Path;

/// The text of the pages below a path.
fn text_below(path: &str) -> String {
    let pages = pages();
    let of_path = pages.iter().filter(|page| page.path.starts_with(path));
    let texts: Vec<_> = of_path.map(|page| page.text.as_str()).collect();
    assert!(!texts.is_empty(), "no page below {path}");
    texts.join("\n")
}

/// The word at the start of a text.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Whether a text has a name as a word of its own.
fn has(text: &str, name: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + name.len()..].chars().next())
    })
}

/// The script that CREATE EXTENSION runs.
fn install_script() -> String {
    let control = read("state_cache.control");
    let (_, rest) = control.split_once("default_version = '").unwrap();
    format!("sql/state_cache--{}.sql", rest.split_once('\'').unwrap().0)
}

/// The names that `CREATE kind` makes in the installation script.
fn created(kind: &str) -> BTreeSet<String> {
    let script = read(install_script());
    let start = format!("CREATE {kind} ");
    let lines = script.lines().filter_map(|line| line.strip_prefix(&start));
    lines.map(|rest| word(rest).to_owned()).collect()
}

/// Functions that only triggers and views call.
const INTERNAL: [&str; 11] = [
    "state_budget_watch",
    "state_cache_by_hand",
    "state_cache_watch",
    "state_class_restore",
    "state_class_watch",
    "state_floor_merge",
    "state_claim_merge",
    "state_installation",
    "state_protections_here",
    "state_source_changed",
    "state_task_watch",
];

fn missing<'a>(names: impl IntoIterator<Item = &'a String>, text: &str) -> Vec<&'a String> {
    names.into_iter().filter(|name| !has(text, name)).collect()
}

#[test]
fn every_function_is_in_the_reference() {
    let mut functions = created("FUNCTION");
    functions.retain(|name| !INTERNAL.contains(&name.as_str()));
    assert!(functions.len() > 60, "{}", functions.len());
    assert_eq!(
        missing(&functions, &text_below("docs/reference")),
        Vec::<&String>::new()
    );
}

#[test]
fn every_table_and_view_is_in_the_reference() {
    let relations: BTreeSet<_> = created("TABLE")
        .into_iter()
        .chain(created("VIEW"))
        .collect();
    assert!(relations.len() > 15, "{}", relations.len());
    assert_eq!(
        missing(&relations, &text_below("docs/reference")),
        Vec::<&String>::new()
    );
}

#[test]
fn every_setting_is_in_the_reference() {
    let source = read("src/settings.rs");
    let names = source.match_indices("c\"state_cache.");
    let settings: BTreeSet<String> = names
        .map(|(at, _)| word(&source[at + "c\"state_cache.".len()..]).to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(settings.len() > 15, "{settings:?}");
    assert_eq!(
        missing(&settings, &text_below("docs/reference/settings.md")),
        Vec::<&String>::new()
    );
}

/// What the extension only looks for in errors of the server, or gives to what it logs.
const NOT_RAISED: [&str; 3] = [
    "INDEX_CORRUPTED",
    "SUCCESSFUL_COMPLETION",
    "UNIQUE_VIOLATION",
];

/// The SQLSTATEs of the server's names (`errcodes.txt`), as far as the code uses them.
const SQLSTATES: [(&str, &str); 35] = [
    ("CARDINALITY_VIOLATION", "21000"),
    ("CHECK_VIOLATION", "23514"),
    ("CONFIGURATION_LIMIT_EXCEEDED", "53400"),
    ("DATA_CORRUPTED", "XX001"),
    ("DATA_EXCEPTION", "22000"),
    ("DEPENDENT_OBJECTS_STILL_EXIST", "2BP01"),
    ("DATETIME_FIELD_OVERFLOW", "22008"),
    ("DUPLICATE_OBJECT", "42710"),
    ("FEATURE_NOT_SUPPORTED", "0A000"),
    ("FOREIGN_KEY_VIOLATION", "23503"),
    ("INDEX_CORRUPTED", "XX002"),
    ("INSUFFICIENT_PRIVILEGE", "42501"),
    ("INTERNAL_ERROR", "XX000"),
    ("INTERVAL_FIELD_OVERFLOW", "22015"),
    ("INVALID_PARAMETER_VALUE", "22023"),
    ("INVALID_TRANSACTION_STATE", "25000"),
    ("LOCK_NOT_AVAILABLE", "55P03"),
    ("NO_ACTIVE_SQL_TRANSACTION", "25P01"),
    ("OBJECT_IN_USE", "55006"),
    ("OBJECT_NOT_IN_PREREQUISITE_STATE", "55000"),
    ("OUT_OF_MEMORY", "53200"),
    ("PROGRAM_LIMIT_EXCEEDED", "54000"),
    ("QUERY_CANCELED", "57014"),
    ("READ_ONLY_SQL_TRANSACTION", "25006"),
    ("SNAPSHOT_TOO_OLD", "72000"),
    ("SQL_JSON_ARRAY_NOT_FOUND", "22039"),
    ("SQL_JSON_MEMBER_NOT_FOUND", "2203A"),
    ("SQL_JSON_OBJECT_NOT_FOUND", "2203C"),
    ("TRIGGERED_ACTION_EXCEPTION", "09000"),
    ("T_R_SERIALIZATION_FAILURE", "40001"),
    ("UNDEFINED_OBJECT", "42704"),
    ("UNDEFINED_TABLE", "42P01"),
    ("UNIQUE_VIOLATION", "23505"),
    ("WARNING", "01000"),
    ("WRONG_OBJECT_TYPE", "42809"),
];

#[test]
fn every_sqlstate_is_in_the_reference() {
    let mut files = Vec::new();
    files_below(Path::new("src"), "rs", &mut files);
    let mut used = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("fault.rs")) {
        let source = read(file);
        for (at, start) in source.match_indices("::ERRCODE_") {
            used.insert(word(&source[at + start.len()..]).to_owned());
        }
    }
    assert!(used.len() > 15, "{used:?}");
    let errors = text_below("docs/reference/errors.md");
    for name in used
        .into_iter()
        .filter(|name| !NOT_RAISED.contains(&name.as_str()))
    {
        let found = SQLSTATES.iter().find(|(it, _)| *it == name);
        let (_, code) = found.unwrap_or_else(|| panic!("no SQLSTATE is noted here for {name}"));
        assert!(has(&errors, code), "{name} is {code}");
    }
}
