//! Whatever may happen to the sessions besides each other.

use super::record::{Act, Change, Level, Promise, State};
use super::session::{Board, Failure, Session};
use state_cache_server_tests::{Dice, Sql};
use std::time::Duration;

/// What changes no state.
const HARMLESS: [&str; 19] = [
    "SELECT state_cache_clear()",
    "SELECT state_cache_clear('kept')",
    "SELECT state_cache_clear('left')",
    "SELECT state_invalidate('list*')",
    "SELECT state_invalidate('register*', 'purged')",
    "SELECT state_invalidate('*', 'switched')",
    "SELECT state_class_define('switched', write_mode => 'through')",
    "SELECT state_class_define('switched', write_mode => 'behind')",
    "SELECT state_class_define('switched', write_mode => 'through')",
    "SELECT state_class_define('switched', write_mode => 'behind')",
    "SELECT state_class_define('kept', max_entries => 3)",
    "SELECT state_class_define('kept', max_entries => 0, cache_ttl => '5 ms')",
    "SELECT state_class_define('kept', cache_ttl => '0')",
    "SELECT state_class_define('purged', keep => 2)",
    "SELECT state_class_define('purged', keep => 9, compression => false)",
    "SELECT state_class_define('purged', compression => true)",
    "SELECT state_flush()",
    "ALTER SYSTEM SET state_cache.notify_interval = '0'",
    "ALTER SYSTEM RESET state_cache.notify_interval",
];

/// Points of the protocol by their numbers, those often that matter most.
const HELD: [u64; 10] = [1, 2, 3, 3, 3, 3, 4, 4, 5, 6];

/// Disturbs the sessions until the life is over.
pub fn disturb(board: &Board<'_>, seed: u64) {
    let mut session = Session::new(board, "nemesis".into(), seed);
    while !board.over() {
        if !session.connect("SET lock_timeout = '3s'") {
            return;
        }
        match session.dice.roll(30) {
            0..20 => {
                let which = session.dice.roll(HARMLESS.len() as u64) as usize;
                let _ = session.ask(HARMLESS[which]);
                let _ = session.ask("SELECT pg_reload_conf()");
            }
            20..23 => terminate(&mut session),
            23 => {
                let worker = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE backend_type = 'state_cache worker'";
                let _ = session.ask(worker);
            }
            24..29 => remove(&mut session, false),
            _ => remove(&mut session, true),
        }
        std::thread::sleep(Duration::from_millis(10 + session.dice.roll(80)));
    }
}

/// Ends one of the sessions, in whatever it does.
fn terminate(session: &mut Session<'_>) {
    let among = session.board.processes.lock().unwrap().clone();
    if among.is_empty() {
        return;
    }
    let process = among[session.dice.roll(among.len() as u64) as usize];
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {process} AND pid <> pg_backend_pid()"
    );
    let _ = session.ask(&sql);
}

/// Deletes the rows of class `purged`, or empties the tables. Versions are not to begin anew after that: floors
/// keep them up.
fn remove(session: &mut Session<'_>, truncate: bool) {
    session.open(", by hand", Level::Committed);
    let answer = session.ask("BEGIN").1.and_then(|_| {
        if truncate {
            wipe(session)
        } else {
            purge(session)
        }
    });
    session.finish(&answer, true);
}

fn purge(session: &mut Session<'_>) -> Result<(), Failure> {
    let places = session.board.places;
    let states: Vec<State> = (0..places.len())
        .filter(|state| places[*state].class == "purged")
        .collect();
    let calls: Vec<String> = states
        .iter()
        .map(|state| format!("history_remove('purged', '{}')", places[*state].key))
        .collect();
    let (span, rows) = session.ask(&format!("SELECT {}", calls.join(", ")));
    for (state, version) in states.into_iter().zip(&rows?[0]) {
        if let Some(version) = version {
            let change = Change::Remove(Some(version.parse().unwrap()));
            session.note(span, Act::Change(state, change));
        }
    }
    Ok(())
}

fn wipe(session: &mut Session<'_>) -> Result<(), Failure> {
    session.now.wipes = true;
    session
        .ask("LOCK TABLE state_head, state_snapshot IN ACCESS EXCLUSIVE MODE")
        .1?;
    let (_, rows) = session.ask("SELECT class, key, version FROM state_head WHERE NOT deleted");
    let rows = rows?;
    session
        .ask(
            "INSERT INTO state_floor AS f (class, bucket, version)
                 SELECT class, bucket, known.version + 1000
                 FROM state_class CROSS JOIN generate_series(0, 4095) bucket CROSS JOIN
                     (SELECT max(version) FROM (SELECT version FROM state_head
                         UNION ALL SELECT version FROM state_floor) any_class) known (version)
                 ON CONFLICT (class, bucket) DO UPDATE SET version = excluded.version",
        )
        .1?;
    let (span, answer) = session.ask("TRUNCATE state_head, state_snapshot");
    for (state, place) in session.board.places.iter().enumerate() {
        let row = rows.iter().find(|row| {
            row[0].as_deref() == Some(place.class) && row[1].as_deref() == Some(&place.key)
        });
        let version = row
            .and_then(|row| row[2].as_ref())
            .map(|text| text.parse().unwrap());
        // A state of another class may be there without a row.
        match (place.promise, version) {
            (Promise::Through, None) => {}
            (Promise::Through, version) => {
                session.note(span, Act::Change(state, Change::Remove(version)));
            }
            _ => session.note(span, Act::Change(state, Change::Remove(None))),
        }
    }
    answer.map(drop)
}

/// Holds up those that stop at a point of the protocol, one point at a time and a moment only.
pub fn hold_up(board: &Board<'_>, seed: u64) {
    let mut dice = Dice::new(seed);
    let Ok(mut client) = board.arena.server.try_connect("postgres") else {
        return;
    };
    client.run("SET lock_timeout = '1s'");
    while !board.over() {
        let point = HELD[dice.roll(HELD.len() as u64) as usize];
        let held = client.batch_execute(&format!("SELECT pg_advisory_lock(5202, {point})"));
        std::thread::sleep(Duration::from_millis(5 + dice.roll(20)));
        if held.is_ok() {
            let _ = client.batch_execute(&format!("SELECT pg_advisory_unlock(5202, {point})"));
        }
        std::thread::sleep(Duration::from_millis(1 + dice.roll(5)));
    }
}
