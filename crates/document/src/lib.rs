//! What a state is: one JSON document in PostgreSQL's binary jsonb form.
//!
//! Every function works on the *payload* of a jsonb datum, which is what follows the four-byte
//! varlena header: the root container. Nothing is parsed into a tree, because the hot paths of the
//! extension cannot afford it: a read follows offsets to what it wants, and a change copies what it
//! leaves alone as raw bytes.
//!
//! **Byte identity.** States are compared by hash and by bytes, so every result here is, byte for
//! byte, what the server builds for the same document. Inputs are taken to be canonical in the parts
//! that an operation does not touch; those parts are copied unread. In the parts that it does touch,
//! everything is checked before it is used: damaged bytes give [`DocumentError::Damaged`], never a
//! panic, an endless loop, or an allocation beyond the size of the inputs. What is to be given to the
//! server and did not come from it goes through [`check`], which looks at all of it.
//!
//! Keys, sections and path elements are bytes in the server's encoding.

#![forbid(unsafe_code)]

mod append;
mod build;
mod check;
mod compose;
mod container;
mod diff;
mod error;
mod format;
mod from_text;
mod hash;
mod item;
mod merge;
mod numeric;
mod path;
mod pattern;
mod source;
mod take_apart;
mod tokens;

/// The numbers of jsonb's layout, for whoever can compare them with a server's headers.
pub mod layout {
    pub use crate::format::{
        ARRAY, CONTAINER, COUNT_MASK, FALSE, HAS_OFFSET, KIND_MASK, LENGTH_MASK, NULL, NUMERIC,
        OBJECT, SCALAR, STRIDE, STRING, TRUE, WORD,
    };
}

pub use append::{Popped, append, append_all, append_or_create, pop};
pub use check::check;
pub use compose::{array, boolean, null, number, object, string, without};
pub use container::is_object;
pub use diff::diff;
pub use error::{DocumentError, PatternError};
pub use from_text::{Encoding, from_text, replace_invalid};
pub use hash::hash;
pub use merge::{StackGuard, merge_patch, update, update_section};
pub use path::{Part, find_path, find_section, get_path, get_section};
pub use pattern::{Pattern, utf8_character};
pub use source::Source;
pub use take_apart::{
    Member, array_length, as_boolean, as_integer, as_number, as_string, elements, is_array,
    is_negative, is_null, member, members,
};
