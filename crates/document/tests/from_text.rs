//! JSON text into the binary form. The judge is the encoder of the test documents, which shares nothing with this
//! crate and is itself held to bytes that the server wrote (`document::server`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use state_cache_document::{Encoding, check, from_text, replace_invalid};
use state_cache_histories::{Json, Random, encode, mutate, spell};

fn read(text: &str) -> Option<Vec<u8>> {
    from_text(text.as_bytes(), Encoding::Utf8).unwrap()
}

#[test]
fn every_spelling_of_a_document_is_read_as_the_server_stores_it() {
    let mut random = Random::new(71);
    let (mut containers, mut escapes) = (0, 0);
    for _ in 0..20_000 {
        let json = random.value(0);
        let text = spell(&mut random, &json);

        assert_eq!(read(&text), encode(&json), "{text}");
        containers += usize::from(json.is_container());
        escapes += usize::from(text.contains("\\u"));
    }
    assert!(
        containers > 5_000 && escapes > 1_000,
        "{containers} {escapes}"
    );
}

#[test]
fn every_number_is_exact() {
    let mut random = Random::new(72);
    let digits = |random: &mut Random, most: usize| -> String {
        (0..1 + random.below(most))
            .map(|_| random.pick(['0', '0', '1', '9', '5', '0']))
            .collect()
    };
    let mut declined = 0;
    for _ in 0..100_000 {
        let mut spelling = String::from(random.pick(["", "-"]));
        let most = random.pick([1, 4, 5, 20]);
        let whole = digits(&mut random, most);
        let whole = whole.trim_start_matches('0');
        spelling.push_str(if whole.is_empty() { "0" } else { whole });
        if random.below(2) == 0 {
            spelling.push('.');
            let most = random.pick([1, 4, 9, 70]);
            spelling.push_str(&digits(&mut random, most));
        }
        if random.below(3) == 0 {
            let most = random.pick([3, 20, 300, 999]);
            let exponent = random.below(most);
            spelling.push_str(random.pick(["e", "E", "e+", "E-", "e-", "e-0"]));
            spelling.push_str(&exponent.to_string());
        }
        match read(&spelling) {
            Some(document) => {
                assert_eq!(
                    Some(&document),
                    encode(&Json::Number(spelling.clone())).as_ref(),
                    "{spelling}"
                );
                let is_text = |_: &[u8]| true;
                assert_eq!(check(&document, is_text, || ()), Ok(()), "{spelling}");
            }
            None => declined += 1,
        }
    }
    assert_eq!(declined, 0);
    // Far beyond what anybody means: the server says whether that is a number.
    for spelling in [
        "1e1001",
        "1e-99999",
        "1e2147483648",
        &"9".repeat(1001),
        "1e+",
    ] {
        assert_eq!(read(spelling), None, "{spelling}");
    }
}

#[test]
fn what_is_no_json_is_declined() {
    let texts = [
        "",
        " ",
        "\u{feff}1",
        "nul",
        "nulll",
        "True",
        "truefalse",
        "tru",
        "fals",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        "-",
        "--1",
        "01",
        "-01",
        "00",
        "1.",
        ".5",
        "1.e3",
        "1e",
        "1e+",
        "1e-",
        "0x10",
        "1_000",
        "1 2",
        "1,",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1 2]",
        "[1]]",
        "[1}",
        "{",
        "}",
        "{1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}}",
        "{\"a\":1]",
        "{1:2}",
        "{null:1}",
        "{[]:1}",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u\"",
        "\"\\",
        "'a'",
        "\"a\nb\"",
        "\"a\u{1f}b\"",
        "\"a\tb\"",
        "\"\u{1}\"",
        "[\"a\"b]",
        "\u{a0}1",
        "1\u{b}",
        "1\u{c}",
        "/**/1",
        "1//",
        "[1]x",
        "nan",
        "undefined",
        "\"a\" \"b\"",
        "{\"a\":1,\"a\"}",
        "[\"\\ud800\"]",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "\"\\udc00\\ud800\"",
        "\"\\u0000\"",
        "{\"\\u0000\":1}",
    ];
    for text in texts {
        assert_eq!(read(text), None, "{text:?}");
        assert_eq!(read(&format!("[{text}, 1]")), None, "{text:?}");
    }
}

#[test]
fn a_damaged_text_is_declined_or_read_as_what_it_says() {
    let mut random = Random::new(73);
    let (mut accepted, mut declined) = (0, 0);
    for _ in 0..30_000 {
        let json = random.value(0);
        let text = spell(&mut random, &json);
        let text = mutate(&mut random, &text);
        let ours = from_text(&text, Encoding::Utf8).unwrap();
        // Another judge, for the grammar only: it reads UTF-8, and NUL and numbers of any size as well.
        let theirs = serde_json::from_slice::<&serde_json::value::RawValue>(&text);
        match ours {
            Some(document) => {
                accepted += 1;
                if str::from_utf8(&text).is_ok() {
                    assert!(theirs.is_ok(), "{}", String::from_utf8_lossy(&text));
                    assert_eq!(
                        check(&document, |text| str::from_utf8(text).is_ok(), || ()),
                        Ok(())
                    );
                }
            }
            None => declined += 1,
        }
    }
    assert!(
        accepted > 1_000 && declined > 10_000,
        "{accepted} {declined}"
    );
}

#[test]
fn what_is_too_deep_is_declined() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let json = (0..200).fold(Json::Number("1".to_owned()), |inner, _| {
        Json::Array(vec![inner])
    });
    assert_eq!(read(&nested(200)), encode(&json));
    assert_eq!(read(&nested(201)), None);
    assert_eq!(read(&"{\"a\":".repeat(100_000)), None);
}

#[test]
fn an_encoding_other_than_utf_8_converts_its_escapes_itself() {
    let other = |text: &[u8]| from_text(text, Encoding::Other).unwrap();
    assert_eq!(other(br#"["\u00e9"]"#), None);
    assert_eq!(other(br#"["\ud834\udd1e"]"#), None);
    assert_eq!(
        other(br#"["\u0041\n"]"#),
        encode(&Json::Array(vec![Json::String("A\n".to_owned())]))
    );
    // Bytes above ASCII are taken over as they are.
    assert_eq!(
        other("[\"é\"]".as_bytes()),
        encode(&Json::Array(vec![Json::String("é".to_owned())]))
    );
}

#[test]
fn what_jsonb_refuses_is_replaced_and_nothing_else() {
    let replace = |text: &str| {
        replace_invalid(text.as_bytes())
            .unwrap()
            .map(|text| String::from_utf8(text).unwrap())
    };
    for kept in [
        "",
        "\\",
        "a",
        r#""\u0041""#,
        r#""\\u0000""#,
        r#""\\\\u0000""#,
        r#""\ud834\udd1e""#,
        r#""\u00""#,
        r#""\u000""#,
        r#""\uFFFD""#,
        r#""\"\\ud800""#,
        r"\u",
        r"\ud83",
        r#""\u000g""#,
    ] {
        assert_eq!(replace(kept), None, "{kept}");
    }
    for (text, replaced) in [
        (r#""\u0000""#, r#""\ufffd""#),
        (
            r#"{"a\u0000b":"\u0000\u0000"}"#,
            r#"{"a\ufffdb":"\ufffd\ufffd"}"#,
        ),
        (r#""\ud834""#, r#""\ufffd""#),
        (r#""\uDD1E""#, r#""\ufffd""#),
        (r#""\ud834\ud834\udd1e""#, r#""\ufffd\ud834\udd1e""#),
        (r#""\udd1e\ud834""#, r#""\ufffd\ufffd""#),
        (r#""\ud834\u0041""#, r#""\ufffd\u0041""#),
        (r#""\ud834\u0000""#, r#""\ufffd\ufffd""#),
        (r#""\ud834x\udd1e""#, r#""\ufffdx\ufffd""#),
        (r#""\\\u0000""#, r#""\\\ufffd""#),
        (r"\ud800", r"\ufffd"),
    ] {
        assert_eq!(replace(text).as_deref(), Some(replaced), "{text}");
    }
    assert_eq!(
        read(&replace(r#"["x\u0000", "\ud800y", "\ud834\udd1e"]"#).unwrap()),
        read("[\"x\u{fffd}\", \"\u{fffd}y\", \"𝄞\"]")
    );
}
