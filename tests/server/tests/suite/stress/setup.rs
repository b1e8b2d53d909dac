//! The server and the states that the stress is about.

use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql};
use std::collections::BTreeSet;

/// States that anyone sets, changes, deletes and lets expire. Few enough to be fought over, and more
/// bytes together than L1 has.
const ORDINARY: usize = 64;
/// The first of them, which get half of the traffic.
const HOT: usize = 6;
/// States that are only ever appended to and updated, never replaced or deleted.
pub const LOGS: usize = 4;
/// States that only the slow sessions write, so that nobody waits for them.
pub const SLOW: usize = 6;

/// A state by its number.
pub type State = usize;

/// The number of states.
pub const STATES: usize = ORDINARY + LOGS + SLOW;

/// The server, loaded.
pub struct Arena {
    /// The server.
    pub server: Server,
    /// Bytes of L1 that are used when it holds no state.
    memory_when_empty: i64,
}

impl Arena {
    /// A server with 1 MB of L1 and every state present, whose sessions tell of their changes in that way.
    pub fn new(notify: &str) -> Self {
        let notify = format!("state_cache.notify = {notify}");
        let server = Server::new(&[
            &notify,
            "state_cache.memory = '1MB'",
            "deadlock_timeout = '20ms'",
            "shared_buffers = '64MB'",
            "synchronous_commit = off",
        ]);
        let mut client = server.connect();
        client.run(FUNCTIONS);
        let mut dice = Dice::new(0);
        for state in 0..STATES {
            client
                .execute(
                    "SELECT state_set($1, $2::text::jsonb)",
                    &[&name(state), &document(&mut dice, 0)],
                )
                .unwrap();
        }
        let memory_when_empty = memory_when_cleared(&mut client);
        Self {
            server,
            memory_when_empty,
        }
    }

    /// Bytes of L1 that stay in use once nobody uses it and it is cleared: what was reserved and never
    /// given back.
    pub fn memory_lost(&self, client: &mut Client) -> i64 {
        memory_when_cleared(client) - self.memory_when_empty
    }

    /// What the logs hold, sorted.
    pub fn appended(&self, client: &mut Client) -> Vec<String> {
        let logs: Vec<String> = (0..LOGS).map(|log| name(ORDINARY + log)).collect();
        let rows = client
            .query(
                "SELECT jsonb_array_elements_text(state -> 'log') FROM state_current
                     WHERE class = 'run' AND key = ANY ($1)",
                &[&logs],
            )
            .unwrap();
        let mut entries: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        entries.sort();
        entries
    }
}

fn memory_when_cleared(client: &mut Client) -> i64 {
    client.run("SELECT state_cache_clear()");
    assert_eq!((client.counter("entries"), client.counter("bytes")), (0, 0));
    client.counter("memory_used")
}

/// What a worker does in one call, with its own check inside.
const FUNCTIONS: &str = r#"
    -- The part inside the exception block is undone, the part before it stays.
    CREATE FUNCTION half_undone(a text, b text, document jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM state_set(a, document);
        BEGIN
            PERFORM state_set(b, '{"undone": true}');
            PERFORM state_update(a, '{"undone": true}');
            PERFORM 1 / 0;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
        RETURN state_get(a) = document;
    END $$;
    -- A new version, written into the tables without the functions.
    CREATE FUNCTION by_hand(changed text, document jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE next bigint;
    BEGIN
        UPDATE state_head
            SET version = version + 1, hash = state_hash(document), size = pg_column_size(document) - 4,
                updated_at = clock_timestamp()
            WHERE class = 'run' AND key = changed AND NOT deleted AND expires_at IS NULL
            RETURNING version INTO next;
        IF next IS NULL THEN
            RETURN true;
        END IF;
        UPDATE state_snapshot SET version = next, parent_version = next - 1, state = document,
                hash = state_hash(document)
            WHERE class = 'run' AND key = changed AND version = next - 1;
        RETURN state_get(changed) = document AND state_version(changed) = next;
    END $$;
"#;

/// The key of a state.
pub fn name(state: State) -> String {
    match state {
        0..ORDINARY => format!("state {state}"),
        _ if state < ORDINARY + LOGS => format!("log {state}"),
        _ => format!("slow {state}"),
    }
}

/// Whether anyone lets the state expire or deletes it.
pub fn may_expire(state: State) -> bool {
    state < ORDINARY
}

/// The slow states.
pub fn slow_state(number: usize) -> State {
    ORDINARY + LOGS + number % SLOW
}

/// One of the logs.
pub fn some_log(dice: &mut Dice) -> State {
    ORDINARY + dice.roll(LOGS as u64) as usize
}

/// One of the ordinary states, the hot ones preferred.
pub fn some_state(dice: &mut Dice) -> State {
    let among = if dice.roll(2) == 0 { HOT } else { ORDINARY };
    dice.roll(among as u64) as usize
}

/// Some states of any kind, none twice.
pub fn some_states(dice: &mut Dice) -> Vec<State> {
    let mut states = BTreeSet::new();
    for _ in 0..=dice.roll(5) {
        states.insert(match dice.roll(4) {
            0 => slow_state(dice.roll(SLOW as u64) as usize),
            1 => some_log(dice),
            _ => some_state(dice),
        });
    }
    states.into_iter().collect()
}

/// A document of 100 bytes to 60 kB, unlike any other.
pub fn document(dice: &mut Dice, worker: usize) -> String {
    let len = match dice.roll(10) {
        0..5 => dice.roll(200),
        5..8 => 1_000 + dice.roll(3_000),
        _ => 10_000 + dice.roll(50_000),
    };
    let (number, padding) = (dice.roll(1 << 40), dice.digits(len as usize));
    format!(
        r#"{{"n": {number}, "by": {worker}, "section": {{"n": {number}}}, "log": [], "padding": "{padding}"}}"#
    )
}
