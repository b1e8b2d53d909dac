//! `show`: a document, or a part of it, now or at a kept version.

use super::no_state;
use crate::connect::Database;
use crate::failure::Failure;
use crate::output::{Output, clean_lines};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The key
    pub key: String,
    /// The class
    #[arg(short, long, default_value = "run")]
    pub class: String,
    /// A kept version instead of the current one
    #[arg(long, value_name = "VERSION")]
    pub at: Option<u64>,
    /// Members and indexes on the way to a part, as in plan.steps.0
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
}

/// Shows.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let Arguments {
        key,
        class,
        at,
        path,
    } = arguments;
    let version = at.map(|version| version.to_string());
    let path = path.as_deref();
    // One statement: version and document belong together.
    let (source, absent) = match &version {
        None => (
            "SELECT version, state FROM @.state_get_many(ARRAY[$2], class => $1) WHERE $3::text IS NULL",
            no_state(class, key),
        ),
        Some(version) => (
            "SELECT $3::bigint AS version, @.state_at($2, $3::bigint, class => $1) AS state",
            Failure::NotFound(format!(
                "version {version} of state \"{key}\" of class \"{class}\" is not kept"
            )),
        ),
    };
    let sql = format!(
        "SELECT $1 AS class, $2 AS key, version, part AS state, jsonb_pretty(part) AS pretty, state IS NULL AS absent
            FROM ({source}) s, LATERAL (SELECT CASE WHEN $4::text IS NULL THEN state
                ELSE state #> string_to_array($4, '.') END AS part) p"
    );
    let parameters = [Some(class.as_str()), Some(key), version.as_deref(), path];
    let row = match database.one(&sql, &parameters)? {
        Some(row) if !row.flag("absent") => row,
        _ => return Err(absent),
    };
    let (Some(state), Some(pretty)) = (row.raw("state").or(Some("null")), row.text("pretty"))
    else {
        let path = path.unwrap_or_default();
        return Err(Failure::NotFound(format!(
            "the document has nothing at {path}"
        )));
    };
    match output.json {
        true => {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            output.line(&format!(
                "{{\"class\":{},\"key\":{},\"version\":{},\"state\":{state}}}",
                quoted(class),
                quoted(key),
                row.raw("version").unwrap_or("null"),
            ))?;
        }
        false => output.line(&clean_lines(&pretty))?,
    }
    Ok(ExitCode::SUCCESS)
}
