//! The recorded run made by several agents at once: a root, and a child for each agent, each on a connection of its
//! own. One of the runners loses its lease, and one of the merges is left to a person.

use std::error::Error;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Client, GenericClient};
use serde_json::{Value, json};

use crate::script::{Part, Script, Step, values};

/// The swarm that the root belongs to.
const SWARM: &str = "on-call";
/// Tool calls that the root may make with all that is below it.
const TOOL_CALLS: i64 = 30;
/// Tool calls that a child is allotted.
const ALLOTTED: i64 = 8;
/// The lease of a runner that does its work.
const LEASE: &str = "30 s";
/// The runner that loses its lease.
const LOSER: &str = "runner-3";
/// Its lease.
const SHORT_LEASE: &str = "100 ms";
/// Steps that the runner makes before it loses its lease.
const BEFORE_STOPPING: usize = 2;
/// How long a runner waits before it asks again for a run that another has.
const PATIENCE: Duration = Duration::from_millis(5);
/// The variable that every agent changes.
const SHARED: &str = "Notebook";

/// What the person says who decides about it.
const DECISION: &str = "the pages of all three agents";

/// What a thread ends with.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A variable that came to the root.
pub struct Return {
    /// Its name.
    pub variable: String,
    /// The agent from whose run it came.
    pub agent: &'static str,
    /// On which way, in words that go before the agent's name.
    pub by: &'static str,
    /// Why the root has the value that it has, in the extension's words.
    pub reason: String,
    /// What a person has to decide.
    pub conflict: Option<i64>,
}

/// Who made which steps of a part.
pub struct Runner {
    /// The run.
    pub run: String,
    /// Name of the runner.
    pub name: String,
    /// The steps, by their numbers.
    pub steps: Vec<usize>,
    /// The step in which the runner let its lease run out.
    pub stopped_in: Option<usize>,
}

/// An error that the server reported, as it is expected here.
pub struct Refusal {
    /// SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// Its detail.
    pub detail: String,
}

/// What happened.
pub struct Story {
    /// The root.
    pub root: String,
    /// Its swarm.
    pub swarm: &'static str,
    /// Who made what.
    pub runners: Vec<Runner>,
    /// The runner that lost its lease.
    pub loser: &'static str,
    /// What it was told at COMMIT.
    pub lost: Refusal,
    /// What came to the root.
    pub returns: Vec<Return>,
    /// What the root was told that was to be completed under an open conflict.
    pub undecided: Refusal,
    /// Why the conflict was resolved as it was.
    pub decision: &'static str,
    /// The key of the item on the blackboard.
    pub item: String,
    /// What was in the outbox: name of the export and the system that it goes to.
    pub sent: Vec<(String, String)>,
    /// Tool calls that the root was charged with in the end.
    pub tool_calls: i64,
    /// Tool calls that it might have made.
    pub tool_call_limit: i64,
}

/// What a runner brings back.
struct Done {
    runners: Vec<Runner>,
    returns: Vec<Return>,
    lost: Option<Refusal>,
}

/// Plays the script. Fails unless it ends as it was recorded.
pub fn play(
    script: &Script,
    connect: impl Fn() -> Result<Client, Box<dyn Error>>,
) -> Result<Story, Box<dyn Error>> {
    let mut client = connect()?;
    let root = script.run.as_str();
    client.query(
        "SELECT state_context_create($1, 'incident_triage', $2::text::jsonb, swarm_id => $3,
                    resource_limits => jsonb_build_object('maxToolCalls', $4::bigint))",
        &[&root, &script.first.to_string(), &SWARM, &TOOL_CALLS],
    )?;
    for part in &script.parts {
        client.query(
            "SELECT state_context_child($1, $2, routine_id => $3,
                        resource_limits => jsonb_build_object('maxToolCalls', $4::bigint))",
            &[&root, &run_of(root, part), &part.agent, &ALLOTTED],
        )?;
    }
    let [metrics, deployments, tickets] = &script.parts;
    let [mut first, mut second, mut third, mut fourth] =
        [connect()?, connect()?, connect()?, connect()?];
    let done = std::thread::scope(|scope| {
        [
            scope.spawn(move || exports_to_parent(&mut first, root, metrics)),
            scope.spawn(move || merges(&mut second, root, deployments)),
            scope.spawn(move || loses_its_lease([&mut third, &mut fourth], root, tickets)),
        ]
        .map(|thread| thread.join())
    });
    let (mut runners, mut returns, mut lost) = (Vec::new(), Vec::new(), None);
    for outcome in done {
        let outcome = outcome.map_err(|_| "an agent's thread panicked")?;
        let done = outcome.map_err(|error| -> Box<dyn Error> { error })?;
        runners.extend(done.runners);
        returns.extend(done.returns);
        lost = lost.or(done.lost);
    }
    let review = format!(r#"{{"{SHARED}":"manual_review"}}"#);
    returns.extend(merge(&mut client, root, tickets, Some(&review))?);
    let undecided = refused(client.query("SELECT state_context_complete($1)", &[&root]))
        .ok_or("a run was completed under an open conflict")?;
    decide(&mut client, script, &returns)?;
    complete_root(&mut client, script)?;
    let item = check_end(&mut client, script)?;
    let row = client.query_one(
        "SELECT (state_context_get($1) #>> '{usage,toolCalls}')::bigint",
        &[&root],
    )?;
    Ok(Story {
        root: root.to_owned(),
        swarm: SWARM,
        runners,
        loser: LOSER,
        lost: lost.ok_or("no runner has lost its lease")?,
        returns,
        undecided,
        decision: DECISION,
        item,
        sent: drain_outbox(&mut client)?,
        tool_calls: row.try_get(0)?,
        tool_call_limit: TOOL_CALLS,
    })
}

/// The run of an agent.
fn run_of(root: &str, part: &Part) -> String {
    format!("{root}/{}", part.agent)
}

/// Claims a run, as soon as nobody else has it; the token.
fn claim(client: &mut Client, run: &str, runner: &str, lease: &str) -> Outcome<i64> {
    loop {
        let claimed = client.query_one(
            "SELECT state_context_claim($1, $2, $3::text::interval)",
            &[&run, &runner, &lease],
        );
        match claimed {
            Ok(row) => return Ok(row.try_get(0)?),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                std::thread::sleep(PATIENCE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Changes the variables of one step.
fn patch(
    client: &mut impl GenericClient,
    run: &str,
    token: i64,
    step: &Step,
) -> Result<(), postgres::Error> {
    for (name, patch) in &step.patches {
        client.query(
            "SELECT state_context_patch($1, $2, $3::text::jsonb, token => $4)",
            &[&run, name, &patch.to_string(), &token],
        )?;
    }
    Ok(())
}

/// Makes steps, each a transaction and one tool call; what the runner did.
fn work(
    client: &mut Client,
    (run, name): (&str, &str),
    token: i64,
    steps: &[Step],
) -> Result<Runner, postgres::Error> {
    for step in steps {
        let mut transaction = client.transaction()?;
        patch(&mut transaction, run, token, step)?;
        transaction.query(
            "SELECT state_context_spend($1, 'toolCalls', 1, $2)",
            &[&run, &token],
        )?;
        transaction.commit()?;
    }
    Ok(Runner {
        run: run.to_owned(),
        name: name.to_owned(),
        steps: steps.iter().map(|step| step.number).collect(),
        stopped_in: None,
    })
}

/// An agent whose variables go to the parent as exports, when it completes.
fn exports_to_parent(client: &mut Client, root: &str, part: &Part) -> Outcome<Done> {
    let (run, name) = (run_of(root, part), "runner-1");
    let token = claim(client, &run, name, LEASE)?;
    let runner = work(client, (&run, name), token, &part.steps)?;
    let mut transaction = client.transaction()?;
    for variable in ["Metrics", SHARED] {
        transaction.query(
            "SELECT state_context_mark_export($1, $2, 'parent_context', token => $3)",
            &[&run, &variable, &token],
        )?;
    }
    transaction.commit()?;
    let rows = client.query(
        "SELECT key, reason FROM state_context_complete($1, token => $2)",
        &[&run, &token],
    )?;
    let returns = rows.iter().map(|row| {
        Ok(Return {
            variable: row.try_get(0)?,
            agent: part.agent,
            by: "exported by",
            reason: row.try_get(1)?,
            conflict: None,
        })
    });
    Ok(Done {
        runners: vec![runner],
        returns: returns.collect::<Result<_, postgres::Error>>()?,
        lost: None,
    })
}

/// An agent whose run is merged; something of it also goes to another system.
fn merges(client: &mut Client, root: &str, part: &Part) -> Outcome<Done> {
    let (run, name) = (run_of(root, part), "runner-2");
    let token = claim(client, &run, name, LEASE)?;
    let runner = work(client, (&run, name), token, &part.steps)?;
    client.query(
        "SELECT state_context_mark_export($1, 'Deployments', 'external_system', '$.jobs', 'status-page', token => \
            $2)",
        &[&run, &token],
    )?;
    client.query(
        "SELECT state_context_complete($1, token => $2)",
        &[&run, &token],
    )?;
    Ok(Done {
        runners: vec![runner],
        returns: merge(client, root, part, None)?,
        lost: None,
    })
}

/// An agent with two runners: the first stays in a transaction until its lease is over, and the second takes over.
/// Its merge is left to the root.
fn loses_its_lease([first, second]: [&mut Client; 2], root: &str, part: &Part) -> Outcome<Done> {
    let run = run_of(root, part);
    let (names, (begun, rest)) = ([LOSER, "runner-4"], part.steps.split_at(BEFORE_STOPPING));
    let step = rest.first().ok_or("nothing is left for the successor")?;
    let token = claim(first, &run, names[0], SHORT_LEASE)?;
    let mut stopped = work(first, (&run, names[0]), token, begun)?;
    stopped.stopped_in = Some(step.number);
    let mut transaction = first.transaction()?;
    patch(&mut transaction, &run, token, step)?;
    let token = claim(second, &run, names[1], LEASE)?;
    let lost = refused(transaction.commit()).ok_or("a runner wrote without its lease")?;
    let successor = work(second, (&run, names[1]), token, rest)?;
    second.query(
        "SELECT state_context_complete($1, token => $2)",
        &[&run, &token],
    )?;
    Ok(Done {
        runners: vec![stopped, successor],
        returns: Vec::new(),
        lost: Some(lost),
    })
}

/// What the server refused; `None` if it did not.
fn refused<T>(result: Result<T, postgres::Error>) -> Option<Refusal> {
    let error = result.err()?;
    let error = error.as_db_error()?;
    Some(Refusal {
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().unwrap_or_default().to_owned(),
    })
}

/// Merges the run of an agent into the root.
fn merge(
    client: &mut Client,
    root: &str,
    part: &Part,
    per_variable: Option<&str>,
) -> Result<Vec<Return>, postgres::Error> {
    let rows = client.query(
        "SELECT variable, reason, conflict FROM state_context_merge($1, per_variable => $2::text::jsonb)",
        &[&run_of(root, part), &per_variable],
    )?;
    let returns = rows.iter().map(|row| {
        Ok(Return {
            variable: row.try_get(0)?,
            agent: part.agent,
            by: "merged from",
            reason: row.try_get(1)?,
            conflict: row.try_get(2)?,
        })
    });
    returns.collect()
}

/// The person who decides wants all pages: what the recorded run had in the end.
fn decide(client: &mut Client, script: &Script, returns: &[Return]) -> Result<(), Box<dyn Error>> {
    let conflicts: Vec<_> = returns.iter().filter_map(|one| one.conflict).collect();
    let [conflict] = conflicts.as_slice() else {
        return Err(format!("{} conflicts, not one", conflicts.len()).into());
    };
    client.query(
        "SELECT state_conflict_resolve($1, $2::text::jsonb, $3)",
        &[conflict, &script.last[SHARED].to_string(), &DECISION],
    )?;
    Ok(())
}

/// Completes the root: what was found goes to the blackboard of the swarm, the report to the archive.
fn complete_root(client: &mut Client, script: &Script) -> Result<(), postgres::Error> {
    let root = script.run.as_str();
    let mut transaction = client.transaction()?;
    transaction.query(
        "SELECT state_context_set($1, 'report', $2::text::jsonb)",
        &[&root, &script.report.to_string()],
    )?;
    transaction.query(
        "SELECT state_context_mark_export($1, 'report', 'external_system', target => 'archive')",
        &[&root],
    )?;
    let item = json!({ "type": "observation", "tags": [root] }).to_string();
    transaction.query(
        "SELECT state_context_mark_export($1, $2, 'blackboard', '$.pages.findings', target_key => 'findings',
                    item => $3::text::jsonb)",
        &[&root, &SHARED, &item],
    )?;
    transaction.query("SELECT state_context_complete($1)", &[&root])?;
    transaction.commit()
}

/// Fails unless all has ended, and as it was recorded; the key of the item on the blackboard.
fn check_end(client: &mut Client, script: &Script) -> Result<String, Box<dyn Error>> {
    let row = client.query_one(
        "SELECT count(*) FROM state_context_tree($1) WHERE status = 'completed'",
        &[&script.run],
    )?;
    let (completed, runs) = (row.try_get::<_, i64>(0)?, script.parts.len() as i64 + 1);
    if completed != runs {
        return Err(format!("{completed} of {runs} runs have completed").into());
    }
    let row = client.query_one("SELECT state_context_get($1)::text", &[&script.run])?;
    let mut found = values(&serde_json::from_str(row.try_get(0)?)?);
    found.remove("report");
    if Value::Object(found) != script.last {
        return Err("the root does not hold the recorded variables".into());
    }
    let items = client.query(
        "SELECT key, value::text FROM state_blackboard_query($1, 'observation', $2)",
        &[&SWARM, &script.run],
    )?;
    let [item] = items.as_slice() else {
        return Err(format!("{} items on the blackboard, not one", items.len()).into());
    };
    let value: Value = serde_json::from_str(item.try_get(1)?)?;
    if value != script.last[SHARED]["pages"]["findings"] {
        return Err("the blackboard does not hold the recorded findings".into());
    }
    Ok(item.try_get(0)?)
}

/// Takes what is in the outbox, as a consumer beside others would.
fn drain_outbox(client: &mut Client) -> Result<Vec<(String, String)>, postgres::Error> {
    let rows = client.query(
        "WITH taken AS (SELECT id FROM state_outbox WHERE acknowledged_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED)
         UPDATE state_outbox o SET acknowledged_at = now() FROM taken WHERE o.id = taken.id
         RETURNING o.key, o.target",
        &[],
    )?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}
