//! The many ways to spell one document as JSON text, and texts that are no longer JSON.

use crate::json::Json;
use crate::random::Random;

/// The JSON text of a document: escapes where none are needed, white space, pairs in any order. Some pairs stand
/// twice; the last one counts, so it is the right one.
#[must_use]
pub fn spell(random: &mut Random, json: &Json) -> String {
    let mut text = String::new();
    spell_value(random, json, &mut text);
    text
}

/// Changes one to three bytes of a text, mostly by bytes that mean something to JSON; the result may be no UTF-8.
#[must_use]
pub fn mutate(random: &mut Random, text: &str) -> Vec<u8> {
    let mut text = text.as_bytes().to_vec();
    for _ in 0..1 + random.below(3) {
        if text.is_empty() {
            break;
        }
        let at = random.below(text.len());
        match random.below(3) {
            0 => drop(text.remove(at)),
            1 => text.insert(
                at,
                random.pick([b'"', b'\\', b'{', b']', b',', b':', b'0', b'.', b'e', 0x80]),
            ),
            _ => {
                text[at] = random.pick([
                    b'"', b'\\', b'}', b'[', b',', b':', b'1', b'-', b' ', b'u', 0xC3,
                ])
            }
        }
    }
    text
}

/// White space as JSON allows it between tokens, often none.
fn space(random: &mut Random, out: &mut String) {
    for _ in 0..random.pick([0, 0, 0, 1, 3]) {
        out.push(random.pick([' ', '\n', '\t', '\r']));
    }
}

/// Spells a string in one of the many ways that mean it.
fn spell_string(random: &mut Random, text: &str, out: &mut String) {
    let often = random.pick([1, 4, 1000]);
    out.push('"');
    for character in text.chars() {
        let must = matches!(character, '"' | '\\' | '\0'..='\u{1f}');
        let short = match character {
            '"' => Some('"'),
            '\\' => Some('\\'),
            '/' => Some('/'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            _ => None,
        };
        match short {
            Some(short) if must || random.below(often) == 0 => out.extend(['\\', short]),
            _ if must || random.below(often) == 0 => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&match random.below(2) {
                        0 => format!("\\u{unit:04x}"),
                        _ => format!("\\u{unit:04X}"),
                    });
                }
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn spell_value(random: &mut Random, json: &Json, out: &mut String) {
    space(random, out);
    match json {
        Json::String(text) => spell_string(random, text, out),
        Json::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                spell_value(random, element, out);
            }
            space(random, out);
            out.push(']');
        }
        Json::Object(pairs) => {
            let mut pairs: Vec<(&str, &Json)> =
                pairs.iter().map(|(key, value)| (&**key, value)).collect();
            random.shuffle(&mut pairs);
            let other = Json::Array(vec![
                Json::Null,
                Json::object([("x".to_owned(), Json::Bool(true))]),
            ]);
            if let Some((key, _)) = pairs.last().copied()
                && random.below(4) == 0
            {
                pairs.insert(random.below(pairs.len()), (key, &other));
            }
            out.push('{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                space(random, out);
                spell_string(random, key, out);
                space(random, out);
                out.push(':');
                spell_value(random, value, out);
            }
            space(random, out);
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
    space(random, out);
}
