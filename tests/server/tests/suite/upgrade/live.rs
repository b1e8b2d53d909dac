//! The step beside sessions that write and read.

use super::{installed, old_installation, server};
use postgres::Client;
use state_cache_server_tests::{Server, Sql, code, eventually, inconsistencies};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

const SESSIONS: usize = 4;

/// What each session has done so far.
#[derive(Default)]
struct Progress {
    rounds: [AtomicU64; SESSIONS],
    counted: AtomicU64,
    spent: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Waits until every session has done so many rounds more.
    fn await_more(&self, more: u64) {
        let rounds = || self.rounds.each_ref().map(|rounds| rounds.load(SeqCst));
        let before = rounds();
        eventually("the sessions to go on", || {
            rounds()
                .iter()
                .zip(before)
                .all(|(now, before)| *now >= before + more)
        });
    }
}

/// One transaction, again until it is through: others may be faster.
fn through(client: &mut Client, sql: &str) {
    while let Err(error) = client.batch_execute(sql) {
        let code = code(&error);
        assert!(["40001", "40P01"].contains(&code.as_str()), "{error:?}");
        client.run("ROLLBACK");
    }
}

/// Counts states up, of a class that is written through and of one that is left to the worker, and spends money.
fn session(server: &Server, n: usize, progress: &Progress) {
    let mut client = server.connect_to("live");
    client.run("PREPARE look AS SELECT state_get('counter'), state_get('counter', 'left')");
    let mut last = 0;
    while !progress.stop.load(SeqCst) {
        through(
            &mut client,
            "BEGIN ISOLATION LEVEL REPEATABLE READ;
             SELECT state_set('counter', to_jsonb((state_get('counter'))::bigint + 1),
                 expected_version => state_version('counter')); COMMIT",
        );
        progress.counted.fetch_add(1, SeqCst);
        let now = client.rows("EXECUTE look")[0][0].parse::<i64>().unwrap();
        assert!(now > last, "{now} after {last}");
        last = now;
        let round = progress.rounds[n].load(SeqCst);
        through(
            &mut client,
            &format!(
                "BEGIN; SELECT state_batch_begin('reapply');
                 SELECT state_set('own {n}', to_jsonb({round}), class => 'left'), state_save('kept {n}', \
                     to_jsonb({round}));
                 SELECT state_batch_commit(); COMMIT"
            ),
        );
        through(
            &mut client,
            &format!("SELECT state_budget_reserve('b', 'a', 1, 'h {n} {round}')"),
        );
        through(
            &mut client,
            &format!("SELECT state_budget_settle('h {n} {round}', 1)"),
        );
        progress.spent.fetch_add(1, SeqCst);
        progress.rounds[n].fetch_add(1, SeqCst);
    }
}

#[test]
fn sessions_write_and_read_on_while_an_installation_is_updated() {
    let server = server(&["state_cache.flush_interval = '10ms'"]);
    let mut admin = old_installation(&server, "live");
    admin.run(
        "SELECT state_class_define('left', write_mode => 'behind'), state_set('counter', '0'),
             state_budget_define('b', 1000000, 'USD', agents => '{\"a\": {}}')",
    );
    admin.run("SELECT state_set('counter', '0', class => 'left')");
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|n| {
                let (server, progress) = (&server, &progress);
                scope.spawn(move || session(server, n, progress))
            })
            .collect();
        // Whatever fails here, the sessions end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            progress.await_more(10);
            admin.run("BEGIN; ALTER EXTENSION state_cache UPDATE; ROLLBACK");
            progress.await_more(10);
            admin.run("ALTER EXTENSION state_cache UPDATE");
            progress.await_more(10);
        }));
        progress.stop.store(true, SeqCst);
        for session in sessions {
            session.join().unwrap();
        }
        outcome.unwrap();
    });
    assert_eq!(
        installed(&mut admin),
        admin.text("SELECT state_cache_version()")
    );
    let counted = progress.counted.load(SeqCst).to_string();
    assert_eq!(admin.text("SELECT state_get('counter')"), counted);
    let spent = progress.spent.load(SeqCst).to_string();
    assert_eq!(
        admin.text("SELECT sum(spent)::bigint FROM state_budget_account WHERE agent = ''"),
        spent
    );
    for (n, rounds) in progress.rounds.iter().enumerate() {
        let last = (rounds.load(SeqCst) - 1).to_string();
        assert_eq!(
            admin.rows(&format!(
                "SELECT state_get('own {n}', 'left'), state_get('kept {n}')"
            )),
            [[last.clone(), last]]
        );
    }
    // The worker has changed over: it writes what is left to it now.
    eventually("the worker to write", || {
        admin.number("SELECT count(*) FROM state_cache_unwritten") == 0
    });
    assert_eq!(
        admin.rows("SELECT * FROM state_verify()"),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(inconsistencies(&mut admin), Vec::<Vec<String>>::new());
}
