//! `doctor`: what is not as it should be, and what to do.
//!
//! Each check is a query that gives a row for each finding: `severity`, `finding`, `advice`. A check that the role
//! may not make is told as such, at `info`, and one that the server refuses at `warning`: a library that does not
//! work with the installation refuses most. The others go on.

use crate::connect::{Database, Row};
use crate::failure::{FINDINGS, Failure};
use crate::output::{Output, clean, status_paint};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only these checks; none: all
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(CHECKS.iter().map(|check| check.name)))]
    pub checks: Vec<String>,
    /// Compare the grants of this role with a profile, in the check "grants"
    #[arg(long, requires = "profile")]
    pub role: Option<String>,
    /// The profile: reader, application, runner or operator
    #[arg(long, requires = "role")]
    pub profile: Option<String>,
}

struct Check {
    name: &'static str,
    /// Says whether the query can be asked.
    given: Option<&'static str>,
    sql: &'static str,
    /// What to ask where the query cannot be asked, or is not permitted.
    otherwise: Option<&'static str>,
}

const fn check(name: &'static str, sql: &'static str) -> Check {
    Check {
        name,
        given: None,
        sql,
        otherwise: None,
    }
}

/// The checks, in the order in which they are made.
const CHECKS: [Check; 16] = [
    Check {
        name: "preload",
        given: None,
        sql: "SELECT 'error' AS severity, 'L1 is ' || l1 AS finding, CASE l1 WHEN 'off (disabled)'
                THEN 'set state_cache.memory above 0 and restart the server'
                ELSE 'set shared_preload_libraries = ''state_cache'' and restart the server' END AS advice
            FROM @.state_cache_stats WHERE class IS NULL AND l1 LIKE 'off%'",
        otherwise: Some(
            "SELECT 'error' AS severity, 'messages have no numbers: the library is not preloaded, or the database is '
                    'beyond state_cache.max_databases' AS finding,
                'set shared_preload_libraries = ''state_cache'' and restart the server' AS advice
            FROM @.state_cursor() WHERE epoch IS NULL AND NOT pg_is_in_recovery()",
        ),
    },
    Check {
        name: "version",
        given: Some(
            "SELECT 1 AS one FROM pg_proc p JOIN pg_extension e ON e.extname = 'state_cache'
                AND p.pronamespace = e.extnamespace WHERE p.proname = 'state_cache_version'",
        ),
        sql: VERSION,
        // 0.1.0 has no function that tells the library's version.
        otherwise: Some(
            "SELECT 'warning' AS severity, format('version %s is installed in this database, the server has files '
                    'of %s', e.extversion, a.default_version) AS finding,
                'ALTER EXTENSION state_cache UPDATE; where that finds no function state_cache_version, the server '
                    'runs the library from before: restart it first' AS advice
            FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname
            WHERE e.extname = 'state_cache' AND e.extversion <> a.default_version",
        ),
    },
    check(
        "workers",
        "WITH w AS (SELECT * FROM @.state_cache_workers WHERE database = current_database())
            SELECT 'warning' AS severity, 'the worker is ' || state AS finding,
                CASE WHEN state LIKE '%free worker' THEN 'raise state_cache.max_workers'
                    WHEN state LIKE '%max_worker_processes' THEN 'raise max_worker_processes and restart the server'
                    ELSE 'look at last_error in state_cache_workers, and into the log of the server' END AS advice
            FROM w WHERE state LIKE 'waiting%' OR state = 'backing off'
            UNION ALL
            SELECT 'warning', format('%s states are unwritten, the oldest for %s', backlog, lag),
                'SELECT state_flush() shows what keeps the worker from writing'
            FROM w WHERE lag > interval '10 seconds' + 2 * current_setting('state_cache.flush_interval')::interval
            UNION ALL
            SELECT 'warning', format('the last error of the worker, at %s: %s', last_error_at, last_error),
                'it tries again by itself; see Background workers in the book'
            FROM w WHERE last_error_at > clock_timestamp() - interval '1 hour'",
    ),
    check(
        "unwritten",
        "SELECT 'error' AS severity, format('%s states of class %s cannot be written, since %s', count(*), class,
                min(since)) AS finding, 'SELECT state_flush() shows the error' AS advice
            FROM @.state_cache_unwritten WHERE parked GROUP BY class",
    ),
    check(
        "cache",
        "SELECT 'error' AS severity, format('%s entries of L1 were damaged', damaged) AS finding,
                'look for faulty memory, or another faulty extension' AS advice
            FROM @.state_cache_stats WHERE class IS NULL AND damaged > 0
            UNION ALL
            SELECT 'warning', format('%s%% of reads miss, and %s entries had to make room',
                    round(100.0 * misses / (hits + misses)), evictions), 'raise state_cache.memory'
            FROM @.state_cache_stats
            WHERE class IS NULL AND hits + misses > 10000 AND misses > hits AND evictions > misses / 2
            UNION ALL
            SELECT 'info', format('%s documents were too large for L1', too_large),
                'raise state_cache.memory to more than four times the largest document'
            FROM @.state_cache_stats WHERE class IS NULL AND too_large > 0",
    ),
    check(
        "audits",
        "SELECT 'error' AS severity, format('%s entries of L1 were not what the tables hold, the last one %s of '
                'class %s', differing, last_key, last_class) AS finding,
                'SELECT state_cache_clear(), and report what changed the tables at that time' AS advice
            FROM @.state_audits WHERE differing > 0",
    ),
    check(
        "integrity",
        "SELECT CASE WHEN bool_or(severity IN ('fatal', 'critical')) THEN 'error' ELSE 'warning' END AS severity,
                format('%s damaged versions of class %s were found in the last 30 days', count(*), class) AS finding,
                'SELECT * FROM state_recovery_log; state-cache verify' AS advice
            FROM @.state_recovery_log
            WHERE severity <> 'info' AND found_at > now() - interval '30 days' GROUP BY class",
    ),
    check("grants", GRANTS),
    check(
        "rls",
        "SELECT CASE WHEN bool_and(c.relrowsecurity) THEN 'info' ELSE 'warning' END AS severity,
                format('row-level security is on %s', string_agg(c.relname, ', ' ORDER BY c.relname)
                    FILTER (WHERE c.relrowsecurity)) AS finding,
                CASE WHEN bool_and(c.relrowsecurity) THEN 'nothing: roles under it read from the tables, not from L1'
                    ELSE format('documents lie in %s too: make policies there that agree, and ENABLE ROW LEVEL '
                        'SECURITY', string_agg(c.relname, ', ' ORDER BY c.relname) FILTER (WHERE NOT
                        c.relrowsecurity)) END AS advice
            FROM pg_class c JOIN pg_extension e ON e.extname = 'state_cache' AND c.relnamespace = e.extnamespace
            WHERE c.relname IN ('state_head', 'state_snapshot') HAVING bool_or(c.relrowsecurity)",
    ),
    check(
        "triggers",
        "SELECT 'error' AS severity, format('trigger %s of %s is disabled: changes by hand go unnoticed', t.tgname,
                t.tgrelid::regclass) AS finding,
                format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I, then SELECT state_cache_clear()',
                    t.tgrelid::regclass, t.tgname) AS advice
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                JOIN pg_extension e ON e.extname = 'state_cache' AND c.relnamespace = e.extnamespace
                JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
                    AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            -- Those that merge rows of a dump are enabled for that alone.
            WHERE t.tgenabled IN ('D', 'R') AND t.tgname NOT LIKE '%merge'",
    ),
    check(
        "protections",
        "SELECT 'warning' AS severity, 'this is missing since a restore, or was dropped: ' || statement AS finding,
                'run the statement' AS advice
            FROM @.state_protections() WHERE NOT present",
    ),
    Check {
        name: "partitions",
        given: Some(
            "SELECT 1 AS one FROM pg_proc p JOIN pg_extension e ON e.extname = 'state_cache'
                AND p.pronamespace = e.extnamespace WHERE p.proname = 'state_partitions'",
        ),
        sql: "WITH p AS (SELECT * FROM @.state_partitions())
            SELECT 'warning' AS severity, format('there are partitions until %s only', max(upper)) AS finding,
                'SELECT state_partitions_create(), once a month' AS advice
            FROM p WHERE NOT is_default HAVING max(upper) < now() + interval '7 days'
            UNION ALL
            SELECT 'warning', format('%s rows are in %s', c.reltuples::bigint, p.partition),
                'SELECT state_partitions_create() moves them'
            FROM p JOIN pg_class c ON c.oid = p.partition WHERE p.is_default AND c.reltuples > 0",
        otherwise: None,
    },
    check(
        "bloat",
        "SELECT 'warning' AS severity, format('%s has %s dead rows beside %s', relid::regclass, n_dead_tup,
                n_live_tup) AS finding,
                format('VACUUM %s; look for transactions that stay open, and have autovacuum come sooner',
                    relid::regclass) AS advice
            FROM pg_stat_user_tables s JOIN pg_extension e ON e.extname = 'state_cache'
                JOIN pg_class c ON c.oid = s.relid AND c.relnamespace = e.extnamespace
            WHERE n_dead_tup > 10000 AND n_dead_tup > n_live_tup",
    ),
    check(
        "transactions",
        "SELECT 'warning' AS severity, format('process %s has had a transaction open since %s (%s)', pid, xact_start,
                usename) AS finding,
                'end the transaction: old versions and tombstones stay as long' AS advice
            FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend'
                AND xact_start < clock_timestamp() - interval '1 hour'",
    ),
    check(
        "lag",
        "SELECT 'warning' AS severity, format('standby %s is %s behind', COALESCE(NULLIF(application_name, ''),
                client_addr::text), replay_lag) AS finding, 'look at the standby: it replays too slowly' AS advice
            FROM pg_stat_replication WHERE replay_lag > interval '1 minute'
            UNION ALL
            SELECT 'error', format('the queue of NOTIFY is full to %s%%', round(100 * pg_notification_queue_usage())),
                'a session that listens has had a transaction open for long: end it'
            WHERE pg_notification_queue_usage() > 0.5",
    ),
    check(
        "conflicts",
        "SELECT 'info' AS severity, format('%s conflicts of run %s wait for a decision, since %s', count(*), run_id,
                min(opened_at)) AS finding, 'state-cache conflicts' AS advice
            FROM @.state_conflict WHERE status = 'open' GROUP BY run_id ORDER BY min(opened_at) LIMIT 20",
    ),
];

/// Three versions: of the installation in this database, of the library that the server runs, of the files that it
/// has for the next start and the next update. What is no version is newer than all.
const VERSION: &str = "WITH named AS (SELECT e.extversion AS installed, @.state_cache_version() AS library,
            a.default_version AS files
            FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname
            WHERE e.extname = 'state_cache'),
        ordered AS (SELECT named.*, l.n AS l, i.n AS i, f.n AS f FROM named,
            LATERAL (SELECT string_to_array(library, '.')::integer[] AS n) l,
            LATERAL (SELECT CASE WHEN installed ~ '^[0-9]{1,9}([.][0-9]{1,9}){2}$'
                THEN string_to_array(installed, '.')::integer[] ELSE '{2147483647}' END AS n) i,
            LATERAL (SELECT string_to_array(files, '.')::integer[] AS n) f)
        SELECT 'error' AS severity, format('version %s is installed in this database, and the server runs '
                'the library of %s, which refuses it', installed, library) AS finding,
            CASE WHEN f >= i THEN 'restart the server: it has the files of ' || files
                ELSE format('install the files of %s or a later version, and restart the server', installed)
                END AS advice
        FROM ordered WHERE i > l
        UNION ALL
        SELECT 'warning', format('the server has the files of %s, and runs the library of %s', files, library),
            'restart the server, then ALTER EXTENSION state_cache UPDATE in each database'
        FROM ordered WHERE f > l AND i <= l
        UNION ALL
        SELECT 'warning', format('version %s is installed in this database, and the server runs the library of '
                '%s', installed, library), 'ALTER EXTENSION state_cache UPDATE'
        FROM ordered WHERE i < l AND f = l
        UNION ALL
        SELECT 'warning', format('the server runs the library of %s, and has the files of %s', library, files),
            format('install the files of %s, or those of %s and restart the server', library, files)
        FROM ordered WHERE f < l";

/// Without a role: every role that has something, compared with what it seems to be.
const GRANTS: &str = "WITH home AS (SELECT e.extnamespace AS oid, h.oid AS head, h.relowner AS owner
            FROM pg_extension e JOIN pg_class h ON h.relnamespace = e.extnamespace AND h.relname = 'state_head'
            WHERE e.extname = 'state_cache'),
        roles AS (SELECT r.oid, r.rolname, COALESCE($2, CASE WHEN has_table_privilege(r.oid, home.head, 'INSERT')
                THEN 'application' ELSE 'reader' END) AS profile
            FROM pg_roles r, home
            WHERE CASE WHEN $1::text IS NULL
                THEN NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_') AND r.oid <> home.owner
                    AND has_table_privilege(r.oid, home.head, 'SELECT, INSERT')
                ELSE r.rolname = $1 END),
        wanted AS (SELECT p.profile, p.kind, p.object, privilege
            FROM @.state_profiles() p, unnest(string_to_array(p.privileges, ', ')) privilege),
        missing AS (SELECT r.rolname, r.profile, w.object, w.privilege
            FROM roles r JOIN wanted w USING (profile), home
            WHERE NOT CASE w.kind
                WHEN 'TABLE' THEN EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = home.oid
                    AND c.relname = w.object AND has_table_privilege(r.oid, c.oid, w.privilege))
                WHEN 'SEQUENCE' THEN EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = home.oid
                    AND c.relname = w.object AND has_sequence_privilege(r.oid, c.oid, w.privilege))
                ELSE EXISTS (SELECT FROM pg_proc f WHERE f.pronamespace = home.oid
                    AND f.proname = w.object AND has_function_privilege(r.oid, f.oid, w.privilege)) END
            UNION ALL
            SELECT r.rolname, r.profile, 'the schema', 'USAGE' FROM roles r, home
                WHERE NOT has_schema_privilege(r.oid, home.oid, 'USAGE'))
        SELECT CASE WHEN $1::text IS NOT NULL THEN 'error'
                WHEN bool_or(object IN ('state_head', 'state_snapshot', 'the schema')) THEN 'warning'
                ELSE 'info' END AS severity,
            format('role %s lacks %s of profile %s: %s', rolname, count(*), profile,
                string_agg(privilege || ' on ' || object, ', ' ORDER BY object, privilege)) AS finding,
            format('SELECT state_grant(%L, %L), unless that is meant', rolname, profile) AS advice
        FROM missing GROUP BY rolname, profile
        UNION ALL
        SELECT 'warning', format('role %s may make triggers on state_head, which see every document', r.rolname),
            format('REVOKE TRIGGER ON state_head, state_snapshot FROM %I', r.rolname)
        FROM roles r, home WHERE $1::text IS NULL AND has_table_privilege(r.oid, home.head, 'TRIGGER')";

/// Checks; findings above `info` are exit code 1.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let mut serious = false;
    let mut quiet = 0;
    if let Some(role) = &arguments.role {
        let known = database.one(
            "SELECT 1 AS one FROM pg_roles WHERE rolname = $1",
            &[Some(role)],
        )?;
        known.ok_or_else(|| Failure::NotFound(format!("there is no role \"{role}\"")))?;
    }
    let chosen = |check: &&Check| {
        arguments.checks.is_empty() || arguments.checks.iter().any(|it| it == check.name)
    };
    for check in CHECKS.iter().filter(chosen) {
        let found = match ask(check, arguments, database) {
            Ok(found) => found,
            Err(Failure::NotPermitted(said)) => {
                let advice = "ask as a member of pg_monitor, or with the profile operator";
                vec![not_looked_at("info", &said.message, advice)?]
            }
            Err(Failure::Server(said)) => {
                let advice = said.hint.as_deref();
                let advice =
                    advice.unwrap_or("the check \"version\" says whether it needs an update");
                vec![not_looked_at("warning", &said.message, advice)?]
            }
            Err(failure) => return Err(failure),
        };
        if found.is_empty() {
            quiet += 1;
        }
        for row in found {
            let severity = row.text("severity").unwrap_or_default();
            serious |= severity != "info";
            print(check.name, &severity, &row, output)?;
        }
    }
    if !output.json {
        output.line(&format!("{quiet} checks found nothing"))?;
    }
    Ok(match serious {
        true => ExitCode::from(FINDINGS),
        false => ExitCode::SUCCESS,
    })
}

/// The finding of a check that could not be made.
fn not_looked_at(severity: &str, message: &str, advice: &str) -> Result<Row, Failure> {
    let row = json!({
        "severity": severity,
        "finding": format!("not looked at: {message}"),
        "advice": advice,
    });
    Row::parse(row.to_string()).map_err(|error| Failure::File(error.to_string()))
}

fn ask(check: &Check, arguments: &Arguments, database: &mut Database) -> Result<Vec<Row>, Failure> {
    if let Some(given) = check.given
        && database.one(given, &[])?.is_none()
    {
        return match check.otherwise {
            Some(otherwise) => database.rows(otherwise, &[]),
            None => Ok(Vec::new()),
        };
    }
    let parameters = match check.sql.contains("$1") {
        true => vec![arguments.role.as_deref(), arguments.profile.as_deref()],
        false => Vec::new(),
    };
    match (database.rows(check.sql, &parameters), check.otherwise) {
        (Err(Failure::NotPermitted(_)), Some(otherwise)) => database.rows(otherwise, &[]),
        (outcome, _) => outcome,
    }
}

fn print(name: &str, severity: &str, row: &Row, output: &Output) -> Result<(), Failure> {
    let text = |name: &str| row.text(name).unwrap_or_default();
    if output.json {
        let told = json!({
            "check": name,
            "severity": severity,
            "finding": text("finding"),
            "advice": text("advice"),
        });
        return output.line(&told.to_string());
    }
    let title = match status_paint(severity) {
        Some(paint) => output.paint(paint, severity),
        None => severity.to_owned(),
    };
    output.line(&format!("{title}  {name}: {}", clean(&text("finding"))))?;
    output.line(&format!("    {}", clean(&text("advice"))))
}
