//! Databases that got their runs from elsewhere: from a dump, as a standby, by logical replication.

use super::{begin, go_on};
use crate::replication::applied;
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

/// What the tables and the functions say of runs.
const TABLES: [&str; 4] = [
    "state_context",
    "state_claim",
    "state_conflict",
    "state_outbox",
];
const READS: [&str; 7] = [
    "SELECT run_id, state_context_get(run_id) FROM state_context ORDER BY 1",
    "SELECT run_id, m, state_context_visible(run_id, m) FROM state_context, unnest(ARRAY['public', 'internal', \
        'pii']) m ORDER BY 1, 2",
    "SELECT * FROM state_context_tree('root')",
    "SELECT * FROM state_context_tree('root/a')",
    "SELECT * FROM state_context_list()",
    "SELECT * FROM state_context_list(status => 'running', parent_run_id => 'root')",
    "SELECT * FROM state_blackboard_query('swarm root')",
];

fn said(client: &mut Client) -> Vec<Vec<Vec<String>>> {
    let tables = TABLES.map(|table| format!("SELECT t::text FROM {table} t ORDER BY 1"));
    let queries = tables.into_iter().chain(READS.map(str::to_owned));
    queries
        .map(|query| {
            let rows = client.rows(&query);
            assert!(!rows.is_empty(), "{query}");
            rows
        })
        .collect()
}

/// Calls of everything that changes a run.
const CHANGES: [&str; 25] = [
    "SELECT state_context_create('new')",
    "SELECT state_context_child('root', 'new')",
    "SELECT state_context_set('root', 'plan', '1')",
    "SELECT state_context_set_many('root', '{\"plan\": 1}')",
    "SELECT state_context_append('root', 'new', '1')",
    "SELECT state_context_patch('root', 'plan', '{}')",
    "SELECT state_context_step('root', 'new')",
    "SELECT * FROM state_context_claim_next('somebody')",
    "SELECT state_context_merge('root/b')",
    "SELECT state_conflict_resolve(id, '1', 'no') FROM state_conflict WHERE status = 'open'",
    "SELECT state_context_mark_export('root', 'plan', 'blackboard')",
    "SELECT state_context_unmark_export('root/c', 'right')",
    "SELECT state_blackboard_add('swarm root', 'new', '1')",
    "SELECT state_blackboard_update('swarm root', 'note', '2')",
    "SELECT state_blackboard_remove('swarm root', 'note')",
    "SELECT state_context_complete('root/b')",
    "SELECT state_context_complete('root/b', 'failed')",
    "SELECT state_context_claim('root/b', 'somebody')",
    "SELECT state_context_claim('root/a', 'somebody')",
    "SELECT state_context_renew('root/a', token) FROM state_claim",
    "SELECT state_context_renew('root/a', 0)",
    "SELECT state_context_release('root/a', token) FROM state_claim",
    "SELECT state_context_fence('root/a', token) FROM state_claim",
    "SELECT state_context_spend('root', 'credits', 1)",
    "SELECT state_delete('root/c')",
];

#[test]
fn a_restored_dump_goes_on_with_its_runs() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    begin(&mut original, "root");
    let dump = server.host().join("dump");
    let dump = dump.to_str().unwrap();
    server.run_program(
        "pg_dump",
        &["--dbname=postgres", "--format=custom", "--file", dump],
    );
    original.run("CREATE DATABASE restored");
    server.run_program(
        "pg_restore",
        &["--dbname=restored", "--exit-on-error", dump],
    );

    let mut restored = server.connect_to("restored");
    assert_eq!(said(&mut restored), said(&mut original));
    // Also where several processes restore the tables at once: the rows of runs may come after those of their states.
    for attempt in 0..5 {
        let name = format!("at_once_{attempt}");
        original.run(&format!("CREATE DATABASE {name}"));
        let database = format!("--dbname={name}");
        server.run_program(
            "pg_restore",
            &[&database, "--exit-on-error", "--jobs=4", dump],
        );
        let mut at_once = server.connect_to(&name);
        assert_eq!(said(&mut at_once), said(&mut original));
    }
    go_on(&mut restored, "root");
    begin(&mut restored, "another");
    go_on(&mut restored, "another");
    // The original has not changed, and goes on from the same numbers.
    go_on(&mut original, "root");
}

#[test]
fn a_standby_shows_its_runs_and_goes_on_with_them_once_promoted() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    begin(&mut writer, "root");
    let standby = primary.standby();
    let mut reader = standby.connect();
    assert_eq!(said(&mut reader), said(&mut writer));
    writer.run("SELECT state_context_set('root/b', 'new', '1'); SELECT * FROM state_context_merge('root/b'); SELECT \
        state_context_child('root/b', 'root/b/c')");
    standby.catch_up_with(&primary);
    assert_eq!(said(&mut reader), said(&mut writer));
    for change in CHANGES {
        assert_eq!(reader.error(change), "25006", "{change}");
    }
    assert_eq!(said(&mut reader), said(&mut writer));

    let highest = writer.number("SELECT max(token) FROM state_claim");
    assert!(reader.flag("SELECT pg_promote()"));
    eventually("the promotion", || {
        !reader.flag("SELECT pg_is_in_recovery()")
    });
    drop(primary);
    let token = reader.number("SELECT state_context_claim('root/b', 'somebody')");
    assert!(token > highest, "token {token} after {highest}");
    begin(&mut reader, "another");
    go_on(&mut reader, "another");
}

#[test]
fn a_subscriber_shows_the_runs_that_it_is_sent() {
    let (source, target) = (Server::new(&["wal_level = logical"]), Server::new(&[]));
    let (mut publisher, mut subscriber) = (source.connect(), target.connect());
    begin(&mut publisher, "root");
    publisher.run("CREATE PUBLICATION states FOR TABLE state_head, state_snapshot, state_context, state_claim, \
        state_conflict, state_outbox");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION states CONNECTION 'host={} port=5432 user=postgres dbname=postgres' PUBLICATION states",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    assert_eq!(said(&mut subscriber), said(&mut publisher));
    for change in [
        "SELECT state_context_child('root/b', 'root/b/c')",
        "SELECT state_context_set('root/b/c', 'plan', '2'); SELECT * FROM state_context_merge('root/b/c')",
        "SELECT state_context_spend('root/b', 'credits', 1.25)",
        "SELECT state_context_claim('root/b', 'somebody')",
        "SELECT * FROM state_context_complete('root/b/c')",
        "SELECT state_conflict_resolve(id, '1', 'so') FROM state_conflict WHERE status = 'open'",
        "SELECT state_blackboard_update('swarm root', 'note', '2')",
        "SELECT state_delete('root/b/c')",
    ] {
        publisher.run(change);
        applied(&mut publisher);
        assert_eq!(said(&mut subscriber), said(&mut publisher), "{change}");
    }
    // On its own it goes on. What PostgreSQL does not replicate is where the sequences are.
    subscriber.run("DROP SUBSCRIPTION states");
    subscriber.run(
        "SELECT setval('state_claim_token', max(token)) FROM state_claim;
         SELECT setval('state_conflict_id_seq', max(id)) FROM state_conflict;
         SELECT setval('state_outbox_id_seq', max(id)) FROM state_outbox",
    );
    assert_eq!(
        subscriber
            .text("SELECT reason FROM state_context_merge('root/b') WHERE variable = 'right'"),
        "only the child changed it"
    );
    begin(&mut subscriber, "another");
    go_on(&mut subscriber, "another");
}
