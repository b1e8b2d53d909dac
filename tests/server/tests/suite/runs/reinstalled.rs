//! Servers without the preloaded library, and extensions that go and come back.

use super::{begin, go_on};
use state_cache_server_tests::{Server, Sql};

#[test]
fn runs_work_where_the_library_is_not_preloaded() {
    let server = Server::without_extension(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.run("CREATE EXTENSION state_cache");
    begin(&mut client, "root");
    go_on(&mut other, "root");
    assert_eq!(
        client.text("SELECT l1 FROM state_cache_stats WHERE class IS NULL"),
        "off (not preloaded)"
    );
}

#[test]
fn nothing_is_left_of_the_runs_of_a_dropped_extension() {
    let server = Server::new(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    begin(&mut client, "root");
    begin(&mut other, "other");
    let token = other.number("SELECT token FROM state_claim WHERE run_id = 'other/a'");
    client.run("BEGIN; DROP EXTENSION state_cache; ROLLBACK");
    go_on(&mut client, "root");

    client.run("DROP EXTENSION state_cache");
    let left =
        "SELECT count(*) FROM pg_class WHERE relname ~ '^state_' AND relkind IN ('r', 'S', 'i')";
    assert_eq!(client.number(left), 0);
    assert_eq!(client.error("SELECT state_context_get('root')"), "42883");
    client.run("CREATE EXTENSION state_cache");
    for session in [&mut client, &mut other] {
        assert_eq!(session.error("SELECT state_context_get('root')"), "42704");
        assert_eq!(
            session.error("SELECT * FROM state_context_merge('other/b')"),
            "42704"
        );
        let late = format!("SELECT state_context_set('other/a', 'left', '1', token => {token})");
        assert_eq!(session.error(&late), "40001");
        let unowned = "SELECT state_context_set('other/a', 'left', '1')";
        assert_eq!(session.error(unowned), "42704");
        assert_eq!(session.number("SELECT count(*) FROM state_context"), 0);
    }
    // The same names, in the sessions from before.
    begin(&mut other, "root");
    go_on(&mut client, "root");
    begin(&mut client, "other");
    go_on(&mut other, "other");
}
