//! Finding the server, and what the exit code says where there is none.

use crate::support::{database, finish, program, server};
use state_cache_server_tests::Sql;

#[test]
fn arguments_environment_and_service_files_lead_to_the_server() {
    let database = database("connecting");
    let host = server().host().to_str().unwrap();
    let conninfo = format!("host={host} user=postgres dbname=connecting");
    let uri = format!(
        "postgresql:///connecting?host={}&user=postgres",
        host.replace('/', "%2F")
    );
    for given in [&conninfo, &uri] {
        let ran = finish(program().args(["ls", "--json", "-d", given]));
        assert!(
            ran.json().iter().any(|row| row["class"] == "run"),
            "{}",
            ran.err
        );
    }
    let flags = [
        "-h",
        host,
        "-p",
        "5432",
        "-U",
        "postgres",
        "-d",
        "connecting",
        "ls",
    ];
    assert!(finish(program().args(flags)).lines()[0].starts_with("CLASS"));
    let file = std::env::temp_dir().join(format!("state_cache_cli.{}.service", std::process::id()));
    std::fs::write(
        &file,
        format!("[here]\nhost={host}\nuser=postgres\ndbname=connecting\n"),
    )
    .unwrap();
    let ran = finish(
        program()
            .env("PGSERVICEFILE", &file)
            .args(["-d", "service=here", "ls"]),
    );
    let none = finish(
        program()
            .env("PGSERVICEFILE", &file)
            .env("PGSERVICE", "there")
            .arg("ls"),
    );
    std::fs::remove_file(&file).unwrap();
    assert!(ran.lines()[0].starts_with("CLASS"));
    assert_eq!(none.code, 2, "{}", none.err);
    drop(database);
}

#[test]
fn no_server_no_database_and_no_extension_have_exit_codes() {
    let database = database("connecting_badly");
    let ran = finish(program().args(["-h", "/nowhere", "ls"]));
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("no connection"), "{}", ran.err);
    let ran = database.run(&["-d", "no_such_database", "ls"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    let ran = database.run(&["-d", "template1", "ls"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("CREATE EXTENSION"), "{}", ran.err);
    for usage in [
        &["no-such-command"][..],
        &["show"],
        &["ls", "-d", "port=x"],
        &["ls", "-d", "a=b"],
    ] {
        assert_eq!(database.run(usage).code, 2, "{usage:?}");
    }
    assert_eq!(database.run(&["--help"]).code, 0);
    assert_eq!(database.run(&["--version"]).lines().len(), 1);
}

#[test]
fn who_may_not_is_told_who_can_help() {
    let mut database = database("connecting_as_nobody");
    database
        .session
        .run("CREATE ROLE cli_nobody LOGIN; CREATE ROLE cli_reader LOGIN");
    database
        .session
        .run("SELECT state_grant('cli_reader', 'reader'); SELECT state_set('a', '0')");
    database.session.run("SELECT state_set('a', '1')");
    let ran = database.run_as("cli_nobody", &["show", "a"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("profile \"reader\""), "{}", ran.err);
    assert_eq!(database.run_as("cli_reader", &["show", "a"]).lines(), ["1"]);
    let ran = database.run_as("cli_reader", &["prune", "run", "--keep", "1"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("profile \"application\""), "{}", ran.err);
    let ran = database.run_as("cli_reader", &["budgets"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("profile \"runner\""), "{}", ran.err);
}

#[test]
fn completions_and_manual_need_no_server() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            finish(program().args(["completions", shell]))
                .out
                .contains("state-cache")
        );
    }
    let manual = finish(program().arg("manual"));
    assert!(manual.out.contains(".TH"), "{}", manual.out);
}
