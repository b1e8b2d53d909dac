//! The form of a message: JSON, at most [`MAX_MESSAGE`] bytes by construction.
//!
//! Built from bytes in server encoding, since that is what a notification carries; every encoding that a
//! server may have keeps ASCII bytes to themselves.

use super::touched::Told;
use crate::cache::MAX_KEY;

/// The largest message, in bytes. NOTIFY takes fewer than 8,000; the rest is left for what a later
/// release may add.
pub const MAX_MESSAGE: usize = 7900;

/// Bytes of the items that a message names of one state. With more, subscribers are to look at all of them.
pub const MAX_ITEMS: usize = 2000;

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

/// Bytes of the longest name of a class.
const MAX_CLASS: usize = 63;

/// Bytes that a byte becomes in a JSON string, at most.
const MAX_QUOTED: usize = 6;

// Any change of any class fits into a message.
const _: () =
    assert!(MAX_QUOTED * (MAX_CLASS + MAX_KEY) + FRAME + CHANGE + MAX_ITEMS <= MAX_MESSAGE);

/// The changes of one message, in JSON, without brackets.
pub type Pack = Vec<u8>;

/// Distributes changes (key, version, items) over as few messages as they fit into.
pub fn pack<'a>(
    class: &[u8],
    changes: impl Iterator<Item = (&'a [u8], i64, Told<'a>)>,
) -> Vec<Pack> {
    let mut packs: Vec<Pack> = Vec::new();
    let room = MAX_MESSAGE - FRAME - quoted(class).len();
    for (key, version, items) in changes {
        let mut change = b"{\"key\":".to_vec();
        change.extend(quoted(key));
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
                change.extend(b",\"items\":[");
                for key in keys {
                    change.extend(quoted(key));
                    change.push(b',');
                }
                // In place of the last comma; there is at least one key.
                change.pop();
                change.push(b']');
            }
        }
        change.push(b'}');
        match packs.last_mut() {
            Some(pack) if pack.len() + 1 + change.len() <= room => {
                pack.push(b',');
                pack.extend(change);
            }
            _ => packs.push(change),
        }
    }
    packs
}

/// Bytes that an item needs among the items of a change.
pub fn bytes_of_item(key: &[u8]) -> usize {
    quoted(key).len() + 1
}

/// A message about changes, to be finished.
pub fn changes(class: &[u8], operation: Operation, pack: &[u8]) -> Vec<u8> {
    let mut message = head(Some(class), operation.name());
    message.extend(b",\"changes\":[");
    message.extend(pack);
    message.push(b']');
    message
}

/// A message that entries are to be dropped, to be finished. A pattern that does not fit stands for all.
pub fn invalidate(class: Option<&[u8]>, pattern: &[u8]) -> Vec<u8> {
    let mut message = head(class, b"invalidate");
    message.extend(b",\"pattern\":");
    let pattern = quoted(pattern);
    if message.len() + pattern.len() + FRAME <= MAX_MESSAGE {
        message.extend(pattern);
    } else {
        message.extend(b"\"*\"");
    }
    message
}

fn head(class: Option<&[u8]>, operation: &[u8]) -> Vec<u8> {
    let mut message = b"{\"class\":".to_vec();
    match class {
        Some(class) => message.extend(quoted(class)),
        None => message.extend(b"null"),
    }
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

/// A JSON string.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quoted.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', byte]),
            0..0x20 => quoted.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'"');
    quoted
}
