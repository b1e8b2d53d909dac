//! A straightforward writer of binary jsonb, independent of the crate: it builds the elements first and
//! lays them out afterwards. The tests in `server.rs` hold it to bytes that PostgreSQL wrote.

use serde_json::{Map, Value};

const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

/// The payload of the document.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Array(elements) => array(&mut out, elements),
        Value::Object(pairs) => object(&mut out, pairs),
        scalar => container(&mut out, ARRAY | SCALAR | 1, &[Part::Value(scalar)]),
    }
    out
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a String),
    Value(&'a Value),
}

fn array(out: &mut Vec<u8>, elements: &[Value]) {
    let parts: Vec<_> = elements.iter().map(Part::Value).collect();
    container(out, ARRAY | u32::try_from(elements.len()).unwrap(), &parts);
}

fn object(out: &mut Vec<u8>, pairs: &Map<String, Value>) {
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
    let keys = sorted.iter().map(|(key, _)| Part::Key(key));
    let values = sorted.iter().map(|(_, value)| Part::Value(value));
    let parts: Vec<_> = keys.chain(values).collect();
    container(out, OBJECT | u32::try_from(pairs.len()).unwrap(), &parts);
}

fn container(out: &mut Vec<u8>, header: u32, parts: &[Part<'_>]) {
    align(out);
    out.extend(header.to_ne_bytes());
    let entries = out.len();
    out.extend(vec![0; 4 * parts.len()]);
    let data = out.len();
    for (index, part) in parts.iter().enumerate() {
        let start = out.len();
        let kind: u32 = match *part {
            Part::Key(text) | Part::Value(Value::String(text)) => {
                out.extend(text.as_bytes());
                0x0000_0000
            }
            Part::Value(Value::Number(number)) => {
                align(out);
                numeric(out, number.as_i64().expect("the tests use integers only"));
                0x1000_0000
            }
            Part::Value(Value::Bool(false)) => 0x2000_0000,
            Part::Value(Value::Bool(true)) => 0x3000_0000,
            Part::Value(Value::Null) => 0x4000_0000,
            Part::Value(Value::Array(elements)) => {
                array(out, elements);
                0x5000_0000
            }
            Part::Value(Value::Object(pairs)) => {
                object(out, pairs);
                0x5000_0000
            }
        };
        let field = if index % 32 == 0 {
            0x8000_0000 | u32::try_from(out.len() - data).unwrap()
        } else {
            u32::try_from(out.len() - start).unwrap()
        };
        out[entries + 4 * index..][..4].copy_from_slice(&(kind | field).to_ne_bytes());
    }
}

/// The short form of an integer: base 10,000, no trailing zero digits, behind a four-byte length.
fn numeric(out: &mut Vec<u8>, number: i64) {
    let mut digits = Vec::new();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        digits.insert(0, u16::try_from(rest % 10_000).unwrap());
        rest /= 10_000;
    }
    let weight = u16::try_from(digits.len().saturating_sub(1)).unwrap();
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let length = u32::try_from(6 + 2 * digits.len()).unwrap();
    let varlena = if cfg!(target_endian = "little") {
        length << 2
    } else {
        length
    };
    out.extend(varlena.to_ne_bytes());
    let sign: u16 = if number < 0 { 0x2000 } else { 0 };
    out.extend((0x8000 | sign | weight).to_ne_bytes());
    for digit in digits {
        out.extend(digit.to_ne_bytes());
    }
}

fn align(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}
