//! What a message says.

use serde_json::Value;

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

impl Message {
    /// `None` for what a later release, or somebody else, may have sent: then nobody knows what it says.
    pub fn parse(payload: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(payload).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let class = text(&message["class"]);
        let deleted = match message["op"].as_str()? {
            "update" => false,
            "delete" => true,
            "invalidate" => {
                let pattern = text(&message["pattern"])?;
                let events = vec![Event::Invalidated { class, pattern }];
                return Some(Self::at(&message, events));
            }
            _ => return None,
        };
        let class = class?;
        let change = |change: &Value| {
            Some(Event::change(
                deleted,
                class.clone(),
                text(&change["key"])?,
                change["version"].as_i64(),
            ))
        };
        let events = message["changes"].as_array()?.iter().map(change);
        Some(Self::at(&message, events.collect::<Option<_>>()?))
    }

    fn at(message: &Value, events: Vec<Event>) -> Self {
        let epoch = message["epoch"].as_str().map(str::to_owned);
        let seq = message["seq"].as_i64();
        let position = Position { epoch, seq };
        Self { position, events }
    }
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
