//! Three nodes.

use crate::support::*;
use state_cache_server_tests::{Sql, eventually};
use std::process::{Command, Stdio};

#[test]
fn a_cluster_holds_states_anywhere_and_slots_move() {
    let (server, mut client, _) = servers();
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let nodes: Vec<Redis> = (0..3).map(|_| Redis::start(&options)).collect();
    let addresses: Vec<String> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port))
        .collect();
    let cli = |arguments: &[&str]| {
        let status = Command::new("redis-cli")
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    let create = [
        "--cluster",
        "create",
        &addresses[0],
        &addresses[1],
        &addresses[2],
        "--cluster-yes",
    ];
    cli(&create);
    let urls = nodes.iter().map(Redis::url).collect::<Vec<_>>();
    let cluster = redis::cluster::ClusterClient::new(urls.clone()).unwrap();
    eventually("the cluster is whole", || {
        cluster.get_connection().is_ok_and(|mut connection| {
            redis::cmd("SET")
                .arg("x")
                .arg(1)
                .query::<()>(&mut connection)
                .is_ok()
        })
    });
    let feeder = Feeder::start(&server.parameters(), &urls.join(","), &[]);
    feeder.await_alive();
    let mut connection = cluster.get_connection().unwrap();
    client.run(
        "SELECT state_set('k' || n, to_jsonb(n), class => 'shared') FROM generate_series(1, 300) n",
    );
    await_equal(&mut client, &mut connection, "shared", true);
    // Every node has some.
    for node in &nodes {
        let size: u64 = redis::cmd("DBSIZE").query(&mut node.connect()).unwrap();
        assert!(size > 10, "{size}");
    }
    // Slots move while states change.
    let id: String = redis::cmd("CLUSTER")
        .arg("MYID")
        .query(&mut nodes[0].connect())
        .unwrap();
    let other: String = redis::cmd("CLUSTER")
        .arg("MYID")
        .query(&mut nodes[1].connect())
        .unwrap();
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            cli(&[
                "--cluster",
                "reshard",
                &addresses[0],
                "--cluster-from",
                &id,
                "--cluster-to",
                &other,
                "--cluster-slots",
                "300",
                "--cluster-yes",
            ]);
        });
        let mut n = 0;
        while !moving.is_finished() {
            n += 1;
            client.run(&format!(
                "SELECT state_set('k{}', '{n}', class => 'shared')",
                n % 300 + 1
            ));
        }
    });
    await_equal(&mut client, &mut connection, "shared", true);
    feeder.await_alive();
}
