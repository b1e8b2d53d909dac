//! Derived documents of random definitions, through random histories, against the model: the source itself.
//!
//! Each case makes tables (one of them partitioned, now and then), a view and a function, and classes whose sources
//! are put together from pieces: rows, joins, aggregates, views, casts, functions. A piece knows the watches that
//! cover it. Then sessions change the tables in turns, in transactions at both levels of isolation, with savepoints,
//! aborts, TRUNCATE, changed keys and DDL, and read documents; each answer is compared with what the source gives in
//! the same statement, thus under the same snapshot.
//!
//! One thread plays all sessions, so a seed gives the same history again; who would wait for another session's lock
//! gives up. The seed of a case that fails is in the message: `STATE_CACHE_DERIVED_SEED` begins with it.

use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, code};
use std::time::{Duration, Instant};

/// Tables of a case.
const TABLES: u64 = 3;
/// Ids of rows, and keys of documents, which are one more.
const IDS: u64 = 10;
/// Classes of a case.
const CLASSES: usize = 3;
/// Sessions of a case.
const SESSIONS: u64 = 4;
/// Steps of a case.
const STEPS: u64 = 220;

/// What may come of a statement of a history: somebody else has locked or changed what it wants.
const EXPECTED: [&str; 4] = ["55P03", "40001", "40P01", "23505"];

/// A part of a document: a scalar subquery, and the watches that cover it, each a table and an expression, or none
/// where any document may change with any row.
struct Piece {
    sql: String,
    watches: Vec<(u64, Option<&'static str>)>,
}

fn piece(dice: &mut Dice) -> Piece {
    let (t, u) = (dice.roll(TABLES), dice.roll(TABLES));
    let (sql, watches) = match dice.roll(12) {
        0 => (
            format!("SELECT to_jsonb(x) FROM m.t{t} x WHERE x.id = $1::integer"),
            vec![(t, Some("id"))],
        ),
        1 => (
            format!("SELECT jsonb_agg(x.b ORDER BY x.id) FROM m.t{t} x WHERE x.a = $1::integer"),
            vec![(t, Some("a"))],
        ),
        2 => (
            format!(
                "SELECT jsonb_build_object('n', count(*), 's', sum(x.c), 'm', max(x.b)) FROM m.t{t} x WHERE x.b = $1"
            ),
            vec![(t, Some("b"))],
        ),
        3 => (
            format!(
                "SELECT jsonb_agg(jsonb_build_array(x.b, y.c) ORDER BY y.id) FROM m.t{t} x
                 JOIN m.t{u} y ON y.a = x.id WHERE x.id = $1::integer"
            ),
            vec![(t, Some("id")), (u, Some("a"))],
        ),
        4 => (
            format!(
                "SELECT to_jsonb(y) FROM m.t{t} x JOIN m.t{u} y ON y.id = x.a WHERE x.id = $1::integer"
            ),
            vec![(t, Some("id")), (u, None)],
        ),
        5 => (
            format!(
                "SELECT jsonb_agg(jsonb_build_array(x.id, y.b) ORDER BY x.id) FROM m.t{t} x
                 LEFT JOIN m.t{u} y ON y.id = x.id WHERE x.a = $1::integer"
            ),
            vec![(t, Some("a")), (u, None)],
        ),
        6 => (
            "SELECT to_jsonb(v) FROM m.v v WHERE v.id = $1::integer".to_owned(),
            vec![(0, Some("id")), (1, Some("a"))],
        ),
        7 => (
            format!("SELECT count(*)::text::jsonb FROM m.t{t} x WHERE (x.a % 4)::text = $1"),
            vec![(t, Some("(a % 4)::text"))],
        ),
        8 => (
            format!(
                "SELECT jsonb_agg(x.id ORDER BY x.id) FROM m.t{t} x WHERE x.a = $1::integer OR x.id = $1::integer"
            ),
            vec![(t, Some("ARRAY[a::text, id::text]"))],
        ),
        9 => (
            format!("SELECT jsonb_agg(x.c ORDER BY x.id) FROM m.t{t} x WHERE lower(x.b) = $1"),
            vec![(t, Some("lower(b)"))],
        ),
        10 => (
            format!("SELECT to_jsonb(m.f(x.a)) FROM m.t{t} x WHERE x.id = $1::integer"),
            vec![(t, Some("id"))],
        ),
        _ => (
            format!("SELECT to_jsonb(sum(x.c)) FROM m.t{t} x"),
            vec![(t, None)],
        ),
    };
    Piece {
        sql: format!("({sql})"),
        watches,
    }
}

/// The source of a class, with the watches that cover it.
fn source(dice: &mut Dice) -> Piece {
    let pieces: Vec<_> = (0..=dice.roll(3)).map(|_| piece(dice)).collect();
    let members: Vec<_> = pieces
        .iter()
        .enumerate()
        .map(|(n, piece)| format!("'p{n}', {}", piece.sql))
        .collect();
    let mut watches: Vec<_> = pieces.into_iter().flat_map(|piece| piece.watches).collect();
    let mut sql = format!("SELECT jsonb_build_object({})", members.join(", "));
    // A document that is absent without a row.
    if dice.roll(3) == 0 {
        let t = dice.roll(TABLES);
        sql += &format!(" WHERE EXISTS (SELECT FROM m.t{t} r WHERE r.id = $1::integer)");
        watches.push((t, Some("id")));
    }
    watches.sort_unstable();
    watches.dedup();
    Piece { sql, watches }
}

fn tables(dice: &mut Dice) -> String {
    let mut sql = "DROP SCHEMA IF EXISTS m CASCADE; CREATE SCHEMA m;".to_owned();
    let partitioned = dice.roll(2 * TABLES);
    for t in 0..TABLES {
        let columns = "id integer PRIMARY KEY, a integer, b text, c numeric";
        sql += &match t == partitioned {
            true => format!(
                "CREATE TABLE m.t{t} ({columns}) PARTITION BY HASH (id);
                 CREATE TABLE m.t{t}_0 PARTITION OF m.t{t} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE m.t{t}_1 PARTITION OF m.t{t} FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
            ),
            false => format!("CREATE TABLE m.t{t} ({columns});"),
        };
        sql += &format!(
            "INSERT INTO m.t{t} SELECT i, i * 7 % {IDS}, (i * 3 % {IDS})::text, i FROM generate_series(0, {}) i;",
            dice.roll(IDS)
        );
    }
    sql + &view(1) + ";" + &function(1)
}

fn view(factor: u64) -> String {
    format!(
        "CREATE OR REPLACE VIEW m.v AS SELECT x.id, count(y.id) AS n, sum(y.c) * {factor} AS s
         FROM m.t0 x LEFT JOIN m.t1 y ON y.a = x.id GROUP BY x.id"
    )
}

fn function(factor: u64) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION m.f(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
         'BEGIN RETURN n * {factor}; END'"
    )
}

/// A change of the tables; seldom of what they are.
fn change(dice: &mut Dice) -> String {
    let t = dice.roll(TABLES);
    let (id, other, n) = (dice.roll(IDS), dice.roll(IDS), dice.roll(1000));
    let a = match dice.roll(8) {
        0 => "NULL".to_owned(),
        _ => dice.roll(IDS).to_string(),
    };
    match dice.roll(40) {
        0..6 => format!(
            "INSERT INTO m.t{t} VALUES ({id}, {a}, '{other}', {n}) ON CONFLICT (id) DO UPDATE SET a = {a}, c = {n}"
        ),
        6..12 => format!("UPDATE m.t{t} SET a = {a}, b = '{other}' WHERE id = {id}"),
        12..15 => format!("UPDATE m.t{t} SET c = c + {n} WHERE a = {other}"),
        15..19 => format!(
            "UPDATE m.t{t} SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT FROM m.t{t} WHERE id = {other})"
        ),
        19..22 => format!("DELETE FROM m.t{t} WHERE id = {id}"),
        22 => format!("DELETE FROM m.t{t} WHERE b = '{other}'"),
        23 => format!("UPDATE m.t{t} SET b = CASE b WHEN '{id}' THEN 'X' ELSE '{id}' END"),
        24..26 => format!(
            "MERGE INTO m.t{t} x USING (VALUES ({id}), ({other})) v (id) ON v.id = x.id
             WHEN MATCHED THEN UPDATE SET a = {a} WHEN NOT MATCHED THEN INSERT VALUES (v.id, {a}, '{id}', {n})"
        )
        .replace(
            &format!("(VALUES ({id}), ({id}))"),
            &format!("(VALUES ({id}))"),
        ),
        26..28 => format!(
            "INSERT INTO m.t{t} SELECT i, {a}, '{other}', {n} FROM generate_series(0, {id}) i ON CONFLICT DO NOTHING"
        ),
        28 => format!("TRUNCATE m.t{t}"),
        29 => format!("ALTER TABLE m.t{t} ADD COLUMN IF NOT EXISTS more integer DEFAULT {n}"),
        30 => format!("ALTER TABLE m.t{t} DROP COLUMN IF EXISTS more"),
        31 => view(n % 5),
        32 => function(n % 5),
        33 => format!("CREATE INDEX IF NOT EXISTS t{t}_a ON m.t{t} (a)"),
        // Two changes of one row, and one that changes nothing.
        34..37 => format!(
            "UPDATE m.t{t} SET a = {other} WHERE id = {id}; UPDATE m.t{t} SET a = {a} WHERE id = {id}"
        ),
        _ => format!("UPDATE m.t{t} SET a = a WHERE id = {id}"),
    }
}

/// A session, and how deep in a transaction it is: 0 for none, more for savepoints.
struct Session {
    client: Client,
    depth: u64,
}

impl Session {
    /// Does what may fail as others stand in the way, and then begins anew; whether it was done.
    fn tries(&mut self, what: impl FnOnce(&mut Client) -> Result<(), postgres::Error>) -> bool {
        let Err(error) = what(&mut self.client) else {
            return true;
        };
        let code = code(&error);
        assert!(EXPECTED.contains(&code.as_str()), "{error:?}");
        self.client.batch_execute("ROLLBACK").unwrap();
        self.depth = 0;
        false
    }

    /// One step of a history.
    fn step(&mut self, dice: &mut Dice) {
        let depth = self.depth;
        let (sql, depth) = match (dice.roll(10), depth) {
            (0..3, 0) => (
                format!(
                    "BEGIN ISOLATION LEVEL {}; SELECT 1",
                    ["READ COMMITTED", "REPEATABLE READ"][dice.roll(2) as usize]
                ),
                1,
            ),
            (0..2, _) if depth > 0 => (["COMMIT", "ROLLBACK"][dice.roll(2) as usize].to_owned(), 0),
            (2, 1..4) => (format!("SAVEPOINT s{depth}"), depth + 1),
            (3, 2..) => (format!("ROLLBACK TO s{}", depth - 1), depth),
            (4, 2..) => (format!("RELEASE s{}", depth - 1), depth - 1),
            _ => (change(dice), depth),
        };
        if self.tries(|client| client.batch_execute(&sql)) {
            self.depth = depth;
        }
    }
}

/// One case; the first answer that is not that of the source, and how many were compared.
fn case(server: &Server, seed: u64, leave_out: &str) -> Result<u64, String> {
    let mut dice = Dice::new(seed);
    let mut owner = server.connect();
    owner.run(&tables(&mut dice));
    let mut sources = Vec::new();
    for n in 0..CLASSES {
        let source = source(&mut dice);
        let quoted = source.sql.replace('\'', "''");
        owner.run(&format!(
            "SELECT state_class_define('c{n}', cache_ttl => '1 day', source => '{quoted}')"
        ));
        for (table, keys) in &source.watches {
            let keys = keys.map_or("NULL".to_owned(), |keys| format!("'{keys}'"));
            owner.run(&format!("SELECT state_watch('c{n}', 'm.t{table}', {keys})"));
        }
        owner.run(&format!(
            "SELECT state_class_define('c{n}', cache_ttl => '0')"
        ));
        sources.push(source.sql);
    }
    let exact = "SELECT class, reason FROM state_sources WHERE class ~ '^c\\d$' AND NOT exact";
    assert_eq!(owner.rows(exact), Vec::<Vec<String>>::new(), "seed {seed}");

    let mut sessions: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut client = server.connect();
            client.run(&format!(
                "SET lock_timeout = '8ms'; SET state_cache.test_unsafe = '{leave_out}'"
            ));
            Session { client, depth: 0 }
        })
        .collect();
    let mut compared = 0;
    for step in 0..STEPS {
        let session = &mut sessions[dice.roll(SESSIONS) as usize];
        if dice.roll(5) < 2 {
            session.step(&mut dice);
            continue;
        }
        let (class, key) = (dice.roll(CLASSES as u64), dice.roll(IDS + 1));
        let source = sources[class as usize].replace("$1", &format!("'{key}'::text"));
        let sql = format!("SELECT state_get_text('{key}', 'c{class}'), ({source})::text");
        let mut difference = None;
        session.tries(|client| {
            let row = client.query_one(sql.as_str(), &[])?;
            let (answer, computed): (Option<String>, Option<String>) = (row.get(0), row.get(1));
            if answer != computed {
                difference = Some(format!(
                    "seed {seed}, step {step}: c{class}/{key} is {answer:?}, and {computed:?} by {source}"
                ));
            }
            Ok(())
        });
        if let Some(difference) = difference {
            return Err(difference);
        }
        compared += 1;
    }
    Ok(compared)
}

/// Cases from a seed on, for so long; what was compared.
fn cases(first: u64, time: Duration, leave_out: &str) -> Result<(u64, u64), String> {
    let first = std::env::var("STATE_CACHE_DERIVED_SEED").map_or(first, |it| it.parse().unwrap());
    println!("the first seed is {first}");
    let server = Server::new(&["state_cache.notify = 'off'"]);
    let (begun, mut seed, mut compared) = (Instant::now(), first, 0);
    while begun.elapsed() < time {
        compared += case(&server, seed, leave_out)?;
        seed += 1;
    }
    // Both ways to an answer were taken.
    let mut client = server.connect();
    for counter in ["hits", "misses", "fills", "bypass_own"] {
        assert!(client.counter(counter) > 0, "{counter}");
    }
    Ok((seed - first, compared))
}

#[test]
fn random_definitions_answer_as_their_sources_through_random_histories() {
    let (cases, compared) = cases(1, Duration::from_secs(20), "").unwrap();
    println!("{cases} cases, {compared} answers compared");
    assert!(compared > 100, "{cases} cases, {compared} answers");
}

#[test]
#[ignore = "soak"]
fn many_random_definitions_answer_as_their_sources() {
    let now = std::time::SystemTime::now();
    let seed = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (cases, compared) = cases(seed, Duration::from_secs(600), "").unwrap();
    println!("{cases} cases, {compared} answers compared");
}

#[test]
fn the_model_notices_documents_of_an_earlier_generation() {
    let found = cases(1, Duration::from_secs(120), "no_derived_digest");
    println!("{found:?}");
    assert!(found.is_err(), "nothing wrong was found: {found:?}");
}

#[test]
fn the_model_notices_documents_that_are_newer_than_the_snapshot() {
    let found = cases(1, Duration::from_secs(120), "no_derived_moment");
    println!("{found:?}");
    assert!(found.is_err(), "nothing wrong was found: {found:?}");
}
