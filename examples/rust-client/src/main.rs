//! First steps in Rust: `docs/clients/rust.md` shows parts of this program.
//!
//! `rust-client 'host=… user=… dbname=…'` exits with 0 when everything came out as the page says.

// docs: connect
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Client, Error, NoTls, Transaction};
use serde_json::{Value, json};

fn connect(parameters: &str) -> Result<Client, Error> {
    Client::connect(parameters, NoTls)
}
// docs: end

use std::process::ExitCode;
use std::time::Duration;

/// Two sessions: that of the program, and somebody else's.
struct Sessions {
    client: Client,
    other: Client,
    parameters: String,
}

type Step = fn(&mut Sessions) -> Outcome;
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The only value of the only row.
fn value(client: &mut Client, statement: &str) -> Result<Value, Error> {
    client.query_one(statement, &[])?.try_get(0)
}

fn documents(Sessions { client, .. }: &mut Sessions) -> Outcome {
    // docs: documents
    client.execute(
        "SELECT state_set($1, $2)",
        &[&"rust-run", &json!({"step": 1, "messages": []})],
    )?;
    let state: Option<Value> = client
        .query_one("SELECT state_get($1)", &[&"rust-run"])?
        .try_get(0)?;
    assert_eq!(state, Some(json!({"step": 1, "messages": []}))); // None if there is no such state
    // docs: end
    Ok(())
}

fn paths(Sessions { client, .. }: &mut Sessions) -> Outcome {
    // docs: paths
    client.execute(
        "SELECT state_append($1, $2, $3)",
        &[&"rust-run", &vec!["messages"], &json!({"role": "user"})],
    )?;
    let path = vec!["messages", "0", "role"];
    let role: Value = client
        .query_one("SELECT state_get_path($1, $2)", &[&"rust-run", &path])?
        .try_get(0)?;
    assert_eq!(role, "user");
    // docs: end
    Ok(())
}

fn arguments_by_name(Sessions { client, .. }: &mut Sessions) -> Outcome {
    // docs: names
    // The driver has no type for intervals: text, which SQL casts.
    client.execute(
        "SELECT state_set($1, $2, ttl => $3::text::interval, class => $4)",
        &[&"rust-limits", &json!({"rows": 100}), &"1 hour", &"config"],
    )?;
    // docs: end
    assert_eq!(
        value(
            client,
            "SELECT state_get_path('rust-limits', '{rows}', class => 'config')"
        )?,
        100
    );
    Ok(())
}

fn listening(
    Sessions {
        client, parameters, ..
    }: &mut Sessions,
) -> Outcome {
    // docs: listen
    let mut listener = connect(parameters)?; // a connection that does nothing else
    listener.batch_execute("LISTEN state_updated")?;
    // docs: end
    client.execute("SELECT state_set($1, $2)", &[&"rust-told", &json!(1)])?;
    // docs: notifies
    let mut notifications = listener.notifications();
    let heard = notifications.timeout_iter(Duration::from_secs(10)).next()?;
    // docs: end
    let heard = heard.ok_or("nothing was heard")?;
    assert!(
        heard.payload().contains(r#""key":"rust-told""#),
        "{heard:?}"
    );
    Ok(())
}

// docs: retry
/// Runs `work` in a transaction, and again as long as other transactions are faster.
fn in_transaction<T>(
    client: &mut Client,
    mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    loop {
        match attempt(client, &mut work) {
            // From a statement or from COMMIT: nothing is kept, read again.
            Err(error)
                if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
                    || error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
            done => return done,
        }
    }
}

fn attempt<T>(
    client: &mut Client,
    work: &mut impl FnMut(&mut Transaction<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut transaction = client.transaction()?;
    let result = work(&mut transaction)?; // an error drops the transaction, which rolls back
    transaction.commit()?;
    Ok(result)
}
// docs: end

fn retrying(Sessions { client, other, .. }: &mut Sessions) -> Outcome {
    client.execute(
        "SELECT state_set($1, $2)",
        &[&"rust-step", &json!({"step": 1})],
    )?;
    let mut attempts = 0;
    in_transaction(client, |transaction| {
        attempts += 1;
        let row = transaction.query_one(
            "SELECT state_version('rust-step'), state_get('rust-step')",
            &[],
        )?;
        let (version, mut state): (i64, Value) = (row.try_get(0)?, row.try_get(1)?);
        state["step"] = json!(state["step"].as_i64().unwrap_or(0) + 1);
        transaction.execute(
            "SELECT state_set('rust-step', $1, expected_version => $2)",
            &[&state, &version],
        )?;
        match attempts {
            // Somebody is faster. Only COMMIT can find out.
            1 => other.execute(
                "SELECT state_update('rust-step', $1)",
                &[&json!({"note": "mine"})],
            ),
            2 => transaction.execute("DO $$ BEGIN RAISE deadlock_detected; END $$", &[]),
            _ => Ok(0),
        }
    })?;
    assert_eq!(attempts, 3);
    assert_eq!(
        value(client, "SELECT state_get('rust-step')")?,
        json!({"step": 2, "note": "mine"})
    );
    Ok(())
}

fn expected_version(Sessions { client, .. }: &mut Sessions) -> Outcome {
    // docs: expected_version
    let count_up = |transaction: &mut Transaction<'_>| {
        let row = transaction.query_one(
            "SELECT coalesce(state_version($1), 0), state_get($1)",
            &[&"rust-hot"],
        )?;
        let (version, state): (i64, Option<Value>) = (row.try_get(0)?, row.try_get(1)?);
        let count = state.map_or(0, |state| state["count"].as_i64().unwrap_or(0));
        transaction.execute(
            "SELECT state_set($1, $2, expected_version => $3)",
            &[&"rust-hot", &json!({"count": count + 1}), &version],
        )
    };
    in_transaction(client, count_up)?;
    // docs: end
    in_transaction(client, count_up)?;
    assert_eq!(
        value(client, "SELECT state_get('rust-hot')")?,
        json!({"count": 2})
    );
    Ok(())
}

fn operation(Sessions { client, other, .. }: &mut Sessions) -> Outcome {
    // docs: operation
    client.execute(
        "SELECT state_merge($1, $2)",
        &[&"rust-hot", &json!({"seen": {"mail": true}})],
    )?;
    // docs: end
    in_transaction(client, |transaction| {
        transaction.execute(
            "SELECT state_merge('rust-hot', $1)",
            &[&json!({"seen": {"bank": true}})],
        )?;
        other.execute(
            "SELECT state_update('rust-hot', $1)",
            &[&json!({"count": 7})],
        )
    })?;
    let state = value(client, "SELECT state_get('rust-hot')")?;
    assert_eq!(
        state,
        json!({"count": 7, "seen": {"mail": true, "bank": true}})
    );
    Ok(())
}

fn batch(Sessions { client, other, .. }: &mut Sessions) -> Outcome {
    client.batch_execute(
        r#"SELECT state_set('rust-a', '{"left": 5}'), state_set('rust-b', '{"left": 0}')"#,
    )?;
    // docs: batch
    in_transaction(client, |transaction| {
        transaction.execute("SELECT state_batch_begin()", &[])?; // what was read must still be so at COMMIT
        let rows = transaction.query(
            "SELECT state FROM state_get_many($1)",
            &[&vec!["rust-a", "rust-b"]],
        )?;
        let left = |n: usize| -> Result<i64, Error> {
            Ok(rows[n].try_get::<_, Value>(0)?["left"]
                .as_i64()
                .unwrap_or(0))
        };
        transaction.execute(
            "SELECT state_update('rust-a', $1)",
            &[&json!({"left": left(0)? - 1})],
        )?;
        transaction.execute(
            "SELECT state_update('rust-b', $1)",
            &[&json!({"left": left(1)? + 1})],
        )
    })?;
    // docs: end
    let left = value(
        client,
        "SELECT jsonb_agg(state -> 'left') FROM state_get_many('{rust-a,rust-b}')",
    )?;
    assert_eq!(left, json!([4, 1]));
    // A state that was only read counts too.
    let mut attempts = 0;
    in_transaction(client, |transaction| {
        attempts += 1;
        transaction.execute("SELECT state_batch_begin(), state_get('rust-a')", &[])?;
        transaction.execute("SELECT state_update('rust-b', $1)", &[&json!({"left": 9})])?;
        match attempts {
            1 => other.execute("SELECT state_update('rust-a', $1)", &[&json!({"left": 3})]),
            _ => Ok(0),
        }
    })?;
    assert_eq!(attempts, 2);
    Ok(())
}

fn bulk_load(Sessions { client, .. }: &mut Sessions) -> Outcome {
    let documents: Vec<_> = (0..1000)
        .map(|n| (format!("rust-row-{n}"), json!({"row": n})))
        .collect();
    // docs: bulk
    in_transaction(client, |transaction| {
        transaction.batch_execute(
            "CREATE TEMPORARY TABLE incoming (key text, state jsonb) ON COMMIT DROP",
        )?;
        let sink = transaction.copy_in("COPY incoming (key, state) FROM STDIN BINARY")?;
        let mut writer = BinaryCopyInWriter::new(sink, &[Type::TEXT, Type::JSONB]);
        for (key, document) in &documents {
            writer.write(&[key, document])?;
        }
        writer.finish()?;
        transaction.execute(
            "SELECT state_set(key, state, class => 'config') FROM incoming",
            &[],
        )
    })?;
    // docs: end
    let rows = "SELECT to_jsonb(count(*)) FROM state_current WHERE class = 'config' AND key ~ '^rust-row-'";
    assert_eq!(value(client, rows)?, 1000);
    Ok(())
}

/// What beginners write, and what it is answered with.
fn first_errors(Sessions { client, .. }: &mut Sessions) -> Outcome {
    client.execute(
        "SELECT state_context_create('rust-once', resource_limits => $1)",
        &[&json!({"maxCredits": 9})],
    )?;
    // The driver says the types in the source of its error.
    let refused = |done: Result<u64, Error>, expected: &str| {
        let source = done.err().and_then(|error| error.into_source());
        let says = source.map_or_else(|| "no error".to_owned(), |source| source.to_string());
        assert!(says.contains(expected), "{says}, not: {expected}");
    };
    refused(
        client.execute("SELECT state_get($1)", &[&42]),
        "`i32` and the Postgres type `text`",
    );
    refused(
        client.execute("SELECT state_set('x', $1)", &[&"{}"]),
        "`&str` and the Postgres type `jsonb`",
    );
    refused(
        client.execute("SELECT state_set('x', '1', expected_version => $1)", &[&0]),
        "`i32` and the Postgres type `int8`",
    );
    refused(
        client.execute("SELECT state_set('x', '1', ttl => $1)", &[&3600]),
        "`i32` and the Postgres type `interval`",
    );
    refused(
        client.execute(
            "SELECT state_context_spend('rust-once', 'credits', $1)",
            &[&1.5],
        ),
        "`f64` and the Postgres type `numeric`",
    );
    refused(
        client.execute("SELECT state_context_set('rust-once', 'step', $1)", &[&5]),
        "`i32` and the Postgres type `jsonb`",
    );
    // docs: runs
    let left: String = client
        .query_one(
            "SELECT state_context_spend($1, 'credits', $2::text::numeric)::text",
            &[&"rust-once", &"1.5"],
        )?
        .try_get(0)?;
    client.execute(
        "SELECT state_context_set($1, $2, $3)",
        &[&"rust-once", &"step", &json!(5)],
    )?;
    // docs: end
    assert_eq!(left, "7.5");
    Ok(())
}

fn run() -> Outcome {
    let [parameters] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("rust-client 'host=… user=… dbname=…'".into());
    };
    let mut sessions = Sessions {
        client: connect(parameters)?,
        other: connect(parameters)?,
        parameters: parameters.clone(),
    };
    let clean_up =
        "SELECT state_delete(key) FROM state_head WHERE class = 'run' AND key LIKE 'rust-%'";
    sessions.client.execute(clean_up, &[])?;
    let steps: [(&str, Step); 10] = [
        ("documents", documents),
        ("paths", paths),
        ("arguments_by_name", arguments_by_name),
        ("listening", listening),
        ("retrying", retrying),
        ("expected_version", expected_version),
        ("operation", operation),
        ("batch", batch),
        ("bulk_load", bulk_load),
        ("first_errors", first_errors),
    ];
    for (name, step) in steps {
        step(&mut sessions)?;
        println!("rust_client: {name}: ok");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-client: {error}");
            ExitCode::FAILURE
        }
    }
}
