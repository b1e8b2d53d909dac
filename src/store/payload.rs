//! Bytes beside a document: the column `payload` of a snapshot row.
//!
//! ```text
//! whole:    0x50 | bytes                                     | hash
//! packed:   a keyframe or a delta, as `state_cache_delta` makes them | hash
//! ```
//!
//! The hash is the low half of the xxh3-128 of the bytes, eight bytes big-endian: a payload that does not match it is
//! damaged. A delta builds upon the payload of the version that the document builds upon, or could have built upon,
//! and so the row of that version is needed as long as this one is: all that deletes rows, or looks for keyframes,
//! minds both columns (`texts::IS_KEYFRAME`, `KeptVersion::bases`). Only snapshot rows have payloads
//! (`Checkpoint::needs_snapshot`).

use super::decoded::Part;
use super::spi::{Connection, Row, Statement};
use super::storage::{Decoding, Fault, HASH, Storage, WHOLE, decode, encode, payload_form};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_delta::{Base, Form, Header};
use state_cache_memory::with_capacity;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    payload: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// The hash of a payload.
fn hash(payload: &[u8]) -> [u8; HASH] {
    (state_cache_document::hash(payload) as u64).to_be_bytes()
}

/// What goes into the column, for a version that may be stored as the difference from version `base`.
pub fn pack_payload(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    version: i64,
    payload: &[u8],
    base: Option<i64>,
) -> Result<Vec<u8>> {
    let packs = class.packs() && !catalog.rows_may_be_rewritten();
    let base = base.filter(|_| packs).map_or(Ok(None), |base| {
        let read = read(catalog, (&class.name, key, base), Decoding::Anew)?;
        // One that is damaged is not built upon.
        let read = read.and_then(std::result::Result::ok);
        Ok::<_, crate::error::Error>(read.map(|(bytes, storage)| (base, bytes, storage)))
    })?;
    let base = base.as_ref().and_then(|(version, document, storage)| {
        Some(Base {
            version: *version,
            document,
            layout: storage.layout()?,
        })
    });
    let encoded = match packs {
        true => encode(payload, version, base),
        false => None,
    };
    let mut column = match encoded.map(|encoded| encoded.form) {
        Some(Form::Packed(packed)) => {
            let mut column = with_capacity(packed.len() + HASH)?;
            column.extend(packed);
            column
        }
        Some(Form::Whole) | None => {
            let mut column = with_capacity(1 + payload.len() + HASH)?;
            column.push(WHOLE);
            column.extend_from_slice(payload);
            column
        }
    };
    column.extend(hash(payload));
    Ok(column)
}

/// A payload, and how it is stored.
type Read = std::result::Result<(Vec<u8>, Storage), Fault>;

/// The payload that the column of a version holds, or what is wrong with it. No connection to SPI is open.
fn unpack(
    catalog: &Catalog,
    name: (&[u8], &[u8], i64),
    column: Vec<u8>,
    decoding: Decoding,
) -> Result<Read> {
    let (columns, expected) = match payload_form(column)? {
        Ok(form) => form,
        Err(fault) => return Ok(Err(fault)),
    };
    let decoded = decode(catalog, name, (Part::Payload, columns), false, decoding)?;
    Ok(
        decoded.and_then(|(payload, storage)| match hash(&payload) == expected {
            true => Ok((payload, storage)),
            false => Err("the payload does not match its hash"),
        }),
    )
}

/// The payload of a version, with how it is stored; `None` if it has none, or is not kept.
fn read(catalog: &Catalog, name: (&[u8], &[u8], i64), decoding: Decoding) -> Result<Option<Read>> {
    let column = {
        let connection = Connection::open()?;
        let statement = connection.prepare(
            &statements(catalog).payload,
            &catalog.schema,
            || {
                "SELECT payload FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 \
                 AND key OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.=) $3 \
                 ORDER BY created_at USING OPERATOR(pg_catalog.>) LIMIT 1"
                    .to_owned()
            },
            &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
        )?;
        let rows = connection.query(
            statement,
            [
                Some(varlena_datum(name.0)),
                Some(varlena_datum(name.1)),
                Some(bigint_datum(name.2)),
            ],
        )?;
        rows.first().and_then(|row| row.bytes(1))
    };
    column
        .map(|column| unpack(catalog, name, column, decoding))
        .transpose()
}

/// The payload of a version under the active snapshot, or what is wrong with it; `None` if it has none.
pub fn payload(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<Option<std::result::Result<Vec<u8>, Fault>>> {
    let read = read(catalog, (class, key, version), Decoding::Anew)?;
    Ok(read.map(|read| read.map(|(payload, _)| payload)))
}

/// The same for who reads one version after the other.
pub fn payload_in_walk(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<Option<std::result::Result<Vec<u8>, Fault>>> {
    let read = read(catalog, (class, key, version), Decoding::Remembered)?;
    Ok(read.map(|read| read.map(|(payload, _)| payload)))
}

/// The version that a payload builds upon, by the first bytes of its column.
pub(super) fn base(row: &Row<'_>, column: i32, version: i64) -> Option<i64> {
    let first = row.bytes(column)?;
    let header = Header::read(&first).ok()?;
    header.base_version(version).ok().flatten()
}
