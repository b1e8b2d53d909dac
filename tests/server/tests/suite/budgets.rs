//! Budgets under load: sessions that reserve, settle, void and record while backends are killed, whose ledger is
//! added up afterwards; and budgets that go elsewhere, by a dump and by logical replication.

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use state_cache_server_tests::{Dice, Server, Sql, code, eventually, kill};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sessions that act at the same time.
const SESSIONS: u64 = 32;
/// How long they do.
const SECONDS: u64 = 20;
/// Crashes meanwhile.
const CRASHES: usize = 4;

/// Two teams of two jobs each; one team and one job have several shards.
const DEFINE: &str = "
    SELECT state_budget_define('org', 400, 'USD', shards => 4);
    SELECT state_budget_define('team-0', 150, 'USD', 'org', shards => 4),
        state_budget_define('team-1', 350, 'USD', 'org');
    SELECT state_budget_define('job-' || n, 120, 'USD', 'team-' || n % 2, shards => CASE n WHEN 0 THEN 4 ELSE 1 END,
        agents => '{\"a\": {\"limit\": 70}, \"b\": {\"price\": 1.5}}') FROM generate_series(0, 3) n";

/// What a session was told, by the name of a hold or a cost.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Held,
    Settled(String),
    Voided,
    Recorded(String),
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    told: Mutex<BTreeMap<String, Told>>,
    answers: Mutex<BTreeMap<String, u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Shared {
    fn answered(&self, what: &str, answer: &str) {
        *self
            .answers
            .lock()
            .unwrap()
            .entry(format!("{what} {answer}"))
            .or_default() += 1;
    }

    fn tell(&self, name: &str, told: Told) {
        self.told.lock().unwrap().insert(name.to_owned(), told);
    }
}

/// Connects, also while the server recovers.
fn connect(server: &Server) -> Client {
    let start = Instant::now();
    loop {
        match server.try_connect("postgres") {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One session: each step is a transaction; what was acknowledged is told.
fn work(server: &Server, shared: &Shared, number: u64) {
    let mut dice = Dice::new(number + 1);
    let mut client = connect(server);
    let mut open: Vec<String> = Vec::new();
    let mut step = 0;
    while !shared.over.load(Ordering::SeqCst) {
        step += 1;
        let (job, agent) = (dice.roll(4), ["'a'", "'b'", "NULL"][dice.roll(3) as usize]);
        let name = format!("{number}-{step}");
        let amount = format!("{}.{:02}", dice.roll(3), dice.roll(99) + 1);
        let what = dice.roll(10);
        let (kind, sql, about) = match what {
            0..4 => (
                "reserve",
                format!(
                    "SELECT 1 FROM state_budget_reserve('job-{job}', {agent}, {amount}, '{name}', '1 hour')"
                ),
                name,
            ),
            // Nobody settles it: its money comes back by itself.
            4 => (
                "leak",
                format!(
                    "SELECT 1 FROM state_budget_reserve('job-{job}', {agent}, {amount}, ttl => '0.05 s')"
                ),
                name,
            ),
            5..8 if !open.is_empty() => {
                let hold = open[dice.roll(open.len() as u64) as usize].clone();
                // Never more than was held: no budget may be exceeded then.
                let share = ["1", "0.9", "0.5", "0"][dice.roll(4) as usize];
                let actual = format!(
                    "(SELECT amount * {share} FROM state_budget_hold WHERE hold_id = '{hold}')"
                );
                (
                    "settle",
                    format!("SELECT actual FROM state_budget_settle('{hold}', {actual})"),
                    hold,
                )
            }
            8 if !open.is_empty() => {
                let hold = open[dice.roll(open.len() as u64) as usize].clone();
                ("void", format!("SELECT state_budget_void('{hold}')"), hold)
            }
            _ => (
                "look",
                format!(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT b FROM (VALUES ('org'), ('team-{}'), \
                     ('job-{job}')) v (b), state_budget_summary(b) s WHERE (s->>'spent')::numeric <> \
                     (SELECT COALESCE(sum(spent), 0) \
                     FROM state_budget_account WHERE budget = b AND agent = '') OR (s->>'remaining')::numeric < 0; \
                     COMMIT",
                    job % 2
                ),
                name,
            ),
        };
        match client.simple_query(&sql) {
            Ok(messages) => {
                shared.answered(kind, "done");
                let value = messages.iter().find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                match kind {
                    "reserve" => {
                        shared.tell(&about, Told::Held);
                        open.push(about);
                    }
                    "settle" => {
                        shared.tell(&about, Told::Settled(value.unwrap_or_default()));
                        open.retain(|it| *it != about);
                    }
                    "void" => {
                        shared.tell(&about, Told::Voided);
                        open.retain(|it| *it != about);
                    }
                    "look" if value.is_some() => {
                        shared
                            .wrong
                            .lock()
                            .unwrap()
                            .push(format!("{value:?} in {sql}"));
                    }
                    _ => {}
                }
            }
            Err(error) => {
                let code = code(&error);
                shared.answered(kind, &code);
                // Who was not told may have done it all the same: the hold is not named again.
                if code != "53400" {
                    open.retain(|it| *it != about);
                }
                match &*code {
                    "53400" | "40P01" | "40001" => drop(client.batch_execute("ROLLBACK")),
                    "connection lost" | "57P01" | "57P02" | "57P03" => client = connect(server),
                    // Settled or voided by a call whose answer was lost.
                    "55000" => {}
                    _ => shared
                        .wrong
                        .lock()
                        .unwrap()
                        .push(format!("{error:?} for {sql}")),
                }
            }
        }
        if what == 9 && step % 5 == 0 {
            let id = format!("cost-{number}-{step}");
            let sql = format!(
                "SELECT state_budget_record_costs('job-{job}', '[{{\"id\": \"{id}\", \"amount\": 0}}]')"
            );
            if client.simple_query(&sql).is_ok() {
                shared.tell(&id, Told::Recorded("0".to_owned()));
            }
        }
    }
}

/// What the tables say of a name.
fn found(client: &mut Client, name: &str, told: &Told) -> bool {
    match told {
        // Settled or voided since, perhaps by a call whose answer was lost.
        Told::Held => client.flag(&format!("SELECT EXISTS (SELECT FROM state_budget_hold WHERE hold_id = '{name}')")),
        Told::Settled(actual) => client.flag(&format!(
            "SELECT EXISTS (SELECT FROM state_budget_hold WHERE hold_id = '{name}' AND status = 'settled' \
             AND actual = {actual})"
        )),
        Told::Voided => client.flag(&format!(
            "SELECT EXISTS (SELECT FROM state_budget_hold WHERE hold_id = '{name}' AND status = 'voided')"
        )),
        Told::Recorded(actual) => client.flag(&format!(
            "SELECT EXISTS (SELECT FROM state_budget_cost WHERE id = '{name}' AND actual = {actual})"
        )),
    }
}

#[test]
fn the_ledger_adds_up_after_sessions_and_crashes() {
    let server = Server::new(&["deadlock_timeout = '50ms'", "max_connections = 80"]);
    server.connect().run(DEFINE);
    let shared = Shared::default();
    std::thread::scope(|threads| {
        for number in 0..SESSIONS {
            let (server, shared) = (&server, &shared);
            threads.spawn(move || work(server, shared, number));
        }
        let mut dice = Dice::new(99);
        for _ in 0..CRASHES {
            std::thread::sleep(Duration::from_millis(
                1000 * SECONDS / (CRASHES as u64 + 1) - 200 + dice.roll(400),
            ));
            let up = server.times_up();
            let pids = connect(&server).rows(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            );
            if let Some(victim) = pids.get(dice.roll(pids.len().max(1) as u64) as usize) {
                kill(victim[0].parse().unwrap());
                server.await_recovery(up);
            }
        }
        std::thread::sleep(Duration::from_millis(1000 * SECONDS / (CRASHES as u64 + 1)));
        shared.over.store(true, Ordering::SeqCst);
    });
    let answers = shared.answers.into_inner().unwrap();
    println!("{answers:?}");
    assert_eq!(shared.wrong.into_inner().unwrap(), Vec::<String>::new());
    for what in [
        "reserve done",
        "reserve 53400",
        "settle done",
        "void done",
        "look done",
        "leak done",
    ] {
        assert!(answers.contains_key(what), "never: {what}: {answers:?}");
    }
    let mut client = connect(&server);
    // Counters are what holds and costs add up to, in every scope.
    assert_eq!(
        client.rows("SELECT * FROM state_budget_verify()"),
        Vec::<Vec<String>>::new()
    );
    // No cost was above its hold, so no limit is exceeded; children have no more than their parents.
    let exceeded = "SELECT budget, state_budget_summary(budget) FROM state_budget
        WHERE (state_budget_summary(budget)->>'remaining')::numeric < 0
        UNION ALL SELECT 'agent', a FROM state_budget, jsonb_array_elements(state_budget_summary(budget)->'agents') a
        WHERE (a->>'spent')::numeric + (a->>'reserved')::numeric > (a->>'limit')::numeric";
    assert_eq!(client.rows(exceeded), Vec::<Vec<String>>::new());
    let unequal = "SELECT p.budget FROM state_budget p WHERE EXISTS (SELECT FROM state_budget c WHERE c.parent =
        p.budget) AND (state_budget_summary(p.budget)->>'spent')::numeric <>
        (SELECT sum((state_budget_summary(c.budget)->>'spent')::numeric) FROM state_budget c
        WHERE c.parent = p.budget)";
    assert_eq!(client.rows(unequal), Vec::<Vec<String>>::new());
    // What was acknowledged is there.
    let told = shared.told.into_inner().unwrap();
    assert!(told.len() > 500, "{}", told.len());
    for (name, told) in &told {
        assert!(found(&mut client, name, told), "{name} is not {told:?}");
    }
    // What nobody settles comes back by itself, and the worker takes it out.
    eventually("expired holds to be taken out", || {
        client.flag("SELECT NOT EXISTS (SELECT FROM state_budget_hold WHERE status = 'held' AND expires_at < now())")
    });
    assert_eq!(
        client.rows("SELECT * FROM state_budget_verify()"),
        Vec::<Vec<String>>::new()
    );
    // The check notices what is missing.
    client.run(
        "DELETE FROM state_budget_hold WHERE hold_id = (SELECT hold_id FROM state_budget_hold
        WHERE actual > 0 LIMIT 1)",
    );
    assert!(client.number("SELECT count(*) FROM state_budget_verify()") >= 3);
}

/// Something of every kind.
const FILL: &str = "
    SELECT state_budget_define('org', 100, 'USD', period => 'year');
    SELECT state_budget_define('job', 50, 'USD', 'org', '{\"a\": {\"limit\": 20, \"price\": 2}}', soft_limit => 5,
        shards => 2);
    SELECT state_budget_reserve('job', 'a', hold_id => 'open'),
        state_budget_reserve('job', 'a', 3, hold_id => 'done'),
        state_budget_reserve('job', NULL, 1, hold_id => 'gone');
    SELECT state_budget_settle('done', 9), state_budget_void('gone'),
        state_budget_record_costs('job', '[{\"id\": \"c\", \"amount\": 0.5, \"metadata\": {\"x\": 1}}]');
    INSERT INTO state_budget_pruned VALUES ('job', '', '-infinity', 1, 0, 1, 0, 1)";

/// What all tables say.
const SAID: &str = "SELECT (SELECT jsonb_agg(b ORDER BY budget) FROM state_budget b),
    (SELECT jsonb_agg(b ORDER BY agent) FROM state_budget_agent b), (SELECT jsonb_agg(b ORDER BY agent, budget, shard)
    FROM state_budget_account b), (SELECT jsonb_agg(b ORDER BY hold_id) FROM state_budget_hold b),
    (SELECT jsonb_agg(b ORDER BY id) FROM state_budget_cost b), (SELECT jsonb_agg(b ORDER BY agent) FROM
    state_budget_price b), (SELECT jsonb_agg(b ORDER BY budget, agent) FROM state_budget_pruned b),
    (SELECT jsonb_agg(b ORDER BY budget, level) FROM state_budget_reached b),
    state_budget_summary('job'), state_budget_summary('org')";

/// Budgets go on where they are now: nothing is forgotten, and nothing charged twice.
fn go_on(client: &mut Client) {
    assert_eq!(
        client.rows("SELECT * FROM state_budget_verify()"),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(
        client.text("SELECT amount FROM state_budget_reserve('job', 'a', hold_id => 'open')"),
        "2"
    );
    assert_eq!(
        client.error("SELECT state_budget_settle('done', 1)"),
        "55000"
    );
    assert_eq!(
        client.text("SELECT actual FROM state_budget_settle('open', 2)"),
        "2"
    );
    assert_eq!(
        client.error("SELECT state_budget_reserve('job', 'a', 9.000000001)"),
        "53400"
    );
    assert_eq!(
        client.text("SELECT remaining FROM state_budget_reserve('job', 'a', 9, 'last')"),
        "0"
    );
    assert_eq!(
        client.text("SELECT state_budget_summary('org')->'spent'"),
        "11.5"
    );
    assert_eq!(
        client.rows("SELECT * FROM state_budget_verify()"),
        Vec::<Vec<String>>::new()
    );
}

#[test]
fn a_dump_carries_budgets() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(FILL);
    let said = client.rows(SAID);
    let dump = server.run_program("pg_dump", &["-d", "postgres"]);
    client.run("CREATE DATABASE other");
    let file = server.host().join("budgets.sql");
    std::fs::write(&file, dump).unwrap();
    let path = file.display().to_string();
    server.run_program(
        "psql",
        &[
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "other",
            "-f",
            &path,
        ],
    );
    let mut other = server.connect_to("other");
    assert_eq!(other.rows(SAID), said);
    go_on(&mut other);
    assert_eq!(other.number("SELECT count(*) FROM state_protections()"), 0);
}

#[test]
fn a_subscriber_shows_the_budgets_that_it_is_sent() {
    let (source, target) = (Server::new(&["wal_level = logical"]), Server::new(&[]));
    let (mut publisher, mut subscriber) = (source.connect(), target.connect());
    publisher.run(FILL);
    publisher.run(
        "CREATE PUBLICATION budgets FOR TABLE state_budget, state_budget_agent, state_budget_price,
        state_budget_account, state_budget_hold, state_budget_cost, state_budget_pruned, state_budget_reached",
    );
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION budgets CONNECTION 'host={} port=5432 user=postgres dbname=postgres' \
         PUBLICATION budgets",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    assert_eq!(subscriber.rows(SAID), publisher.rows(SAID));
    // L1 of the subscriber follows what it applies.
    for amount in ["0.25", "1", "4"] {
        let record = format!("[{{\"id\": \"n{amount}\", \"amount\": {amount}}}]");
        publisher.run(&format!(
            "SELECT state_budget_record_costs('job', '{record}')"
        ));
        let said = publisher.rows(SAID);
        eventually("the change", || subscriber.rows(SAID) == said);
    }
    publisher.run("SELECT state_budget_settle('open', 3)");
    let said = publisher.rows(SAID);
    eventually("the settlement", || subscriber.rows(SAID) == said);
}

#[test]
fn a_standby_shows_budgets_and_changes_none() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run(FILL);
    let standby = primary.standby();
    let mut reader = standby.connect();
    assert_eq!(reader.rows(SAID), writer.rows(SAID));
    writer.run("SELECT state_budget_settle('open', 3)");
    standby.catch_up_with(&primary);
    assert_eq!(reader.rows(SAID), writer.rows(SAID));
    assert_eq!(
        reader.error("SELECT state_budget_reserve('job', 'a', 1)"),
        "25006"
    );
    assert_eq!(
        reader.error("SELECT state_budget_define('job', 1, 'USD')"),
        "25006"
    );
}

/// Who listens hears of each level once, with the commit.
#[test]
fn a_level_that_is_reached_is_told_once() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_budget_define('b', 10, 'USD', soft_limit => 5, agents => '{\"a\": {\"limit\": 4}}');
        LISTEN budget_reached");
    let charge = |client: &mut Client, id: &str, amount: &str| {
        client.run(&format!(
            "SELECT state_budget_record_costs('b', '[{{\"id\": \"{id}\", \"agent\": \"a\", \"amount\": {amount}}}]')"
        ));
    };
    charge(&mut client, "1", "3.9");
    client.run("BEGIN");
    charge(&mut client, "2", "2");
    client.run("ROLLBACK");
    charge(&mut client, "2", "2");
    charge(&mut client, "3", "1");
    charge(&mut client, "4", "3.1");
    charge(&mut client, "5", "0.1");
    client.run("SELECT state_budget_define('b', 20, 'USD')");
    charge(&mut client, "6", "10");
    let expected = [
        r#"{"budget":"b","agent":"a","reached":"limit","spent":5.9,"limit":4,"soft_limit":null}"#,
        r#"{"budget":"b","agent":"a","reached":"overrun","spent":5.9,"limit":4,"soft_limit":null}"#,
        r#"{"budget":"b","agent":null,"reached":"soft_limit","spent":5.9,"limit":10,"soft_limit":5}"#,
        r#"{"budget":"b","agent":null,"reached":"limit","spent":10,"limit":10,"soft_limit":5}"#,
        r#"{"budget":"b","agent":null,"reached":"overrun","spent":10.1,"limit":10,"soft_limit":5}"#,
        r#"{"budget":"b","agent":null,"reached":"limit","spent":20.1,"limit":20,"soft_limit":5}"#,
        r#"{"budget":"b","agent":null,"reached":"overrun","spent":20.1,"limit":20,"soft_limit":5}"#,
    ];
    let mut told = Vec::new();
    let mut notifications = client.notifications();
    // What is too much comes soon after the others; what is expected may take long on a busy machine.
    while let Ok(Some(message)) = {
        let patience = Duration::from_secs(if told.len() < expected.len() { 60 } else { 2 });
        notifications.timeout_iter(patience).next()
    } {
        told.push(message.payload().to_owned());
    }
    assert_eq!(told, expected);
}
