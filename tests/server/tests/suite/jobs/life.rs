//! What a job outlives, and what ends it.

use super::wrong;
use crate::replication::applied;
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

/// None.
const NOTHING: Vec<Vec<String>> = Vec::new();

/// A job with tasks of every status, another one, and one that has ended.
fn make(client: &mut Client) {
    client.run(
        "SELECT state_job_create('big', (SELECT jsonb_agg(jsonb_build_object('task_id', 't' || n, 'agent_name',
            CASE WHEN n % 3 = 0 THEN 'writer' END, 'input', repeat('x', n))) FROM generate_series(1, 2500) n)),
         state_job_create('small', '[\"a\", \"b\"]', '{\"max_attempts\": 7}'), state_job_create('done', '[\"a\"]'),
         state_job_create('empty')",
    );
    client.run(
        "SELECT state_job_update_tasks('big', (SELECT jsonb_agg(jsonb_build_object('task_id', 't' || n,
            'status', status, 'result', n))
            FROM generate_series(1, 500) n, unnest(ARRAY[(ARRAY['running', 'completed', 'failed',
            'cancelled'])[1 + n % 4]]) status))",
    );
    client.run("SELECT state_job_update_tasks('done', '[{\"task_id\": \"a\", \"status\": \"completed\"}]')");
    client.run("SELECT state_job_claim_tasks('writer', 20, '1 hour', 'big')");
}

fn summary(client: &mut Client, job: &str) -> String {
    client.text(&format!("SELECT state_job_summary('{job}')"))
}

/// Kills the backend at a point of the commit of an update; the summary before, and after.
fn killed_at(point: &str) -> [String; 2] {
    let server = Server::new(&["fsync = on"]);
    let mut client = server.connect();
    make(&mut client);
    let before = summary(&mut client, "small");
    let times_up = server.times_up();
    client.run(&format!(
        "BEGIN; SET LOCAL state_cache.test_kill_at = '{point}'"
    ));
    client.run("SELECT state_job_update_tasks('small', '[{\"task_id\": \"a\", \"status\": \"completed\"}]')");
    client.run("SELECT state_job_add_tasks('small', '[\"c\"]')");
    assert_eq!(client.error("COMMIT"), "connection lost");
    server.await_recovery(times_up);
    let mut client = server.connect();
    assert_eq!(wrong(&mut client), NOTHING);
    let after = summary(&mut client, "small");
    client.run("SELECT state_job_cancel('small')");
    assert_eq!(wrong(&mut client), NOTHING);
    [before, after]
}

#[test]
fn a_crash_before_the_commit_takes_rows_and_counts_together() {
    for point in ["after_flush", "marked"] {
        let [before, after] = killed_at(point);
        assert_eq!(before, after, "{point}");
    }
}

#[test]
fn a_crash_after_the_commit_leaves_rows_and_counts_together() {
    let [before, after] = killed_at("visible");
    assert_ne!(before, after);
    assert!(
        after.contains("\"total\": 3") && after.contains("\"completed\": 1"),
        "{after}"
    );
}

#[test]
fn a_restored_dump_counts_no_task_twice() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    make(&mut original);
    original.run("INSERT INTO state_task (job_id, task_id) VALUES ('small', 'by hand')");
    assert_eq!(wrong(&mut original), NOTHING);
    let rows = "SELECT t::text FROM state_task t ORDER BY 1";
    let jobs = "SELECT key, state_get(key, class) FROM state_head WHERE class = 'job' ORDER BY 1";
    let versions = "SELECT key, version FROM state_head WHERE class = 'job' ORDER BY 1";
    let dump = server.host().join("dump");
    let dump = dump.to_str().unwrap();
    // COPY; rows by INSERT, each a transaction of its own; several tables at a time.
    for (name, how) in [
        ("copied", "--format=plain"),
        ("inserted", "--rows-per-insert=300"),
        ("parallel", "--format=custom"),
    ] {
        server.run_program("pg_dump", &["--dbname=postgres", how, "--file", dump]);
        original.run(&format!("CREATE DATABASE {name}"));
        let to = format!("--dbname={name}");
        match name {
            "parallel" => {
                server.run_program("pg_restore", &["--exit-on-error", "--jobs=4", &to, dump])
            }
            _ => server.run_program(
                "psql",
                &[
                    "--no-psqlrc",
                    "--quiet",
                    "--set=ON_ERROR_STOP=1",
                    &to,
                    "--file",
                    dump,
                ],
            ),
        };
        let mut restored = server.connect_to(name);
        assert_eq!(wrong(&mut restored), NOTHING, "{name}");
        assert_eq!(original.rows(rows), restored.rows(rows), "{name}");
        assert_eq!(original.rows(jobs), restored.rows(jobs), "{name}");
        if name != "inserted" {
            // What was right already is not written again.
            assert_eq!(original.rows(versions), restored.rows(versions), "{name}");
        }
        // It goes on: tokens and positions are greater than all before.
        restored.run("SELECT state_job_add_tasks('small', '[\"last\"]')");
        assert!(restored.flag(
            "SELECT position = max(position) OVER () FROM state_task
             ORDER BY task_id = 'last' DESC LIMIT 1"
        ));
        assert!(restored.flag(
            "SELECT min(token) > (SELECT max(token) FROM state_task)
             FROM state_job_claim_tasks('new', 3, job_id => 'small')"
        ));
        assert_eq!(wrong(&mut restored), NOTHING, "{name}");
        let missing = "SELECT statement FROM state_protections() WHERE NOT present";
        assert_eq!(restored.rows(missing), NOTHING, "{name}");
        assert_eq!(
            restored.rows("SELECT statement FROM state_protections_here()"),
            NOTHING,
            "{name}"
        );
    }
}

#[test]
fn a_subscriber_has_the_counts_of_its_publisher() {
    let target = Server::new(&[]);
    let source = Server::new(&["wal_level = logical"]);
    let (mut publisher, mut subscriber) = (source.connect(), target.connect());
    make(&mut publisher);
    publisher.run("CREATE PUBLICATION jobs FOR TABLE state_head, state_snapshot, state_task");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION jobs CONNECTION 'host={} port=5432 user=postgres dbname=postgres' PUBLICATION jobs",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    let jobs =
        "SELECT key, version, state_get(key, class) FROM state_head WHERE class = 'job' ORDER BY 1";
    for n in 0..50 {
        publisher.run(&format!(
            "BEGIN; SELECT state_job_add_tasks('small', '[\"n{n}\"]');
             SELECT state_job_update_tasks('small', '[{{\"task_id\": \"n{n}\", \"status\": \"running\"}}]');
             INSERT INTO state_task (job_id, task_id, status) VALUES ('small', 'h{n}', 'failed');
             UPDATE state_task SET status = 'completed' WHERE job_id = 'small' AND task_id = 'n{n}' AND {n} % 2 = 0;
             COMMIT"
        ));
        assert_eq!(wrong(&mut subscriber), NOTHING);
    }
    publisher.run("SELECT state_job_cancel('big'), state_delete('empty', class => 'job')");
    applied(&mut publisher);
    assert_eq!(wrong(&mut subscriber), NOTHING);
    assert_eq!(publisher.rows(jobs), subscriber.rows(jobs));
    let total = subscriber.number("SELECT (state_job_summary('small')->'total')::bigint");
    assert_eq!(total, 102);
}

#[test]
fn a_job_that_has_ended_goes_with_its_tasks_after_the_retention() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    make(&mut client);
    client.run("SELECT state_class_define('job', keep_for => '1 second')");
    client.run("SELECT state_job_cancel('big'), state_job_cancel('empty')");
    eventually("the job to expire", || {
        !client.flag("SELECT state_exists('big', 'job')")
    });
    eventually("its tasks to go", || {
        client.number("SELECT count(*) FROM state_task WHERE job_id = 'big'") == 0
    });
    eventually("nothing to be left", || {
        client.number("SELECT count(*) FROM state_task_left") == 0
    });
    assert!(!client.flag("SELECT state_exists('empty', 'job')"));
    // A job that has not ended stays, and one that ended before keeps the retention of that time.
    assert!(client.flag("SELECT state_exists('small', 'job') AND state_exists('done', 'job')"));
    assert_eq!(wrong(&mut client), NOTHING);
    // No transaction of the worker has deleted more than a thousand tasks, beside those of the expiry itself.
    let most = "SELECT count(*) FROM state_task WHERE job_id = 'small'";
    assert_eq!(client.number(most), 2);
}

#[test]
fn a_large_job_is_deleted_in_small_steps_and_can_be_created_anew_at_once() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    make(&mut client);
    let tasks = "SELECT count(*) FROM state_task WHERE job_id = 'big'";
    // A thousand go with the commit, and the worker comes for the rest.
    client.run("BEGIN; SELECT state_delete('big', class => 'job'); SELECT state_batch_commit()");
    assert_eq!(client.number(tasks), 1500);
    assert_eq!(client.text("SELECT job_id FROM state_task_left"), "big");
    client.run("COMMIT");
    eventually("the worker to delete the rest", || {
        client.number(tasks) == 0
    });
    eventually("nothing to be left", || {
        client.number("SELECT count(*) FROM state_task_left") == 0
    });
    // One that is created anew before the worker comes, which then leaves it alone.
    make_again(&mut client);
    client.run("SELECT state_delete('big', class => 'job')");
    client.run("SELECT state_job_create('big', '[\"t1\", \"new\"]')");
    assert_eq!(client.number(tasks), 2);
    eventually("nothing to be left", || {
        client.number("SELECT count(*) FROM state_task_left") == 0
    });
    assert_eq!(client.number(tasks), 2);
    assert_eq!(wrong(&mut client), NOTHING);
}

fn make_again(client: &mut Client) {
    client.run("SELECT state_job_create('big', (SELECT jsonb_agg('t' || n) FROM generate_series(1, 2500) n))");
}

#[test]
fn the_worker_ends_what_nobody_may_try_again() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_job_create('lost', '[\"a\", \"b\"]', '{\"max_attempts\": 1}')");
    client.run("SELECT state_job_claim_tasks('gone', 1, '1 second', 'lost')");
    eventually("the task to fail", || {
        client.flag("SELECT (state_job_summary('lost')->>'failed')::integer = 1")
    });
    assert_eq!(
        client.text(
            "SELECT error->>'reason' FROM state_task WHERE job_id = 'lost' AND status = 'failed'"
        ),
        "started 1 times, which is as often as the job allows"
    );
    assert_eq!(wrong(&mut client), NOTHING);
}

/// One step of what the worker does for jobs that are gone, killed before its commit: nothing has changed.
fn cleaning_killed(server: &Server) {
    const SAID: &str =
        "SELECT (SELECT count(*) FROM state_task), (SELECT array_agg(job_id) FROM state_task_left)";
    let mut client = server.connect();
    let said = client.rows(SAID);
    let times_up = server.times_up();
    client.run("SET state_cache.test_kill_at = 'left_tasks_deleted'");
    assert_eq!(
        client.error("SELECT state_job_test_delete_left()"),
        "connection lost"
    );
    server.await_recovery(times_up);
    assert_eq!(server.connect().rows(SAID), said);
}

#[test]
fn a_backend_killed_while_it_cleans_up_after_a_deleted_job_leaves_it_to_the_next() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    make(&mut client);
    client.run(
        "CREATE FUNCTION state_job_test_delete_left() RETURNS boolean LANGUAGE c AS '$libdir/state_cache';
        SELECT state_delete('big', class => 'job')",
    );
    // The first step deletes tasks; a later one, when the first have gone; the last forgets the job.
    cleaning_killed(&server);
    let mut client = server.connect();
    let left = "SELECT count(*) FROM state_task WHERE job_id = 'big'";
    assert!(client.flag("SELECT state_job_test_delete_left()"));
    let after_one = client.number(left);
    assert!((1..2500).contains(&after_one), "{after_one}");
    cleaning_killed(&server);
    let mut client = server.connect();
    while client.number(left) > 0 {
        assert!(client.flag("SELECT state_job_test_delete_left()"));
    }
    cleaning_killed(&server);
    let mut client = server.connect();
    assert!(client.flag("SELECT state_job_test_delete_left()"));
    assert!(!client.flag("SELECT state_job_test_delete_left()"));
    assert_eq!(client.number("SELECT count(*) FROM state_task_left"), 0);
    assert_eq!(client.number("SELECT count(*) FROM state_task"), 3);
    assert_eq!(wrong(&mut client), NOTHING);
}
