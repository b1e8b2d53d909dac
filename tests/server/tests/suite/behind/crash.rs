//! Crashes of the whole server at random moments, under load: what was acknowledged in a `through` class is
//! there; of a `behind` class at most what was acknowledged within the interval and one flush before is gone,
//! nothing is half there, and nothing that L3 held is taken back.

use super::{LONG, await_accepting, server};
use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, inconsistencies};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);
/// What a flush may take on a machine that does much else. The runs print what was lost in fact.
const ONE_FLUSH: Duration = Duration::from_millis(1500);
/// Sessions that write.
const WRITERS: usize = 6;
/// Rounds of the suite, and of the soak test; `STATE_CACHE_CRASH_ROUNDS` says otherwise.
const ROUNDS: (usize, usize) = (5, 50);

/// What became of one writer's changes, all numbered alike.
#[derive(Default)]
struct Ledger {
    /// Number of the last change that was tried.
    tried: i64,
    /// The last that was acknowledged in the `through` class.
    through: i64,
    /// Those acknowledged in the `behind` class in this round, and when.
    behind: Vec<(Instant, i64)>,
    /// The newest version of the `behind` state acknowledged or seen.
    newest: i64,
}

/// A document that says whether it is whole.
const DOCUMENT: &str =
    "SELECT jsonb_build_object('n', $1::bigint, 'padding', repeat($1::bigint::text || ' ', \
    $2::int),
    'check', md5(repeat($1::bigint::text || ' ', $2::int)))";

/// Complaints about documents that are not whole, in all that L3 holds and all that readers get.
const TORN: &str = "SELECT class, key, version FROM state_current WHERE state ? 'check'
        AND (md5(state ->> 'padding') <> state ->> 'check' OR split_part(state ->> 'padding', ' ', 1) <> state ->> \
        'n')
    UNION ALL
    SELECT class, key, version FROM state_head h, state_get(h.key, h.class) seen WHERE NOT deleted AND seen ? 'check'
        AND (md5(seen ->> 'padding') <> seen ->> 'check' OR split_part(seen ->> 'padding', ' ', 1) <> seen ->> 'n')";

/// Writes until the connection is lost.
fn write(server: &Server, writer: usize, round: usize, ledger: &Mutex<Ledger>) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let mut dice = Dice::new((round * WRITERS + writer) as u64);
    loop {
        let number = {
            let mut ledger = ledger.lock().unwrap();
            ledger.tried += 1;
            ledger.tried
        };
        // Small ones, and ones that TOAST stores apart.
        let length = if dice.roll(4) == 0 {
            dice.roll(4000)
        } else {
            dice.roll(50)
        };
        let through = format!("SELECT state_set('writer {writer}', ({DOCUMENT}), class => 'kept')");
        let behind = format!("SELECT state_set('writer {writer}', ({DOCUMENT}), class => 'left'),
            state_append('log {round}', '{{}}', to_jsonb('{writer}/' || $1::bigint), class => 'left')");
        let length = length as i32 + 1;
        if dice.roll(5) == 0 {
            if client.query(&through, &[&number, &length]).is_err() {
                return;
            }
            ledger.lock().unwrap().through = number;
            continue;
        }
        if client.query(&behind, &[&number, &length]).is_err() {
            return;
        }
        ledger.lock().unwrap().behind.push((Instant::now(), number));
        let version = format!("SELECT state_version('writer {writer}', class => 'left')");
        let Ok(row) = client.query_one(&version, &[]) else {
            return;
        };
        let version: i64 = row.get(0);
        let mut ledger = ledger.lock().unwrap();
        assert!(
            version > ledger.newest,
            "writer {writer}: version {version} after {}",
            ledger.newest
        );
        ledger.newest = version;
    }
}

/// Notes which versions L3 is seen to hold, until the connection is lost.
fn watch(server: &Server, stored: &Mutex<[i64; WRITERS]>, over: &AtomicBool) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let sql = "SELECT version FROM state_head WHERE class = 'left' AND key = $1";
    while !over.load(Ordering::SeqCst) {
        for writer in 0..WRITERS {
            let Ok(row) = client.query_opt(sql, &[&format!("writer {writer}")]) else {
                return;
            };
            let version = row.map_or(0, |row| row.get(0));
            let mut stored = stored.lock().unwrap();
            assert!(
                version >= stored[writer],
                "writer {writer}: L3 went from {} to {version}",
                stored[writer]
            );
            stored[writer] = version;
        }
    }
}

/// The number in a state's document, 0 without one.
fn number(client: &mut Client, class: &str, writer: usize) -> i64 {
    client.number(&format!(
        "SELECT coalesce(state_get_path('writer {writer}', '{{n}}', class => '{class}')::bigint, 0)"
    ))
}

/// Looks at what is there after a crash that began at `crashed`; the age of the newest change that is lost.
fn look(
    client: &mut Client,
    round: usize,
    ledgers: &[Mutex<Ledger>],
    stored: &[i64; WRITERS],
    crashed: Instant,
) -> Duration {
    let mut worst = Duration::ZERO;
    for (writer, ledger) in ledgers.iter().enumerate() {
        let mut ledger = ledger.lock().unwrap();
        let through = number(client, "kept", writer);
        assert!(
            (ledger.through..=ledger.tried).contains(&through),
            "writer {writer}: {through} is there, {} was acknowledged",
            ledger.through
        );
        ledger.through = through;
        let behind = number(client, "left", writer);
        assert!(behind <= ledger.tried, "writer {writer}: {behind}");
        let lost = ledger.behind.iter().find(|(_, number)| *number > behind);
        if let Some((acknowledged, number)) = lost {
            let age = crashed.saturating_duration_since(*acknowledged);
            worst = worst.max(age);
            assert!(
                age <= INTERVAL + ONE_FLUSH,
                "writer {writer}: {number} is lost, acknowledged {age:?} before the crash"
            );
        }
        let key = format!("writer {writer}");
        let version = client.number(&format!(
            "SELECT coalesce(state_version('{key}', class => 'left'), 0)"
        ));
        assert!(
            version >= stored[writer],
            "{key}: version {version}, L3 had {}",
            stored[writer]
        );
        ledger.newest = version;
        // The log is as it was at some moment: each writer's entries in order, from the first one on.
        let logged = client.rows(&format!(
            "SELECT split_part(e, '/', 2) FROM jsonb_array_elements_text(state_get('log {round}', class => 'left'))
                WITH ORDINALITY a(e, n) WHERE e LIKE '{writer}/%' ORDER BY n"
        ));
        let logged: Vec<i64> = logged.iter().map(|row| row[0].parse().unwrap()).collect();
        let made: Vec<i64> = ledger.behind.iter().map(|(_, number)| *number).collect();
        let known = logged.len().min(made.len());
        assert_eq!(logged[..known], made[..known], "writer {writer} in the log");
        assert!(
            logged.len() <= made.len() + 1,
            "writer {writer}: more in the log than was made"
        );
        if let Some((acknowledged, _)) = ledger.behind.get(known) {
            let age = crashed.saturating_duration_since(*acknowledged);
            worst = worst.max(age);
            assert!(
                age <= INTERVAL + ONE_FLUSH,
                "the log lost what was {age:?} old"
            );
        }
        ledger.behind.clear();
    }
    worst
}

fn crash_loop(rounds: usize) {
    let rounds =
        std::env::var("STATE_CACHE_CRASH_ROUNDS").map_or(rounds, |text| text.parse().unwrap());
    let server = server(&["fsync = on", "state_cache.flush_interval = '200ms'"]);
    server
        .connect()
        .run("SELECT state_class_define('kept', write_mode => 'through')");
    let ledgers: Vec<Mutex<Ledger>> = (0..WRITERS).map(|_| Mutex::default()).collect();
    let stored = Mutex::new([0; WRITERS]);
    let mut dice = Dice::new(1);
    let (mut worst, mut left) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let mut client = server.connect();
        await_accepting(&mut client);
        client.run(&format!(
            "SELECT state_set('log {round}', '[]', class => 'left')"
        ));
        client.run("SELECT state_flush()");
        drop(client);
        let over = AtomicBool::new(false);
        let crashed = std::thread::scope(|threads| {
            let _over = RaiseOnDrop(&over);
            let server = &server;
            for (writer, ledger) in ledgers.iter().enumerate() {
                threads.spawn(move || write(server, writer, round, ledger));
            }
            threads.spawn(|| watch(server, &stored, &over));
            std::thread::sleep(Duration::from_millis(300 + dice.roll(1200)));
            let crashed = Instant::now();
            server.kill_everything();
            crashed
        });
        let made: usize = ledgers
            .iter()
            .map(|ledger| ledger.lock().unwrap().behind.len())
            .sum();
        assert!(made > 0, "nothing was written in round {round}");
        left += made;
        server.start();
        let mut client = server.connect();
        let seen = *stored.lock().unwrap();
        worst = worst.max(look(&mut client, round, &ledgers, &seen, crashed));
        assert_eq!(client.rows(TORN), Vec::<Vec<String>>::new());
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
        client.run(&format!(
            "SELECT state_delete('log {round}', class => 'left')"
        ));
    }
    println!(
        "{rounds} crashes, {left} changes left behind, the oldest that was lost was {worst:?} old"
    );
}

#[test]
fn crashes_lose_no_more_than_the_interval_and_one_flush() {
    crash_loop(ROUNDS.0);
}

#[test]
#[ignore = "soak"]
fn fifty_crashes_lose_no_more_than_the_interval_and_one_flush() {
    crash_loop(ROUNDS.1);
}

/// What of a state is written at once, and what the same transaction makes of it then, the worker's to write.
#[test]
fn a_crash_keeps_no_part_of_what_a_transaction_does_to_a_state() {
    let server = server(&["fsync = on", LONG]);
    for at_once in [
        "SELECT state_delete('k', class => 'left'); SELECT state_batch_commit()",
        "SELECT state_save('k', '\"half\"', recovery_point => true, class => 'left')",
        "SELECT state_save('k', '\"half\"', recovery_point => true, class => 'left');
            SELECT state_delete('k', class => 'left'); SELECT state_batch_commit()",
    ] {
        let mut client = server.connect();
        await_accepting(&mut client);
        client.run("SELECT state_set('k', '\"before\"', class => 'left'); SELECT state_flush()");
        client.run(&format!(
            "BEGIN; {at_once}; SELECT state_set('k', '\"after\"', class => 'left'); COMMIT"
        ));
        server.kill_everything();
        server.start();
        let found = server
            .connect()
            .text("SELECT state_get('k', class => 'left')");
        assert!(
            ["\"before\"", "\"after\""].contains(&&*found),
            "{at_once}: {found} was never committed"
        );
    }
}
