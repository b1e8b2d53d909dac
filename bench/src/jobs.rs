//! Jobs: many tasks changed in one call, a summary that many sessions poll, and workers that take tasks and finish
//! them.

use std::time::Instant;

use crate::Failure;
use crate::crew::{CLIENTS, Crew, Until};
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::Connection;

/// Tasks that are changed at once.
const UPDATES: u64 = 1000;
/// Tasks of the job whose summary is polled.
const TASKS: u64 = 100_000;
/// Sessions that poll.
const POLLERS: usize = 64;
/// Jobs that workers are given, tasks that they take at a time, and how often each does so in a turn.
const JOBS: u64 = 16;
const BATCH: u64 = 10;
const BATCHES: u64 = 50;

/// A table of tasks as one writes it by hand, beside a row that a trigger counts in.
const PLAIN: &str = "
    DROP TABLE IF EXISTS plain_task, plain_job;
    CREATE TABLE plain_job (job_id text PRIMARY KEY, total bigint NOT NULL DEFAULT 0,
        pending bigint NOT NULL DEFAULT 0, running bigint NOT NULL DEFAULT 0,
        completed bigint NOT NULL DEFAULT 0, failed bigint NOT NULL DEFAULT 0);
    CREATE TABLE plain_task (job_id text, task_id text, status text NOT NULL DEFAULT 'pending', result jsonb,
        place bigserial, PRIMARY KEY (job_id, task_id));
    CREATE INDEX plain_task_status ON plain_task (job_id, status);
    CREATE INDEX plain_task_waiting ON plain_task (place) WHERE status = 'pending';
    CREATE OR REPLACE FUNCTION plain_count() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE plain_job SET pending = pending + (NEW.status = 'pending')::int - (OLD.status = 'pending')::int,
            running = running + (NEW.status = 'running')::int - (OLD.status = 'running')::int,
            completed = completed + (NEW.status = 'completed')::int - (OLD.status = 'completed')::int,
            failed = failed + (NEW.status = 'failed')::int - (OLD.status = 'failed')::int
        WHERE job_id = NEW.job_id;
        RETURN NULL;
    END $$";

/// Makes a job of so many tasks anew, on both sides.
fn fill(connection: &mut Connection, job: &str, tasks: u64) -> Result<(), Failure> {
    for statement in [
        format!("DELETE FROM plain_task WHERE job_id = '{job}'"),
        format!("INSERT INTO plain_job (job_id, total, pending) VALUES ('{job}', {tasks}, {tasks})
             ON CONFLICT (job_id) DO UPDATE SET total = {tasks}, pending = {tasks},
                 running = 0, completed = 0, failed = 0"),
        format!("INSERT INTO plain_task (job_id, task_id)
             SELECT '{job}', 't' || n FROM generate_series(1, {tasks}) n"),
        format!("SELECT state_delete('{job}', class => 'job')"),
        format!(
            "SELECT state_job_create('{job}', (SELECT jsonb_agg('t' || n) FROM generate_series(1, {tasks}) n),
             '{{\"max_attempts\": 2000000000}}')"
        ),
    ] {
        connection.query(&statement)?;
    }
    Ok(())
}

fn tidy(connection: &mut Connection) -> Result<(), Failure> {
    connection.query("VACUUM ANALYZE plain_task, plain_job, state_task, state_head")?;
    Ok(())
}

/// So many tasks of a job changed in one call, beside as many single updates of a table with a counting trigger: a
/// round trip each, and in a function.
pub fn updates(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    connection.query(PLAIN)?;
    connection.query(
        "CREATE TRIGGER plain_count AFTER UPDATE ON plain_task FOR EACH ROW EXECUTE FUNCTION plain_count();
         CREATE FUNCTION pg_temp.single(wanted text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
             FOR n IN 1 .. 1000 LOOP
                 UPDATE plain_task SET status = wanted WHERE job_id = 'updated' AND task_id = 't' || n;
             END LOOP;
         END $$",
    )?;
    fill(connection, "updated", UPDATES)?;
    for (name, sql) in [
        (
            "call",
            "SELECT count(*) FROM state_job_update_tasks('updated', $1)",
        ),
        (
            "single",
            "UPDATE plain_task SET status = $1 WHERE job_id = 'updated' AND task_id = $2",
        ),
    ] {
        connection.prepare(name, sql)?;
    }
    // Each side has its own tasks: it starts them, then has them wait again.
    let mut made = [0_u64; 3];
    let rounds = plan.alternate([Side::Cached, Side::Plain, Side::Control], |side| {
        tidy(connection)?;
        let place = match side {
            Side::Cached => 0,
            Side::Plain | Side::Control => 1,
        };
        let started = Instant::now();
        for _ in 0..2 {
            let status = ["running", "pending"][(made[place] % 2) as usize];
            made[place] += 1;
            match side {
                Side::Cached => {
                    let updates: Vec<String> = (1..=UPDATES)
                        .map(|n| format!("{{\"task_id\":\"t{n}\",\"status\":\"{status}\"}}"))
                        .collect();
                    connection.execute("call", &[&format!("[{}]", updates.join(","))])?;
                }
                Side::Plain => {
                    connection.query("BEGIN")?;
                    for n in 1..=UPDATES {
                        connection.execute("single", &[status, &format!("t{n}")])?;
                    }
                    connection.query("COMMIT")?;
                }
                Side::Control => {
                    connection.query(&format!("SELECT pg_temp.single('{status}')"))?;
                }
            }
        }
        Ok(Cost {
            done: 2.0,
            seconds: started.elapsed().as_secs_f64(),
            wal: 0.0,
        })
    })?;
    let wrong: u64 = connection.value("SELECT count(*) FROM state_job_verify('updated')")?;
    let calls: u64 = connection.value("SELECT state_version('updated', 'job') - 1")?;
    if wrong > 0 || calls < made[0] {
        return Err(format!(
            "{wrong} jobs are wrong, {calls} of {} calls made a version",
            made[0]
        )
        .into());
    }
    let measured = format!("{UPDATES} task updates in one call");
    let row = |against: &str, target, sides| {
        Comparison {
            measured: measured.clone(),
            against: against.to_owned(),
            target,
            sides,
        }
        .by_time(&rounds)
    };
    Ok(vec![
        row(
            "as many `UPDATE`s in one transaction, with a counting trigger",
            Target::AtLeast(3.0),
            [0, 1],
        ),
        row(
            "the same `UPDATE`s in a loop on the server",
            Target::None,
            [0, 2],
        ),
    ])
}

/// The summary of a large job polled by many sessions.
pub fn polling(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    connection.query(PLAIN)?;
    fill(connection, "polled", TASKS)?;
    connection.query(
        "UPDATE plain_task SET status = 'completed' WHERE place % 3 = 0;
         UPDATE state_task SET status = 'completed' WHERE job_id = 'polled' AND position % 3 = 0",
    )?;
    tidy(connection)?;
    // The statements of all sides in each session: more sessions than these a server does not take.
    let mut crew = Crew::connect(
        POLLERS,
        &[
            ("summary", "SELECT state_job_summary($1)"),
            (
                "count",
                "SELECT count(*), count(*) FILTER (WHERE status = 'pending'),
                     count(*) FILTER (WHERE status = 'running'),
                     count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed')
                 FROM plain_task WHERE job_id = $1",
            ),
            (
                "counter",
                "SELECT total, pending, running, completed, failed FROM plain_job WHERE job_id = $1",
            ),
        ],
    )?;
    let rounds = plan.alternate(["summary", "count", "counter"], |statement: &str| {
        crew.work(Until::Elapsed(plan.turn), |client| {
            client.connection.execute(statement, &["polled"])?;
            Ok(())
        })
    })?;
    let measured = format!("summary of a job of {TASKS} tasks, {POLLERS} sessions polling");
    let row = |against: &str, target, sides| {
        Comparison {
            measured: measured.clone(),
            against: against.to_owned(),
            target: Target::AtLeast(target),
            sides,
        }
        .by_rate(&rounds)
    };
    Ok(vec![
        row(
            "`SELECT count(*) FILTER …` over the indexed tasks",
            200.0,
            [0, 1],
        ),
        row("a hand-kept counter row by primary key", 1.3, [0, 2]),
    ])
}

/// Workers that take tasks and finish them, ten at a time.
pub fn workers(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    connection.query(PLAIN)?;
    let mut cached = Crew::connect(
        CLIENTS,
        &[(
            "finish",
            "SELECT count(*) FROM state_job_update_tasks($1, $2)",
        )],
    )?;
    let mut plain = Crew::connect(
        CLIENTS,
        &[(
            "finish",
            "UPDATE plain_task SET status = 'completed', result = '1' WHERE place = ANY ($1::bigint[])",
        )],
    )?;
    // Twice as many as are taken: no worker looks for the last ones.
    let tasks = 2 * CLIENTS as u64 * BATCHES * BATCH / JOBS;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        for job in 0..JOBS {
            fill(connection, &format!("worked-{job}"), tasks)?;
        }
        tidy(connection)?;
        match side {
            Side::Cached => cached.work(Until::Done(BATCHES), |client| {
                let taken = client.connection.query(&format!(
                    "SELECT job_id, task_id, token FROM state_job_claim_tasks('any', {BATCH}, '1 hour')
                     ORDER BY job_id"
                ))?;
                for of_job in taken.chunk_by(|one, other| one[0] == other[0]) {
                    let text = |row: usize, column: usize| of_job[row][column].as_deref().unwrap_or_default();
                    let updates: Vec<String> = (0..of_job.len())
                        .map(|row| {
                            format!(
                                "{{\"task_id\":\"{}\",\"status\":\"completed\",\"result\":1,\"token\":{}}}",
                                text(row, 1),
                                text(row, 2)
                            )
                        })
                        .collect();
                    let updates = format!("[{}]", updates.join(","));
                    client.connection.execute("finish", &[text(0, 0), &updates])?;
                }
                Ok(())
            }),
            _ => plain.work(Until::Done(BATCHES), |client| {
                let taken = client.connection.query(&format!(
                    "UPDATE plain_task SET status = 'running' WHERE place IN (SELECT place FROM plain_task
                     WHERE status = 'pending' ORDER BY place LIMIT {BATCH} FOR UPDATE SKIP LOCKED) RETURNING place"
                ))?;
                let places: Vec<&str> = taken
                    .iter()
                    .map(|row| row[0].as_deref().unwrap_or_default())
                    .collect();
                client.connection.execute("finish", &[&format!("{{{}}}", places.join(","))])?;
                Ok(())
            }),
        }
    })?;
    Ok(vec![
        Comparison {
            measured: format!(
                "claim and complete of tasks, {CLIENTS} workers, batches of {BATCH}, {JOBS} jobs"
            ),
            against: "the same with `FOR UPDATE SKIP LOCKED` on a plain table".to_owned(),
            target: Target::AtLeast(0.7),
            sides: [0, 1],
        }
        .by_rate(&rounds),
    ])
}
