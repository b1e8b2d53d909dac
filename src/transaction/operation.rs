//! Operations: changes that depend on the document before them.

use crate::cache::StateRef;
use crate::error::{Error, Result};
use crate::notify::Touched;
use crate::{settings, sys};
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{collect, copy};
use std::rc::Rc;

/// Operations kept apart on one state, and bytes of what they carry. With more, the row is locked early
/// and they are folded into one document, so that a transaction of any length needs bounded memory.
pub const MAX_OPERATIONS: (usize, usize) = (1000, 4 << 20);

/// A change of a document whose rules another room knows. It is applied when it is staged, and again to whatever
/// document is there when the row is locked; it must come to the same result for the same document.
pub trait Edit {
    /// The document after it; `base` is `None` where there is no state.
    ///
    /// # Errors
    /// Whatever its rules say of such a document.
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>>;

    /// Bytes of what it carries.
    fn bytes(&self) -> usize;

    /// Whether there is nothing to be done where there is no state; [`Edit::apply`] is given one then.
    fn needs_state(&self) -> bool {
        false
    }

    /// Key of the item of a blackboard that it changes, if it is a change of that and of nothing else but items whose
    /// time is over: subscribers are told of it.
    fn item(&self) -> Option<&[u8]> {
        None
    }
}

/// A change that depends on the document before it.
#[derive(Clone)]
pub enum Operation {
    /// Top-level shallow merge.
    Update(Vec<u8>),
    /// Shallow merge inside a section.
    UpdateSection { section: Vec<u8>, updates: Vec<u8> },
    /// RFC 7396.
    Merge(Vec<u8>),
    /// Appends a value to the array at a path.
    Append { path: Vec<Vec<u8>>, value: Vec<u8> },
    /// Appends the elements of an array to the array at a path, which is made if `create` says so.
    AppendAll {
        path: Vec<Vec<u8>>,
        values: Vec<u8>,
        create: bool,
    },
    /// Takes the last element off the array at a path.
    Pop { path: Vec<Vec<u8>> },
    /// By rules of another room.
    Edit(Rc<dyn Edit>),
}

impl Operation {
    /// The document after the operation; `base` is `None` where there is no state.
    pub fn apply(&self, state: &StateRef<'_>, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let result = match self {
            Self::Edit(edit) => return edit.apply(base),
            Self::Update(updates) => document::update(base, updates),
            Self::UpdateSection { section, updates } => {
                document::update_section(base, section, updates)
            }
            Self::Merge(patch) => document::merge_patch(base, patch, sys::check_stack),
            Self::Append { path, value } => collect(path.iter().map(Vec::as_slice))
                .map_err(DocumentError::from)
                .and_then(|path| document::append(base, &path, value)),
            Self::AppendAll {
                path,
                values,
                create,
            } => collect(path.iter().map(Vec::as_slice))
                .map_err(DocumentError::from)
                .and_then(|path| match create {
                    true => document::append_or_create(base, &path, values, sys::check_stack),
                    false => document::append_all(base, &path, values),
                }),
            Self::Pop { path } => collect(path.iter().map(Vec::as_slice))
                .map_err(DocumentError::from)
                .and_then(|path| match (document::pop(base, &path)?, base) {
                    (Some(popped), _) => Ok(popped.document),
                    (None, base) => Ok(copy(base.unwrap_or_default())?),
                }),
        };
        result.map_err(|error| Error::Document {
            state: state.shown(),
            place: self.place(),
            error,
        })
    }

    /// The element that a pop takes off a document, `None` for an empty array and for other operations.
    pub fn popped(&self, state: &StateRef<'_>, base: &[u8]) -> Result<Option<Vec<u8>>> {
        let Self::Pop { path } = self else {
            return Ok(None);
        };
        let path = collect(path.iter().map(Vec::as_slice))?;
        match document::pop(Some(base), &path) {
            Ok(popped) => Ok(popped.map(|popped| popped.element)),
            Err(error) => Err(Error::Document {
                state: state.shown(),
                place: self.place(),
                error,
            }),
        }
    }

    /// Bytes of what it carries.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Update(carried) | Self::Merge(carried) => carried.len(),
            Self::UpdateSection { updates, .. } => updates.len(),
            Self::Append { value, .. } => value.len(),
            Self::AppendAll { values, .. } => values.len(),
            Self::Pop { .. } => 0,
            Self::Edit(edit) => edit.bytes(),
        }
    }

    /// Whether its rules are those of another room.
    pub fn is_edit(&self) -> bool {
        matches!(self, Self::Edit(_))
    }

    /// Whether there is nothing to be done where there is no state.
    pub fn needs_state(&self) -> bool {
        matches!(self, Self::Edit(edit) if edit.needs_state())
    }

    /// What of the state it touches.
    pub fn touched(&self) -> Touched {
        match self {
            Self::Edit(edit) => edit.item().map_or_else(Touched::document, Touched::item),
            Self::Update(_)
            | Self::UpdateSection { .. }
            | Self::Merge(_)
            | Self::Append { .. }
            | Self::AppendAll { .. }
            | Self::Pop { .. } => Touched::document(),
        }
    }

    /// The place in the document that an error message names.
    fn place(&self) -> String {
        match self {
            Self::Update(_) | Self::Merge(_) | Self::Edit(_) => String::new(),
            Self::UpdateSection { section, .. } => crate::error::text(section),
            Self::Append { path, .. } | Self::AppendAll { path, .. } | Self::Pop { path } => {
                // Not more than a message can hold.
                const SHOWN: usize = 16;
                let shown = path.iter().take(SHOWN);
                let parts: Vec<_> = shown.map(|part| crate::error::text(part)).collect();
                let rest = if path.len() > SHOWN { ",..." } else { "" };
                format!("{{{}{rest}}}", parts.join(","))
            }
        }
    }
}

/// Whether rules of another room are among operations.
pub fn have_edits(operations: &[Rc<Operation>]) -> bool {
    operations.iter().any(|operation| operation.is_edit())
}

pub fn are_many(operations: &[Rc<Operation>]) -> bool {
    let (count, bytes) = MAX_OPERATIONS;
    operations.len() > count
        || operations
            .iter()
            .map(|operation| operation.bytes())
            .sum::<usize>()
            > bytes
}

/// Operations applied one after the other to a document, `None` where there is no state. What comes of it is `None`
/// if that is so and none of them makes one.
pub fn apply_all(
    state: &StateRef<'_>,
    operations: &[Rc<Operation>],
    base: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let mut document = base;
    for operation in operations {
        if document.is_none() && operation.needs_state() {
            continue;
        }
        let next = operation.apply(state, document.as_deref())?;
        check_size(state, &next)?;
        document = Some(next);
    }
    Ok(document)
}

pub fn check_size(state: &StateRef<'_>, document: &[u8]) -> Result<()> {
    let limit = settings::max_state_size();
    if document.len() > limit {
        return Err(Error::TooLarge {
            state: state.shown(),
            size: document.len(),
            limit,
        });
    }
    Ok(())
}
