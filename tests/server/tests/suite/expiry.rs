//! The worker's upkeep: removing what has expired, dropping what is no longer retained, warming.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, Stopped, eventually, inconsistencies};

/// The tasks' steps as functions, for what must not depend on when a worker comes by.
const STEPS: &str = "
    CREATE FUNCTION state_cache_test_expire() RETURNS boolean LANGUAGE c AS '$libdir/state_cache';
    CREATE FUNCTION state_cache_test_retain() RETURNS bigint LANGUAGE c AS '$libdir/state_cache'";

/// A server without workers.
fn without_worker(settings: &[&str]) -> Server {
    let server = Server::new(
        &[
            &["state_cache.max_workers = 0", "autovacuum = off"],
            settings,
        ]
        .concat(),
    );
    server.connect().run(STEPS);
    server
}

/// Makes states end now, without a change that anybody hears of.
fn end(client: &mut Client, keys: &str) {
    client.run(&format!(
        "UPDATE state_head SET expires_at = clock_timestamp() - interval '1 second' WHERE key LIKE '{keys}'"
    ));
}

fn heads(client: &mut Client) -> Vec<String> {
    let sql = "SELECT key, version, deleted FROM state_head ORDER BY key";
    client.rows(sql).iter().map(|row| row.join(" ")).collect()
}

#[test]
fn the_worker_removes_what_has_expired() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_set('stays', '1'), state_set('goes later', '1', ttl => '1 hour')");
    client.run(
        "SELECT state_set('goes' || n, '1', ttl => '1 second') FROM generate_series(1, 250) n",
    );
    let since = client.text("SELECT cursor FROM state_cursor()");
    eventually("the states to be removed", || {
        client.number(
            "SELECT count(*) FROM state_head WHERE deleted AND version = 2 AND expires_at IS NULL",
        ) == 250
    });
    assert_eq!(
        client.number("SELECT count(*) FROM state_head WHERE NOT deleted"),
        2
    );
    // What the class keeps stays until the tombstone goes.
    assert_eq!(client.number("SELECT count(*) FROM state_snapshot"), 252);
    let told = format!(
        "SELECT count(*) FROM state_changes('{since}') WHERE op = 'delete' AND version = 2"
    );
    assert_eq!(client.number(&told), 250);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    client.run("SELECT state_set('goes1', '2')");
    assert_eq!(client.text("SELECT state_version('goes1')"), "3");
}

#[test]
fn a_locked_or_prolonged_state_is_left_alone() {
    let server = without_worker(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.run("SELECT state_set(k, '1') FROM unnest('{free,locked,prolonged}'::text[]) k");
    end(&mut client, "%");
    other.run("BEGIN; SELECT FROM state_head WHERE key = 'locked' FOR UPDATE");
    client.run("SELECT state_touch('prolonged', NULL)");
    client.run("UPDATE state_head SET expires_at = NULL WHERE key = 'prolonged'");
    client.run("SELECT state_cache_test_expire()");
    assert_eq!(
        heads(&mut client),
        ["free 2 t", "locked 1 f", "prolonged 1 f"]
    );
    other.run("COMMIT");
    client.run("SELECT state_cache_test_expire()");
    assert_eq!(
        heads(&mut client),
        ["free 2 t", "locked 2 t", "prolonged 1 f"]
    );
}

/// The owner of the tables is no stranger there, as whoever's code REFRESH MATERIALIZED VIEW runs is: what a trigger
/// stages waits for the end of the pass, and is one version.
#[test]
fn what_triggers_stage_is_written_once() {
    let server = without_worker(&[]);
    let mut client = server.connect();
    client.run(
        "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM public.state_append('log', '{}', to_jsonb(NEW.key), 'config'); RETURN NEW;
         END $$;
         CREATE TRIGGER log AFTER UPDATE ON state_head FOR EACH ROW WHEN (NEW.deleted) EXECUTE FUNCTION log();
         SELECT state_set('log', '[]', class => 'config'), state_set(k, '1') FROM unnest('{a,b,c}'::text[]) k",
    );
    end(&mut client, "_");
    client.run("SELECT state_cache_test_expire()");
    assert_eq!(
        client.text("SELECT state_version('log', 'config') || ' ' || state_get('log', 'config')"),
        "2 [\"a\", \"b\", \"c\"]"
    );
}

/// Triggers of users run as the owner of the table, deferrable ones before the role is given back.
#[test]
fn triggers_run_as_the_owner_of_the_table() {
    let server = without_worker(&[]);
    let mut client = server.connect();
    client.run(
        "CREATE ROLE keeper; GRANT ALL ON SCHEMA public TO keeper;
         CREATE TABLE log (who name); GRANT ALL ON log TO keeper;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.log VALUES (current_user); RETURN NULL; END $$",
    );
    client.run("SELECT state_set('a', '1'), state_set('b', '1')");
    client.run(
        "ALTER TABLE state_head OWNER TO keeper; ALTER TABLE state_snapshot OWNER TO keeper;
         CREATE TRIGGER note AFTER UPDATE OR DELETE ON state_head FOR EACH ROW EXECUTE FUNCTION note();
         CREATE CONSTRAINT TRIGGER later AFTER UPDATE OR DELETE ON state_head DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION note();
         GRANT SELECT ON state_class TO keeper",
    );
    end(&mut client, "a");
    client.run("DELETE FROM log");
    client.run("SELECT state_cache_test_expire()");
    assert_eq!(client.rows("SELECT * FROM log"), [["keeper"], ["keeper"]]);
    client.run("DELETE FROM log; SET state_cache.test_unsafe = ''");
    server.configure(&["state_cache.tombstone_retention = 0"]);
    client.run("SELECT pg_reload_conf()");
    eventually("the reload", || {
        client.text("SHOW state_cache.tombstone_retention") == "0"
    });
    client.run("SELECT state_cache_test_retain()");
    assert_eq!(heads(&mut client), ["b 1 f"]);
    assert_eq!(client.rows("SELECT * FROM log"), [["keeper"], ["keeper"]]);
}

#[test]
fn a_dropped_tombstone_leaves_a_floor_and_a_horizon() {
    let server = without_worker(&["state_cache.tombstone_retention = 0"]);
    let (mut client, mut old) = (server.connect(), server.connect());
    client.run("SELECT state_set('k' || n, '1') FROM generate_series(1, 300) n");
    let before = client.text("SELECT cursor FROM state_cursor()");
    client.run("SELECT state_delete('k' || n) FROM generate_series(1, 299) n");
    client.run(
        "DELETE FROM state_head WHERE key = 'k300'; DELETE FROM state_snapshot WHERE key = 'k300'",
    );
    let after = client.text("SELECT cursor FROM state_cursor()");
    let fails = |client: &mut Client, cursor: &str| {
        let sql = format!("SELECT count(*) FROM state_changes('{cursor}')");
        client.batch_execute(&sql).is_err()
    };
    // A snapshot that is older than the deletes keeps them all.
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    client.run("SELECT state_set('other', '1')");
    old.run("SELECT 1");
    drop(old);
    let mut old = server.connect();
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()");
    client.run("SELECT state_set('late', '1')");
    client.run("SELECT state_delete('late')");
    assert!(!fails(&mut client, &before));
    client.run("SELECT state_cache_test_retain()");
    assert_eq!(
        client.rows("SELECT key FROM state_head WHERE deleted"),
        [["late"]],
        "what the open transaction may not see stays"
    );
    assert_eq!(client.number("SELECT count(*) FROM state_trace"), 0);
    assert!(fails(&mut client, &before), "dropped since");
    assert!(
        !fails(&mut client, &after),
        "nothing dropped that it does not see"
    );
    old.run("COMMIT");
    client.run("SELECT state_cache_test_retain()");
    assert_eq!(
        client.number("SELECT count(*) FROM state_head WHERE deleted"),
        0
    );
    assert!(fails(&mut client, &after));
    let now = client.text("SELECT cursor FROM state_cursor()");
    assert!(!fails(&mut client, &now));
    client.run("SELECT state_set('k' || n, '1') FROM generate_series(1, 300) n");
    assert_eq!(
        client.number("SELECT count(*) FROM state_head WHERE key LIKE 'k%' AND version < 2 + (key <> 'k300')::int"),
        0,
        "no version is used again"
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn snapshots_beyond_keep_are_pruned_and_recovery_points_stay() {
    let server = without_worker(&[]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('run', keep => 10)");
    for n in 1..=8 {
        client.run(&format!(
            "SELECT state_set('a', '{n}'), state_set('b', '{n}')"
        ));
    }
    client.run("UPDATE state_snapshot SET recovery_point = true WHERE key = 'a' AND version = 2");
    client.run("UPDATE state_class SET keep = 3 WHERE class = 'run'");
    client.run("SELECT state_cache_test_retain()");
    assert_eq!(
        client.rows("SELECT key, string_agg(version::text, ' ' ORDER BY version) FROM state_snapshot GROUP BY key \
            ORDER BY key"),
        [["a", "2 6 7 8"], ["b", "6 7 8"]]
    );
}

#[test]
fn the_worker_drops_tombstones() {
    let server = Server::new(&["state_cache.tombstone_retention = 1"]);
    let mut client = server.connect();
    // The second time the worker has looked already, and found nothing left.
    for _ in 0..2 {
        client.run("SELECT state_set('k' || n, '1') FROM generate_series(1, 250) n");
        client.run("SELECT state_delete('k' || n) FROM generate_series(1, 250) n");
        eventually("the tombstones to go", || {
            client.number("SELECT count(*) FROM state_head") == 0
        });
    }
    client.run("SELECT state_set('k1', '1')");
    assert_eq!(client.text("SELECT state_version('k1')"), "5");
}

#[test]
fn l1_is_warm_after_a_clean_restart() {
    let server = Server::new(&["state_cache.warm_on_start = on"]);
    let mut client = server.connect();
    client.run("SELECT state_set('k' || n, to_jsonb(n)) FROM generate_series(1, 300) n");
    client.run("SELECT state_cache_clear()");
    // A read that meets somebody else at work fills nothing.
    eventually("the cache to be filled", || {
        client.run("SELECT count(state_get('k' || n)) FROM generate_series(1, 150) n");
        client.number("SELECT count(*) FROM state_cache_entries") == 150
    });
    drop(client);
    server.stop();
    server.start();
    let mut client = server.connect();
    eventually("the cache to be warm", || {
        client.number("SELECT count(*) FROM state_cache_entries") == 150
    });
    client.run("SELECT count(state_get('k' || n)) FROM generate_series(1, 150) n");
    assert_eq!(client.counter("misses"), 0);
    // By hand, the rest.
    assert_eq!(client.number("SELECT state_warm('run', 100)"), 100);
    assert_eq!(client.number("SELECT state_warm('run')"), 50);
    assert_eq!(client.number("SELECT state_warm('run')"), 0);
    assert_eq!(
        client.number("SELECT count(*) FROM state_cache_entries"),
        300
    );
    assert_eq!(client.counter("evictions"), 0);
}

/// The server stops before the worker has taken its list: the worker must not take the one that the launcher writes
/// now.
#[test]
fn an_early_shutdown_keeps_its_list_of_what_l1_holds() {
    let server = Server::new(&[
        "state_cache.warm_on_start = on",
        "state_cache.max_workers = 0",
        "state_cache.test_stop_at = 'list_wanted'",
    ]);
    let mut client = server.connect();
    client.run("SELECT state_set('k' || n, to_jsonb(n)) FROM generate_series(1, 100) n");
    assert_eq!(
        client.number("SELECT count(*) FROM state_cache_entries"),
        100
    );
    let database =
        client.number("SELECT oid::bigint FROM pg_database WHERE datname = current_database()");
    client.run("SELECT pg_advisory_lock(5202, 25)");
    client.run("ALTER SYSTEM SET state_cache.max_workers = 1");
    client.run("SELECT pg_reload_conf()");
    client.run("SELECT state_set('wanted', '1')");
    let worker = "SELECT pid FROM state_cache_workers WHERE pid IS NOT NULL";
    eventually("a worker", || client.rows(worker).len() == 1);
    let worker = Stopped::new(client.text(worker).parse().unwrap());
    let list = format!("state_cache.resident.{database}");
    std::thread::scope(|threads| {
        threads.spawn(|| server.stop());
        eventually("the list", || server.has_file(&list));
        drop(worker);
    });
    assert!(server.has_file(&list));
    server.start();
    let mut client = server.connect();
    eventually("the cache to be warm", || {
        client.number("SELECT count(*) FROM state_cache_entries") == 101
    });
}

#[test]
fn warming_evicts_nothing() {
    let server = Server::new(&["state_cache.memory = '1MB'"]);
    let mut client = server.connect();
    client.run(
        "SELECT state_set('k' || n, to_jsonb(repeat('x', 5000))) FROM generate_series(1, 500) n",
    );
    client.run("SELECT state_cache_clear()");
    let evictions = client.counter("evictions");
    let filled = client.number("SELECT state_warm('run')");
    assert!((100..250).contains(&filled), "{filled}");
    assert_eq!(client.counter("evictions"), evictions);
    // Those written last.
    let least = "SELECT min(h.updated_at) > (SELECT percentile_disc(0.4) WITHIN GROUP (ORDER BY updated_at) FROM \
        state_head)
         FROM state_cache_entries e JOIN state_head h USING (class, key)";
    assert!(client.flag(least));
}
