//! What a checkpoint may be called.

use crate::catalog::Class;
use crate::error::{Error, Result, text};
use crate::store::AUTO;

/// The types of checkpoints of a class that names none.
const CHECKPOINT_TYPES: [&str; 8] = [
    "manual",
    "auto",
    "recovery",
    "phase_transition",
    "full",
    "critical",
    "intermediate",
    "pipeline_complete",
];

/// The phases of an agent of a class that names none.
const AGENT_PHASES: [&str; 7] = [
    "initialization",
    "triage",
    "data_analysis",
    "optimization",
    "action_planning",
    "reporting",
    "completion",
];

/// The type of a checkpoint that reinstates an earlier one.
pub const RECOVERY: &[u8] = b"recovery";

/// `22023` unless the class knows the type; plain changes are of type `auto` in every class.
pub fn check_type(class: &Class, name: &[u8]) -> Result<()> {
    if name == AUTO {
        return Ok(());
    }
    check(
        class,
        name,
        class.checkpoint_types.as_deref(),
        &CHECKPOINT_TYPES,
        ("checkpoint type", "checkpoint_types"),
    )
}

/// `22023` unless the class knows the phase.
pub fn check_phase(class: &Class, name: &[u8]) -> Result<()> {
    check(
        class,
        name,
        class.agent_phases.as_deref(),
        &AGENT_PHASES,
        ("agent phase", "agent_phases"),
    )
}

/// `22023` unless the name is one of the class's own or, where it has none, one of the usual ones. The last argument:
/// what the name is called, and the argument of `state_class_define()` that lists the class's own.
fn check(
    class: &Class,
    name: &[u8],
    own: Option<&[Box<[u8]>]>,
    usual: &[&str],
    (what, argument): (&'static str, &'static str),
) -> Result<()> {
    let known = match own {
        Some(own) => own.iter().any(|known| **known == *name),
        None => usual.iter().any(|known| known.as_bytes() == name),
    };
    if known {
        return Ok(());
    }
    let list = match own {
        Some(own) => own
            .iter()
            .map(|known| text(known))
            .collect::<Vec<_>>()
            .join(", "),
        None => usual.join(", "),
    };
    Err(Error::UnknownClassLabel {
        what,
        name: text(name),
        known: list,
        class: text(&class.name),
        argument,
    })
}
