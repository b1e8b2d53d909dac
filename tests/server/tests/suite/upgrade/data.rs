//! What the step leaves of what was stored, and of what sessions are in the middle of.

use super::{OLD, installed, old_installation, server};
use crate::decoys::{own_functions, tour};
use crate::partitions::partition;
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies};

/// Makes something of every feature, as one who uses the old release.
fn fill(client: &mut Client) {
    for paragraph in include_str!("old.sql").split("\n\n") {
        client.run(paragraph);
    }
}

/// Queries for all that pg_dump would carry, column by column as the tables are now, and for every document by its
/// hash. One version is damaged. What the worker notes of users' indexes and the like comes when it comes.
fn queries(client: &mut Client) -> Vec<String> {
    let tables = client.rows(include_str!("tables.sql"));
    assert!(tables.len() > 25, "{tables:?}");
    let documents = include_str!("documents.sql").split("\n\n");
    tables
        .into_iter()
        .map(|mut row| row.remove(0))
        .chain(documents.map(str::to_owned))
        .collect()
}

fn content(client: &mut Client, queries: &[String]) -> Vec<Vec<Vec<String>>> {
    queries.iter().map(|query| client.rows(query)).collect()
}

/// That all is as it was, query by query.
fn assert_same(client: &mut Client, queries: &[String], before: &[Vec<Vec<String>>], case: &str) {
    for (query, before) in queries.iter().zip(before) {
        assert_eq!(&client.rows(query), before, "{case}: {query}");
    }
}

fn await_written(client: &mut Client) {
    eventually("the worker to write", || {
        client.number("SELECT count(*) FROM state_cache_unwritten") == 0
    });
}

/// What was begun under the old release goes on.
fn go_on(client: &mut Client) {
    for sql in [
        "SELECT state_save('deltas', document(41), class => 'all', label => 'l41')",
        "SELECT state_set('few', document(41), class => 'few'), state_set('held', document(41), class => 'one')",
        "SELECT state_recover('hurt')",
        "SELECT state_set('k1', '2'), state_set('k4', '2'), state_delete('k5')",
        "BEGIN; SELECT state_renew('k5', token, '901 days'), state_fence('k5', token) FROM state_lease
             WHERE key = 'k5'; SELECT state_set('k5', '3'); COMMIT",
        "SELECT state_log_append('k7', '[4]', 'r', '{c}')",
        "SELECT state_conflict_resolve(id, '4', 'because') FROM state_conflict WHERE run_id = 'r'",
        "BEGIN; SELECT state_context_fence('r', token) FROM state_claim WHERE run_id = 'r';
             SELECT state_context_set('r', 'z', '1'); COMMIT",
        "SELECT * FROM state_context_complete('c')",
        "SELECT state_context_release('r', token) FROM state_claim WHERE run_id = 'r'",
        "SELECT * FROM state_context_complete('r')",
        "SELECT state_job_renew_tasks('j', ARRAY[task_id], token, '901 days') FROM state_task
             WHERE job_id = 'j' AND token IS NOT NULL",
        "SELECT * FROM state_job_update_tasks('j', '[{\"task_id\": \"b\", \"status\": \"completed\"}]')",
        "SELECT state_budget_settle('h3', 3), state_budget_void('h4'), state_budget_reserve('b', 'a', 1, 'new')",
        "UPDATE items SET v = 'new' WHERE id = 3",
        "SELECT state_prune('all', keep => 10)",
    ] {
        client.run(sql);
    }
    let nothing = Vec::<Vec<String>>::new();
    assert_eq!(client.text("SELECT state_get('3', 'item')"), "\"new\"");
    assert_eq!(client.text("SELECT state_get('hurt') = document(39)"), "t");
    assert_eq!(client.rows("SELECT * FROM state_budget_verify()"), nothing);
    assert_eq!(client.rows("SELECT * FROM state_job_verify()"), nothing);
    // The damaged version stays where it was, for who looks into it.
    client.run("SELECT state_verify(repair => true)");
    assert_eq!(client.rows("SELECT * FROM state_verify()"), nothing);
}

/// Restores a dump into a new database, as one does.
fn restore(server: &Server, dump: &str, database: &str) -> Client {
    server.connect().run(&format!("CREATE DATABASE {database}"));
    server.run_program(
        "psql",
        &[
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname",
            database,
            "--file",
            dump,
        ],
    );
    server.connect_to(database)
}

#[test]
fn all_that_was_stored_stays_and_goes_on() {
    let server = server(&["state_cache.flush_interval = '10ms'"]);
    server.connect().run("CREATE ROLE app");
    for layout in ["plain", "partitioned"] {
        let mut admin = old_installation(&server, layout);
        fill(&mut admin);
        if layout == "partitioned" {
            admin.run("DROP INDEX of_writer");
            partition(&mut admin);
            admin.run("CREATE INDEX of_writer ON state_snapshot (writer)");
        }
        await_written(&mut admin);
        let queries = queries(&mut admin);
        let before = content(&mut admin, &queries);
        assert!(before.iter().map(Vec::len).sum::<usize>() > 500);
        let dump = server.host().join(layout);
        let dump = dump.to_str().unwrap();
        // One session has plans and a catalog of its own, one has a batch open, one a snapshot.
        let (mut plans, mut batch, mut snapshot) = (
            server.connect_to(layout),
            server.connect_to(layout),
            server.connect_to(layout),
        );
        plans.run(
            "PREPARE get (text, text) AS SELECT state_get_text($1, $2);
             PREPARE put (text) AS SELECT state_set($1, '\"by plan\"')",
        );
        let planned = [
            "EXECUTE get('deltas', 'all')",
            "EXECUTE get('k7', 'left')",
            "EXECUTE get('7', 'item')",
            "EXECUTE get('k1', 'run')",
        ];
        let read: Vec<_> = planned.iter().map(|sql| plans.rows(sql)).collect();
        plans.run("EXECUTE put('plan')");
        plans.run("SELECT state_delete('plan')");
        plans.run("DELETE FROM state_head WHERE key = 'plan'");
        batch.run(
            "BEGIN; SELECT state_batch_begin('reapply');
             SELECT state_set('staged', '1'), state_merge('k9', '{\"staged\": true}'),
                 state_set('k9', '\"staged\"', class => 'left')",
        );
        snapshot.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let seen = snapshot
            .rows("SELECT class, key, state_version(key, class) FROM state_head WHERE key <> 'hurt' ORDER BY 1, 2");
        let before = content(&mut admin, &queries);
        let cursor = admin.cursor();
        // What is restored has no partitions yet.
        server.run_program(
            "pg_dump",
            &[
                "--load-via-partition-root",
                "--dbname",
                layout,
                "--file",
                dump,
            ],
        );

        admin.run(
            "BEGIN; ALTER EXTENSION state_cache UPDATE; SELECT state_set('undone', '1'); ROLLBACK",
        );
        assert_eq!(installed(&mut admin), OLD);
        assert_same(&mut admin, &queries, &before, "taken back");
        admin.run("ALTER EXTENSION state_cache UPDATE");
        assert_eq!(
            installed(&mut admin),
            admin.text("SELECT state_cache_version()")
        );
        assert_same(&mut admin, &queries, &before, "here");
        let mut new = server.connect_to(layout);
        assert_same(&mut new, &queries, &before, "in a new session");

        let again: Vec<_> = planned.iter().map(|sql| plans.rows(sql)).collect();
        assert_eq!(again, read);
        assert_same(&mut plans, &queries, &before, "in an old session");
        plans.run("EXECUTE put('plan')");
        assert_eq!(new.text("SELECT state_get('plan')"), "\"by plan\"");
        let sees = snapshot
            .rows("SELECT class, key, state_version(key, class) FROM state_head WHERE key <> 'hurt' ORDER BY 1, 2");
        assert_eq!(sees, seen);
        snapshot.run("COMMIT");
        batch.run("SELECT state_batch_commit()");
        batch.run("SELECT state_set('staged', '2'); COMMIT");
        assert_eq!(
            new.rows("SELECT state_get('staged'), state_get_path('k9', '{staged}'), state_get('k9', 'left')"),
            [["2", "true", "\"staged\""]]
        );
        // Who catches up from before the step misses nothing, and nothing else has changed.
        await_written(&mut new);
        assert_eq!(
            new.rows(&format!(
                "SELECT DISTINCT class, key FROM state_changes('{cursor}') WHERE class <> 'item' ORDER BY 1, 2"
            )),
            [
                ["left", "k9"],
                ["run", "k9"],
                ["run", "plan"],
                ["run", "staged"]
            ]
        );
        go_on(&mut plans);
        assert_eq!(inconsistencies(&mut new), Vec::<Vec<String>>::new());

        // The dump was made of the old release; what restores it is new.
        let mut restored = restore(&server, dump, &format!("{layout}_restored"));
        assert_eq!(installed(&mut restored), installed(&mut new));
        assert_same(&mut restored, &queries, &before, "restored");
        go_on(&mut restored);
    }
}

#[test]
fn the_library_does_all_that_the_old_release_offers() {
    let server = server(&[]);
    let names = |client: &mut Client| -> Vec<String> {
        let functions = own_functions(client);
        functions.into_iter().map(|mut row| row.remove(0)).collect()
    };
    let mut admin = server.connect();
    admin.run("CREATE EXTENSION state_cache");
    let now = names(&mut admin);
    admin.run("CREATE DATABASE old");
    let mut client = server.connect_to("old");
    client.run(&format!(
        "CREATE SCHEMA target; CREATE EXTENSION state_cache SCHEMA target VERSION '{OLD}';
         ALTER DATABASE old SET search_path = target, public"
    ));
    let old = names(&mut client);
    let later: Vec<String> = now.into_iter().filter(|name| !old.contains(name)).collect();
    let mut client = server.connect_to("old");
    tour::run_without(&mut client, "old", &later);
    partition(&mut client);
    tour::run_without(&mut client, "partitioned", &later);
    let missed: Vec<_> = names(&mut client)
        .into_iter()
        .filter(|name| !tour::covers_without(name, &later))
        .collect();
    assert_eq!(missed, Vec::<String>::new());
    // The same session goes on under the new release.
    client.run("ALTER EXTENSION state_cache UPDATE");
    tour::run(&mut client, "updated");
}
