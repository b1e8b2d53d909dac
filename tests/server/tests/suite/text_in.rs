//! JSON as text: what `state_set_text` reads is what a cast to jsonb gives, byte for byte, and so are the errors.
//! Half of the texts are right ones in odd spellings, half are broken by some bytes.

use postgres::Client;
use state_cache_histories::{Random, mutate, spell};
use state_cache_server_tests::{Server, Sql};
use std::time::{Duration, Instant};

/// How long each encoding is tried in `make test`; the server works on all of them at once.
const SHORT: Duration = Duration::from_secs(30);

/// The same for `make soak`.
const LONG: Duration = Duration::from_secs(600);

/// Texts in one statement.
const TEXTS: usize = 500;

/// The encodings, each with a character beyond ASCII that it has; UTF-8 is tried with all characters.
const ENCODINGS: [(&str, Option<char>); 4] = [
    ("UTF8", None),
    ("LATIN1", Some('é')),
    ("EUC_JP", Some('日')),
    ("SQL_ASCII", Some('é')),
];

/// Those of the texts for which the two readers differ: in the document, or in the error with its detail and context.
const DIFFER: &str = "
CREATE FUNCTION test_json(state text, on_invalid text) RETURNS jsonb
    LANGUAGE c AS 'state_cache', 'state_cache_test_json';
-- pgrx takes the detail of a server's error for UTF-8, in every encoding.
CREATE FUNCTION shown(VARIADIC parts text[]) RETURNS text LANGUAGE sql AS $$
    SELECT split_part(regexp_replace(array_to_string(parts, '|'), '[^[:ascii:]]+', '?', 'g'), 'PL/pgSQL', 1)
$$;
CREATE FUNCTION differ(texts text[], OUT accepted bigint, OUT differing text) LANGUAGE plpgsql AS $$
DECLARE
    t text; ours jsonb; theirs jsonb; e text; f text; d text; c text;
BEGIN
    accepted := 0;
    FOREACH t IN ARRAY texts LOOP
        ours := NULL; theirs := NULL; e := NULL; f := NULL;
        BEGIN
            theirs := t::jsonb;
            accepted := accepted + 1;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, c = PG_EXCEPTION_CONTEXT;
            f := shown(SQLSTATE, SQLERRM, d, c);
        END;
        BEGIN
            ours := test_json(t, 'error');
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, c = PG_EXCEPTION_CONTEXT;
            e := shown(SQLSTATE, SQLERRM, d, c);
        END;
        IF NOT record_image_eq(ROW(ours), ROW(theirs)) OR e IS DISTINCT FROM f THEN
            differing := concat(t, E'\\n', ours, E'\\n', e, E'\\n', theirs, E'\\n', f);
            RETURN;
        END IF;
        -- With invalid escapes replaced, a text that was refused for nothing else is accepted.
        IF f LIKE '22P05%' OR f LIKE '%surrogate%' THEN
            BEGIN
                ours := test_json(t, 'replace');
            EXCEPTION WHEN OTHERS THEN
                IF SQLSTATE = '22P05' AND pg_catalog.getdatabaseencoding() = 'UTF8' OR SQLERRM LIKE '%surrogate%' THEN
                    differing := concat('replace: ', t, ' ', SQLERRM);
                    RETURN;
                END IF;
            END;
        END IF;
    END LOOP;
END $$";

/// A session in a database of its own with that encoding.
fn session(server: &Server, encoding: &str) -> Client {
    server.connect().run(&format!(
        "CREATE DATABASE \"{encoding}\" TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    ));
    let mut client = server.connect_to(encoding);
    client.run("CREATE EXTENSION state_cache");
    client.run(DIFFER);
    client
}

/// Texts that the server takes as text, right and wrong JSON in turn.
fn texts(random: &mut Random, only: Option<char>) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < TEXTS {
        let json = random.value(0);
        let right = spell(random, &json);
        let Ok(wrong) = String::from_utf8(mutate(random, &right)) else {
            continue;
        };
        let in_encoding = |text: String| match only {
            Some(only) => text
                .chars()
                .map(|it| if it.is_ascii() { it } else { only })
                .collect(),
            None => text,
        };
        texts.extend([right, wrong].map(in_encoding));
    }
    texts
}

fn compare_for(duration: Duration, seed: u64) {
    let server = Server::new(&[]);
    let counts = std::thread::scope(|scope| {
        let tries = ENCODINGS.map(|(encoding, only)| {
            let server = &server;
            scope.spawn(move || {
                let mut client = session(server, encoding);
                let mut random = Random::new(seed);
                let start = Instant::now();
                let (mut tried, mut accepted) = (0, 0);
                while start.elapsed() < duration {
                    let texts = texts(&mut random, only);
                    let row = client
                        .query_one("SELECT * FROM differ($1)", &[&texts])
                        .unwrap();
                    assert_eq!(
                        row.get::<_, Option<String>>(1),
                        None,
                        "in {encoding}, seed {seed}"
                    );
                    tried += texts.len() as i64;
                    accepted += row.get::<_, i64>(0);
                }
                (encoding, tried, accepted)
            })
        });
        tries.map(|tried| tried.join().unwrap())
    });
    for (encoding, tried, accepted) in counts {
        println!("{encoding}: {tried} texts, {accepted} accepted");
        assert!(
            accepted > tried / 5 && accepted < tried * 9 / 10,
            "{encoding}: {accepted} of {tried}"
        );
    }
}

#[test]
fn a_text_is_read_as_a_cast_to_jsonb_reads_it() {
    compare_for(SHORT, 81);
}

#[test]
#[ignore = "takes ten minutes; make soak"]
fn a_text_is_read_as_a_cast_to_jsonb_reads_it_for_long() {
    let seed = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    compare_for(LONG, seed);
}
