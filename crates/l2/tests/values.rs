//! Values and keys: what is written is read, and what is damaged is not.

#![allow(clippy::unwrap_used, reason = "a test fails")]

use state_cache_l2::{
    Codec, Compression, Content, HEADER, Header, Kind, Owner, Prefix, Unread, Value,
};

fn long() -> String {
    format!("{{\"text\": \"{}\"}}", "漢字 and more ".repeat(500))
}

fn value(codec: Codec) -> Vec<u8> {
    Value::document(
        "run",
        "a",
        1 << 40,
        &long(),
        Compression { codec, above: 100 },
    )
    .unwrap()
}

#[test]
fn reads_what_it_wrote() {
    for codec in [Codec::Plain, Codec::Zstd, Codec::Gzip] {
        let bytes = value(codec);
        let header = Header::read(&bytes).unwrap();
        assert_eq!(
            (header.codec, header.kind, header.version),
            (codec, Kind::Document, 1 << 40)
        );
        let read = Value::read("run", "a", &bytes).unwrap();
        assert_eq!(read.version, 1 << 40);
        assert_eq!(read.content, Content::Document(long()));
    }
    let tombstone = Value::read("run", "a", &Value::tombstone("run", "a", 7)).unwrap();
    assert_eq!(
        (tombstone.version, tombstone.content),
        (7, Content::Tombstone)
    );
    let lease = Value::read("run", "a", &Value::lease("run", "a", [1; 16])).unwrap();
    assert_eq!((lease.version, lease.content), (0, Content::Lease));
}

#[test]
fn packs_only_what_is_long_and_shrinks() {
    let codec = |document: &str| {
        let bytes = Value::document("run", "a", 1, document, Compression::default()).unwrap();
        Header::read(&bytes).unwrap().codec
    };
    assert_eq!(codec(&"1".repeat(1024)), Codec::Plain);
    assert_eq!(codec(&"1".repeat(1025)), Codec::Zstd);
}

#[test]
fn takes_no_damaged_value() {
    for codec in [Codec::Plain, Codec::Zstd, Codec::Gzip] {
        let whole = value(codec);
        for length in 0..whole.len() {
            assert!(
                Value::read("run", "a", &whole[..length]).is_err(),
                "{length} bytes"
            );
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(Value::read("run", "a", &longer), Err(Unread::Length));
        for at in (0..HEADER * 8).chain((HEADER * 8..whole.len() * 8).step_by(41)) {
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(Value::read("run", "a", &flipped).is_err(), "bit {at}");
        }
        assert_eq!(Value::read("run", "b", &whole), Err(Unread::Checksum));
        assert_eq!(Value::read("ru", "na", &whole), Err(Unread::Checksum));
    }
    assert_eq!(
        Value::read("run", "a", b"SCL2\x02 a newer one"),
        Err(Unread::Format)
    );
    assert_eq!(Value::read("run", "a", b"{\"a\": 1}"), Err(Unread::Foreign));
    assert_eq!(Value::read("run", "a", b""), Err(Unread::Foreign));
}

#[test]
fn gives_each_state_a_key_of_its_own() {
    let prefix = Prefix::new("app:").unwrap();
    assert_eq!(prefix.state(12, "run", "a:b"), "app:12:{run:a:b}");
    assert_eq!(prefix.state(12, "a:b", "{c}%"), "app:12:{a%3Ab:%7Bc%7D%25}");
    let parts = [
        "", ":", "%", "{", "}", "a", "a:", ":a", "%3A", "%7B", "{a}", "a}",
    ];
    let mut seen = std::collections::HashSet::new();
    for class in parts {
        for key in parts {
            let name = prefix.state(1, class, key);
            assert_eq!(name.matches(['{', '}']).count(), 2, "{name}");
            assert!(seen.insert(name), "{class} {key}");
        }
    }
    assert_eq!(
        (prefix.meta().as_str(), prefix.alive().as_str()),
        ("app:{meta}", "app:{meta}:alive")
    );
    assert!(Prefix::new("a{b").is_err());
}

#[test]
fn reads_owners() {
    let owner = Owner {
        system: u64::MAX,
        database: 5,
        schema: "odd/schema".into(),
    };
    assert_eq!(owner.to_string().parse(), Ok(owner));
    assert!("x".parse::<Owner>().is_err());
}

#[test]
fn a_key_says_which_state_it_is_for() {
    let prefix = Prefix::new("app:").unwrap();
    let odd = ["", "a", "%", "{}", "a:b", "%3A", "ü%", "}:{", "a}", "meta"];
    for class in odd {
        for key in odd {
            let name = prefix.state(7, class, key);
            let expected = Some((7, class.to_owned(), key.to_owned()));
            assert_eq!(prefix.parse(&name), expected, "{name}");
        }
    }
    for other in [
        prefix.meta().as_str(),
        prefix.alive().as_str(),
        "other:7:{run:k}",
        "app:7:{run}",
        "app:x:{run:k}",
        "app:7:{run:%41}",
        "app:7:{run:%2}",
        "app:7:{run:k}:more",
        "",
    ] {
        assert_eq!(prefix.parse(other), None, "{other}");
    }
}
