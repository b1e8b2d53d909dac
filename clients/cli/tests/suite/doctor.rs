//! `doctor`: each check, where there is nothing to find and where there is.

use crate::support::{Database, database, finish, program};
use state_cache_server_tests::{Server, Sql};

/// What a check finds: severities and findings.
fn findings(database: &Database, arguments: &[&str]) -> Vec<(String, String)> {
    let ran = database.run(&[&["doctor", "--json"], arguments].concat());
    let found: Vec<(String, String)> = ran
        .json()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            assert!(!text("advice").is_empty());
            (text("severity"), text("finding"))
        })
        .collect();
    let serious = found.iter().any(|(severity, _)| severity != "info");
    assert_eq!(ran.code, i32::from(serious), "{}{}", ran.out, ran.err);
    found
}

/// A check that finds one thing.
fn finds(database: &Database, arguments: &[&str], severity: &str, part: &str) {
    let found = findings(database, arguments);
    assert!(
        found.len() == 1 && found[0].0 == severity && found[0].1.contains(part),
        "{arguments:?}: {found:?}"
    );
}

#[test]
fn doctor_finds_nothing_where_nothing_is_wrong() {
    let database = database("doctor_well");
    // Workers are left out: the databases of the other tests may wait for one another's.
    for check in [
        "preload",
        "version",
        "unwritten",
        "cache",
        "audits",
        "integrity",
        "grants",
        "rls",
        "triggers",
        "protections",
        "partitions",
        "bloat",
        "transactions",
        "lag",
        "conflicts",
    ] {
        assert_eq!(findings(&database, &[check]), [], "{check}");
    }
    let all = database.run(&["doctor"]);
    assert!(
        all.out.contains("checks found nothing"),
        "{}{}",
        all.out,
        all.err
    );
    assert_eq!(database.run(&["doctor", "astrology"]).code, 2);
}

#[test]
fn doctor_finds_what_was_broken() {
    let mut database = database("doctor_ill");
    let session = &mut database.session;
    session.run("CREATE ROLE doctor_app LOGIN; SELECT state_grant('doctor_app', 'application')");
    session.run("REVOKE DELETE ON state_snapshot FROM doctor_app");
    session.run("ALTER TABLE state_head DISABLE TRIGGER state_cache_changed");
    session.run("ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY");
    session.run("SELECT state_context_create('p', inputs => '{\"v\": 1}')");
    session.run("SELECT state_context_child('p', 'c', inputs => '{\"v\": 1}')");
    session.run("SELECT state_context_set('p', 'v', '2'); SELECT state_context_set('c', 'v', '3')");
    session.run("SELECT * FROM state_context_merge('c', 'manual_review')");
    finds(
        &database,
        &["grants"],
        "warning",
        "doctor_app lacks 1 of profile application: DELETE on state_snapshot",
    );
    let operator = ["grants", "--role", "doctor_app", "--profile", "operator"];
    finds(&database, &operator, "error", "SELECT on state_cache_stats");
    let reader = ["grants", "--role", "doctor_app", "--profile", "reader"];
    assert_eq!(findings(&database, &reader), []);
    finds(&database, &["triggers"], "error", "state_cache_changed");
    finds(&database, &["rls"], "warning", "state_snapshot");
    finds(&database, &["conflicts"], "info", "run p");
    database
        .session
        .run("ALTER TABLE state_head ENABLE ROW LEVEL SECURITY");
    finds(&database, &["rls"], "info", "state_head, state_snapshot");
    let nobody = [
        "doctor",
        "grants",
        "--role",
        "no_such_role",
        "--profile",
        "reader",
    ];
    assert_eq!(database.run(&nobody).code, 5);
    // With what an application has, as far as that goes.
    let ran = database.run_as("doctor_app", &["doctor", "workers", "preload", "--json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("not looked at"), "{}", ran.out);
}

#[test]
fn doctor_knows_a_server_that_does_not_preload() {
    let server = Server::without_extension(&[]);
    server
        .connect()
        .run("CREATE EXTENSION state_cache; CREATE ROLE app LOGIN");
    server
        .connect()
        .run("SELECT state_grant('app', 'application')");
    for role in ["postgres", "app"] {
        let conninfo = format!(
            "host={} user={role} dbname=postgres",
            server.host().display()
        );
        let ran = finish(program().args(["-d", &conninfo, "doctor", "preload"]));
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains("shared_preload_libraries"), "{}", ran.out);
    }
}

/// Has pg_extension say that another version was installed, and every session look anew, as a step does.
fn pretend(database: &mut Database, version: &str) {
    database.session.run(&format!(
        "UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'state_cache';
         ALTER TABLE state_class ALTER COLUMN changed SET STATISTICS -1"
    ));
}

#[test]
fn doctor_compares_the_versions_of_installation_library_and_files() {
    // Releases before 0.2.0 do not tell the version of their library.
    let mut old = database("doctor_old");
    old.session.run("DROP EXTENSION state_cache");
    old.session
        .run("CREATE EXTENSION state_cache SCHEMA \"Agents\" VERSION '0.1.0'");
    let found = old.run(&["doctor"]);
    assert_eq!(found.code, 1, "{}{}", found.out, found.err);
    for part in [
        "version 0.1.0 is installed in this database",
        "ALTER EXTENSION state_cache UPDATE",
        "restart it first",
        "checks found nothing",
    ] {
        assert!(found.out.contains(part), "{part}: {}", found.out);
    }
    old.session.run("ALTER EXTENSION state_cache UPDATE");
    assert_eq!(findings(&old, &["version"]), []);

    let mut database = database("doctor_versions");
    let library = database.session.text("SELECT state_cache_version()");
    pretend(&mut database, "0.1.0");
    let part = format!(
        "0.1.0 is installed in this database, and the server runs the library of {library}"
    );
    finds(&database, &["version"], "warning", &part);
    // A library that is too old for an installation refuses what other checks ask.
    for version in ["99.0.0", "0.10.0", "1.0-rc1"] {
        pretend(&mut database, version);
        finds(
            &database,
            &["version"],
            "error",
            &format!("version {version} is installed"),
        );
        let refused = database.run(&["doctor"]);
        assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
        let advice =
            format!("install the files of {version} or a later version, and restart the server");
        for part in [
            advice.as_str(),
            "not looked at: extension state_cache is installed",
            "found nothing",
        ] {
            assert!(refused.out.contains(part), "{part}: {}", refused.out);
        }
    }
    // Files that a package has replaced under a server that still runs the library from before, which may be 0.1.9.
    database.session.run(
        "CREATE OR REPLACE FUNCTION state_cache_version() RETURNS text LANGUAGE sql AS $$ SELECT '0.1.9' $$",
    );
    pretend(&mut database, "0.1.9");
    let part = format!("has the files of {library}, and runs the library of 0.1.9");
    finds(&database, &["version"], "warning", &part);
    pretend(&mut database, &library);
    finds(
        &database,
        &["version"],
        "error",
        "library of 0.1.9, which refuses it",
    );
    let told = database.run(&["doctor", "version"]);
    let advice = format!("restart the server: it has the files of {library}");
    assert!(told.out.contains(&advice), "{}", told.out);
}

#[test]
fn doctor_looks_at_partitions_where_there_are_some() {
    let mut database = database("doctor_partitions");
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here
        .ancestors()
        .nth(2)
        .unwrap()
        .join("sql/state_cache_partition_by_month.sql");
    database
        .session
        .run(&std::fs::read_to_string(script).unwrap());
    database.session.run("SELECT state_partitions_create()");
    assert_eq!(findings(&database, &["partitions"]), []);
    database.session.run("SELECT state_set('a', '1')");
    // A version of a month that nobody has made a partition for.
    database
        .session
        .run("UPDATE state_snapshot SET created_at = now() + interval '2 years'");
    database.session.run("ANALYZE state_snapshot");
    finds(&database, &["partitions"], "warning", "1 rows are in");
}
