//! What is measured, and /metrics and /healthz, which show it.

use crate::error::Error;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is known of the connection that listens.
struct Proof {
    /// When it was last proven that all is heard; at first, when the process began.
    at: Instant,
    /// Why nothing is followed at the moment, if that is so.
    why_not: Option<String>,
}

/// What is measured.
pub struct Metrics {
    registry: Registry,
    /// States, by what became of their write.
    pub states: IntCounterVec,
    /// Bytes, before packing and as stored.
    pub bytes: IntCounterVec,
    /// Lost connections and refused answers, by side.
    pub errors: IntCounterVec,
    /// Times that changes were asked for, by why.
    pub catch_ups: IntCounterVec,
    /// Generations begun, by why.
    pub generations: IntCounterVec,
    /// Changed states that wait.
    pub pending: IntGauge,
    /// How long the first of them has waited, in milliseconds; while nothing is followed, `unproven`.
    pub lag: IntGauge,
    /// How long ago it was last proven that all is heard, in milliseconds.
    unproven: IntGauge,
    proof: Mutex<Proof>,
    /// The current generation.
    pub generation: IntGauge,
    /// 1 while readers are told that all was heard.
    pub alive: IntGauge,
    /// States that the filling of the generation has written, and 1 once it is through.
    pub filled: IntGauge,
    /// See `filled`.
    pub fill_done: IntGauge,
    /// From hearing of a change until Redis has it, in seconds.
    pub delay: Histogram,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str,
                       help: &str,
                       label: &str|
         -> Result<IntCounterVec, prometheus::Error> {
            let made =
                IntCounterVec::new(Opts::new(format!("state_cache_l2_{name}"), help), &[label])?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let made = IntGauge::new(format!("state_cache_l2_{name}"), help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let seconds = vec![
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
        ];
        let delay = HistogramOpts::new(
            "state_cache_l2_delay_seconds",
            "from hearing of a change until Redis has it",
        );
        let delay = Histogram::with_opts(delay.buckets(seconds))?;
        registry.register(Box::new(delay.clone()))?;
        Ok(Self {
            states: counter(
                "states_total",
                "states, by what became of their write",
                "outcome",
            )?,
            bytes: counter(
                "bytes_total",
                "bytes of documents written, before packing and as stored",
                "form",
            )?,
            errors: counter(
                "errors_total",
                "errors that made the feeder connect anew",
                "side",
            )?,
            catch_ups: counter(
                "catch_ups_total",
                "times that changes were asked for",
                "why",
            )?,
            generations: counter("generations_total", "generations begun", "why")?,
            pending: gauge("pending_states", "changed states that are not written yet")?,
            lag: gauge(
                "lag_milliseconds",
                "how long the first of them has waited; as unproven_milliseconds while nothing is followed",
            )?,
            unproven: gauge(
                "unproven_milliseconds",
                "how long ago it was last proven that all is heard",
            )?,
            proof: Mutex::new(Proof {
                at: Instant::now(),
                why_not: Some("starting".to_owned()),
            }),
            generation: gauge("generation", "the current generation")?,
            alive: gauge("alive", "1 while readers are told that all was heard")?,
            filled: gauge(
                "filled_states",
                "states that the filling of the generation has written",
            )?,
            fill_done: gauge("fill_done", "1 once the generation is filled")?,
            delay,
            registry,
        })
    }

    /// Never held across an await.
    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is heard is followed, and a proof was asked for at this moment and has arrived.
    pub fn follows(&self, proven: Instant) {
        *self.proof() = Proof {
            at: proven,
            why_not: None,
        };
    }

    /// From now on nothing is followed, and readers are told so. The lag counts from the last proof.
    pub fn lose(&self, why: String) {
        self.alive.set(0);
        self.proof().why_not = Some(why);
    }

    /// Counts the time that has passed since the last proof. Why nothing is followed, if that is so.
    fn look_at_proof(&self) -> Option<String> {
        let proof = self.proof();
        let since = i64::try_from(proof.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.unproven.set(since);
        if proof.why_not.is_some() {
            self.lag.set(since);
        }
        proof.why_not.clone()
    }

    fn text(&self) -> Result<String, prometheus::Error> {
        self.look_at_proof();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn health(&self) -> (StatusCode, String) {
        let why_not = self.look_at_proof();
        let alive = self.alive.get() == 1;
        let status = if alive {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let (pending, lag, generation) =
            (self.pending.get(), self.lag.get(), self.generation.get());
        let text = serde_json::json!({
            "alive": alive, "pending": pending, "lag_milliseconds": lag, "generation": generation,
            "filled": self.filled.get(), "fill_done": self.fill_done.get() == 1,
            "unproven_milliseconds": self.unproven.get(), "error": why_not,
        });
        (status, text.to_string())
    }
}

/// Answers /metrics and /healthz, for ever.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(Error::Listen)?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening for /metrics and /healthz");
    }
    let shown = metrics.clone();
    let app = Router::new()
        .route(
            "/metrics",
            get(move || async move {
                shown
                    .text()
                    .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
            }),
        )
        .route("/healthz", get(move || async move { metrics.health() }));
    axum::serve(listener, app).await.map_err(Error::Listen)
}
