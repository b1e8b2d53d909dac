//! Sixteen sessions that add, update, claim, give back, cancel, delete, change by hand, roll back and are killed, and
//! a checker that compares summaries with rows under one snapshot all the time.

use super::{COMPARED, wrong};
use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, code, eventually, kill};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SESSIONS: u64 = 16;
const JOBS: u64 = 3;

/// What a session may be told while others work on the same jobs: conflicts, deadlocks of several calls, a job that
/// is gone or there already, tasks that are there or are not, and what has ended.
const EXPECTED: [&str; 8] = [
    "40001", "40P01", "42704", "42710", "23505", "55000", "55P03", "57P01",
];

/// What the functions answer, from L1 or as the transaction has changed it, and the tables have otherwise: all of it
/// in one statement.
const ANSWERED: &str = "SELECT j.key, s.key, s.value, n.rows
    FROM (SELECT key FROM state_head WHERE class = 'job' AND state_exists(key, 'job')) j,
    LATERAL jsonb_each(state_job_summary(j.key)) s,
    LATERAL (SELECT count(*) AS rows FROM state_task t
        WHERE t.job_id = j.key AND (s.key = 'total' OR t.status = s.key)) n
    WHERE s.key <> 'is_complete' AND s.value::text <> n.rows::text";

/// One statement of a transaction.
fn statement(dice: &mut Dice, me: u64) -> String {
    let (job, n) = (dice.roll(JOBS), dice.roll(200));
    let status = ["pending", "running", "completed", "failed", "cancelled"][dice.roll(5) as usize];
    match dice.roll(100) {
        0..15 => format!("SELECT state_job_add_tasks('job-{job}', '[\"t{n}\", \"u{me}-{n}\"]')"),
        15..45 => format!(
            "SELECT state_job_update_tasks('job-{job}', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'task_id', task_id, 'status', '{status}', 'result', {n})), '[]')
                FROM (SELECT task_id FROM state_task WHERE job_id = 'job-{job}'
                AND status IN ('pending', 'running') ORDER BY md5(task_id || {n}) LIMIT {}) t))",
            1 + dice.roll(20)
        ),
        45..60 => format!(
            "SELECT state_job_claim_tasks('agent-{}', {}, '20 milliseconds')",
            me % 3,
            1 + dice.roll(5)
        ),
        60..75 => format!(
            "SELECT state_job_update_tasks(job_id, jsonb_agg(jsonb_build_object('task_id', task_id, 'status', \
                '{status}', 'token', token))) FROM state_job_claim_tasks('agent-{me}', 5, '1 hour') GROUP BY job_id"
        ),
        75..80 => format!(
            "INSERT INTO state_task (job_id, task_id) VALUES ('job-{job}', 'h{me}-{n}')
             ON CONFLICT DO NOTHING"
        ),
        80..86 => format!(
            "UPDATE state_task SET status = '{status}'
             WHERE job_id = 'job-{job}' AND task_id = 't{n}'"
        ),
        86..90 => format!("DELETE FROM state_task WHERE job_id = 'job-{job}' AND task_id = 't{n}'"),
        90..94 => format!("SELECT state_update('job-{job}', '{{\"attributes\": {{\"by\": {me}}}}}', 'job')"),
        94..96 => format!("SELECT state_job_cancel('job-{job}')"),
        96..97 => format!("SELECT state_delete('job-{job}', class => 'job')"),
        _ => format!("SELECT state_job_create('job-{job}', '[\"t{n}\"]')"),
    }
}

/// Runs transactions until it is time to stop; how many have committed.
fn work(server: &Server, me: u64, unsafe_step: &str, stop: &AtomicBool, committed: &AtomicUsize) {
    let mut dice = Dice::new(me);
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(session) = client.as_mut().filter(|it| !it.is_closed()) else {
            client = server.try_connect("postgres").ok();
            if let Some(session) = &mut client {
                let set = format!(
                    "SET state_cache.test_unsafe = '{unsafe_step}'; SET deadlock_timeout = '50ms'"
                );
                if session.batch_execute(&set).is_err() {
                    client = None;
                }
            }
            continue;
        };
        let level = match dice.roll(8) {
            0 => " ISOLATION LEVEL REPEATABLE READ",
            1 => " ISOLATION LEVEL SERIALIZABLE",
            _ => "",
        };
        let mut statements = vec![format!("BEGIN{level}")];
        for _ in 0..1 + dice.roll(3) {
            if dice.roll(6) == 0 {
                statements.push("SAVEPOINT s".to_owned());
                statements.push(statement(&mut dice, me));
                statements.push("ROLLBACK TO s".to_owned());
            }
            statements.push(statement(&mut dice, me));
            // The transaction itself sees rows and counts agree.
            if dice.roll(4) == 0 {
                statements.push(format!(
                    "SELECT 1 / (CASE WHEN EXISTS ({ANSWERED}) THEN 0 ELSE 1 END)"
                ));
            }
        }
        statements.push(
            if dice.roll(6) == 0 {
                "ROLLBACK"
            } else {
                "COMMIT"
            }
            .to_owned(),
        );
        let result = statements
            .iter()
            .try_for_each(|sql| session.batch_execute(sql));
        match result {
            Ok(()) => {
                committed.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) if error.is_closed() || session.is_closed() => client = None,
            Err(error) => {
                let code = code(&error);
                let is_expected = EXPECTED.contains(&code.as_str()) || !unsafe_step.is_empty();
                if !is_expected {
                    stop.store(true, Ordering::SeqCst);
                }
                assert!(is_expected, "{error:?} after {statements:#?}");
                // The backend may be on its way out.
                if session.batch_execute("ROLLBACK").is_err() {
                    client = None;
                }
            }
        }
    }
}

/// Compares under one snapshot until it is time to stop; what was found.
fn check(server: &Server, stop: &AtomicBool, checks: &AtomicUsize) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut client) = server.try_connect("postgres") else {
            continue;
        };
        while !stop.load(Ordering::SeqCst) && !client.is_closed() {
            for sql in [COMPARED, ANSWERED] {
                match client.simple_query(sql) {
                    Ok(messages) => {
                        checks.fetch_add(1, Ordering::SeqCst);
                        found.extend(messages.iter().filter_map(|message| {
                            match message {
                                postgres::SimpleQueryMessage::Row(row) => Some(
                                    (0..row.len())
                                        .map(|n| row.get(n).unwrap_or("NULL").to_owned())
                                        .collect(),
                                ),
                                _ => None,
                            }
                        }));
                    }
                    Err(_) => break,
                }
            }
        }
    }
    found
}

/// All of that for a while; what the checkers have found, and what is wrong in the end.
fn stress(unsafe_step: &str, seconds: u64, crash: bool) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let server = Server::new(&["max_connections = 40", "state_cache.memory = 8MB"]);
    let mut control = server.connect();
    for job in 0..JOBS {
        control.run(&format!("SELECT state_job_create('job-{job}')"));
    }
    let (stop, committed, checks) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let found = std::thread::scope(|scope| {
        let _stop = RaiseOnDrop(&stop);
        let workers: Vec<_> = (0..SESSIONS)
            .map(|me| {
                let (server, stop, committed) = (&server, &stop, &committed);
                scope.spawn(move || work(server, me, unsafe_step, stop, committed))
            })
            .collect();
        let checkers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| check(&server, &stop, &checks)))
            .collect();
        let (start, mut dice) = (Instant::now(), Dice::new(99));
        while start.elapsed() < Duration::from_secs(seconds) && !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(700));
            if !crash {
                continue;
            }
            let victim = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> \
                pg_backend_pid() ORDER BY md5(pid::text || clock_timestamp()::text) LIMIT 1";
            let Ok(mut control) = server.try_connect("postgres") else {
                continue;
            };
            match dice.roll(6) {
                0 => {
                    // The whole server starts anew.
                    if let Ok(row) = control.query_one(victim, &[]) {
                        kill(row.get::<_, i32>(0) as u32);
                    }
                }
                _ => {
                    let _ = control.batch_execute(&format!(
                        "SELECT pg_terminate_backend(pid) FROM ({victim}) v"
                    ));
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
        for worker in workers {
            worker.join().unwrap();
        }
        checkers
            .into_iter()
            .flat_map(|checker| checker.join().unwrap())
            .collect::<Vec<_>>()
    });
    let (committed, checks) = (
        committed.load(Ordering::SeqCst),
        checks.load(Ordering::SeqCst),
    );
    println!("{committed} transactions committed, {checks} comparisons");
    assert!(
        committed > 100 && checks > 20,
        "{committed} transactions, {checks} comparisons"
    );
    let mut control = loop {
        match server.try_connect("postgres") {
            Ok(client) => break client,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    // Rows that were put in by hand while there was no such job are nobody's, and stay.
    control.run(
        "DELETE FROM state_task t WHERE task_id LIKE 'h%' AND NOT EXISTS
             (SELECT FROM state_head WHERE class = 'job' AND key = t.job_id AND NOT deleted)",
    );
    // Tasks of a deleted job that somebody had locked are there until the worker takes them out.
    eventually("the tasks of jobs that are gone", || {
        control.number("SELECT count(*) FROM state_job_verify() WHERE kept IS NULL") == 0
    });
    let left = wrong(&mut control);
    (found, left)
}

#[test]
fn summaries_are_exact_in_every_snapshot_while_sixteen_sessions_work() {
    let (found, left) = stress("", 12, false);
    assert_eq!((found, left), (Vec::new(), Vec::new()));
}

#[test]
fn summaries_are_exact_while_sessions_and_the_server_are_killed() {
    let (found, left) = stress("", 15, true);
    assert_eq!((found, left), (Vec::new(), Vec::new()));
}

#[test]
fn the_checker_notices_counts_that_are_no_increments() {
    let (found, left) = stress("no_job_increments", 6, false);
    // What is wrong may be gone with its job before the end.
    assert!(!found.is_empty() || !left.is_empty());
}
