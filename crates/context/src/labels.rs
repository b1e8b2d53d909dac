//! The words that a context is made of.
//!
//! `strum` derives their names. Aliases are read and never written.

use core::str::FromStr;

use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

/// A word that is one of a few.
pub trait Label: Copy + FromStr + Into<&'static str> + VariantArray + VariantNames {
    /// All of them, in their order.
    const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The one with this name or alias, spelled exactly so.
    #[must_use]
    fn parse(text: &[u8]) -> Option<Self> {
        core::str::from_utf8(text).ok()?.parse().ok()
    }

    /// The name under which it is written.
    fn name(self) -> &'static str {
        self.into()
    }

    /// The names of all of them, for error messages; aliases are not among them.
    #[must_use]
    fn known() -> String {
        <Self as VariantNames>::VARIANTS.join(", ")
    }
}

impl<T: Copy + FromStr + Into<&'static str> + VariantArray + VariantNames> Label for T {}

/// Who may see a value, the least restricted first. That personal data stands below secrets is this project's
/// choice.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Sensitivity {
    /// Anyone.
    Public,
    /// The parties to a run; what is not declared otherwise.
    Internal,
    /// Some of them.
    Confidential,
    /// Data about persons.
    Pii,
    /// Credentials and the like.
    Secret,
}

/// Where a variable's value came from.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Source {
    /// Inherited.
    Parent,
    /// A step of the run; what is not declared otherwise.
    Step,
    /// A person.
    User,
    /// The runtime.
    System,
}

/// Where an export goes when its run ends.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Destination {
    /// The context of the parent.
    ParentContext,
    /// The blackboard of the swarm.
    Blackboard,
    /// A state of a named class.
    PersistentStore,
    /// A system outside, by way of the outbox.
    ExternalSystem,
}

/// What becomes of a variable that parent and child both changed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Strategy {
    /// The parent's value stays.
    ParentWins,
    /// The child's value is taken.
    ChildWins,
    /// The later value is taken, the child's if they are of the same time.
    #[strum(to_string = "keep_latest", serialize = "timestamp_latest")]
    KeepLatest,
    /// Objects are merged in depth, against what both began with.
    MergeObjects,
    /// What the child added to an array is appended to the parent's.
    ArrayConcat,
    /// A person decides; until then the parent's value stays.
    ManualReview,
}

/// How far a run is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Not ended; what is not declared otherwise.
    Running,
    /// Ended well.
    #[strum(to_string = "completed", serialize = "success")]
    Completed,
    /// Ended in an error.
    Failed,
    /// Ended from outside.
    Cancelled,
}

/// Whom an item of a blackboard is meant for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum AccessLevel {
    /// Anyone.
    Public,
    /// The swarm.
    Group,
    /// Its creator.
    Private,
}

/// What an item of a blackboard is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum ItemType {
    /// A fact or a result.
    Data,
    /// Something to be reached.
    Goal,
    /// A way to reach it.
    Plan,
    /// Something seen.
    Observation,
    /// Something supposed.
    Hypothesis,
}

/// What a run uses up.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Counter {
    /// Credits.
    Credits,
    /// Calls of tools.
    #[strum(to_string = "toolCalls", serialize = "tool_calls")]
    ToolCalls,
    /// Time, in milliseconds.
    #[strum(
        to_string = "durationMs",
        serialize = "duration_ms",
        serialize = "duration"
    )]
    DurationMs,
    /// Branches at the same time.
    Branches,
}

impl Counter {
    /// The member of `resourceLimits` that bounds it.
    #[must_use]
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Credits => "maxCredits",
            Self::ToolCalls => "maxToolCalls",
            Self::DurationMs => "maxDurationMs",
            Self::Branches => "maxConcurrentBranches",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name is read as what it names, and the list of names is whole and in order.
    macro_rules! assert_names {
        ($($label:ident)*) => {
            $(
                let names: Vec<_> = $label::ALL.iter().map(|label| label.name()).collect();
                assert_eq!(names.join(", "), $label::known());
                for label in $label::ALL {
                    assert_eq!($label::parse(label.name().as_bytes()), Some(*label));
                }
                for text in ["", "nothing", "PUBLIC", "public ", "\u{e9}"] {
                    assert_eq!($label::parse(text.as_bytes()), None, "{text}");
                }
                assert_eq!($label::parse(b"\xff"), None);
            )*
        };
    }

    #[test]
    fn names_are_read_back() {
        assert_names!(Sensitivity Source Destination Strategy Status AccessLevel ItemType Counter);
    }

    /// The names are in documents that are stored: a variant may be renamed, its name may not.
    #[test]
    fn names_are_those_in_stored_documents() {
        for (known, names) in [
            (
                Sensitivity::known(),
                "public, internal, confidential, pii, secret",
            ),
            (Source::known(), "parent, step, user, system"),
            (
                Destination::known(),
                "parent_context, blackboard, persistent_store, external_system",
            ),
            (
                Strategy::known(),
                "parent_wins, child_wins, keep_latest, merge_objects, array_concat, manual_review",
            ),
            (Status::known(), "running, completed, failed, cancelled"),
            (AccessLevel::known(), "public, group, private"),
            (
                ItemType::known(),
                "data, goal, plan, observation, hypothesis",
            ),
            (Counter::known(), "credits, toolCalls, durationMs, branches"),
        ] {
            assert_eq!(known, names);
        }
    }

    #[test]
    fn sensitivity_is_ordered_as_documented() {
        use Sensitivity::{Confidential, Internal, Pii, Public, Secret};
        assert!([Public, Internal, Confidential, Pii, Secret].is_sorted());
        assert_eq!(Internal.max(Pii), Pii);
    }

    #[test]
    fn aliases_are_read_and_never_written() {
        assert_eq!(Status::parse(b"success"), Some(Status::Completed));
        assert_eq!(
            Strategy::parse(b"timestamp_latest"),
            Some(Strategy::KeepLatest)
        );
        for (alias, counter) in [
            ("tool_calls", Counter::ToolCalls),
            ("duration", Counter::DurationMs),
            ("duration_ms", Counter::DurationMs),
        ] {
            assert_eq!(Counter::parse(alias.as_bytes()), Some(counter));
            assert_ne!(counter.name(), alias);
        }
    }
}
