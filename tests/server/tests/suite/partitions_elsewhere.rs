//! The partition script and its functions where names, settings and rows are not the usual ones.

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

const SCRIPT: &str = include_str!("../../../../sql/state_cache_partition_by_month.sql");

/// Runs the script as if it had been run two months ago.
fn partition_two_months_ago(client: &mut Client) {
    let now = "date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month'";
    let then = now.replace("now()", "(now() - interval '2 months')");
    assert!(SCRIPT.contains(now));
    client.run(&format!("BEGIN; {} COMMIT", SCRIPT.replacen(now, &then, 1)));
}

/// A session whose settings are as unusual as the schema's name.
fn odd(server: &Server, database: &str) -> Client {
    let mut client = server.connect_to(database);
    client.run(
        "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET intervalstyle = 'sql_standard';
         SET transform_null_equals = on; SET escape_string_warning = off; SET standard_conforming_strings = off;
         SET quote_all_identifiers = on; SET default_tablespace = 'pg_default'; SET bytea_output = 'escape'",
    );
    client
}

#[test]
fn the_schema_may_have_any_name_and_get_another_and_settings_do_not_matter() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let names = [
        r#"it's"#,
        "a%sb%I",
        "do$$lar$make$",
        r#"quo"te"#,
        "Groß schrift",
    ];
    for (n, name) in names.iter().enumerate() {
        let (database, schema) = (
            format!("d{n}"),
            format!("\"{}\"", name.replace('"', "\"\"")),
        );
        server.connect().run(&format!("CREATE DATABASE {database}"));
        let mut client = odd(&server, &database);
        client.run(&format!(
            "CREATE SCHEMA {schema}; CREATE EXTENSION state_cache SCHEMA {schema}"
        ));
        client.run(&format!(
            "SELECT {schema}.state_set('a', to_jsonb(1)), {schema}.state_set('b', to_jsonb(1))"
        ));
        let whole = format!("UPDATE {schema}.state_snapshot SET created_at = now()");
        client.run(&format!("{whole} - interval '100 days'"));
        partition_two_months_ago(&mut client);
        // A version of a coming month. Months are those of UTC, whatever the session's time zone.
        client.run(&format!(
            "UPDATE {schema}.state_snapshot SET created_at = (date_trunc('month', now() AT TIME ZONE 'UTC') \
                + interval '4 months 3 days') AT TIME ZONE 'UTC' WHERE key = 'a'"
        ));
        client.run(&format!("SELECT {schema}.state_delete('b')"));
        client.run(&format!("ALTER SCHEMA {schema} RENAME TO \"moved's\""));
        let mut client = odd(&server, &database);
        assert_eq!(
            client.number("SELECT \"moved's\".state_partitions_create(4)"),
            2
        );
        assert_eq!(
            client.text("SELECT tableoid::regclass::text LIKE '%default%' FROM \"moved's\".state_snapshot WHERE key \
                = 'a'"),
            "f"
        );
        let bounds = "SELECT count(*), count(lower), count(upper),
            bool_and(upper = date_trunc('month', upper AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') FROM \
            \"moved's\".state_partitions()";
        assert_eq!(client.rows(bounds), [["7", "5", "6", "t"]], "{name}");
        client
            .run("UPDATE \"moved's\".state_snapshot SET created_at = now() - interval '100 days'");
        assert_eq!(
            client.rows(
                "SELECT rows_kept, rows_dropped FROM \"moved's\".state_partitions_drop('1 day')"
            ),
            [["1", "1"]],
            "{name}"
        );
        assert_eq!(
            client.text("SELECT \"moved's\".state_get('a')"),
            "1",
            "{name}"
        );
        assert_eq!(
            client.error("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM \"moved's\".state_partitions_drop('1 \
                day')"),
            "25001"
        );
        client.run("ROLLBACK");
    }
}

#[test]
fn the_base_of_the_next_merge_of_a_child_stays() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('run', keep => 1)");
    client.run(
        r#"SELECT state_context_create('parent', inputs => '{"x": 0}');
           SELECT state_context_child('parent', 'parent/child')"#,
    );
    client.run("SELECT state_context_set('parent/child', 'x', '1')");
    client.run("SELECT * FROM state_context_merge('parent/child')");
    let base = "SELECT base_version FROM state_context WHERE run_id = 'parent/child'";
    assert_ne!(client.text(base), "1");
    client.run("SELECT state_context_set('parent/child', 'x', '2')");
    client.run("SELECT state_context_set('parent/child', 'y', '2')");
    client.run("UPDATE state_snapshot SET created_at = created_at - interval '100 days'");
    partition_two_months_ago(&mut client);
    // Nothing but the merge needs it: it is not current, no delta builds upon it, and no recovery point, as where a
    // run came back with state_recover().
    client.run("UPDATE state_snapshot SET recovery_point = false WHERE key = 'parent/child'");
    let kept = "SELECT version, recovery_point, state IS NOT NULL FROM state_snapshot WHERE key = 'parent/child' \
        ORDER BY 1";
    // The current one, 5, is in the head row.
    assert_eq!(client.rows(kept), [["1", "f", "t"], ["3", "f", "t"]]);
    client.run("SELECT * FROM state_partitions_drop('1 day')");
    assert_eq!(
        client.rows(&format!("SELECT version FROM ({kept}) k")),
        [["3"]]
    );
    client.run("SELECT * FROM state_context_merge('parent/child')");
    assert_eq!(
        client.text("SELECT state_context_get('parent') #> '{variables,x,value}'"),
        "2"
    );
}
