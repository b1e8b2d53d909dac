//! Generated histories: the documents of one state, version by version.

use serde_json::{Map, Value, json};

use crate::jsonb;
use crate::random::Random;

/// A name and the documents, oldest first.
pub type History = (&'static str, Vec<Vec<u8>>);

/// One history of each kind, of `steps` versions.
pub fn histories(random: &mut Random, steps: usize) -> Vec<History> {
    vec![
        ("growing arrays", growing(random, steps)),
        ("renamed keys", renamed(random, steps)),
        ("unicode", unicode(random, steps)),
        ("numbers", numbers(random, steps)),
        ("nesting", nested(steps)),
        ("random documents", unrelated(random, steps)),
        ("random bytes", noise(random, steps)),
        ("edited noise", edited_noise(random, steps)),
        ("empty and tiny", tiny(random, steps)),
        ("sudden replacement", replaced(random, steps)),
        ("shrinking", shrinking(random, steps)),
        ("like a dictionary", dictionaries(random, steps)),
    ]
}

fn words(random: &mut Random, count: usize) -> String {
    const WORDS: [&str; 12] = [
        "agent", "tool", "result", "ticket", "order", "file", "search", "price", "flight", "list",
        "error", "done",
    ];
    let words: Vec<String> = (0..count)
        .map(|_| format!("{}{}", random.pick(&WORDS), random.below(100)))
        .collect();
    words.join(" ")
}

fn growing(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    (0..steps)
        .map(|step| {
            let count = 5 + random.below(30);
            messages.push(json!({"role": "tool", "content": words(random, count)}));
            jsonb::encode(&json!({"step": step, "messages": messages}))
        })
        .collect()
}

fn renamed(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let values: Vec<String> = (0..40).map(|_| words(random, 6)).collect();
    let mut keys: Vec<String> = (0..40).map(|n| format!("key{n}")).collect();
    (0..steps)
        .map(|step| {
            let at = random.below(keys.len());
            keys[at] = format!("renamed{step}in{at}");
            let pairs = keys
                .iter()
                .cloned()
                .zip(values.iter().cloned().map(Value::String));
            jsonb::encode(&Value::Object(pairs.collect::<Map<_, _>>()))
        })
        .collect()
}

fn unicode(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let mut text = String::new();
    (0..steps)
        .map(|_| {
            for _ in 0..50 {
                let point = u32::try_from(random.below(0x11_0000)).unwrap();
                text.extend(char::from_u32(point).filter(|point| *point != '\0'));
            }
            jsonb::encode(&json!({"ключ": text, "日本": text.chars().rev().collect::<String>()}))
        })
        .collect()
}

fn numbers(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let mut counters = vec![0_i64; 200];
    (0..steps)
        .map(|_| {
            for _ in 0..10 {
                let at = random.below(counters.len());
                counters[at] = random.next().cast_signed() >> random.below(63);
            }
            jsonb::encode(&json!(counters))
        })
        .collect()
}

fn nested(steps: usize) -> Vec<Vec<u8>> {
    let mut value = json!({"leaf": true});
    (0..steps)
        .map(|step| {
            for _ in 0..5 {
                value = json!({"level": step, "child": value});
            }
            jsonb::encode(&value)
        })
        .collect()
}

fn unrelated(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    (0..steps)
        .map(|_| jsonb::encode(&random.value(0)))
        .collect()
}

fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.next().to_le_bytes()[0]).collect()
}

fn noise(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    (0..steps)
        .map(|_| {
            let count = random.below(3_000);
            bytes(random, count)
        })
        .collect()
}

fn edited_noise(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let mut document = bytes(random, 4_000);
    (0..steps)
        .map(|_| {
            let at = random.below(document.len());
            let end = document.len().min(at + random.below(100));
            let count = random.below(100);
            document.splice(at..end, bytes(random, count));
            document.clone()
        })
        .collect()
}

fn tiny(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    (0..steps)
        .map(|_| match random.below(4) {
            0 => Vec::new(),
            1 => jsonb::encode(&json!({})),
            2 => jsonb::encode(&json!({"a": random.below(9)})),
            _ => {
                let count = random.below(40);
                bytes(random, count)
            }
        })
        .collect()
}

fn replaced(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let mut document = growing(random, 20).pop().unwrap();
    (0..steps)
        .map(|step| {
            if step % 7 == 6 {
                document = if step % 2 == 0 {
                    renamed(random, 1).pop().unwrap()
                } else {
                    growing(random, 25).pop().unwrap()
                };
            }
            let at = random.below(document.len());
            document[at] = document[at].wrapping_add(1);
            document.clone()
        })
        .collect()
}

fn shrinking(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    let mut documents = growing(random, steps);
    documents.reverse();
    documents
}

/// Bases that begin as a trained dictionary of zstd does, which they are not.
fn dictionaries(random: &mut Random, steps: usize) -> Vec<Vec<u8>> {
    growing(random, steps)
        .into_iter()
        .map(|document| [&[0x37, 0xA4, 0x30, 0xEC][..], &document].concat())
        .collect()
}
