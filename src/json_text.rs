//! JSON as text, made into documents.
//!
//! The reader of `state_cache_document` makes the document, or declines; then the server's `jsonb_in` decides, with
//! its own errors. So a text gives what a cast to jsonb would give, whichever of the two read it.

use crate::call::{self, Call};
use crate::error::{Error, Result, text};
use crate::{error_context, sys, varlena};
use pgrx::pg_sys;
use state_cache_document::{Encoding, from_text, replace_invalid};
use state_cache_memory::copy;

/// What becomes of the escapes that JSON allows and jsonb refuses: NUL and lone surrogates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnInvalid {
    /// `jsonb_in` raises its error: `22P05` for NUL, `22P02` for a surrogate.
    Error,
    /// U+FFFD takes their place.
    Replace,
}

impl OnInvalid {
    fn of_name(name: &[u8]) -> Result<Self> {
        match name {
            b"error" => Ok(Self::Error),
            b"replace" => Ok(Self::Replace),
            other => Err(Error::Argument {
                message: format!("on_invalid \"{}\" is not known", text(other)),
                hint: Some("It is error or replace."),
            }),
        }
    }
}

/// The document that the text spells which is argument `text` of a call; `on_invalid` is the number of the argument
/// of that name.
///
/// # Errors
/// Those of `jsonb_in`; `22023` for NULL and for an `on_invalid` that is not known; `53200`.
pub fn argument(call: &Call<'_>, text: usize, on_invalid: usize) -> Result<Vec<u8>> {
    let on_invalid = OnInvalid::of_name(call.required_text(on_invalid, "on_invalid")?)?;
    document(call.required_text(text, "state")?, on_invalid)
}

/// The document that a text of our own spells.
///
/// # Errors
/// Those of `jsonb_in`; `53200`.
pub fn parse(json: &[u8]) -> Result<Vec<u8>> {
    document(json, OnInvalid::Error)
}

fn document(json: &[u8], on_invalid: OnInvalid) -> Result<Vec<u8>> {
    let replaced = match on_invalid {
        OnInvalid::Error => None,
        OnInvalid::Replace => replace_invalid(json)?,
    };
    let json = replaced.as_deref().unwrap_or(json);
    let encoding = match sys::database_is_utf8() {
        true => Encoding::Utf8,
        false => Encoding::Other,
    };
    match from_text(json, encoding)? {
        Some(document) => Ok(document),
        None => as_the_server_reads(json),
    }
}

/// What `jsonb_in` makes of a text; the function raises its own errors.
fn as_the_server_reads(json: &[u8]) -> Result<Vec<u8>> {
    // SAFETY: jsonb_in takes a cstring and returns a jsonb, which is a varlena that lives as long as the call.
    let document = error_context::kept(|| unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(call::cstring_datum(json))])
            .map(|datum| varlena::detoasted_bytes(datum.cast_mut_ptr()))
    });
    let document = document.ok_or_else(|| Error::Internal {
        message: "jsonb_in returned NULL".to_owned(),
    })?;
    Ok(copy(document)?)
}
