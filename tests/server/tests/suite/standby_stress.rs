//! A primary under load, a standby and a standby of the standby: whatever a session reads equals the tables under the
//! same snapshot, and no state goes back in a session, before, during and after a promotion in the middle of it all.

use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, code, eventually};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// States of each class.
const KEYS: u64 = 24;
const CLASSES: [&str; 2] = ["load_kept", "load_current"];
/// Sessions that write, and that read on each standby: in the suite, and in the soak.
const FEW: u64 = 4;
const MANY: u64 = 8;

/// Whether a statement was stopped by what replay had to remove, by a promotion, or by another transaction, and may
/// be run again.
fn may_be_repeated(error: &postgres::Error) -> bool {
    is_gone(error) || ["40001", "40P01", "57P03"].contains(&&*code(error))
}

/// Whether the session has ended with the statement.
fn is_gone(error: &postgres::Error) -> bool {
    error.is_closed() || error.code().is_none_or(|code| code.code() == "57P01")
}

/// A new session as soon as the server takes one.
fn connect(server: &Server) -> Client {
    let mut client = None;
    eventually("a session", || {
        client = server.try_connect("postgres").ok();
        client.is_some()
    });
    client.unwrap()
}

/// The value of a query, asked again where replay has stopped it.
fn ask(server: &Server, sql: &str) -> String {
    let mut answer = None;
    eventually(sql, || {
        answer = match connect(server).simple_query(sql) {
            Ok(messages) => messages.iter().find_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            }),
            Err(error) => {
                assert!(may_be_repeated(&error), "{sql}: {error:?}");
                None
            }
        };
        answer.is_some()
    });
    answer.unwrap()
}

/// Changes states at random until `done`; the server may go away.
fn write(server: &Server, seed: u64, done: &AtomicBool) {
    let mut dice = Dice::new(seed);
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    while !done.load(SeqCst) {
        let class = CLASSES[dice.roll(2) as usize];
        let mut statements = String::from("BEGIN;");
        for _ in 0..=dice.roll(3) {
            let (key, n, len) = (dice.roll(KEYS), dice.roll(1 << 40), 400 + dice.roll(3000));
            statements += &match dice.roll(10) {
                0 => format!("SELECT state_delete('k{key}', class => '{class}');"),
                1 => format!(
                    "SELECT state_set('k{key}', '{{\"n\": {n}, \"log\": []}}', ttl => '{} ms', class => '{class}');",
                    dice.roll(400) + 1
                ),
                2..=4 => format!(
                    "SELECT state_set('k{key}', jsonb_build_object('n', {n}, 'log', '[]'::jsonb, 'text', '{}'),
                        class => '{class}');",
                    dice.digits(len as usize)
                ),
                _ => format!("SELECT state_update('k{key}', '{{\"n\": {n}}}', class => '{class}');"),
            };
        }
        statements += if dice.roll(8) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        match client.batch_execute(&statements) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return,
            Err(error) => {
                assert!(may_be_repeated(&error), "{error:?}");
                client.batch_execute("ROLLBACK").ok();
            }
        }
    }
}

/// What the readers of a server have found.
#[derive(Default)]
struct Findings {
    compared: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// All states of a class, as L1 may answer and as the tables say, under one snapshot.
const COMPARE: &str =
    "SELECT k.key, coalesce(c.version, 0), state_get(k.key, $1) IS NOT DISTINCT FROM c.state
        AND state_get_text(k.key, $1)::jsonb IS NOT DISTINCT FROM c.state
        AND state_version(k.key, $1) IS NOT DISTINCT FROM c.version,
        coalesce(left(state_get(k.key, $1)::text, 60), 'absent') || ' / '
            || coalesce(left(c.state::text, 60), 'absent')
    FROM (SELECT 'k' || n AS key FROM generate_series(0, $2 - 1) n) k
    LEFT JOIN state_current c ON c.class = $1 AND c.key = k.key";

/// Reads and compares until `done`, in transactions of one statement and of several.
fn read(server: &Server, seed: u64, done: &AtomicBool, findings: &Findings, unsafely: &str) {
    let mut dice = Dice::new(seed);
    let mut client = connect(server);
    let set = format!("SET state_cache.test_unsafe = '{unsafely}'");
    client.batch_execute(&set).ok();
    let mut last: BTreeMap<(usize, String), i64> = BTreeMap::new();
    while !done.load(SeqCst) {
        let is_repeatable = dice.roll(2) == 0;
        let rounds = if is_repeatable { 3 } else { 1 };
        let outcome = (|| {
            let isolation = match is_repeatable {
                true => "REPEATABLE READ",
                false => "READ COMMITTED",
            };
            let mut transaction = client.build_transaction();
            if is_repeatable {
                transaction = transaction.isolation_level(postgres::IsolationLevel::RepeatableRead);
            }
            let mut transaction = transaction.read_only(true).start()?;
            for _ in 0..rounds {
                let class = dice.roll(2) as usize;
                for row in transaction.query(COMPARE, &[&CLASSES[class], &(KEYS as i32)])? {
                    let (key, version, same): (String, i64, bool) =
                        (row.get(0), row.get(1), row.get(2));
                    let shown: String = row.get(3);
                    findings.compared.fetch_add(1, SeqCst);
                    let complain = |what: &str| {
                        let what = format!(
                            "{isolation} {}/{key} version {version}: {what}",
                            CLASSES[class]
                        );
                        findings.wrong.lock().unwrap().push(what);
                    };
                    if !same {
                        complain(&format!("differs: {shown}"));
                    }
                    let before = last.entry((class, key.clone())).or_default();
                    // Absent states show no version.
                    if version != 0 && version < *before {
                        complain(&format!("was at {before} before"));
                    }
                    *before = version.max(*before);
                }
                if is_repeatable {
                    std::thread::sleep(Duration::from_millis(dice.roll(4)));
                }
            }
            transaction.commit()
        })();
        match outcome {
            Ok(()) => {}
            Err(error) if client.is_closed() || is_gone(&error) => client = connect(server),
            Err(error) => {
                // The transaction may have been stopped between two statements.
                assert!(
                    may_be_repeated(&error) || code(&error) == "25P02",
                    "{error:?}"
                );
                client.batch_execute("ROLLBACK").ok();
            }
        }
    }
}

/// One round: load, a promotion in the middle, load on the new primary; so many comparisons before and after it, or
/// until one is wrong. How many there were, and what was wrong. So many sessions write, and so many read on each
/// standby; readers leave out a step, or none.
fn round(seed: u64, sessions: u64, comparisons: u64, unsafely: &str) -> (u64, Vec<String>) {
    let primary = Server::new(&[
        "state_cache.memory = 1MB",
        "max_standby_streaming_delay = 5s",
    ]);
    let mut client = primary.connect();
    client.run("SELECT state_class_define('load_kept', keep => 20), state_class_define('load_current', keep => 1)");
    for class in CLASSES {
        client.run(&format!(
            "SELECT state_set('k' || n, '{{\"n\": 0, \"log\": []}}', class => '{class}')
             FROM generate_series(0, {KEYS} - 1) n"
        ));
    }
    let standby = primary.standby();
    let cascading = standby.standby();
    let (done, old_done) = (AtomicBool::new(false), AtomicBool::new(false));
    let findings = [Findings::default(), Findings::default()];
    let compared = || {
        findings
            .iter()
            .map(|it| it.compared.load(SeqCst))
            .min()
            .unwrap()
    };
    let failed = || {
        findings
            .iter()
            .any(|it| !it.wrong.lock().unwrap().is_empty())
    };
    let until = |count: u64| {
        eventually("the readers", || compared() >= count || failed());
    };
    std::thread::scope(|threads| {
        let _end = (RaiseOnDrop(&done), RaiseOnDrop(&old_done));
        for number in 0..sessions {
            let (primary, done) = (&primary, &old_done);
            threads.spawn(move || write(primary, seed ^ number << 8, done));
        }
        for (place, server) in [&standby, &cascading].into_iter().enumerate() {
            for number in 0..sessions {
                let (done, findings) = (&done, &findings[place]);
                threads.spawn(move || {
                    read(
                        server,
                        seed ^ (number + 100) << 8 ^ place as u64,
                        done,
                        findings,
                        unsafely,
                    )
                });
            }
        }
        until(comparisons);
        if failed() {
            return;
        }
        assert_eq!(
            ask(
                &standby,
                "SELECT hits = 0 AND validated > 0 FROM state_cache_stats WHERE class IS NULL"
            ),
            "t"
        );
        ask(&standby, "SELECT pg_promote(false)");
        // A standby is promoted when it has replayed what it has, which it never has on a busy machine while more is
        // written.
        old_done.store(true, SeqCst);
        eventually("the promotion", || {
            ask(&standby, "SELECT pg_is_in_recovery()") == "f"
        });
        for number in 0..sessions {
            let (standby, done) = (&standby, &done);
            threads.spawn(move || write(standby, seed ^ (number + 50) << 8, done));
        }
        until(compared() + comparisons);
    });
    let wrong: Vec<String> = findings
        .iter()
        .flat_map(|it| it.wrong.lock().unwrap().clone())
        .take(5)
        .collect();
    if wrong.is_empty() {
        let mut client = standby.connect();
        for counter in ["hits", "validated", "fills"] {
            assert!(client.counter(counter) > 0, "{counter}, seed {seed}");
        }
    }
    let compared = findings.iter().map(|it| it.compared.load(SeqCst)).sum();
    println!("seed {seed}: {compared} reads compared, wrong: {wrong:?}");
    (compared, wrong)
}

#[test]
fn reads_on_standbys_equal_the_tables_through_a_promotion() {
    assert_eq!(round(1, FEW, 4_000, "").1, Vec::<String>::new());
}

#[test]
fn reads_on_standbys_that_are_not_compared_with_the_head_row_are_found_out() {
    assert_ne!(
        round(1, FEW, 100_000, "no_validation").1,
        Vec::<String>::new()
    );
}

#[test]
#[ignore = "soak"]
fn reads_on_standbys_equal_the_tables_through_twenty_promotions() {
    let mut all = 0;
    for seed in 1000..1020 {
        let (compared, wrong) = round(seed, MANY, 10_000, "");
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
        all += compared;
    }
    assert!(all >= 300_000, "{all}");
}
