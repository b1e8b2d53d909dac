//! Causal reads: waiting on a standby for what a primary has written, also across a promotion.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, code, eventually};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a statement in a session of its own; how long it took, and its first value or its SQLSTATE.
fn in_background(
    server: &Server,
    sql: &str,
) -> thread::JoinHandle<(Duration, Result<String, String>)> {
    let (mut client, sql) = (server.connect(), sql.to_owned());
    thread::spawn(move || {
        let begin = Instant::now();
        let answer = client.simple_query(&sql);
        let answer = answer.map_err(|error| code(&error)).map(|messages| {
            let row = messages.iter().find_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
                _ => None,
            });
            row.flatten().unwrap_or_else(|| "NULL".to_owned())
        });
        (begin.elapsed(), answer)
    })
}

#[test]
fn a_reader_on_a_standby_waits_for_the_version() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('a', '1'), state_set('b', '1')");
    let standby = primary.standby();
    let mut reader = standby.connect();
    standby.catch_up_with(&primary);
    assert_eq!(reader.number("SELECT state_wait('a', 1)"), 1);

    reader.run("SELECT pg_wal_replay_pause()");
    eventually("the pause", || {
        reader.text("SELECT pg_get_wal_replay_pause_state()") == "paused"
    });
    writer.run("SELECT state_set('a', '2'), state_delete('b')");
    let after = writer.cursor();
    // The time is over: 57014, not before it is over, and the state is read as it was.
    let begin = Instant::now();
    assert_eq!(reader.error("SELECT state_wait('a', 2, '300 ms')"), "57014");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(reader.error("SELECT state_wait('a', 2, '0')"), "57014");
    reader.run("SET state_cache.wait_timeout = '200 ms'");
    for call in [
        "SELECT state_get('a', min_version => 2)",
        "SELECT state_get_text('a', min_version => 2)",
        "SELECT state_get_path('a', '{}', min_version => 2)",
        "SELECT * FROM state_get_many('{a}', min_version => 2)",
    ] {
        assert_eq!(reader.error(call), "57014", "{call}");
    }
    let for_cursor = format!("SELECT state_wait_for('{after}', '200 ms')");
    assert_eq!(reader.error(&for_cursor), "57014");
    assert_eq!(reader.text("SELECT state_get('a', min_version => 1)"), "1");
    // One snapshot only: there is nothing to wait for.
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(reader.text("SELECT state_get('a', min_version => 1)"), "1");
    let begin = Instant::now();
    assert_eq!(reader.error("SELECT state_wait('a', 2)"), "40001");
    assert!(begin.elapsed() < Duration::from_secs(3));
    reader.run("ROLLBACK");
    // A wait can be cancelled.
    let cancelled = in_background(
        &standby,
        "SET statement_timeout = '200 ms'; SELECT state_wait('a', 2, '1 min')",
    );
    let (time, answer) = cancelled.join().unwrap();
    assert_eq!(answer, Err("57014".to_owned()));
    assert!(time < Duration::from_secs(30));

    let waiting = [
        "SELECT state_wait('a', 2, '1 min')",
        "SET state_cache.wait_timeout = '1 min'; SELECT state_get('a', min_version => 2)",
        "SELECT state_wait('b', 2, '1 min')",
        "SET state_cache.wait_timeout = '1 min'; SELECT state FROM state_get_many('{a}', min_version => 2)",
        &format!("SELECT state_wait_for('{after}', '1 min')::text"),
    ]
    .map(|sql| in_background(&standby, sql));
    thread::sleep(Duration::from_millis(100));
    assert!(waiting.iter().all(|session| !session.is_finished()));
    reader.run("SELECT pg_wal_replay_resume()");
    let answers = waiting.map(|session| session.join().unwrap().1.unwrap());
    assert_eq!(answers, ["2", "2", "2", "2", ""]);
}

#[test]
fn a_promotion_ends_the_wait_for_what_never_arrived() {
    let primary = Server::new(&[]);
    primary.connect().run("SELECT state_set('a', '1')");
    let standby = primary.standby();
    standby.catch_up_with(&primary);
    let waiting = [
        in_background(&standby, "SELECT state_wait('a', 2, '10 min')"),
        in_background(&standby, "SELECT state_wait('a', 1, '10 min')"),
    ];
    let mut client = standby.connect();
    eventually("the wait", || {
        client.number(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT state_wait%' AND state = 'active'",
        ) == 1
    });
    standby.promote();
    let answers = waiting.map(|session| session.join().unwrap().1);
    assert_eq!(answers, [Err("40001".to_owned()), Ok("1".to_owned())]);
}

#[test]
fn a_cursor_outlives_a_promotion_if_all_that_it_speaks_of_has_arrived() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('a', '1')");
    // In progress when the cursor is taken, and committed before the promotion.
    let mut slow = primary.connect();
    slow.run("BEGIN; SELECT state_set('slow', '1'); SELECT count(*) FROM state_batch_commit()");
    let arrived = writer.cursor();
    writer.run("SELECT state_set('b', '1')");
    slow.run("COMMIT");
    let standby = primary.standby();
    let (mut reader, cascading) = (standby.connect(), standby.standby());
    standby.catch_up_with(&primary);
    // Written by the old primary, and lost with it: the WAL is received by nobody.
    standby.stop_following();
    writer.run("SELECT state_set('lost', '1')");
    let lost = writer.cursor();
    primary.stop();
    standby.promote();

    let told = |client: &mut Client, cursor: &str| {
        let rows = client.rows(&format!(
            "SELECT op, key FROM state_changes('{cursor}') WHERE op <> 'end' ORDER BY key"
        ));
        rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut reader, &arrived), ["set b", "set slow"]);
    assert_eq!(
        reader.error(&format!("SELECT * FROM state_changes('{lost}')")),
        "55000"
    );
    assert_eq!(
        reader.error(&format!("SELECT state_wait_for('{lost}', '1 s')")),
        "55000"
    );
    reader.run(&format!("SELECT state_wait_for('{arrived}', '1 s')"));
    reader.run("SELECT state_set('c', '1')");
    assert_eq!(told(&mut reader, &arrived), ["set b", "set c", "set slow"]);
    // The standby of the standby follows to the new timeline.
    let anew = reader.cursor();
    let mut follower = cascading.connect();
    follower.run(&format!("SELECT state_wait_for('{anew}', '1 min')"));
    assert_eq!(
        told(&mut follower, &arrived),
        ["set b", "set c", "set slow"]
    );
    assert_eq!(follower.text("SELECT state_get('c')"), "1");
    assert_eq!(
        follower.error(&format!("SELECT state_wait_for('{lost}', '500 ms')")),
        "55000"
    );
}

#[test]
fn a_change_on_a_standby_says_where_to_go() {
    let primary = Server::new(&[]);
    primary.connect().run("SELECT state_set('a', '1')");
    let standby = primary.standby();
    let mut reader = standby.connect();
    for call in [
        "SELECT state_set('a', '2')",
        "SELECT state_delete('a')",
        "SELECT state_save('a', '2')",
        "SELECT state_class_define('c')",
        "SELECT state_prune('run', keep => 1)",
        "SELECT state_flush()",
    ] {
        let error = reader.simple_query(call).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "25006", "{call}");
        let hint = error.hint().unwrap_or_default();
        assert!(
            hint.contains("target_session_attrs=primary"),
            "{call}: {hint}"
        );
    }
}
