//! The second connection: an application server that wants to hear which states have changed.

use std::error::Error;
use std::sync::mpsc;
use std::thread::JoinHandle;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

/// The channel on which the extension announces changes of class `run`.
const CHANGES: &str = "state_updated";
/// Notifications arrive in the order of the commits, so these mark where a round begins and where all ends.
const ROUND: &str = "state_cache_demo_round";
const END: &str = "state_cache_demo_end";

/// What the thread ends with: the payloads it heard.
type Heard = Result<Vec<String>, postgres::Error>;

/// A connection that listens in a thread of its own.
pub struct Listener {
    thread: JoinHandle<Heard>,
}

impl Listener {
    /// Starts to listen; returns once the server knows of it.
    pub fn start(mut client: Client) -> Result<Self, Box<dyn Error>> {
        let (ready, listening) = mpsc::channel();
        let thread: JoinHandle<Heard> = std::thread::spawn(move || {
            client.batch_execute(&format!("LISTEN {CHANGES}; LISTEN {ROUND}; LISTEN {END}"))?;
            // The main thread waits below, so somebody receives.
            let _ = ready.send(());
            let mut payloads = Vec::new();
            let mut notifications = client.notifications();
            let mut arriving = notifications.blocking_iter();
            while let Some(notification) = arriving.next()? {
                match notification.channel() {
                    ROUND => payloads.clear(),
                    END => break,
                    _ => payloads.push(notification.payload().to_owned()),
                }
            }
            Ok(payloads)
        });
        // An error here means that LISTEN has failed; the thread then says why.
        if listening.recv().is_err() {
            return Err(match thread.join() {
                Ok(Err(error)) => error.into(),
                _ => "the listener ended early".into(),
            });
        }
        Ok(Listener { thread })
    }

    /// The payloads of the last round.
    pub fn finish(self, client: &mut Client) -> Result<Vec<String>, Box<dyn Error>> {
        client.batch_execute(&format!("NOTIFY {END}"))?;
        Ok(self.thread.join().map_err(|_| "the listener panicked")??)
    }
}

/// Tells the listener that a round begins.
pub fn begin_round(client: &mut Client) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("NOTIFY {ROUND}"))
}
