//! What a task can be.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

/// How far a task is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
    Serialize,
    Deserialize,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits.
    #[default]
    Pending,
    /// Somebody works on it.
    Running,
    /// It ended well.
    Completed,
    /// It ended in an error.
    Failed,
    /// It was given up.
    Cancelled,
}

impl Status {
    /// All of them, in the order in which summaries name them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The one with this name, spelled exactly so.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        core::str::from_utf8(name).ok()?.parse().ok()
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The names of all, for messages.
    #[must_use]
    pub fn known() -> String {
        <Self as VariantNames>::VARIANTS.join(", ")
    }

    /// Whether a task of this status never has another one.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}
