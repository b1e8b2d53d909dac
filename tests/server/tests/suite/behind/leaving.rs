//! A worker that leaves, whoever sends it away, leaves nothing unwritten; without one, changes are written
//! through.

use super::{LONG, await_accepting, reload, seen_and_stored, server, unwritten, worker};
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Sessions that commit while somebody ends the worker.
const WRITERS: usize = 6;
/// Longer than a shutdown takes that waits for no timeout.
const SOON: Duration = Duration::from_secs(20);

/// What the writers were told.
#[derive(Default)]
struct Acknowledged {
    numbers: [AtomicI64; WRITERS],
}

impl Acknowledged {
    /// Commits that every writer has heard of.
    fn least(&self) -> i64 {
        let numbers = self.numbers.iter();
        numbers
            .map(|number| number.load(Ordering::SeqCst))
            .min()
            .unwrap_or(0)
    }

    /// Sets a state of this writer and appends to one that all share, until the server goes or `over`.
    fn write(&self, server: &Server, writer: usize, over: &AtomicBool) {
        let mut client = server.connect();
        for number in 1.. {
            if over.load(Ordering::SeqCst) {
                return;
            }
            let change = format!(
                "SELECT state_set('writer {writer}', '{number}', class => 'left'),
                    state_append('log', '{{}}', '\"{writer}/{number}\"', class => 'left')"
            );
            if client.batch_execute(&change).is_err() {
                return;
            }
            self.numbers[writer].store(number, Ordering::SeqCst);
        }
    }

    /// Each writer's state is the last that was acknowledged, or the one after it, and the log has all.
    fn check(&self, client: &mut Client) {
        for (writer, acknowledged) in self.numbers.iter().enumerate() {
            let acknowledged = acknowledged.load(Ordering::SeqCst);
            let (seen, stored) = seen_and_stored(client, &format!("writer {writer}"));
            assert_eq!(seen, stored, "writer {writer}");
            let number: i64 = seen.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(
                (acknowledged..=acknowledged + 1).contains(&number),
                "writer {writer}: {number}, acknowledged {acknowledged}"
            );
            let logged = client.number(&format!(
                "SELECT count(*) FROM jsonb_array_elements_text(state_get('log', class => 'left')) e
                    WHERE e LIKE '{writer}/%'"
            ));
            assert_eq!(logged, number, "writer {writer} in the log");
        }
    }
}

/// Lets the writers loose, does something to the server, and has them end.
fn under_load(server: &Server, act: impl FnOnce(&AtomicBool, &Acknowledged)) -> Acknowledged {
    let (acknowledged, over) = (Acknowledged::default(), AtomicBool::new(false));
    server
        .connect()
        .run("SELECT state_set('log', '[]', class => 'left')");
    std::thread::scope(|threads| {
        for writer in 0..WRITERS {
            let (acknowledged, over) = (&acknowledged, &over);
            threads.spawn(move || acknowledged.write(server, writer, over));
        }
        eventually("some commits", || acknowledged.least() >= 30);
        act(&over, &acknowledged);
        over.store(true, Ordering::SeqCst);
    });
    acknowledged
}

/// What a clean shutdown in a mode leaves after commits that race it.
fn shutdown(mode: &str) {
    let server = server(&[LONG]);
    for _ in 0..3 {
        let mut client = server.connect();
        await_accepting(&mut client);
        drop(client);
        let took = AtomicI64::new(0);
        let acknowledged = under_load(&server, |over, _| {
            let start = Instant::now();
            // A smart shutdown waits for the sessions.
            over.store(mode == "smart", Ordering::SeqCst);
            server.stop_in_mode(mode);
            took.store(start.elapsed().as_millis() as i64, Ordering::SeqCst);
        });
        assert!(took.load(Ordering::SeqCst) < SOON.as_millis() as i64);
        server.start();
        let mut client = server.connect();
        acknowledged.check(&mut client);
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
}

#[test]
fn a_fast_shutdown_writes_everything() {
    shutdown("fast");
}

#[test]
fn a_smart_shutdown_writes_everything() {
    shutdown("smart");
}

#[test]
fn a_terminated_worker_leaves_nothing_behind() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("SELECT state_set('doc', '1', class => 'left')");
    assert_eq!(unwritten(&mut client), ["doc"]);
    let pid = worker(&mut client);
    client.run(&format!("SELECT pg_terminate_backend({pid})"));
    eventually("the worker to write", || unwritten(&mut client).is_empty());
    assert_eq!(
        seen_and_stored(&mut client, "doc"),
        ("v1 1".into(), "v1 1".into())
    );
    // The next one takes over.
    await_accepting(&mut client);
    // Again and again, under load.
    let acknowledged = under_load(&server, |_, acknowledged| {
        for _ in 0..5 {
            let enough = acknowledged.least() + 30;
            let pid = worker(&mut client);
            if pid != 0 {
                client.run(&format!("SELECT pg_terminate_backend({pid})"));
            }
            eventually("more commits", || acknowledged.least() >= enough);
        }
    });
    client.run("SELECT state_flush()");
    acknowledged.check(&mut client);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn without_workers_changes_are_written_through_and_counted() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('left', write_mode => 'behind')");
    for n in 1..=5 {
        client.run(&format!("SELECT state_set('doc', '{n}', class => 'left')"));
        let now = format!("v{n} {n}");
        assert_eq!(seen_and_stored(&mut client, "doc"), (now.clone(), now));
    }
    assert_eq!(client.counter("written_through"), 5);
    assert_eq!(client.counter("left_behind"), 0);
    // With a worker from now on.
    reload(&server, "state_cache.max_workers = 4");
    await_accepting(&mut client);
}

#[test]
fn a_worker_that_idles_leaves_and_is_called_again() {
    let server = server(&[
        "state_cache.flush_interval = '10ms'",
        "state_cache.worker_idle_timeout = 1",
    ]);
    let mut client = server.connect();
    for n in 1..=3 {
        eventually("the worker to leave", || worker(&mut client) == 0);
        let (through, key) = (client.counter("written_through"), format!("doc {n}"));
        client.run(&format!("SELECT state_set('{key}', '1', class => 'left')"));
        // With nobody to leave it to it is written at once.
        assert_eq!(client.counter("written_through"), through + 1);
        assert_eq!(seen_and_stored(&mut client, &key).1, "v1 1");
        await_accepting(&mut client);
    }
    // A worker with unwritten changes does not idle.
    reload(&server, "state_cache.flush_interval = '3s'");
    client.run("SELECT pg_sleep(0.2)");
    client.run("SELECT state_set('doc', '1', class => 'left')");
    let pid = worker(&mut client);
    eventually("the worker to write", || unwritten(&mut client).is_empty());
    assert_eq!(worker(&mut client), pid);
}

#[test]
fn what_l1_has_no_room_for_is_written_through() {
    let server = server(&[LONG, "state_cache.memory = '1MB'"]);
    let mut client = server.connect();
    let dirty = "SELECT coalesce(sum(bytes), 0) FROM state_cache_unwritten";
    let memory = client.counter("memory_total");
    let through = client.counter("written_through");
    for n in 0..100 {
        client.run(&format!(
            "SELECT state_set('doc {n}', to_jsonb(repeat('x', 20000)), class => 'left')"
        ));
    }
    assert!(client.number(dirty) > memory / 4);
    assert!(client.number(dirty) <= memory / 2);
    let through = client.counter("written_through") - through;
    assert!(through > 0);
    assert_eq!(through + unwritten(&mut client).len() as i64, 100);
    // Reads push one another out of L1, and never what is dirty.
    let before = unwritten(&mut client);
    client
        .run("SELECT count(state_get('doc ' || n, class => 'left')) FROM generate_series(0, 99) n");
    client.run(
        "SELECT state_cache_clear(), state_cache_clear('left'), state_invalidate('*', 'left')",
    );
    assert_eq!(unwritten(&mut client), before);
    let complete = "SELECT count(*) FROM generate_series(0, 99) n
        WHERE length(state_get('doc ' || n, class => 'left') #>> '{}') = 20000";
    assert_eq!(client.number(complete), 100);
    // A state that is changed again while L1 is full is written through over its dirty version.
    for key in [before[0].as_str(), "doc 99"] {
        client.run(&format!(
            "SELECT state_set('{key}', to_jsonb(repeat('y', 200000)), class => 'left')"
        ));
        let sql = format!(
            "SELECT version || left(state #>> '{{}}', 1) FROM state_current WHERE class = 'left' AND key = '{key}'"
        );
        let found = client.rows(&sql);
        assert_eq!(found, [["2y"]], "{key}");
    }
    client.run("SELECT state_flush()");
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    assert_eq!(client.number(complete), 98);
}
