//! Runs in a `behind` class: what must hold at once holds at once.

use super::{begin, go_on};
use crate::behind::{LONG, await_accepting};
use postgres::Client;
use state_cache_server_tests::{Server, Sql};

const DEFINE: &str = "SELECT state_class_define('run', write_mode => 'behind'), state_class_define('left', \
    write_mode => 'behind')";

/// A server whose runs are left to a worker that does not come by itself.
fn server() -> (Server, Client) {
    let server = Server::new(&[LONG, "fsync = on"]);
    let mut client = server.connect();
    client.run(DEFINE);
    await_accepting(&mut client);
    (server, client)
}

/// Whether L3 has not the newest version of a run.
fn is_unwritten(client: &mut Client, run: &str) -> bool {
    client.flag(&format!(
        "SELECT EXISTS (SELECT FROM state_cache_unwritten WHERE class = 'run' AND key = '{run}')"
    ))
}

fn stored(client: &mut Client, run: &str, field: &str) -> String {
    client.text(&format!(
        "SELECT state #>> '{{{field}}}' FROM state_current WHERE class = 'run' AND key = '{run}'"
    ))
}

#[test]
fn runs_left_to_the_worker_keep_all_rules() {
    let (server, mut client) = server();
    begin(&mut client, "root");
    go_on(&mut server.connect(), "root");
}

#[test]
fn the_end_of_a_run_is_written_at_once() {
    let (server, mut client) = server();
    client.run("SELECT state_context_create('root', inputs => '{\"plan\": 1}')");
    client.run("SELECT state_context_child('root', 'child')");
    client.run("SELECT state_context_set('child', 'plan', '2')");
    assert!(is_unwritten(&mut client, "child"), "a variable may wait");
    assert_eq!(stored(&mut client, "child", "variables,plan,value"), "1");
    client.run(
        "SELECT state_context_mark_export('child', 'plan', 'parent_context');
         SELECT state_context_mark_export('child', 'plan', 'external_system', target => 'mail');
         SELECT * FROM state_context_complete('child')",
    );
    assert!(!is_unwritten(&mut client, "child"));
    assert_eq!(stored(&mut client, "child", "status"), "completed");
    assert_eq!(stored(&mut client, "child", "variables,plan,value"), "2");
    assert_eq!(
        client.text("SELECT state_context_get('root') #>> '{variables,plan,value}'"),
        "2"
    );

    server.kill_everything();
    server.start();
    let mut client = server.connect();
    assert_eq!(
        client.text("SELECT state_context_get('child') ->> 'status'"),
        "completed"
    );
    assert_eq!(
        client.number("SELECT count(*) FROM state_outbox WHERE run_id = 'child'"),
        1
    );
}

#[test]
fn what_a_completion_hands_on_is_written_with_it() {
    let (server, mut client) = server();
    client.run("SELECT state_context_create('root', inputs => '{\"plan\": 1}', resource_limits => '{\"maxCredits\": \
        5}')");
    client.run(
        "SELECT state_context_child('root', 'child', resource_limits => '{\"maxCredits\": 2}')",
    );
    client.run("SELECT state_context_set('child', 'plan', '2')");
    client.run("SELECT state_context_spend('child', 'credits', 1)");
    client.run("SELECT state_context_mark_export('child', 'plan', 'parent_context')");
    client.run("SELECT * FROM state_context_complete('child')");
    server.kill_everything();
    server.start();
    let mut client = server.connect();
    assert_eq!(
        client.rows(
            "SELECT c ->> 'status', r #>> '{variables,plan,value}', r #>> '{usage,credits}', r ->> 'reservations'
                FROM state_context_get('child') c, state_context_get('root') r"
        ),
        [["completed", "2", "1", "{}"]]
    );
}

#[test]
fn a_runner_that_lost_its_claim_leaves_nothing_to_the_worker() {
    let (server, mut client) = server();
    let mut thief = server.connect();
    client.run("SELECT state_context_create('root', inputs => '{\"plan\": 0}')");
    let token = client.number("SELECT state_context_claim('root', 'first', '1 day')");
    assert_eq!(
        thief.error("SELECT state_context_claim('root', 'second')"),
        "55P03"
    );
    // Written under the token in one transaction, and held to it at the commit of another.
    client.run(&format!(
        "SELECT state_context_set('root', 'plan', '1', token => {token})"
    ));
    client.run(&format!(
        "BEGIN; SELECT state_context_fence('root', {token}); SELECT state_context_set('root', 'plan', '2')"
    ));
    thief.run("UPDATE state_claim SET expires_at = '-infinity'");
    let stolen = thief.number("SELECT state_context_claim('root', 'second', '1 day')");
    assert_eq!(client.error("COMMIT"), "40001");
    assert_eq!(
        client.error(&format!(
            "SELECT state_context_set('root', 'plan', '3', token => {token})"
        )),
        "40001"
    );
    let plan = "SELECT state_context_get('root') #>> '{variables,plan,value}'";
    assert_eq!(thief.text(plan), "1");
    thief.run(&format!(
        "SELECT state_context_set('root', 'plan', '4', token => {stolen})"
    ));
    assert_eq!(
        client.error(&format!("SELECT state_context_release('root', {token})")),
        "40001"
    );
    thief.run("SELECT state_flush()");
    assert_eq!(stored(&mut thief, "root", "variables,plan,value"), "4");
    assert_eq!(client.text(plan), "4");
}
