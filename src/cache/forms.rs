//! The forms in which callers want a document.

use super::StateRef;
use super::read::{Form, Taken};
use crate::call::{Varlena, varlena_datum};
use crate::error::{Error, Result};
use crate::shared::{Key, SharedL1};
use pgrx::pg_sys;
use state_cache_document::{self as document, DocumentError, Source};
use state_cache_l1::{Chunked, EntryInfo, Lookup, View, Want};
use std::cell::RefCell;
use std::cmp::Ordering;

/// How large the last value of a key was, so that the next read of it allocates once and rightly.
/// Direct-mapped: another key of the same place costs a second look-up, nothing more.
const SIZE_HINTS: usize = 1024;

/// Bytes that a guess may be too high, beside a factor of two, before it is corrected.
const SLACK: usize = 1024;

thread_local! {
    static HINTS: RefCell<[u32; SIZE_HINTS]> = const { RefCell::new([0; SIZE_HINTS]) };
}

/// Copies a value or text form out of L1 into a varlena in the current memory context. Memory is
/// allocated with no lock held, so its size is guessed first and corrected if need be.
fn copy_out(l1: &SharedL1, key: &Key<'_>, want: Want) -> Taken<Option<pg_sys::Datum>> {
    let place = (key.id.0 >> 32) as usize % SIZE_HINTS;
    let mut room = HINTS.with_borrow(|hints| hints[place] as usize);
    loop {
        let mut value = Varlena::with_capacity(room);
        match l1.read(key, want, value.room()) {
            Lookup::Miss => return Taken::Miss,
            Lookup::Damaged => return Taken::Damaged,
            Lookup::TooSmall { len } => {
                room = len;
                HINTS.with_borrow_mut(|hints| hints[place] = room as u32);
            }
            Lookup::Hit(info) => {
                let len = match want {
                    Want::Text => info.text_len,
                    _ => Some(info.value_len),
                };
                if len.is_some_and(|len| room > 2 * len as usize + SLACK) {
                    HINTS.with_borrow_mut(|hints| hints[place] = len.unwrap_or(0));
                }
                return Taken::Entry(info, len.map(|len| value.finish(len as usize)));
            }
        }
    }
}

/// The whole document as a `jsonb` result.
pub struct Jsonb;

impl Form for Jsonb {
    type Output = pg_sys::Datum;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<pg_sys::Datum>> {
        match copy_out(l1, key, Want::Value) {
            Taken::Entry(info, Some(datum)) => Taken::Entry(info, Ok(datum)),
            Taken::Entry(_, None) | Taken::Damaged => Taken::Damaged,
            Taken::Miss => Taken::Miss,
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<pg_sys::Datum> {
        Ok(varlena_datum(document))
    }
}

/// The whole document as a `text` result. The first reader leaves the text form in L1.
pub struct Text;

impl Form for Text {
    type Output = pg_sys::Datum;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<pg_sys::Datum>> {
        let info = match copy_out(l1, key, Want::Text) {
            Taken::Entry(info, Some(datum)) => return Taken::Entry(info, Ok(datum)),
            Taken::Entry(info, None) => info,
            Taken::Damaged => return Taken::Damaged,
            Taken::Miss => return Taken::Miss,
        };
        let Taken::Entry(found, document) = Document.take(l1, key) else {
            return Taken::Miss;
        };
        let text = document.map(|document| to_text(&document));
        if let Ok(text) = &text
            && found.serial == info.serial
        {
            // Without room for it, or when the state has just changed, the next reader makes it again.
            let _ = l1.attach_text(key, info.serial, text);
        }
        Taken::Entry(found, text.map(|text| varlena_datum(&text)))
    }

    fn make(&mut self, document: &[u8]) -> Result<pg_sys::Datum> {
        Ok(varlena_datum(&to_text(document)))
    }
}

/// The text of a document as `jsonb`'s output function writes it.
fn to_text(document: &[u8]) -> Vec<u8> {
    // SAFETY: the container is copied into memory aligned as jsonb wants it; the text is NUL-terminated
    // and copied before it is freed.
    unsafe {
        let copy = varlena_datum(document).cast_mut_ptr::<u8>();
        let container = copy
            .add(crate::varlena::VARHDRSZ)
            .cast::<pg_sys::JsonbContainer>();
        let text = pg_sys::JsonbToCString(std::ptr::null_mut(), container, document.len() as i32);
        let bytes = std::ffi::CStr::from_ptr(text).to_bytes().to_vec();
        pg_sys::pfree(text.cast());
        pg_sys::pfree(copy.cast());
        bytes
    }
}

/// The whole document as bytes of ours, to work on.
pub struct Document;

impl Form for Document {
    type Output = Vec<u8>;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Vec<u8>>> {
        taken(l1.with_value(key, |info, value| {
            let mut bytes = vec![0; value.len()];
            (
                *info,
                value
                    .read(0, &mut bytes)
                    .map(|()| bytes)
                    .ok_or(DocumentError::Damaged),
            )
        }))
    }

    fn make(&mut self, document: &[u8]) -> Result<Vec<u8>> {
        Ok(document.to_vec())
    }
}

/// Only whether there is a state, and its version.
pub struct Nothing;

/// The same for a change that needs no document: it mends a damaged one.
pub struct Head;

impl Form for Head {
    type Output = ();

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<()>> {
        Nothing.take(l1, key)
    }

    fn make(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn make_of_damaged(&mut self, _: Error) -> Result<()> {
        Ok(())
    }
}

impl Form for Nothing {
    type Output = ();

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<()>> {
        match l1.read(key, Want::Info, &mut []) {
            Lookup::Hit(info) => Taken::Entry(info, Ok(())),
            Lookup::Miss => Taken::Miss,
            Lookup::Damaged | Lookup::TooSmall { .. } => Taken::Damaged,
        }
    }

    fn make(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// The whole document as bytes of ours, for a change that can do without: it mends a damaged one.
pub struct IfIntact;

impl Form for IfIntact {
    type Output = Option<Vec<u8>>;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Option<Vec<u8>>>> {
        match Document.take(l1, key) {
            Taken::Entry(info, document) => Taken::Entry(info, document.map(Some)),
            Taken::Damaged => Taken::Damaged,
            Taken::Miss => Taken::Miss,
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(Some(document.to_vec()))
    }

    fn make_of_damaged(&mut self, _: Error) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Whether the state is stored with exactly these bytes: the hash first, then the bytes.
pub struct SameAs<'a> {
    /// Binary jsonb.
    pub document: &'a [u8],
    /// Its hash.
    pub hash: u128,
}

impl Form for SameAs<'_> {
    type Output = bool;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<bool>> {
        taken(l1.with_value(key, |info, value| {
            (
                *info,
                Ok(info.hash == self.hash && value.equals(self.document)),
            )
        }))
    }

    fn make(&mut self, document: &[u8]) -> Result<bool> {
        Ok(document == self.document)
    }

    fn make_of_damaged(&mut self, _: Error) -> Result<bool> {
        Ok(false)
    }
}

/// What the document holds at a path, as a `jsonb` result.
pub struct Path<'a> {
    /// Object keys and array positions.
    pub path: &'a [&'a [u8]],
    /// The state, for messages.
    pub state: &'a StateRef<'a>,
}

impl Path<'_> {
    fn answer(
        &self,
        found: std::result::Result<Option<Vec<u8>>, DocumentError>,
    ) -> Result<Option<pg_sys::Datum>> {
        match found {
            Ok(found) => Ok(found.map(|found| varlena_datum(&found))),
            Err(error) => Err(Error::Document {
                state: self.state.shown(),
                place: String::new(),
                error,
            }),
        }
    }
}

impl Form for Path<'_> {
    type Output = Option<pg_sys::Datum>;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Self::Output>> {
        let view = l1.with_value(key, |info, value| {
            (*info, document::get_path(&InL1(value), self.path))
        });
        match view {
            View::Miss => Taken::Miss,
            View::Damaged | View::Hit((_, Err(DocumentError::Damaged))) => Taken::Damaged,
            View::Hit((info, found)) => Taken::Entry(info, self.answer(found)),
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<Self::Output> {
        self.answer(document::get_path(document, self.path))
    }
}

/// A top-level object of the document, as a `jsonb` result.
pub struct Section<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The state, for messages.
    pub state: &'a StateRef<'a>,
}

impl Section<'_> {
    fn answer(&self, found: std::result::Result<Vec<u8>, DocumentError>) -> Result<pg_sys::Datum> {
        found
            .map(|section| varlena_datum(&section))
            .map_err(|error| Error::Document {
                state: self.state.shown(),
                place: crate::error::text(self.name),
                error,
            })
    }
}

impl Form for Section<'_> {
    type Output = pg_sys::Datum;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<pg_sys::Datum>> {
        let view = l1.with_value(key, |info, value| {
            (*info, document::get_section(&InL1(value), self.name))
        });
        match view {
            View::Miss => Taken::Miss,
            View::Damaged | View::Hit((_, Err(DocumentError::Damaged))) => Taken::Damaged,
            View::Hit((info, found)) => Taken::Entry(info, self.answer(found)),
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<pg_sys::Datum> {
        self.answer(document::get_section(document, self.name))
    }
}

fn taken<T>(view: View<(EntryInfo, std::result::Result<T, DocumentError>)>) -> Taken<Result<T>> {
    match view {
        View::Miss => Taken::Miss,
        View::Damaged | View::Hit((_, Err(_))) => Taken::Damaged,
        View::Hit((info, Ok(value))) => Taken::Entry(info, Ok(value)),
    }
}

/// A document where it lies in L1.
struct InL1<'a, 'b>(&'a Chunked<'b>);

impl Source for InL1<'_, '_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, at: usize, into: &mut [u8]) -> Option<()> {
        self.0.read(at, into)
    }

    fn compare(&self, at: usize, bytes: &[u8]) -> Option<Ordering> {
        self.0.compare(at, bytes)
    }
}
