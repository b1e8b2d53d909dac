//! The addresses of the page, and what each answers.
//!
//! | address | answer |
//! | --- | --- |
//! | `/`, `/page.css`, `/page.js` | the page |
//! | `/api/about` | database, role, level |
//! | `/api/runs?parent=&after=` | a page of the runs below one, or of those at the top; `next` leads on |
//! | `/api/versions?run=` | the kept versions of a run, the newest first |
//! | `/api/document?run=&version=` | what may be seen of a version |
//! | `/api/diff?run=&from=&to=` | what two versions differ in, as lines |
//! | `/api/figures` | the cache's figures |
//! | `/api/changes` | server-sent events: `ready`, `change`, `lost` |

use super::guard::{self, Guard};
use super::shared::Shared;
use super::visible;
use crate::commands::diff::{self, Kind};
use crate::connect::{Database, Row};
use crate::failure::Failure;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Runs of a page.
const PAGE: usize = 100;

/// Runs that are looked at for one page at most, in steps of [`STEP`]: those at the top stand between all others.
const LOOKED_AT: usize = 5000;

/// Runs that are looked at in one step.
const STEP: usize = 1000;

/// Versions that are listed at most.
const VERSIONS: usize = 500;

/// Lines around each difference, as of `diff`.
const CONTEXT: usize = 3;

/// What answers.
pub fn routes(shared: Arc<Shared>, guard: Arc<Guard>) -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("page/index.html")),
        )
        .route(
            "/page.css",
            file("text/css; charset=utf-8", include_str!("page/page.css")),
        )
        .route(
            "/page.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
        )
        .route("/api/about", get(about))
        .route("/api/runs", get(runs))
        .route("/api/versions", get(versions))
        .route("/api/document", get(document))
        .route("/api/diff", get(compare))
        .route("/api/figures", get(figures))
        .route("/api/changes", get(changes))
        .with_state(shared)
        .layer(middleware::from_fn_with_state(guard, guard::check))
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Usage(_) => StatusCode::BAD_REQUEST,
            Self::NotPermitted(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Connection(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = json!({ "error": self.to_string() }).to_string();
        (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

/// JSON that is ready.
struct Json(String);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

type Answer = Result<Json, Failure>;

/// A list of rows as the server has written them.
fn list(rows: &[Row]) -> String {
    let rows: Vec<&str> = rows.iter().map(|row| row.json.as_str()).collect();
    format!("[{}]", rows.join(","))
}

fn no_row() -> Failure {
    Failure::NotFound("the server gave no row".to_owned())
}

async fn about(State(shared): State<Arc<Shared>>) -> Answer {
    let asked = shared.ask(|shared, database| {
        let row = database.one(
            "SELECT current_database() AS database, current_user AS role,
                current_setting('transaction_read_only') AS read_only, $1 AS sensitivity",
            &[Some(shared.sensitivity.word())],
        )?;
        row.ok_or_else(no_row)
    });
    Ok(Json(asked.await?.json))
}

#[derive(Deserialize)]
struct Place {
    parent: Option<String>,
    after: Option<String>,
}

/// $1 the parent, $2 the run before, $3 how many. A run whose parent is gone stands at the top.
const RUNS: &str =
    "SELECT l.*, round(extract(epoch FROM l.lease_until - clock_timestamp()), 1) AS lease_in,
        CASE WHEN wanted THEN
            EXISTS (SELECT FROM @.state_context_list(parent_run_id => l.run_id, \"limit\" => 1))
        END AS has_children, wanted
    FROM @.state_context_list(parent_run_id => $1, after => $2, \"limit\" => $3::integer) l,
        LATERAL (SELECT $1 IS NOT NULL OR l.parent IS NULL
            OR @.state_version(l.parent, class => 'run') IS NULL AS wanted) w";

async fn runs(State(shared): State<Arc<Shared>>, Query(place): Query<Place>) -> Answer {
    let asked = shared.ask(move |_, database| page(database, &place));
    Ok(Json(asked.await?))
}

fn page(database: &mut Database, place: &Place) -> Result<String, Failure> {
    let Place { parent, after } = place;
    let mut after = after.clone();
    let (mut page, mut looked_at, mut step) = (Vec::new(), 0, PAGE);
    let more = loop {
        let limit = step.to_string();
        let parameters = [parent.as_deref(), after.as_deref(), Some(limit.as_str())];
        let rows = database.rows(RUNS, &parameters)?;
        let found = rows.len();
        for row in rows {
            if page.len() == PAGE {
                break;
            }
            after = row.text("run_id");
            looked_at += 1;
            if row.flag("wanted") {
                page.push(row);
            }
        }
        if page.len() == PAGE || looked_at >= LOOKED_AT {
            // There may be none behind; then the next page is empty.
            break true;
        }
        if found < step {
            break false;
        }
        step = STEP;
    };
    let next = after.filter(|_| more);
    Ok(format!(
        "{{\"runs\":{},\"next\":{}}}",
        list(&page),
        Value::from(next)
    ))
}

#[derive(Deserialize)]
struct Run {
    run: String,
}

async fn versions(State(shared): State<Arc<Shared>>, Query(wanted): Query<Run>) -> Answer {
    let asked = shared.ask(move |_, database| {
        let limit = (VERSIONS + 1).to_string();
        database.rows(
            "SELECT version, parent_version, created_at, checkpoint_type, agent_phase, recovery_point, bytes
                FROM @.state_history($1, class => 'run') LIMIT $2::bigint",
            &[Some(&wanted.run), Some(&limit)],
        )
    });
    let mut rows = asked.await?;
    let more = rows.len() > VERSIONS;
    rows.truncate(VERSIONS);
    Ok(Json(format!(
        "{{\"versions\":{},\"more\":{more}}}",
        list(&rows)
    )))
}

#[derive(Deserialize)]
struct Version {
    run: String,
    version: i64,
}

async fn document(State(shared): State<Arc<Shared>>, Query(wanted): Query<Version>) -> Answer {
    let asked = shared.ask(move |shared, database| {
        let version = wanted.version.to_string();
        visible::document(database, &wanted.run, &version, shared.sensitivity)
    });
    Ok(Json(asked.await?.json))
}

#[derive(Deserialize)]
struct Pair {
    run: String,
    from: i64,
    to: i64,
}

async fn compare(State(shared): State<Arc<Shared>>, Query(wanted): Query<Pair>) -> Answer {
    let asked = shared.ask(move |shared, database| {
        let Pair { run, from, to } = &wanted;
        let (from, to) = (from.to_string(), to.to_string());
        // Both sides are judged by one current version.
        database.begin("ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let level = shared.sensitivity;
        let both = visible::document(database, run, &from, level).and_then(|before| {
            let after = visible::document(database, run, &to, level)?;
            Ok((before, after))
        });
        let (before, after) = database.end(both)?;
        let text = |row: &Row| row.text("pretty").unwrap_or_default();
        Ok(diff::lines(
            &text(&before),
            &text(&after),
            &from,
            &to,
            CONTEXT,
        ))
    });
    let lines: Vec<Value> = asked
        .await?
        .into_iter()
        .map(|line| {
            let kind = match line.kind {
                Kind::Title => "title",
                Kind::Place => "place",
                Kind::Same => "same",
                Kind::Removed => "removed",
                Kind::Added => "added",
            };
            json!({"kind": kind, "text": line.text})
        })
        .collect();
    Ok(Json(json!({ "lines": lines }).to_string()))
}

async fn figures(State(shared): State<Arc<Shared>>) -> Answer {
    let asked = shared.ask(|shared, database| shared.figures(database));
    Ok(Json(asked.await?.to_string()))
}

async fn changes(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    Sse::new(shared.live.listen()).keep_alive(KeepAlive::default())
}
