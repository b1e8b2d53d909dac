//! Races of a read with replay, with a promotion, and with writers after it, one step at a time: a session waits at a
//! point of the protocol while the others go on.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, code, eventually, inconsistencies};
use std::thread;

/// Points where a session waits for an advisory lock: their names, and the numbers of the locks.
const BEFORE_FILL: (&str, u32) = ("before_fill", 4);
const CHAIN: (&str, u32) = ("chain", 9);

/// A statement that waits at a point until it is let go.
struct Waiting {
    gate: Client,
    number: u32,
    session: thread::JoinHandle<Result<String, String>>,
}

impl Waiting {
    /// Runs `sql` in the session, after `before`, until it waits at the point.
    fn at(
        server: &Server,
        (point, number): (&str, u32),
        mut session: Client,
        before: &str,
        sql: &str,
    ) -> Self {
        let mut gate = server.connect();
        gate.run(&format!("SELECT pg_advisory_lock(5202, {number})"));
        session.run(before);
        session.run(&format!("SET state_cache.test_stop_at = '{point}'"));
        let (pid, sql) = (session.pid(), sql.to_owned());
        let session = thread::spawn(move || {
            let answer = session.simple_query(&sql).map(|messages| {
                let row = messages.iter().find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                row.unwrap_or_else(|| "NULL".to_owned())
            });
            answer.map_err(|error| match error.as_db_error() {
                Some(told) => format!("{}: {}", code(&error), told.message()),
                None => code(&error),
            })
        });
        eventually("the session to wait", || {
            gate.flag(&format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
            ))
        });
        Self {
            gate,
            number,
            session,
        }
    }

    fn is_over(&self) -> bool {
        self.session.is_finished()
    }

    /// Lets it go on; its first value, or its SQLSTATE and message.
    fn let_go(mut self) -> Result<String, String> {
        let number = self.number;
        self.gate
            .run(&format!("SELECT pg_advisory_unlock(5202, {number})"));
        self.session.join().unwrap()
    }
}

// A fill of the standby that comes after the promotion and after a change on the new primary takes nobody's place.
#[test]
fn a_fill_that_a_promotion_overtakes_leaves_the_new_primarys_version_in_place() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('a', '{\"n\": 1}'), state_set('b', '{\"n\": 1}')");
    let standby = primary.standby();
    let read = "SELECT state_get_path('a', '{n}')";
    let late = Waiting::at(&standby, BEFORE_FILL, standby.connect(), "", read);
    let untouched = "SELECT state_get_path('b', '{n}')";
    let mut other = standby.connect();
    standby.promote();
    other.run("SELECT state_set('a', '{\"n\": 2}')");
    assert_eq!(other.text(read), "2");
    // It goes on with the snapshot of its statement.
    assert_eq!(late.let_go(), Ok("1".to_owned()));
    for mut client in [other, standby.connect()] {
        for _ in 1..=2 {
            assert_eq!(client.text(read), "2");
            assert_eq!(client.text(untouched), "1");
        }
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
}

// Nobody has changed the state since: the late fill is linked, and must not be taken for proven.
#[test]
fn a_fill_that_ends_after_the_promotion_is_proven_by_its_first_reader() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('a', '{\"n\": 1}')");
    let standby = primary.standby();
    let read = "SELECT state_get_path('a', '{n}')";
    let late = Waiting::at(&standby, BEFORE_FILL, standby.connect(), "", read);
    standby.promote();
    assert_eq!(late.let_go(), Ok("1".to_owned()));
    let mut client = standby.connect();
    let (validated, hits) = (client.counter("validated"), client.counter("hits"));
    for _ in 1..=3 {
        assert_eq!(client.text(read), "1");
    }
    assert_eq!(client.counter("validated"), validated + 1);
    assert_eq!(client.counter("hits"), hits + 2);
}

// A proof that a change overtakes links nothing, and its reader is answered as its snapshot says.
#[test]
fn a_proof_that_a_change_overtakes_is_dropped() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('a', '{\"n\": 1}')");
    let standby = primary.standby();
    let read = "SELECT state_get_path('a', '{n}')";
    let mut client = standby.connect();
    for _ in 1..=2 {
        assert_eq!(client.text(read), "1");
    }
    standby.promote();
    let late = Waiting::at(&standby, BEFORE_FILL, standby.connect(), "", read);
    client.run("SELECT state_set('a', '{\"n\": 2}')");
    assert_eq!(late.let_go(), Ok("1".to_owned()));
    let hits = client.counter("hits");
    for _ in 1..=2 {
        assert_eq!(client.text(read), "2");
    }
    assert_eq!(client.counter("hits"), hits + 2);
}

const READ: &str = "SELECT state_get_path('a', '{n}', class => 'c')";

/// A primary, and a standby that lets its readers delay replay for so long.
fn pair(delay: &str) -> [Server; 2] {
    let primary = Server::new(&[&format!("max_standby_streaming_delay = {delay}")]);
    let mut writer = primary.connect();
    writer.run("SELECT state_class_define('c', keep => 30)");
    let standby = primary.standby();
    [primary, standby]
}

/// Makes 30 more versions of a state, of which the last is a delta.
fn save(writer: &mut Client) -> i64 {
    let before = writer.number("SELECT coalesce(max(version), 0) FROM state_head");
    for n in before + 1..=before + 30 {
        writer.run(&format!(
            "SELECT state_set('a', jsonb_build_object('n', {n}, 'text', (SELECT string_agg(md5(i::text), ' ')
                FROM generate_series(1, 60) i)), class => 'c')"
        ));
    }
    let encoding =
        "SELECT encoding FROM state_history('a', class => 'c') ORDER BY version DESC LIMIT 1";
    assert_eq!(writer.text(encoding), "delta");
    before + 30
}

/// Lets a session of the standby come to the rows that the newest version builds upon, and has the primary remove
/// these and replace the version meanwhile: the session, the version, and the place in the WAL of what was done.
fn removed_under_a_reader(
    [primary, standby]: &[Server; 2],
    before: &str,
    read: impl FnOnce(i64) -> String,
) -> (Waiting, i64, String) {
    let mut writer = primary.connect();
    let version = save(&mut writer);
    standby.catch_up_with(primary);
    let reader = Waiting::at(standby, CHAIN, standby.connect(), before, &read(version));
    save(&mut writer);
    writer.run("SELECT state_prune('c', keep => 1)");
    writer.run("VACUUM state_snapshot, state_head");
    let place = writer.text("SELECT pg_current_wal_insert_lsn()");
    (reader, version, place)
}

fn has(client: &mut Client, done: &str, place: &str) -> bool {
    client.flag(&format!("SELECT {done} >= '{place}'"))
}

/// Once replay has come to the place, everybody reads what came after.
fn goes_on(standby: &Server, version: i64, place: &str) {
    let mut client = standby.connect();
    eventually("replay", || {
        has(&mut client, "pg_last_wal_replay_lsn()", place)
    });
    for _ in 1..=2 {
        assert_eq!(client.number(READ), version + 30);
    }
    assert_eq!(client.counter("damaged"), 0);
}

#[test]
fn a_row_that_goes_while_its_chain_is_read_is_the_servers_own_conflict() {
    let servers = pair("100ms");
    let newest = |_| READ.to_owned();
    let by_number = |version| format!("SELECT state_at('a', {version}, class => 'c')");
    let reads: [(&str, &dyn Fn(i64) -> String); 4] = [
        ("", &newest),
        ("", &by_number),
        (
            "SET default_transaction_isolation = 'repeatable read'",
            &newest,
        ),
        // Who goes on with a damaged state must not take the conflict for damage.
        ("SET state_cache.on_corruption = recover", &newest),
    ];
    for (before, read) in reads {
        let told = servers[1].log().len();
        let (reader, version, place) = removed_under_a_reader(&servers, before, read);
        eventually("the end of the reader", || reader.is_over());
        // A session that has ended may be told so before the answer.
        let answer = reader.let_go().unwrap_err();
        let is_conflict =
            answer.starts_with("40001: ") && answer.ends_with("due to conflict with recovery");
        assert!(
            is_conflict || answer == "connection lost",
            "{before}: {answer}"
        );
        goes_on(&servers[1], version, &place);
        // The server ends a session at once where a subtransaction is open, and else cancels the statement. But it
        // repeats its signal every 5 ms until the transaction has ended: a signal that meets the transaction while it
        // is being aborted ends the session after the statement, and the client may notice that first. So the log is
        // asked, which has both in their order.
        let first = match before.contains("recover") {
            true => "FATAL:  terminating connection due to conflict with recovery",
            false => "ERROR:  canceling statement due to conflict with recovery",
        };
        let log = servers[1].log();
        let mut lines = log[told..].lines();
        let line = lines.find(|line| line.contains("due to conflict with recovery"));
        assert!(
            line.is_some_and(|line| line.contains(first)),
            "{before}: {line:?}"
        );
    }
}

#[test]
fn a_row_that_replay_keeps_for_a_reader_is_read_as_it_was() {
    let servers = pair("-1");
    let (reader, version, place) = removed_under_a_reader(&servers, "", |_| READ.to_owned());
    let mut client = servers[1].connect();
    let is_waiting = "SELECT wait_event LIKE 'RecoveryConflict%' FROM pg_stat_activity
        WHERE backend_type = 'startup'";
    eventually("the conflict", || client.text(is_waiting) == "t");
    assert!(!has(&mut client, "pg_last_wal_replay_lsn()", &place));
    assert!(!reader.is_over());
    assert_eq!(reader.let_go(), Ok(version.to_string()));
    goes_on(&servers[1], version, &place);
}
