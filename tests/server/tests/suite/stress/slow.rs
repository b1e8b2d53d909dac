//! Sessions that dawdle in the dangerous moments while the others go on, which chance alone would make
//! too rare: it is these moments that the protocol is about.

use super::board::Board;
use super::setup::{Arena, State, document, name, slow_state};
use postgres::{Client, GenericClient};
use state_cache_server_tests::{Dice, RaiseOnDrop, Sql, eventually};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many reads the others get while one dawdles.
const READS_MEANWHILE: u64 = 100;

/// Where a session dawdles.
#[derive(Debug, Clone, Copy)]
pub enum Slow {
    /// A writer that has flushed and not yet marked.
    AfterFlush,
    /// A writer that has marked and not yet committed.
    Marked,
    /// A writer whose commit is visible and not yet published.
    Visible,
    /// The same, while another session changes the same state and publishes first.
    Overtaken,
    /// A reader that has read what it will fill, while the state moves on.
    BeforeFill,
    /// A reader with an old snapshot that misses, while the state moves on.
    OldSnapshot,
}

impl Slow {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AfterFlush,
        Self::Marked,
        Self::Visible,
        Self::Overtaken,
        Self::BeforeFill,
        Self::OldSnapshot,
    ];

    /// The stop point and the number of the advisory lock that holds a session there.
    fn stop_point(self) -> Option<(&'static str, u32)> {
        match self {
            Self::AfterFlush => Some(("after_flush", 1)),
            Self::Marked => Some(("marked", 2)),
            Self::Visible | Self::Overtaken => Some(("visible", 3)),
            Self::BeforeFill => Some(("before_fill", 4)),
            Self::OldSnapshot => None,
        }
    }

    fn writes(self) -> bool {
        matches!(
            self,
            Self::AfterFlush | Self::Marked | Self::Visible | Self::Overtaken
        )
    }

    /// Whether the others read while it dawdles, and not only what it leaves behind.
    fn is_watched(self) -> bool {
        matches!(self, Self::AfterFlush | Self::Marked | Self::Visible)
    }
}

/// A session and what it is about.
struct Session {
    client: Client,
    state: State,
    dice: Dice,
}

/// Dawdles in one way until the run is over.
pub fn work(arena: &Arena, board: &Board, way: Slow, leave_out: &str) {
    let [mut slow, mut gate] = [2_000, 3_000].map(|seed| {
        let mut client = arena.server.connect();
        // A commit that notifies holds a lock until it ends, and everyone who notifies would wait for it.
        client.run(&format!(
            "SET state_cache.test_unsafe = '{leave_out}'; SET state_cache.notify = off"
        ));
        Session {
            client,
            state: slow_state(way as usize),
            dice: Dice::new(seed + way as u64),
        }
    });
    while !board.over() {
        match way.stop_point() {
            Some(point) => stop(arena, board, way, &mut slow, &mut gate, point),
            None => old_snapshot(board, &mut slow, &mut gate),
        }
    }
}

fn write(client: &mut impl GenericClient, state: State, dice: &mut Dice) {
    let document = document(dice, 0);
    client
        .query(
            "SELECT state_set($1, $2::text::jsonb)",
            &[&name(state), &document],
        )
        .unwrap();
}

fn others_read(board: &Board) {
    let enough = board.reads() + READS_MEANWHILE;
    eventually("the others to read", || {
        board.over() || board.reads() >= enough
    });
}

/// One round with a session that stops at a point.
fn stop(
    arena: &Arena,
    board: &Board,
    way: Slow,
    slow: &mut Session,
    gate: &mut Session,
    (point, lock): (&str, u32),
) {
    let pid = slow.client.pid();
    let done = AtomicBool::new(false);
    // A reader need not stop: another may have filled before it.
    let waiting = format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
    );
    std::thread::scope(|threads| {
        // In a session of its own, so that the lock goes also if this panics.
        let mut holder = arena.server.connect();
        holder.run(&format!("SELECT pg_advisory_lock(5202, {lock})"));
        threads.spawn(|| {
            let _raise = RaiseOnDrop(&done);
            if !way.writes() {
                // A miss, so that there is something to fill.
                slow.client.run("SELECT state_cache_clear()");
            }
            let mut transaction = slow.client.transaction().unwrap();
            transaction
                .batch_execute(&format!("SET LOCAL state_cache.test_stop_at = '{point}'"))
                .unwrap();
            if way.writes() {
                write(&mut transaction, slow.state, &mut slow.dice);
            } else {
                transaction
                    .query("SELECT length(state_get_text($1))", &[&name(slow.state)])
                    .unwrap();
            }
            transaction.commit().unwrap();
        });
        eventually("a session to stop", || {
            done.load(Ordering::SeqCst) || holder.flag(&waiting)
        });
        if way.is_watched() {
            others_read(board);
        } else {
            write(&mut gate.client, gate.state, &mut gate.dice);
        }
        if !way.writes() {
            gate.client.run("SELECT state_cache_clear()");
        }
    });
    if !way.is_watched() {
        others_read(board);
    }
}

/// One round with a reader whose snapshot is old.
fn old_snapshot(board: &Board, slow: &mut Session, gate: &mut Session) {
    let key = name(slow.state);
    slow.client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let table = "SELECT md5(state::text) FROM state_current WHERE class = 'run' AND key = $1";
    let by_table: String = slow.client.query_one(table, &[&key]).unwrap().get(0);
    write(&mut gate.client, gate.state, &mut gate.dice);
    gate.client.run("SELECT state_cache_clear()");
    let function = "SELECT md5(state_get($1)::text)";
    let by_function: String = slow.client.query_one(function, &[&key]).unwrap().get(0);
    if by_table != by_function {
        board.differs(format!(
            "{key}: an old snapshot saw {by_function}, not {by_table}"
        ));
    }
    slow.client.run("COMMIT");
    others_read(board);
}
