//! What the characters of this database are, and what they are in Unicode.
//!
//! Text is bytes in the encoding of the database. `SQL_ASCII` says nothing of bytes beyond ASCII; they are
//! taken for UTF-8 here where they are that, and for one character each where they are not.

use crate::sys;
use pgrx::pg_sys;
use state_cache_document::utf8_character;
use std::borrow::Cow;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

/// What a byte becomes in a conversion, at most.
const GROWTH: usize = pg_sys::MAX_CONVERSION_GROWTH as usize;

fn is_read_as_utf8(encoding: i32) -> bool {
    matches!(encoding, UTF8 | SQL_ASCII)
}

/// Bytes of the character at the front of a text; 0 for an empty one.
pub fn character(text: &[u8]) -> usize {
    let encoding = sys::database_encoding();
    if is_read_as_utf8(encoding) {
        return utf8_character(text);
    }
    match text {
        [] => 0,
        // Every encoding that a server can have keeps ASCII bytes to themselves.
        [0..0x80, ..] => 1,
        _ => sys::character_bytes(encoding, text).clamp(1, text.len()),
    }
}

/// As many whole characters as fit into so many bytes.
pub fn front(text: &[u8], bytes: usize) -> &[u8] {
    let mut end = 0;
    while end < text.len() {
        let next = end + character(&text[end..]);
        if next > bytes {
            break;
        }
        end = next;
    }
    &text[..end]
}

/// A text in Unicode; `None` if it has characters that Unicode has not. Called in a transaction only: the
/// conversion is looked up in the catalogs.
pub fn unicode(text: &[u8]) -> Option<Cow<'_, str>> {
    let encoding = sys::database_encoding();
    if text.is_ascii() || is_read_as_utf8(encoding) {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let converted = sys::convert(encoding, UTF8, text, text.len() * GROWTH)?;
    String::from_utf8(converted).ok().map(Cow::Owned)
}

/// The characters of a text in Unicode, `None` for each that it has not; in a transaction only.
pub fn unicode_characters(text: &[u8]) -> impl Iterator<Item = Option<Cow<'_, str>>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (front, behind) = rest.split_at_checked(character(rest).max(1))?;
        rest = behind;
        Some(unicode(front))
    })
}
