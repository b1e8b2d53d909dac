//! What the sessions do: transactions of any kind, at random.

use super::arena::{Place, elements, read_many, seen};
use super::record::{Act, Change, Element, Level, Promise, Seen, State};
use super::session::{Board, Failure, Session};
use std::collections::{BTreeMap, BTreeSet};

/// Points of the protocol at which a session may be held up for a moment, most of the time at none.
const STOPS: [&str; 14] = [
    "",
    "",
    "",
    "",
    "",
    "after_flush",
    "marked",
    "visible",
    "visible",
    "visible",
    "before_fill",
    "before_fill",
    "before_behind",
    "class_known",
];

/// A session that works.
pub struct Worker<'a> {
    session: Session<'a>,
    /// States that this session knows to be absent.
    absent: BTreeSet<State>,
    /// What the transaction has read of states that it has not changed.
    known: BTreeMap<State, (i64, Vec<Element>)>,
    batch: Option<&'static str>,
}

type Done = Result<(), Failure>;

impl<'a> Worker<'a> {
    /// One of many.
    pub fn new(board: &'a Board<'a>, number: usize, seed: u64) -> Self {
        Self {
            session: Session::new(board, format!("session {number}"), seed),
            absent: BTreeSet::new(),
            known: BTreeMap::new(),
            batch: None,
        }
    }

    /// Works until the life is over.
    pub fn work(&mut self) {
        while !self.session.board.over() {
            let settings = self.settings();
            if !self.session.connect(&settings) {
                return;
            }
            if self.roll(15) == 0 {
                let (_, answer) = self.session.ask(&settings);
                if answer.is_err() {
                    continue;
                }
            }
            self.known.clear();
            self.batch = None;
            match self.roll(20) {
                0..6 => self.read_alone(),
                6..10 => self.change_alone(),
                10 => self.by_hand(),
                11..14 => self.batch(),
                _ => self.block(),
            }
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.session.dice.roll(sides)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.roll(among.len() as u64) as usize]
    }

    fn settings(&mut self) -> String {
        let notify = self.pick(self.session.board.notify);
        let enabled = self.pick(&["on", "on", "on", "on", "on", "off"]);
        let stop = self.pick(&STOPS);
        format!(
            "SET state_cache.notify = '{notify}'; SET state_cache.enabled = '{enabled}';
             SET state_cache.test_stop_at = '{stop}'; SET state_cache.test_unsafe = '{}'",
            self.session.board.leave_out
        )
    }

    fn level(&mut self) -> Level {
        self.pick(&[
            Level::Committed,
            Level::Committed,
            Level::Repeatable,
            Level::Repeatable,
            Level::Serializable,
        ])
    }

    /// Any state, half of the time one of the few that all prefer.
    fn state(&mut self) -> State {
        let places = self.session.board.places;
        let state = self.roll(places.len() as u64) as usize;
        if self.roll(2) == 0 {
            return state;
        }
        let alike =
            |place: &Place| place.class == places[state].class && place.list == places[state].list;
        places.iter().position(alike).unwrap_or(state)
    }

    /// The words by which SQL names a state: key and class.
    fn words(&self, state: State) -> (String, &'static str) {
        let place = &self.session.board.places[state];
        (format!("'{}'", place.key), place.class)
    }

    /// The document that holds a list, of any size.
    fn document(&mut self, list: &[Element]) -> String {
        let length = self.pick(&[10, 100, 1000, 3000]);
        let padding = self.session.dice.digits(length);
        format!(r#"'{{"log": {list:?}, "padding": "{padding}"}}'"#)
    }

    fn read_alone(&mut self) {
        self.session.open(", one read", Level::Committed);
        let answer = self.read();
        self.session.close_alone(&answer);
    }

    fn change_alone(&mut self) {
        self.session.open(", one change", Level::Committed);
        let state = self.state();
        let answer = self.change(state);
        self.session.close_alone(&answer);
    }

    /// A block of several statements.
    fn block(&mut self) {
        let level = self.level();
        let answer = self.begin("", level).and_then(|()| {
            for _ in 0..=self.roll(4) {
                match self.roll(12) {
                    0 => self.savepoint()?,
                    1 => self.flush()?,
                    2..7 => self.read()?,
                    _ => {
                        let state = self.state();
                        self.change(state)?;
                    }
                }
            }
            Ok(())
        });
        self.end(&answer);
    }

    /// An explicit batch in a block.
    fn batch(&mut self) {
        let level = self.level();
        let mode = self.pick(&["error", "reapply", "overwrite"]);
        let answer = self
            .begin(&format!(", batch {mode}"), level)
            .and_then(|()| {
                self.batch = Some(mode);
                self.mark(&format!("SELECT state_batch_begin('{mode}')"))?;
                for _ in 0..=self.roll(3) {
                    match self.roll(8) {
                        0 => self.savepoint()?,
                        1..5 => self.read()?,
                        _ => {
                            let state = self.state();
                            self.change(state)?;
                        }
                    }
                }
                match self.roll(3) {
                    0 => {
                        self.flush()?;
                        self.release(None)?;
                    }
                    1 => self.undo("SELECT state_batch_rollback()")?,
                    // It is flushed at COMMIT under its own rules.
                    _ => self.release(None)?,
                }
                self.batch = None;
                self.read()
            });
        self.end(&answer);
    }

    fn begin(&mut self, what: &str, level: Level) -> Done {
        self.session.open(what, level);
        let begin = format!("BEGIN ISOLATION LEVEL {}", level.name());
        self.session.ask(&begin).1.map(drop)
    }

    fn end(&mut self, answer: &Done) {
        let commit = self.roll(10) > 0;
        self.session.finish(answer, commit);
    }

    fn mark(&mut self, sql: &str) -> Done {
        let (span, answer) = self.session.ask(sql);
        answer?;
        self.session.note(span, Act::Mark);
        Ok(())
    }

    fn undo(&mut self, sql: &str) -> Done {
        let (span, answer) = self.session.ask(sql);
        answer?;
        self.session.note(span, Act::Undo);
        Ok(())
    }

    fn release(&mut self, sql: Option<&str>) -> Done {
        let now = self.session.board.clock.now();
        let mut span = super::record::Span { from: now, to: now };
        if let Some(sql) = sql {
            let (asked, answer) = self.session.ask(sql);
            answer?;
            span = asked;
        }
        self.session.note(span, Act::Release);
        Ok(())
    }

    /// Something within a savepoint, which may fail or be rolled back.
    fn savepoint(&mut self) -> Done {
        self.mark("SAVEPOINT s")?;
        let mut answer = Ok(());
        for _ in 0..=self.roll(2) {
            let state = self.state();
            answer = match self.roll(4) {
                0 => self.read(),
                1 if self.batch.is_none() => self.flush(),
                _ => self.change(state),
            };
            if answer.is_err() {
                break;
            }
        }
        match answer {
            Err(Failure::Lost) => answer,
            Ok(()) if self.roll(2) == 0 => self.release(Some("RELEASE s")),
            _ => self.undo("ROLLBACK TO s; RELEASE s"),
        }
    }

    fn flush(&mut self) -> Done {
        let (span, rows) = self.session.ask_within(
            "SELECT class, key, version FROM state_batch_commit() WHERE action <> 'unchanged'",
        );
        let places = self.session.board.places;
        let number = |row: &Vec<Option<String>>| {
            let state = places.iter().position(|place| {
                row[0].as_deref() == Some(place.class) && row[1].as_deref() == Some(&place.key)
            });
            // Without a version there was nothing to delete.
            Some((state?, row[2].as_ref()?.parse().unwrap()))
        };
        let versions = rows?.iter().filter_map(number).collect();
        self.session.note(span, Act::Flushed(versions));
        Ok(())
    }

    /// Some states, most of the time of one class.
    fn states(&mut self) -> Vec<State> {
        let places = self.session.board.places;
        let first = self.state();
        let mut states = BTreeSet::from([first]);
        for _ in 0..self.roll(4) {
            let other = self.state();
            if self.roll(3) == 0 || places[other].class == places[first].class {
                states.insert(other);
            }
        }
        states.into_iter().collect()
    }

    fn read(&mut self) -> Done {
        let states = self.states();
        let (key, class) = self.words(states[0]);
        let places = self.session.board.places;
        let one = |version: bool| {
            let state = states[0];
            move |rows: &super::session::Rows| {
                let row = rows.first();
                let value = row.and_then(|row| row[0].as_deref()).map(elements);
                let number = row.filter(|_| version && value.is_some());
                let version = number.and_then(|row| Some(row[1].as_ref()?.parse().unwrap()));
                vec![Seen {
                    state,
                    version,
                    value,
                }]
            }
        };
        let seen = match self.roll(12) {
            0 => self.session.read(
                &format!("SELECT state_get({key}, '{class}') -> 'log'"),
                one(false),
            )?,
            1 => self.session.read(
                &format!("SELECT state_get_text({key}, '{class}')::jsonb -> 'log'"),
                one(false),
            )?,
            2 => self.session.read(
                &format!("SELECT state_get_path({key}, '{{log}}', '{class}')"),
                one(false),
            )?,
            3 => self.session.read(
                &format!(
                    "SELECT state -> 'log', version FROM state_get_if_newer({key}, 0, '{class}')"
                ),
                one(true),
            )?,
            // Plain SQL sees what is written, and nothing that is staged.
            4 if places[states[0]].promise == Promise::Through
                && !self.session.changed.contains(&states[0]) =>
            {
                let sql = format!(
                    "SELECT state -> 'log', version FROM state_current WHERE class = '{class}' AND key = {key}"
                );
                self.session.read(&sql, one(true))?
            }
            _ => self.session.read(&read_many(places, &states), |rows| {
                seen(places, &states, rows)
            })?,
        };
        for seen in seen {
            match (seen.value, seen.version) {
                (None, _) => drop(self.absent.insert(seen.state)),
                (Some(list), Some(version)) if !self.session.changed.contains(&seen.state) => {
                    self.absent.remove(&seen.state);
                    self.known.insert(seen.state, (version, list));
                }
                _ => drop(self.absent.remove(&seen.state)),
            }
        }
        Ok(())
    }

    fn change(&mut self, state: State) -> Done {
        let element = self.session.board.arena.element();
        let (key, class) = self.words(state);
        let place = &self.session.board.places[state];
        let removable = place.class == "purged" || place.promise != Promise::Through;
        if self.absent.remove(&state) {
            // Nobody else may have made it meanwhile.
            let document = self.document(&[element]);
            let sql = format!(
                "SELECT state_set({key}, {document}, expected_version => 0, class => '{class}')"
            );
            return self.written(&sql, state, Change::Set(element));
        }
        if removable && self.roll(25) == 0 {
            return self.delete(state);
        }
        // What such a batch holds is written over what others have appended.
        if place.list && self.batch != Some("overwrite") {
            return self.append(state, element);
        }
        if !place.list {
            return self.replace(state, element);
        }
        self.read()
    }

    fn written(&mut self, sql: &str, state: State, change: Change) -> Done {
        let answer = self.session.change(sql, state, change);
        self.known.remove(&state);
        if answer == Err(Failure::Refused("2203A".into())) {
            self.absent.insert(state);
        }
        answer.map(drop)
    }

    fn append(&mut self, state: State, element: Element) -> Done {
        let (key, class) = self.words(state);
        let known = self.known.get(&state).cloned();
        let sql = match known {
            // As whoever knows the version would do.
            Some((version, mut list)) if self.roll(2) == 0 => {
                list.push(element);
                let document = self.document(&list);
                format!(
                    "SELECT state_set({key}, {document}, expected_version => {version}, class => '{class}')"
                )
            }
            _ => format!("SELECT state_append({key}, '{{log}}', '{element}', class => '{class}')"),
        };
        self.written(&sql, state, Change::Append(element))
    }

    fn replace(&mut self, state: State, element: Element) -> Done {
        let (key, class) = self.words(state);
        let document = self.document(&[element]);
        let version = self.known.get(&state).map(|(version, _)| *version);
        let sql = match (self.roll(8), version) {
            (0, _) => format!(
                "SELECT state_update({key}, '{{\"log\": [{element}]}}', class => '{class}')"
            ),
            (1, _) if self.batch.is_none() => {
                format!("SELECT state_save({key}, {document}, class => '{class}')")
            }
            (2, Some(version)) => format!(
                "SELECT state_set({key}, {document}, expected_version => {version}, class => '{class}')"
            ),
            _ => format!("SELECT state_set({key}, {document}, class => '{class}')"),
        };
        self.written(&sql, state, Change::Set(element))
    }

    fn delete(&mut self, state: State) -> Done {
        let (key, class) = self.words(state);
        let (span, rows) = self
            .session
            .ask(&format!("SELECT state_delete({key}, class => '{class}')"));
        let found = match &rows {
            // Alone, it may have been done.
            Err(failure) => *failure == Failure::Lost,
            Ok(rows) => rows[0][0].as_deref() == Some("t"),
        };
        if found {
            self.session.note(span, Act::Change(state, Change::Delete));
            self.absent.insert(state);
        } else {
            self.session.note(span, Act::Nothing);
        }
        rows.map(drop)
    }

    /// A change of the tables without the functions, read before and after.
    fn by_hand(&mut self) {
        let places = self.session.board.places;
        let state = self.state();
        let ((key, class), level) = (self.words(state), self.level());
        let through = places[state].promise == Promise::Through;
        let remove = !through || (class == "purged" && self.roll(4) == 0);
        if remove && !through && self.roll(3) > 0 {
            return self.read_alone();
        }
        let answer = self.begin(", by hand", level).and_then(|()| {
            if self.roll(2) == 0 {
                self.read()?;
            }
            let sql = if remove {
                format!("SELECT history_remove('{class}', {key})")
            } else {
                let element = self.session.board.arena.element();
                let sql = format!("SELECT history_append('{class}', {key}, {element})");
                return self.append_by_hand(&sql, state, element);
            };
            let (span, rows) = self.session.ask_within(&sql);
            let version = rows?[0][0].as_ref().map(|text| text.parse().unwrap());
            if version.is_some() {
                let version = version.filter(|_| through);
                self.session
                    .note(span, Act::Change(state, Change::Remove(version)));
            } else {
                self.session.note(span, Act::Nothing);
            }
            self.read()
        });
        self.end(&answer);
    }

    fn append_by_hand(&mut self, sql: &str, state: State, element: Element) -> Done {
        let (span, rows) = self.session.ask(sql);
        let version = match &rows {
            Ok(rows) => rows[0][0].as_ref().map(|text| text.parse().unwrap()),
            Err(_) => None,
        };
        if rows.is_err() || version.is_some() {
            self.session
                .note(span, Act::Change(state, Change::Append(element)));
        } else {
            self.session.note(span, Act::Nothing);
        }
        rows?;
        if let Some(version) = version {
            self.session
                .note(span, Act::Flushed(vec![(state, version)]));
        }
        self.known.clear();
        self.read()
    }
}
