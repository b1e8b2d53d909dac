//! What a message of the extension says: see `docs/reference/messages.md`.

use serde::Deserialize;

/// A state by its class and key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The class.
    pub class: String,
    /// The key.
    pub key: String,
}

/// Where a message stands among those of its database. No position: the library is not preloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The epoch.
    pub epoch: String,
    /// The number in that epoch.
    pub seq: i64,
}

/// What a message tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// These states changed; the version of each that was deleted.
    Changes(Vec<(Name, Option<i64>)>),
    /// States of a class, or of all, are to be read again.
    Invalidate(Option<String>),
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place among the others.
    pub position: Option<Position>,
    /// What it tells.
    pub told: Told,
}

#[derive(Deserialize)]
struct Sent {
    op: String,
    class: Option<String>,
    changes: Option<Vec<SentChange>>,
    epoch: Option<String>,
    seq: Option<i64>,
}

#[derive(Deserialize)]
struct SentChange {
    key: String,
    version: Option<i64>,
}

impl Message {
    /// `None` for what a later release, or somebody else, may have sent: then nobody knows what it says.
    pub fn parse(payload: &str) -> Option<Self> {
        let sent: Sent = serde_json::from_str(payload).ok()?;
        let deleted = sent.op == "delete";
        let told = match sent.op.as_str() {
            "update" | "delete" => {
                let class = sent.class?;
                let change = |change: SentChange| {
                    let name = Name {
                        class: class.clone(),
                        key: change.key,
                    };
                    (name, change.version.filter(|_| deleted))
                };
                Told::Changes(sent.changes?.into_iter().map(change).collect())
            }
            "invalidate" => Told::Invalidate(sent.class),
            _ => return None,
        };
        let position = match (sent.epoch, sent.seq) {
            (Some(epoch), Some(seq)) => Some(Position { epoch, seq }),
            _ => None,
        };
        Some(Self { position, told })
    }
}
