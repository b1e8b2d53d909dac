//! What the client tells the recorder of the `metrics` crate.

use super::Home;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use serde_json::json;
use state_cache_client::{StateCache, Tier};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Counts, and how often each histogram has heard of something, by name and label.
#[derive(Default)]
struct Kept(Mutex<HashMap<String, Arc<AtomicU64>>>);

struct Heard(Arc<AtomicU64>);

impl HistogramFn for Heard {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Kept {
    fn at(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        let mut kept = self.0.lock().unwrap();
        kept.entry(name.trim_end().to_owned()).or_default().clone()
    }

    fn count(&self, name: &str) -> u64 {
        let kept = self.0.lock().unwrap();
        let count = kept
            .get(name)
            .unwrap_or_else(|| panic!("nobody tells {name}"));
        count.load(Ordering::SeqCst)
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.at(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.at(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Heard(self.at(key))))
    }
}

#[test]
fn the_recorder_hears_what_stats_counts() {
    let home = Home::new("exported");
    let kept = Kept::default();
    let cache = metrics::with_local_recorder(&kept, || home.connect(StateCache::builder()));
    home.run(cache.set("config", "x", &json!({"n": 1})))
        .unwrap();
    // Until the near cache answers: the message about the write may come in between.
    state_cache_server_tests::eventually("a hit", || {
        let read = home.run(cache.read::<serde_json::Value>("config", "x"));
        read.unwrap().tier == Tier::Near
    });
    let stats = cache.stats();
    for (tier, of) in [
        ("near", stats.near),
        ("l2", stats.l2),
        ("server", stats.server),
    ] {
        let name = |what: &str| kept.count(&format!("state_cache_client_{what} {tier}"));
        assert_eq!(name("hits_total"), of.hits, "{tier}");
        assert_eq!(name("misses_total"), of.misses, "{tier}");
        assert_eq!(name("errors_total"), of.errors, "{tier}");
        assert_eq!(name("bytes_total"), of.bytes, "{tier}");
        assert_eq!(name("seconds"), of.timed, "{tier}");
    }
    assert!(stats.near.hits > 0 && stats.server.hits > 0 && stats.near.bytes > 0);
    // A gauge is kept as the bits of its number.
    let entries = f64::from_bits(kept.count("state_cache_client_entries"));
    assert_eq!(entries, 1.0);
}
