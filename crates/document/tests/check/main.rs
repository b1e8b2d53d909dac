//! What the server builds is accepted, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod fuzz;
mod sound;

use state_cache_document::DocumentError;

fn no_guard() {}

/// As in a database whose encoding is UTF-8.
fn check(document: &[u8]) -> Result<(), DocumentError> {
    let is_utf8 = |text: &[u8]| str::from_utf8(text).is_ok();
    state_cache_document::check(document, is_utf8, no_guard)
}

/// A document from its words.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
