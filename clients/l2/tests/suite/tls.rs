//! TLS on every way: from the feeder and from a client, to PostgreSQL and to Redis.

use crate::support::*;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use state_cache_client::{L2Options, StateCache, Tier};
use state_cache_server_tests::{Server, Sql, eventually};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A certificate for `localhost` that signs itself, and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Files of the test, and a Redis that speaks TLS only. Both go when dropped.
struct Sealed {
    directory: PathBuf,
    port: u16,
    child: Child,
}

impl Sealed {
    fn start(certificate: &str, key: &str) -> Self {
        let port = free_port();
        let directory =
            std::env::temp_dir().join(format!("state_cache_tls.{}.{port}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let (ca, of_key) = (directory.join("ca.pem"), directory.join("key.pem"));
        std::fs::write(&ca, certificate).unwrap();
        std::fs::write(&of_key, key).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--bind", "127.0.0.1", "--save", ""])
            .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
            .arg("--tls-cert-file")
            .arg(&ca)
            .arg("--tls-key-file")
            .arg(&of_key)
            .arg("--tls-ca-cert-file")
            .arg(&ca)
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sealed = Self {
            directory,
            port,
            child,
        };
        eventually("Redis listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        sealed
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A server that speaks TLS at an address of its own: all servers of tests have the same port.
fn sealed_server(certificate: &str, key: &str) -> (Server, String) {
    let id = std::process::id();
    let address = format!("127.{}.{}.7", 1 + id % 200, id / 200 % 250);
    let server = Server::new(&[&format!("listen_addresses = '{address}'")]);
    let mut client = server.connect();
    // By the server, so that the files are its own.
    for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
        client.run(&format!(
            "COPY (SELECT unnest(string_to_array('{}', chr(10))))
             TO PROGRAM 'umask 077 && cat > {name}'",
            text.trim_end()
        ));
    }
    client.run("ALTER SYSTEM SET ssl_cert_file = 'tls.crt'");
    client.run("ALTER SYSTEM SET ssl_key_file = 'tls.key'");
    client.run("ALTER SYSTEM SET ssl = on");
    client.run("SELECT pg_reload_conf()");
    eventually("TLS to be on", || {
        server
            .connect()
            .flag("SELECT current_setting('ssl')::boolean")
    });
    let parameters = format!(
        "host=localhost hostaddr={address} port=5432 user=postgres dbname=postgres sslmode=require"
    );
    (server, parameters)
}

fn connector(ca: &Path) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

#[test]
fn feeder_and_client_speak_tls_to_both_sides() {
    // An error only if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (certificate, key) = certificate();
    let redis = Sealed::start(&certificate, &key);
    let (server, parameters) = sealed_server(&certificate, &key);
    let mut session = server.connect();
    session.run("SELECT state_class_define('shared', l2_ttl => '10 minutes')");
    session.run("SELECT state_set('x', '{\"n\": 1}', class => 'shared')");
    let ca = redis.file("ca.pem");
    // Another authority is believed by neither side.
    let stranger = redis.file("stranger.pem");
    std::fs::write(&stranger, self::certificate().0).unwrap();
    for (of_postgres, of_redis) in [(&stranger, &ca), (&ca, &stranger)] {
        let feeder = feeder(&parameters, &redis, of_postgres, of_redis);
        feeder.await_said("connecting anew");
        assert!(!feeder.said().contains("attached"), "{}", feeder.said());
    }
    let feeder = feeder(&parameters, &redis, &ca, &ca);
    feeder.await_alive();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE ssl AND application_name = 'state-cache-l2'";
    assert_eq!(session.number(encrypted), 2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for tracking in [false, true] {
        let l2 = L2Options {
            prefix: PREFIX.to_owned(),
            certificates: Some(std::fs::read(&ca).unwrap()),
            patience: std::time::Duration::from_secs(5),
            tracking,
            ..L2Options::new(&redis.url())
        };
        let builder = StateCache::builder()
            .connection_with_tls(parameters.parse().unwrap(), connector(&ca))
            .l2(l2);
        let cache = runtime.block_on(builder.connect()).unwrap();
        cache.enable_near(tracking);
        let expected = if tracking { Tier::Near } else { Tier::L2 };
        eventually("an answer", || {
            let read = runtime.block_on(cache.read::<u64>("shared", "y"));
            assert!(read.is_ok_and(|answer| answer.document.is_none()));
            let read = runtime.block_on(cache.read::<serde_json::Value>("shared", "x"));
            let answer = read.unwrap();
            assert_eq!(answer.document.unwrap()["n"], 1);
            answer.tier == expected
        });
    }
}

fn feeder(parameters: &str, redis: &Sealed, of_postgres: &Path, of_redis: &Path) -> Feeder {
    let (of_postgres, of_redis) = (of_postgres.to_str().unwrap(), of_redis.to_str().unwrap());
    let options = ["--postgres-ca", of_postgres, "--redis-ca", of_redis];
    Feeder::start(parameters, &redis.url(), &options)
}
