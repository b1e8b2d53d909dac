//! `export`, `import`, `tail`, `verify`, `prune`.

use crate::support::{Database, database};
use state_cache_server_tests::{PATIENCE, Sql};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("state_cache_cli.{}.{name}", std::process::id()))
}

/// The lines that a program prints, for who does not want to wait for ever.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // Nobody waits any more once the test has ended.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn sum(database: &mut Database, class: &str) -> String {
    let sql = format!(
        "SELECT count(*) || ' ' || md5(string_agg(key || state::text, ' ' ORDER BY key))
            FROM state_current WHERE class = '{class}'"
    );
    database.session.text(&sql)
}

#[test]
fn a_class_goes_out_and_in_again_whole() {
    let mut database = database("moving_export");
    database.session.run(
        "SELECT state_set('k-' || n, jsonb_build_object('n', n, 'exact', 1.10, 'text', E'\\u00e9\\n'))
            FROM generate_series(1, 1234) n",
    );
    database
        .session
        .run("SELECT state_set('k-later', '1', ttl => '1 hour')");
    let before = sum(&mut database, "run");
    let path = file("export");
    let name = path.to_str().unwrap();
    let ran = database.run(&["export", "run", "-o", name]);
    assert_eq!(ran.lines(), ["1235 states were written"]);
    let whole = std::fs::read(&path).unwrap();

    // Cut off in the middle of a line, and gone on with.
    std::fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
    assert_eq!(
        database
            .run(&["export", "run", "-o", name, "--resume"])
            .code,
        0
    );
    assert!(
        std::fs::read(&path).unwrap() == whole,
        "resumed, the file is another one"
    );
    assert_eq!(
        database
            .run(&["export", "config", "-o", name, "--resume"])
            .code,
        2
    );
    assert_eq!(
        database
            .run(&["export", "run", "k-12", "--json"])
            .lines()
            .len(),
        46
    );
    assert_eq!(database.run(&["export", "no_such_class"]).code, 5);

    database
        .session
        .run("SELECT state_class_define('copy', dedup => false)");
    let first = database.run(&["import", "copy", name, "--json"]).json();
    assert_eq!(
        (&first[0]["written"], &first[0]["lines"]),
        (&1235.into(), &1235.into())
    );
    assert_eq!(sum(&mut database, "copy"), before);
    let expires =
        "SELECT expires_at > now() FROM state_head WHERE class = 'copy' AND key = 'k-later'";
    assert!(database.session.flag(expires));
    // Again: nothing is written, also where the class does not look for duplicates.
    let again = database.run(&["import", "copy", name, "--json"]).json();
    assert_eq!(
        (&again[0]["written"], &again[0]["unchanged"]),
        (&0.into(), &1235.into())
    );
    let versions = "SELECT max(version) FROM state_head WHERE class = 'copy'";
    assert_eq!(database.session.number(versions), 1);

    database
        .session
        .run("SELECT state_set('k-1', '\"own\"', class => 'copy')");
    let keep = database
        .run(&["import", "copy", name, "--present", "keep", "--json"])
        .json();
    assert_eq!(keep[0]["kept"], 1);
    assert_eq!(
        database.session.text("SELECT state_get('k-1', 'copy')"),
        "\"own\""
    );
    let line = "{\"key\": \"x\", \"state\": 1}\n";
    std::fs::write(&path, format!("{line}{line}nonsense\n")).unwrap();
    let broken = database.run(&["import", "copy", name, "--batch", "2"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(broken.code, 2, "{}", broken.err);
    assert!(
        broken.err.contains("--from-line 3") && broken.err.contains("line 3"),
        "{}",
        broken.err
    );
    assert_eq!(database.session.text("SELECT state_get('x', 'copy')"), "1");
}

#[test]
fn who_is_too_late_is_told_to_try_again() {
    let mut database = database("moving_conflict");
    database.session.run("SELECT state_set('a', '1')");
    let line = "{\"key\": \"a\", \"state\": 2}\n";
    let import = |database: &Database, limit: &str| {
        let mut child = database
            .command(&["import", "run"])
            .env("PGOPTIONS", format!("-c lock_timeout={limit}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, line.as_bytes()).unwrap();
        drop(input);
        child.wait().unwrap().code()
    };
    database.session.run("BEGIN; SELECT state_put('a', '3')");
    assert_eq!(import(&database, "10ms"), Some(6));
    database.session.run("ROLLBACK");
    assert_eq!(import(&database, "60s"), Some(0));
    assert_eq!(database.session.text("SELECT state_get('a')"), "2");
}

#[test]
fn tail_catches_up_and_then_hears() {
    let mut database = database("moving_tail");
    database.session.run("SELECT state_set('before', '1')");
    let all = database
        .run(&["tail", "--since", "all", "--once", "--json"])
        .json();
    assert_eq!(
        (&all[0]["key"], &all[1]["op"]),
        (&"before".into(), &"end".into())
    );
    let cursor = all[1]["cursor"].as_str().unwrap().to_owned();
    database
        .session
        .run("SELECT state_set('while away', '{\"n\": 1}')");
    let mut child = database
        .command(&[
            "tail",
            "--since",
            &cursor,
            "--json",
            "--documents",
            "--class",
            "run",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(&mut child);
    // A change may be told twice, so others are passed over.
    let wait_for = |op: &str, key: &str| loop {
        let line: serde_json::Value =
            serde_json::from_str(&lines.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(line["class"].as_str().unwrap_or("run"), "run");
        if line["op"] == op && line["key"] == key {
            return line;
        }
    };
    assert_eq!(wait_for("set", "while away")["state"]["n"], 1);
    // It listens: it did so before it caught up.
    database
        .session
        .run("SELECT state_set('elsewhere', '1', class => 'config')");
    database.session.run("SELECT state_set('heard', '2')");
    let heard = wait_for("set", "heard");
    assert_eq!((&heard["version"], &heard["state"]), (&1.into(), &2.into()));
    database.session.run("SELECT state_delete('heard')");
    wait_for("delete", "heard");
    database.session.run("SELECT state_invalidate('h*')");
    wait_for("invalidate", "h*");
    child.kill().unwrap();
    child.wait().unwrap();
    let counted = database.run(&["tail", "--since", "all", "--count", "1", "--json"]);
    assert_eq!(counted.json().len(), 1);
}

#[test]
fn tail_connects_again_and_asks_what_it_missed() {
    let mut database = database("moving_tail_lost");
    database.session.run("SELECT state_set('first', '1')");
    let mut child = database
        .command(&["tail", "--since", "all", "--json"])
        .env("PGAPPNAME", "tail_lost")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines_of(&mut child);
    let wait_for = |key: &str| loop {
        let line: serde_json::Value =
            serde_json::from_str(&lines.recv_timeout(PATIENCE).unwrap()).unwrap();
        if line["key"] == key {
            return;
        }
    };
    wait_for("first");
    // The listener is gone when the second one is set.
    database.session.run(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'tail_lost'",
    );
    database.session.run("SELECT state_set('second', '1')");
    wait_for("second");
    database.session.run("SELECT state_set('third', '1')");
    wait_for("third");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_has_read_enough_is_no_error() {
    let mut database = database("moving_pipe");
    database.session.run(
        "SELECT state_set('k' || n, to_jsonb(repeat('x', 1000))) FROM generate_series(1, 3000) n",
    );
    let mut child = database
        .command(&["export", "run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"key\":\"k1\""));
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn verify_finds_and_prune_deletes() {
    let mut database = database("moving_verify");
    database.session.run("SELECT state_set('a', '1')");
    database.session.run("SELECT state_set('a', '2')");
    assert_eq!(
        database.run(&["verify"]).lines(),
        ["every kept version is intact"]
    );
    database.session.run(
        "UPDATE state_snapshot SET hash = decode(repeat('00', 16), 'hex')
            WHERE key = 'a' AND version = 1",
    );
    let found = database.run(&["verify", "run", "--json"]);
    assert_eq!(found.code, 1, "{}", found.err);
    assert_eq!(
        (&found.json()[0]["key"], &found.json()[0]["version"]),
        (&"a".into(), &1.into())
    );
    assert_eq!(
        database.run(&["prune", "run", "--keep", "1"]).lines(),
        ["1 versions were deleted"]
    );
    assert_eq!(
        database
            .run(&["prune", "no_such_class", "--keep", "1"])
            .code,
        5
    );
}
