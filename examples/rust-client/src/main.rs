//! First steps in Rust: `docs/clients/rust.md` shows parts of this program.
//!
//! `rust-client 'host=… user=… dbname=…'` exits with 0 when everything came out as the page says.

// docs: connect
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state_cache_client::{
    BatcherOptions, Checkpoint, ClassLimits, Error, Event, SetOptions, StateCache, Tier,
    TransactionOptions, WhileDown,
};
use std::time::Duration;

async fn connect(parameters: &str) -> Result<StateCache, Error> {
    let limits = ClassLimits {
        entries: 10_000,
        ttl: Duration::from_secs(600),
        ..ClassLimits::default()
    };
    StateCache::builder()
        .connection(parameters)
        .class("run", limits) // what the near cache may hold of it
        .while_down(WhileDown::Bypass)
        .connect()
        .await
}
// docs: end

use std::process::ExitCode;

/// Two clients: that of the program, and somebody else's.
struct Clients {
    cache: StateCache,
    other: StateCache,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

// docs: types
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    step: u32,
    messages: Vec<Message>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    role: String,
}
// docs: end

async fn documents(Clients { cache, .. }: &Clients) -> Outcome {
    // docs: documents
    let plan = Plan {
        step: 1,
        messages: vec![],
    };
    cache.set("run", "rust-run", &plan).await?;
    let read = cache.get::<Plan>("run", "rust-run").await?;
    assert_eq!(read.as_deref(), Some(&plan)); // None if there is no such state
    // docs: end
    Ok(())
}

async fn parts(Clients { cache, .. }: &Clients) -> Outcome {
    // docs: parts
    let message = Message {
        role: "user".to_owned(),
    };
    cache
        .append("run", "rust-run", &["messages"], &message)
        .await?;
    let path = ["messages", "0", "role"];
    let role: Option<String> = cache.get_path("run", "rust-run", &path).await?;
    assert_eq!(role.as_deref(), Some("user"));
    cache
        .merge(
            "run",
            "rust-run",
            &json!({"step": 2, "seen": {"mail": true}}),
        )
        .await?;
    // docs: end
    Ok(())
}

async fn many(Clients { cache, .. }: &Clients) -> Outcome {
    // docs: many
    let read = cache
        .get_many::<Value>("run", &["rust-run", "rust-absent"])
        .await?;
    assert!(read[0].is_some() && read[1].is_none());
    // docs: end
    Ok(())
}

async fn hits(Clients { cache, .. }: &Clients) -> Outcome {
    cache
        .set("config", "rust-limits", &json!({"rows": 100}))
        .await?;
    // A message about the write may still drop the copy: so ask until it is held.
    while cache.peek("config", "rust-limits").is_none() {
        cache.get::<Value>("config", "rust-limits").await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // docs: hits
    let answer = cache.read::<Value>("config", "rust-limits").await?;
    assert_eq!(answer.tier, Tier::Near); // Tier::Server when it had to be read
    assert_eq!(answer.unproven, None); // Some(age) only under WhileDown::ServeUpTo
    // docs: end
    Ok(())
}

async fn options(Clients { cache, .. }: &Clients) -> Outcome {
    // docs: options
    let options = SetOptions {
        expected_version: Some(0), // absent
        ttl: Some(Duration::from_secs(3600)),
    };
    cache
        .set_with("run", "rust-once", &json!({"n": 1}), options)
        .await?;
    let moved = cache
        .set_with("run", "rust-once", &json!({"n": 2}), options)
        .await;
    assert!(matches!(moved, Err(Error::Conflict(_)))); // 40001
    // docs: end
    // docs: save
    let checkpoint = Checkpoint {
        checkpoint_type: "critical",
        recovery_point: true,
        ..Checkpoint::default()
    };
    let saved = cache
        .save("run", "rust-once", &json!({"n": 3}), checkpoint)
        .await?;
    assert_eq!(saved.action, "saved"); // or "unchanged", "deferred"; and saved.version
    // docs: end
    Ok(())
}

async fn transactions(Clients { cache, other }: &Clients) -> Outcome {
    let set_to_41 = json!({"count": 41});
    other.set("run", "rust-hot", &set_to_41).await?;
    // docs: expected_version
    let count = cache
        .transaction(|tx| async move {
            let read = tx.get::<Value>("run", "rust-hot").await?;
            let (version, state) = read.unwrap_or((0, json!({"count": 0})));
            let count = state["count"].as_i64().unwrap_or(0) + 1;
            let options = SetOptions {
                expected_version: Some(version),
                ..SetOptions::default()
            };
            tx.set_with("run", "rust-hot", &json!({"count": count}), options)
                .await?;
            Ok::<i64, Error>(count)
        })
        .await?;
    // docs: end
    assert_eq!(count, 42);
    cache.set("run", "rust-a", &json!({"left": 5})).await?;
    cache.set("run", "rust-b", &json!({"left": 0})).await?;
    // docs: batch
    let options = TransactionOptions {
        batch: true, // what was read must still be so at COMMIT
        ..TransactionOptions::default()
    };
    cache
        .transaction_with(options, |tx| async move {
            let mut left = [0, 0];
            for (place, key) in left.iter_mut().zip(["rust-a", "rust-b"]) {
                let read = tx.get::<Value>("run", key).await?;
                *place = read.map_or(0, |(_, state)| state["left"].as_i64().unwrap_or(0));
            }
            tx.update("run", "rust-a", &json!({"left": left[0] - 1}))
                .await?;
            tx.update("run", "rust-b", &json!({"left": left[1] + 1}))
                .await
        })
        .await?;
    // docs: end
    let left: Option<i64> = cache.get_path("run", "rust-a", &["left"]).await?;
    assert_eq!(left, Some(4));
    Ok(())
}

async fn batches(Clients { cache, .. }: &Clients) -> Outcome {
    // docs: batcher
    let batcher = cache.batcher(BatcherOptions {
        interval: Duration::from_millis(50),
        ..BatcherOptions::default()
    });
    for row in 0..1000 {
        batcher
            .set("config", &format!("rust-row-{row}"), &json!({"row": row}))
            .await?;
    }
    let receipt = batcher
        .update("config", "rust-row-7", &json!({"seen": true}))
        .await?;
    receipt.written().await?; // this one is committed
    batcher.close(Duration::from_secs(10)).await?; // and so are all others
    // docs: end
    let row = cache.get::<Value>("config", "rust-row-7").await?;
    assert_eq!(row.as_deref(), Some(&json!({"row": 7, "seen": true})));
    Ok(())
}

async fn runs(Clients { cache, .. }: &Clients) -> Outcome {
    // docs: runs
    let run = cache.run("rust-agent");
    run.create(&json!({"goal": "tidy"})).await?;
    let token = run.claim("worker-1", Duration::from_secs(30)).await?;
    run.set("step", &5).await?;
    run.release(token).await?;
    run.complete("completed").await?;
    // docs: end
    Ok(())
}

async fn events(Clients { cache, other }: &Clients) -> Outcome {
    // docs: events
    let mut events = cache.events();
    other.set("run", "rust-told", &1).await?;
    loop {
        match events.recv().await? {
            Event::Set { key, .. } if key == "rust-told" => break,
            _ => {}
        }
    }
    // docs: end
    Ok(())
}

async fn run() -> Outcome {
    let [parameters] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("rust-client 'host=… user=… dbname=…'".into());
    };
    let clients = Clients {
        cache: connect(parameters).await?,
        other: connect(parameters).await?,
    };
    let clean_up =
        "SELECT state_delete(key, class => class) FROM state_head WHERE key LIKE 'rust-%'";
    clients
        .cache
        .transaction(|tx| async move { tx.query(clean_up, &[]).await.map(drop) })
        .await?;
    documents(&clients).await?;
    println!("rust_client: documents: ok");
    parts(&clients).await?;
    println!("rust_client: parts: ok");
    many(&clients).await?;
    println!("rust_client: many: ok");
    hits(&clients).await?;
    println!("rust_client: hits: ok");
    options(&clients).await?;
    println!("rust_client: options: ok");
    transactions(&clients).await?;
    println!("rust_client: transactions: ok");
    batches(&clients).await?;
    println!("rust_client: batches: ok");
    runs(&clients).await?;
    println!("rust_client: runs: ok");
    events(&clients).await?;
    println!("rust_client: events: ok");
    Ok(())
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-client: {error}");
            ExitCode::FAILURE
        }
    }
}
