//! What a message says.

use serde::Deserialize;

/// What a subscriber hears, or finds out when it catches up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A state has this version now.
    Set {
        /// Its class.
        class: String,
        /// Its key.
        key: String,
        /// Its version.
        version: Option<i64>,
    },
    /// A state was deleted.
    Deleted {
        /// Its class.
        class: String,
        /// Its key.
        key: String,
        /// The version that its deletion was, unknown for a row deleted by hand.
        version: Option<i64>,
    },
    /// States are to be read again.
    Invalidated {
        /// Of this class; `None` means all classes.
        class: Option<String>,
        /// Those whose key matches this pattern.
        pattern: String,
    },
    /// Nothing is missing any more: all changes since the last cursor were told.
    CaughtUp,
    /// All that was held was dropped, since nobody can say what is still right.
    StartedAnew,
    /// The connection was lost, or could not be made again. It will be tried again.
    Lost(String),
}

/// Where a message stands among those of its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The epoch; `None` from a server that did not preload the library.
    pub epoch: Option<String>,
    /// The number in that epoch.
    pub seq: Option<i64>,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place among the others.
    pub position: Position,
    /// What it tells.
    pub events: Vec<Event>,
}

/// A message as it is sent; what else it holds is left alone.
#[derive(Deserialize)]
struct Sent {
    op: String,
    class: Option<String>,
    pattern: Option<String>,
    changes: Option<Vec<SentChange>>,
    epoch: Option<String>,
    seq: Option<i64>,
}

/// A change in a message.
#[derive(Deserialize)]
struct SentChange {
    key: String,
    version: Option<i64>,
}

impl Message {
    /// `None` for what a later release, or somebody else, may have sent: then nobody knows what it says.
    pub fn parse(payload: &str) -> Option<Self> {
        let sent: Sent = serde_json::from_str(payload).ok()?;
        let events = match sent.op.as_str() {
            "update" => changes(false, sent.class?, sent.changes?),
            "delete" => changes(true, sent.class?, sent.changes?),
            "invalidate" => vec![Event::Invalidated {
                class: sent.class,
                pattern: sent.pattern?,
            }],
            _ => return None,
        };
        let position = Position {
            epoch: sent.epoch,
            seq: sent.seq,
        };
        Some(Self { position, events })
    }
}

fn changes(deleted: bool, class: String, sent: Vec<SentChange>) -> Vec<Event> {
    let event =
        |change: SentChange| Event::change(deleted, class.clone(), change.key, change.version);
    sent.into_iter().map(event).collect()
}

impl Event {
    /// A change of one state.
    pub(crate) fn change(deleted: bool, class: String, key: String, version: Option<i64>) -> Self {
        if deleted {
            Self::Deleted {
                class,
                key,
                version,
            }
        } else {
            Self::Set {
                class,
                key,
                version,
            }
        }
    }
}
