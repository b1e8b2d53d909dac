//! Crashes while a run ends or is merged: all of it has happened or nothing, its exports, its row in the outbox, the
//! conflicts, the limits and the state it leaves.

use postgres::Client;
use state_cache_server_tests::{RaiseOnDrop, Server, Sql, eventually, inconsistencies};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where a backend is killed, and whether its transaction has committed by then. The first is within the statement,
/// when the tables beside the states have been written.
const POINTS: [(&str, bool); 5] = [
    ("class_known", false),
    ("after_flush", false),
    ("told", false),
    ("marked", false),
    ("visible", true),
];

/// A child that is about to end, with an export to every destination and a conflict.
fn family(client: &mut Client) {
    client.run(
        "SELECT state_class_define('kept');
         SELECT state_context_create('root', inputs => '{\"free\": 1, \"both\": 1}', resource_limits => \
         '{\"maxCredits\": 10}', swarm_id => 'swarm')",
    );
    client.run(
        "SELECT state_context_child('root', 'child', resource_limits => '{\"maxCredits\": 4}')",
    );
    client.run("SELECT state_context_set_many('child', '{\"free\": 2, \"both\": 2}')");
    client.run("SELECT state_context_set('root', 'both', '3')");
    client.run("SELECT state_context_spend('child', 'credits', 1.5)");
    client.run(
        "SELECT state_context_mark_export('child', 'free', 'parent_context');
         SELECT state_context_mark_export('child', 'both', 'parent_context');
         SELECT state_context_mark_export('child', 'free', 'blackboard');
         SELECT state_context_mark_export('child', 'free', 'persistent_store', target => 'kept');
         SELECT state_context_mark_export('child', 'free', 'external_system', target => 'mail')",
    );
    client.run("SELECT state_context_claim('child', 'runner', '1 day')");
}

/// All that the end of the child or its merge changes.
const PICTURE: &str = "SELECT jsonb_build_array(
        state_get('child') - 'completedAt', state_get('root'), state_get('child/free', 'kept'),
        state_get('swarm', 'swarm') #> '{blackboard,free,value}',
        (SELECT jsonb_agg(jsonb_build_array(key, target, value) ORDER BY id) FROM state_outbox),
        (SELECT jsonb_agg(jsonb_build_array(run_id, variable, status, parent_value, child_value) ORDER BY id) FROM \
        state_conflict),
        (SELECT jsonb_agg(to_jsonb(c) - 'created_at' ORDER BY run_id) FROM state_context c),
        (SELECT jsonb_agg(owner ORDER BY token) FROM state_claim),
        (SELECT jsonb_agg(jsonb_build_array(class, key, version, recovery_point) ORDER BY class, key, version) FROM \
        state_kept))";

/// Conflicts are named by a sequence, which a crash need not take back.
const UNNUMBERED: &str =
    "SELECT regexp_replace(($1), '\"conflicts\": \\{\"both\": \\[\\d+\\]\\}', '\"conflicts\": 1')";

fn picture(client: &mut Client) -> String {
    let picture = client.text(PICTURE);
    client.query_one(UNNUMBERED, &[&picture]).unwrap().get(0)
}

/// What is there once `change` has happened.
fn after(change: &str) -> (String, Vec<Vec<String>>) {
    let server = Server::new(&[]);
    let mut client = server.connect();
    family(&mut client);
    client.run(change);
    (picture(&mut client), parts(&mut client))
}

/// The parts by themselves, so that a test says what is missing.
fn parts(client: &mut Client) -> Vec<Vec<String>> {
    client.rows(
        "SELECT state_get('child') ->> 'status', state_get('root') #>> '{variables,free,value}',
            state_get('root') #> '{conflicts,both}' IS NOT NULL, state_get('root') #>> '{usage,credits}', \
            state_get('root') ->> 'reservations',
            (SELECT count(*) FROM state_outbox), (SELECT count(*) FROM state_conflict), state_get('child/free', \
            'kept')",
    )
}

/// Documents hold times, which no two servers have in common.
fn without_times(picture: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(picture).unwrap();
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(members) => {
                members.retain(|name, _| {
                    !["timestamp", "createdAt", "completedAt"].contains(&&**name)
                });
                members.values_mut().for_each(strip);
            }
            serde_json::Value::Array(elements) => elements.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value.to_string()
}

/// Kills a backend at each point of `change`, and looks at what is there.
fn killed_within(change: &str, expected: &[&str]) {
    let (whole, whole_parts) = after(change);
    assert_eq!(whole_parts, [expected]);
    for (point, has_committed) in POINTS {
        // With the commit, or the point at which a transaction tells is passed by.
        let server = Server::new(&["fsync = on", "state_cache.notify = commit"]);
        let mut client = server.connect();
        family(&mut client);
        let before = picture(&mut client);
        let times_up = server.times_up();
        let killed =
            format!("BEGIN; SET LOCAL state_cache.test_kill_at = '{point}'; {change}; COMMIT");
        assert_eq!(client.error(&killed), "connection lost", "{point}");
        server.await_recovery(times_up);

        let mut client = server.connect();
        if !has_committed {
            assert_eq!(picture(&mut client), before, "killed at {point}");
            client.run(change);
        }
        assert_eq!(parts(&mut client), whole_parts, "killed at {point}");
        assert_eq!(
            without_times(&picture(&mut client)),
            without_times(&whole),
            "killed at {point}"
        );
        assert_eq!(
            inconsistencies(&mut client),
            Vec::<Vec<String>>::new(),
            "{point}"
        );
    }
}

#[test]
fn a_run_whose_backend_is_killed_has_ended_wholly_or_not_at_all() {
    killed_within(
        "SELECT * FROM state_context_complete('child', 'completed', 'manual_review')",
        &["completed", "2", "t", "1.5", "{}", "1", "1", "2"],
    );
}

#[test]
fn a_merge_whose_backend_is_killed_has_happened_wholly_or_not_at_all() {
    killed_within(
        "SELECT * FROM state_context_merge('child', 'manual_review')",
        &[
            "running",
            "2",
            "t",
            "NULL",
            "{\"child\": {\"credits\": 4}}",
            "0",
            "1",
            "NULL",
        ],
    );
}

/// Runners of the crashes under load, each with children of its own of the one root.
const RUNNERS: usize = 4;
/// Rounds, and children that have ended per round before the crash.
const ROUNDS: usize = 4;
const ENDED: i64 = 60;

/// Creates children and ends them until the connection is lost; `ended` is the last that is known to have ended.
fn run_children(server: &Server, runner: usize, ended: &Mutex<i64>, over: &AtomicBool) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let last = format!(
        "SELECT coalesce(max(split_part(run_id, '/', 3)::bigint), 0) FROM state_context WHERE run_id LIKE \
            'root/{runner}/%'"
    );
    let Ok(row) = client.query_one(&last, &[]) else {
        return;
    };
    let mut number: i64 = row.get(0);
    while !over.load(Ordering::SeqCst) {
        number += 1;
        let child = format!("root/{runner}/{number}");
        let steps = [
            format!("SELECT state_context_child('root', '{child}', resource_limits => '{{\"maxCredits\": 1}}')"),
            format!("SELECT state_context_set('{child}', 'of {runner}', '{number}'), state_context_spend('{child}', \
                'credits', 0.25)"),
            format!(
                "SELECT state_context_mark_export('{child}', 'of {runner}', 'parent_context'),
                    state_context_mark_export('{child}', 'of {runner}', 'persistent_store', target => 'kept'),
                    state_context_mark_export('{child}', 'of {runner}', 'external_system', target => 'mail')"
            ),
            format!("SELECT * FROM state_context_complete('{child}')"),
        ];
        for step in steps {
            if let Err(error) = client.batch_execute(&step) {
                assert!(
                    error
                        .code()
                        .is_none_or(|code| code.code().starts_with("57P")),
                    "{step}: {error:?}"
                );
                return;
            }
        }
        *ended.lock().unwrap() = number;
    }
}

/// Children of which a part has ended and another has not, and what the root does not know or knows too much of.
const HALVES: &str = "WITH child AS (
        SELECT run_id, state_context_get(run_id) ->> 'status' = 'completed' AS ended, split_part(run_id, '/', 2) AS \
        runner,
            split_part(run_id, '/', 3)::bigint AS number, state_context_get('root') AS root FROM state_context \
            WHERE parent_run_id = 'root')
    SELECT run_id, 'outbox' FROM child c WHERE (SELECT count(*) FROM state_outbox o WHERE o.run_id = c.run_id) <> \
    ended::int
    UNION ALL SELECT run_id, 'kept' FROM child WHERE state_exists(run_id || '/of ' || runner, 'kept') <> ended
    UNION ALL SELECT run_id, 'reserved' FROM child WHERE root -> 'reservations' ? run_id = ended
    UNION ALL SELECT max(run_id), 'merged' FROM child WHERE ended GROUP BY runner, root
        HAVING max(number) IS DISTINCT FROM (root #>> ARRAY['variables', 'of ' || runner, 'value'])::bigint
    UNION ALL SELECT 'root', 'credits' FROM child WHERE ended GROUP BY root HAVING count(*) * 0.25 <> (root #>> \
    '{usage,credits}')::numeric";

#[test]
fn crashes_under_load_leave_no_half_of_an_end() {
    let server = Server::new(&["fsync = on"]);
    server.connect().run(
        "SELECT state_class_define('kept');
         SELECT state_context_create('root', resource_limits => '{\"maxCredits\": 100000}')",
    );
    let ended: Vec<Mutex<i64>> = (0..RUNNERS).map(|_| Mutex::new(0)).collect();
    for round in 0..ROUNDS {
        let over = AtomicBool::new(false);
        let known = || {
            ended
                .iter()
                .map(|ended| *ended.lock().unwrap())
                .sum::<i64>()
        };
        let before = known();
        std::thread::scope(|threads| {
            let _over = RaiseOnDrop(&over);
            let (server, over) = (&server, &over);
            for (runner, ended) in ended.iter().enumerate() {
                threads.spawn(move || run_children(server, runner, ended, over));
            }
            eventually("enough children to end", || known() >= before + ENDED);
            std::thread::sleep(Duration::from_millis(7 * round as u64));
            server.kill_everything();
        });
        server.start();
        let mut client = server.connect();
        for (runner, ended) in ended.iter().enumerate() {
            let number = *ended.lock().unwrap();
            if number > 0 {
                let status =
                    format!("SELECT state_context_get('root/{runner}/{number}') ->> 'status'");
                assert_eq!(
                    client.text(&status),
                    "completed",
                    "acknowledged, in round {round}"
                );
            }
        }
        assert_eq!(
            client.rows(HALVES),
            Vec::<Vec<String>>::new(),
            "round {round}"
        );
        assert_eq!(
            inconsistencies(&mut client),
            Vec::<Vec<String>>::new(),
            "round {round}"
        );
    }
}
