//! Documents for the unit tests of this crate.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use state_cache_histories::{Json, decode, encode};

fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => Json::Number(number.to_string()),
        Value::String(text) => Json::String(text.clone()),
        Value::Array(elements) => Json::Array(elements.iter().map(json).collect()),
        Value::Object(pairs) => {
            Json::object(pairs.iter().map(|(key, value)| (key.clone(), json(value))))
        }
    }
}

/// The document that the server makes of a value.
pub(crate) fn jsonb(value: &Value) -> Vec<u8> {
    encode(&json(value)).unwrap()
}

/// The value that a document holds.
pub(crate) fn value(document: &[u8]) -> Value {
    serde_json::from_str(&decode(document).unwrap().to_string()).unwrap()
}
