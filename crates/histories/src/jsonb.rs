//! The payload of a jsonb datum, what follows its length (`utils/jsonb.h`): written as the server writes
//! it, and read. A writer that lays out one element after the other, and a reader that trusts nothing and
//! spares nothing.

use crate::json::Json;
use crate::numeric;

const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const LENGTH: u32 = 0x0FFF_FFFF;
const KIND: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
/// Every so many entries, from the first, one holds an end and not a length.
const STRIDE: usize = 32;

const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;

const WORD: usize = 4;

/// The payload that the server makes of a document. `None` when a number is none, or something does not
/// fit jsonb.
#[must_use]
pub fn encode(document: &Json) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if document.is_container() {
        write_container(&mut out, document)?;
    } else {
        write_elements(&mut out, ARRAY | SCALAR | 1, &[Part::Value(document)])?;
    }
    Some(out)
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a String),
    Value(&'a Json),
}

fn write_container(out: &mut Vec<u8>, value: &Json) -> Option<()> {
    match value {
        Json::Array(elements) => {
            let parts: Vec<_> = elements.iter().map(Part::Value).collect();
            write_elements(out, ARRAY | field(elements.len())?, &parts)
        }
        Json::Object(pairs) => {
            let mut sorted: Vec<_> = pairs.iter().collect();
            sorted.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
            let keys = sorted.iter().map(|(key, _)| Part::Key(key));
            let values = sorted.iter().map(|(_, value)| Part::Value(value));
            let parts: Vec<_> = keys.chain(values).collect();
            write_elements(out, OBJECT | field(pairs.len())?, &parts)
        }
        _ => None,
    }
}

fn write_elements(out: &mut Vec<u8>, header: u32, parts: &[Part<'_>]) -> Option<()> {
    align(out);
    out.extend(header.to_ne_bytes());
    let entries = out.len();
    out.resize(entries + WORD * parts.len(), 0);
    let data = out.len();
    for (index, part) in parts.iter().enumerate() {
        let start = out.len();
        let kind = match *part {
            Part::Key(text) | Part::Value(Json::String(text)) => {
                out.extend(text.as_bytes());
                STRING
            }
            Part::Value(Json::Number(spelling)) => {
                align(out);
                let number = numeric::encode(spelling)?;
                out.extend(varlena(WORD + number.len())?.to_ne_bytes());
                out.extend(number);
                NUMERIC
            }
            Part::Value(Json::Bool(false)) => FALSE,
            Part::Value(Json::Bool(true)) => TRUE,
            Part::Value(Json::Null) => NULL,
            Part::Value(container) => {
                // The padding of an empty container is part of it too.
                align(out);
                write_container(out, container)?;
                CONTAINER
            }
        };
        let word = if index.is_multiple_of(STRIDE) {
            HAS_OFFSET | field(out.len() - data)?
        } else {
            field(out.len() - start)?
        };
        let at = entries + WORD * index;
        out[at..at + WORD].copy_from_slice(&(kind | word).to_ne_bytes());
    }
    Some(())
}

/// The header of a varlena of four header bytes, which are part of the length.
fn varlena(length: usize) -> Option<u32> {
    let length = u32::try_from(length).ok()?;
    Some(if cfg!(target_endian = "little") {
        length << 2
    } else {
        length
    })
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(WORD), 0);
}

fn field(value: usize) -> Option<u32> {
    u32::try_from(value).ok().filter(|word| *word <= LENGTH)
}

/// The document that a payload holds, pairs in jsonb's order and numbers as the server spells them.
/// `None` when it is none, or not in UTF-8.
#[must_use]
pub fn decode(payload: &[u8]) -> Option<Json> {
    if word(payload, 0)? & !COUNT == ARRAY | SCALAR {
        let value = read_elements(payload, 0, payload.len(), 1)?.pop()?;
        return (!value.is_container()).then_some(value);
    }
    read_container(payload, 0, payload.len())
}

fn read_container(payload: &[u8], at: usize, end: usize) -> Option<Json> {
    let header = word(payload, at)?;
    let count = usize::try_from(header & COUNT).ok()?;
    match header & !COUNT {
        ARRAY => Some(Json::Array(read_elements(payload, at, end, count)?)),
        OBJECT => {
            let mut keys = read_elements(payload, at, end, 2 * count)?;
            let values = keys.split_off(count);
            let pairs = keys.into_iter().zip(values).map(|(key, value)| match key {
                Json::String(key) => Some((key, value)),
                _ => None,
            });
            Some(Json::Object(pairs.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// The elements of the container that lies between two positions.
fn read_elements(payload: &[u8], at: usize, end: usize, count: usize) -> Option<Vec<Json>> {
    let data = at + WORD * (1 + count);
    let mut position = data;
    let mut elements = Vec::new();
    for index in 0..count {
        let entry = word(payload, at + WORD * (1 + index))?;
        let length = usize::try_from(entry & LENGTH).ok()?;
        let start = position;
        let is_offset = entry & HAS_OFFSET != 0;
        if is_offset != index.is_multiple_of(STRIDE) {
            return None;
        }
        position = if is_offset {
            data + length
        } else {
            start + length
        };
        let bytes = payload.get(start..position)?;
        let aligned = start.next_multiple_of(WORD);
        elements.push(match entry & KIND {
            STRING => Json::String(str::from_utf8(bytes).ok()?.to_owned()),
            NUMERIC => {
                let number = payload.get(aligned..position)?;
                if word(number, 0)? != varlena(number.len())? {
                    return None;
                }
                Json::Number(numeric::decode(number.get(WORD..)?)?)
            }
            FALSE => Json::Bool(false),
            TRUE => Json::Bool(true),
            NULL => Json::Null,
            CONTAINER => read_container(payload, aligned, position)?,
            _ => return None,
        });
    }
    (position == end).then_some(elements)
}

fn word(payload: &[u8], at: usize) -> Option<u32> {
    let bytes = payload.get(at..at.checked_add(WORD)?)?;
    bytes.first_chunk().map(|word| u32::from_ne_bytes(*word))
}
