//! Which installations the library works with.

use super::{OLD, installed, old_installation, server};
use postgres::Client;
use state_cache_server_tests::{Sql, eventually};

/// What an installation of that version is answered: SQLSTATE, message, detail and hint.
fn refusal(client: &mut Client) -> [String; 4] {
    let error = client.simple_query("SELECT state_get('a')").unwrap_err();
    let error = error.as_db_error().unwrap();
    [
        error.code().code().to_owned(),
        error.message().to_owned(),
        error.detail().unwrap().to_owned(),
        error.hint().unwrap().to_owned(),
    ]
}

/// Has pg_extension say that another version was installed, and every session look anew, as a step does.
fn pretend(client: &mut Client, version: &str) {
    client.run(&format!(
        "UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'state_cache';
         ALTER TABLE state_class ALTER COLUMN changed SET STATISTICS -1"
    ));
}

#[test]
fn an_installation_that_is_too_old_or_too_new_is_refused_by_name() {
    let server = server(&["state_cache.flush_interval = '10ms'"]);
    let mut elsewhere = server.connect();
    elsewhere.run("CREATE EXTENSION state_cache");
    let library = elsewhere.text("SELECT state_cache_version()");
    assert_eq!(installed(&mut elsewhere), library);
    let mut admin = old_installation(&server, "other");
    admin.run(
        "SELECT state_class_define('left', write_mode => 'behind');
         SELECT state_set('a', '1'), state_set('a', '1', class => 'left')",
    );
    admin.run(
        "CREATE FUNCTION state_cache_test_call_worker() RETURNS void LANGUAGE c
             AS '$libdir/state_cache', 'state_cache_test_call_worker'",
    );
    // This one knows the tables before anything happens to them.
    let mut other = server.connect_to("other");
    assert_eq!(other.text("SELECT state_get('a')"), "1");

    for (version, newer) in [
        ("0.0.9", false),
        ("0.1", true),
        ("0.10.0", true),
        ("99.0.0", true),
        ("0.1.0-rc1", true),
    ] {
        pretend(&mut admin, version);
        let hint = match newer {
            true => format!(
                "Install the library of state_cache {version} or a later one, and restart the server."
            ),
            false => "Run ALTER EXTENSION state_cache UPDATE in this database.".to_owned(),
        };
        let expected = [
            "55000".to_owned(),
            format!(
                "extension state_cache is installed in version {version}, and the library is of version {library}"
            ),
            format!("This library works with what versions {OLD} to {library} have installed."),
            hint,
        ];
        assert_eq!(refusal(&mut other), expected);
        assert_eq!(refusal(&mut server.connect_to("other")), expected);
        for sql in [
            "SELECT state_set('a', '2')",
            "BEGIN; SELECT state_batch_begin(); SELECT state_set('a', '2'); COMMIT",
            "UPDATE state_head SET updated_at = now()",
            "SELECT * FROM state_cache_stats",
            "SELECT state_context_create('r')",
        ] {
            assert_eq!(other.error(sql), "55000", "{version}: {sql}");
            other.run("ROLLBACK");
        }
        if version == "99.0.0" {
            // The worker says so as well.
            let failing = format!("is installed in version {version},");
            eventually("the worker to refuse it", || {
                other.run("SELECT state_cache_test_call_worker()");
                let log = server.log();
                let mut lines = log
                    .lines()
                    .filter(|line| line.contains("state_cache worker:"));
                lines.any(|line| line.contains(&failing))
            });
        }
        pretend(&mut admin, OLD);
        assert_eq!(other.text("SELECT state_get('a')"), "1");
        other.run("SELECT state_set('a', '2'), state_set('a', '2', class => 'left')");
        other.run("SELECT state_set('a', '1')");
    }
    // Other databases of the server never noticed.
    elsewhere.run("SELECT state_set('a', '1')");

    // The worker goes on, and what it has not written is not lost.
    eventually("the worker to write", || {
        other.rows("SELECT state FROM state_current WHERE class = 'left'") == [["2"]]
    });
    // What is refused can be updated where there is a step, and dropped.
    pretend(&mut admin, "99.0.0");
    admin.run("DROP EXTENSION state_cache");
    admin.run("CREATE EXTENSION state_cache");
    assert_eq!(other.text("SELECT state_get('a') IS NULL"), "t");
}
