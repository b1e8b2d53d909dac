//! The words that a context is made of.

/// Declares an enum of words. Each variant has its name, and other spellings that are read as it.
macro_rules! labels {
    (
        $(#[$about:meta])*
        $label:ident {
            $(#[$first_about:meta])*
            $first:ident = $first_name:literal $(| $first_alias:literal)*,
            $(
                $(#[$other_about:meta])*
                $other:ident = $other_name:literal $(| $other_alias:literal)*,
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $label {
            $(#[$first_about])*
            $first,
            $(
                $(#[$other_about])*
                $other,
            )*
        }

        impl $label {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[Self::$first $(, Self::$other)*];

            /// The names of all of them, for error messages; aliases are not among them.
            pub const KNOWN: &'static str = concat!($first_name $(, ", ", $other_name)*);

            /// The one with this name or alias, spelled exactly so.
            #[must_use]
            pub fn parse(text: &[u8]) -> Option<Self> {
                match core::str::from_utf8(text).ok()? {
                    $first_name $(| $first_alias)* => Some(Self::$first),
                    $($other_name $(| $other_alias)* => Some(Self::$other),)*
                    _ => None,
                }
            }

            /// The name under which it is written.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $(Self::$other => $other_name,)*
                }
            }
        }
    };
}

labels! {
    /// Who may see a value, the least restricted first. That personal data stands below secrets is this project's
    /// choice.
    Sensitivity {
        /// Anyone.
        Public = "public",
        /// The parties to a run; what is not declared otherwise.
        Internal = "internal",
        /// Some of them.
        Confidential = "confidential",
        /// Data about persons.
        Pii = "pii",
        /// Credentials and the like.
        Secret = "secret",
    }
}

labels! {
    /// Where a variable's value came from.
    Source {
        /// Inherited.
        Parent = "parent",
        /// A step of the run; what is not declared otherwise.
        Step = "step",
        /// A person.
        User = "user",
        /// The runtime.
        System = "system",
    }
}

labels! {
    /// Where an export goes when its run ends.
    Destination {
        /// The context of the parent.
        ParentContext = "parent_context",
        /// The blackboard of the swarm.
        Blackboard = "blackboard",
        /// A state of a named class.
        PersistentStore = "persistent_store",
        /// A system outside, by way of the outbox.
        ExternalSystem = "external_system",
    }
}

labels! {
    /// What becomes of a variable that parent and child both changed.
    Strategy {
        /// The parent's value stays.
        ParentWins = "parent_wins",
        /// The child's value is taken.
        ChildWins = "child_wins",
        /// The later value is taken, the child's if they are of the same time.
        KeepLatest = "keep_latest" | "timestamp_latest",
        /// Objects are merged in depth, against what both began with.
        MergeObjects = "merge_objects",
        /// What the child added to an array is appended to the parent's.
        ArrayConcat = "array_concat",
        /// A person decides; until then the parent's value stays.
        ManualReview = "manual_review",
    }
}

labels! {
    /// How far a run is.
    Status {
        /// Not ended; what is not declared otherwise.
        Running = "running",
        /// Ended well.
        Completed = "completed" | "success",
        /// Ended in an error.
        Failed = "failed",
        /// Ended from outside.
        Cancelled = "cancelled",
    }
}

labels! {
    /// Whom an item of a blackboard is meant for.
    AccessLevel {
        /// Anyone.
        Public = "public",
        /// The swarm.
        Group = "group",
        /// Its creator.
        Private = "private",
    }
}

labels! {
    /// What an item of a blackboard is.
    ItemType {
        /// A fact or a result.
        Data = "data",
        /// Something to be reached.
        Goal = "goal",
        /// A way to reach it.
        Plan = "plan",
        /// Something seen.
        Observation = "observation",
        /// Something supposed.
        Hypothesis = "hypothesis",
    }
}

labels! {
    /// What a run uses up.
    Counter {
        /// Credits.
        Credits = "credits",
        /// Calls of tools.
        ToolCalls = "toolCalls" | "tool_calls",
        /// Time, in milliseconds.
        DurationMs = "durationMs" | "duration_ms" | "duration",
        /// Branches at the same time.
        Branches = "branches",
    }
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
                assert_eq!(names.join(", "), $label::KNOWN);
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
        assert_eq!(
            Sensitivity::KNOWN,
            "public, internal, confidential, pii, secret"
        );
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
