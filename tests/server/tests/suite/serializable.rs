//! SERIALIZABLE with a warm L1: reads that the head row validates take the predicate locks of a query, so no anomaly
//! is committed; at REPEATABLE READ the same load commits write skew.

use postgres::{Client, IsolationLevel};
use state_cache_server_tests::{Dice, Server, Sql, code};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const PAIRS: u64 = 4;
const SESSIONS: u64 = 8;
/// What the two accounts of a pair hold together, at least.
const LEAST: i64 = 0;

fn number(transaction: &mut postgres::Transaction<'_>, key: &str) -> Result<i64, postgres::Error> {
    let row = transaction.query_one(
        "SELECT (state_get($1, class => 'ward') -> 'n')::bigint",
        &[&key],
    )?;
    Ok(row.get(0))
}

fn set(
    transaction: &mut postgres::Transaction<'_>,
    key: &str,
    n: i64,
) -> Result<(), postgres::Error> {
    let sql = "SELECT state_set($1, jsonb_build_object('n', $2::bigint), class => 'ward')::text";
    transaction.execute(sql, &[&key, &n]).map(drop)
}

/// One transaction: a doctor leaves if the other one of the pair is there, or comes back; or money is taken from one
/// of two accounts if both together have it, or moved between them.
fn step(
    client: &mut Client,
    dice: &mut Dice,
    isolation: IsolationLevel,
) -> Result<(), postgres::Error> {
    let pair = dice.roll(PAIRS);
    let (own, other) = match dice.roll(2) {
        0 => ("a", "b"),
        _ => ("b", "a"),
    };
    let mut transaction = client
        .build_transaction()
        .isolation_level(isolation)
        .start()?;
    if dice.roll(2) == 0 {
        let [own, other] = [own, other].map(|side| format!("doctor {pair} {side}"));
        let (is_here, other_is_here) = (
            number(&mut transaction, &own)?,
            number(&mut transaction, &other)?,
        );
        match (is_here, other_is_here) {
            (1, 1) => set(&mut transaction, &own, 0)?,
            (0, _) => set(&mut transaction, &own, 1)?,
            _ => {}
        }
    } else {
        let [own, other] = [own, other].map(|side| format!("account {pair} {side}"));
        let (here, there) = (
            number(&mut transaction, &own)?,
            number(&mut transaction, &other)?,
        );
        let amount = dice.roll(60) as i64;
        match dice.roll(3) {
            0 if here + there - amount >= LEAST => set(&mut transaction, &own, here - amount)?,
            1 => set(&mut transaction, &own, here + amount / 2)?,
            2 => {
                set(&mut transaction, &own, here - amount)?;
                set(&mut transaction, &other, there + amount)?;
            }
            _ => {}
        }
    }
    transaction.commit()
}

/// How rows are read and written: through the access methods of the tables, or by statements.
const WAYS: [&str; 2] = ["direct", "statement"];

/// Runs the load, so many steps of each session or until something is broken; how many pairs of doctors or accounts
/// a session has seen broken, how many transactions failed, and how many reads were validated. Sessions leave out a
/// step of the protocol, or none.
fn load(way: &str, isolation: IsolationLevel, unsafely: &str, steps: u64) -> (u64, u64, u64) {
    let server = Server::new(&[&format!("state_cache.test_write_rows = '{way}'")]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('ward', keep => 1)");
    client.run(&format!(
        "SELECT state_set(kind || ' ' || pair || ' ' || side, jsonb_build_object('n', n), class => 'ward')
         FROM generate_series(0, {PAIRS} - 1) pair, unnest('{{a,b}}'::text[]) side,
            (VALUES ('doctor', 1), ('account', 50)) kinds (kind, n)"
    ));
    let (broken, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for number in 0..SESSIONS {
            let (server, broken, failed) = (&server, &broken, &failed);
            threads.spawn(move || {
                let (mut client, mut dice) = (server.connect(), Dice::new(number));
                client.run(&format!("SET state_cache.test_unsafe = '{unsafely}'"));
                for _ in 0..steps {
                    if broken.load(SeqCst) > 0 {
                        return;
                    }
                    if let Err(error) = step(&mut client, &mut dice, isolation) {
                        let code = code(&error);
                        assert!(["40001", "40P01"].contains(&&*code), "{error:?}");
                        client.batch_execute("ROLLBACK").ok();
                        failed.fetch_add(1, SeqCst);
                    }
                    // One snapshot: every pair as some serial order has left it.
                    let seen = client.number(
                        "SELECT count(*) FROM (
                             SELECT left(key, -2) AS pair, sum((state_get(key, class) -> 'n')::bigint) AS n
                             FROM state_head WHERE class = 'ward' GROUP BY 1) pairs
                         WHERE CASE WHEN pair LIKE 'doctor%' THEN n = 0 ELSE n < 0 END",
                    );
                    broken.fetch_add(seen as u64, SeqCst);
                }
            });
        }
    });
    let validated = client.number("SELECT validated FROM state_cache_stats WHERE class = 'ward'");
    (broken.into_inner(), failed.into_inner(), validated as u64)
}

#[test]
fn doctors_and_accounts_stay_right_with_a_warm_cache() {
    for way in WAYS {
        let (broken, failed, validated) = load(way, IsolationLevel::Serializable, "", 150);
        assert_eq!(broken, 0, "{way}");
        assert!(
            validated > 1000,
            "{way}: {validated} validated, {failed} failed"
        );
    }
}

/// Steps of each session within which an anomaly shows.
const MANY: u64 = 5000;

#[test]
fn the_same_load_commits_write_skew_where_reads_take_no_predicate_locks() {
    for way in WAYS {
        let unsafely = "no_predicate_locks";
        let (broken, ..) = load(way, IsolationLevel::Serializable, unsafely, MANY);
        assert!(broken > 0, "{way}");
    }
}

#[test]
fn the_same_load_commits_write_skew_at_repeatable_read() {
    for way in WAYS {
        let (broken, ..) = load(way, IsolationLevel::RepeatableRead, "", MANY);
        assert!(broken > 0, "{way}");
    }
}
