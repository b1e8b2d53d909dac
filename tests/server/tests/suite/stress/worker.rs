//! A session of the stress: reads mostly, and changes in every way there is.

use super::board::Board;
use super::reader::Reader;
use super::setup::{Arena, State, document, name, some_log, some_state};
use postgres::types::ToSql;
use postgres::{Client, Error};
use state_cache_server_tests::{Dice, Sql, code};

/// The log of one worker may grow so long, in entries, lest reading it becomes all there is.
const APPENDS: usize = 250;

/// Reads and writes until the run is over.
pub fn work(arena: &Arena, board: &Board, number: usize, leave_out: &str) {
    let mut client = arena.server.connect();
    client.run(&format!("SET state_cache.test_unsafe = '{leave_out}'"));
    let mut reader = Reader::new(&mut client);
    let mut writer = Writer {
        number,
        dice: Dice::new(number as u64 + 1),
        appends: 0,
    };
    let mut dice = Dice::new(1_000 + number as u64);
    while !board.over() {
        let result = match dice.roll(100) {
            0..48 => reader.compare(&mut client, board, &mut dice),
            48..60 => reader.read_alone(&mut client, board, &mut dice),
            60..70 => reader.compare_repeatedly(&mut client, board, &mut dice, "REPEATABLE READ"),
            70..72 => reader.compare_repeatedly(&mut client, board, &mut dice, "SERIALIZABLE"),
            _ => {
                let result = writer.change(&mut client, board);
                board.ended(result.is_ok());
                result
            }
        };
        if let Err(error) = result {
            // Conflicts and deadlocks are part of the game; anything else is not.
            assert!(
                matches!(code(&error).as_str(), "40001" | "40P01"),
                "{error:?}"
            );
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

struct Writer {
    number: usize,
    dice: Dice,
    appends: usize,
}

impl Writer {
    /// One transaction that changes something, or stages it and rolls back.
    fn change(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        match self.dice.roll(18) {
            0..6 => self.change_one(client),
            6..9 => self.append(client, board),
            9..11 => self.transaction(client, board),
            11 => self.savepoint(client, board),
            12 => self.roll_back(client),
            13 => self.exception(client, board),
            14 => self.by_hand(client, board),
            15 => self.batch(client, board),
            16 => self.delete_or_expire(client),
            _ => self.clear(client),
        }
    }

    fn document(&mut self) -> String {
        document(&mut self.dice, self.number)
    }

    fn some_state(&mut self) -> State {
        some_state(&mut self.dice)
    }

    fn isolation(&mut self) -> &'static str {
        [
            "READ COMMITTED",
            "REPEATABLE READ",
            "READ COMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ][self.dice.roll(5) as usize]
    }

    /// Stages one change of any kind.
    fn stage(&mut self, client: &mut Client, state: State) -> Result<(), Error> {
        let (key, number) = (
            name(state),
            format!("{{\"n\": {}}}", self.dice.roll(1 << 40)),
        );
        match self.dice.roll(6) {
            0..3 => call(
                client,
                "SELECT state_set($1, $2::text::jsonb)",
                &[&key, &self.document()],
            ),
            3 => call(
                client,
                "SELECT state_update($1, $2::text::jsonb)",
                &[&key, &number],
            ),
            4 => call(
                client,
                "SELECT state_merge($1, jsonb_build_object('section', $2::text::jsonb))",
                &[&key, &number],
            ),
            _ => call(
                client,
                "SELECT state_merge($1, '{\"padding\": null}')",
                &[&key],
            ),
        }
    }

    /// A change outside a transaction block.
    fn change_one(&mut self, client: &mut Client) -> Result<(), Error> {
        let state = self.some_state();
        self.stage(client, state)
    }

    /// An append, alone or with an update of the same state, at any isolation level: if its commit is
    /// acknowledged, the entry must be there at the end, once.
    fn append(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        if self.appends == APPENDS {
            return self.change_one(client);
        }
        self.appends += 1;
        let (key, entry) = (
            name(some_log(&mut self.dice)),
            format!("{}/{}", self.number, self.appends),
        );
        let append = "SELECT state_append($1, '{log}', to_jsonb($2::text))";
        if self.dice.roll(2) == 0 {
            call(client, append, &[&key, &entry])?;
        } else {
            let isolation = self.isolation();
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
            call(client, "SELECT length(state_get_text($1))", &[&key])?;
            call(client, append, &[&key, &entry])?;
            call(
                client,
                "SELECT state_update($1, jsonb_build_object('n', $2::text))",
                &[&key, &entry],
            )?;
            client.batch_execute("COMMIT")?;
        }
        board.append(entry);
        Ok(())
    }

    /// Several changes of several states, flushed at COMMIT; the versions are known from a flush within.
    fn transaction(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        let isolation = self.isolation();
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        let states: Vec<State> = (0..=self.dice.roll(4)).map(|_| self.some_state()).collect();
        for state in &states {
            self.stage(client, *state)?;
        }
        let rows = client.query(
            "SELECT key, version FROM state_batch_commit() WHERE action = 'written'",
            &[],
        )?;
        if self.dice.roll(2) == 0 {
            self.stage(client, states[0])?;
        }
        client.batch_execute("COMMIT")?;
        for row in rows {
            let (key, version): (String, i64) = (row.get(0), row.get(1));
            let state = states.iter().find(|state| name(**state) == key).unwrap();
            board.acknowledge(*state, version);
        }
        Ok(())
    }

    /// What was staged after a savepoint goes with it, what was staged before stays.
    fn savepoint(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        let (a, b) = (name(self.some_state()), name(self.some_state()));
        let (kept, undone) = (self.document(), r#"{"undone": true}"#.to_string());
        client.batch_execute("BEGIN")?;
        call(
            client,
            "SELECT state_set($1, $2::text::jsonb)",
            &[&a, &kept],
        )?;
        client.batch_execute("SAVEPOINT s")?;
        call(
            client,
            "SELECT state_set($1, $2::text::jsonb)",
            &[&b, &undone],
        )?;
        call(
            client,
            "SELECT state_update($1, $2::text::jsonb)",
            &[&a, &undone],
        )?;
        if self.dice.roll(2) == 0 {
            call(client, "SELECT count(*) FROM state_batch_commit()", &[])?;
        }
        self.must_hold(client, board, "SELECT state_get($1) ? 'undone'", &[&a])?;
        client.batch_execute("ROLLBACK TO s")?;
        self.must_hold(
            client,
            board,
            "SELECT state_get($1) = $2::text::jsonb",
            &[&a, &kept],
        )?;
        client.batch_execute("COMMIT")
    }

    /// Changes, staged or flushed, of a transaction that never commits.
    fn roll_back(&mut self, client: &mut Client) -> Result<(), Error> {
        client.batch_execute("BEGIN")?;
        for _ in 0..=self.dice.roll(3) {
            let key = name(self.some_state());
            call(
                client,
                "SELECT state_set($1, '{\"undone\": true}')",
                &[&key],
            )?;
        }
        if self.dice.roll(2) == 0 {
            call(client, "SELECT count(*) FROM state_batch_commit()", &[])?;
        }
        client.batch_execute("ROLLBACK")
    }

    fn exception(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        let a = self.some_state();
        let b = loop {
            let other = self.some_state();
            if other != a {
                break other;
            }
        };
        let document = self.document();
        self.must_hold(
            client,
            board,
            "SELECT half_undone($1, $2, $3::text::jsonb)",
            &[&name(a), &name(b), &document],
        )
    }

    fn by_hand(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        let (key, document) = (name(self.some_state()), self.document());
        self.must_hold(
            client,
            board,
            "SELECT by_hand($1, $2::text::jsonb)",
            &[&key, &document],
        )
    }

    /// An explicit batch, which a change by someone else may fail.
    fn batch(&mut self, client: &mut Client, board: &Board) -> Result<(), Error> {
        let mode = ["error", "reapply", "overwrite"][self.dice.roll(3) as usize];
        let (state, document) = (self.some_state(), self.document());
        let key = name(state);
        client.batch_execute(&format!("BEGIN; SELECT state_batch_begin('{mode}')"))?;
        call(client, "SELECT length(state_get_text($1))", &[&key])?;
        call(
            client,
            "SELECT state_set($1, $2::text::jsonb)",
            &[&key, &document],
        )?;
        let rows = client.query("SELECT version FROM state_batch_commit()", &[])?;
        client.batch_execute("COMMIT")?;
        for row in rows {
            board.acknowledge(state, row.get(0));
        }
        Ok(())
    }

    fn delete_or_expire(&mut self, client: &mut Client) -> Result<(), Error> {
        let key = name(self.some_state());
        match self.dice.roll(4) {
            0 => call(client, "SELECT state_delete($1)", &[&key]),
            1 => call(client, "SELECT state_touch($1, '1 ms')", &[&key]),
            2 => call(client, "SELECT state_touch($1, '1 hour')", &[&key]),
            _ => {
                let document = self.document();
                call(
                    client,
                    "SELECT state_set($1, $2::text::jsonb, ttl => '30 ms')",
                    &[&key, &document],
                )
            }
        }
    }

    /// What takes entries out of L1 and changes no state.
    fn clear(&mut self, client: &mut Client) -> Result<(), Error> {
        let ways = [
            "SELECT state_cache_clear()",
            "SELECT state_cache_clear('run')",
            "SELECT state_invalidate('state 1*')",
            "SELECT state_invalidate('slow *', 'run')",
            "SELECT state_class_define('run', max_entries => 15)",
            "SELECT state_class_define('run', max_entries => 0)",
            "SELECT state_class_define('run', cache_ttl => '1 ms')",
            "SELECT state_class_define('run', cache_ttl => '0')",
        ];
        call(
            client,
            ways[self.dice.roll(ways.len() as u64) as usize],
            &[],
        )
    }

    /// A question whose answer must be yes.
    fn must_hold(
        &self,
        client: &mut Client,
        board: &Board,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        let holds: Option<bool> = client.query_one(sql, values)?.get(0);
        if holds != Some(true) {
            board.differs(format!("{holds:?}: {sql}"));
        }
        Ok(())
    }
}

fn call(client: &mut Client, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<(), Error> {
    client.query(sql, values).map(|_| ())
}
