//! The page on monitoring lists what the extension writes into the server's log, each message as the source has it.

use state_cache_docs_tests::{files_below, read};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/operations/monitoring.md";
/// What only the build for tests has.
const FOR_TESTS: [&str; 2] = ["src/fault.rs", "src/worker/probe.rs"];

/// The first string literal of some source, `…` in the place of what is formatted into it.
fn literal(source: &str) -> String {
    let mut letters = source.split_once('"').unwrap().1.chars().peekable();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return text,
            '\\' => match letters.next() {
                // A line goes on without the indentation of the next one.
                Some('\n') => while letters.next_if(|next| next.is_whitespace()).is_some() {},
                Some('n') => {}
                Some(other) => text.push(other),
                None => break,
            },
            '{' => {
                while letters.next_if(|next| *next != '}').is_some() {}
                letters.next();
                text.push('…');
            }
            _ => text.push(letter),
        }
    }
    panic!("no end of a string: {source}");
}

/// The messages of a file: what is logged by a macro, reported as a warning, or written past the server's own means.
fn logged(source: &str) -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for after in source.split("warning!(").skip(1) {
        messages.insert(literal(after));
    }
    for after in source.split("ereport!(").skip(1) {
        let level = after.split(',').next().unwrap();
        assert!(level.ends_with("PgLogLevel::WARNING"), "{level}");
        messages.insert(literal(after));
    }
    for after in source.split("ErrorReport::new(").skip(1) {
        let reported = after.split_once(".report(").map(|(_, level)| level);
        if reported.is_some_and(|level| level.starts_with("PgLogLevel::WARNING)")) {
            messages.insert(literal(after));
        }
    }
    for after in source.split("complain(b").skip(1) {
        messages.insert(literal(after));
    }
    messages
}

#[test]
fn the_page_lists_every_log_message() {
    let mut files: Vec<PathBuf> = Vec::new();
    files_below(Path::new("src"), "rs", &mut files);
    files.retain(|file| !FOR_TESTS.iter().any(|it| file == Path::new(it)));
    let in_source: BTreeSet<String> = files.iter().flat_map(|file| logged(&read(file))).collect();
    assert!(in_source.len() > 10, "{in_source:?}");
    let page = read(PAGE);
    let list = page.split_once("\n## Log messages\n").unwrap().1;
    let on_page: BTreeSet<String> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(message, _)| message.to_owned())
        .collect();
    assert_eq!(on_page, in_source);
}

#[test]
fn a_literal_is_read_as_the_compiler_reads_it() {
    let source = "format!(\"a \\\"{}\\\" of \\\n        {n:?} in {all}\"), \"other\"";
    assert_eq!(literal(source), "a \"…\" of … in …");
}
