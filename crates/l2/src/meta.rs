//! What the meta hash holds.

use core::fmt;
use core::str::FromStr;
use strum::{EnumString, IntoStaticStr};

/// Names of the fields of the meta hash. All values are text.
pub mod field {
    /// The number of the format of values, [`crate::FORMAT`]. A feeder or reader of another format leaves.
    pub const FORMAT: &str = "format";
    /// The database that the prefix belongs to, [`crate::Owner`].
    pub const OWNER: &str = "owner";
    /// The epoch of the messages of the database when the generation began.
    pub const EPOCH: &str = "epoch";
    /// The current generation.
    pub const GENERATION: &str = "generation";
    /// The cursor for `state_changes`: all that it covers is in the current generation.
    pub const CURSOR: &str = "cursor";
    /// How states get into Redis, [`crate::Mode`].
    pub const MODE: &str = "mode";
    /// The names of the classes in L2, sorted: a JSON array of text.
    pub const CLASSES: &str = "classes";
    /// The servers of a cluster when the generation began: an opaque text.
    pub const NODES: &str = "nodes";
    /// How many states the filling of the current generation has written; `done` once it is through.
    pub const FILLED: &str = "filled";
}

/// How states get into Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Mode {
    /// By scripts, which compare versions.
    Script,
    /// Redis has no scripts: what changes is deleted, and nothing is filled.
    Delete,
}

/// The database that a prefix belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `system_identifier` of `pg_control_system()`: a promoted standby has that of its primary.
    pub system: u64,
    /// The oid of the database.
    pub database: u32,
    /// The schema of the extension.
    pub schema: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.system, self.database, self.schema)
    }
}

impl FromStr for Owner {
    type Err = core::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self {
            system: part().parse()?,
            database: part().parse()?,
            schema: part().to_owned(),
        })
    }
}
