//! Damaged documents: an error or a result, never a panic.

use serde_json::json;
use state_cache_context::{Label, Run, Sensitivity, Strategy, merge, put, visible};
use state_cache_histories::Random;

use crate::no_guard;
use crate::support::jsonb;

#[test]
fn damage_is_an_error_or_goes_unseen() {
    let record = |name: &str, value: u32| {
        json!({"key": name, "value": {"n": value, "list": [value, "x"]},
        "timestamp": "2026-11-21T09:17:05Z", "sensitivity": "pii", "mutable": true})
    };
    let run = |value| {
        jsonb(
            &json!({"runId": "r", "status": "running", "sensitivityMap": {"y": "secret"},
            "conflicts": {"y": [1]}, "intermediate": {"x": 1},
            "exports": [{"key": "x", "destination": "blackboard", "sensitivity": "public"}],
            "variables": {"x": record("x", value), "y": record("y", value), "z": record("z", 0)}}),
        )
    };
    let whole = [run(1), run(2), run(3)];
    let random = &mut Random::new(7);
    let (mut refused, mut merged) = (0, 0);
    for _ in 0..20_000 {
        let mut documents = whole.clone();
        let document = &mut documents[random.below(3)];
        for _ in 0..=random.below(2) {
            let place = random.below(document.len());
            document[place] ^= 1 << random.below(8);
        }
        let _ = visible(document, b"r", Sensitivity::Internal);
        let runs = documents
            .each_ref()
            .map(|document| Run::open(document, b"r"));
        let [Ok(base), Ok(parent), Ok(child)] = runs else {
            refused += 1;
            continue;
        };
        let _ = child.check_all();
        let strategy = Strategy::ALL[random.below(Strategy::ALL.len())];
        match merge(&base.into(), &parent, &child, &|_| strategy, None, no_guard) {
            Err(_) => refused += 1,
            Ok(rows) => {
                merged += 1;
                let changes: Vec<_> = rows
                    .into_iter()
                    .filter_map(|row| row.becomes.map(|variable| (row.name, variable)))
                    .collect();
                let _ = put(parent.document(), &changes);
            }
        }
    }
    assert!(refused > 4_000 && merged > 2_000, "{refused} and {merged}");
}
