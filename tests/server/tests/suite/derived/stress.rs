//! Documents of derived classes under stress: many sessions change and read five tables that are joined, with an L1
//! so small that it evicts all the time, and each answer is compared with what the source gives in the same
//! statement, thus under the same snapshot.
//!
//! `STATE_CACHE_STRESS_READS` sets how many answers the suite compares; `make soak` compares a million.

use postgres::{Client, Statement};
use state_cache_server_tests::{Dice, Server, Sql, code};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Sessions that read and write at random.
const WORKERS: u64 = 16;
/// Rows of each table, and so documents of each class.
const ROWS: u64 = 24;
/// With a step of the protocol left out, a difference must be found before so many answers are compared.
const READS_UNTIL_FOUND: u64 = 300_000;

const SETUP: &str = "
    CREATE TABLE settings (name text PRIMARY KEY, value integer);
    CREATE TABLE teams (id bigint PRIMARY KEY, name text);
    CREATE TABLE users (id bigint PRIMARY KEY, name text, padding text);
    CREATE TABLE team_members (team_id bigint, user_id bigint, role text);
    CREATE TABLE chats (id bigint PRIMARY KEY, team_id bigint, title text);
    INSERT INTO settings VALUES ('model', 0);
    INSERT INTO teams SELECT n, 'team ' || n FROM generate_series(0, 23) n;
    INSERT INTO users SELECT n, 'user ' || n, repeat(md5(n::text), 800) FROM generate_series(0, 23) n;
    INSERT INTO team_members SELECT n, m * 5 % 24, 'r' FROM generate_series(0, 23) n, generate_series(n, n + 2) m;
    INSERT INTO chats SELECT n, n * 7 % 24, 'chat ' || n FROM generate_series(0, 23) n;
    CREATE INDEX ON team_members (team_id);
    CREATE FUNCTION sources() RETURNS TABLE (class text, source text, computed text) LANGUAGE sql AS $$
        SELECT class, source, coalesce(computed, source) FROM (VALUES
        ('user', 'SELECT to_jsonb(u) FROM users u WHERE u.id = $1::bigint'),
        ('team', 'SELECT jsonb_build_object(''name'', t.name, ''members'', (SELECT jsonb_agg(jsonb_build_array(u.name,
            m.role) ORDER BY u.id, m.role) FROM team_members m JOIN users u ON u.id = m.user_id
            WHERE m.team_id = t.id)) FROM teams t WHERE t.id = $1::bigint'),
        ('chat', 'SELECT jsonb_build_object(''title'', c.title, ''team'', t.name, ''model'', s.value, ''members'',
            (SELECT count(*) FROM team_members m WHERE m.team_id = t.id)) FROM chats c LEFT JOIN teams t
            ON t.id = c.team_id, settings s WHERE c.id = $1::bigint'),
        ('work', 'SELECT jsonb_build_object(''chat'', c.title, ''job'', state_get(''job-'' || c.team_id % 8))
            FROM chats c WHERE c.id = $1::bigint'),
        ('roster', 'SELECT jsonb_agg(state_get(m.user_id::text, ''user'') ORDER BY m.user_id, m.role)
            FROM team_members m WHERE m.team_id = $1::bigint')) s (class, source)
        LEFT JOIN (VALUES ('roster', 'SELECT jsonb_agg((SELECT to_jsonb(u) FROM users u WHERE u.id = m.user_id)
            ORDER BY m.user_id, m.role) FROM team_members m WHERE m.team_id = $1::bigint')) c (class, computed)
        USING (class) $$;
    SELECT state_set('job-' || n, '{\"n\": 0}') FROM generate_series(0, 6) n;
    SELECT state_class_define(class, cache_ttl => '1 day', source => source) FROM sources();
    SELECT state_watch('user', 'users', 'id'), state_watch('team', 'teams', 'id'), state_watch('team', 'team_members',
        'team_id'), state_watch('team', 'users'), state_watch('chat', 'chats', 'id'), state_watch('chat', 'teams'),
        state_watch('chat', 'settings'), state_watch('chat', 'team_members'), state_watch('work', 'chats', 'id'),
        state_watch('roster', 'team_members', 'team_id');
    SELECT state_class_define(class, cache_ttl => '0') FROM sources()";

/// What the threads of a run know together.
struct Board {
    target: u64,
    until_difference: bool,
    compared: AtomicU64,
    over: AtomicBool,
    differences: Mutex<Vec<String>>,
}

/// Ends the run when dropped, so that the other threads stop also when one of them fails.
struct Ends<'a>(&'a Board);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.over.store(true, SeqCst);
        }
    }
}

/// A session, with a statement for each class that compares an answer.
struct Session {
    client: Client,
    statements: Vec<(String, Statement)>,
    dice: Dice,
}

impl Session {
    fn new(server: &Server, seed: u64, leave_out: &str, stop_at: &str) -> Self {
        let mut client = server.connect();
        client.run(&format!(
            "SET state_cache.test_unsafe = '{leave_out}'; SET state_cache.test_stop_at = '{stop_at}'"
        ));
        let mut statements = Vec::new();
        for row in client
            .query("SELECT class, computed FROM sources()", &[])
            .unwrap()
        {
            let (class, source): (String, String) = (row.get(0), row.get(1));
            // One parameter has one type.
            let source = source.replace("$1", "k");
            let sql = format!(
                "SELECT state_get_text(k, '{class}'), ({source})::text FROM (VALUES ($1::text)) v (k)"
            );
            statements.push((class, client.prepare(&sql).unwrap()));
        }
        Self {
            client,
            statements,
            dice: Dice::new(seed),
        }
    }

    /// Compares some answers, each in a statement of its own.
    fn compare(&mut self, board: &Board, when: &str) -> Result<(), postgres::Error> {
        for _ in 0..=self.dice.roll(6) {
            let (class, statement) = &self.statements[self.dice.roll(5) as usize];
            let key = self.dice.roll(ROWS + 1).to_string();
            let row = self.client.query_one(statement, &[&key])?;
            let (answer, computed): (Option<String>, Option<String>) = (row.get(0), row.get(1));
            if answer != computed {
                let difference = format!("{class}/{key}, {when}: {answer:?} for {computed:?}");
                let mut differences = board.differences.lock().unwrap();
                differences.push(difference);
                if board.until_difference || differences.len() > 5 {
                    board.over.store(true, SeqCst);
                }
            }
            if board.compared.fetch_add(1, SeqCst) + 1 >= board.target {
                board.over.store(true, SeqCst);
            }
        }
        Ok(())
    }

    /// Changes something at random.
    fn change(&mut self) -> Result<(), postgres::Error> {
        let (a, b, n) = (
            self.dice.roll(ROWS),
            self.dice.roll(ROWS),
            self.dice.roll(1 << 40),
        );
        let sql = match self.dice.roll(20) {
            0..3 => format!("UPDATE users SET name = 'u{n}' WHERE id = {a}"),
            3..5 => format!("UPDATE teams SET name = 't{n}' WHERE id IN ({a}, {b})"),
            5..7 => format!(
                "UPDATE team_members SET team_id = {a}, role = 'r{n}' WHERE team_id = {b} AND user_id < 12"
            ),
            7..9 => format!("UPDATE chats SET team_id = {a}, title = 'c{n}' WHERE id = {b}"),
            9 => format!("UPDATE settings SET value = {}", n % 1000),
            10 => format!("DELETE FROM users WHERE id = {a}"),
            11 => format!(
                "INSERT INTO users VALUES ({a}, 'new {n}', repeat('x', 25000))
                     ON CONFLICT (id) DO UPDATE SET name = 'again'"
            ),
            12 => format!(
                "DELETE FROM chats WHERE id = {a}; INSERT INTO chats VALUES ({a}, {b}, 'anew')"
            ),
            13 => format!(
                "MERGE INTO teams USING (VALUES ({a}::bigint)) v (id) ON v.id = teams.id
                 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'merged')"
            ),
            15..18 => format!("SELECT state_set('job-{}', '{{\"n\": {n}}}')", a % 8),
            18 => format!("SELECT state_delete('job-{}')", a % 8),
            14 => format!("INSERT INTO team_members VALUES ({a}, {b}, 'i{n}')"),
            // Keeps the table from growing.
            _ => format!(
                "DELETE FROM team_members WHERE role LIKE 'i%' AND team_id % 3 = {}",
                a % 3
            ),
        };
        self.client.batch_execute(&sql)
    }

    /// One transaction that changes something, looks at its own changes, and commits or not.
    fn transaction(&mut self, board: &Board) -> Result<(), postgres::Error> {
        let isolation = ["READ COMMITTED", "REPEATABLE READ"][self.dice.roll(2) as usize];
        self.client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        for _ in 0..=self.dice.roll(2) {
            self.compare(board, "before own changes")?;
            if self.dice.roll(3) == 0 {
                self.client.batch_execute("SAVEPOINT s")?;
                self.change()?;
                self.compare(board, "in a savepoint")?;
                let end = ["ROLLBACK TO s", "RELEASE s"][self.dice.roll(2) as usize];
                self.client.batch_execute(end)?;
            } else {
                self.change()?;
            }
            self.compare(board, "after own changes")?;
        }
        let end = ["COMMIT", "COMMIT", "ROLLBACK"][self.dice.roll(3) as usize];
        self.client.batch_execute(end)
    }

    /// A snapshot that gets old while others change things.
    fn repeatedly(&mut self, board: &Board) -> Result<(), postgres::Error> {
        self.client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
        for _ in 0..3 {
            self.compare(board, "at REPEATABLE READ")?;
            std::thread::sleep(Duration::from_millis(self.dice.roll(4)));
        }
        self.client.batch_execute("COMMIT")
    }

    fn work(&mut self, board: &Board) {
        let _ends = Ends(board);
        while !board.over.load(SeqCst) {
            let outcome = match self.dice.roll(20) {
                0..9 => self.compare(board, "alone"),
                9..13 => self.repeatedly(board),
                13..16 => self.change(),
                16..19 => self.transaction(board),
                // Own changes elsewhere keep no one from L1.
                _ => self.client.batch_execute(
                    "CREATE TEMP TABLE IF NOT EXISTS mine (n integer); INSERT INTO mine VALUES (1)",
                ),
            };
            if let Err(error) = outcome {
                let code = code(&error);
                // At REPEATABLE READ a transaction can insert a key again that others have deleted since, and
                // then sees both rows.
                assert!(
                    ["40001", "40P01", "23505", "21000"].contains(&code.as_str()),
                    "{error:?}"
                );
                self.client.batch_execute("ROLLBACK").unwrap();
            }
        }
    }
}

/// Lets sessions loose until so many answers are compared, or, with a step of the protocol left out, a difference is
/// found. One of them is slow at a point of the protocol, if one is named by its number and its name.
fn run(
    target: u64,
    notify: &str,
    leave_out: &str,
    slow: Option<(u32, &str)>,
) -> (Server, Vec<String>) {
    let notify = format!("state_cache.notify = '{notify}'");
    let server = Server::new(&[
        "state_cache.memory = '1MB'",
        &notify,
        "max_connections = 40",
    ]);
    server.connect().batch_execute(SETUP).unwrap();
    let board = Board {
        target,
        until_difference: !leave_out.is_empty(),
        compared: AtomicU64::new(0),
        over: AtomicBool::new(false),
        differences: Mutex::default(),
    };
    std::thread::scope(|threads| {
        for seed in 0..WORKERS {
            let (server, board) = (&server, &board);
            let stop_at = match slow {
                Some((_, point)) if seed < 4 => point,
                _ => "",
            };
            threads.spawn(move || Session::new(server, seed + 1, leave_out, stop_at).work(board));
        }
        if let Some((number, _)) = slow {
            let (server, board) = (&server, &board);
            threads.spawn(move || {
                let mut client = server.connect();
                while !board.over.load(SeqCst) {
                    client.run(&format!("SELECT pg_advisory_lock(5202, {number})"));
                    std::thread::sleep(Duration::from_millis(5));
                    client.run(&format!("SELECT pg_advisory_unlock(5202, {number})"));
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    let differences = board.differences.into_inner().unwrap();
    println!(
        "{} answers compared, {} differences",
        board.compared.into_inner(),
        differences.len()
    );
    (server, differences)
}

/// What the runs of a stress must have met, each at least once.
const MET: [&str; 7] = [
    "hits",
    "misses",
    "fills",
    "evictions",
    "bypass_own",
    "bypass_writers",
    "bypass_snapshot",
];

fn stress(reads: u64, notify: &str) {
    let mut met = [0; MET.len()];
    for slow in [None, Some((4, "before_fill")), Some((3, "visible"))] {
        let (server, differences) = run(reads / 3, notify, "", slow);
        assert_eq!(differences, Vec::<String>::new());
        let log = server.log();
        assert!(!log.contains("you don't own a lock"), "{log}");
        let mut client = server.connect();
        for (met, counter) in met.iter_mut().zip(MET) {
            *met += client.counter(counter);
        }
    }
    // The runs were what they claim to be.
    assert!(met.iter().all(|met| *met > 0), "{MET:?}: {met:?}");
}

fn reads_of_the_suite() -> u64 {
    std::env::var("STATE_CACHE_STRESS_READS").map_or(60_000, |text| text.parse().unwrap())
}

#[test]
fn documents_equal_their_sources_under_stress() {
    stress(reads_of_the_suite(), "off");
}

#[test]
fn documents_equal_their_sources_under_stress_with_messages() {
    stress(reads_of_the_suite() / 2, "commit");
}

#[test]
#[ignore = "soak"]
fn documents_equal_their_sources_under_stress_a_million_times() {
    for notify in ["commit", "auto", "off"] {
        stress(350_000, notify);
    }
}

fn finds(leave_out: &str, slow: Option<(u32, &str)>) {
    let (_, differences) = run(READS_UNTIL_FOUND, "off", leave_out, slow);
    println!("{:?}", differences.first());
    assert!(
        !differences.is_empty(),
        "the checker found nothing wrong without {leave_out}"
    );
}

#[test]
fn the_checker_notices_changes_that_do_not_mark_documents() {
    finds("no_writers", Some((3, "visible")));
}

#[test]
fn the_checker_notices_fills_of_documents_that_do_not_look_at_the_generation() {
    finds("no_generation", Some((4, "before_fill")));
}

#[test]
fn the_checker_notices_fills_of_documents_under_the_callers_snapshot() {
    finds("fill_under_caller_snapshot", None);
}

#[test]
fn the_checker_notices_entries_of_an_earlier_generation() {
    finds("no_derived_digest", None);
}

#[test]
fn the_checker_notices_documents_that_are_newer_than_the_snapshot() {
    finds("no_derived_moment", None);
}

#[test]
fn the_checker_notices_documents_within_others_of_which_nothing_is_noted() {
    finds("no_derived_within", None);
}
