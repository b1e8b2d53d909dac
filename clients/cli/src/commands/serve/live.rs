//! Tells browsers of changes of runs, as they are committed.
//!
//! One thread follows the changes as `tail` does, on a connection of its own, and tells all browsers. A browser hears
//! `ready` once nothing is missed from then on, and again whenever something may have been missed: then the browser
//! asks for all that it shows. `lost` says that nothing is heard for now.

use crate::commands::tail::{self, Listener, Told};
use crate::connect::{Database, Parameters};
use crate::failure::Failure;
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};

/// Changes that a slow browser may be behind before it has to ask for everything.
const BEHIND: usize = 1024;

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Clone)]
enum News {
    Ready,
    Lost(String),
    Change(String),
}

impl News {
    fn event(self) -> Event {
        match self {
            Self::Ready => Event::default().event("ready").data("{}"),
            Self::Lost(why) => Event::default()
                .event("lost")
                .data(json!({ "error": why }).to_string()),
            Self::Change(change) => Event::default().event("change").data(change),
        }
    }
}

/// Who tells changes.
pub struct Live {
    news: broadcast::Sender<News>,
    /// What the last news was that is no change.
    state: watch::Receiver<News>,
}

struct Teller {
    news: broadcast::Sender<News>,
    state: watch::Sender<News>,
}

impl Teller {
    fn tell(&self, news: News) {
        // Nobody listens: nobody has to be told.
        let _ = self.news.send(news);
    }

    fn turn(&self, news: News) {
        self.state.send_replace(news.clone());
        self.tell(news);
    }
}

impl Listener for Teller {
    fn ready(&mut self) {
        self.turn(News::Ready);
    }

    fn lost(&mut self, why: &str) {
        self.turn(News::Lost(why.to_owned()));
    }

    fn change(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        let Told {
            class,
            key,
            version,
            op,
            ..
        } = *told;
        let change = json!({"op": op, "class": class, "key": key, "version": version});
        self.tell(News::Change(change.to_string()));
        Ok(())
    }

    fn end(&mut self, _cursor: &str) -> Result<(), Failure> {
        Ok(())
    }
}

/// Begins to follow.
pub fn start(parameters: Parameters) -> Live {
    let (news, _) = broadcast::channel(BEHIND);
    let (sender, state) = watch::channel(News::Lost("not connected yet".to_owned()));
    let mut teller = Teller {
        news: news.clone(),
        state: sender,
    };
    std::thread::spawn(move || {
        let arguments = tail::Arguments {
            class: Some("run".to_owned()),
            prefix: None,
            op: None,
            since: None,
            once: false,
            count: None,
            documents: false,
        };
        loop {
            let outcome = Database::connect(parameters.clone())
                .and_then(|database| tail::follow(&arguments, database, &mut teller));
            if let Err(failure) = outcome {
                teller.lost(&failure.to_string());
            }
            std::thread::sleep(PAUSE);
        }
    });
    Live { news, state }
}

impl Live {
    /// What a browser hears from now on.
    pub fn listen(&self) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        // In this order: a turn between the two is heard twice, and not never.
        let news = self.news.subscribe();
        let first = self.state.borrow().clone();
        stream::unfold((Some(first), news), |(first, mut news)| async {
            let next = match first {
                Some(first) => first,
                None => match news.recv().await {
                    Ok(next) => next,
                    // Too slow: what was missed is asked for.
                    Err(RecvError::Lagged(_)) => News::Ready,
                    Err(RecvError::Closed) => return None,
                },
            };
            Some((Ok(next.event()), (None, news)))
        })
    }
}
