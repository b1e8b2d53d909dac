//! What tests feed to state_cache: random documents, and histories of documents as agents write them and
//! as nobody would.
//!
//! All of it follows from a seed, the same on every machine. A document is a [`Json`] tree. Its
//! `to_string()` is the JSON text, numbers spelled as they came; [`encode`] gives the payload of the jsonb
//! datum that the server makes of that text, and [`decode`] reads one. Neither shares code with the crates
//! under test.
//!
//! [`spell`] spells a document in one of the many ways that mean it, [`mutate`] breaks a text.
//!
//! Every document is one that the server takes: no character U+0000, no key twice, no number beyond
//! `numeric`. None is nested deeper than [`MAX_DEPTH`].
//!
//! And an allocator that refuses ([`Refusing`], [`refuse_each`]).

mod history;
mod json;
mod jsonb;
mod numeric;
mod random;
mod refusing;
mod spelling;

pub use history::{Kind, history, kind};
pub use json::Json;
pub use jsonb::{decode, encode};
pub use random::{MAX_DEPTH, Random};
pub use refusing::{Refusing, SMALL, refuse_each};
pub use spelling::{mutate, spell};
