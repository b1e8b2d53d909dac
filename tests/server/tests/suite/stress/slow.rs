//! Sessions that dawdle in the dangerous moments while the others go on, which chance alone would make
//! too rare: it is these moments that the protocol is about.

use super::board::Board;
use super::setup::{Arena, document, name, slow_state};
use postgres::Client;
use state_cache_server_tests::{Dice, Sql, eventually};
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
    /// A reader that has read what it will fill, while the state moves on.
    BeforeFill,
    /// A reader with an old snapshot that misses, while the state moves on.
    OldSnapshot,
}

impl Slow {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AfterFlush,
        Self::Marked,
        Self::Visible,
        Self::BeforeFill,
        Self::OldSnapshot,
    ];

    /// The stop point and the number of the advisory lock that holds a session there.
    fn stop_point(self) -> Option<(&'static str, u32)> {
        match self {
            Self::AfterFlush => Some(("after_flush", 1)),
            Self::Marked => Some(("marked", 2)),
            Self::Visible => Some(("visible", 3)),
            Self::BeforeFill => Some(("before_fill", 4)),
            Self::OldSnapshot => None,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::AfterFlush | Self::Marked | Self::Visible)
    }
}

/// Dawdles in one way until the run is over.
pub fn work(arena: &Arena, board: &Board, way: Slow, leave_out: &str) {
    let (mut slow, mut gate) = (arena.server.connect(), arena.server.connect());
    for client in [&mut slow, &mut gate] {
        // A commit that notifies holds a lock until it ends, and everyone who notifies would wait for it.
        client.run(&format!(
            "SET state_cache.test_unsafe = '{leave_out}'; SET state_cache.notify = off"
        ));
    }
    let state = slow_state(way as usize);
    let mut dice = Dice::new(2_000 + way as u64);
    while !board.over() {
        match way.stop_point() {
            Some(point) => stop(board, way, &mut slow, &mut gate, state, point, &mut dice),
            None => old_snapshot(board, &mut slow, &mut gate, state, &mut dice),
        }
    }
}

fn write(client: &mut Client, state: usize, dice: &mut Dice) {
    client
        .query(
            "SELECT state_set($1, $2::text::jsonb)",
            &[&name(state), &document(dice, 0)],
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
    board: &Board,
    way: Slow,
    slow: &mut Client,
    gate: &mut Client,
    state: usize,
    (point, lock): (&str, u32),
    dice: &mut Dice,
) {
    let pid = slow.pid();
    gate.run(&format!("SELECT pg_advisory_lock(5202, {lock})"));
    slow.run(&format!("SET state_cache.test_stop_at = '{point}'"));
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let done = &done;
        let mut slow_dice = Dice::new(dice.roll(1 << 40));
        threads.spawn(move || {
            if way.writes() {
                write(slow, state, &mut slow_dice);
            } else {
                // A miss, so that there is something to fill.
                slow.query("SELECT state_cache_clear()", &[]).unwrap();
                slow.query("SELECT length(state_get_text($1))", &[&name(state)])
                    .unwrap();
            }
            slow.run("SET state_cache.test_stop_at = ''");
            done.store(true, Ordering::SeqCst);
        });
        // A reader need not stop: another may have filled before it.
        eventually("a session to stop", || {
            done.load(Ordering::SeqCst)
                || gate.flag(&format!(
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
                ))
        });
        if !way.writes() {
            write(gate, state, dice);
            gate.query("SELECT state_cache_clear()", &[]).unwrap();
        }
        if way.writes() {
            others_read(board);
        }
        gate.run(&format!("SELECT pg_advisory_unlock(5202, {lock})"));
    });
    if !way.writes() {
        others_read(board);
    }
}

/// One round with a reader whose snapshot is old.
fn old_snapshot(
    board: &Board,
    slow: &mut Client,
    gate: &mut Client,
    state: usize,
    dice: &mut Dice,
) {
    slow.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let count =
        "SELECT md5(state::text), version FROM state_current WHERE class = 'run' AND key = $1";
    let by_table: String = slow.query_one(count, &[&name(state)]).unwrap().get(0);
    write(gate, state, dice);
    gate.query("SELECT state_cache_clear()", &[]).unwrap();
    let by_function: String = slow
        .query_one("SELECT md5(state_get($1)::text)", &[&name(state)])
        .unwrap()
        .get(0);
    if by_table != by_function {
        board.differs(format!(
            "state {state}: an old snapshot saw {by_function}, not {by_table}"
        ));
    }
    slow.run("COMMIT");
    others_read(board);
}
