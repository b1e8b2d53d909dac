//! A model of credits: sessions spend, allot, end runs, go back, set aside what others write and take back, some of it
//! while the server is killed. At every moment each run has used what was charged to it and those below it, no more
//! and no less, and no more than its limit.

use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, code, eventually, inconsistencies};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Sessions that do something; one that looks comes on top.
const SESSIONS: u64 = 8;
/// Lives of the server, and things that are done in each; every other one ends with `kill -9`.
const LIVES: u64 = 4;
const THINGS: usize = 700;
/// Runs of a life at most.
const MAX_RUNS: usize = 30;
/// What a call may be refused with: ended, children running, no more left, changed meanwhile, other order of locks.
const REFUSALS: [&str; 5] = ["55000", "55006", "54000", "40001", "40P01"];

/// What was charged to a run itself: what is known to have been, and what may have been.
#[derive(Clone, Copy, Default)]
struct Charged {
    surely: i64,
    at_most: i64,
}

#[derive(Default)]
struct Board {
    charged: Mutex<BTreeMap<String, Charged>>,
    answers: Mutex<BTreeMap<String, u64>>,
    done: AtomicUsize,
    looks: AtomicUsize,
}

impl Board {
    fn change(&self, run: &str, surely: i64, at_most: i64) {
        let mut charged = self.charged.lock().unwrap();
        let charged = charged.entry(run.to_owned()).or_default();
        charged.surely += surely;
        charged.at_most += at_most;
    }

    fn snapshot(&self) -> BTreeMap<String, Charged> {
        self.charged.lock().unwrap().clone()
    }

    fn some_run(&self, dice: &mut Dice) -> String {
        let charged = self.charged.lock().unwrap();
        let n = dice.roll(charged.len() as u64) as usize;
        charged.keys().nth(n).unwrap().clone()
    }
}

/// One thing, in SQL: what it is, what it charges to the run, whether that stays.
fn something(dice: &mut Dice, run: &str, child: &str) -> (&'static str, String, i64) {
    let amount = 1 + dice.roll(3) as i64;
    let spend = format!("SELECT state_context_spend('{run}', 'credits', {amount})");
    let set = format!(
        "SELECT state_context_set('{run}', 'v', '{}')",
        dice.roll(1000)
    );
    let level = ["READ COMMITTED", "REPEATABLE READ"][dice.roll(2) as usize];
    let begin = format!("BEGIN ISOLATION LEVEL {level}");
    match dice.roll(100) {
        0..25 => ("spend", spend, amount),
        25..33 => (
            "allot",
            format!(
                "SELECT state_context_child('{run}', '{child}', resource_limits => '{{\"maxCredits\": 6}}')"
            ),
            0,
        ),
        33..41 => (
            "share",
            format!("SELECT state_context_child('{run}', '{child}')"),
            0,
        ),
        41..46 => (
            "end",
            format!("SELECT state_context_complete('{run}', 'failed')"),
            0,
        ),
        46..56 => (
            "restore",
            format!(
                "SELECT state_restore('{run}', (SELECT version FROM state_history('{run}') ORDER BY random() LIMIT 1))"
            ),
            0,
        ),
        56..64 => {
            let kind = ["rollback", "resume", "restart"][dice.roll(3) as usize];
            (
                "recover",
                format!("SELECT state_recover('{run}', '{kind}')"),
                0,
            )
        }
        64..72 => (
            "overwrite",
            format!(
                "BEGIN; SELECT state_batch_begin('overwrite'); {set}; SELECT pg_sleep(0.003); COMMIT"
            ),
            0,
        ),
        72..80 => (
            "overwrite and spend",
            format!(
                "BEGIN; SELECT state_batch_begin('overwrite'); {set}; SELECT pg_sleep(0.003); {spend}; COMMIT"
            ),
            amount,
        ),
        80..88 => (
            "spend and drop",
            format!(
                "BEGIN; SELECT state_batch_begin('reapply'); {set}; {spend}; SELECT state_batch_rollback(); COMMIT"
            ),
            amount,
        ),
        88..94 => ("take back", format!("{begin}; {spend}; {set}; ROLLBACK"), 0),
        _ => (
            "savepoint",
            format!("{begin}; {spend}; SAVEPOINT s; {spend}; ROLLBACK TO s; COMMIT"),
            amount,
        ),
    }
}

/// Does things until there were enough, or the server is gone.
fn work(server: &Server, board: &Board, life: u64, number: u64, over: &AtomicBool) {
    let mut dice = Dice::new(life * SESSIONS + number);
    let mut client = server.connect();
    let mut made = 0;
    while !over.load(Ordering::SeqCst) {
        let run = board.some_run(&mut dice);
        let child = format!("{life}/{number}/{made}");
        let (what, sql, amount) = something(&mut dice, &run, &child);
        let makes = what == "allot" || what == "share";
        if makes && board.charged.lock().unwrap().len() >= MAX_RUNS {
            continue;
        }
        board.change(&run, 0, amount);
        let answer = match client.batch_execute(&sql) {
            Ok(()) => {
                board.change(&run, amount, 0);
                if makes {
                    made += 1;
                    board.change(&child, 0, 0);
                }
                "done".to_owned()
            }
            Err(error) => {
                let code = code(&error);
                if code == "connection lost" || code.starts_with("57P") {
                    return;
                }
                assert!(REFUSALS.contains(&code.as_str()), "{sql}: {error:?}");
                board.change(&run, 0, -amount);
                if client.batch_execute("ROLLBACK").is_err() {
                    return;
                }
                code
            }
        };
        *board
            .answers
            .lock()
            .unwrap()
            .entry(format!("{what} {answer}"))
            .or_default() += 1;
        board.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Of each run of a life: what was charged to itself, whether that and what is reserved is within its limit, what it has
/// reserved, and what running children were allotted, its own and those of runs that share with it. One statement, so
/// that all of it is of one moment.
const BOOKS: &str = "WITH RECURSIVE run AS (
        SELECT c.run_id, c.parent_run_id, d.doc, coalesce((d.doc #>> '{usage,credits}')::bigint, 0) AS used,
            coalesce(d.doc -> 'sharedLimits' ? 'credits', false) AS shares, d.doc ->> 'status' = 'running' AS runs
        FROM state_context c, LATERAL (SELECT state_get(c.run_id)) d (doc) WHERE c.run_id LIKE $1
    ), allotted AS (
        SELECT parent_run_id AS holder, run_id, doc #> '{resourceLimits,maxCredits}' AS credits FROM run
            WHERE runs AND NOT shares AND parent_run_id IS NOT NULL
        UNION ALL SELECT h.parent_run_id, a.run_id, a.credits FROM allotted a JOIN run h ON h.run_id = a.holder WHERE h.shares
    )
    SELECT r.run_id AS run, (r.used - coalesce((SELECT sum(b.used) FROM run b
            WHERE b.parent_run_id = r.run_id AND (b.shares OR NOT b.runs)), 0))::bigint AS charged,
        coalesce((r.doc #>> '{resourceLimits,maxCredits}')::bigint >= r.used + coalesce((SELECT sum((v.value ->> 'credits')::bigint)
            FROM jsonb_each(r.doc -> 'reservations') v), 0), false) AS within,
        coalesce(r.doc -> 'reservations', '{}')::text AS reserved,
        coalesce((SELECT jsonb_object_agg(a.run_id, jsonb_build_object('credits', a.credits)) FROM allotted a
            WHERE a.holder = r.run_id), '{}')::text AS allotted
    FROM run r";

/// Compares the books with what was charged; false when the server is gone.
fn look(client: &mut Client, board: &Board, life: u64) -> bool {
    let before = board.snapshot();
    let Ok(rows) = client.query(BOOKS, &[&format!("{life}%")]) else {
        return false;
    };
    let after = board.snapshot();
    for row in rows {
        let (run, charged): (String, i64) = (row.get(0), row.get(1));
        let surely = before.get(&run).map_or(0, |charged| charged.surely);
        // A run may be there before the board knows it; nothing is charged to it by then.
        let at_most = after.get(&run).map_or(0, |charged| charged.at_most);
        assert!(
            (surely..=at_most).contains(&charged),
            "run {run}: {charged} charged, {surely} to {at_most} expected"
        );
        assert!(
            row.get::<_, bool>(2),
            "run {run} has used and reserved more than its limit"
        );
        let (reserved, allotted): (String, String) = (row.get(3), row.get(4));
        assert_eq!(
            reserved, allotted,
            "run {run}: reserved, and allotted to running children"
        );
    }
    board.looks.fetch_add(1, Ordering::SeqCst);
    true
}

#[test]
fn credits_are_conserved_whatever_is_done_to_runs() {
    let server = Server::new(&["deadlock_timeout = '20ms'", "fsync = on"]);
    let board = Board::default();
    for life in 0..LIVES {
        board.charged.lock().unwrap().clear();
        board.done.store(0, Ordering::SeqCst);
        let mut client = server.connect();
        for root in 0..2 {
            let name = format!("{life} root {root}");
            client.run(&format!("SELECT state_context_create('{name}', resource_limits => '{{\"maxCredits\": 150}}')"));
            board.change(&name, 0, 0);
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let _over = RaiseOnDrop(&over);
            let (server, board, over) = (&server, &board, &over);
            for number in 0..SESSIONS {
                threads.spawn(move || work(server, board, life, number, over));
            }
            let mut watcher = server.connect();
            threads.spawn(
                move || while !over.load(Ordering::SeqCst) && look(&mut watcher, board, life) {},
            );
            eventually("enough to be done", || {
                board.done.load(Ordering::SeqCst) >= THINGS
            });
            if life % 2 == 1 {
                server.kill_everything();
            }
        });
        if life % 2 == 1 {
            server.start();
        }
        let mut client = server.connect();
        assert!(look(&mut client, &board, life));
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
    let looks = board.looks.load(Ordering::SeqCst);
    let answers = board.answers.into_inner().unwrap();
    println!("{looks} looks: {answers:?}");
    // It was what it claims to be.
    assert!(looks > 10 * LIVES as usize, "{looks}");
    for answer in [
        "spend done",
        "spend 54000",
        "spend 55000",
        "allot done",
        "share done",
        "end done",
        "restore done",
        "recover done",
        "overwrite done",
        "overwrite and spend done",
        "spend and drop done",
        "take back done",
        "savepoint done",
    ] {
        assert!(answers.contains_key(answer), "{answer}: {answers:?}");
    }
}
