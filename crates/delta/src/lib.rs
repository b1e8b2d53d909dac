//! How a kept version of a document is stored: whole, as a compressed *keyframe*, or as a *delta*, which is zstd
//! with the document of a kept version below it as the prefix: the one right before it, or the parent of a branch.
//!
//! **Chains.** A delta names the version that it builds upon, which lies below its own; that one may be a delta
//! too, and so on down to a keyframe. [`Layout`] counts what a read of a version costs: the deltas to replay, and
//! their bytes beside those of the keyframe. [`Encoder`] keeps both within bounds.
//!
//! **Trust.** What is decoded was read from a table. Everything is checked before it is used, and before memory is
//! taken for it: whatever the bytes, [`Decoder`] gives a document or a [`Fault`], in time and memory bounded by
//! what they can stand for. That the document is the *right* one, only its hash can say: a delta decodes upon a
//! wrong base of the same length without complaint. The caller compares with `state_cache_document::hash`.
//!
//! Documents are bytes here; nothing in this crate knows that they are jsonb.

mod compressor;
mod decoder;
mod encoder;
mod error;
mod header;
mod layout;
mod policy;

pub use decoder::Decoder;
pub use encoder::{Base, Encoded, Encoder, Form};
pub use error::{Error, Fault};
pub use header::{DELTA, Header, Kind, MAX_HEADER};
pub use layout::{Layout, MAX_DEPTH};

/// The most bytes a document can have: jsonb's lengths have 28 bits.
pub const MAX_DOCUMENT: usize = (1 << 28) - 1;
