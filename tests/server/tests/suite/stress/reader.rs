//! The checker: reads through the functions and from the tables, and compares.

use super::board::Board;
use super::setup::{STATES, State, may_expire, name, some_states};
use postgres::{Client, Error, Statement};
use state_cache_server_tests::Dice;

/// What the functions say of each key beside what the tables say, in one statement and so under one
/// snapshot: (key, version by function, version by table, the documents are the same, the document holds
/// what was rolled back).
const COMPARISONS: [&str; 5] = [
    "SELECT k, state_version(k), c.version, state_get(k) IS NOT DISTINCT FROM c.state,
            coalesce(state_get(k) ? 'undone', false)
         FROM unnest($1::text[]) k LEFT JOIN state_current c ON c.class = 'run' AND c.key = k",
    "SELECT k, state_version(k), c.version, state_get_text(k)::jsonb IS NOT DISTINCT FROM c.state,
            coalesce(state_get_text(k)::jsonb ? 'undone', false)
         FROM unnest($1::text[]) k LEFT JOIN state_current c ON c.class = 'run' AND c.key = k",
    "SELECT k, state_version(k), c.version,
            state_get_path(k, '{n}') IS NOT DISTINCT FROM c.state #> '{n}'
                AND state_get_path(k, '{section,n}') IS NOT DISTINCT FROM c.state #> '{section,n}',
            state_get_path(k, '{undone}') IS NOT NULL
         FROM unnest($1::text[]) k LEFT JOIN state_current c ON c.class = 'run' AND c.key = k",
    "SELECT k, g.version, c.version, g.state IS NOT DISTINCT FROM c.state, coalesce(g.state ? 'undone', false)
         FROM unnest($1::text[]) k LEFT JOIN state_get_many($1) g ON g.key = k
             LEFT JOIN state_current c ON c.class = 'run' AND c.key = k",
    "SELECT k, g.version, c.version, g.state IS NOT DISTINCT FROM c.state, coalesce(g.state ? 'undone', false)
         FROM unnest($1::text[]) k LEFT JOIN LATERAL state_get_if_newer(k, 0) g ON true
             LEFT JOIN state_current c ON c.class = 'run' AND c.key = k",
];

/// The functions alone, as fast as they go.
const ALONE: &str = "SELECT key, version, state_hash(state) FROM state_get_many($1::text[])";

/// A session's reading half.
pub struct Reader {
    comparisons: Vec<Statement>,
    alone: Statement,
    /// The newest version seen of each state, 0 for none: no later statement may see an older one.
    newest: [i64; STATES],
}

impl Reader {
    /// Prepares the statements.
    pub fn new(client: &mut Client) -> Self {
        Self {
            comparisons: COMPARISONS
                .iter()
                .map(|sql| client.prepare(sql).unwrap())
                .collect(),
            alone: client.prepare(ALONE).unwrap(),
            newest: [0; STATES],
        }
    }

    /// Compares some states under a snapshot of their own (READ COMMITTED).
    pub fn compare(
        &mut self,
        client: &mut Client,
        board: &Board,
        dice: &mut Dice,
    ) -> Result<(), Error> {
        let states = some_states(dice);
        let before = board.acknowledged();
        self.compare_now(client, board, dice, &states, &before)
            .map(|_| ())
    }

    /// A transaction that reads only, at an isolation level that keeps one snapshot: every answer equals
    /// the tables, and stays what it was.
    pub fn compare_repeatedly(
        &mut self,
        client: &mut Client,
        board: &Board,
        dice: &mut Dice,
        isolation: &str,
    ) -> Result<(), Error> {
        let states = some_states(dice);
        let before = board.acknowledged();
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}, READ ONLY"))?;
        let first = self.compare_now(client, board, dice, &states, &before)?;
        for _ in 0..dice.roll(4) {
            let again = self.compare_now(client, board, dice, &states, &before)?;
            for (state, versions) in states.iter().zip(first.iter().zip(&again)) {
                // The clock goes on inside a transaction, so that a state can expire.
                let expired = versions.1.is_none() && may_expire(*state);
                if versions.0 != versions.1 && !expired {
                    board.differs(format!(
                        "{isolation}: state {state} had versions {versions:?} in one transaction"
                    ));
                }
            }
        }
        client.batch_execute("COMMIT")
    }

    /// Compares in whatever transaction there is, and gives the versions.
    fn compare_now(
        &mut self,
        client: &mut Client,
        board: &Board,
        dice: &mut Dice,
        states: &[State],
        before: &[i64; STATES],
    ) -> Result<Vec<Option<i64>>, Error> {
        let names: Vec<String> = states.iter().map(|state| name(*state)).collect();
        let way = dice.roll(COMPARISONS.len() as u64) as usize;
        let rows = client.query(&self.comparisons[way], &[&names])?;
        assert_eq!(rows.len(), states.len());
        let mut versions = vec![None; states.len()];
        for row in rows {
            let (key, by_function, by_table): (String, Option<i64>, Option<i64>) =
                (row.get(0), row.get(1), row.get(2));
            let (same, undone): (bool, bool) = (row.get(3), row.get(4));
            let place = names.iter().position(|name| *name == key).unwrap();
            if !same || by_function != by_table {
                board.differs(format!(
                    "{key}: version {by_function:?} by function, {by_table:?} by table, same \
                    document: {same}; comparison {way}"
                ));
            }
            if undone {
                board.differs(format!("{key}: holds what was rolled back"));
            }
            if let Some(version) = by_function {
                self.in_order(board, states[place], version, before);
            }
            versions[place] = by_function;
        }
        board.compared(states.len());
        Ok(versions)
    }

    /// Reads through the functions alone: nothing older than this session or an acknowledged commit
    /// before it, and for every version the document that everyone else saw.
    pub fn read_alone(
        &mut self,
        client: &mut Client,
        board: &Board,
        dice: &mut Dice,
    ) -> Result<(), Error> {
        let states = some_states(dice);
        let names: Vec<String> = states.iter().map(|state| name(*state)).collect();
        let before = board.acknowledged();
        let rows = client.query(&self.alone, &[&names])?;
        for row in &rows {
            let (key, version, hash): (String, i64, Vec<u8>) = (row.get(0), row.get(1), row.get(2));
            let state = states[names.iter().position(|name| *name == key).unwrap()];
            self.in_order(board, state, version, &before);
            board.seen(state, version, hash);
        }
        board.compared(rows.len());
        Ok(())
    }

    fn in_order(&mut self, board: &Board, state: State, version: i64, before: &[i64; STATES]) {
        let least = self.newest[state].max(before[state]);
        if version < least {
            board.differs(format!("state {state}: version {version} after {least}"));
        }
        self.newest[state] = least.max(version);
    }
}
