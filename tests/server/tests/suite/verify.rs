//! `state_verify()` and its kin on rows that PostgreSQL itself cannot read, and the view `state_progress`.

use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, code, eventually};

/// A server on which version `lost` of the state `k` of class `mine` is stored out of line and nothing of that is
/// there any more; `k` has five versions, of which 2 is a recovery point, and `sound` two. What else was stored
/// nearby is of class `other`, and may be lost too.
fn with_lost_value(lost: i64, compression: bool) -> Server {
    let server = Server::new(&["autovacuum = off"]);
    let mut client = server.connect();
    client.run(&format!(
        "SELECT state_class_define('mine', compression => {compression}, keep => 0),
            state_class_define('other', compression => false, keep => 0)"
    ));
    let toast = client
        .text("SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'state_snapshot'");
    let file = client.text(&format!("SELECT pg_relation_filepath('{toast}')"));
    let mut dice = Dice::new(7);
    let mut save = |client: &mut Client, class: &str, key: &str, n: i64| {
        client.run(&format!(
            "SELECT state_save('{key}', jsonb_build_object('n', {n}, 'text', '{}'), recovery_point => {}, class => \
                '{class}')",
            dice.digits(30_000),
            n == 2,
        ));
    };
    let mut blocks = Vec::new();
    save(&mut client, "other", "before", 1);
    for version in 1..=5 {
        save(&mut client, "mine", "k", version);
        if version == lost {
            blocks = client.rows(&format!(
                "SELECT DISTINCT (ctid::text::point)[0]::bigint FROM {toast}
                 WHERE chunk_id = (SELECT max(chunk_id) FROM {toast})"
            ));
        }
        save(&mut client, "other", &format!("after {version}"), 1);
    }
    client.run(
        "SELECT state_save('sound', '{}', class => 'mine');
         SELECT state_save('sound', '[]', class => 'mine');
         CHECKPOINT",
    );
    drop(client);
    server.stop();
    assert!(blocks.len() > 1);
    for block in &blocks {
        server.lose_block(&file, block[0].parse().unwrap());
    }
    server.start();
    server
}

/// What `state_verify()` finds, without the message.
fn findings(client: &mut Client, repair: bool) -> Vec<Vec<String>> {
    client.rows(&format!(
        "SELECT class, key, version, fault LIKE 'missing chunk number 0 for toast value %'
         FROM state_verify('mine', repair => {repair})"
    ))
}

fn verify_goes_on(compression: bool) {
    let server = with_lost_value(4, compression);
    let mut client = server.connect();
    assert_eq!(client.error("SELECT state_at('k', 4, 'mine')"), "XX001");
    let found = [["mine", "k", "4", "t"].map(String::from).to_vec()];
    assert_eq!(findings(&mut client, false), found);
    assert_eq!(findings(&mut client, true), found);
    assert!(findings(&mut client, false).is_empty());
    assert_eq!(
        client.rows("SELECT version, state IS NULL, checkpoint_type FROM state_damaged"),
        [["4", "t", "auto"]]
    );
    assert_eq!(
        client.rows(
            "SELECT version, fault LIKE 'missing chunk%', strategy, outcome FROM state_recovery_log"
        ),
        [["4", "t", "repair", "put aside"]]
    );
    assert_eq!(
        client.rows(
            "SELECT version, state_at('k', version, 'mine') -> 'n' FROM state_history('k', 'mine')"
        ),
        [["5", "5"], ["3", "3"], ["2", "2"], ["1", "1"]]
    );
    assert_eq!(client.text("SELECT state_get('k', 'mine') -> 'n'"), "5");
}

#[test]
fn verify_goes_on_where_postgres_cannot_read_a_document() {
    verify_goes_on(false);
}

#[test]
fn verify_goes_on_where_postgres_cannot_read_how_a_document_is_packed() {
    verify_goes_on(true);
}

#[test]
fn repair_replaces_a_current_version_that_postgres_cannot_read() {
    let server = with_lost_value(5, true);
    let mut client = server.connect();
    let found = [["mine", "k", "5", "t"].map(String::from).to_vec()];
    assert_eq!(findings(&mut client, true), found);
    assert_eq!(client.text("SELECT state_get('k', 'mine') -> 'n'"), "4");
    assert_eq!(client.text("SELECT state_version('k', 'mine')"), "6");
    assert!(findings(&mut client, false).is_empty());
}

#[test]
fn a_read_and_recover_go_back_from_a_version_that_postgres_cannot_read() {
    let server = with_lost_value(5, true);
    let mut client = server.connect();
    assert_eq!(client.error("SELECT state_get('k', 'mine')"), "XX001");
    client.run("SET state_cache.on_corruption = recover");
    assert_eq!(client.text("SELECT state_get('k', 'mine') -> 'n'"), "4");
    client.run("RESET state_cache.on_corruption");
    assert_eq!(
        client
            .rows("SELECT action, version, from_version FROM state_recover('k', 'resume', 'mine')"),
        [["recovered", "6", "4"]]
    );
    assert_eq!(client.text("SELECT state_get('k', 'mine') -> 'n'"), "4");
    assert_eq!(
        client.text("SELECT fault LIKE 'missing chunk%' FROM state_recovery_log"),
        "t"
    );
    // What was damaged is still there, and pruning it needs no look at it.
    assert_eq!(
        client.text("SELECT count(*) FROM state_history('k', 'mine')"),
        "6"
    );
    assert_eq!(client.text("SELECT state_prune('mine', keep => 1)"), "5");
    assert!(findings(&mut client, false).is_empty());
}

#[test]
fn rollback_passes_over_a_recovery_point_that_postgres_cannot_read() {
    let server = with_lost_value(2, false);
    let mut client = server.connect();
    assert_eq!(
        client
            .rows("SELECT action, version, from_version FROM state_recover('k', class => 'mine')"),
        [["unchanged", "5", "5"]]
    );
}

/// What the view shows of the one command that runs.
fn shown(client: &mut Client) -> Vec<Vec<String>> {
    client.rows("SELECT command, class, key, states_done, states_total FROM state_progress")
}

/// Waits until the command is at the state whose head row somebody else has locked.
fn await_lock(client: &mut Client) -> u32 {
    eventually("the command to wait for a row", || {
        client.flag(
            "SELECT count(*) = 1 FROM state_progress JOIN pg_stat_activity USING (pid) WHERE wait_event_type = \
                'Lock'",
        )
    });
    client
        .text("SELECT pid FROM state_progress")
        .parse()
        .unwrap()
}

#[test]
fn progress_shows_while_a_command_runs_and_goes_however_it_ends() {
    let server = Server::new(&[]);
    let mut admin = server.connect();
    admin.run(
        "SELECT state_class_define('plain', compression => false, keep => 0);
         CREATE ROLE watcher IN ROLE pg_monitor;
         CREATE ROLE nobody",
    );
    for state in ["{}", "[]"] {
        admin.run(&format!(
            "SELECT state_save('k' || n, '{state}', class => 'plain') FROM generate_series(1, 3) n"
        ));
    }
    admin.run("UPDATE state_snapshot SET hash = decode(repeat('ff', 16), 'hex') WHERE version = 2");
    assert_eq!(shown(&mut admin), Vec::<Vec<String>>::new());

    let mut holder = server.connect();
    holder.run("BEGIN; SELECT FROM state_head WHERE key = 'k2' FOR UPDATE");
    let run = |sql: &'static str| {
        let mut client = server.connect();
        std::thread::spawn(move || client.batch_execute(sql).map_err(|error| code(&error)))
    };

    let verify = "SELECT * FROM state_verify(repair => true)";
    let at = |command: &str, done: &str| {
        vec![vec![
            command.to_owned(),
            "plain".into(),
            "k2".into(),
            done.into(),
            "3".into(),
        ]]
    };
    let running = run(verify);
    let pid = await_lock(&mut admin);
    assert_eq!(shown(&mut admin), at("state_verify with repair", "1"));
    // Names are for those who may read them; the rest is for those who watch.
    admin.run("SET ROLE watcher");
    assert_eq!(
        admin.rows("SELECT command, class, key, states_done FROM state_progress"),
        [["state_verify with repair", "plain", "NULL", "1"]]
    );
    admin.run("SET ROLE nobody");
    assert_eq!(admin.error("SELECT * FROM state_progress"), "42501");
    assert_eq!(admin.error("SELECT * FROM state_progress()"), "42501");
    admin.run("RESET ROLE");
    // Cancelled.
    admin.run(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(running.join().unwrap(), Err("57014".to_owned()));
    assert_eq!(shown(&mut admin), Vec::<Vec<String>>::new());

    // Its process is sent away, which unwinds nothing.
    let running = run("SELECT state_prune('plain', keep => 1)");
    let pid = await_lock(&mut admin);
    assert_eq!(shown(&mut admin), at("state_prune", "1"));
    admin.run(&format!("SELECT pg_terminate_backend({pid})"));
    assert!(running.join().unwrap().is_err());
    eventually("the process to go", || {
        admin.flag(&format!(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"
        ))
    });
    assert_eq!(shown(&mut admin), Vec::<Vec<String>>::new());

    // It ends.
    let running = run(verify);
    await_lock(&mut admin);
    holder.run("COMMIT");
    assert_eq!(running.join().unwrap(), Ok(()));
    assert_eq!(shown(&mut admin), Vec::<Vec<String>>::new());
}

#[test]
fn a_command_that_finds_no_free_slot_runs_unseen() {
    let server = Server::new(&["max_connections = 100"]);
    let mut admin = server.connect();
    admin.run("SELECT state_save('k', '{}'); SELECT state_save('k', '[]')");
    let mut holder = server.connect();
    holder.run("BEGIN; SELECT FROM state_head FOR UPDATE");
    let prune = "SELECT state_prune('run', keep => 1)";
    let running: Vec<_> = (0..66)
        .map(|_| {
            let mut client = server.connect();
            std::thread::spawn(move || client.batch_execute(prune).is_ok())
        })
        .collect();
    eventually("all to wait", || {
        admin.flag(
            "SELECT count(*) = 66 FROM pg_stat_activity WHERE query LIKE 'SELECT state_prune%' AND wait_event_type \
                = 'Lock'",
        )
    });
    assert_eq!(admin.text("SELECT count(*) FROM state_progress"), "64");
    holder.run("COMMIT");
    assert!(running.into_iter().all(|one| one.join().unwrap()));
    assert_eq!(admin.text("SELECT count(*) FROM state_progress"), "0");
}
