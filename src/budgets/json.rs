//! JSON of callers, as the shapes of `state_cache_budget`, and back.

use crate::call::Call;
use crate::encoding;
use crate::error::{Error, Result, text, utf8_text};
use crate::{json_text, sys};
use pgrx::pg_sys;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::CStr;

/// Bytes of JSON that a caller may give: what is read takes a few times as much memory.
const MOST: usize = 16 << 20;

/// A `jsonb` argument in a shape.
///
/// # Errors
/// `22023` for another shape, `54000` for too much of it.
pub fn argument<T: DeserializeOwned>(call: &Call<'_>, n: usize, name: &str) -> Result<Option<T>> {
    let Some(datum) = call.argument(n) else {
        return Ok(None);
    };
    // SAFETY: jsonb_out takes a jsonb, which the SQL declaration says it is, and gives a NUL-terminated text.
    let json = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(datum)])
            .map(|json| CStr::from_ptr(json.cast_mut_ptr()).to_bytes())
    };
    let json = json.unwrap_or_default();
    if json.len() > MOST {
        return Err(Error::argument(format!(
            "{name} is too large: {} bytes, the limit is {MOST}",
            json.len()
        )));
    }
    let json = encoding::unicode(json)
        .ok_or_else(|| Error::argument(format!("{name} has characters that Unicode has not")))?;
    serde_json::from_str(&json)
        .map(Some)
        .map_err(|error| Error::argument(format!("{name}: {}", utf8_text(error.to_string()))))
}

/// A document of our own, in binary form.
///
/// # Errors
/// `53200`, and those of `jsonb_in`.
pub fn document(value: &impl Serialize) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(value).map_err(|error| Error::Internal {
        message: format!("a document could not be written: {error}"),
    })?;
    json_text::parse(&in_encoding(&json)?)
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
        return Ok(state_cache_memory::copy(unicode)?);
    }
    sys::convert(UTF8, encoding, unicode, unicode.len() * 4).ok_or_else(|| {
        Error::argument("a text has characters that the encoding of the database has not")
    })
}

/// A name in Unicode; what Unicode cannot write is shown.
pub fn unicode(name: &[u8]) -> String {
    encoding::unicode(name).map_or_else(|| text(name), |name| name.into_owned())
}
