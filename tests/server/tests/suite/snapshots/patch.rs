//! JSON Patch (RFC 6902), applied by somebody else's code.

use serde_json::Value;

/// Makes each number of a JSON text a string, so that it keeps its digits and its scale: `serde_json` would make
/// an `f64` of it.
fn with_numbers_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() * 2);
    let mut in_string = false;
    let mut in_number = false;
    let mut is_escaped = false;
    for character in text.chars() {
        let is_digit = matches!(character, '0'..='9' | '-' | '+' | '.')
            || in_number && matches!(character, 'e' | 'E');
        if !in_string && is_digit != in_number {
            quoted.push_str(if is_digit { "\"number " } else { "\"" });
            in_number = is_digit;
        }
        if !in_string {
            in_string = character == '"';
        } else if is_escaped {
            is_escaped = false;
        } else {
            is_escaped = character == '\\';
            in_string = character != '"';
        }
        quoted.push(character);
    }
    if in_number {
        quoted.push('"');
    }
    quoted
}

/// Whether the patch makes the one document of the other, numbers being compared with their scale.
pub fn makes(from: &str, patch: &str, to: &str) -> bool {
    let [mut from, patch, to] = [from, patch, to]
        .map(|text| serde_json::from_str::<Value>(&with_numbers_quoted(text)).unwrap());
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    json_patch::patch(&mut from, &patch).is_ok() && from == to
}

#[test]
fn a_patch_is_compared_with_the_scale_of_numbers() {
    let patch = r#"[{"op": "replace", "path": "/a/0", "value": 1.00}]"#;
    assert!(makes(
        r#"{"a": [2, "3\"4"]}"#,
        patch,
        r#"{"a": [1.00, "3\"4"]}"#
    ));
    assert!(!makes(
        r#"{"a": [2, "3\"4"]}"#,
        patch,
        r#"{"a": [1.0, "3\"4"]}"#
    ));
    assert!(!makes(r#"{"b": []}"#, patch, r#"{"b": []}"#));
}
