//! A session of the stress, which does to any run whatever can be done to runs.

use super::board::{Board, Known, Number};
use postgres::{Client, Error};
use state_cache_server_tests::{Dice, Sql, code};

/// Runs of a round at most.
const MAX_RUNS: usize = 90;
/// Steps to the root at most.
const MAX_DEPTH: usize = 3;
/// Variables of a run that one worker sets.
const VARIABLES: u64 = 2;

/// What a run may answer where it is not what the caller hoped: ended, children running, limit reached, claimed.
/// Conflicts are part of the game too, and so is a token that is not the current one any more (both 40001).
/// Deadlocks are not: the order of locks is there to avoid them.
const REFUSALS: [&str; 5] = ["55000", "55006", "54000", "55P03", "40001"];

/// A session.
pub struct Worker<'a> {
    pub number: usize,
    pub round: usize,
    pub board: &'a Board,
    pub dice: Dice,
    /// Counts what this one has made, so that each has a name of its own.
    pub made: i64,
    /// Runs that this one has claimed, and the tokens.
    pub claims: Vec<(Number, i64)>,
}

impl Worker<'_> {
    /// Does so many things.
    pub fn work(&mut self, client: &mut Client, things: usize) {
        for _ in 0..things {
            let (what, result) = self.do_something(client);
            match result {
                Ok(()) => self.board.answered(what, "done"),
                Err(error) => {
                    let code = code(&error);
                    assert!(REFUSALS.contains(&code.as_str()), "{what}: {error:?}");
                    self.board.answered(what, &code);
                    client.run("ROLLBACK");
                }
            }
        }
    }

    fn do_something(&mut self, client: &mut Client) -> (&'static str, Result<(), Error>) {
        let number = self.dice.roll(self.board.count() as u64) as Number;
        let run = self.board.run(number);
        match self.dice.roll(100) {
            0..14 if self.board.count() < MAX_RUNS && run.depth < MAX_DEPTH => {
                ("child", self.child(client, number, &run))
            }
            0..28 => ("set", self.set(client, number, &run)),
            28..38 => ("log", self.log(client, number, &run)),
            38..56 => ("spend", self.spend(client, number, &run)),
            56..64 => ("merge", self.merge(client, &run)),
            64..72 if run.depth > 0 => ("end", self.end(client, number, &run)),
            64..82 => ("claim", self.claim(client, number, &run)),
            82..94 => ("fenced", self.fenced(client)),
            94..97 => ("renew", self.renew(client)),
            _ => ("add", self.add(client)),
        }
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("{} {} {}", self.round, self.number, self.made)
    }

    /// A child with or without an allotment of its own.
    fn child(&mut self, client: &mut Client, parent: Number, run: &Known) -> Result<(), Error> {
        let name = self.name();
        let limits = match self.dice.roll(2) {
            0 => "'{\"maxCredits\": 9.5}'",
            _ => "NULL",
        };
        client.batch_execute(&format!(
            "SELECT state_context_child('{}', '{name}', resource_limits => {limits})",
            run.name
        ))?;
        self.board.created(name, Some(parent));
        Ok(())
    }

    /// A variable that nobody else sets, in a run that anybody merges.
    fn set(&mut self, client: &mut Client, number: Number, run: &Known) -> Result<(), Error> {
        self.made += 1;
        let variable = format!(
            "of {} by {} {}",
            run.name,
            self.number,
            self.dice.roll(VARIABLES)
        );
        let level = ["READ COMMITTED", "REPEATABLE READ"][self.dice.roll(2) as usize];
        client.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL {level};
             SELECT state_context_get('{0}');
             SELECT state_context_set('{0}', '{variable}', '{1}');
             COMMIT",
            run.name, self.made
        ))?;
        self.board.set(number, variable, self.made);
        Ok(())
    }

    /// An entry in the log that all runs of a family have.
    fn log(&mut self, client: &mut Client, number: Number, run: &Known) -> Result<(), Error> {
        let entry = self.name();
        client.batch_execute(&format!(
            "SELECT state_context_append('{}', 'log', '\"{entry}\"')",
            run.name
        ))?;
        self.board.log(number, entry);
        Ok(())
    }

    fn spend(&mut self, client: &mut Client, number: Number, run: &Known) -> Result<(), Error> {
        let cents = 1 + self.dice.roll(400) as i64;
        let (token, newest) = self.some_token(number);
        client.batch_execute(&format!(
            "SELECT state_context_spend('{}', 'credits', {}.{:02}, token => {})",
            run.name,
            cents / 100,
            cents % 100,
            token.map_or("NULL".to_owned(), |token| token.to_string())
        ))?;
        self.board.spent(number, cents);
        self.accepted(number, token, newest);
        Ok(())
    }

    fn merge(&mut self, client: &mut Client, run: &Known) -> Result<(), Error> {
        match run.parent {
            Some(_) => client.batch_execute(&merging(&run.name)),
            None => Ok(()),
        }
    }

    /// Ends a run: with all that it has merged into its parent, or abandoned.
    fn end(&mut self, client: &mut Client, number: Number, run: &Known) -> Result<(), Error> {
        if self.dice.roll(6) == 0 {
            client.batch_execute(&format!(
                "SELECT state_context_complete('{}', 'failed')",
                run.name
            ))?;
            self.board.abandon(number);
            return Ok(());
        }
        client.batch_execute(&ending(&run.name))
    }

    /// Claims a run for a lease that is over at once, so that it is stolen all the time, or for a moment.
    fn claim(&mut self, client: &mut Client, number: Number, run: &Known) -> Result<(), Error> {
        let lease = ["1 us", "1 us", "20 ms"][self.dice.roll(3) as usize];
        let row = client.query_one(
            &format!(
                "SELECT state_context_claim('{}', 'worker {}', '{lease}')",
                run.name, self.number
            ),
            &[],
        )?;
        let token: i64 = row.get(0);
        if token <= self.board.newest(number) && self.is_newest(client, run, token) {
            self.board
                .differs(format!("token {token} of {} is not greater", run.name));
        }
        self.board.gave(number, token);
        self.claims.push((number, token));
        Ok(())
    }

    /// Whether the claim on a run has this token: then no later one was given out, and all others are less.
    fn is_newest(&self, client: &mut Client, run: &Known, token: i64) -> bool {
        client.number(&format!(
            "SELECT count(*) FROM state_claim WHERE run_id = '{}' AND token = {token}",
            run.name
        )) == 1
    }

    /// One of the tokens that this one has for a run, often none; and the newest that was given out.
    fn some_token(&self, number: Number) -> (Option<i64>, i64) {
        let mine = self.claims.iter().rev().find(|(run, _)| *run == number);
        (mine.map(|(_, token)| *token), self.board.newest(number))
    }

    /// What was written under a token was accepted; a newer one had been given out before it was sent.
    fn accepted(&self, number: Number, token: Option<i64>, newest: i64) {
        if let Some(token) = token.filter(|token| *token < newest) {
            self.board.differs(format!(
                "token {token} of {} was accepted after {newest}",
                self.board.run(number).name
            ));
        }
    }

    /// A transaction under a token, open while others steal the run. The tokens that were accepted are an array
    /// in the run: they can only grow.
    fn fenced(&mut self, client: &mut Client) -> Result<(), Error> {
        let Some((number, token)) = self.some_claim() else {
            return Ok(());
        };
        let run = self.board.run(number);
        let array = format!("tokens of {}", run.name);
        client.batch_execute(&format!(
            "BEGIN;
             SELECT state_context_append('{}', '{array}', '{token}', token => {token})",
            run.name
        ))?;
        client.batch_execute("SELECT count(*) FROM state_current")?;
        let newest = self.board.newest(number);
        client.batch_execute("COMMIT")?;
        self.accepted(number, Some(token), newest);
        Ok(())
    }

    fn renew(&mut self, client: &mut Client) -> Result<(), Error> {
        let Some((number, token)) = self.some_claim() else {
            return Ok(());
        };
        let newest = self.board.newest(number);
        client.batch_execute(&format!(
            "SELECT state_context_renew('{}', {token}, '1 us')",
            self.board.run(number).name
        ))?;
        self.accepted(number, Some(token), newest);
        Ok(())
    }

    /// Mostly the last.
    fn some_claim(&mut self) -> Option<(Number, i64)> {
        let back = self.dice.roll(3).min(self.dice.roll(3)) as usize;
        self.claims.iter().rev().nth(back).copied()
    }

    fn add(&mut self, client: &mut Client) -> Result<(), Error> {
        let item = self.name();
        client.batch_execute(&format!(
            "SELECT state_blackboard_add('swarm {}', '{item}', '[]')",
            self.round
        ))?;
        self.board.added(item);
        Ok(())
    }
}

/// Merges a run into its parent.
pub fn merging(run: &str) -> String {
    format!("SELECT state_context_merge('{run}', per_variable => '{{\"log\": \"array_concat\"}}')")
}

/// Ends a run and merges it, at once.
pub fn ending(run: &str) -> String {
    format!(
        "BEGIN; SELECT state_context_complete('{run}'); {}; COMMIT",
        merging(run)
    )
}
