//! The runners of `docs/clients/runner.md`: what becomes of a run when its runner is killed, and of a runner when
//! another has its run.

use postgres::Client;
use state_cache_clients_tests::{Database, Example, Running};
use state_cache_server_tests::{Sql, code, eventually};

/// The exit status of a runner that has lost its run.
const LOST: i32 = 3;

/// What a thief does with a run that it has claimed, and what the runner says of it.
#[derive(Clone, Copy)]
enum Theft {
    Claimed,
    Completed,
    Deleted,
}

impl Theft {
    /// What the thief does after its claim.
    fn statement(self) -> &'static str {
        match self {
            Self::Claimed => "SELECT state_context_set('r', 'thief', '1')",
            Self::Completed => "SELECT * FROM state_context_complete('r')",
            Self::Deleted => "SELECT state_delete('r')",
        }
    }

    /// What the former owner is told by `state_context_renew`.
    fn reason(self) -> &'static str {
        match self {
            Self::Claimed => "Run \"r\" is owned by \"thief\"",
            Self::Completed => "Run \"r\" has ended: it is completed.",
            Self::Deleted => "Run \"r\" does not exist any more.",
        }
    }
}

/// A database with the run `r`, and a session in it.
fn with_run(name: &str, steps: u32, seconds: f64) -> (Database, Client) {
    let database = Database::create(name);
    let mut session = database.session();
    session.run(&format!(
        "SELECT state_context_create('r', inputs => '{{\"steps\": {steps}, \"seconds\": {seconds}}}')"
    ));
    (database, session)
}

fn runner(example: Example, database: &Database, owner: &str, lease: &str) -> Running {
    let mut command = example.command(database);
    command.args([owner, lease]);
    Running::start(command)
}

/// The numbers of the steps whose results the run holds.
fn results(session: &mut Client) -> String {
    session.text("SELECT state_get_path('r', '{variables,results,value}')")
}

fn all_results(steps: u32) -> String {
    let results: Vec<_> = (1..=steps)
        .map(|step| format!("{{\"step\": {step}}}"))
        .collect();
    format!("[{}]", results.join(", "))
}

fn status_and_owner(session: &mut Client) -> Vec<Vec<String>> {
    session.rows("SELECT status, owner FROM state_context_tree('r')")
}

/// Lets another finish what a killed runner began, each step once.
fn resumes(example: Example, name: &str) {
    let (database, mut session) = with_run(name, 5, 1.0);
    let mut killed = runner(example, &database, "first", "600");
    killed.says("step 2 begins");
    killed.signal("KILL");
    let (_, status) = killed.end();
    assert!(!status.success(), "{status}");
    let done = session.number("SELECT state_get_path('r', '{variables,done,value}')");
    assert!((1..5).contains(&done), "{done}");

    let mut second = runner(example, &database, "second", "3");
    let waits = second.says("waiting: ");
    assert!(waits.contains("r is owned by first"), "{waits}");
    session.run("SELECT state_context_set('r', 'seconds', '0')");
    session.run("UPDATE state_claim SET expires_at = now() WHERE run_id = 'r'");
    assert_eq!(second.says("step "), format!("{} begins", done + 1));
    let (said, status) = second.end();
    assert!(status.success(), "{said:#?}");
    assert!(
        said.ends_with(&["completed r".to_owned(), "nothing to do".to_owned()]),
        "{said:#?}"
    );
    assert_eq!(results(&mut session), all_results(5));

    let (said, status) = runner(example, &database, "third", "3").end();
    assert!(status.success(), "{said:#?}");
    assert_eq!(said, ["nothing to do"]);
}

/// Takes one run after the other, those that wait longest first, and leaves none.
fn takes_all(example: Example, name: &str) {
    let (database, mut session) = with_run(name, 1, 0.0);
    for run in ["q", "p"] {
        session.run(&format!(
            "SELECT state_context_create('{run}', inputs => '{{\"steps\": 1, \"seconds\": 0}}')"
        ));
    }
    let (said, status) = runner(example, &database, "runner", "600").end();
    assert!(status.success(), "{said:#?}");
    let completed: Vec<_> = said
        .iter()
        .filter_map(|line| line.strip_prefix("completed "))
        .collect();
    assert_eq!(completed, ["r", "q", "p"]);
    assert_eq!(
        session.rows("SELECT run_id, status, step FROM state_context_list()"),
        [
            ["p", "completed", "step 2"],
            ["q", "completed", "step 2"],
            ["r", "completed", "step 2"]
        ]
    );
}

/// Takes the run away between a step's statements and its COMMIT: the thief has claimed it in a transaction that is
/// still open when COMMIT comes, which waits for it.
fn lost_at_commit(example: Example, name: &str, theft: Theft) {
    let (database, mut thief) = with_run(name, 1000, 0.1);
    let mut runner = runner(example, &database, "runner", "600");
    runner.says("step 1 saved");
    thief.run("BEGIN");
    thief.run("UPDATE state_claim SET expires_at = now() WHERE run_id = 'r'");
    thief.run("SELECT state_context_claim('r', 'thief')");
    thief.run(theft.statement());
    let me = thief.pid();
    let mut watcher = database.session();
    let waits = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {me} = ANY (pg_blocking_pids(pid)) AND query = 'COMMIT')"
    );
    eventually("the runner commits", || watcher.flag(&waits));
    let before = results(&mut watcher);
    thief.run("COMMIT");
    is_lost(runner, theft.reason());
    if !matches!(theft, Theft::Deleted) {
        assert_eq!(results(&mut watcher), before);
    }
}

/// Takes the run away while the runner stands still, so its lease runs out within a step that takes long.
fn lost_while_away(example: Example, name: &str, theft: Theft) {
    let (database, mut thief) = with_run(name, 1, 600.0);
    let mut runner = runner(example, &database, "runner", "1");
    runner.says("step 1 begins");
    runner.signal("STOP");
    eventually("the lease is over", || {
        match thief.batch_execute("SELECT state_context_claim('r', 'thief')") {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(code(&error), "55P03", "{error:?}");
                false
            }
        }
    });
    thief.run(theft.statement());
    runner.signal("CONT");
    is_lost(runner, "its lease could not be renewed");
    if !matches!(theft, Theft::Deleted) {
        assert_eq!(results(&mut thief), "NULL");
    }
}

fn is_lost(runner: Running, reason: &str) {
    let (said, status) = runner.end();
    assert_eq!(status.code(), Some(LOST), "{said:#?}");
    let last = said.last().unwrap();
    assert!(
        last.starts_with("lost: ") && last.contains(reason),
        "{said:#?}"
    );
}

/// What fails because of another change is done again, and kept once.
fn repeats(example: Example, name: &str) {
    let (database, mut session) = with_run(name, 3, 0.0);
    session.run(
        "CREATE SEQUENCE written;
         CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             CASE nextval('written')
                 WHEN 2 THEN RAISE serialization_failure;
                 WHEN 4 THEN RAISE deadlock_detected;
                 ELSE RETURN NEW;
             END CASE;
         END $$;
         CREATE TRIGGER disturb BEFORE INSERT ON state_snapshot FOR EACH ROW EXECUTE FUNCTION disturb()",
    );
    let (said, status) = runner(example, &database, "runner", "600").end();
    assert!(status.success(), "{said:#?}");
    assert_eq!(results(&mut session), all_results(3));
    assert!(session.number("SELECT last_value FROM written") >= 6);
}

/// An error of the step itself has the SQLSTATE of a run that has ended, and is not taken for that.
fn fails(example: Example, name: &str) {
    let (database, mut session) = with_run(name, 3, 0.0);
    session.run("SELECT state_context_set('r', 'done', '0', mutable => false)");
    let (said, status) = runner(example, &database, "runner", "600").end();
    assert_eq!(status.code(), Some(1), "{said:#?}");
    let is_free = [["running".to_owned(), "NULL".to_owned()]];
    assert_eq!(status_and_owner(&mut session), is_free);
}

/// The same tests for the runner of each language.
macro_rules! for_each_language {
    ($($module:ident: $example:expr;)*) => { $(
        mod $module {
            use super::*;

            /// A name for the database of a test.
            fn database(test: &str) -> String {
                format!("{}_{test}", stringify!($module))
            }

            #[test]
            fn another_resumes_what_a_killed_one_began() {
                resumes($example, &database("resumes"));
            }

            #[test]
            fn it_takes_all_runs() {
                takes_all($example, &database("all"));
            }

            #[test]
            fn it_stops_at_commit_when_another_has_claimed_the_run() {
                lost_at_commit($example, &database("claimed"), Theft::Claimed);
            }

            #[test]
            fn it_stops_at_commit_when_another_has_completed_the_run() {
                lost_at_commit($example, &database("completed"), Theft::Completed);
            }

            #[test]
            fn it_stops_at_commit_when_another_has_deleted_the_run() {
                lost_at_commit($example, &database("deleted"), Theft::Deleted);
            }

            #[test]
            fn it_stops_within_a_step_when_another_has_claimed_the_run() {
                lost_while_away($example, &database("away_claimed"), Theft::Claimed);
            }

            #[test]
            fn it_stops_within_a_step_when_another_has_completed_the_run() {
                lost_while_away($example, &database("away_completed"), Theft::Completed);
            }

            #[test]
            fn it_stops_within_a_step_when_another_has_deleted_the_run() {
                lost_while_away($example, &database("away_deleted"), Theft::Deleted);
            }

            #[test]
            fn it_repeats_what_met_another_change() {
                repeats($example, &database("repeats"));
            }

            #[test]
            fn it_fails_and_frees_the_run_when_a_step_is_wrong() {
                fails($example, &database("fails"));
            }
        }
    )* };
}

for_each_language! {
    python_runner: Example::Python("runner.py");
    rust_runner: Example::Rust("runner");
}
