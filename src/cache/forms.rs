//! The forms in which callers want a document.

use super::StateRef;
use super::found::{Form, Taken};
use crate::call::{Varlena, varlena_datum};
use crate::error::{Error, Result};
use crate::shared::{Key, SharedL1};
use pgrx::pg_sys;
use state_cache_document::{self as document, DocumentError, Part, Source};
use state_cache_l1::{Chunked, EntryInfo, Lookup, View, Want};
use state_cache_memory::{copy, filled};
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
            Lookup::Miss => {
                value.free();
                return Taken::Miss;
            }
            Lookup::Damaged => {
                value.free();
                return Taken::Damaged;
            }
            Lookup::TooSmall { len } => {
                value.free();
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
                let Some(len) = len else {
                    value.free();
                    return Taken::Entry(info, None);
                };
                return Taken::Entry(info, Some(value.finish(len as usize)));
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
            Taken::Failed(error) => Taken::Failed(error),
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
            Taken::Failed(error) => return Taken::Failed(error),
            Taken::Damaged => return Taken::Damaged,
            Taken::Miss => return Taken::Miss,
        };
        let (found, document) = match Document.take(l1, key) {
            Taken::Entry(found, document) => (found, document),
            Taken::Failed(error) => return Taken::Failed(error),
            Taken::Damaged => return Taken::Damaged,
            Taken::Miss => return Taken::Miss,
        };
        let text = document.map(|document| ServerText::of(&document));
        if let Ok(text) = &text
            && found.serial == info.serial
        {
            // Without room for it, or when the state has just changed, the next reader makes it again.
            let _ = l1.attach_text(key, info.serial, text.bytes());
        }
        Taken::Entry(found, text.map(|text| varlena_datum(text.bytes())))
    }

    fn make(&mut self, document: &[u8]) -> Result<pg_sys::Datum> {
        Ok(varlena_datum(ServerText::of(document).bytes()))
    }
}

/// The text of a document as `jsonb`'s output function writes it, in memory of the server.
struct ServerText {
    text: *mut std::ffi::c_char,
}

impl ServerText {
    fn of(document: &[u8]) -> Self {
        // SAFETY: the container is copied into memory aligned as jsonb wants it, which is freed after its use.
        unsafe {
            let copy = varlena_datum(document).cast_mut_ptr::<u8>();
            let container = copy
                .add(crate::varlena::VARHDRSZ)
                .cast::<pg_sys::JsonbContainer>();
            let length = document.len() as i32;
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), container, length);
            pg_sys::pfree(copy.cast());
            Self { text }
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: NUL-terminated, and freed by nobody but us.
        unsafe { std::ffi::CStr::from_ptr(self.text) }.to_bytes()
    }
}

impl Drop for ServerText {
    fn drop(&mut self) {
        // On an error the memory goes with its context.
        if !std::thread::panicking() {
            // SAFETY: allocated by the server for us, and not used any more.
            unsafe { pg_sys::pfree(self.text.cast()) };
        }
    }
}

/// The whole document as bytes of ours, to work on.
pub struct Document;

impl Form for Document {
    type Output = Vec<u8>;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Vec<u8>>> {
        // Memory is asked for with no lock held, once its size is known.
        let mut bytes = Vec::new();
        loop {
            match l1.read(key, Want::Value, &mut bytes) {
                Lookup::Miss => return Taken::Miss,
                Lookup::Damaged => return Taken::Damaged,
                Lookup::TooSmall { len } => match filled(0, len) {
                    Ok(room) => bytes = room,
                    Err(refused) => return Taken::Failed(refused.into()),
                },
                Lookup::Hit(info) => {
                    bytes.truncate(info.value_len as usize);
                    return Taken::Entry(info, Ok(bytes));
                }
            }
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<Vec<u8>> {
        Ok(copy(document)?)
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
            Taken::Failed(error) => Taken::Failed(error),
            Taken::Damaged => Taken::Damaged,
            Taken::Miss => Taken::Miss,
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(Some(copy(document)?))
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
    fn failed(&self, error: DocumentError) -> Error {
        Error::Document {
            state: self.state.shown(),
            place: String::new(),
            error,
        }
    }
}

impl Form for Path<'_> {
    type Output = Option<pg_sys::Datum>;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Self::Output>> {
        let find = |value: &InL1<'_, '_>| document::find_path(value, self.path);
        copy_part(l1, key, find, |error| self.failed(error))
    }

    fn make(&mut self, document: &[u8]) -> Result<Self::Output> {
        let found = document::get_path(document, self.path).map_err(|error| self.failed(error))?;
        Ok(found.map(|found| varlena_datum(&found)))
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
    fn failed(&self, error: DocumentError) -> Error {
        Error::Document {
            state: self.state.shown(),
            place: crate::error::text(self.name),
            error,
        }
    }
}

impl Form for Section<'_> {
    type Output = pg_sys::Datum;

    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<pg_sys::Datum>> {
        let find = |value: &InL1<'_, '_>| document::find_section(value, self.name).map(Some);
        match copy_part(l1, key, find, |error| self.failed(error)) {
            Taken::Entry(info, Ok(Some(section))) => Taken::Entry(info, Ok(section)),
            Taken::Entry(info, Err(error)) => Taken::Entry(info, Err(error)),
            Taken::Failed(error) => Taken::Failed(error),
            Taken::Entry(_, Ok(None)) | Taken::Damaged => Taken::Damaged,
            Taken::Miss => Taken::Miss,
        }
    }

    fn make(&mut self, document: &[u8]) -> Result<pg_sys::Datum> {
        let found = document::get_section(document, self.name);
        found
            .map(|section| varlena_datum(&section))
            .map_err(|error| self.failed(error))
    }
}

/// Bytes of a part that is copied out under the lock that it is found under.
const PART_AT_ONCE: usize = 2048;

/// Copies a part of a document out of L1 into a varlena. Nothing is allocated with a lock held: a part that is larger
/// than [`PART_AT_ONCE`] is found first, and copied when there is a place for it, if the entry is still the same.
fn copy_part(
    l1: &SharedL1,
    key: &Key<'_>,
    find: impl Fn(&InL1<'_, '_>) -> std::result::Result<Option<Part>, DocumentError>,
    failed: impl FnOnce(DocumentError) -> Error,
) -> Taken<Result<Option<pg_sys::Datum>>> {
    let mut at_once = [0; PART_AT_ONCE];
    loop {
        let found = l1.with_value(key, |info, value| {
            let value = InL1(value);
            let part = find(&value).and_then(|part| {
                if let Some(part) = part
                    && let Some(into) = at_once.get_mut(..part.size())
                {
                    part.copy(&value, into)?;
                }
                Ok(part)
            });
            (*info, part)
        });
        let (info, part) = match found {
            View::Miss => return Taken::Miss,
            View::Damaged | View::Hit((_, Err(DocumentError::Damaged))) => return Taken::Damaged,
            View::Hit((info, Err(error))) => return Taken::Entry(info, Err(failed(error))),
            View::Hit((info, Ok(None))) => return Taken::Entry(info, Ok(None)),
            View::Hit((info, Ok(Some(part)))) => (info, part),
        };
        if let Some(copied) = at_once.get(..part.size()) {
            return Taken::Entry(info, Ok(Some(varlena_datum(copied))));
        }
        let mut place = Varlena::with_capacity(part.size());
        let copied = l1.with_value(key, |again, value| {
            (again.serial == info.serial).then(|| part.copy(&InL1(value), place.room()))
        });
        match copied {
            View::Miss => return Taken::Miss,
            View::Damaged | View::Hit(Some(Err(_))) => return Taken::Damaged,
            View::Hit(Some(Ok(()))) => {
                return Taken::Entry(info, Ok(Some(place.finish(part.size()))));
            }
            // Another entry has taken its place.
            View::Hit(None) => place.free(),
        }
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
