//! A session that listens, and when it heard what.

use std::thread::JoinHandle;
use std::time::Instant;

use crate::Failure;
use crate::wire::Connection;

/// Channel of the messages about `run` states.
pub const CHANNEL: &str = "state_updated";
/// A payload of the bench's own: there is no more to listen to.
const END: &str = "end";

/// A thread that waits for notifications.
pub struct Subscriber {
    thread: JoinHandle<Result<(), String>>,
}

impl Subscriber {
    /// Listens from now on and hands each message and the time of its receipt to a function.
    pub fn start(mut hear: impl FnMut(&str, Instant) + Send + 'static) -> Result<Self, Failure> {
        let mut connection = Connection::open()?;
        connection.query(&format!("LISTEN {CHANNEL}"))?;
        let thread = std::thread::spawn(move || {
            loop {
                let payload = connection.notification();
                let payload = payload.map_err(|error| error.to_string())?;
                if payload == END {
                    return Ok(());
                }
                hear(&payload, Instant::now());
            }
        });
        Ok(Subscriber { thread })
    }

    /// Ends once everything is heard that was sent before.
    pub fn end(self, connection: &mut Connection) -> Result<(), Failure> {
        connection.query(&format!("NOTIFY {CHANNEL}, '{END}'"))?;
        Ok(self
            .thread
            .join()
            .map_err(|_| "the subscriber's thread panicked")??)
    }
}

/// Whether a message says that everything must be dropped, since there was more to tell than there was room
/// for.
pub fn is_overflow(payload: &str) -> bool {
    payload.contains(r#""op":"invalidate""#)
}
