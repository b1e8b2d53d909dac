//! Where there is no memory for something as large as a document, every function says so and none ends the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use state_cache_document::{
    DocumentError, Encoding, Pattern, PatternError, append, array, diff, elements, from_text,
    get_path, get_section, members, merge_patch, number, object, replace_invalid, string, update,
    update_section, without,
};
use state_cache_histories::{Json, Refusing, encode, refuse_each};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

fn is_refusal<T>(outcome: &Result<T, DocumentError>) -> bool {
    matches!(outcome, Err(DocumentError::OutOfMemory(refused)) if refused.size > state_cache_histories::SMALL)
}

/// How many large requests something makes, each of which was refused once.
fn refusals<T>(run: impl Fn() -> Result<T, DocumentError>) -> usize {
    refuse_each(run, is_refusal)
}

fn text(n: usize) -> Json {
    Json::String(format!("{n:032}"))
}

/// An object of `count` pairs.
fn pairs(count: usize, value: impl Fn(usize) -> Json) -> Json {
    Json::Object((0..count).map(|n| (format!("k{n:06}"), value(n))).collect())
}

// One test, since the counters are of the process.
#[test]
fn each_large_request_that_is_refused_ends_in_an_error() {
    let many = pairs(20_000, text);
    let list = Json::Array((0..20_000).map(text).collect());
    let long = Json::String("x".repeat(1_000_000));
    let [flat, array_of, scalar] = [&many, &list, &long].map(|json| encode(json).unwrap());
    let nested = object(&[("o", &flat), ("a", &array_of), ("s", &scalar)]).unwrap();
    let changed = encode(&pairs(20_000, |n| text(n + n % 2))).unwrap();
    let patch = object(&[("o", &changed)]).unwrap();
    let guard = || ();
    let parts = members(&nested).unwrap();
    let many_parts = members(&flat).unwrap();
    let texts = elements(&array_of).unwrap();
    let keys: Vec<&[u8]> = many_parts.iter().map(|(key, _)| *key).collect();
    let path: Vec<&[u8]> = vec![b"a"; 10_000];

    let counted = [
        refusals(|| append(Some(&nested), &[b"a"], &scalar)),
        refusals(|| object(&many_parts)),
        refusals(|| object(&parts)),
        refusals(|| array(&texts)),
        refusals(|| string(&scalar)),
        refusals(|| without(&nested, &[b"s"])),
        refusals(|| without(&flat, &keys)),
        refusals(|| update(Some(&flat), &changed)),
        refusals(|| update(None, &changed)),
        refusals(|| update_section(Some(&nested), b"o", &changed)),
        refusals(|| merge_patch(Some(&nested), &patch, guard)),
        refusals(|| merge_patch(None, &array_of, guard)),
        refusals(|| diff(&flat, &changed, guard)),
        refusals(|| diff(&nested, &patch, guard)),
        refusals(|| get_path(&nested[..], &[b"o"])),
        refusals(|| get_path(&nested[..], &[b"s"])),
        refusals(|| get_path(&nested[..], &[])),
        refusals(|| get_section(&nested[..], b"o")),
        refusals(|| members(&nested).map(|parts| parts.len())),
        refusals(|| members(&flat).map(|parts| parts.len())),
        refusals(|| elements(&array_of).map(|parts| parts.len())),
    ];
    let spelled = Json::Array(vec![many.clone(), list.clone(), long.clone()]).to_string();
    let escaped = spelled.replace("00", "\\u0030\\u0030") + " ";
    let texts = [&spelled, &escaped, &long.to_string()];
    for text in texts {
        let run = || from_text(text.as_bytes(), Encoding::Utf8);
        assert!(refuse_each(run, |outcome| outcome.is_err()) > 0);
    }
    let invalid = "\\u0000".repeat(100_000);
    let run = || replace_invalid(invalid.as_bytes());
    assert!(refuse_each(run, |outcome| outcome.is_err()) > 0);
    let pattern = "ab*".repeat(50_000);
    let is_refused =
        |outcome: &Result<_, PatternError>| matches!(outcome, Err(PatternError::OutOfMemory(_)));
    for pattern in [&*pattern, &pattern.replace('*', "")] {
        assert!(refuse_each(|| Pattern::parse(pattern.as_bytes()), is_refused) > 0);
    }
    assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
    // These have nothing large to ask for.
    assert_eq!(refusals(|| get_path(&nested[..], &path).map(|_| ())), 0);
    assert_eq!(refusals(|| number(&[0; 4]).or(Ok(Vec::new()))), 0);
}
