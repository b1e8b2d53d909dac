//! Documents that head rows hold, in classes that keep one version: what a change writes, what plain SQL reads, what
//! the worker does, and what PostgreSQL itself cannot read.

use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, eventually, inconsistencies};

/// What the tables have counted since the server started.
fn written(client: &mut Client) -> [i64; 3] {
    client.run("SELECT pg_stat_force_next_flush()");
    [
        "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'state_head'",
        "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'state_head'",
        "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'state_snapshot'",
    ]
    .map(|sql| client.number(sql))
}

const KEYS: i64 = 50;
const CHANGES: i64 = 2000;

/// One document after the other, each in a transaction of its own, in both write modes; a document of a kilobyte is
/// in the row itself, one of ten is not.
#[test]
fn a_change_updates_one_row_and_touches_no_index() {
    for (mode, hashes) in [("through", 30), ("through", 300), ("behind", 30)] {
        // A worker's snapshot keeps old rows from being pruned: only where it writes is there one.
        let workers = if mode == "behind" { 1 } else { 0 };
        let server = Server::new(&[
            "autovacuum = off",
            "state_cache.flush_interval = '10ms'",
            &format!("state_cache.max_workers = {workers}"),
        ]);
        let mut client = server.connect();
        client.run(&format!(
            "SELECT state_class_define('one', write_mode => '{mode}');
             SELECT state_set('k' || n, '0', class => 'one') FROM generate_series(1, {KEYS}) n"
        ));
        client.run("SELECT state_flush('one')");
        let [updates, hot, snapshots] = written(&mut client);
        client.run(&format!(
            "DO $$ BEGIN FOR n IN 1..{CHANGES} LOOP
                PERFORM state_set('k' || 1 + n % {KEYS}, jsonb_build_object('n', n, 'log',
                    (SELECT jsonb_agg(md5((n * i)::text)) FROM generate_series(1, {hashes}) i)), class => 'one');
                COMMIT;
            END LOOP; END $$"
        ));
        client.run("SELECT state_flush('one')");
        // Of a `behind` class only the newest versions are written, some by the worker, which says so a second later.
        let least = if mode == "behind" { 1 } else { CHANGES };
        let mut now = [0; 3];
        eventually("the updates to be counted", || {
            now = written(&mut client);
            now[0] - updates >= least
        });
        let [updates_now, hot_now, snapshots_now] = now;
        let (updates, hot) = (updates_now - updates, hot_now - hot);
        // The first change of each state makes its row larger, and may move it to another page.
        assert!(
            updates - hot <= KEYS + updates / 10,
            "{mode}, {hashes}: {hot} of {updates} updates were HOT"
        );
        assert_eq!(snapshots_now, snapshots, "{mode}, {hashes}");
        assert_eq!(
            client.number("SELECT count(*) FROM state_head WHERE state IS NULL"),
            0
        );
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
}

fn plan(client: &mut Client, sql: &str) -> String {
    let rows = client.rows(&format!("EXPLAIN (COSTS OFF) {sql}"));
    rows.concat().join("\n")
}

#[test]
fn a_view_looks_a_state_up_whichever_row_holds_it() {
    let server = Server::new(&["autovacuum = off"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('one'), state_class_define('all', keep => 0)");
    client.run(
        "DO $$ BEGIN FOR n IN 1..30 LOOP
            PERFORM state_set('k' || i, to_jsonb(n), class => c)
                FROM generate_series(1, 300) i, unnest('{one,all}'::text[]) c;
            COMMIT;
        END LOOP; END $$",
    );
    client.run("ANALYZE state_head, state_snapshot");
    for (class, kept) in [("one", 1), ("all", 30)] {
        let of = format!("class = '{class}' AND key = 'k7'");
        for (view, versions) in [("state_current", 1), ("state_kept", kept)] {
            let sql = format!("SELECT state FROM {view} WHERE {of}");
            assert_eq!(client.rows(&sql).len(), versions, "{sql}");
            let plan = plan(&mut client, &sql);
            assert!(!plan.contains("Seq Scan"), "{plan}");
        }
        assert_eq!(
            client.number(&format!(
                "SELECT sum(state::int) FROM state_current WHERE class = '{class}'"
            )),
            9000
        );
    }
    // The version is looked up too: a state has many.
    let current = plan(
        &mut client,
        "SELECT state FROM state_current WHERE class = 'all' AND key = 'k7'",
    );
    let looked_up = current
        .lines()
        .any(|line| line.contains("Index Cond") && line.contains("version"));
    assert!(looked_up, "{current}");
}

#[test]
fn what_expires_stays_as_a_snapshot_where_the_class_keeps_more_by_then() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run(
        "CREATE FUNCTION state_cache_test_expire() RETURNS boolean LANGUAGE c AS '$libdir/state_cache';
         SELECT state_class_define('gone'), state_class_define('kept');
         SELECT state_set('k', '1', ttl => '1 hour', class => c) FROM unnest('{gone,kept}'::text[]) c;
         SELECT state_class_define('kept', keep => 2)",
    );
    client.run("UPDATE state_head SET expires_at = clock_timestamp() - interval '1 second'");
    client.run("SELECT state_cache_test_expire()");
    assert_eq!(
        client.rows(
            "SELECT class, version, deleted, state IS NULL,
                ARRAY(SELECT k.version FROM state_history('k', h.class) k)::text
             FROM state_head h ORDER BY class"
        ),
        [
            ["gone", "2", "t", "t", "{}"],
            ["kept", "2", "t", "t", "{1}"]
        ]
    );
    assert_eq!(
        client.text("SELECT state_restore('k', 1, class => 'kept')"),
        "3"
    );
    assert_eq!(client.text("SELECT state_get('k', 'kept')"), "1");
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

/// A server on which version 2 of `k`, in the head row, is stored out of line and nothing of that is there any more;
/// version 1 is a recovery point.
fn with_lost_document() -> Server {
    let server = Server::new(&["autovacuum = off"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('one')");
    client
        .run("SELECT * FROM state_save('k', '{\"n\": 1}', recovery_point => true, class => 'one')");
    client.run(&format!(
        "SELECT * FROM state_save('k', '{{\"n\": 2, \"text\": \"{}\"}}', 'manual', class => 'one')",
        Dice::new(7).digits(60_000)
    ));
    client.run("CHECKPOINT");
    let toast =
        client.text("SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'state_head'");
    let file = client.text(&format!("SELECT pg_relation_filepath('{toast}')"));
    let blocks = client.rows(&format!(
        "SELECT DISTINCT (ctid::text::point)[0]::bigint FROM {toast}"
    ));
    drop(client);
    server.stop();
    assert!(blocks.len() > 1);
    for block in &blocks {
        server.lose_block(&file, block[0].parse().unwrap());
    }
    server.start();
    server
}

#[test]
fn a_document_in_the_head_row_that_postgres_cannot_read_is_found_and_repaired() {
    let server = with_lost_document();
    let mut client = server.connect();
    assert_eq!(client.error("SELECT state_get('k', 'one')"), "XX001");
    assert_eq!(client.error("SELECT state_at('k', 2, 'one')"), "XX001");
    assert_eq!(
        client.rows("SELECT version, encoding FROM state_history('k', 'one')"),
        [["2", "whole"], ["1", "whole"]]
    );
    client.run("SET state_cache.on_corruption = recover");
    assert_eq!(client.text("SELECT state_get('k', 'one') -> 'n'"), "1");
    client.run("RESET state_cache.on_corruption");
    let findings = |client: &mut Client, repair: bool| {
        client.rows(&format!(
            "SELECT key, version, fault LIKE 'missing chunk number 0 for toast value %'
             FROM state_verify('one', repair => {repair})"
        ))
    };
    assert_eq!(findings(&mut client, false), [["k", "2", "t"]]);
    assert_eq!(findings(&mut client, true), [["k", "2", "t"]]);
    assert!(findings(&mut client, false).is_empty());
    assert_eq!(
        client.rows(
            "SELECT version, parent_version, checkpoint_type, state IS NULL FROM state_damaged"
        ),
        [["2", "1", "manual", "t"]]
    );
    assert_eq!(client.text("SELECT state_get('k', 'one') -> 'n'"), "1");
    assert_eq!(client.text("SELECT state_version('k', 'one')"), "3");
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn a_state_goes_back_from_a_head_row_that_postgres_cannot_read_or_ends() {
    let server = with_lost_document();
    let mut client = server.connect();
    client.run("BEGIN");
    assert_eq!(
        client.rows("SELECT action, version, from_version FROM state_recover('k', class => 'one')"),
        [["recovered", "3", "1"]]
    );
    client.run("ROLLBACK; SET state_cache.on_corruption = recover");
    client.run("SELECT state_delete('k', class => 'one')");
    assert_eq!(
        client.rows("SELECT version FROM state_history('k', 'one')"),
        [["1"]]
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}
