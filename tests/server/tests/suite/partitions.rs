//! `state_snapshot` partitioned by month: the script that makes it so, the functions that it leaves, and everything
//! else on such a table.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, inconsistencies};

const SCRIPT: &str = include_str!("../../../../sql/state_cache_partition_by_month.sql");

/// Runs the script as `psql --single-transaction` does.
pub fn partition(client: &mut Client) {
    client.run(&format!("BEGIN; {SCRIPT} COMMIT"));
}

/// The same as if it had been run two months ago, when there were no rows but those made before.
fn partition_two_months_ago(client: &mut Client) {
    let now = "date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month'";
    let then = now.replace("now()", "(now() - interval '2 months')");
    assert!(SCRIPT.contains(now));
    client.run(&format!("BEGIN; {} COMMIT", SCRIPT.replacen(now, &then, 1)));
}

fn save(client: &mut Client, key: &str, versions: std::ops::RangeInclusive<i64>) {
    for n in versions {
        client.run(&format!(
            "SELECT state_save('{key}', jsonb_build_object('n', {n}, 'log', (SELECT jsonb_agg(md5(i::text)) FROM \
                generate_series(1, 40 + {n}) i)))"
        ));
    }
}

/// Version and number in the document of each kept version.
fn history(client: &mut Client, key: &str) -> Vec<[i64; 2]> {
    let rows = client.rows(&format!(
        "SELECT version, state_at('{key}', version) -> 'n' FROM state_history('{key}') ORDER BY 1"
    ));
    let number = |text: &String| text.parse().unwrap();
    rows.iter()
        .map(|row| [number(&row[0]), number(&row[1])])
        .collect()
}

fn nothing() -> Vec<Vec<String>> {
    Vec::new()
}

/// That all that is stored is right, by our own account and by that of plain SQL.
fn check(client: &mut Client) {
    assert_eq!(client.rows("SELECT * FROM state_verify()"), nothing());
    assert_eq!(inconsistencies(client), nothing());
}

#[test]
fn everything_works_on_a_partitioned_table() {
    let server = Server::new(&[]);
    let (mut admin, mut other) = (server.connect(), server.connect());
    admin.run(
        "SELECT state_class_define('one', keep => 2), state_class_define('held', keep => 1);
         CREATE ROLE reader; GRANT USAGE ON SCHEMA public TO reader;
         GRANT SELECT ON state_head, state_snapshot, state_current, state_kept, state_class TO reader;
         SELECT state_set('single', '{\"n\": 1}', class => 'one'), state_set('held', '1', class => 'held')",
    );
    save(&mut admin, "k", 1..=20);
    // This session has plans and a view of its own of the old table.
    let before = history(&mut other, "k");
    assert_eq!(before.len(), 20);
    let comments = "SELECT count(*) FROM pg_description d JOIN pg_class c ON c.oid = d.objoid WHERE c.relname IN \
        ('state_snapshot', 'state_current', 'state_kept')";
    let described = admin.number(comments);
    partition(&mut admin);
    assert_eq!(admin.number(comments), described);
    assert_eq!(
        admin.text("SELECT relkind FROM pg_class WHERE relname = 'state_snapshot'"),
        "p"
    );
    assert_eq!(history(&mut other, "k"), before);
    check(&mut other);

    // Reading and changing, with rights that were granted before.
    other.run("SET ROLE reader");
    assert_eq!(other.text("SELECT state_get('k') -> 'n'"), "20");
    assert_eq!(
        other.text("SELECT state -> 'n' FROM state_current WHERE key = 'k'"),
        "20"
    );
    assert_eq!(
        other.rows(
            "SELECT key, count(*), bool_and(in_head) FROM state_kept GROUP BY key ORDER BY key"
        ),
        [["held", "1", "t"], ["k", "20", "f"], ["single", "1", "f"]]
    );
    assert_eq!(
        other.text("SELECT state FROM state_current WHERE key = 'held'"),
        "1"
    );
    assert_eq!(other.error("SELECT * FROM state_snapshot_default"), "42501");
    assert_eq!(
        other.error("SELECT state_partitions_drop('1 day')"),
        "42501"
    );
    other.run("RESET ROLE");
    save(&mut other, "k", 21..=25);
    admin.run("SELECT state_set('single', '{\"n\": 2}', class => 'one')");
    admin.run("SELECT state_set('held', '2', class => 'held')");
    assert_eq!(
        admin.rows(
            "SELECT key, count(*) FROM state_kept WHERE key <> 'k' GROUP BY key ORDER BY key"
        ),
        [["held", "1"], ["single", "2"]]
    );
    // A class that keeps more puts what its head rows held into the partition of its time.
    admin.run("SELECT state_class_define('held', keep => 2)");
    admin.run("SELECT state_set('held', '3', class => 'held')");
    assert_eq!(
        admin.rows("SELECT version, state FROM state_snapshot WHERE key = 'held' ORDER BY version"),
        [["2", "2"], ["3", "3"]]
    );
    assert_eq!(admin.text("SELECT state_restore('k', 3)"), "26");
    assert_eq!(
        admin.text("SELECT version FROM state_recover('k', 'restart')"),
        "27"
    );
    assert_eq!(admin.text("SELECT state_get('k') -> 'n'"), "1");
    assert_eq!(
        admin.text("SELECT jsonb_array_length(state_diff('k', 3, 26))"),
        "0"
    );
    assert_eq!(admin.text("SELECT state_prune('run', keep => 5)"), "22");
    check(&mut other);

    // By hand, through the whole and in the part.
    let part =
        other.text("SELECT DISTINCT tableoid::regclass FROM state_snapshot WHERE key = 'single'");
    for table in ["state_snapshot", &part] {
        assert_ne!(admin.text("SELECT state_get('single', 'one')"), "[]");
        other.run(&format!(
            "BEGIN;
             UPDATE {table} SET state = '[]', delta = NULL, hash = state_hash('[]') WHERE key = 'single';
             UPDATE state_head SET hash = state_hash('[]') WHERE key = 'single';
             COMMIT"
        ));
        assert_eq!(admin.text("SELECT state_get('single', 'one')"), "[]");
        other.run("SELECT state_set('single', '{\"n\": 3}', class => 'one')");
    }
    assert_eq!(
        other.error(&format!("UPDATE {part} SET hash = '' WHERE key = 'single'")),
        "23514"
    );
    // A version is there once in a partition.
    assert_eq!(
        other.error("INSERT INTO state_snapshot (class, key, version, hash, state) SELECT class, key, version, \
            hash, state FROM state_snapshot WHERE key = 'single'"),
        "23505"
    );
    assert_eq!(admin.text("SELECT state_get('single', 'one') -> 'n'"), "3");
    other.run(&format!("TRUNCATE {part}"));
    assert_eq!(admin.error("SELECT state_get('single', 'one')"), "XX001");
    assert_eq!(admin.error("SELECT state_get('k')"), "XX001");
}

#[test]
fn old_partitions_go_whole_and_what_is_needed_of_them_stays() {
    // Without a worker that prunes in between, and with several chains in twenty versions.
    let server = Server::new(&[
        "state_cache.max_workers = 0",
        "state_cache.max_delta_chain = 6",
    ]);
    let (mut admin, mut other) = (server.connect(), server.connect());
    admin.run("SELECT state_class_define('few', keep => 3)");
    for key in ["idle", "moved", "gone", "rewritten"] {
        save(&mut admin, key, 1..=20);
    }
    save(&mut admin, "point", 1..=2);
    admin.run("SELECT state_save('point', '{\"n\": 3}', recovery_point => true)");
    save(&mut admin, "point", 4..=9);
    for n in 1..=4 {
        admin.run(&format!(
            "SELECT state_save('f', '{{\"n\": {n}}}', class => 'few')"
        ));
    }
    admin.run("SELECT state_delete('gone')");
    admin.run("UPDATE state_snapshot SET created_at = created_at - interval '100 days'");
    partition_two_months_ago(&mut admin);
    // Of this month: one whose next version is a delta of an old one, and one that begins anew.
    save(&mut admin, "moved", 21..=21);
    admin.run("SELECT state_save('rewritten', '{\"n\": 21}', recovery_point => true)");
    admin.run("SELECT state_save('point', '{\"n\": 10}', recovery_point => true)");
    let encodings = "SELECT key, encoding FROM state_head, state_history(key) s \
        WHERE s.created_at > now() - interval '1 day' ORDER BY 1, s.version";
    assert_eq!(
        admin.rows(encodings),
        [
            ["moved", "delta"],
            ["point", "whole"],
            ["rewritten", "whole"]
        ]
        .map(|row| row.map(String::from).to_vec())
        .to_vec()
    );
    let documents = "SELECT class, key, state_get_text(key, class) FROM state_head ORDER BY 1, 2";
    let before = admin.rows(documents);

    // A transaction that began before, has looked at nothing of ours, and reads from the tables.
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    assert_eq!(
        admin.error("SELECT * FROM state_partitions_drop('-1 day')"),
        "22023"
    );
    assert_eq!(
        admin.rows("SELECT * FROM state_partitions_drop('90 days')"),
        nothing()
    );
    let dropped = admin.rows(
        "SELECT rows_kept < 60, rows_dropped > 30, rows_kept + rows_dropped FROM \
        state_partitions_drop('1 day')",
    );
    assert_eq!(dropped, [["t", "t", "92"]]);
    assert_eq!(
        admin.rows("SELECT * FROM state_partitions_drop('1 day')")[0][2],
        "0"
    );
    admin.run("SELECT state_cache_clear()");
    assert_eq!(other.rows(documents), before);
    assert_eq!(other.text("SELECT state_at('idle', 20) -> 'n'"), "20");
    assert_eq!(other.text("SELECT state_at('moved', 21) -> 'n'"), "21");
    other.run("COMMIT");

    assert_eq!(admin.rows(documents), before);
    check(&mut admin);
    // A chain stays from its keyframe to what is needed; every version that is left reads as itself.
    let kept = |client: &mut Client, key: &str| -> Vec<i64> {
        let history = history(client, key);
        assert!(history.iter().all(|[version, n]| version == n), "{key}");
        history.into_iter().map(|[version, _]| version).collect()
    };
    let idle = kept(&mut admin, "idle");
    assert_eq!(idle.last(), Some(&20));
    assert!(idle.len() < 20 && idle.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let moved = kept(&mut admin, "moved");
    assert_eq!(moved[..moved.len() - 1], idle[..]);
    assert_eq!(kept(&mut admin, "rewritten"), [21]);
    assert_eq!(kept(&mut admin, "gone"), [0_i64; 0]);
    assert_eq!(kept(&mut admin, "point"), [3, 10]);
    assert_eq!(
        admin.rows("SELECT version FROM state_history('f', 'few') ORDER BY 1"),
        [["2"], ["3"], ["4"]]
    );
    // It goes on from there.
    save(&mut admin, "idle", 21..=40);
    assert_eq!(
        admin.text("SELECT version FROM state_recover('point')"),
        "10"
    );
    assert!(admin.number("SELECT state_prune('run', keep => 2)") > 0);
    check(&mut admin);
}

#[test]
fn partitions_of_coming_months_are_made_also_where_versions_of_them_came_before() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    partition(&mut client);
    save(&mut client, "early", 1..=1);
    save(&mut client, "earlier", 1..=1);
    client.run(
        "UPDATE state_snapshot SET created_at = date_trunc('month', now()) + interval '4 months 3 days' WHERE key = \
            'early';
         UPDATE state_snapshot SET created_at = now() + interval '5 years' WHERE key = 'earlier'",
    );
    let whereabouts = "SELECT key, tableoid::regclass::text LIKE 'state_snapshot_2%', tableoid::regclass = \
        'state_snapshot_default'::regclass FROM state_snapshot ORDER BY 1";
    let rows = |client: &mut Client| client.rows(whereabouts);
    assert_eq!(
        rows(&mut client),
        [["earlier", "f", "t"], ["early", "f", "t"]]
    );
    assert_eq!(client.text("SELECT state_partitions_create(2)"), "0");
    assert_eq!(client.text("SELECT state_partitions_create(4)"), "2");
    assert_eq!(
        rows(&mut client),
        [["earlier", "f", "t"], ["early", "t", "f"]]
    );
    check(&mut client);
    // A query about a month looks at that month, and at what belongs to none.
    let plan = client.rows(
        "EXPLAIN (COSTS OFF) SELECT FROM state_snapshot WHERE created_at >= date_trunc('month', \
        now()) + interval '4 months' AND created_at < 'infinity'",
    );
    let scans = plan
        .iter()
        .filter(|line| line[0].contains("Scan on state_snapshot"))
        .count();
    assert_eq!(client.number("SELECT count(*) FROM state_partitions()"), 6);
    assert!(
        plan.iter()
            .any(|line| line[0].contains("Subplans Removed") || scans == 2),
        "{plan:?}"
    );
}

#[test]
fn a_dump_of_a_partitioned_table_restores_into_a_plain_one() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    save(&mut original, "k", 1..=20);
    partition(&mut original);
    save(&mut original, "k", 21..=30);
    original.run(
        "UPDATE state_snapshot SET created_at = now() + interval '40 days' WHERE version = 30",
    );
    assert_eq!(
        original.number("SELECT count(DISTINCT tableoid) FROM state_snapshot"),
        2
    );
    let dump = server.host().join("dump");
    let dump = dump.to_str().unwrap();
    let arguments = [
        "--dbname=postgres",
        "--load-via-partition-root",
        "--file",
        dump,
    ];
    server.run_program("pg_dump", &arguments);
    original.run("CREATE DATABASE restored");
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname=restored",
        "--file",
        dump,
    ];
    server.run_program("psql", &arguments);
    let mut restored = server.connect_to("restored");
    let rows = "SELECT s::text FROM state_snapshot s ORDER BY version";
    assert_eq!(restored.rows(rows), original.rows(rows));
    check(&mut restored);
    // And can be partitioned again.
    partition(&mut restored);
    check(&mut restored);
    assert_eq!(history(&mut restored, "k").len(), 30);
    restored.run("DROP EXTENSION state_cache");
    assert_eq!(
        restored.number("SELECT count(*) FROM pg_class WHERE relname LIKE 'state_%'"),
        0
    );
}

#[test]
fn the_script_refuses_what_it_would_not_carry_over() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let script = format!("BEGIN; {SCRIPT} COMMIT");
    for (add, remove) in [
        (
            "CREATE INDEX extra ON state_snapshot (writer)",
            "DROP INDEX extra",
        ),
        (
            "CREATE POLICY extra ON state_snapshot USING (true)",
            "DROP POLICY extra ON state_snapshot",
        ),
        (
            "CREATE VIEW extra AS SELECT * FROM state_snapshot",
            "DROP VIEW extra",
        ),
        (
            "CREATE PUBLICATION extra FOR TABLE state_snapshot",
            "DROP PUBLICATION extra",
        ),
    ] {
        client.run(add);
        assert_eq!(client.error(&script), "2BP01", "{add}");
        client.run(&format!("ROLLBACK; {remove}"));
    }
    client.run(&script);
    assert_eq!(client.error(&script), "42809");
}
