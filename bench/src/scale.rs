//! What changes as the number of states grows: reads, changes, the worker's passes, views, and a start.
//!
//! Everything is in a database of its own, which grows from one size to the next. Keys are drawn at random by the
//! server, on both sides alike. The states are small, so that a million of them fits on a disk; L1 has its usual
//! memory, so that only a part of the larger numbers fits there.

use std::time::{Duration, Instant};

use crate::crew::{CLIENTS, Crew, Until};
use crate::report::{Row, Target, Unit};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::Connection;
use crate::{Failure, behind, loops};

/// Name of the database.
const NAME: &str = "state_cache_bench_scale";
/// The class that is measured.
const CLASS: &str = "scale";
/// The numbers of states, up to the most that are asked for.
const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// States that one transaction stores.
const CHUNK: usize = 10_000;
/// States that a pass has to do with.
const PASS: usize = 1_000;
/// The most rounds of what takes long.
const ROUNDS: usize = 3;
/// How long a worker, or the server, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Updates in a loop of one session.
const LOOPED: usize = 20_000;

/// The document of state `n`, an SQL expression, after its change number `step`: about 300 bytes of binary jsonb.
fn document(n: &str, step: &str) -> String {
    format!(
        "jsonb_build_object('runId', 'state-' || {n}, 'status', 'running', 'step', {step}, 'note', \
            repeat(md5({n}::text), 6))"
    )
}

/// The database with so many states on both sides.
struct Filled {
    connection: Connection,
    states: usize,
}

/// Measures at each size up to `most` states.
pub fn scale(connection: &mut Connection, plan: &Plan, most: usize) -> Result<Vec<Row>, Failure> {
    let drop = format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)");
    connection.query(&drop)?;
    connection.query(&format!("CREATE DATABASE {NAME}"))?;
    // Each size is reached twice: in turns of seconds there is little to gain by more.
    let plan = Plan {
        turns: plan.turns.min(2),
        ..*plan
    };
    let rows = measure(&plan, most);
    // The server was started anew meanwhile.
    *connection = Connection::open()?;
    connection.query("ALTER SYSTEM RESET state_cache.warm_on_start")?;
    connection.query("SELECT pg_reload_conf()")?;
    connection.query(&drop)?;
    rows
}

fn measure(plan: &Plan, most: usize) -> Result<Vec<Row>, Failure> {
    let mut filled = Filled::new()?;
    let mut rows = Vec::new();
    let sizes = SIZES.into_iter().filter(|size| *size < most);
    for size in sizes.chain([most]) {
        filled.grow(size)?;
        rows.extend(filled.reads(plan)?);
        rows.push(filled.updates(plan)?);
        rows.push(filled.updates_in_a_loop(plan)?);
        rows.extend(filled.views(plan)?);
        rows.push(filled.write_back(plan)?);
        rows.push(filled.expiry(plan)?);
        rows.push(filled.prune(plan)?);
        rows.extend(filled.start(plan)?);
    }
    Ok(rows)
}

/// How long a statement takes.
fn timed(connection: &mut Connection, sql: &str) -> Result<Cost, Failure> {
    let started = Instant::now();
    connection.query(sql)?;
    Ok(Cost {
        done: 1.0,
        seconds: started.elapsed().as_secs_f64(),
        wal: 0.0,
    })
}

/// Asks again and again until the answer is yes.
fn wait_until(
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, Failure>,
) -> Result<Duration, Failure> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > PATIENCE {
            return Err(format!("waited {} s for {what}", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(started.elapsed())
}

fn connect() -> Result<Connection, Failure> {
    let mut connection = Connection::open_database(NAME)?;
    connection.query("SET state_cache.notify = off")?;
    Ok(connection)
}

impl Filled {
    /// With none.
    fn new() -> Result<Self, Failure> {
        let mut connection = connect()?;
        connection.query(&format!(
            "CREATE EXTENSION state_cache;
             SELECT state_class_define('{CLASS}', keep => 1);
             CREATE TABLE plain (key text PRIMARY KEY, state jsonb NOT NULL)"
        ))?;
        // Whoever stops writes down what L1 holds only then.
        connection.query("ALTER SYSTEM SET state_cache.warm_on_start = on")?;
        connection.query("SELECT pg_reload_conf()")?;
        Ok(Filled {
            connection,
            states: 0,
        })
    }

    /// Stores states until there are so many.
    fn grow(&mut self, states: usize) -> Result<(), Failure> {
        let new = document("n", "0");
        while self.states < states {
            let (first, last) = (self.states + 1, states.min(self.states + CHUNK));
            self.connection.query(&format!(
                "SELECT count(state_set('state-' || n, {new}, class => '{CLASS}')) FROM generate_series({first}, \
                    {last}) n"
            ))?;
            self.connection.query(&format!(
                "INSERT INTO plain SELECT 'state-' || n, {new} FROM generate_series({first}, {last}) n"
            ))?;
            self.states = last;
        }
        self.tidy()
    }

    fn tidy(&mut self) -> Result<(), Failure> {
        self.connection
            .query("VACUUM ANALYZE plain, state_head, state_snapshot")?;
        Ok(())
    }

    /// A key drawn at random, as an SQL expression.
    fn any_key(&self) -> String {
        format!(
            "'state-' || (1 + floor(random() * {}))::bigint",
            self.states
        )
    }

    fn named(&self, what: &str) -> String {
        // With a comma before every three digits.
        let digits = self.states.to_string();
        let groups = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(String::from_utf8_lossy);
        format!("{} states: {what}", groups.collect::<Vec<_>>().join(","))
    }

    fn compared(&self, what: &str, against: &str) -> Comparison {
        Comparison {
            measured: self.named(what),
            against: against.to_owned(),
            target: Target::None,
            sides: [0, 1],
        }
    }

    fn timed_row(&self, what: &str, seconds: Vec<f64>, sides: String) -> Row {
        Row {
            measured: self.named(what),
            against: String::new(),
            target: Target::None,
            unit: Unit::Millis,
            figures: seconds.into_iter().map(|seconds| 1e3 * seconds).collect(),
            sides,
        }
    }

    /// Hits of the class and all its reads.
    fn looked_up(&mut self) -> Result<[f64; 2], Failure> {
        let rows = self.connection.query(&format!(
            "SELECT hits, hits + misses FROM state_cache_stats WHERE class = '{CLASS}'"
        ))?;
        let mut counts = [0.0; 2];
        for (count, text) in counts.iter_mut().zip(rows.iter().flatten()) {
            *count = text.as_deref().unwrap_or("0").parse()?;
        }
        Ok(counts)
    }

    /// One state at random, by the function and by the view, in a loop within the server.
    fn reads(&mut self, plan: &Plan) -> Result<Vec<Row>, Failure> {
        let any = format!("k := {};", self.any_key());
        let plain =
            format!("{any} SELECT state ->> 'status' INTO STRICT x FROM plain WHERE key = k;");
        let mut rows = Vec::new();
        for (what, read) in [
            (
                "`state_get`",
                format!("x := state_get(k, '{CLASS}') ->> 'status';"),
            ),
            (
                "`SELECT … FROM state_current` of one state",
                format!(
                    "SELECT state ->> 'status' INTO STRICT x FROM state_current WHERE class = '{CLASS}' AND key = k;"
                ),
            ),
        ] {
            let connection = &mut self.connection;
            loops::create_loop(connection, "cached", "", "", &format!("{any} {read}"))?;
            loops::create_loop(connection, "plain", "", "", &plain)?;
            let before = self.looked_up()?;
            let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
                loops::run_loop(&mut self.connection, side, plan.turn)
            })?;
            let after = self.looked_up()?;
            let what = format!("{what}, keys at random, server-side loop");
            let mut row = self
                .compared(&what, "`SELECT … INTO` by primary key")
                .by_time(&rounds);
            if after[1] > before[1] {
                let hits = 100.0 * (after[0] - before[0]) / (after[1] - before[1]);
                row.sides += &format!("; {hits:.0} % hits");
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// One state at random changed per transaction, by several clients.
    fn updates(&mut self, plan: &Plan) -> Result<Row, Failure> {
        let changed = document("n", "$1::bigint");
        let drawn = format!(
            "(SELECT (1 + floor(random() * {}))::bigint AS n) drawn",
            self.states
        );
        let cached =
            format!("SELECT state_set('state-' || n, {changed}, class => '{CLASS}') FROM {drawn}");
        // OFFSET keeps the number from being drawn for each row.
        let plain = format!(
            "UPDATE plain SET state = {changed} FROM (SELECT * FROM {drawn} OFFSET 0) drawn WHERE key = 'state-' || n"
        );
        let mut crew: Crew = Crew::of(CLIENTS, || {
            let mut connection = connect()?;
            connection.prepare("cached", &cached)?;
            connection.prepare("plain", &plain)?;
            Ok(connection)
        })?;
        let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
            crew.work(Until::Elapsed(plan.turn), |client| {
                let number = (client.number() + 1).to_string();
                let statement = if side == Side::Cached {
                    "cached"
                } else {
                    "plain"
                };
                client.connection.execute(statement, &[&number])?;
                Ok(())
            })
        })?;
        self.tidy()?;
        let what = format!(
            "one changed state per transaction, {CLIENTS} clients, `state_cache.notify` off"
        );
        Ok(self
            .compared(&what, "`UPDATE … SET state` by primary key")
            .by_rate(&rounds))
    }

    /// Updates of states at random in a loop within the server, with a COMMIT each and the messages that are the
    /// default.
    fn updates_in_a_loop(&mut self, plan: &Plan) -> Result<Row, Failure> {
        let any = format!("1 + floor(random() * {})", self.states);
        let changed = document("n", "i");
        for (name, change) in [
            (
                "cached",
                format!("PERFORM state_set('state-' || n, {changed}, class => '{CLASS}')"),
            ),
            (
                "plain",
                format!("UPDATE plain SET state = {changed} WHERE key = 'state-' || n"),
            ),
        ] {
            self.connection.query(&format!(
                "CREATE OR REPLACE PROCEDURE updates_{name}() LANGUAGE plpgsql AS $updates$
                 DECLARE n bigint;
                 BEGIN
                     FOR i IN 1 .. {LOOPED} LOOP
                         n := {any};
                         {change};
                         COMMIT;
                     END LOOP;
                 END $updates$"
            ))?;
        }
        let plan = Plan {
            rounds: plan.rounds.min(ROUNDS),
            turns: 1,
            ..*plan
        };
        self.connection.query("RESET state_cache.notify")?;
        let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
            let name = match side {
                Side::Cached => "cached",
                _ => "plain",
            };
            let cost = timed(&mut self.connection, &format!("CALL updates_{name}()"))?;
            Ok(Cost {
                done: LOOPED as f64,
                ..cost
            })
        })?;
        self.connection.query("SET state_cache.notify = off")?;
        self.tidy()?;
        let what = format!("{LOOPED} updates in a loop, with a COMMIT each");
        let compared = self.compared(&what, "the same loop with `UPDATE … SET state`");
        Ok(Comparison {
            target: Target::AtLeast(1.0),
            ..compared
        }
        .by_rate(&rounds))
    }

    /// What looks at all states, or at all of L1.
    fn views(&mut self, plan: &Plan) -> Result<Vec<Row>, Failure> {
        let short = Plan {
            rounds: plan.rounds.min(ROUNDS),
            turns: 1,
            ..*plan
        };
        let rounds = short.alternate([Side::Cached, Side::Plain], |side| {
            let view = if side == Side::Cached {
                "state_current"
            } else {
                "plain"
            };
            timed(
                &mut self.connection,
                &format!("SELECT count(state ->> 'status') FROM {view}"),
            )
        })?;
        let all = self.compared(
            "all of `state_current`, a field of each",
            "the same of the plain table",
        );
        let mut rows = vec![all.by_time(&rounds)];
        for (what, sql) in [
            (
                "`state_cache_stats`",
                "SELECT count(*) FROM state_cache_stats",
            ),
            (
                "`state_cache_entries`, all of it",
                "SELECT count(*) FROM state_cache_entries",
            ),
        ] {
            let seconds = (0..plan.rounds).map(|_| Ok(timed(&mut self.connection, sql)?.seconds));
            let seconds = seconds.collect::<Result<_, Failure>>()?;
            let entries: u64 = self
                .connection
                .value("SELECT count(*) FROM state_cache_entries")?;
            rows.push(self.timed_row(what, seconds, format!("{entries} entries")));
        }
        Ok(rows)
    }

    /// Numbers of as many states as a pass has to do with, far from each other.
    fn some(&self) -> String {
        let step = (self.states / PASS).max(1);
        format!(
            "generate_series(1, {}, {step}) n",
            step * PASS.min(self.states)
        )
    }

    /// What the worker's pass over dirty states does, by hand so that its pauses are not measured.
    fn write_back(&mut self, plan: &Plan) -> Result<Row, Failure> {
        behind::define(&mut self.connection, CLASS, 1)?;
        let short = Plan {
            rounds: plan.rounds.min(ROUNDS),
            turns: 1,
            ..*plan
        };
        let (some, mut step) = (self.some(), 0);
        let rounds = short.alternate([Side::Cached, Side::Plain], |side| {
            step += 1;
            let changed = document("n", &step.to_string());
            let connection = &mut self.connection;
            if side == Side::Plain {
                let sql = format!("UPDATE plain SET state = {changed} FROM {some} WHERE key = 'state-' || n");
                let cost = timed(connection, &sql)?;
                return Ok(Cost { done: PASS as f64, ..cost });
            }
            // The worker may come by in between, which leaves nothing to measure.
            for _ in 0..10 {
                connection.query(&format!(
                    "SELECT count(state_set('state-' || n, {changed}, class => '{CLASS}')) FROM {some}"
                ))?;
                let started = Instant::now();
                let written: usize = connection.value(&format!("SELECT state_flush('{CLASS}')"))?;
                if written > PASS / 2 {
                    return Ok(Cost {
                        done: written as f64,
                        seconds: started.elapsed().as_secs_f64(),
                        wal: 0.0,
                    });
                }
            }
            Err("the worker wrote all that was to be written".into())
        })?;
        self.connection.query(&format!(
            "SELECT state_class_define('{CLASS}', write_mode => 'through')"
        ))?;
        self.tidy()?;
        let what = format!("a state of {PASS} written back by `state_flush`");
        Ok(self
            .compared(&what, "a row of one `UPDATE` of as many")
            .by_time(&rounds))
    }

    /// From when states expire until the worker has removed all.
    fn expiry(&mut self, plan: &Plan) -> Result<Row, Failure> {
        let (some, old) = (self.some(), document("n", "0"));
        let mut seconds = Vec::new();
        for _ in 0..plan.rounds.min(ROUNDS) {
            self.connection.query(&format!(
                "SELECT count(state_touch('state-' || n, '1 second', class => '{CLASS}')) FROM {some}"
            ))?;
            std::thread::sleep(Duration::from_secs(1));
            let connection = &mut self.connection;
            let waited = wait_until("expired states to be removed", || {
                let left = "SELECT count(*) FROM state_head WHERE expires_at IS NOT NULL";
                Ok(connection.value::<u64>(left)? == 0)
            })?;
            seconds.push(waited.as_secs_f64());
            connection.query(&format!(
                "SELECT count(state_set('state-' || n, {old}, class => '{CLASS}')) FROM {some}"
            ))?;
        }
        self.tidy()?;
        let what = format!("{PASS} states expire: time until the worker has removed them");
        Ok(self.timed_row(
            &what,
            seconds,
            "it looks once a second, and pauses".to_owned(),
        ))
    }

    /// What the worker's pass for versions that are not kept does, where there is none.
    fn prune(&mut self, plan: &Plan) -> Result<Row, Failure> {
        let prune = format!("SELECT state_prune('{CLASS}')");
        // What the rows before have left.
        self.connection.query(&prune)?;
        let rounds = 0..plan.rounds.min(ROUNDS);
        let seconds = rounds.map(|_| Ok(timed(&mut self.connection, &prune)?.seconds));
        let seconds = seconds.collect::<Result<_, Failure>>()?;
        Ok(self.timed_row(
            "`state_prune` that finds nothing to prune",
            seconds,
            String::new(),
        ))
    }

    /// The first reads after a start, and how long it takes until the worker has filled L1 as it was.
    fn start(&mut self, plan: &Plan) -> Result<Vec<Row>, Failure> {
        let (mut firsts, mut warmed, mut entries) = (Vec::new(), Vec::new(), 0_u64);
        for round in 0..plan.rounds.min(ROUNDS) {
            self.restart()?;
            let since_start = Instant::now();
            let mut sides = [Cost::default(); 2];
            let forward = round % 2 == 0;
            for n in if forward { [0, 1] } else { [1, 0] } {
                let started = Instant::now();
                let mut session = connect()?;
                session.query(match n {
                    0 => "SELECT state_get_text('state-1', 'scale')",
                    _ => "SELECT state FROM plain WHERE key = 'state-1'",
                })?;
                sides[n] = Cost {
                    done: 1.0,
                    seconds: started.elapsed().as_secs_f64(),
                    wal: 0.0,
                };
            }
            firsts.push(sides);
            self.connection = connect()?;
            wait_until("L1 to be filled", || {
                let done = format!(
                    "SELECT count(*) FROM state_cache_workers
                     WHERE database = '{NAME}' AND warm_total > 0 AND warm_done = warm_total"
                );
                Ok(self.connection.value::<u64>(&done)? == 1)
            })?;
            warmed.push(since_start.elapsed().as_secs_f64());
            entries = self
                .connection
                .value("SELECT count(*) FROM state_cache_entries")?;
        }
        let first = self.compared(
            "first `state_get_text` after a restart, connecting included",
            "first `SELECT state` by primary key after it",
        );
        let what = "restart until the worker has filled L1, `state_cache.warm_on_start` on";
        let sides = format!("{entries} entries, a few at a time");
        Ok(vec![
            first.by_time(&firsts),
            self.timed_row(what, warmed, sides),
        ])
    }

    /// Lets the server restart, cleanly. Only its own user may do that, so it does it itself.
    fn restart(&mut self) -> Result<(), Failure> {
        let bin = std::env::var("STATE_CACHE_BIN")
            .map_err(|_| "STATE_CACHE_BIN is not set; run this under scripts/with-server")?;
        let postmaster = "SELECT extract(epoch FROM pg_postmaster_start_time())";
        let before: String = self.connection.value(postmaster)?;
        let data: String = self.connection.value("SHOW data_directory")?;
        // Only once the session that asks for it has ended: a restart could be faster than the answer.
        let mut asking = connect()?;
        let backend: u32 = asking.value("SELECT pg_backend_pid()")?;
        let command = format!(
            "setsid sh -c \"while kill -0 {backend} 2>/dev/null; do sleep 0.01; done; \
             {bin}/pg_ctl --pgdata={data} --mode=fast --wait restart\" >/dev/null 2>&1 </dev/null &"
        );
        asking.query(&format!("COPY (SELECT 1) TO PROGRAM '{command}'"))?;
        drop(asking);
        wait_until("the server to restart", || {
            let now =
                Connection::open_database(NAME).and_then(|mut new| new.value::<String>(postmaster));
            Ok(now.is_ok_and(|now| now != before))
        })?;
        Ok(())
    }
}
