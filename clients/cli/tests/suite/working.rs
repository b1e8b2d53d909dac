//! `runs`, `jobs`, `budgets`, `conflicts`.

use crate::support::database;
use state_cache_server_tests::Sql;

#[test]
fn runs_are_a_list_and_a_tree() {
    let mut database = database("working_runs");
    let session = &mut database.session;
    session.run("SELECT state_context_create('root', resource_limits => '{\"maxCredits\": 20}')");
    session.run(
        "SELECT state_context_child('root', 'left'); SELECT state_context_child('root', 'right')",
    );
    session.run("SELECT state_context_child('left', 'leaf')");
    session.run("SELECT state_context_claim('left', 'worker-7', '1 hour')");
    session.run("SELECT * FROM state_context_complete('right')");
    let listed = database
        .run(&["runs", "--status", "running", "--json"])
        .json();
    let mut names: Vec<_> = listed
        .iter()
        .map(|row| row["run_id"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["leaf", "left", "root"]);
    assert_eq!(
        database
            .run(&["runs", "--owner", "worker-7", "--json"])
            .json()[0]["run_id"],
        "left"
    );
    assert_eq!(
        database
            .run(&["runs", "--claimed=false", "--json"])
            .json()
            .len(),
        3
    );

    let tree = database.run(&["runs", "root"]);
    let lines = tree.lines();
    assert_eq!(lines.len(), 4, "{}", tree.out);
    assert!(
        lines[0].starts_with("root  running") && lines[0].contains("maxCredits 20"),
        "{}",
        tree.out
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("├─ ") || line.starts_with("└─ ")),
        "{}",
        tree.out
    );
    let left = lines.iter().position(|line| line.contains("left")).unwrap();
    assert!(
        lines[left].contains("owner worker-7 for 59 min"),
        "{}",
        tree.out
    );
    assert!(lines[left + 1].contains("└─ leaf"), "{}", tree.out);
    assert_eq!(database.run(&["runs", "root", "--json"]).json().len(), 4);
    assert_eq!(database.run(&["runs", "nobody"]).code, 5);
}

#[test]
fn jobs_have_counts_and_tasks() {
    let mut database = database("working_jobs");
    let session = &mut database.session;
    session.run(
        "SELECT state_job_create('report', '[\"one\", \"two\"]'); SELECT state_job_create('other')",
    );
    session.run(
        "SELECT * FROM state_job_update_tasks('report',
            '[{\"task_id\": \"one\", \"status\": \"failed\", \"error\": \"no ink\"}]')",
    );
    let jobs = database.run(&["jobs", "--json"]).json();
    assert_eq!(jobs.len(), 2);
    assert_eq!(
        (&jobs[1]["job_id"], &jobs[1]["failed"]),
        (&"report".into(), &1.into())
    );
    let tasks = database.run(&["jobs", "report"]);
    assert!(tasks.out.contains("no ink"), "{}", tasks.out);
    assert_eq!(
        database
            .run(&["jobs", "report", "--status", "pending", "--json"])
            .json()
            .len(),
        1
    );
    assert_eq!(database.run(&["jobs", "nobody"]).code, 5);
}

#[test]
fn budgets_have_agents_and_holds() {
    let mut database = database("working_budgets");
    let session = &mut database.session;
    session.run(
        "SELECT state_budget_define('launch', 10, 'USD',
            agents => '{\"critic\": {\"limit\": 4, \"price\": 0.3}}')",
    );
    session.run("SELECT * FROM state_budget_reserve('launch', 'critic', hold_id => 'call-1')");
    let listed = database.run(&["budgets", "--json"]).json();
    assert_eq!(
        (&listed[0]["budget"], &listed[0]["reserved"].to_string()),
        (&"launch".into(), &"0.3".to_owned())
    );
    let shown = database.run(&["budgets", "launch"]);
    assert!(
        shown.out.contains("critic") && shown.out.contains("call-1"),
        "{}",
        shown.out
    );
    assert_eq!(
        database.run(&["budgets", "launch", "--json"]).json()[0]["budget"],
        "launch"
    );
    assert_eq!(
        database.run(&["budgets", "--verify"]).lines(),
        ["all counters are right"]
    );
    database
        .session
        .run("UPDATE state_budget_account SET spent = spent + 1 WHERE agent = 'critic'");
    let wrong = database.run(&["budgets", "--verify"]);
    assert_eq!(wrong.code, 1, "{}{}", wrong.out, wrong.err);
    assert_eq!(database.run(&["budgets", "nothing"]).code, 5);
}

#[test]
fn conflicts_are_listed_shown_and_decided() {
    let mut database = database("working_conflicts");
    let session = &mut database.session;
    session.run("SELECT state_context_create('parent', inputs => '{\"plan\": \"old\"}')");
    session.run("SELECT state_context_child('parent', 'child', inputs => '{\"plan\": \"old\"}')");
    session.run("SELECT state_context_set('parent', 'plan', '\"ours\"')");
    session.run("SELECT state_context_set('child', 'plan', '\"theirs\"')");
    session.run("SELECT * FROM state_context_merge('child', 'manual_review')");
    let open = database.run(&["conflicts", "--json"]).json();
    assert_eq!(open.len(), 1);
    let id = open[0]["id"].to_string();
    let shown = database.run(&["conflicts", "show", &id]);
    assert!(
        shown.out.contains("\"ours\"") && shown.out.contains("\"theirs\""),
        "{}",
        shown.out
    );
    assert_eq!(
        database
            .run(&["conflicts", "resolve", &id, "--reason", "x"])
            .code,
        2
    );
    assert_eq!(
        database
            .run(&["conflicts", "resolve", &id, "--value", "{", "--reason", "x"])
            .code,
        2
    );
    assert_eq!(database.run(&["conflicts", "show", "1"]).code, 5);
    let decided = database.run(&[
        "conflicts",
        "resolve",
        &id,
        "--take",
        "child",
        "--reason",
        "newer",
    ]);
    assert_eq!(decided.code, 0, "{}", decided.err);
    let value = "SELECT state_context_get('parent') -> 'variables' -> 'plan' ->> 'value'";
    assert_eq!(database.session.text(value), "theirs");
    assert_eq!(database.run(&["conflicts"]).lines(), ["no conflicts"]);
    assert_eq!(
        database
            .run(&["conflicts", "list", "--all", "--json"])
            .json()[0]["status"],
        "resolved"
    );
}
