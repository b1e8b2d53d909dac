//! What the page about pooling says of settings, behind a pool of transactions with one connection to the server.

use postgres::{Client, NoTls};
use state_cache_server_tests::{Proxy, Server, Sql};

const SHOW: &str = "SHOW state_cache.dedup";

#[test]
fn a_setting_leaks_to_the_next_client_unless_it_is_local_or_belongs_to_the_role() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let proxy = Proxy::new(&server, "transaction", 1);
    let connect = || Client::connect(proxy.parameters(), NoTls).unwrap();
    let (mut one, mut other) = (connect(), connect());

    one.run("SET state_cache.dedup = off");
    assert_eq!(other.text(SHOW), "off", "it has leaked");
    other.run("RESET state_cache.dedup");
    assert_eq!(one.text(SHOW), "on", "and so has its end");

    one.run("BEGIN; SET LOCAL state_cache.dedup = off");
    assert_eq!(one.text(SHOW), "off");
    one.run("COMMIT");
    assert_eq!(other.text(SHOW), "on");

    // For connections to the server that are made from then on.
    one.run("ALTER ROLE postgres SET state_cache.dedup = off");
    assert_eq!(other.text(SHOW), "on");
    let pid = other.pid();
    server
        .connect()
        .run(&format!("SELECT pg_terminate_backend({pid}, 10000)"));
    let mut third = connect();
    assert_eq!(third.text(SHOW), "off");
}
