//! The form of a message: JSON, at most [`MAX_MESSAGE`] bytes by construction, in ASCII.
//!
//! What is not ASCII is written in Unicode with JSON's escapes, whatever the database's encoding: the server ends
//! the connection of a listener whose encoding lacks a character of a notification. A name that Unicode cannot
//! write (bytes of `SQL_ASCII` that are no UTF-8, characters that Unicode has not) is never told as another name:
//! a key becomes a pattern that matches it, what stands for a class or a pattern becomes all of them.

use crate::cache::MAX_KEY;
use crate::encoding;
use pgrx::pg_sys;
use std::collections::BTreeSet;

/// The largest message, in bytes. NOTIFY takes fewer than 8,000; the rest is left for what a later
/// release may add.
pub const MAX_MESSAGE: usize = 7900;

// `NOTIFY_PAYLOAD_MAX_LENGTH` of `async.c`: what a payload must be shorter than. It depends on the size of blocks.
const _: () =
    assert!(MAX_MESSAGE < (pg_sys::BLCKSZ as usize) - (pg_sys::NAMEDATALEN as usize) - 128);

/// Bytes of the items that a message names of one state. With more, or where the key leaves less room, subscribers
/// are to look at all of them.
pub const MAX_ITEMS: usize = 2000;

/// What a message says of the items of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// Nothing: none was changed as such.
    Nothing,
    /// These were changed, and nothing else of the state.
    Items(&'a BTreeSet<Box<[u8]>>),
    /// Items were changed, and more than can be named may have been.
    Everything,
}

/// What all changes of one message have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The states have these versions now.
    Update,
    /// The states were deleted by these versions.
    Delete,
}

impl Operation {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Update => b"update",
            Self::Delete => b"delete",
        }
    }
}

/// Where a message stands among those of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which run of the server sent it.
    pub epoch: u64,
    /// Its number in that run.
    pub seq: u64,
}

/// Bytes of everything around the class and the changes: the longest operation, epoch and number.
const FRAME: usize = 120;

/// Bytes of everything around the key and the items of a change: names, brackets, the longest version.
const CHANGE: usize = 60;

/// Bytes of the longest name of a class: names of classes are names of channels.
const MAX_CLASS: usize = 63;

const _: () = assert!(MAX_CLASS < pg_sys::NAMEDATALEN as usize);

/// Bytes that a byte becomes in a JSON string, at most: no character of fewer than four bytes becomes a pair of
/// escapes, unless it is one of two bytes that Unicode writes as two.
const MAX_QUOTED: usize = 6;

// Any change of any class fits into a message, if it names no items.
const _: () = assert!(MAX_QUOTED * (MAX_CLASS + MAX_KEY) + FRAME + CHANGE <= MAX_MESSAGE);

/// The changes of one message, in JSON, without brackets.
pub type Pack = Vec<u8>;

/// A text as a JSON string; `None` if Unicode cannot write it.
pub fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    encoding::unicode(text).map(|text| {
        let mut quoted = Vec::with_capacity(text.len() + 2);
        quoted.push(b'"');
        escape(&text, &mut quoted);
        quoted.push(b'"');
        quoted
    })
}

/// A pattern, as a JSON string, that matches a key which Unicode cannot write.
fn pattern_of(key: &[u8]) -> Vec<u8> {
    let mut pattern = b"\"".to_vec();
    let mut in_gap = false;
    for character in encoding::unicode_characters(key) {
        match character.as_deref() {
            Some(wild @ ("*" | "?" | "\\")) => {
                pattern.extend(b"\\\\");
                escape(wild, &mut pattern);
            }
            Some(character) => escape(character, &mut pattern),
            None if !in_gap => pattern.push(b'*'),
            None => {}
        }
        in_gap = character.is_none();
    }
    pattern.push(b'"');
    pattern
}

/// Appends what stands for a text within a JSON string.
fn escape(text: &str, into: &mut Vec<u8>) {
    for character in text.chars() {
        match character {
            '"' | '\\' => into.extend([b'\\', character as u8]),
            ' '..='~' => into.push(character as u8),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    into.extend(format!("\\u{unit:04x}").into_bytes());
                }
            }
        }
    }
}

/// Changes that are told together.
pub struct Packed {
    /// Those of one message each.
    pub packs: Vec<Pack>,
    /// Patterns, as JSON strings, for the keys that Unicode cannot write.
    pub patterns: Vec<Vec<u8>>,
}

/// Distributes changes (key, version, items) over as few messages as they fit into. `class` is a JSON string. What
/// would need more than `most` messages, or patterns, ends with one more than that.
pub fn pack<'a>(
    class: &[u8],
    most: usize,
    changes: impl Iterator<Item = (&'a [u8], i64, Told<'a>)>,
) -> Packed {
    let (mut packs, mut patterns) = (Vec::<Pack>::new(), Vec::new());
    let room = MAX_MESSAGE - FRAME - class.len();
    for (key, version, items) in changes {
        let Some(quoted_key) = quoted(key) else {
            let pattern = pattern_of(key);
            if !patterns.contains(&pattern) {
                if patterns.len() > most {
                    break;
                }
                patterns.push(pattern);
            }
            continue;
        };
        let mut change = b"{\"key\":".to_vec();
        change.extend(quoted_key);
        change.extend(b",\"version\":");
        match version {
            // A row that was deleted by hand left no version behind.
            0 => change.extend(b"null"),
            _ => change.extend(version.to_string().into_bytes()),
        }
        match items {
            Told::Nothing => {}
            Told::Everything => change.extend(b",\"items\":null"),
            Told::Items(keys) => {
                let keys: Option<Vec<_>> = keys.iter().map(|key| quoted(key)).collect();
                let keys = keys.map(|keys| keys.join(&b','));
                change.extend(b",\"items\":");
                match keys.filter(|keys| change.len() + keys.len() + 3 <= room) {
                    Some(keys) => {
                        change.push(b'[');
                        change.extend(keys);
                        change.push(b']');
                    }
                    None => change.extend(b"null"),
                }
            }
        }
        change.push(b'}');
        let is_last = packs.len() > most;
        match packs.last_mut() {
            Some(pack) if pack.len() + 1 + change.len() <= room => {
                pack.push(b',');
                pack.extend(change);
            }
            _ if is_last => break,
            _ => packs.push(change),
        }
    }
    Packed { packs, patterns }
}

/// Bytes that an item needs among the items of a change; `None` if Unicode cannot write its key.
pub fn bytes_of_item(key: &[u8]) -> Option<usize> {
    quoted(key).map(|quoted| quoted.len() + 1)
}

/// A message about changes, to be finished. `class` is a JSON string.
pub fn changes(class: &[u8], operation: Operation, pack: &[u8]) -> Vec<u8> {
    let mut message = head(class, operation.name());
    message.extend(b",\"changes\":[");
    message.extend(pack);
    message.push(b']');
    message
}

/// Any class, where a message names one.
pub const ANY_CLASS: &[u8] = b"null";
/// Any key, where a message names a pattern.
pub const ANY_KEY: &[u8] = b"\"*\"";

/// A message that entries are to be dropped, to be finished. `class` and `pattern` are JSON.
pub fn invalidate(class: &[u8], pattern: &[u8]) -> Vec<u8> {
    let mut message = head(class, b"invalidate");
    message.extend(b",\"pattern\":");
    message.extend(pattern);
    message
}

/// A pattern as a JSON string. One that does not fit into a message, or that Unicode cannot write, stands for all.
pub fn quoted_pattern(pattern: &[u8]) -> Vec<u8> {
    /// Bytes of the longest name of a class as a JSON string, and of the frame.
    const ELSE: usize = MAX_QUOTED * MAX_CLASS + FRAME;
    let fits = |quoted: &Vec<u8>| quoted.len() + ELSE <= MAX_MESSAGE;
    // None becomes shorter.
    let quoted = match pattern.len() {
        ..MAX_MESSAGE => quoted(pattern).filter(fits),
        _ => None,
    };
    quoted.unwrap_or_else(|| ANY_KEY.to_vec())
}

fn head(class: &[u8], operation: &[u8]) -> Vec<u8> {
    let mut message = b"{\"class\":".to_vec();
    message.extend(class);
    message.extend(b",\"op\":\"");
    message.extend(operation);
    message.push(b'"');
    message
}

/// Ends a message with its place among the others. Without shared memory nobody counts messages, and both parts
/// of it are null.
pub fn finish(mut message: Vec<u8>, stamp: Option<Stamp>) -> Vec<u8> {
    let stamp = match stamp {
        Some(Stamp { epoch, seq }) => format!(",\"seq\":{seq},\"epoch\":\"{epoch:x}\"}}"),
        None => ",\"seq\":null,\"epoch\":null}".to_owned(),
    };
    message.extend(stamp.into_bytes());
    message
}
