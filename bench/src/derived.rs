//! Documents that a query computes, beside the query itself; and what watches cost those who write.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::crew::{CLIENTS, Client, Crew, Until};
use crate::loops::{create_loop, run_loop};
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::Connection;

/// Rows of the watched tables that the reads are about.
const ROWS: u64 = 1000;
/// Rows that one statement changes.
const BULK: u64 = 100_000;
/// Sessions that poll one computed value.
const POLLING: usize = 64;

/// The tables of a run platform: settings, teams with members, chats. A document of one row is 1 KB, one of the join
/// 5 KB.
const TABLES: &str = "
    DROP TABLE IF EXISTS derived_settings, derived_teams, derived_users, derived_members, derived_chats;
    CREATE TABLE derived_settings (name text PRIMARY KEY, value jsonb);
    CREATE TABLE derived_teams (id bigint PRIMARY KEY, name text);
    CREATE TABLE derived_users (id bigint PRIMARY KEY, name text, config jsonb);
    CREATE TABLE derived_members (team_id bigint, user_id bigint, role text, PRIMARY KEY (team_id, user_id));
    CREATE TABLE derived_chats (id bigint PRIMARY KEY, team_id bigint, title text);
    INSERT INTO derived_settings VALUES ('model', '\"small\"');
    INSERT INTO derived_teams SELECT n, 'team ' || n FROM generate_series(1, 1000) n;
    INSERT INTO derived_users SELECT n, 'user ' || n, (SELECT jsonb_object_agg('key-' || m, md5(m::text || n))
        FROM generate_series(1, 20) m) FROM generate_series(1, 1000) n;
    INSERT INTO derived_members SELECT n, (n + m * 37) % 1000 + 1, 'member' FROM generate_series(1, 1000) n,
        generate_series(1, 5) m;
    INSERT INTO derived_chats SELECT n, n, 'chat ' || n FROM generate_series(1, 1000) n;
    ANALYZE derived_settings, derived_teams, derived_users, derived_members, derived_chats";

/// One row by its key.
const ONE: &str = "SELECT to_jsonb(u) FROM derived_users u WHERE u.id = $1::bigint";

/// A chat with its team, the members of that, and a setting.
const JOIN: &str = "SELECT jsonb_build_object('title', c.title, 'team', t.name, 'model',
        (SELECT value FROM derived_settings WHERE name = 'model'), 'members', (SELECT jsonb_agg(jsonb_build_object(
        'name', u.name, 'role', m.role, 'config', u.config) ORDER BY u.id) FROM derived_members m
        JOIN derived_users u ON u.id = m.user_id WHERE m.team_id = t.id))
    FROM derived_chats c JOIN derived_teams t ON t.id = c.team_id WHERE c.id = $1::bigint";

/// Makes the tables, and the classes over them, exact.
fn define(connection: &mut Connection) -> Result<(), Failure> {
    connection.query(TABLES)?;
    connection.query(&format!(
        "SELECT state_class_define('derived-one', cache_ttl => '1 day', source => $source${ONE}$source$),
                state_class_define('derived-join', cache_ttl => '1 day', source => $source${JOIN}$source$)"
    ))?;
    connection.query(
        "SELECT state_watch('derived-one', 'derived_users', 'id'), state_watch('derived-join', 'derived_chats', 'id'),
                state_watch('derived-join', 'derived_teams'), state_watch('derived-join', 'derived_members'),
                state_watch('derived-join', 'derived_users'), state_watch('derived-join', 'derived_settings')",
    )?;
    connection.query(
        "SELECT state_class_define('derived-one', cache_ttl => '0'), state_class_define('derived-join',
             cache_ttl => '0')",
    )?;
    Ok(())
}

/// A hit in a server-side loop, against the query in the same loop.
fn in_loop(
    connection: &mut Connection,
    plan: &Plan,
    (class, source, what): (&str, &str, &str),
    target: f64,
) -> Result<Row, Failure> {
    let cached = format!("v := state_get(k, '{class}');");
    create_loop(connection, "cached", "7", "", &cached)?;
    // In PL/pgSQL the key is a variable.
    let query = source.replacen("FROM", "INTO v FROM", 1).replace("$1", "k");
    let query = match class {
        "derived-one" => query,
        _ => format!("v := ({})", source.replace("$1", "k")),
    };
    create_loop(connection, "plain", "7", "", &format!("{query};"))?;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        run_loop(connection, side, plan.turn)
    })?;
    Ok(Comparison {
        measured: format!("`state_get` of a derived document, {what}, hit, server-side loop"),
        against: "the query itself".to_owned(),
        target: Target::AtLeast(target),
        sides: [0, 1],
    }
    .by_time(&rounds))
}

/// Hits in loops and over the wire.
pub fn reads(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    define(connection)?;
    let one = in_loop(
        connection,
        plan,
        ("derived-one", ONE, "one row of 1 KB"),
        6.0,
    )?;
    let join = in_loop(
        connection,
        plan,
        ("derived-join", JOIN, "a join of 5 KB"),
        30.0,
    )?;
    let mut crew = Crew::connect(
        CLIENTS,
        &[
            ("cached", "SELECT state_get_text($1, 'derived-join')"),
            ("plain", &JOIN.replace("$1", "$1::text")),
        ],
    )?;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        let statement = match side {
            Side::Cached => "cached",
            _ => "plain",
        };
        crew.work(Until::Elapsed(plan.turn), |client| {
            let key = (client.number() * 7 % ROWS + 1).to_string();
            match client.connection.execute(statement, &[&key])? {
                0..1000 => Err("a read has found no document".into()),
                _ => Ok(()),
            }
        })
    })?;
    let wire = Comparison {
        measured: format!("the same join over the wire, {CLIENTS} clients"),
        against: "the query itself".to_owned(),
        target: Target::AtLeast(3.0),
        sides: [0, 1],
    };
    Ok(vec![one, join, wire.by_rate(&rounds)])
}

/// Changes of a watched table, against the same ones of a table that nobody watches.
pub fn writes(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    connection.query(&format!(
        "DROP TABLE IF EXISTS derived_watched, derived_unwatched;
         CREATE TABLE derived_watched (id bigint PRIMARY KEY, n bigint, v text) WITH (fillfactor = 50);
         CREATE TABLE derived_unwatched (id bigint PRIMARY KEY, n bigint, v text) WITH (fillfactor = 50);
         INSERT INTO derived_watched SELECT g, 0, md5(g::text) FROM generate_series(1, {BULK}) g;
         INSERT INTO derived_unwatched SELECT * FROM derived_watched;
         SELECT state_class_define('derived-watched', cache_ttl => '1 day', source =>
             'SELECT to_jsonb(w) FROM derived_watched w WHERE w.id = $1::bigint')"
    ))?;
    connection.query("SELECT state_watch('derived-watched', 'derived_watched', 'id')")?;
    connection.query("VACUUM ANALYZE derived_watched, derived_unwatched")?;
    let update = |table: &str| format!("UPDATE {table} SET n = n + 1 WHERE id = $1::text::bigint");
    let mut crew = Crew::connect(
        CLIENTS,
        &[
            ("cached", &update("derived_watched")),
            (
                "plain",
                "WITH told AS (SELECT pg_notify('plain', $1::text)) UPDATE derived_unwatched SET n = n + 1
                     WHERE id = $1::text::bigint AND EXISTS (SELECT FROM told)",
            ),
        ],
    )?;
    // Both sides tell with the commit.
    crew.query("SET state_cache.notify = 'commit'")?;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        let statement = match side {
            Side::Cached => "cached",
            _ => "plain",
        };
        crew.work(Until::Elapsed(plan.turn), |client: &mut Client| {
            // Each client has rows of its own.
            let key = (client.number() * 7 % 1000 * CLIENTS as u64 + place(client)).to_string();
            client.connection.execute(statement, &[&key]).map(drop)
        })
    })?;
    let single = Comparison {
        measured: format!(
            "UPDATE of one row of a watched table, `notify` = commit, {CLIENTS} clients"
        ),
        against: "of a table that nobody watches, with a NOTIFY".to_owned(),
        target: Target::AtLeast(0.9),
        sides: [0, 1],
    }
    .by_rate(&rounds);
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        let table = match side {
            Side::Cached => "derived_watched",
            _ => "derived_unwatched",
        };
        let started = Instant::now();
        connection.query(&format!("UPDATE {table} SET n = n + 1"))?;
        let seconds = started.elapsed().as_secs_f64();
        connection.query(&format!("VACUUM {table}"))?;
        Ok(Cost {
            done: BULK as f64,
            seconds,
            wal: 0.0,
        })
    })?;
    let bulk = Comparison {
        measured: format!("UPDATE of {BULK} rows of a watched table in one statement"),
        against: "of a table that nobody watches".to_owned(),
        target: Target::AtLeast(0.6),
        sides: [0, 1],
    };
    Ok(vec![single, bulk.by_rate(&rounds)])
}

/// A number from 1 to [`CLIENTS`] that no other client has.
fn place(client: &Client) -> u64 {
    let number = client.key_name().split('-').nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// How often a value is computed that many sessions poll and that may be a second old.
pub fn polling(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    define(connection)?;
    connection.query(
        "SELECT state_class_define('derived-polled', cache_ttl => '1 second', source =>
             'SELECT jsonb_build_object(''users'', count(*), ''time'', now()) FROM derived_users')",
    )?;
    let evaluations = "SELECT evaluations FROM state_cache_stats WHERE class = 'derived-polled'";
    let mut crew = Crew::connect(
        POLLING,
        &[("cached", "SELECT state_get_text($1, 'derived-polled')")],
    )?;
    let mut figures = Vec::new();
    let (mut polls, mut computed) = (0.0, 0.0);
    for _ in 0..plan.rounds {
        let before: f64 = connection.value(evaluations).unwrap_or(0.0);
        let cost = crew.work(Until::Elapsed(Duration::from_secs(5)), |client| {
            client.connection.execute("cached", &["one"])?;
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        })?;
        let times = connection.value::<f64>(evaluations)? - before;
        figures.push(cost.done / times.max(1.0));
        polls += cost.done;
        computed += times;
    }
    Ok(vec![Row {
        measured: format!("{POLLING} sessions poll one computed value that is up to a second old"),
        against: "each computes it".to_owned(),
        target: Target::AtLeast(50.0),
        unit: crate::report::Unit::Times,
        figures,
        sides: format!("{computed:.0} evaluations for {polls:.0} polls"),
    }])
}
