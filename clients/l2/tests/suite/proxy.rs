//! What lies between the feeder and its servers, and fails in silence: a proxy through which no notification comes
//! any more, a pool of transactions, and a way to Redis that takes only so much.

use crate::support::*;
use state_cache_client::{Error, Event, Following, StateCache, Tier};
use state_cache_server_tests::{Proxy, Server, Sql, eventually};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Accepts connections on a port of its own, for as long as the test runs, and lets `carry` have each.
fn accept(carry: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(carry));
    port
}

/// A proxy in front of a PostgreSQL that can lose notifications: all else goes through, and nobody is told.
pub struct Tap {
    port: u16,
    is_deaf: Arc<AtomicBool>,
}

impl Tap {
    pub fn new(server: &Server) -> Self {
        let socket = server.host().join(".s.PGSQL.5432");
        let is_deaf = Arc::<AtomicBool>::default();
        let deaf = is_deaf.clone();
        let port = accept(move |client| {
            // The server may be away: then the connection ends.
            let Ok(server) = UnixStream::connect(&socket) else {
                return;
            };
            let (mut questions, mut to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut questions, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let deaf = deaf.clone();
            std::thread::spawn(move || {
                let _ = answer(&server, &client, &deaf);
                let _ = client.shutdown(Shutdown::Both);
            });
        });
        Self { port, is_deaf }
    }

    pub fn parameters(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres",
            self.port
        )
    }

    /// Whether notifications are lost from now on.
    pub fn lose_notifications(&self, deaf: bool) {
        self.is_deaf.store(deaf, Ordering::SeqCst);
    }
}

/// Carries the server's messages: each has a letter, and four bytes that say how long it is without the letter. An
/// `A` is a notification.
fn answer(
    mut server: &UnixStream,
    mut client: &TcpStream,
    deaf: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let [letter, length @ ..] = head;
        let mut message = head.to_vec();
        message.resize(u32::from_be_bytes(length) as usize + 1, 0);
        server.read_exact(&mut message[5..])?;
        if letter != b'A' || !deaf.load(Ordering::SeqCst) {
            client.write_all(&message)?;
        }
    }
}

/// A way to Redis that takes only so many bytes until it is opened.
pub struct Gate {
    port: u16,
    is_open: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
}

impl Gate {
    pub fn new(redis: &Redis, most: u64) -> Self {
        let port = redis.port;
        let (is_open, is_full) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (open, full) = (is_open.clone(), is_full.clone());
        let taken = Arc::<AtomicU64>::default();
        let port = accept(move |client| {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                return;
            };
            let (mut answers, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let (open, full, taken) = (open.clone(), full.clone(), taken.clone());
            std::thread::spawn(move || {
                let (mut client, mut server, mut chunk) = (client, server, vec![0; 4096]);
                while let Ok(size @ 1..) = client.read(&mut chunk) {
                    let taken = taken.fetch_add(size as u64, Ordering::SeqCst) + size as u64;
                    while taken > most && !open.load(Ordering::SeqCst) {
                        full.store(true, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    if server.write_all(&chunk[..size]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
        });
        Self {
            port,
            is_open,
            is_full,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until somebody waits for it.
    pub fn await_full(&self) {
        eventually("the way to Redis to be full", || {
            self.is_full.load(Ordering::SeqCst)
        });
    }

    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Whoever waits in it waits no longer, also where the test has failed.
        self.open();
    }
}

/// Why readers are told that nobody hears.
const NOT_DELIVERED: &str = "notifications do not arrive";

fn says_unhealthy(feeder: &Feeder) -> bool {
    feeder
        .page("/healthz")
        .is_some_and(|page| page.starts_with("HTTP/1.1 503") && page.contains(NOT_DELIVERED))
}

#[test]
fn notifications_that_are_lost_in_silence_are_missed_and_nothing_is_lost() {
    let (server, mut client, redis) = servers();
    let tap = Tap::new(&server);
    let feeder = Feeder::start(&tap.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut connection = redis.connect();
    client.run("SELECT state_set('k' || n, '1', class => 'shared') FROM generate_series(1, 9) n");
    await_equal(&mut client, &mut connection, "shared", true);
    let first = generation(&mut connection);
    tap.lose_notifications(true);
    client.run("SELECT state_set('k' || n, '2', class => 'shared') FROM generate_series(1, 6) n");
    client.run("SELECT state_delete('k7', class => 'shared')");
    feeder.await_said(NOT_DELIVERED);
    eventually("it to say so where it is asked", || says_unhealthy(&feeder));
    eventually("readers to be told", || !is_alive(&mut connection));
    assert_eq!(feeder.metric("alive"), 0.0);
    assert!(feeder.metric("errors_total{side=\"postgres\"}") >= 1.0);
    // The lag grows for as long as it hears nothing: longer than from one heartbeat to the next.
    for name in ["lag_milliseconds", "unproven_milliseconds"] {
        eventually("the lag to be shown", || feeder.metric(name) > 3000.0);
    }
    assert!(!is_alive(&mut connection), "it came back without hearing");
    tap.lose_notifications(false);
    feeder.await_alive();
    await_equal(&mut client, &mut connection, "shared", true);
    eventually("the lag to be over", || {
        feeder.metric("lag_milliseconds") < 3000.0
    });
    assert_eq!(
        generation(&mut connection),
        first,
        "the cursor covered what was written, so nothing was begun anew"
    );
}

#[test]
fn a_pool_of_transactions_is_refused_and_its_sessions_are_left_as_they_were() {
    let (server, mut client, redis) = servers();
    client.run("SELECT state_set('a', '1', class => 'shared')");
    let mut connection = redis.connect();
    // All clients of the pool have this one session of the server, one after the other.
    let proxy = Proxy::new(&server, "transaction", 1);
    let feeder = Feeder::start(proxy.parameters(), &redis.url(), &[]);
    feeder.await_said(NOT_DELIVERED);
    eventually("it to try again", || {
        feeder.metric("errors_total{side=\"postgres\"}") >= 2.0
    });
    assert!(says_unhealthy(&feeder), "{:?}", feeder.page("/healthz"));
    assert_eq!(generation(&mut connection), 0, "it has begun a generation");
    // Somebody else in the same session: with what the feeder sets for itself, a crash would lose commits of theirs.
    {
        let mut other = postgres::Client::connect(proxy.parameters(), postgres::NoTls).unwrap();
        for (setting, value) in [("synchronous_commit", "on"), ("row_security", "on")] {
            let found = other.simple_query(&format!("SHOW {setting}")).unwrap();
            let found = found.iter().find_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            assert_eq!(found, Some(value), "{setting}");
        }
        let channels = "SELECT count(*) FROM pg_listening_channels()";
        eventually("the session to listen to nothing", || {
            let found = other.simple_query(channels).unwrap();
            found.iter().any(|message| {
                matches!(message, postgres::SimpleQueryMessage::Row(row) if row.get(0) == Some("0"))
            })
        });
    }
    // A pool that is set up as it should be.
    drop(proxy);
    let _proxy = Proxy::new(&server, "session", 5);
    feeder.await_alive();
    await_equal(&mut client, &mut connection, "shared", true);
}

/// A client behind the same proxy. Its own connection is as it was; it finds out all the same, and answers nothing
/// that it held from then on.
#[test]
fn a_client_misses_the_notifications_too() {
    let server = Server::new(&["fsync = off"]);
    let mut session = server.connect();
    let mut set = |n: u32| session.run(&format!("SELECT state_set('x', '{n}', class => 'config')"));
    set(1);
    let tap = Tap::new(&server);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let builder = StateCache::builder()
        .connection(&tap.parameters())
        .following(Following {
            heartbeat: Duration::from_millis(200),
            patience: Duration::from_secs(5),
            ..Following::default()
        });
    let cache = runtime.block_on(builder.connect()).unwrap();
    let read = || {
        let read = cache.read::<u32>("config", "x");
        let answer = runtime.block_on(read).unwrap();
        (answer.document.map(|it| *it), answer.tier)
    };
    eventually("the near cache to answer", || {
        read() == (Some(1), Tier::Near)
    });
    let mut events = cache.events();
    tap.lose_notifications(true);
    set(2);
    let not_delivered = Event::Lost(Error::NotDelivered.to_string());
    eventually("it to miss them", || {
        events.try_recv().is_ok_and(|event| event == not_delivered)
    });
    assert_eq!(read(), (Some(2), Tier::Server));
    set(3);
    assert_eq!(read(), (Some(3), Tier::Server));
    assert!(!cache.is_sure());
    tap.lose_notifications(false);
    eventually("the near cache to answer", || {
        read() == (Some(3), Tier::Near)
    });
}
