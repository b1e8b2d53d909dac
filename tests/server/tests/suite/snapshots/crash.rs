//! Crashes of the whole server while versions are saved, pruned and repaired: every acknowledged version that is
//! kept is there and right, of a chain all is there or nothing, and `state_verify` finds nothing that was not there
//! before.

use super::{DOCUMENT, findings, quoted};
use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, inconsistencies};
use std::sync::Mutex;
use std::time::Duration;

/// Rounds of the suite, and of the soak test; `STATE_CACHE_CRASH_ROUNDS` says otherwise.
const ROUNDS: (usize, usize) = (4, 60);
/// States that are saved and pruned, each by a writer of its own.
const WRITERS: usize = 4;
/// The fewest versions that a pruning leaves.
const KEEP: i64 = 5;
/// Every so many versions one is a recovery point.
const POINTS: i64 = 40;
/// States that are damaged and repaired.
const PATIENTS: i64 = 8;

/// What a writer knows of its state: its versions are numbered from 1, without gaps.
#[derive(Default)]
struct Ledger {
    acknowledged: i64,
    tried: i64,
}

fn key(writer: usize) -> String {
    format!("writer {writer}")
}

/// Saves until the connection is lost; several versions in a transaction at times.
fn write(server: &Server, writer: usize, seed: u64, ledger: &Mutex<Ledger>) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let mut dice = Dice::new(seed);
    let key = quoted(&key(writer));
    loop {
        let first = ledger.lock().unwrap().acknowledged + 1;
        let last = first + dice.roll(3) as i64;
        ledger.lock().unwrap().tried = last;
        let mut statements = String::from("BEGIN;");
        for n in first..=last {
            let point = n % POINTS == 0;
            statements += &format!(
                "SELECT state_save({key}, document({key}, {n}), 'manual', recovery_point => {point},
                    expected_version => {}, class => 'kept');",
                n - 1
            );
        }
        if client.batch_execute(&(statements + "COMMIT")).is_err() {
            return;
        }
        ledger.lock().unwrap().acknowledged = last;
    }
}

/// Prunes until the connection is lost: few versions go at a time, or many, so that deltas are stored anew.
fn prune(server: &Server, seed: u64, pruned: &Mutex<i64>) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let mut dice = Dice::new(seed);
    loop {
        let sql = format!(
            "SELECT state_prune('kept', keep => {})",
            KEEP + dice.roll(30) as i64
        );
        let Ok(row) = client.query_one(&sql, &[]) else {
            return;
        };
        *pruned.lock().unwrap() += row.get::<_, i64>(0);
    }
}

/// Damages some snapshots, as a disk would, behind the back of everybody.
const DAMAGE: &str = "UPDATE state_snapshot SET hash = decode(md5(random()::text), 'hex')
    WHERE class = 'sick' AND version > 1 AND random() < 0.2";

/// Damages and repairs until the connection is lost.
fn repair(server: &Server, seed: u64, repaired: &Mutex<i64>) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let mut dice = Dice::new(seed);
    loop {
        let mut statements = vec![DAMAGE.to_owned()];
        statements.push("SELECT state_verify('sick', repair => true)".to_owned());
        for _ in 0..20 {
            let patient = quoted(&format!("patient {}", dice.roll(PATIENTS as u64)));
            statements.push(format!(
                "SELECT state_save({patient}, document({patient}, {}), 'manual', recovery_point => {}, class => \
                    'sick')",
                dice.roll(1000),
                dice.roll(10) == 0
            ));
        }
        for statement in statements {
            if client.batch_execute(&statement).is_err() {
                return;
            }
        }
        *repaired.lock().unwrap() += 1;
    }
}

/// What was acknowledged is there, and right; what was pruned is gone without holes.
fn look_at_kept(client: &mut Client, ledgers: &[Mutex<Ledger>]) {
    assert_eq!(findings(client, "kept"), Vec::<Vec<String>>::new());
    for (writer, ledger) in ledgers.iter().enumerate() {
        let mut ledger = ledger.lock().unwrap();
        let key = quoted(&key(writer));
        let current = client.number(&format!("SELECT coalesce(state_version({key}, 'kept'), 0)"));
        assert!(
            current == ledger.acknowledged || current == ledger.tried,
            "{key}: {current} is current, {} was acknowledged, {} tried",
            ledger.acknowledged,
            ledger.tried
        );
        ledger.acknowledged = current;
        let wrong = client.rows(&format!(
            "SELECT version FROM state_history({key}, 'kept') h
                WHERE state_at({key}, h.version, 'kept') IS DISTINCT FROM document({key}, h.version)
                    OR state_hash(document({key}, h.version)) <> (SELECT hash FROM state_snapshot s
                        WHERE (s.class, s.key, s.version) = ('kept', {key}, h.version))"
        ));
        assert_eq!(wrong, Vec::<Vec<String>>::new(), "{key}");
        let kept = client.rows(&format!(
            "SELECT version FROM state_history({key}, 'kept') ORDER BY 1"
        ));
        let kept: Vec<i64> = kept.iter().map(|row| row[0].parse().unwrap()).collect();
        let oldest = kept
            .iter()
            .copied()
            .find(|number| number % POINTS != 0)
            .unwrap_or(0);
        let wanted: Vec<i64> = (1..=current)
            .filter(|number| *number >= oldest || number % POINTS == 0)
            .collect();
        assert_eq!(kept, wanted, "{key}");
        assert!(oldest <= (current - KEEP + 1).max(1), "{key}: {kept:?}");
    }
}

/// A repair that was under way has not happened; the next one leaves nothing to be found. Each state is a document
/// that somebody has saved.
fn look_at_repaired(client: &mut Client) {
    client.run("SELECT state_verify('sick', repair => true)");
    assert_eq!(findings(client, "sick"), Vec::<Vec<String>>::new());
    let wrong = client.rows(
        "SELECT h.key, v.version FROM state_head h, state_history(h.key, h.class) v, state_at(h.key, v.version, \
            h.class) s
            WHERE h.class = 'sick' AND s IS DISTINCT FROM document(h.key, (s ->> 'n')::bigint)
         UNION ALL
         SELECT key, version FROM state_head h, state_get(h.key, h.class) s
            WHERE h.class = 'sick' AND s IS DISTINCT FROM document(h.key, (s ->> 'n')::bigint)
         UNION ALL
         SELECT key, version FROM state_damaged d
            WHERE EXISTS (SELECT FROM state_snapshot s WHERE (s.class, s.key, s.version) = (d.class, d.key, \
            d.version))",
    );
    assert_eq!(wrong, Vec::<Vec<String>>::new());
}

fn crash_loop(rounds: usize) {
    let rounds =
        std::env::var("STATE_CACHE_CRASH_ROUNDS").map_or(rounds, |text| text.parse().unwrap());
    let server = Server::new(&["fsync = on", "state_cache.max_delta_chain = 8"]);
    let mut client = server.connect();
    client.run(DOCUMENT);
    client.run(
        "SELECT state_class_define('kept'), state_class_define('sick');
         SELECT state_class_define('kept', keep => 0), state_class_define('sick', keep => 0);
         ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed",
    );
    for patient in 0..PATIENTS {
        let patient = quoted(&format!("patient {patient}"));
        client.run(&format!(
            "SELECT state_save({patient}, document({patient}, 0), 'manual', class => 'sick')"
        ));
    }
    drop(client);
    let ledgers: Vec<Mutex<Ledger>> = (0..WRITERS).map(|_| Mutex::default()).collect();
    let (pruned, repaired) = (Mutex::default(), Mutex::default());
    let mut dice = Dice::new(7);
    for round in 0..rounds {
        std::thread::scope(|threads| {
            let (server, pruned, repaired) = (&server, &pruned, &repaired);
            let mut seed = || dice.roll(1 << 40);
            for (writer, ledger) in ledgers.iter().enumerate() {
                let seed = seed();
                threads.spawn(move || write(server, writer, seed, ledger));
            }
            let seeds = [seed(), seed()];
            threads.spawn(move || prune(server, seeds[0], pruned));
            threads.spawn(move || repair(server, seeds[1], repaired));
            std::thread::sleep(Duration::from_millis(500 + seed() % 1000));
            server.kill_everything();
        });
        server.start();
        let mut client = server.connect();
        look_at_kept(&mut client, &ledgers);
        look_at_repaired(&mut client);
        assert_eq!(
            inconsistencies(&mut client),
            Vec::<Vec<String>>::new(),
            "round {round}"
        );
    }
    let saved: i64 = ledgers
        .iter()
        .map(|ledger| ledger.lock().unwrap().acknowledged)
        .sum();
    let (pruned, repaired) = (*pruned.lock().unwrap(), *repaired.lock().unwrap());
    let encodings = server.connect().rows(
        "SELECT encoding, count(*) FROM state_head h, state_history(h.key, h.class) GROUP BY 1 ORDER BY 1",
    );
    println!(
        "{rounds} crashes, {saved} versions saved, {pruned} pruned, {repaired} repairs; left: {encodings:?}"
    );
    assert!(saved > 0 && pruned > 0 && repaired > 0);
    assert!(encodings.iter().any(|row| row[0] == "delta"));
}

#[test]
fn crashes_leave_every_kept_version_readable() {
    crash_loop(ROUNDS.0);
}

#[test]
#[ignore = "soak"]
fn many_crashes_leave_every_kept_version_readable() {
    crash_loop(ROUNDS.1);
}
