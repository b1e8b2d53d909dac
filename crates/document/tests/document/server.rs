//! Bytes that PostgreSQL 15 wrote (little-endian). They hold the tests' encoder, which the other tests
//! rely on, and the operations themselves to the server.
//!
//! Each line of `server.tsv` names an operation, its arguments as JSON text, and the payload of the
//! server's result in hexadecimal, read with `CREATE CAST (jsonb AS bytea) WITHOUT FUNCTION`:
//! `document` a · `concat` a || b · `path` a #> b · `append` jsonb_insert(a, b || '{-1}', c, true).

#![cfg(target_endian = "little")]

use serde_json::Value;
use state_cache_document::{append, get_path, update};

use crate::encoder::encode;

#[test]
fn results_are_the_bytes_that_the_server_writes() {
    let mut counts = [0; 4];
    for line in include_str!("server.tsv").lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let (hex, columns) = columns.split_last().unwrap();
        let server: Vec<u8> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let arguments: Vec<Value> = columns[1..]
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        let bytes: Vec<Vec<u8>> = arguments.iter().map(encode).collect();
        let path: Vec<&[u8]> = match arguments.get(1) {
            Some(Value::Array(elements)) => elements
                .iter()
                .map(|element| element.as_str().unwrap().as_bytes())
                .collect(),
            _ => Vec::new(),
        };
        let (operation, ours) = match columns[0] {
            "document" => (0, Ok(bytes[0].clone())),
            "concat" => (1, update(Some(&bytes[0]), &bytes[1])),
            "path" => (
                2,
                get_path(bytes[0].as_slice(), &path).map(Option::unwrap_or_default),
            ),
            "append" => (3, append(Some(&bytes[0]), &path, &bytes[2])),
            other => panic!("unknown operation {other}"),
        };
        assert_eq!(ours, Ok(server), "{}", columns.join(" "));
        counts[operation] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
}
