//! Purges and copies amid crashes and beside writers: all of one or nothing, and what is purged never comes back.

use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, code, inconsistencies};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Makes state `key` with `count` versions of a tag that share most of themselves, payloads and a log.
const FILL: &str = "CREATE FUNCTION fill(key text, count integer, tag text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        FOR n IN 1..count LOOP
            PERFORM state_save(key, jsonb_build_object('tags', jsonb_build_array(tag), 'n', n,
                'text', repeat('word ', 200)), label => tag || n,
                payload => convert_to(repeat('word ', 200) || n, 'UTF8'), class => 'kept');
            PERFORM state_log_append(key, jsonb_build_array(tag), ids => ARRAY[tag || n], class => 'kept');
        END LOOP;
    END $$;
    SELECT state_class_define('kept', keep => 0)";

/// What `state_verify` finds in class `kept`.
fn findings(client: &mut Client) -> Vec<Vec<String>> {
    client.rows("SELECT key, version, fault FROM state_verify('kept')")
}

/// The states of class `kept` that are there, each with the tags of its versions and of its log.
fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let rows = client.rows(
        "SELECT k.key, (SELECT string_agg(l.state -> 'tags' ->> 0 || right(convert_from(l.payload, 'UTF8'), 1), ' '
                ORDER BY l.version) FROM state_list(k.key, class => 'kept') l),
            (SELECT string_agg(l.entry #>> '{}', ' ' ORDER BY l.number) FROM state_log(k.key, class => 'kept') l)
         FROM state_keys(class => 'kept') k",
    );
    let content = |row: Vec<String>| (row[0].clone(), format!("{} | {}", row[1], row[2]));
    rows.into_iter().map(content).collect()
}

/// Kills the backend at each point of the commit of a statement: before the commit record nothing has happened, after
/// it all has.
fn killed_at_each_point(statement: &str) {
    let server = Server::new(&["fsync = on"]);
    server.connect().run(FILL);
    for (point, is_done) in [("after_flush", false), ("marked", false), ("visible", true)] {
        let mut client = server.connect();
        client.run("SELECT state_purge(prefix => '', class => 'kept')");
        client.run("SELECT fill('t/1', 3, 'a'), fill('t/2', 3, 'b')");
        let before = contents(&mut client);
        client.run(&format!("BEGIN; {statement}"));
        let after = contents(&mut client);
        assert_ne!(before, after);
        client.run("ROLLBACK");
        assert_eq!(contents(&mut client), before, "{point}");

        let times_up = server.times_up();
        client.run(&format!(
            "BEGIN; SET LOCAL state_cache.test_kill_at = '{point}'"
        ));
        assert_eq!(
            client.error(&format!("{statement}; COMMIT")),
            "connection lost",
            "{point}"
        );
        server.await_recovery(times_up);
        let mut client = server.connect();
        let wanted = if is_done { after } else { before };
        assert_eq!(contents(&mut client), wanted, "{point}");
        assert_eq!(findings(&mut client), Vec::<Vec<String>>::new(), "{point}");
        assert_eq!(
            inconsistencies(&mut client),
            Vec::<Vec<String>>::new(),
            "{point}"
        );
    }
}

#[test]
fn a_purge_whose_backend_is_killed_has_erased_all_or_nothing() {
    killed_at_each_point("SELECT state_purge(prefix => 't/', class => 'kept')");
}

#[test]
fn a_purge_of_versions_whose_backend_is_killed_has_erased_all_or_nothing() {
    // Numbers go on where a state was purged before.
    killed_at_each_point(
        "SELECT state_purge('{t/1}', versions => (SELECT array_agg(version) FROM state_list('t/1', class => 'kept')
            WHERE label <> 'a2'), class => 'kept')",
    );
}

#[test]
fn a_copy_whose_backend_is_killed_has_copied_all_or_nothing() {
    // A copy writes rows as somebody would by hand; what else the transaction changes flushes and marks.
    killed_at_each_point(
        "SELECT state_copy('t/', 'copy/', 'kept'), state_put('t/3', '{\"tags\": [\"c\"]}', class => 'kept')",
    );
}

/// What a writer of the crash loop has last asked for, in words that its states can be compared with.
#[derive(Default)]
struct Step {
    acknowledged: BTreeMap<String, String>,
    asked: Option<BTreeMap<String, String>>,
}

/// Fills, copies and purges the states of one writer until the connection is lost.
fn work(server: &Server, writer: usize, seed: u64, step: &Mutex<Step>, done: &AtomicUsize) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    let mut dice = Dice::new(seed);
    let versions = |tag: &str, count: u64| {
        let each: Vec<_> = (1..=count).map(|n| format!("{tag}{n}")).collect();
        let entries = vec![tag; count as usize];
        format!("{} | {}", each.join(" "), entries.join(" "))
    };
    loop {
        let mut next = step.lock().unwrap().acknowledged.clone();
        let (from, to) = (format!("{writer}/a"), format!("{writer}/b"));
        let statement = match (next.contains_key(&from), next.contains_key(&to)) {
            (false, _) => {
                let (count, tag) = (1 + dice.roll(5), format!("t{}", dice.roll(1000)));
                next.insert(from.clone(), versions(&tag, count));
                format!("SELECT fill('{from}', {count}, '{tag}')")
            }
            (true, false) => {
                next.insert(to.clone(), next[&from].clone());
                format!("SELECT state_copy('{from}', '{to}', 'kept')")
            }
            (true, true) if dice.roll(2) == 0 => {
                next.clear();
                format!("SELECT state_purge(prefix => '{writer}/', class => 'kept')")
            }
            (true, true) => {
                next.remove(&from);
                format!("SELECT state_purge('{{{from}}}', class => 'kept')")
            }
        };
        step.lock().unwrap().asked = Some(next.clone());
        if client.batch_execute(&statement).is_err() {
            return;
        }
        *step.lock().unwrap() = Step {
            acknowledged: next,
            asked: None,
        };
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sessions fill, copy and purge while the server is killed: what was acknowledged is so afterwards, and of what was
/// not, all or nothing.
#[test]
fn crashes_leave_no_purge_and_no_copy_half_done() {
    const WRITERS: usize = 3;
    const ROUNDS: u64 = 3;
    const STEPS: usize = 60;
    let server = Server::new(&["fsync = on"]);
    server.connect().run(FILL);
    let steps: Vec<Mutex<Step>> = (0..WRITERS).map(|_| Mutex::default()).collect();
    for round in 0..ROUNDS {
        let done = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for (writer, step) in steps.iter().enumerate() {
                let (server, done) = (&server, &done);
                let seed = round * WRITERS as u64 + writer as u64;
                threads.spawn(move || work(server, writer, seed, step, done));
            }
            state_cache_server_tests::eventually("some steps to be done", || {
                done.load(Ordering::SeqCst) >= STEPS
            });
            server.kill_everything();
        });
        server.start();
        let mut client = server.connect();
        let found = contents(&mut client);
        for (writer, step) in steps.iter().enumerate() {
            let mut step = step.lock().unwrap();
            let prefix = format!("{writer}/");
            let own = found.iter().filter(|(key, _)| key.starts_with(&prefix));
            let own: BTreeMap<_, _> = own.map(|(key, it)| (key.clone(), it.clone())).collect();
            assert!(
                own == step.acknowledged || Some(&own) == step.asked.as_ref(),
                "{own:?} is neither {:?} nor {:?}",
                step.acknowledged,
                step.asked
            );
            *step = Step {
                acknowledged: own,
                asked: None,
            };
        }
        assert_eq!(findings(&mut client), Vec::<Vec<String>>::new());
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
}

/// Tags that writers have put into the document of a state, by state.
type Tags = Mutex<BTreeMap<usize, BTreeSet<i64>>>;

/// All tags that any function shows of a state.
fn shown(client: &mut Client, key: &str) -> BTreeSet<i64> {
    let rows = client.rows(&format!(
        "SELECT DISTINCT tag FROM (
            SELECT state FROM state_list('{key}', class => 'raced')
            UNION ALL SELECT state_at('{key}', version, 'raced') FROM state_history('{key}', 'raced')
            UNION ALL SELECT state_get('{key}', 'raced')
            UNION ALL SELECT jsonb_build_object('tags', jsonb_build_array(entry))
                FROM state_log('{key}', class => 'raced')) s,
         jsonb_array_elements_text(state -> 'tags') tag"
    ));
    rows.iter().map(|row| row[0].parse().unwrap()).collect()
}

/// Writers put, append and merge, while others purge: a purge leaves nothing acknowledged before the purge,
/// nor does any of that come back; nobody fails but by conflicts, and nothing is damaged.
#[test]
fn what_is_purged_beside_writers_never_comes_back() {
    const KEYS: u64 = 3;
    const PUTS: usize = 250;
    const PURGES: usize = 120;
    let server = Server::new(&["fsync = off"]);
    server
        .connect()
        .run("SELECT state_class_define('raced', keep => 0)");
    let (acknowledged, erased) = (Tags::default(), Tags::default());
    let next = AtomicI64::new(1);
    let may_fail = |result: Result<(), postgres::Error>| match result {
        Ok(()) => true,
        Err(error) => {
            let code = code(&error);
            assert!(["40001", "40P01"].contains(&code.as_str()), "{error:?}");
            false
        }
    };
    std::thread::scope(|threads| {
        let (server, next) = (&server, &next);
        let (acknowledged, erased) = (&acknowledged, &erased);
        for writer in 0..3 {
            threads.spawn(move || {
                let (mut client, mut dice) = (server.connect(), Dice::new(writer));
                for _ in 0..PUTS {
                    let (key, tag) = (dice.roll(KEYS), next.fetch_add(1, Ordering::SeqCst));
                    let document = format!(
                        "jsonb_build_object('tags', jsonb_build_array({tag}), 'text', repeat('word ', 200))"
                    );
                    let put = match dice.roll(5) {
                        0 => format!("state_put('{key}', {document}, class => 'raced')"),
                        1 => format!(
                            "state_append('{key}', '{{tags}}', '{tag}', \"create\" => true, class => 'raced')"
                        ),
                        2 => format!("state_merge('{key}', {document}, class => 'raced')"),
                        3 => format!("state_log_append('{key}', '[{tag}]', class => 'raced')"),
                        _ => format!(
                            "state_save('{key}', {document}, payload => convert_to(repeat('word ', 200) || {tag}, \
                            'UTF8'), class => 'raced')"
                        ),
                    };
                    if may_fail(client.batch_execute(&format!("SELECT {put}"))) {
                        let mut acknowledged = acknowledged.lock().unwrap();
                        acknowledged.entry(key as usize).or_default().insert(tag);
                    }
                }
            });
        }
        for purger in 0..2 {
            threads.spawn(move || {
                let (mut client, mut dice) = (server.connect(), Dice::new(100 + purger));
                for _ in 0..PURGES {
                    let key = dice.roll(KEYS) as usize;
                    let before = acknowledged.lock().unwrap().get(&key).cloned();
                    let before = before.unwrap_or_default();
                    let whole = dice.roll(3) > 0;
                    let what = if whole { "" } else { ", keep => 2" };
                    let sql = format!("SELECT state_purge('{{{key}}}'{what}, class => 'raced')");
                    if !may_fail(client.batch_execute(&sql)) || !whole {
                        continue;
                    }
                    erased
                        .lock()
                        .unwrap()
                        .entry(key)
                        .or_default()
                        .extend(&before);
                    let shown = shown(&mut client, &key.to_string());
                    let back: Vec<_> = shown.intersection(&before).collect();
                    assert!(back.is_empty(), "{key}: {back:?} are back");
                }
            });
        }
    });
    let mut client = server.connect();
    let mut count = 0;
    for (key, erased) in &*erased.lock().unwrap() {
        let shown = shown(&mut client, &key.to_string());
        let back: Vec<_> = shown.intersection(erased).collect();
        assert!(back.is_empty(), "{key}: {back:?} are back");
        count += erased.len();
    }
    assert!(count > 0, "nothing was purged");
    assert_eq!(
        client.rows("SELECT key, version, fault FROM state_verify('raced')"),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}
