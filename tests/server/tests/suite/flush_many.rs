//! A flush writes rows without statements, until there is something on the tables that a statement would look at. The
//! plans are those of `auto_explain`, in the server's log.

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
fn a_flush_takes_statements_only_where_a_trigger_would_see_them() {
    let server = Server::new(&[
        // Not drawn: this is what is asked.
        "state_cache.test_write_rows = auto",
        "autovacuum = off",
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
    ]);
    let mut client = server.connect();
    client.run(
        "SELECT state_class_define('one', keep => 1), state_class_define('three', keep => 3), \
            state_class_define('all', keep => NULL);
         SELECT state_set(k, '{}', class => c) FROM unnest('{same,touched,deleted}'::text[]) k, \
         unnest('{one,three,all}'::text[]) c",
    );
    for round in 1..=4 {
        assert_eq!(flush(&server, &mut client, round), Vec::<String>::new());
    }
    assert_eq!(client.number("SELECT count(*) FROM state_verify()"), 0);
    client.run(
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER zz AFTER INSERT ON state_head FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
    );
    let writes = flush(&server, &mut client, 5);
    assert!(writes.len() > 90, "{}", writes.len());
    client.run("DROP TRIGGER zz ON state_head");
    assert_eq!(flush(&server, &mut client, 6), Vec::<String>::new());
    assert_eq!(client.number("SELECT count(*) FROM state_verify()"), 0);
}
