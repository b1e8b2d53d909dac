//! Derived classes through dumps, crashes, replication, and many readers at once.

use crate::replication::applied;
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};
use std::time::{Duration, Instant};

const SETUP: &str = "
    CREATE TABLE items (id integer PRIMARY KEY, v text);
    INSERT INTO items SELECT n, 'v' || n FROM generate_series(1, 20) n;
    SELECT state_class_define('item', cache_ttl => '1 hour', source => 'SELECT to_jsonb(v) FROM items
        WHERE id = $1::integer');
    SELECT state_watch('item', 'items', 'id');
    SELECT state_class_define('item', cache_ttl => '0')";

/// Keys whose documents are not what the source gives; all of them are read.
fn wrong(client: &mut Client) -> Vec<Vec<String>> {
    client.rows(
        "SELECT n, state_get(n::text, 'item'), (SELECT v FROM items WHERE id = n) FROM generate_series(1, 25) n
             WHERE state_get(n::text, 'item') #>> '{}' IS DISTINCT FROM (SELECT v FROM items WHERE id = n)",
    )
}

#[test]
fn a_restored_dump_has_its_sources_and_watches() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run(SETUP);
    let dump = server.host().join("dump");
    let file = dump.to_str().unwrap();
    server.run_program("pg_dump", &["--dbname=postgres", "--file", file]);
    original.run("CREATE DATABASE restored");
    let restore = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname=restored",
        "--file",
        file,
    ];
    server.run_program("psql", &restore);
    let mut restored = server.connect_to("restored");
    assert_eq!(restored.text("SELECT exact FROM state_sources"), "t");
    assert_eq!(wrong(&mut restored), Vec::<Vec<String>>::new());
    let hits = restored.counter("hits");
    assert_eq!(wrong(&mut restored), Vec::<Vec<String>>::new());
    assert!(restored.counter("hits") > hits);
    restored.run("UPDATE items SET v = 'restored' WHERE id = 3");
    assert_eq!(wrong(&mut restored), Vec::<Vec<String>>::new());
    // The triggers go with the extension, without CASCADE, and nothing else does.
    restored.run("DROP EXTENSION state_cache");
    assert_eq!(
        restored.number("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"),
        0
    );
    assert_eq!(restored.number("SELECT count(*) FROM items"), 20);
}

#[test]
fn a_subscriber_keeps_documents_right_that_depend_on_what_it_applies() {
    let (source, target) = (Server::new(&["wal_level = logical"]), Server::new(&[]));
    let (mut publisher, mut subscriber) = (source.connect(), target.connect());
    publisher.run("CREATE TABLE items (id integer PRIMARY KEY, v text); CREATE PUBLICATION items FOR TABLE items");
    subscriber.run(SETUP);
    subscriber.run("TRUNCATE items");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION items CONNECTION 'host={} port=5432 user=postgres dbname=postgres' PUBLICATION items",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    for n in 1..=20 {
        publisher.run(&format!(
            "INSERT INTO items VALUES ({n}, 'a');
             UPDATE items SET v = 'n{n}' WHERE id % 3 = {n} % 3"
        ));
        applied(&mut publisher);
        assert_eq!(wrong(&mut subscriber), Vec::<Vec<String>>::new());
    }
    publisher.run("TRUNCATE items");
    applied(&mut publisher);
    assert_eq!(wrong(&mut subscriber), Vec::<Vec<String>>::new());
    assert!(subscriber.counter("hits") > 0);
}

#[test]
fn a_standby_computes_and_keeps_nothing() {
    let primary = Server::new(&[]);
    let standby = primary.standby();
    let (mut on_primary, mut on_standby) = (primary.connect(), standby.connect());
    on_primary.run(SETUP);
    standby.catch_up_with(&primary);
    assert_eq!(wrong(&mut on_standby), Vec::<Vec<String>>::new());
    on_primary.run("UPDATE items SET v = 'new'");
    standby.catch_up_with(&primary);
    assert_eq!(wrong(&mut on_standby), Vec::<Vec<String>>::new());
    assert_eq!(on_standby.counter("fills"), 0);
}

#[test]
fn ddl_costs_the_documents_of_its_own_database_and_roles_those_of_all() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(SETUP);
    // Databases whose numbers leave the same remainder share a mark.
    let share = "SELECT a.oid::bigint % 64 = b.oid::bigint % 64 FROM pg_database a, pg_database b
        WHERE a.datname = 'postgres' AND b.datname = 'other'";
    client.run("CREATE DATABASE other");
    while client.flag(share) {
        client.run("DROP DATABASE other");
        client.run("CREATE DATABASE other");
    }
    let mut other = server.connect_to("other");
    other.run("CREATE EXTENSION state_cache");
    let mut evaluations_after = |ddl: &str| {
        assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
        let before = client.counter("evaluations");
        other.run(ddl);
        assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
        client.counter("evaluations") - before
    };
    assert_eq!(evaluations_after("CREATE TABLE t (id integer)"), 0);
    assert_eq!(evaluations_after("ALTER TABLE t ADD v text"), 0);
    assert_eq!(evaluations_after("CREATE VIEW w AS SELECT * FROM t"), 0);
    assert_eq!(
        evaluations_after("GRANT SELECT ON w TO PUBLIC; DROP TABLE t CASCADE"),
        0
    );
    assert_eq!(evaluations_after("CREATE ROLE r"), 25);
    assert_eq!(evaluations_after("GRANT pg_monitor TO r"), 25);
    assert_eq!(
        evaluations_after("ALTER ROLE r RENAME TO s; DROP ROLE s"),
        25
    );
}

#[test]
fn a_crash_between_commit_and_publication_leaves_nothing_old() {
    for point in ["marked", "visible"] {
        let server = Server::new(&[]);
        let mut client = server.connect();
        client.run(SETUP);
        assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
        let times_up = server.times_up();
        let mut victim = server.connect();
        let _ = victim.batch_execute(&format!(
            "SET state_cache.test_kill_at = '{point}'; UPDATE items SET v = 'crashed'"
        ));
        server.await_recovery(times_up);
        let mut client = server.connect();
        assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    }
}

/// A class whose source takes its time, and says when it was done.
const SLOW: &str = "
    CREATE FUNCTION slow(seconds float8) RETURNS text LANGUAGE sql STABLE AS
        $$ SELECT clock_timestamp()::text FROM pg_sleep(seconds) $$;
    SELECT state_class_define('slow', cache_ttl => '1 hour', source => 'SELECT to_jsonb(slow(0.5))')";

#[test]
fn of_many_sessions_that_miss_one_document_one_computes_it() {
    let server = Server::new(&["max_connections = 100"]);
    server.connect().run(SLOW);
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    std::thread::scope(|threads| {
        for client in &mut clients {
            threads.spawn(|| client.run("SELECT state_get('k', 'slow')"));
        }
    });
    let mut client = server.connect();
    let evaluations = client.counter("evaluations");
    assert!(evaluations == 1 || evaluations == 2, "{evaluations}");
    assert!(client.counter("waits") > 0);
}

#[test]
fn a_session_that_dies_or_is_cancelled_while_it_computes_holds_up_nobody() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(SLOW);
    client.run("SELECT state_class_define('slow', source => 'SELECT to_jsonb(slow(60))')");
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        std::thread::scope(|threads| {
            let computes = threads.spawn(|| {
                server
                    .connect()
                    .batch_execute("SELECT state_get('k', 'slow')")
            });
            let at_work = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT state_get%'
                 AND wait_event = 'PgSleep'";
            eventually("the source to run", || client.rows(at_work).len() == 1);
            // Somebody waits, and is cancelled; that does nothing to the other.
            let mut waiter = server.connect();
            waiter.run("SET statement_timeout = '300ms'");
            assert_eq!(waiter.error("SELECT state_get('k', 'slow')"), "57014");
            let pid = client.number(at_work);
            client.run(&format!("SELECT {end}({pid})"));
            assert!(computes.join().unwrap().is_err());
        });
        client.run("SELECT state_class_define('slow', source => 'SELECT to_jsonb(slow(0))')");
        let start = Instant::now();
        client.run("SELECT state_get('k', 'slow')");
        assert!(start.elapsed() < Duration::from_secs(30));
        client.run("SELECT state_class_define('slow', source => 'SELECT to_jsonb(slow(60))')");
    }
}

#[test]
fn the_last_answer_serves_while_the_next_one_is_computed() {
    let server = Server::new(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.run(SLOW);
    client.run(
        "SELECT state_class_define('slow', cache_ttl => '100 ms', serve_stale => '1 hour',
             source => 'SELECT to_jsonb(slow(3))')",
    );
    let first = client.text("SELECT state_get('k', 'slow')");
    std::thread::sleep(Duration::from_millis(150));
    std::thread::scope(|threads| {
        let next = threads.spawn(|| other.text("SELECT state_get('k', 'slow')"));
        let at_work = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("the source to run", || client.flag(at_work));
        assert_eq!(client.text("SELECT state_get('k', 'slow')"), first);
        let next = next.join().unwrap();
        assert_ne!(next, first);
        client.run("SELECT state_class_define('slow', cache_ttl => '1 hour', serve_stale => '0')");
    });
}

#[test]
fn an_audit_finds_what_is_not_so() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(SETUP);
    client.run("SELECT state_set('s' || n, '1') FROM generate_series(1, 20) n");
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    client.run("SELECT state_get('s' || n) FROM generate_series(1, 20) n");
    assert_eq!(client.number("SELECT count(*) FROM state_audit()"), 0);
    // A watch that names other keys than those that a row is part of.
    client.run("SELECT state_unwatch('item', 'items') FROM state_class_define('item', cache_ttl => '1 hour')");
    client.run("SELECT state_watch('item', 'items', 'id + 100')");
    client.run("SELECT state_class_define('item', cache_ttl => '0')");
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    client.run("UPDATE items SET v = 'hidden' WHERE id < 4");
    let mut other = server.connect();
    let found = "SELECT key, cached, computed FROM state_audit('item') ORDER BY key";
    let differs = |key: &str| {
        vec![
            key.to_owned(),
            format!("\"v{key}\""),
            "\"hidden\"".to_owned(),
        ]
    };
    assert_eq!(
        other.rows(found),
        vec![differs("1"), differs("2"), differs("3")]
    );
    assert_eq!(
        other.number("SELECT count(*) FROM state_audit(sample => 0)"),
        0
    );
    assert_eq!(other.number("SELECT count(*) FROM state_audit('run')"), 0);
}

/// What `state_changes` tells since a cursor but for its last row, as `op class/key`.
fn told(client: &mut Client, since: &str) -> Vec<String> {
    let sql = format!(
        "SELECT op || ' ' || class || '/' || key FROM state_changes('{since}') WHERE op <> 'end' ORDER BY 1"
    );
    client.rows(&sql).into_iter().flatten().collect()
}

fn cursor(client: &mut Client) -> String {
    client.text("SELECT cursor FROM state_cursor()")
}

#[test]
fn who_was_away_is_told_which_documents_may_be_others() {
    let server = Server::new(&["max_prepared_transactions = 5"]);
    let mut client = server.connect();
    client.run(SETUP);
    client.run("CREATE TABLE other (id integer)");
    // A transaction that was there before and holds back what cursors see at a glance.
    let mut old = server.connect();
    old.run("BEGIN; INSERT INTO other VALUES (1)");
    let first = cursor(&mut client);
    client.run("UPDATE items SET v = 'a' WHERE id = 3");
    client.run("BEGIN; UPDATE items SET v = 'b' WHERE id = 4; ROLLBACK");
    client.run("UPDATE items SET id = 30 WHERE id = 5");
    assert_eq!(
        told(&mut client, &first),
        ["set item/3", "set item/30", "set item/5"]
    );
    let second = cursor(&mut client);
    assert_eq!(told(&mut client, &second), Vec::<String>::new());
    // Who has begun before the cursor and commits after it is told of then.
    old.run("UPDATE items SET v = 'late' WHERE id = 6");
    assert_eq!(told(&mut client, &second), Vec::<String>::new());
    old.run("COMMIT");
    assert_eq!(told(&mut client, &second), ["set item/6"]);
    // Too many for one transaction, and too many in sum, are told as a class.
    let third = cursor(&mut client);
    client.run("INSERT INTO items SELECT n, 'many' FROM generate_series(1001, 3000) n");
    assert_eq!(told(&mut client, &third), ["invalidate item/*"]);
    let fourth = cursor(&mut client);
    for n in [1001, 1601] {
        client.run(&format!(
            "UPDATE items SET v = 'n' WHERE id BETWEEN {n} AND {n} + 599"
        ));
    }
    assert_eq!(told(&mut client, &fourth), ["invalidate item/*"]);
    // Definitions, and what was prepared elsewhere.
    let fifth = cursor(&mut client);
    client.run("ALTER TABLE items ADD more integer");
    assert_eq!(told(&mut client, &fifth), ["invalidate item/*"]);
    client.run("BEGIN; ALTER TABLE items DROP more; PREPARE TRANSACTION 'p'");
    let sixth = cursor(&mut client);
    client.run("COMMIT PREPARED 'p'");
    assert_eq!(told(&mut client, &sixth), ["invalidate item/*"]);
    // More than is remembered: to who was away for so long the class, to others their keys.
    client.run("INSERT INTO other VALUES (2)");
    let seventh = cursor(&mut client);
    for _ in 0..20 {
        client.run("UPDATE items SET v = 'n' WHERE id BETWEEN 1001 AND 1900");
    }
    let eighth = cursor(&mut client);
    client.run("UPDATE items SET v = 'n' WHERE id = 7");
    assert_eq!(told(&mut client, &seventh), ["invalidate item/*"]);
    assert_eq!(told(&mut client, &eighth), ["set item/7"]);
    // After a crash nobody knows.
    let times_up = server.times_up();
    let mut victim = server.connect();
    let _ = victim.batch_execute(
        "SET state_cache.test_kill_at = 'visible'; UPDATE items SET v = 'crashed' WHERE id = 8",
    );
    server.await_recovery(times_up);
    let mut client = server.connect();
    eventually("the start to be known", || {
        let sql = format!("SELECT FROM state_changes('{eighth}')");
        client.batch_execute(&sql).is_ok()
    });
    assert_eq!(told(&mut client, &eighth), ["invalidate item/*"]);
    let ninth = cursor(&mut client);
    client.run("UPDATE items SET v = 'again' WHERE id = 9");
    assert_eq!(told(&mut client, &ninth), ["set item/9"]);
}

#[test]
fn the_worker_audits_at_its_rate_and_runs_no_code_of_users() {
    let server = Server::new(&["state_cache.audit_rate = 60000"]);
    let mut client = server.connect();
    client.run(SETUP);
    client.run(
        "CREATE ROLE someone; GRANT CREATE, USAGE ON SCHEMA public TO someone;
         CREATE TABLE ran (who text); GRANT ALL ON ran TO PUBLIC;
         SET ROLE someone;
         CREATE FUNCTION shout(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN upper(v); END $$;
         RESET ROLE;
         SELECT state_class_define('shouting', cache_ttl => '1 hour', source =>
             'SELECT to_jsonb(shout(v)) FROM items WHERE id = $1::integer');
         SELECT state_watch('shouting', 'items', 'id');
         SELECT state_class_define('shouting', cache_ttl => '0');
         SELECT state_set('s' || n, '1') FROM generate_series(1, 20) n",
    );
    // From now on the function does what its owner has no rights for, if who runs it has.
    client.run(
        "SET ROLE someone; SET check_function_bodies = off;
         CREATE OR REPLACE FUNCTION shout(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
             RAISE LOG 'shout runs as %', current_user; RETURN upper(v); END $$; RESET ROLE",
    );
    client.run(
        "SELECT state_get(n::text, 'shouting'), state_get('s' || n) FROM generate_series(1, 20) n",
    );
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    let runs = server.log().matches("shout runs as").count();
    eventually("an audit of all", || {
        client.flag(
            "SELECT coalesce(sum(audited), 0) >= 45 AND sum(passed_over) >= 20 FROM state_audits",
        )
    });
    assert_eq!(server.log().matches("shout runs as").count(), runs);
    assert_eq!(
        client.number(
            "SELECT count(*) FROM state_audits WHERE differing > 0 OR last_error IS NOT NULL"
        ),
        0
    );
    // A watch that names other keys than those that a row is part of.
    client.run(
        "SELECT state_class_define('item', cache_ttl => '1 hour'), state_unwatch('item', 'items'),
             state_watch('item', 'items', 'id + 100'), state_class_define('item', cache_ttl => '0')",
    );
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    client.run("UPDATE items SET v = 'hidden' WHERE id = 4");
    eventually("the difference to be found", || {
        client.flag("SELECT differing > 0 FROM state_audits")
    });
    let found = "SELECT last_class, last_key, last_differing_at >= since FROM state_audits";
    assert_eq!(client.rows(found), [["item", "4", "t"]]);
    assert!(
        server
            .log()
            .contains("are not what they are copies of, \"item/4\"")
    );
    // It outlives a crash.
    let times_up = server.times_up();
    let mut victim = server.connect();
    let _ = victim.batch_execute(
        "SET state_cache.test_kill_at = 'visible'; UPDATE items SET v = 'crashed' WHERE id = 8",
    );
    server.await_recovery(times_up);
    let mut client = server.connect();
    assert_eq!(client.rows(found), [["item", "4", "t"]]);
}

#[test]
fn documents_are_there_again_after_a_start() {
    let server = Server::new(&["state_cache.warm_on_start = on"]);
    let mut client = server.connect();
    client.run(SETUP);
    client.run(
        "SELECT state_class_define('by-age', cache_ttl => '1 hour', source =>
             'SELECT to_jsonb(count(*)) FROM items')",
    );
    client.run("SELECT state_get('1', 'by-age')");
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    // It is the worker that leaves the list behind.
    eventually("a worker", || {
        client.number("SELECT count(*) FROM state_cache_workers WHERE pid IS NOT NULL") == 1
    });
    drop(client);
    server.stop();
    server.start();
    let mut client = server.connect();
    // Those that are exact; what goes by age is computed when somebody asks for it.
    eventually("the documents to be there", || {
        client.rows("SELECT class, count(*) FROM state_cache_entries GROUP BY class")
            == [["item", "25"]]
    });
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    assert_eq!(client.counter("evaluations"), 25);
}

#[test]
fn all_of_it_works_in_a_schema_of_its_own_whatever_the_search_path() {
    let server = Server::without_extension(&[
        "shared_preload_libraries = 'state_cache'",
        "max_prepared_transactions = 5",
    ]);
    let mut client = server.connect();
    client.run(
        "CREATE SCHEMA \"their own\"; CREATE EXTENSION state_cache SCHEMA \"their own\";
         CREATE SCHEMA decoys; CREATE TABLE decoys.state_source (class text);
         CREATE TABLE decoys.state_class (class text);
         CREATE FUNCTION decoys.state_get(text, class text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
             $$ SELECT '\"decoy\"'::jsonb $$;
         SET search_path = decoys, public;
         CREATE TABLE public.items (id integer PRIMARY KEY, v text);
         INSERT INTO public.items SELECT n, 'v' || n FROM generate_series(1, 20) n",
    );
    let own = |sql: &str| sql.replace('@', "\"their own\".state_");
    client.run(&own(
        "SELECT @class_define('item', cache_ttl => '1 hour', source => 'SELECT to_jsonb(v) FROM items
             WHERE id = $1::integer');
         SELECT @watch('item', 'public.items', 'id');
         SELECT @class_define('item', cache_ttl => '0');
         SELECT @class_define('outer', cache_ttl => '1 hour', source => 'SELECT jsonb_agg(@get($1, ''item''))');
         SELECT @class_define('outer', cache_ttl => '0')",
    ));
    let read = own("SELECT @get('3', 'item') #>> '{}' || ', ' || (@get('3', 'outer') #>> '{0}')");
    let evaluations =
        own("SELECT sum(evaluations) FROM @cache_stats WHERE class IN ('item', 'outer')");
    for path in ["decoys, public", "\"their own\"", "pg_catalog"] {
        client.run(&format!("SET search_path = {path}"));
        assert_eq!(client.text(&read), "v3, v3");
    }
    assert_eq!(client.number(&evaluations), 2);
    client.run("UPDATE public.items SET v = 'new' WHERE id = 3");
    assert_eq!(client.text(&read), "new, new");
    assert_eq!(
        client.text(&own("SELECT string_agg(exact::text, ',') FROM @sources")),
        "true,true"
    );
    assert_eq!(client.number(&own("SELECT count(*) FROM @audit()")), 0);
    let since = client.text(&own("SELECT cursor FROM @cursor()"));
    client.run("UPDATE public.items SET v = 'newer' WHERE id = 3");
    let changes = format!("SELECT string_agg(key, ',') FROM @changes('{since}') WHERE op = 'set'");
    assert_eq!(client.text(&own(&changes)), "3");
    client.run("BEGIN; UPDATE public.items SET v = 'prepared' WHERE id = 3");
    assert_eq!(client.error("PREPARE TRANSACTION 'p'"), "0A000");
    client.run("DROP EXTENSION state_cache");
    client.run("UPDATE public.items SET v = 'free'");
}

#[test]
fn an_unlogged_table_is_empty_after_a_crash_and_so_are_its_documents() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(&SETUP.replace("CREATE TABLE", "CREATE UNLOGGED TABLE"));
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
    let times_up = server.times_up();
    let _ = server.connect().batch_execute(
        "SET state_cache.test_kill_at = 'visible'; UPDATE items SET v = 'crashed' WHERE id = 8",
    );
    server.await_recovery(times_up);
    let mut client = server.connect();
    assert_eq!(client.number("SELECT count(*) FROM items"), 0);
    assert_eq!(wrong(&mut client), Vec::<Vec<String>>::new());
}
