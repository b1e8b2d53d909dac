//! What must hold of the runs at any moment, and what they must hold in the end.

use super::board::{Board, Number};
use super::worker::ending;
use postgres::Client;
use state_cache_server_tests::Sql;

/// What is wrong in the tables, in one snapshot, while the others work; each row a complaint.
const ALWAYS: &str = "
    WITH runs AS MATERIALIZED (
        SELECT c.run_id, c.parent_run_id, s.state, s.state->>'status' = 'running' AS running
        FROM state_context c JOIN state_current s ON s.class = 'run' AND s.key = c.run_id
    ), purses AS (
        SELECT run_id, (state#>>'{resourceLimits,maxCredits}')::numeric AS most,
            coalesce((state#>>'{usage,credits}')::numeric, 0) AS used,
            (SELECT coalesce(sum((allotted->>'credits')::numeric), 0)
                FROM jsonb_each(coalesce(state->'reservations', '{}')) r (child, allotted)) AS reserved,
            (SELECT count(allotted->'branches')
                FROM jsonb_each(coalesce(state->'reservations', '{}')) r (child, allotted)) AS branches,
            (SELECT count(*) FROM runs c WHERE c.parent_run_id = p.run_id AND c.running) AS children
        FROM runs p
    )
    SELECT 'runs under a run that has ended', c.run_id FROM runs c JOIN runs p ON p.run_id = c.parent_run_id
        WHERE c.running AND NOT p.running
    UNION ALL
    SELECT format('has used %s and reserved %s of %s', used, reserved, most), run_id FROM purses
        WHERE used + reserved > most
    UNION ALL
    SELECT format('has %s branches reserved for %s children', branches, children), run_id FROM purses
        WHERE branches <> children
    UNION ALL
    SELECT format('has %s children', children), run_id FROM purses WHERE children > 5";

/// Looks until the round is over.
pub fn watch(client: &mut Client, board: &Board) {
    let mut looks = 0;
    while !board.over() && board.differences().is_empty() {
        for complaint in client.rows(ALWAYS) {
            board.differs(complaint.join(": "));
        }
        looks += 1;
    }
    assert!(looks > 0);
}

/// Ends all that still runs, the roots last, and compares what the roots have with what was acknowledged.
pub fn settle(client: &mut Client, board: &Board, round: usize) {
    let mut runs: Vec<Number> = (0..board.count()).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(board.run(*run).depth));
    for number in runs {
        let run = board.run(number);
        let status = client.text(&format!(
            "SELECT state_context_get('{}')->>'status'",
            run.name
        ));
        if status == "running" && run.parent.is_some() {
            client.run(&ending(&run.name));
        }
        check_purse(client, board, number);
        if run.parent.is_none() {
            check_variables(client, board, number);
            check_log(client, board, number);
            client.run(&format!("SELECT state_context_complete('{}')", run.name));
        }
        check_tokens(client, board, number);
    }
    let items = client.rows(&format!(
        "SELECT key FROM state_blackboard_query('swarm {round}') ORDER BY key COLLATE \"C\""
    ));
    same(board, "items", items.concat(), board.items());
    for complaint in client.rows(ALWAYS) {
        board.differs(complaint.join(": "));
    }
}

fn same<T: PartialEq + std::fmt::Debug>(board: &Board, what: &str, found: Vec<T>, known: Vec<T>) {
    if found != known {
        let missing: Vec<_> = known.iter().filter(|it| !found.contains(it)).collect();
        let added: Vec<_> = found.iter().filter(|it| !known.contains(it)).collect();
        board.differs(format!(
            "{what}: {} instead of {}, missing {missing:?}, added {added:?}",
            found.len(),
            known.len()
        ));
    }
}

/// What was charged below a run is what it has used, to the cent, and with what is left it is the limit.
fn check_purse(client: &mut Client, board: &Board, number: Number) {
    let name = board.run(number).name;
    let cents = |client: &mut Client, sql: &str| {
        client.number(&format!(
            "SELECT (100 * {sql})::bigint FROM (SELECT state_context_get('{name}')) s (state)"
        ))
    };
    let used = cents(client, "coalesce((state#>>'{usage,credits}')::numeric, 0)");
    let known = board.cents_of(number);
    if used != known {
        board.differs(format!(
            "{name} has used {used} cents, {known} were charged"
        ));
    }
    if board.run(number).parent.is_none() {
        let most = cents(client, "(state#>>'{resourceLimits,maxCredits}')::numeric");
        let left = client.number(&format!(
            "SELECT (100 * state_context_spend('{name}', 'credits', 0))::bigint"
        ));
        if used + left != most {
            board.differs(format!("{name}: {used} used, {left} left of {most}"));
        }
    }
}

fn check_variables(client: &mut Client, board: &Board, root: Number) {
    let name = board.run(root).name;
    for (variable, value) in board.variables_of(root) {
        let found = client.text(&format!(
            "SELECT state_context_get('{name}')#>>ARRAY['variables', '{variable}', 'value']"
        ));
        if found != value.to_string() {
            board.differs(format!("{name}: {variable} is {found}, not {value}"));
        }
    }
}

/// Each entry is there once.
fn check_log(client: &mut Client, board: &Board, root: Number) {
    let doubtful = board.log_in_doubt();
    let found = client.rows(&format!(
        "SELECT e FROM jsonb_array_elements_text(state_context_get('{}')#>'{{variables,log,value}}') e ORDER BY e \
            COLLATE \"C\"",
        board.run(root).name
    ));
    let mut found = found.concat();
    found.retain(|entry| !doubtful.contains(entry));
    same(board, "log", found, board.log_of(root));
}

/// The tokens that were accepted, in the order of the versions.
fn check_tokens(client: &mut Client, board: &Board, number: Number) {
    let name = board.run(number).name;
    let tokens: Vec<i64> = client
        .rows(&format!(
            "SELECT t FROM jsonb_array_elements(coalesce(state_context_get('{name}')#>ARRAY['variables', 'tokens of \
                {name}', 'value'], '[]')) t"
        ))
        .concat()
        .iter()
        .map(|token| token.parse().unwrap())
        .collect();
    if !tokens.is_sorted() {
        board.differs(format!(
            "{name}: tokens were accepted in the order {tokens:?}"
        ));
    }
}
