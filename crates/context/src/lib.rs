//! The rules of run contexts.
//!
//! The context of a run is a state like any other: a document that anyone may write with the general functions. This
//! crate says which documents are contexts and names the field that is wrong where one is not, finds what of a
//! context may be shown under a limit of sensitivity, and merges what a child changed into its parent.
//!
//! All of it works on binary jsonb as [`state_cache_document`] does: a *document* is a payload without its length,
//! names are bytes in the server's encoding. Nothing is copied that is only looked at, scalars aside. Timestamps
//! are microseconds since 1970-01-01 00:00 UTC.
//!
//! Values are compared by their bytes, so 1.0 and 1.00 differ. A field that may be absent must not be `null`.

#![forbid(unsafe_code)]

mod blackboard;
mod check;
mod error;
mod export;
mod fields;
mod labels;
mod listed;
mod merge;
mod record;
mod timestamp;
mod values;
mod variables;
mod visible;

#[cfg(test)]
mod support;

pub use blackboard::{Item, ItemChange, ItemError, ItemFilter, ItemUpdate, has_item, select};
pub use check::{LIMITS, OTHER_LIMITS};
pub use error::{Problem, ShapeError};
pub use export::Export;
pub use labels::{
    AccessLevel, Counter, Destination, ItemType, Label, Sensitivity, Source, Status, Strategy,
};
pub use listed::{LONGEST, Listed, listed};
pub use merge::{Base, Conflict, Merged, Only, Reason, merge};
pub use record::Run;
pub use timestamp::{parse_rfc3339, rfc3339};
pub use values::{concatenate, merge_objects};
pub use variables::{Variable, put};
pub use visible::visible;
