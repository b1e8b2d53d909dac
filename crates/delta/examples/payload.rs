//! Prints what the kept versions of recorded sessions take, and what encoding and decoding them costs.
//!
//! `cargo run --release -p state_cache_delta --example payload -- FILE.jsonl.gz`
//!
//! Each line of the file is an object with `run` and `state`. Times are the best of several rounds, in one thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../document/tests/document/encoder.rs"]
mod jsonb;

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;
use state_cache_delta::{Base, Decoder, Encoded, Encoder, Form};

const ROUNDS: usize = 5;

struct Session {
    run: String,
    documents: Vec<Vec<u8>>,
    final_text: usize,
}

fn main() {
    let path = std::env::args().nth(1).expect("the file to read");
    let sessions = read(&path);
    let steps: usize = sessions.iter().map(|s| s.documents.len()).sum();
    let whole: usize = sessions
        .iter()
        .flat_map(|s| &s.documents)
        .map(Vec::len)
        .sum();
    let last: usize = sessions.iter().map(|s| s.final_text).sum();
    println!(
        "{} sessions, {steps} steps, {whole} bytes of whole documents, {last} bytes of final states as text\n",
        sessions.len()
    );
    println!(
        "{:>5} {:>5} {:>9} {:>7} {:>7} {:>9} {:>7} {:>7} {:>10} {:>10} {:>10}",
        "level",
        "chain",
        "payload",
        "/final",
        "whole",
        "keyframes",
        "deltas",
        "average",
        "encode µs",
        "decode µs",
        "replay µs"
    );
    for level in [-1, 1, 3, 5, 6, 9, 19] {
        for max_chain in [16, 32] {
            print(&sessions, level, max_chain, last);
        }
    }
}

fn print(sessions: &[Session], level: i32, max_chain: u32, last: usize) {
    let (stored, encoding) = best(|| {
        sessions
            .iter()
            .map(|s| encode(s, level, max_chain))
            .collect::<Vec<_>>()
    });
    let ((), decoding) = best(|| {
        let mut decoder = Decoder::new().unwrap();
        for (session, stored) in sessions.iter().zip(&stored) {
            let mut base: &[u8] = &[];
            for (document, encoded) in session.documents.iter().zip(stored) {
                if let Form::Packed(packed) = &encoded.form {
                    assert_eq!(decoder.decode(packed, Some(base)).as_ref(), Ok(document));
                }
                base = document;
            }
        }
    });
    let ((), replaying) = best(|| {
        let mut decoder = Decoder::new().unwrap();
        for (session, stored) in sessions.iter().zip(&stored) {
            for version in 0..stored.len() {
                black_box(replay(&mut decoder, session, stored, version));
            }
        }
    });
    let all = || {
        sessions
            .iter()
            .zip(&stored)
            .flat_map(|(s, stored)| s.documents.iter().zip(stored))
    };
    let bytes = |(document, encoded): (&Vec<u8>, &Encoded)| match &encoded.form {
        Form::Whole => document.len(),
        Form::Packed(packed) => packed.len(),
    };
    let count = all().count();
    let payload: usize = all().map(bytes).sum();
    let deltas = all().filter(|(_, e)| e.layout.depth > 0);
    let delta_bytes: usize = deltas.clone().map(bytes).sum();
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{level:>5} {max_chain:>5} {payload:>9} {:>7.3} {:>7} {:>9} {:>7} {:>7} {:>10.1} {:>10.1} {:>10.1}",
        payload as f64 / last as f64,
        all().filter(|(_, e)| e.form == Form::Whole).count(),
        all()
            .filter(|(_, e)| e.form != Form::Whole && e.layout.depth == 0)
            .count(),
        deltas.clone().count(),
        delta_bytes / deltas.count().max(1),
        micros(encoding),
        micros(decoding),
        micros(replaying),
    );
}

/// All versions of a session as they are stored.
fn encode(session: &Session, level: i32, max_chain: u32) -> Vec<Encoded> {
    let mut encoder = Encoder::new(level).unwrap();
    let mut stored: Vec<Encoded> = Vec::new();
    for (at, document) in session.documents.iter().enumerate() {
        let base = stored.last().map(|encoded| Base {
            version: i64::try_from(at).unwrap(),
            document: &session.documents[at - 1],
            layout: encoded.layout,
        });
        let version = i64::try_from(at + 1).unwrap();
        stored.push(encoder.encode(document, version, base, max_chain).unwrap());
    }
    stored
}

/// A version read through its chain.
fn replay(decoder: &mut Decoder, session: &Session, stored: &[Encoded], version: usize) -> Vec<u8> {
    let keyframe = version - stored[version].layout.depth as usize;
    let mut document = Vec::new();
    let chain = session.documents.iter().zip(stored);
    for (whole, encoded) in chain.take(version + 1).skip(keyframe) {
        document = match &encoded.form {
            Form::Whole => whole.clone(),
            Form::Packed(packed) => decoder.decode(packed, Some(&document)).unwrap(),
        };
    }
    document
}

fn best<T>(mut work: impl FnMut() -> T) -> (T, Duration) {
    let mut best = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let result = work();
        let time = start.elapsed();
        if best.as_ref().is_none_or(|(_, least)| time < *least) {
            best = Some((result, time));
        }
    }
    best.unwrap()
}

fn read(path: &str) -> Vec<Session> {
    let file = std::fs::File::open(path).unwrap();
    let mut sessions: Vec<Session> = Vec::new();
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let run = line["run"].as_str().unwrap();
        if sessions.last().is_none_or(|session| session.run != run) {
            sessions.push(Session {
                run: run.to_owned(),
                documents: Vec::new(),
                final_text: 0,
            });
        }
        let session = sessions.last_mut().unwrap();
        session.final_text = line["state"].to_string().len();
        session
            .documents
            .push(jsonb::encode(&integers_only(&line["state"])));
    }
    sessions
}

/// The writer of the tests knows no fractions: they become strings, which take about as many bytes.
fn integers_only(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.as_i64().is_none() => Value::String(number.to_string()),
        Value::Array(elements) => elements.iter().map(integers_only).collect(),
        Value::Object(pairs) => pairs
            .iter()
            .map(|(key, value)| (key.clone(), integers_only(value)))
            .collect(),
        scalar => scalar.clone(),
    }
}
