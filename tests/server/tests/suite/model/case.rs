//! A case: random steps, done by the server and by the model, and compared.

use super::transaction::{
    Batch, Change, Conflict, Flaw, KEYS, MANY, OnConflict, Operation, Row, Staged, Transaction,
};
use postgres::{Client, SimpleQueryMessage};
use serde_json::{Value, json};
use state_cache_server_tests::{Dice, Server, Sql, code};

/// Transactions of a case.
const TRANSACTIONS: u64 = 40;
/// Transactions from one definition of the class to the next.
const REDEFINED: u64 = 8;

/// What a case needs in the database: changes by plain SQL, and checks inside of a block.
pub const FUNCTIONS: &str = r#"
    CREATE FUNCTION by_hand(k text, v jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        UPDATE state_snapshot s SET state = v, hash = state_hash(v), version = s.version + 1
            FROM state_head h WHERE s.class = 'run' AND s.key = k
                AND (h.class, h.key, h.version) = ('run', k, s.version);
        UPDATE state_head
            SET hash = state_hash(v), version = version + 1, state = CASE WHEN state IS NOT NULL THEN v END
            WHERE class = 'run' AND key = k;
    END $$;
    CREATE FUNCTION append_many(k text, v jsonb, times bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        FOR n IN 1..times LOOP PERFORM state_append(k, '{l}', v); END LOOP;
    END $$;
    CREATE FUNCTION must_see(k text, v jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        IF state_get(k) IS DISTINCT FROM v THEN
            RAISE assert_failure USING MESSAGE = format('state_get(%L) is %s and not %s', k, state_get(k), v);
        END IF;
    END $$;
"#;

/// An undone part of a block ends in this error, which only its own handler catches.
const UNDO: &str = "PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END; ";
const KEEP: &str = "EXCEPTION WHEN division_by_zero THEN NULL; END; ";

pub(super) type Rows = Vec<Vec<Option<String>>>;

/// Two sessions, the model, and what was said so far.
pub struct Case {
    main: Client,
    other: Client,
    dice: Dice,
    seed: u64,
    sessions: usize,
    flaw: Flaw,
    pub(super) committed: [Row; KEYS],
    /// Numbers the values, so that no two changes are alike by chance.
    count: u64,
    /// Statements since the transaction began.
    log: Vec<String>,
}

fn quoted(value: Option<&Value>) -> String {
    value.map_or("NULL".into(), |value| format!("'{value}'"))
}

impl Case {
    /// A case with states of its own.
    pub fn new(server: &Server, sessions: usize, seed: u64, flaw: Flaw) -> Self {
        let mut other = server.connect();
        // The model knows which rows are locked: nobody waits, unless it is wrong.
        other.run("SET lock_timeout = '5s'");
        Self {
            main: server.connect(),
            other,
            dice: Dice::new(seed),
            seed,
            sessions,
            flaw,
            committed: Default::default(),
            count: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn key(&self, key: usize) -> String {
        let letter = ["a", "b", "c", "d"][key];
        match self.flaw {
            Flaw::None => format!("{}-{letter}", self.seed),
            flaw => format!("{}-{flaw:?}-{letter}", self.seed),
        }
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.dice.roll(100) < percent
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.dice.roll(among.len() as u64) as usize]
    }

    /// What a difference is reported with.
    pub(super) fn differs(&self, what: &str) -> String {
        format!(
            "{what}\nSTATE_CACHE_MODEL_SEED={} with {} sessions, model {:?}; the transaction:\n{}",
            self.seed,
            self.sessions,
            self.flaw,
            self.log.join("\n")
        )
    }

    /// A statement of the first session: its rows, or the SQLSTATE.
    fn try_main(&mut self, sql: &str) -> Result<Rows, String> {
        self.log.push(format!("main:  {};", first_line(sql)));
        let messages = self.main.simple_query(sql).map_err(|error| {
            self.log.push(format!("       -- {error:?}"));
            code(&error)
        })?;
        Ok(rows(messages))
    }

    pub(super) fn main(&mut self, sql: &str) -> Result<Rows, String> {
        self.try_main(sql)
            .map_err(|code| self.differs(&format!("{sql}: {code}")))
    }

    pub(super) fn other(&mut self, sql: &str) -> Result<Rows, String> {
        self.log.push(format!("other: {};", first_line(sql)));
        match self.other.simple_query(sql) {
            Ok(messages) => Ok(rows(messages)),
            Err(error) => Err(self.differs(&format!("{sql}: {error:?}"))),
        }
    }

    /// A statement that must fail so.
    fn main_fails(&mut self, sql: &str, expected: &str) -> Result<(), String> {
        match self.try_main(sql) {
            Err(code) if code == expected => Ok(()),
            result => Err(self.differs(&format!("{sql}: {result:?} and not {expected}"))),
        }
    }

    /// Runs all transactions of the case; `Err` is the first difference.
    pub fn run(mut self) -> Result<(), String> {
        for number in 0..TRANSACTIONS {
            self.log.clear();
            self.redefine(number)?;
            for key in 0..KEYS {
                let line = format!("-- {}: {:?}", self.key(key), self.committed[key]);
                self.log.push(line);
            }
            self.transaction()?;
            self.check(None)?;
            self.check_l1()?;
        }
        Ok(())
    }

    /// Lets head rows hold the documents, or snapshot rows, and each state move with its next change. 0 keeps all.
    fn redefine(&mut self, transaction: u64) -> Result<(), String> {
        if transaction.is_multiple_of(REDEFINED) {
            let keep = (self.seed + transaction / REDEFINED) % 3;
            self.main(&format!("SELECT state_class_define('run', keep => {keep})"))?;
        }
        Ok(())
    }

    fn transaction(&mut self) -> Result<(), String> {
        // While others commit, only READ COMMITTED lets the model tell what is seen.
        let isolation = match self.sessions {
            1 => self.pick(&["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]),
            _ => "READ COMMITTED",
        };
        self.main(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        let mut now = Transaction::default();
        let mut savepoints: Vec<Transaction> = Vec::new();
        for _ in 0..2 + self.dice.roll(12) {
            if self.sessions > 1 && self.chance(40) {
                self.other_commits(&mut now, &savepoints)?;
            }
            let alive = self.step(&mut now, &mut savepoints)?;
            if !alive && !self.recover(&mut now, &mut savepoints)? {
                return Ok(());
            }
            if self.chance(70) {
                self.check(Some(&mut now))?;
            }
            if self.chance(10) {
                self.other("SELECT state_cache_clear()")?;
            }
        }
        if self.chance(25) {
            return self.main("ROLLBACK").map(drop);
        }
        // A batch that has staged nothing is not checked.
        if now.staged.iter().all(Option::is_none) {
            now.batch = None;
        }
        match now.flush(&self.committed, self.flaw) {
            Ok(_) => {
                self.main("COMMIT")?;
                for (key, row) in now.rows {
                    self.committed[key] = row;
                }
                Ok(())
            }
            Err(Conflict) => self.main_fails("COMMIT", "40001"),
        }
    }

    /// After an error: back to a savepoint, or, and then it is false, the end of the transaction.
    fn recover(
        &mut self,
        now: &mut Transaction,
        savepoints: &mut Vec<Transaction>,
    ) -> Result<bool, String> {
        if savepoints.is_empty() {
            self.main("ROLLBACK")?;
            return Ok(false);
        }
        self.roll_back_to_savepoint(now, savepoints)?;
        Ok(true)
    }

    fn roll_back_to_savepoint(
        &mut self,
        now: &mut Transaction,
        savepoints: &mut Vec<Transaction>,
    ) -> Result<(), String> {
        let number = self.dice.roll(savepoints.len() as u64) as usize;
        let staged = now.staged.clone();
        *now = savepoints[number].clone();
        if self.flaw == Flaw::RollbackToKeepsStaged {
            now.staged = staged;
        }
        savepoints.truncate(number + 1);
        self.main(&format!("ROLLBACK TO s{number}")).map(drop)
    }

    /// One step of the first session; false if it has failed, as it should.
    fn step(
        &mut self,
        now: &mut Transaction,
        savepoints: &mut Vec<Transaction>,
    ) -> Result<bool, String> {
        match self.dice.roll(100) {
            0..45 => {
                let (sql, answer) = self.change(now);
                let rows = self.main(&format!("SELECT {sql}"))?;
                if rows != [[Some(answer.to_string())]] {
                    return Err(self.differs(&format!("{sql}: {rows:?} and not {answer}")));
                }
            }
            45..60 => {
                self.main(&format!("SAVEPOINT s{}", savepoints.len()))?;
                savepoints.push(now.clone());
            }
            60..68 if !savepoints.is_empty() => self.roll_back_to_savepoint(now, savepoints)?,
            68..74 if !savepoints.is_empty() => {
                let number = self.dice.roll(savepoints.len() as u64) as usize;
                savepoints.truncate(number);
                self.main(&format!("RELEASE s{number}"))?;
            }
            74..76 => {
                self.main_fails("SELECT 1 / 0", "22012")?;
                return Ok(false);
            }
            76..78 => {
                let key = self.dice.roll(KEYS as u64) as usize;
                let sql = format!(
                    "SELECT state_set('{}', '0', expected_version => 1000000)",
                    self.key(key)
                );
                self.main_fails(&sql, "40001")?;
                return Ok(false);
            }
            78..83 => return self.flush(now),
            83..88 if now.batch.is_none() => {
                let (name, on_conflict) = self.pick(&[
                    ("error", OnConflict::Error),
                    ("reapply", OnConflict::Reapply),
                    ("overwrite", OnConflict::Overwrite),
                ]);
                self.main(&format!("SELECT state_batch_begin('{name}')"))?;
                now.batch = Some(Batch {
                    on_conflict,
                    before: now.staged.clone(),
                    bases: [None; KEYS],
                });
            }
            88..92 => {
                self.main("SELECT state_batch_rollback()")?;
                now.staged = now
                    .batch
                    .take()
                    .map(|batch| batch.before)
                    .unwrap_or_default();
            }
            92..100 => {
                let block = self.block(now, 0);
                self.main(&format!("DO $$ BEGIN {block} END $$"))?;
            }
            _ => {}
        }
        Ok(true)
    }

    fn flush(&mut self, now: &mut Transaction) -> Result<bool, String> {
        let sql = "SELECT key, version, action FROM state_batch_commit()";
        let Ok(outcomes) = now.flush(&self.committed, self.flaw) else {
            self.main_fails(sql, "40001")?;
            return Ok(false);
        };
        let rows = self.main(sql)?;
        let expected: Rows = outcomes
            .iter()
            .map(|(key, version, action)| {
                let version = (*version > 0).then(|| version.to_string());
                vec![Some(self.key(*key)), version, Some(action.to_string())]
            })
            .collect();
        if rows != expected {
            return Err(self.differs(&format!("{sql}: {rows:?} and not {expected:?}")));
        }
        Ok(true)
    }

    /// The statements of a PL/pgSQL block whose parts are kept or undone by their exception handlers.
    fn block(&mut self, now: &mut Transaction, depth: usize) -> String {
        let before = now.clone();
        let mut block = "BEGIN ".to_owned();
        for _ in 0..1 + self.dice.roll(3) {
            match self.dice.roll(10) {
                0..3 if depth < 3 => block += &self.block(now, depth + 1),
                3 | 4 => {
                    let key = self.dice.roll(KEYS as u64) as usize;
                    let document = now.reads(&self.committed, key);
                    block += &format!(
                        "PERFORM must_see('{}', {}); ",
                        self.key(key),
                        quoted(document.as_ref())
                    );
                }
                5 => {
                    let mut flushed = now.clone();
                    if flushed.flush(&self.committed, self.flaw).is_ok() {
                        *now = flushed;
                        block += "PERFORM state_batch_commit(); ";
                    }
                }
                _ => block += &format!("PERFORM {}; ", self.change(now).0),
            }
        }
        if self.chance(40) {
            *now = before;
            return block + UNDO;
        }
        block + KEEP
    }

    /// A change of a random state: the call, and what it answers.
    fn change(&mut self, now: &mut Transaction) -> (String, &'static str) {
        loop {
            let key = self.dice.roll(KEYS as u64) as usize;
            if let Some(change) = self.change_of(now, key, true) {
                return change;
            }
        }
    }

    /// `None` if the change that the dice say cannot be made of this state.
    fn change_of(
        &mut self,
        now: &mut Transaction,
        key: usize,
        may_delete: bool,
    ) -> Option<(String, &'static str)> {
        self.count += 1;
        let (n, name) = (self.count, self.key(key));
        let committed = self.committed.clone();
        let seen = now.clone().sees(&committed, key);
        let fields = json!({ self.pick(&["x", "y", "z"]): if self.chance(20) { 0 } else { n } });
        Some(match self.dice.roll(100) {
            0..22 => {
                let document = match seen {
                    Some(document) if document.get("l").is_some() && self.chance(30) => document,
                    _ => json!({"l": [], "x": n}),
                };
                let (mut named, mut expected, expires) = (String::new(), None, self.chance(20));
                if now.staged[key].is_none() && self.chance(20) {
                    let ground = now.row(&committed, key).ground();
                    (named, expected) = (format!(", expected_version => {ground}"), Some(ground));
                }
                if expires {
                    named += ", ttl => '1 day'";
                }
                let sql = format!("state_set('{name}', '{document}'{named})");
                now.replace(&committed, key, Some(document), expires, expected);
                (sql, "")
            }
            22..42 => {
                let sql = format!("state_update('{name}', '{fields}')");
                now.operate(&committed, key, Operation::Update(fields));
                (sql, "")
            }
            42..56 => {
                let field = self.pick(&["x", "y", "z"]);
                let patch = if self.chance(50) {
                    json!({ field: null })
                } else {
                    fields
                };
                let sql = format!("state_merge('{name}', '{patch}')");
                now.operate(&committed, key, Operation::Merge(patch));
                (sql, "")
            }
            56..74 => {
                seen?.get("l")?;
                now.operate(&committed, key, Operation::Append(n, 1));
                (format!("state_append('{name}', '{{l}}', '{n}')"), "")
            }
            74..76 => {
                seen?.get("l")?;
                // What a batch makes of a state that has moved is not said of folded operations; without a
                // row there is none to lock.
                if self.sessions > 1 && (now.batch.is_some() || committed[key].version == 0) {
                    return None;
                }
                now.operate(&committed, key, Operation::Append(n, MANY));
                (format!("append_many('{name}', '{n}', {MANY})"), "")
            }
            76..84 if may_delete => {
                let sql = format!("state_delete('{name}')");
                if now.sees(&committed, key).is_none() {
                    now.notes(&committed, key, false);
                    return Some((sql, "f"));
                }
                now.replace(&committed, key, None, false, None);
                (sql, "t")
            }
            84..92 => {
                let present = now.touch(&committed, key);
                (
                    format!("state_touch('{name}', '1 day')"),
                    if present { "t" } else { "f" },
                )
            }
            92..100 => {
                // Its own change by hand is a conflict to a batch, to an expected version and to folded operations.
                let relies = |staged: &Staged| {
                    staged.expected.is_some()
                        || matches!(staged.change, Change::Replace { folded: true, .. })
                };
                if now.batch.is_some() || now.staged[key].as_ref().is_some_and(relies) {
                    return None;
                }
                now.row(&committed, key).state?;
                let document = json!({"l": [], "hand": n});
                let sql = format!("by_hand('{name}', '{document}')");
                now.by_hand(&committed, key, document);
                (sql, "")
            }
            _ => return None,
        })
    }

    /// The other session commits a change of a state that the first has not locked.
    fn other_commits(
        &mut self,
        now: &mut Transaction,
        savepoints: &[Transaction],
    ) -> Result<(), String> {
        let key = self.dice.roll(KEYS as u64) as usize;
        let all = || savepoints.iter().chain([&*now]);
        if all().any(|transaction| transaction.locked.contains(&key)) {
            return Ok(());
        }
        let may_delete = !all().any(|transaction| transaction.appends(key));
        let mut change = Transaction::default();
        let Some((sql, answer)) = self.change_of(&mut change, key, may_delete) else {
            return Ok(());
        };
        let rows = self.other(&format!("SELECT {sql}"))?;
        if rows != [[Some(answer.to_string())]] {
            return Err(self.differs(&format!("{sql}: {rows:?} and not {answer}")));
        }
        if change.flush(&self.committed, Flaw::None).is_err() {
            return Err(self.differs("the generator's own mistake: the other session conflicts"));
        }
        for (key, row) in change.rows {
            self.committed[key] = row;
        }
        Ok(())
    }
}

/// Of a check the first line says enough.
fn first_line(sql: &str) -> &str {
    sql.lines().next().unwrap_or_default()
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}
