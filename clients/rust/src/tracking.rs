//! Redis tells which states have changed: `CLIENT TRACKING` in broadcast mode, in place of LISTEN. So hundreds of
//! application servers take no connection each from PostgreSQL to listen on.
//!
//! # Why it is right
//!
//! **A copy is held only of what Redis holds.** The feeder writes every change into Redis, but what it deletes there
//! may be missing already, and then Redis tells nobody. So only answers of Redis are remembered, never those of the
//! server: whatever becomes of a key that exists (written, deleted, expired, turned out), Redis tells.
//!
//! **Track first, then read.** Copies are kept of reads that began after all servers of Redis had accepted TRACKING;
//! each new set of connections, and each new generation, begins with none ([`crate::near::Near::start_anew`]).
//!
//! **A read races with what is told**, on another connection. What is told is applied where the connection is read,
//! under the lock of the near cache, and counts for the reads that are under way: see `near.rs`. Told too often, for
//! example of a lease or of the client's own fill, a copy is dropped that could have stayed, and nothing else.
//!
//! **Proof.** Twice a second ([`crate::l2`]) the client reads the meta hash, where the feeder says that it is alive,
//! and then sends PING twice over each of these connections. What Redis had done when it answered the first PING, it
//! has told before it answers the second one: it tells at the end of a round of its loop, and answers of that round
//! go out after that. So at the moment at which the meta hash was asked for, all that the feeder had written was
//! heard, and what was not written yet was no older than the feeder's `max_lag_ms` and `alive_ms`. The proof holds
//! for a second. After that, and in any doubt, the near cache does as [`crate::WhileDown`] says. So copies are as old
//! as Redis at most, and a second.
//!
//! # What another process can do between any two steps
//!
//! | between | somebody | and |
//! | --- | --- | --- |
//! | TRACKING and the first copy | writes | it is told, and moves what was heard about the state |
//! | GET and its answer | writes | it is told after the answer was made: the copy is dropped, or not kept |
//! | the meta hash and PING | begins a generation | copies of the former one are answered until the next look |
//! | two looks | takes over as master of a slot | its writes are not told until the next look sees another set |
//!
//! A connection that ends is never mended: the next look makes all of them anew.

use crate::cache::Inner;
use crate::l2::{L2, single};
use crate::message::Event;
use crate::near::Beginning;
use redis::aio::{MultiplexedConnection, SendError};
use redis::{Cmd, PushInfo, PushKind, RedisError, RedisResult, Value as Reply};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Where a server of Redis is; `None`: where the options say.
type Place = Option<(String, u16)>;

/// The connections over which Redis tells.
pub(crate) struct Tracking {
    places: BTreeSet<Place>,
    ways: Vec<MultiplexedConnection>,
    generation: u64,
}

impl Tracking {
    /// Connects to all servers that keep states, and has them tell.
    async fn open(inner: &Arc<Inner>, l2: &Arc<L2>, places: BTreeSet<Place>) -> RedisResult<Self> {
        let mut ways = Vec::with_capacity(places.len());
        for place in &places {
            let (listener, of) = (inner.clone(), l2.clone());
            let hear = move |info: PushInfo| {
                hear(&listener, &of, info);
                Ok::<(), SendError>(())
            };
            let mut way = single(&l2.options, place.clone(), Some(Arc::new(hear))).await?;
            let mut track = Cmd::new();
            track.arg("CLIENT").arg("TRACKING").arg("ON").arg("BCAST");
            if !l2.options.prefix.is_empty() {
                track.arg("PREFIX").arg(&l2.options.prefix);
            }
            track.query_async::<()>(&mut way).await?;
            ways.push(way);
        }
        Ok(Self {
            places,
            ways,
            generation: 0,
        })
    }

    /// Returns once all that Redis has done before was told: see the header.
    async fn prove(&mut self) -> RedisResult<()> {
        for _ in 0..2 {
            for way in &mut self.ways {
                redis::cmd("PING").query_async::<()>(way).await?;
            }
        }
        Ok(())
    }
}

/// Takes in what Redis tells.
fn hear(inner: &Inner, l2: &L2, info: PushInfo) {
    match info.kind {
        PushKind::Invalidate => {}
        PushKind::Disconnection => return inner.near().doubt(),
        _ => return,
    }
    let mut events = Vec::new();
    {
        let mut near = inner.near();
        match info.data.first() {
            Some(Reply::Array(names)) => {
                let name = |name: &Reply| match name {
                    Reply::BulkString(name) => l2.named(name),
                    _ => None,
                };
                for (class, key) in names.iter().filter_map(name) {
                    near.drop_state(&class, &key);
                    events.push(Event::Invalidated {
                        class: Some(class),
                        pattern: key,
                    });
                }
            }
            // All keys are gone.
            _ => {
                near.drop_everything(Instant::now());
                events.push(Event::StartedAnew);
            }
        }
    }
    events.into_iter().for_each(|event| inner.tell(event));
}

/// Which servers keep states: the masters of a cluster, as one of its nodes knows them.
async fn places(l2: &L2, known: Option<&Tracking>) -> RedisResult<BTreeSet<Place>> {
    if !l2.options.cluster {
        return Ok(BTreeSet::from([None]));
    }
    let mut way = match known.and_then(|tracking| tracking.ways.first()) {
        Some(way) => way.clone(),
        None => scout(l2).await?,
    };
    let told: String = redis::cmd("CLUSTER")
        .arg("NODES")
        .query_async(&mut way)
        .await?;
    let places: BTreeSet<Place> = told.lines().filter_map(master).map(Some).collect();
    if places.is_empty() {
        let why = (redis::ErrorKind::Client, "CLUSTER NODES names no master");
        return Err(RedisError::from(why));
    }
    Ok(places)
}

/// A connection to the first node of a cluster that answers.
async fn scout(l2: &L2) -> RedisResult<MultiplexedConnection> {
    let mut outcome = Err(RedisError::from((
        redis::ErrorKind::Client,
        "no address of Redis",
    )));
    for address in &l2.options.addresses {
        let options = crate::L2Options {
            addresses: vec![address.clone()],
            ..l2.options.clone()
        };
        outcome = single(&options, None, None).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Host and port in a line of CLUSTER NODES, if it is about a master that is there: `id host:port@bus flags …`.
fn master(line: &str) -> Option<(String, u16)> {
    let mut words = line.split(' ').skip(1);
    let (address, flags) = (words.next()?, words.next()?);
    let mut flags = flags.split(',');
    if !flags.clone().any(|flag| flag == "master")
        || flags.any(|flag| matches!(flag, "fail" | "noaddr" | "handshake"))
    {
        return None;
    }
    let address = address.split('@').next()?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Goes on after a look at the meta hash: `generation` is the current one if a feeder is alive that has scripts.
/// `beginning` is from before it was asked for.
pub(crate) async fn follow(
    inner: &Arc<Inner>,
    l2: &Arc<L2>,
    tracking: &mut Option<Tracking>,
    generation: Option<u64>,
    beginning: Beginning,
) {
    let Some(generation) = generation else {
        // What is held stays: what changes is told all the same.
        return inner.near().doubt();
    };
    let proven = l2.answer(async {
        let places = places(l2, tracking.as_ref()).await?;
        let mut current = match tracking.take().filter(|it| it.places == places) {
            Some(current) => current,
            None => Tracking::open(inner, l2, places).await?,
        };
        if current.generation != generation {
            // Those of the pool may lead to a server that is no longer the one to ask.
            inner.retire_connections();
            inner.near().start_anew(generation, Instant::now());
            inner.tell(Event::StartedAnew);
            current.generation = generation;
        }
        current.prove().await?;
        *tracking = Some(current);
        Ok(())
    });
    match proven.await {
        Ok(()) => {
            let was_sure = {
                let mut near = inner.near();
                let was_sure = near.is_sure();
                near.prove(&beginning);
                was_sure
            };
            if !was_sure {
                inner.tell(Event::CaughtUp);
            }
        }
        Err(why) => {
            *tracking = None;
            inner.near().doubt();
            inner.tell(Event::Lost(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_found_among_the_nodes() {
        let told = "a1 10.0.0.1:6379@16379,host-a myself,master - 0 0 1 connected 0-5460
a2 10.0.0.2:6379@16379 slave a1 0 0 1 connected
a3 10.0.0.3:6380@16380 master - 0 0 2 connected 5461-16383
a4 10.0.0.4:6379@16379 master,fail - 0 0 2 disconnected
a5 :0@0 master,noaddr - 0 0 2 disconnected
a6 fe80::1:6379@16379 master - 0 0 3 connected
nonsense";
        let found: Vec<_> = told.lines().filter_map(master).collect();
        let expected = [("10.0.0.1", 6379), ("10.0.0.3", 6380), ("fe80::1", 6379)];
        let expected = expected.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(found, expected);
    }
}
