//! What of a run's document the viewer may see.
//!
//! Of the current version that is what `state_context_visible()` shows. The function knows the current version
//! only, so the same rule is applied here to a version before: a variable above the level is left out, and so is
//! whatever has its name in the other sections; exports above the level are left out.
//!
//! Two things make that stricter than the rule alone. What is hidden in the current version is hidden in all
//! versions, since a sensitivity that was raised later was meant for the same values. And what is not as it must
//! be is hidden: a word that is no level, a record that is no object, a section of another type. A document whose
//! current version `state_context_visible()` refuses is not shown at all, in no version; nor is that of a state
//! that is gone, or that is no run.

use crate::connect::{Database, Row};
use crate::failure::Failure;
use clap::ValueEnum;

/// How sensitive a variable may be, the least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Sensitivity {
    /// For everybody.
    #[default]
    Public,
    /// For those inside.
    Internal,
    /// For those who need it.
    Confidential,
    /// About persons.
    Pii,
    /// Keys and passwords.
    Secret,
}

impl Sensitivity {
    /// The word of documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Pii => "pii",
            Self::Secret => "secret",
        }
    }
}

/// $1 the run, $2 the level, $3 the version.
const DOCUMENT: &str = "
WITH run AS MATERIALIZED (
    SELECT @.state_version($1, class => 'run') AS version, @.state_context_get($1) AS whole,
        @.state_context_visible($1, $2) AS visible, @.state_at($1, $3::bigint, class => 'run') AS kept
), levels AS (
    SELECT ARRAY['public', 'internal', 'confidential', 'pii', 'secret'] AS words
), hidden AS MATERIALIZED (
    SELECT coalesce(array_agg(DISTINCT name), '{}') AS names FROM (
        SELECT n AS name FROM run, jsonb_object_keys(whole -> 'variables') n WHERE NOT (visible -> 'variables') ? n
        UNION ALL
        SELECT n FROM run, jsonb_object_keys(CASE jsonb_typeof(whole -> 'sensitivityMap')
                WHEN 'object' THEN whole -> 'sensitivityMap' ELSE '{}' END) n
            WHERE NOT coalesce((visible -> 'sensitivityMap') ? n, false)
        UNION ALL
        SELECT e.key FROM run, levels, jsonb_each(CASE jsonb_typeof(kept -> 'variables')
                WHEN 'object' THEN kept -> 'variables' ELSE '{}' END) e
            WHERE coalesce(array_position(words, CASE WHEN jsonb_typeof(e.value) <> 'object' THEN NULL
                WHEN e.value ? 'sensitivity' THEN e.value ->> 'sensitivity' ELSE 'internal' END), 99)
                > array_position(words, $2)
        UNION ALL
        SELECT e.key FROM run, levels, jsonb_each(CASE jsonb_typeof(kept -> 'sensitivityMap')
                WHEN 'object' THEN kept -> 'sensitivityMap' ELSE '{}' END) e
            WHERE coalesce(array_position(words, e.value #>> '{}'), 99) > array_position(words, $2)
    ) above
), shown AS MATERIALIZED (
    SELECT run.version AS current, names, CASE
        WHEN run.version = $3::bigint THEN visible
        WHEN jsonb_typeof(kept) = 'object' AND jsonb_typeof(kept -> 'variables') = 'object' THEN
            (kept - ARRAY['variables', 'sensitivityMap', 'conflicts', 'intermediate', 'exports'])
            || (SELECT jsonb_object_agg(s, (kept -> s) - names)
                FROM unnest(ARRAY['variables', 'sensitivityMap', 'conflicts', 'intermediate']) s
                WHERE jsonb_typeof(kept -> s) = 'object')
            || CASE jsonb_typeof(kept -> 'exports') WHEN 'array' THEN jsonb_build_object('exports',
                (SELECT coalesce(jsonb_agg(x.e ORDER BY x.place), '[]')
                    FROM levels, jsonb_array_elements(kept -> 'exports') WITH ORDINALITY x (e, place)
                    WHERE x.e ->> 'key' IS NOT NULL AND NOT x.e ->> 'key' = ANY (names)
                        AND array_position(words, x.e ->> 'sensitivity') <= array_position(words, $2)))
                ELSE '{}' END
        END AS document
    FROM run, hidden
)
SELECT $3::bigint AS version, current, cardinality(names) AS hidden, jsonb_pretty(document) AS pretty FROM shown";

/// What a viewer of this level may see of a version: `pretty` is the document, `hidden` counts what is left out.
pub fn document(
    database: &mut Database,
    run: &str,
    version: &str,
    level: Sensitivity,
) -> Result<Row, Failure> {
    let row = database.one(DOCUMENT, &[Some(run), Some(level.word()), Some(version)])?;
    row.filter(|row| row.raw("pretty").is_some())
        .ok_or_else(|| {
            Failure::NotFound(format!(
                "version {version} of run \"{run}\" is not kept, or is no document of a run"
            ))
        })
}
