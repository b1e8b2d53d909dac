//! JSON of callers taken apart, and shapes of `state_cache_budget` written.
//!
//! What is sized by data is asked for fallibly: documents are read in binary form, and written into memory that may
//! be refused.

use crate::encoding;
use crate::error::{Error, Result, front_text, text};
use crate::{json_text, money, sys};
use pgrx::pg_sys;
use serde::Serialize;
use state_cache_budget::Amount;
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{OutOfMemory, copy};
use std::borrow::Cow;
use std::io;

/// Bytes that a message shows of a name.
const SHOWN: usize = 80;

fn wrong<'a>(what: &'a str, must_be: &'a str) -> impl FnOnce(DocumentError) -> Error + 'a {
    move |error| match error {
        DocumentError::OutOfMemory(refused) => refused.into(),
        _ => Error::argument(format!("{what} must be {must_be}")),
    }
}

/// The elements of an array.
///
/// # Errors
/// `22023` for something else, or more elements than so many.
pub fn elements<'a>(what: &str, array: &'a [u8], most: usize) -> Result<Vec<Cow<'a, [u8]>>> {
    let elements = document::elements(array).map_err(wrong(what, "an array"))?;
    match elements.len() > most {
        false => Ok(elements),
        true => Err(Error::argument(format!(
            "{what} has {} elements, the limit is {most}",
            elements.len()
        ))),
    }
}

/// The members of an object, of any names.
///
/// # Errors
/// `22023` for something else.
pub fn members<'a>(what: &str, object: &'a [u8]) -> Result<Vec<document::Member<'a>>> {
    document::members(object).map_err(wrong(what, "an object"))
}

/// An object whose members have known names.
pub struct Object<'a> {
    what: &'a str,
    members: Vec<document::Member<'a>>,
}

impl<'a> Object<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// `22023` for something else, and for a member of another name.
    pub fn open(what: &'a str, object: &'a [u8], known: &'static [&'static str]) -> Result<Self> {
        let members = members(what, object)?;
        let is_known = |name: &[u8]| known.iter().any(|it| it.as_bytes() == name);
        match members.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(Self { what, members }),
            Some((name, _)) => Err(Error::argument(format!(
                "{what} has a member \"{}\"; known are {}",
                front_text(name, SHOWN),
                known.join(", ")
            ))),
        }
    }

    /// A member; `None` where it is not there, or null.
    pub fn member(&self, name: &str) -> Option<&[u8]> {
        let found = self.members.iter().find(|(it, _)| *it == name.as_bytes());
        found
            .map(|(_, value)| &**value)
            .filter(|value| !document::is_null(value))
    }

    /// A member that is a text.
    ///
    /// # Errors
    /// `22023` for something else.
    pub fn text(&self, name: &str) -> Result<Option<&[u8]>> {
        let Some(value) = self.member(name) else {
            return Ok(None);
        };
        let found = document::as_string(value);
        found
            .map(Some)
            .ok_or_else(|| self.wrong(name, "must be a string"))
    }

    /// A member that is an amount.
    ///
    /// # Errors
    /// `22023` for something else.
    pub fn amount(&self, name: &str) -> Result<Option<Amount>> {
        let Some(value) = self.member(name) else {
            return Ok(None);
        };
        let numeric =
            document::as_number(value).ok_or_else(|| self.wrong(name, "must be a number"))?;
        let payload = numeric.get(crate::varlena::VARHDRSZ..).unwrap_or_default();
        money::amount_of(crate::call::varlena_datum(payload))
            .map(Some)
            .map_err(|error| self.wrong(name, &error.to_string()))
    }

    /// What is wrong with a member.
    pub fn wrong(&self, name: &str, fault: &str) -> Error {
        Error::argument(format!("{name} of {} {fault}", self.what))
    }
}

/// A writer into memory that may be refused.
#[derive(Default)]
struct Fallible {
    bytes: Vec<u8>,
    refused: Option<OutOfMemory>,
}

impl io::Write for Fallible {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.try_reserve(bytes.len()).is_err() {
            self.refused = Some(OutOfMemory {
                size: self.bytes.len() + bytes.len(),
            });
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A document of our own, in binary form.
///
/// # Errors
/// `53200`, and those of `jsonb_in`.
pub fn document(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut into = Fallible::default();
    if let Err(error) = serde_json::to_writer(&mut into, value) {
        return Err(match into.refused {
            Some(refused) => refused.into(),
            None => Error::Internal {
                message: format!("a document could not be written: {error}"),
            },
        });
    }
    json_text::parse(&in_encoding(&into.bytes)?)
}

/// A text in Unicode in the encoding of the database.
///
/// # Errors
/// `22023` if that lacks one of its characters.
pub fn in_encoding(unicode: &[u8]) -> Result<Vec<u8>> {
    const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
    let encoding = sys::database_encoding();
    let is_same =
        unicode.is_ascii() || [UTF8, pg_sys::pg_enc::PG_SQL_ASCII as i32].contains(&encoding);
    if is_same {
        return Ok(copy(unicode)?);
    }
    sys::convert(UTF8, encoding, unicode, unicode.len() * 4).ok_or_else(|| {
        Error::argument("a text has characters that the encoding of the database has not")
    })
}

/// A name in Unicode; what Unicode cannot write is shown.
pub fn unicode(name: &[u8]) -> String {
    encoding::unicode(name).map_or_else(|| text(name), |name| name.into_owned())
}
