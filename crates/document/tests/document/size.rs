//! The largest documents that jsonb's 28-bit lengths hold.

use serde_json::json;
use state_cache_document::DocumentError::TooLarge;
use state_cache_document::{DocumentError, append, merge_patch, update};

use crate::encoder::encode;

#[test]
fn a_result_may_be_as_long_as_a_length_field_holds_and_no_longer() {
    let most = 0x0FFF_FFFF;
    let half = most / 2;
    let base = encode(&json!({"a": "x".repeat(half)}));
    // Header, four entries and two keys of one byte.
    let rest = most - half - 4 - 16 - 2;
    // Lengths are compared, so that a failure does not print the documents.
    let length = |result: Result<Vec<u8>, DocumentError>| result.map(|bytes| bytes.len());
    let fits = update(Some(&base), &encode(&json!({"b": "y".repeat(rest)})));
    assert_eq!(length(fits), Ok(most));

    let updates = encode(&json!({"b": "y".repeat(rest + 1)}));
    assert_eq!(length(update(Some(&base), &updates)), Err(TooLarge));
    assert_eq!(
        length(merge_patch(Some(&base), &updates, || {})),
        Err(TooLarge)
    );

    let base = encode(&json!(["x".repeat(half)]));
    let value = encode(&json!("y".repeat(most - half)));
    assert_eq!(length(append(Some(&base), &[], &value)), Err(TooLarge));
}
