//! Writers that save, pruners that delete and store anew, and readers that go through old versions meanwhile:
//! nobody ever meets a damaged version, a wrong document, or, under one snapshot, a version that is listed and not
//! there.

use super::{DOCUMENT, quoted};
use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, code, inconsistencies};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Versions compared by the suite, and by the soak test.
const READS: (u64, u64) = (30_000, 500_000);

/// Class, key and how they are written.
const STATES: [(&str, &str); 5] = [
    ("kept", "a"),
    ("kept", "b"),
    ("all", "c"),
    ("all", "d"),
    ("left", "e"),
];
/// Sessions that write each of them.
const WRITERS: usize = 2;

struct Board {
    reads: AtomicU64,
    wanted: u64,
    over: AtomicBool,
    saved: AtomicU64,
    conflicts: AtomicU64,
    pruned: AtomicU64,
    deltas: AtomicU64,
    differences: Mutex<Vec<String>>,
}

impl Board {
    fn new(wanted: u64) -> Self {
        Self {
            reads: AtomicU64::new(0),
            wanted,
            over: AtomicBool::new(false),
            saved: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            pruned: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
            differences: Mutex::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) || self.reads.load(Ordering::SeqCst) >= self.wanted
    }

    fn differs(&self, what: String) {
        self.differences.lock().unwrap().push(what);
        self.over.store(true, Ordering::SeqCst);
    }

    /// Runs statements; other errors than those of a lost race are differences.
    fn run(&self, client: &mut Client, sql: &str) -> Option<Vec<postgres::SimpleQueryMessage>> {
        match client.simple_query(sql) {
            Ok(messages) => return Some(messages),
            Err(error) if code(&error) == "40001" => {
                self.conflicts.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => self.differs(format!("{sql}: {error:?}")),
        }
        let _ = client.batch_execute("ROLLBACK");
        None
    }

    /// The same for a query, its first column as numbers.
    fn numbers(&self, client: &mut Client, sql: &str) -> Option<Vec<i64>> {
        let messages = self.run(client, sql)?;
        let number = |message: &postgres::SimpleQueryMessage| match message {
            postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        };
        Some(messages.iter().filter_map(number).collect())
    }
}

/// Makes version n of a state from `document(key, n)`, again and again. Who loses the race looks again.
fn write(server: &Server, board: &Board, number: usize) {
    let (class, key) = STATES[number % STATES.len()];
    let mut client = server.connect();
    let mut dice = Dice::new(number as u64);
    while !board.is_over() {
        let version = format!("SELECT state_version({}, {})", quoted(key), quoted(class));
        let Some(version) = board.numbers(&mut client, &version) else {
            continue;
        };
        let version = version[0];
        let state = format!(
            "{key}, document({key}, {next}), expected_version => {version}, class => {class}",
            key = quoted(key),
            next = version + 1,
            class = quoted(class)
        );
        let change = match dice.roll(3) {
            0 if class != "left" => format!(
                "SELECT state_save({state}, recovery_point => {})",
                dice.roll(20) == 0
            ),
            _ => format!("SELECT state_set({state})"),
        };
        if board.run(&mut client, &change).is_some() {
            board.saved.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Prunes, at every isolation level, and redefines the classes.
fn prune(server: &Server, board: &Board, number: u64) {
    let mut client = server.connect();
    let mut dice = Dice::new(1000 + number);
    while !board.is_over() {
        let class = ["kept", "all", "left"][dice.roll(3) as usize];
        let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][dice.roll(3) as usize];
        let sql = match dice.roll(12) {
            0 => format!(
                "SELECT state_class_define('kept', keep => {}, compression => {})",
                2 + dice.roll(10),
                dice.roll(4) > 0
            ),
            1 => format!("SELECT state_cache_clear({})", quoted(class)),
            2 => "SELECT state_prune('all', keep => 20, recovery_points => true)".to_owned(),
            _ => format!(
                "BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM state_head;
                 SELECT state_prune({}, keep => {}); COMMIT",
                quoted(class),
                1 + dice.roll(12)
            ),
        };
        if let Some(numbers) = board.numbers(&mut client, &sql) {
            let pruned = numbers.last().copied().unwrap_or(0);
            board
                .pruned
                .fetch_add(pruned.unsigned_abs(), Ordering::SeqCst);
        }
    }
}

/// Lists the kept versions and reads each of them, later and in any order, under the same snapshot.
fn read(server: &Server, board: &Board, number: u64) {
    let mut client = server.connect();
    let mut dice = Dice::new(2000 + number);
    while !board.is_over() {
        let (class, key) = STATES[dice.roll(STATES.len() as u64) as usize];
        let level = ["REPEATABLE READ", "SERIALIZABLE, READ ONLY"][dice.roll(2) as usize];
        let state = format!("{}, class => {}", quoted(key), quoted(class));
        if board
            .run(&mut client, &format!("BEGIN ISOLATION LEVEL {level}"))
            .is_none()
        {
            continue;
        }
        let list = format!("SELECT version FROM state_history({state})");
        let Some(mut versions) = board.numbers(&mut client, &list) else {
            continue;
        };
        let deltas =
            format!("SELECT count(*) FROM state_history({state}) WHERE encoding = 'delta'");
        let deltas = board
            .numbers(&mut client, &deltas)
            .map_or(0, |counts| counts[0]);
        board
            .deltas
            .fetch_add(deltas.unsigned_abs(), Ordering::SeqCst);
        while !versions.is_empty() && !board.is_over() {
            let version = versions.swap_remove(dice.roll(versions.len() as u64) as usize);
            let right = format!(
                "SELECT CASE WHEN state_at({state}, version => {version}) = document({}, {version}) THEN 1 ELSE 0 \
                    END",
                quoted(key)
            );
            match board.numbers(&mut client, &right) {
                Some(right) if right == [1] => board.reads.fetch_add(1, Ordering::SeqCst),
                Some(_) => {
                    return board.differs(format!("{key}: version {version} is wrong at {level}"));
                }
                None => break,
            };
        }
        board.run(&mut client, "ROLLBACK");
    }
}

/// Asks for versions that may just be going: each is right or not there.
fn read_committed(server: &Server, board: &Board) {
    let mut client = server.connect();
    let mut dice = Dice::new(3000);
    while !board.is_over() {
        let (class, key) = STATES[dice.roll(STATES.len() as u64) as usize];
        let wrong = format!(
            "SELECT v FROM generate_series(greatest(1, state_version({key}, {class}) - 15), state_version({key}, \
                {class})) v
                WHERE coalesce(state_at({key}, v, {class}) <> document({key}, v), false)
             UNION ALL
             SELECT (s ->> 'n')::bigint FROM state_get({key}, {class}) s WHERE s <> document({key}, (s ->> \
             'n')::bigint)",
            key = quoted(key),
            class = quoted(class)
        );
        if let Some(wrong) = board.numbers(&mut client, &wrong) {
            board.reads.fetch_add(1, Ordering::SeqCst);
            if !wrong.is_empty() {
                board.differs(format!("{key}: versions {wrong:?} are wrong"));
            }
        }
    }
}

fn stress(reads: u64) {
    let server = Server::new(&[
        "state_cache.memory = '4MB'",
        "state_cache.flush_interval = '100ms'",
        "synchronous_commit = off",
    ]);
    let mut client = server.connect();
    client.run(DOCUMENT);
    client.run(
        "SELECT state_class_define('kept', keep => 6);
         SELECT state_class_define('all');
         SELECT state_class_define('all', keep => 0);
         SELECT state_class_define('left', keep => 6, write_mode => 'behind')",
    );
    for (class, key) in STATES {
        client.run(&format!(
            "SELECT state_set({key}, document({key}, 1), class => {class})",
            key = quoted(key),
            class = quoted(class)
        ));
    }
    let board = Board::new(reads);
    std::thread::scope(|threads| {
        let (server, board) = (&server, &board);
        let guarded = |work: &dyn Fn()| {
            let _over = RaiseOnDrop(&board.over);
            work();
        };
        for number in 0..WRITERS * STATES.len() {
            threads.spawn(move || guarded(&|| write(server, board, number)));
        }
        for number in 0..2 {
            threads.spawn(move || guarded(&|| prune(server, board, number)));
        }
        for number in 0..4 {
            threads.spawn(move || guarded(&|| read(server, board, number)));
        }
        threads.spawn(move || guarded(&|| read_committed(server, board)));
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    println!(
        "{} versions read, {} of those listed deltas; {} saved, {} pruned, {} conflicts",
        count(&board.reads),
        count(&board.deltas),
        count(&board.saved),
        count(&board.pruned),
        count(&board.conflicts)
    );
    assert_eq!(*board.differences.lock().unwrap(), Vec::<String>::new());
    for counter in [&board.saved, &board.pruned, &board.conflicts, &board.deltas] {
        assert!(count(counter) > 0);
    }
    client.run("SELECT state_flush()");
    assert_eq!(
        client.rows("SELECT * FROM state_verify()"),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn old_versions_stay_readable_while_others_prune() {
    stress(READS.0);
}

#[test]
#[ignore = "soak"]
fn old_versions_stay_readable_while_others_prune_for_long() {
    stress(READS.1);
}
