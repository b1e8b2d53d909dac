//! A flush writes its states by one statement, and looks their rows up by key, whatever the planner knows of the
//! tables. The plans are those of `auto_explain`, in the server's log.

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

/// The plans that the server has logged since its log was `from` bytes long, each with its statement.
fn plans(server: &Server, from: usize) -> Vec<String> {
    let log = server.log();
    log[from..]
        .split("  plan:\n")
        .skip(1)
        .map(str::to_owned)
        .collect()
}

/// The plans of the statements that write to one of the two tables.
fn writes(server: &Server, from: usize) -> Vec<String> {
    let writes = |plan: &String| {
        ["Insert on", "Update on", "Delete on"]
            .iter()
            .any(|node| plan.contains(&format!("{node} state_")))
    };
    plans(server, from).into_iter().filter(writes).collect()
}

/// What a flush of a hundred states, new and known, changed, deleted and touched, of three classes, writes.
fn flush(server: &Server, client: &mut Client, round: i32) -> Vec<String> {
    client.run(&format!(
        "BEGIN;
         SELECT state_set('set ' || i, jsonb_build_object('n', i * {round}), class => c)
             FROM generate_series(1, 30) i, unnest('{{one,three,all}}'::text[]) c;
         SELECT state_set('new ' || {round} || i, '{{}}', class => c) FROM generate_series(1, 3) i, \
         unnest('{{one,three,all}}'::text[]) c;
         SELECT state_set('same', '{{}}', class => c), state_touch('touched', interval '{round} days', class => c), \
         state_delete('deleted', class => c)
             FROM unnest('{{one,three,all}}'::text[]) c"
    ));
    let from = server.log().len();
    client.run("COMMIT");
    writes(server, from)
}

#[test]
fn a_flush_is_one_statement_that_looks_rows_up_in_order() {
    let server = Server::new(&[
        "autovacuum = off",
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
        // What the user prefers is not what keeps the order.
        "enable_nestloop = off",
        "enable_indexscan = off",
    ]);
    let mut client = server.connect();
    client.run(
        "SELECT state_class_define('one', keep => 1), state_class_define('three', keep => 3), \
            state_class_define('all', keep => NULL);
         SELECT state_set(k, '{}', class => c) FROM unnest('{same,touched,deleted}'::text[]) k, \
         unnest('{one,three,all}'::text[]) c;
         ANALYZE",
    );
    for round in 1..=4 {
        // Plans are kept; a new session makes its own, with what is known of the tables then.
        let mut session = server.connect();
        client.run("ANALYZE state_head, state_snapshot");
        let writes = flush(&server, &mut session, round);
        assert_eq!(writes.len(), 1, "{writes:#?}");
        let plan = &writes[0];
        // The rows are locked by one node, which is fed by the items as they were given.
        assert_eq!(plan.matches("Insert on state_head").count(), 1, "{plan}");
        assert!(!plan.contains("Update on state_head"), "{plan}");
        let lines: Vec<_> = plan.lines().map(str::trim).collect();
        let insert = lines
            .iter()
            .position(|line| line.contains("Insert on state_head"))
            .unwrap();
        let mut inside = lines[insert + 1..].iter();
        let fed = inside.find(|line| line.starts_with("->")).unwrap();
        assert!(fed.contains("CTE Scan on input"), "{fed} in {plan}");
        let input = lines.iter().position(|line| *line == "CTE input").unwrap();
        let until = lines.iter().position(|line| *line == "CTE head").unwrap();
        let input = lines[input..until].join("\n");
        assert!(input.contains("ProjectSet"), "{plan}");
        for node in ["Sort", "Join", "Nested Loop", "Hash", "Merge"] {
            assert!(!input.contains(node), "{node} in {plan}");
        }
        for node in ["Seq Scan", "Hash Join", "Merge Join", "Bitmap"] {
            assert!(!plan.contains(node), "{node} in {plan}");
        }
    }
    assert_eq!(client.number("SELECT count(*) FROM state_verify()"), 0);
    // Where somebody's trigger would see it, each state goes by itself.
    client.run(
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER zz AFTER INSERT ON state_head FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
    );
    let writes = flush(&server, &mut client, 5);
    assert!(writes.len() > 90, "{}", writes.len());
}
