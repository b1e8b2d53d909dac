//! Workers come when they are called, go when they are idle or in the way, and survive what goes wrong.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, kill};
use std::time::{Duration, Instant};

/// Longer than anything here takes, shorter than what the server waits for others before it gives up.
const SOON: Duration = Duration::from_millis(4500);

/// Declares what calls the worker of a session's database.
const CALL: &str = "CREATE FUNCTION call_worker() RETURNS void LANGUAGE c AS 'state_cache', \
    'state_cache_test_call_worker'";

/// A server whose worker can be called.
fn server(settings: &[&str]) -> Server {
    let server = Server::new(settings);
    server.connect().run(CALL);
    server
}

/// Another database with the extension.
fn add_database(server: &Server, name: &str) {
    server.connect().run(&format!("CREATE DATABASE {name}"));
    let mut client = server.connect_to(name);
    client.run("CREATE EXTENSION state_cache");
    client.run(CALL);
}

/// A column of the view, of one database.
fn shown(client: &mut Client, database: &str, column: &str) -> String {
    let rows = client.rows(&format!(
        "SELECT {column} FROM state_cache_workers WHERE database = '{database}'"
    ));
    match &rows[..] {
        [] => "no row".into(),
        [row] => row[0].clone(),
        _ => panic!("several rows of {database}: {rows:?}"),
    }
}

/// Waits until the view shows one of these states.
fn await_state(client: &mut Client, database: &str, states: &[&str]) {
    eventually(&format!("{database} to be {states:?}"), || {
        states.contains(&&*shown(client, database, "state"))
    });
}

/// Calls the worker of a database, and gives its process once it idles there.
fn called(server: &Server, database: &str) -> u32 {
    let mut client = server.connect_to(database);
    client.run("SELECT call_worker()");
    await_state(&mut client, database, &["idle"]);
    shown(&mut client, database, "pid").parse().unwrap()
}

/// The processes of a kind, as the server itself lists them.
fn processes(client: &mut Client, kind: &str) -> Vec<u32> {
    let rows = client.rows(&format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}' ORDER BY 1"
    ));
    rows.iter().map(|row| row[0].parse().unwrap()).collect()
}

/// Changes the configuration while the server runs.
fn reload(server: &Server, setting: &str) {
    server.configure(&[setting]);
    server.connect().run("SELECT pg_reload_conf()");
}

#[test]
fn a_worker_comes_when_called_and_leaves_when_idle() {
    let server = server(&["state_cache.worker_idle_timeout = 1"]);
    let mut client = server.connect();
    let mut known = Vec::new();
    for _ in 0..3 {
        client.run("SELECT call_worker()");
        eventually("a worker", || {
            let pid = shown(&mut client, "postgres", "pid");
            let news = pid != "NULL" && !known.contains(&pid);
            if news {
                known.push(pid);
            }
            news
        });
        await_state(&mut client, "postgres", &["none"]);
        eventually("its process to end", || {
            processes(&mut client, "state_cache worker").is_empty()
        });
        assert_eq!(shown(&mut client, "postgres", "started_at"), "NULL");
    }
    assert_eq!(shown(&mut client, "postgres", "failures"), "0");
}

#[test]
fn a_worker_that_left_comes_back_when_something_is_due() {
    let server = server(&[
        "state_cache.worker_idle_timeout = 1",
        "state_cache.test_task = 'due'",
    ]);
    let mut client = server.connect();
    client.run("SELECT call_worker()");
    let mut seen = std::collections::BTreeSet::new();
    eventually("a third worker, uncalled", || {
        seen.extend(processes(&mut client, "state_cache worker"));
        seen.len() == 3
    });
    assert_eq!(shown(&mut client, "postgres", "failures"), "0");
}

#[test]
fn there_is_one_worker_however_often_it_is_called() {
    let server = server(&[]);
    let pid = called(&server, "postgres");
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let mut client = server.connect();
                for _ in 0..100 {
                    client.run("SELECT call_worker()");
                    assert_eq!(processes(&mut client, "state_cache worker"), [pid]);
                }
            });
        }
    });
}

#[test]
fn after_a_start_each_database_with_the_extension_has_a_worker() {
    let server = server(&[]);
    add_database(&server, "other");
    let mut client = server.connect();
    client.run("CREATE DATABASE plain; ");
    client.run("CREATE DATABASE closed TEMPLATE other; ");
    client.run("ALTER DATABASE closed ALLOW_CONNECTIONS false");
    drop(client);
    server.stop();
    server.start();
    let mut client = server.connect();
    for database in ["postgres", "other"] {
        await_state(&mut client, database, &["idle"]);
    }
    let seen = client.rows("SELECT database FROM state_cache_workers ORDER BY 1");
    assert_eq!(seen, [["other"], ["postgres"]]);
}

#[test]
fn statements_about_databases_do_not_wait_for_its_worker() {
    let server = server(&["allow_in_place_tablespaces = on"]);
    add_database(&server, "other");
    let mut client = server.connect();
    client.run("CREATE TABLESPACE elsewhere LOCATION ''");
    for (database, statement) in [
        ("other", "CREATE DATABASE copied TEMPLATE other"),
        (
            "other",
            "CREATE DATABASE copied_again TEMPLATE = other STRATEGY file_copy",
        ),
        ("other", "ALTER DATABASE other RENAME TO renamed"),
        ("renamed", "ALTER DATABASE renamed SET TABLESPACE elsewhere"),
        ("renamed", "DROP DATABASE renamed"),
        ("copied", "DROP DATABASE copied WITH (FORCE)"),
    ] {
        let worker = called(&server, database);
        let start = Instant::now();
        client.run(statement);
        assert!(start.elapsed() < SOON, "{statement}: {:?}", start.elapsed());
        assert!(!processes(&mut client, "state_cache worker").contains(&worker));
    }
    let left = client.rows("SELECT * FROM state_cache_workers");
    assert_eq!(
        left, [[""; 0]; 0],
        "the slots of dropped databases are given back"
    );
}

/// Without a name it is `template1` that is copied; all other ways to name it are as good.
#[test]
fn a_database_that_is_made_of_template1_does_not_wait_for_its_worker() {
    let server = server(&[]);
    server
        .connect_to("template1")
        .run(&format!("CREATE EXTENSION state_cache; {CALL}"));
    let mut client = server.connect();
    for (statement, works) in [
        ("CREATE DATABASE plain", true),
        (
            "CREATE DATABASE options ENCODING = 'UTF8' TEMPLATE = DEFAULT",
            true,
        ),
        ("CREATE DATABASE quoted TEMPLATE \"template1\"", true),
        ("CREATE DATABASE other_template TEMPLATE template0", false),
    ] {
        let worker = called(&server, "template1");
        let start = Instant::now();
        client.run(statement);
        assert!(start.elapsed() < SOON, "{statement}: {:?}", start.elapsed());
        let has_left = !processes(&mut client, "state_cache worker").contains(&worker);
        assert_eq!(has_left, works, "{statement}");
    }
    // Who may not create databases disturbs nobody.
    let worker = called(&server, "template1");
    client.run("CREATE ROLE nobody; SET ROLE nobody");
    for statement in [
        "CREATE DATABASE more",
        "CREATE DATABASE more TEMPLATE template1",
    ] {
        assert_eq!(client.error(statement), "42501");
    }
    client.run("RESET ROLE");
    assert_eq!(shown(&mut client, "template1", "pid"), worker.to_string());
}

#[test]
fn who_may_not_drop_a_database_does_not_disturb_its_worker() {
    let server = server(&[]);
    add_database(&server, "other");
    let worker = called(&server, "other");
    let mut client = server.connect();
    client.run("CREATE ROLE somebody CREATEDB; SET ROLE somebody");
    for statement in [
        "DROP DATABASE other",
        "ALTER DATABASE other RENAME TO renamed",
        "CREATE DATABASE copied TEMPLATE other",
    ] {
        assert_eq!(client.error(statement), "42501");
    }
    client.run("RESET ROLE");
    assert_eq!(shown(&mut client, "other", "pid"), worker.to_string());
}

#[test]
fn a_drop_that_fails_loses_nothing() {
    let server = server(&[]);
    add_database(&server, "other");
    called(&server, "other");
    let mut inside = server.connect_to("other");
    inside.run("SELECT state_set('k', '{}')");
    let mut client = server.connect();
    assert_eq!(client.error("DROP DATABASE other"), "55006");
    assert_eq!(inside.rows("SELECT key FROM state_cache_entries"), [["k"]]);
    called(&server, "other");
    drop(inside);
    eventually("the session to be gone", || {
        client.flag("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'other' AND backend_type = \
            'client backend')")
    });
    client.run("DROP DATABASE other");
    assert_eq!(shown(&mut client, "other", "state"), "no row");
}

#[test]
fn a_worker_leaves_when_the_extension_is_dropped() {
    let server = server(&[]);
    add_database(&server, "other");
    let mut client = server.connect();
    let mut inside = server.connect_to("other");
    let first = called(&server, "other");

    // A drop that is undone changes nothing.
    inside.run("BEGIN; DROP EXTENSION state_cache; ROLLBACK; SELECT call_worker()");
    await_state(&mut client, "other", &["idle"]);
    assert_eq!(shown(&mut client, "other", "pid"), first.to_string());

    inside.run("DROP EXTENSION state_cache");
    await_state(&mut client, "other", &["no extension"]);
    assert_eq!(shown(&mut client, "other", "pid"), "NULL");

    inside.run("CREATE EXTENSION state_cache");
    inside.run("SELECT call_worker()");
    await_state(&mut client, "other", &["idle"]);
    let second = shown(&mut client, "other", "pid");
    // Dropped and created anew at once.
    inside.run("BEGIN; DROP EXTENSION state_cache; CREATE EXTENSION state_cache; COMMIT");
    inside.run("SELECT call_worker()");
    await_state(&mut client, "other", &["idle"]);
    assert_eq!(shown(&mut client, "other", "pid"), second);
    // A task gives way to the statement's locks.
    let error = shown(&mut client, "other", "last_error");
    assert!(error == "NULL" || error.contains("lock timeout"), "{error}");
}

/// Has a worker of the database `postgres` leave. Another may follow at once: a call that this one had not seen
/// yet is for the next.
fn terminate(client: &mut Client, worker: u32) {
    client.run(&format!("SELECT pg_terminate_backend({worker})"));
    eventually("the worker to leave", || {
        shown(client, "postgres", "pid") != worker.to_string()
    });
}

#[test]
fn terminated_workers_and_launchers_come_back() {
    let server = server(&[]);
    let worker = called(&server, "postgres");
    let mut client = server.connect();
    terminate(&mut client, worker);
    let worker = called(&server, "postgres");

    let launchers = processes(&mut client, "state_cache launcher");
    assert_eq!(launchers.len(), 1);
    client.run(&format!("SELECT pg_terminate_backend({})", launchers[0]));
    eventually("a new launcher", || {
        let now = processes(&mut client, "state_cache launcher");
        now.len() == 1 && now != launchers
    });
    assert_eq!(shown(&mut client, "postgres", "pid"), worker.to_string());
    terminate(&mut client, worker);
    assert_ne!(called(&server, "postgres"), worker);
    assert_eq!(shown(&mut client, "postgres", "failures"), "0");
}

#[test]
fn a_killed_worker_comes_back_with_the_server() {
    let server = server(&[]);
    for kind in ["state_cache worker", "state_cache launcher"] {
        called(&server, "postgres");
        let times_up = server.times_up();
        kill(processes(&mut server.connect(), kind)[0]);
        server.await_recovery(times_up);
        let mut client = server.connect();
        await_state(&mut client, "postgres", &["idle"]);
    }
}

#[test]
fn the_number_of_workers_can_be_changed() {
    let server = server(&["state_cache.max_workers = 0"]);
    add_database(&server, "other");
    let mut client = server.connect();
    client.run("SELECT call_worker()");
    client.run("SELECT state_set('k', '{}')");
    assert_eq!(processes(&mut client, "state_cache worker"), [0; 0]);
    assert_eq!(shown(&mut client, "postgres", "state"), "none");

    // Called before, started now; each makes room for the other.
    reload(&server, "state_cache.max_workers = 1");
    for database in ["postgres", "other", "postgres"] {
        let worker = called(&server, database);
        assert_eq!(processes(&mut client, "state_cache worker"), [worker]);
    }
    reload(&server, "state_cache.max_workers = 2");
    called(&server, "other");
    called(&server, "postgres");
    assert_eq!(processes(&mut client, "state_cache worker").len(), 2);
    reload(&server, "state_cache.max_workers = 0");
    eventually("both to leave", || {
        processes(&mut client, "state_cache worker").is_empty()
    });
}

#[test]
fn a_busy_worker_is_not_sent_away() {
    let server = server(&[
        "state_cache.max_workers = 1",
        "state_cache.test_task = 'stuck'",
    ]);
    add_database(&server, "other");
    let mut client = server.connect();
    client.run("SELECT call_worker()");
    server.connect_to("other").run("SELECT call_worker()");
    let mut states = Vec::new();
    eventually("one to work and one to wait", || {
        states = client.rows("SELECT state FROM state_cache_workers ORDER BY 1");
        states == [["running"], ["waiting for a free worker"]]
    });
    let worker = processes(&mut client, "state_cache worker");
    // Once it has nothing to do any more, the other's turn comes.
    reload(&server, "state_cache.test_task = 'off'");
    eventually("the other one", || {
        let now = processes(&mut client, "state_cache worker");
        now.len() == 1 && now != worker
    });
}

#[test]
fn a_server_without_free_processes_says_so_and_works() {
    // The launchers of logical replication and of the workers take both.
    let server = server(&["max_worker_processes = 2"]);
    let mut client = server.connect();
    client.run("SELECT call_worker()");
    await_state(
        &mut client,
        "postgres",
        &["waiting for max_worker_processes"],
    );
    client.run("SELECT state_set('k', '{}')");
    assert_eq!(client.text("SELECT state_get('k')"), "{}");
    let told = || {
        server
            .log()
            .matches("no place for another background process")
            .count()
    };
    // It tries again, and says nothing new.
    let tries = || server.log().matches("Raise max_worker_processes").count();
    eventually("the warning", || told() == 1 && tries() == 1);
    drop(client);
    server.stop();
    server.configure(&["max_worker_processes = 3"]);
    server.start();
    called(&server, "postgres");
    assert_eq!(told(), 1);
}

#[test]
fn a_server_without_any_background_process_starts() {
    let server = Server::new(&["max_worker_processes = 0"]);
    let mut client = server.connect();
    client.run("SELECT state_set('k', '{}')");
    assert_eq!(client.text("SELECT state_get('k')"), "{}");
}

#[test]
fn errors_of_tasks_are_shown_and_survived() {
    for (order, expected) in [
        ("error", "probing: 22012: division by zero"),
        ("panic", "probing: XX000: index out of bounds"),
    ] {
        let server = server(&["lock_timeout = 0"]);
        let worker = called(&server, "postgres");
        let mut client = server.connect();
        reload(&server, &format!("state_cache.test_task = '{order}'"));
        eventually("several errors", || {
            shown(&mut client, "postgres", "failures")
                .parse::<u32>()
                .unwrap()
                >= 3
        });
        let error = shown(&mut client, "postgres", "last_error");
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(
            server
                .log()
                .matches(&format!("state_cache worker: {expected}"))
                .count(),
            1,
            "the same error is logged once"
        );
        assert_eq!(shown(&mut client, "postgres", "pid"), worker.to_string());
        reload(&server, "state_cache.test_task = 'off'");
        await_state(&mut client, "postgres", &["idle"]);
        let start = Instant::now();
        server.stop();
        assert!(start.elapsed() < SOON);
    }
}

#[test]
fn a_worker_that_dies_is_started_again_ever_later() {
    let server = server(&["state_cache.test_task = 'fatal'"]);
    let mut client = server.connect();
    client.run("SELECT call_worker()");
    await_state(&mut client, "postgres", &["backing off"]);
    let failures = |client: &mut Client| {
        shown(client, "postgres", "failures")
            .parse::<u32>()
            .unwrap()
    };
    let start = Instant::now();
    let before = failures(&mut client);
    eventually("two more deaths", || failures(&mut client) >= before + 2);
    assert!(start.elapsed() >= Duration::from_secs(1), "no pause");
    reload(&server, "state_cache.test_task = 'off'");
    await_state(&mut client, "postgres", &["idle"]);
}

#[test]
fn a_lock_of_somebody_else_does_not_hold_a_worker() {
    let server = server(&[]);
    let mut client = server.connect();
    client.run("CREATE TABLE probe (id int)");
    let worker = called(&server, "postgres");
    let mut locker = server.connect();
    locker.run("BEGIN; LOCK TABLE probe");
    reload(&server, "state_cache.test_task = 'lock'");
    eventually("the error", || {
        shown(&mut client, "postgres", "last_error").starts_with("probing: 55P03")
    });
    let start = Instant::now();
    client.run(&format!("SELECT pg_terminate_backend({worker})"));
    eventually("the worker to leave", || {
        !processes(&mut client, "state_cache worker").contains(&worker)
    });
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_shutdown_waits_for_what_is_left_to_do_and_not_much_longer() {
    let server = server(&["state_cache.test_task = 'hold'"]);
    let mut client = server.connect();
    client.run("CREATE TABLE probe (id serial, at timestamptz DEFAULT now())");
    client.run("SELECT call_worker()");
    await_state(&mut client, "postgres", &["running"]);
    drop(client);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    server.configure(&["state_cache.test_task = 'stuck'"]);
    server.start();
    let mut client = server.connect();
    assert_eq!(client.number("SELECT count(*) FROM probe"), 1);
    await_state(&mut client, "postgres", &["running"]);
    drop(client);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() > Duration::from_secs(4), "it did not try");
    assert!(
        start.elapsed() < Duration::from_secs(45),
        "{:?}",
        start.elapsed()
    );
}
