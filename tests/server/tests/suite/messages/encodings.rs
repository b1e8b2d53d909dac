//! Messages in databases and for listeners of all encodings: ASCII, with what is not ASCII escaped, in Unicode.

use super::{CHANNELS, Listener, Message, await_told, call_worker};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value, json};
use state_cache_server_tests::{PATIENCE, Server, Sql};

/// A name with a character that LATIN1 has not, one beyond the BMP, and what JSON and patterns give a meaning to.
const NAME: &str = "漢𝄞é\u{7f}*?\"\\";

/// A session of a database that listens on all channels, and has that encoding.
fn listener(server: &Server, database: &str, encoding: &str) -> Client {
    let mut client = server.connect_to(database);
    for channel in CHANNELS {
        client.run(&format!("LISTEN {channel}"));
    }
    client.run(&format!("SET client_encoding = '{encoding}'"));
    client
}

/// The messages that have arrived up to the one that tells to drop `end` of all classes, without numbers; each is
/// ASCII and no longer than promised.
fn heard(client: &mut Client, end: &str) -> Vec<Value> {
    let mut heard = Vec::new();
    loop {
        let mut notifications = client.notifications();
        let next = notifications.timeout_iter(PATIENCE).next().unwrap();
        let payload = next.expect("a message").payload().to_owned();
        assert!(payload.is_ascii() && payload.len() <= 7900, "{payload}");
        let mut message: Value = serde_json::from_str(&payload).expect(&payload);
        let fields = message.as_object_mut().unwrap();
        assert!(
            fields.remove("seq").unwrap().is_u64() && fields.remove("epoch").unwrap().is_string()
        );
        if message["pattern"] == end {
            return heard;
        }
        heard.push(message);
    }
}

/// Each commit is told by messages of its own.
const WITH_THE_COMMIT: &[&str] = &["state_cache.notify = commit"];

/// A database of that encoding with the extension.
fn database(server: &Server, encoding: &str) -> Client {
    server.connect().run(&format!(
        "CREATE DATABASE \"{encoding}\" TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    ));
    let mut client = server.connect_to(encoding);
    client.run("CREATE EXTENSION state_cache");
    client
}

/// The fault: the server ended the connection of a listener that it could not send a character to.
#[test]
fn a_listener_whose_encoding_lacks_a_character_hears_of_it() {
    for notify in ["commit", "worker"] {
        let server = Server::new(&[&format!("state_cache.notify = {notify}")]);
        let mut client = server.connect();
        call_worker(&mut client);
        let quoted = NAME.replace('\\', r"\\");
        client.run(&format!("SELECT state_class_define(E'{quoted}')"));
        let mut listeners = ["LATIN1", "SQL_ASCII", "EUC_KR"]
            .map(|encoding| listener(&server, "postgres", encoding));
        for call in [
            format!("state_set(E'{quoted}', '1', class => E'{quoted}')"),
            format!("state_delete(E'{quoted}', class => E'{quoted}')"),
            format!("state_blackboard_add('board', E'{quoted}', '1')"),
            format!("state_invalidate(E'?{quoted}\\\\', E'{quoted}')"),
            "state_invalidate('end')".to_owned(),
        ] {
            client.run(&format!("SELECT {call}"));
            // One after the other, whoever sends the messages.
            await_told(&mut client);
        }
        for listener in &mut listeners {
            assert_eq!(
                heard(listener, "end").as_slice(),
                [
                    json!({"class": NAME, "op": "update", "changes": [{"key": NAME, "version": 1}]}),
                    json!({"class": NAME, "op": "delete", "changes": [{"key": NAME, "version": 2}]}),
                    json!({"class": "swarm", "op": "update",
                        "changes": [{"key": "board", "version": 1, "items": [NAME]}]}),
                    json!({"class": NAME, "op": "invalidate", "pattern": format!("?{NAME}\\")}),
                ],
                "{notify}"
            );
            // It is there still, and may go on.
            assert_eq!(listener.text("SELECT 1"), "1");
        }
    }
}

/// A name is the same in messages, whatever the bytes of the database.
#[test]
fn names_are_told_in_unicode_whatever_the_encoding_of_the_database() {
    let server = Server::new(WITH_THE_COMMIT);
    for (encoding, name) in [
        ("LATIN1", "schlüssel"),
        ("LATIN9", "€"),
        ("WIN1251", "ключ"),
        ("EUC_JP", "漢あｱ丂"),
        // The last letter is two characters in Unicode, one there.
        ("EUC_JIS_2004", "漢か\u{309a}"),
        ("EUC_KR", "열쇠"),
        ("EUC_CN", "钥匙"),
        ("EUC_TW", "鑰乂"),
        ("UTF8", "𝄞"),
    ] {
        let mut client = database(&server, encoding);
        let mut listener = listener(&server, encoding, "SQL_ASCII");
        client.run(&format!(
            "SELECT state_class_define('{name}'), state_set('{name}', '1', class => '{name}')"
        ));
        client.run(&format!(
            "SELECT state_blackboard_add('{name}', '{name}', '1')"
        ));
        client.run(&format!("SELECT state_invalidate('{name}?', '{name}')"));
        client.run("SELECT state_invalidate('end')");
        let told = heard(&mut listener, "end");
        assert_eq!(
            told,
            [
                json!({"class": name, "op": "update", "changes": [{"key": name, "version": 1}]}),
                json!({"class": "swarm", "op": "update", "changes": [{"key": name, "version": 1, "items": [name]}]}),
                json!({"class": name, "op": "invalidate", "pattern": format!("{name}?")}),
            ],
            "{encoding}"
        );
        // Keys of as many characters as there may be, each escaped: several messages, none too long.
        let letter = name.chars().find(|letter| !letter.is_ascii()).unwrap();
        client.run(&format!(
            "SELECT state_set(n || repeat('{letter}', 250 / octet_length('{letter}')), '1') FROM generate_series(1, \
                20) n"
        ));
        client.run("SELECT state_invalidate('end')");
        let told = heard(&mut listener, "end");
        assert!(told.len() > 1, "{encoding}");
        let keys = told
            .iter()
            .flat_map(|message| message["changes"].as_array().unwrap());
        assert_eq!(keys.count(), 20, "{encoding}");
    }
}

/// Bytes that are no text of any encoding, and characters that Unicode has not: nobody is told another name.
#[test]
fn names_that_unicode_cannot_write_become_patterns() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = database(&server, "SQL_ASCII");
    let mut listener = listener(&server, "SQL_ASCII", "UTF8");
    // What is UTF-8 is told as that.
    client.run(r"SELECT state_set(E'k\xc3\xa9', '1')");
    client.run(r"SELECT state_set(E'*?\\\xff\xfey\xe9', '1')");
    client.run(r"SELECT state_delete(E'*?\\\xff\xfey\xe9')");
    client.run(r"SELECT state_set(key, '1') FROM unnest(ARRAY['a', E'b\xff', E'b\xfe']) key");
    client.run(r"SELECT state_set(E'\xff' || n, '1') FROM generate_series(1, 9) n");
    client.run(r"SELECT state_class_define(E'\xff'); SELECT state_set('a', '1', class => E'\xff')");
    client.run(r"SELECT state_blackboard_add('board', E'\xff', '1')");
    client.run(r"SELECT state_blackboard_add('board', E'\xc3\xa9', '1')");
    client.run(r"SELECT state_invalidate(E'k\xff?', 'run')");
    client.run(r"SELECT state_invalidate('k?', E'\xff')");
    client.run("SELECT state_invalidate('end')");
    assert_eq!(
        heard(&mut listener, "end"),
        [
            json!({"class": "run", "op": "update", "changes": [{"key": "ké", "version": 1}]}),
            json!({"class": "run", "op": "invalidate", "pattern": r"\*\?\\*y*"}),
            json!({"class": "run", "op": "invalidate", "pattern": r"\*\?\\*y*"}),
            json!({"class": "run", "op": "update", "changes": [{"key": "a", "version": 1}]}),
            // Both keys match it.
            json!({"class": "run", "op": "invalidate", "pattern": "b*"}),
            // Too many of them.
            json!({"class": "run", "op": "invalidate", "pattern": "*"}),
            json!({"class": null, "op": "invalidate", "pattern": "*"}),
            json!({"class": "swarm", "op": "update", "changes": [{"key": "board", "version": 1, "items": null}]}),
            json!({"class": "swarm", "op": "update", "changes": [{"key": "board", "version": 2, "items": ["é"]}]}),
            json!({"class": "run", "op": "invalidate", "pattern": "*"}),
            json!({"class": null, "op": "invalidate", "pattern": "k?"}),
        ]
    );
}

/// The bound counts what is sent.
#[test]
fn a_pattern_that_is_too_long_when_escaped_stands_for_all() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    let mut told = |pattern: String| {
        client.run(&format!("SELECT state_invalidate('{pattern}')"));
        let heard: Message = listener.next_within(PATIENCE).expect("a message");
        heard.body["pattern"].as_str().unwrap().to_owned()
    };
    for (character, fit) in [("x", 7000), ("é", 1200), ("𝄞", 600)] {
        assert_eq!(told(character.repeat(fit)), character.repeat(fit));
        assert_eq!(told(character.repeat(fit + fit / 6)), "*", "{character}");
        assert_eq!(told(character.repeat(100_000)), "*");
    }
}
