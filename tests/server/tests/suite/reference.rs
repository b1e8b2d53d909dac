//! The reference against an installed extension: what the pages say of functions, tables, views and settings is what
//! the catalog has, and every object carries a COMMENT.

use super::partitions::partition;
use postgres::Client;
use state_cache_server_tests::{Server, Sql};
use std::collections::BTreeSet;
use std::path::Path;

/// Functions that nobody calls: triggers, views, defaults and other functions do. The pages need not show how.
const INTERNAL: [&str; 8] = [
    "state_cache_by_hand",
    "state_draw",
    "state_installation",
    "state_partition_attach",
    "state_partition_detach",
    "state_partition_stage",
    "state_protections_here",
    "state_source_changed",
];

/// The pages that show how functions are called.
const CALLED: [&str; 2] = [
    "docs/reference/functions.md",
    "docs/operations/partitions.md",
];

fn page(path: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let path = top.unwrap().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The signatures that a page shows: the entries of its blocks of text that begin with a name and a parenthesis.
fn shown(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            in_block = !in_block && language == "text";
        } else if in_block {
            let name = line.split('(').next().unwrap();
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            if line.contains('(') && name.starts_with("state_") && name.chars().all(is_name) {
                found.push(line.to_owned());
            } else if line.starts_with("    ") && found.last().is_some_and(|it| !complete(it)) {
                let last = found.last_mut().unwrap();
                last.push(' ');
                last.push_str(line.trim());
            }
        }
    }
    found.iter().map(|it| it.replace("( ", "(")).collect()
}

/// Whether a signature has come to its end: it returns something, and every parenthesis is closed.
fn complete(signature: &str) -> bool {
    signature.contains(") RETURNS ")
        && signature.matches('(').count() == signature.matches(')').count()
        && !signature.ends_with("RETURNS")
}

/// The signatures of the functions that users call, in the words of the pages.
fn installed(client: &mut Client) -> Vec<String> {
    let rows = client.rows(
        "SELECT p.proname, regexp_replace(pg_get_function_arguments(p.oid), '::[a-z ]+(\\[\\])?', '', 'g'),
                pg_get_function_result(p.oid), p.proretset
           FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
           JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
          WHERE e.extname = 'state_cache' AND p.prorettype <> 'trigger'::regtype
            -- Views of the same name show what these return.
            AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = p.proname AND c.relkind = 'v')",
    );
    let rows = rows
        .into_iter()
        .filter(|row| !INTERNAL.contains(&row[0].as_str()));
    let signatures = rows.map(|row| {
        let (arguments, results): (Vec<&str>, Vec<&str>) = row[1]
            .split(", ")
            .filter(|argument| !argument.is_empty())
            .partition(|argument| !argument.starts_with("OUT "));
        let returned = match row[3].as_str() {
            "t" => format!("TABLE ({})", results.join(", ").replace("OUT ", "")),
            _ if row[2] == "record" => {
                format!("record ({})", results.join(", ").replace("OUT ", ""))
            }
            _ => row[2].clone(),
        };
        let signature = format!("{}({}) RETURNS {returned}", row[0], arguments.join(", "));
        signature.replace("timestamp with time zone", "timestamptz")
    });
    signatures.collect()
}

#[test]
fn functions_are_shown_with_their_arguments_defaults_and_results() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    partition(&mut client);
    let mut installed = installed(&mut client);
    installed.sort();
    assert!(installed.len() > 60, "{}", installed.len());
    let mut shown: Vec<String> = CALLED.iter().flat_map(|path| shown(&page(path))).collect();
    shown.sort();
    let missing: Vec<_> = installed.iter().filter(|it| !shown.contains(it)).collect();
    let wrong: Vec<_> = shown.iter().filter(|it| !installed.contains(it)).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "no page shows {missing:#?}, and the catalog has not {wrong:#?}"
    );
    assert_eq!(shown, installed, "shown twice");
}

/// What the reference says of a table or view: from its name at the start of a paragraph to that of the next.
fn section<'a>(tables: &'a str, relation: &str) -> Option<&'a str> {
    let (_, rest) = tables.split_once(&format!("\n**{relation}**"))?;
    let end = ["\n**", "\n## "].iter().filter_map(|mark| rest.find(mark));
    Some(&rest[..end.min().unwrap_or(rest.len())])
}

#[test]
fn every_column_is_named_where_its_table_or_view_is_explained() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    let columns = client.rows(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
           JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
          WHERE e.extname = 'state_cache' AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped",
    );
    assert!(columns.len() > 150, "{}", columns.len());
    let tables = page("docs/reference/tables.md");
    let of_snapshot: BTreeSet<&str> = columns
        .iter()
        .filter(|row| row[0] == "state_snapshot")
        .map(|row| row[1].as_str())
        .collect();
    let mut missing = Vec::new();
    for row in &columns {
        let (relation, column) = (row[0].as_str(), row[1].as_str());
        let said = section(&tables, relation).unwrap_or("");
        let mut words = said.split(|c: char| !c.is_alphanumeric() && c != '_');
        // The page says of that table that it has the columns of the other.
        let is_copied = relation == "state_damaged" && of_snapshot.contains(column);
        if !words.any(|word| word == column) && !is_copied {
            missing.push(format!("{relation}.{column}"));
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// What a setting written like `64MB` or `5min` is in its own unit, as `pg_settings` counts. `None` for other words.
fn in_unit(text: &str, unit: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, suffix) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = digits.parse().ok()?;
    let size = |word: &str| match word {
        "" => Some(1.0),
        "kB" => Some(1024.0),
        "MB" => Some(1024f64.powi(2)),
        "GB" => Some(1024f64.powi(3)),
        "TB" => Some(1024f64.powi(4)),
        "ms" => Some(1.0),
        "s" => Some(1e3),
        "min" => Some(60e3),
        "h" => Some(3_600e3),
        "d" => Some(86_400e3),
        " years" => Some(365.25 * 86_400e3),
        _ => None,
    };
    Some(number * size(suffix)? / size(if suffix.is_empty() { "" } else { unit })?)
}

/// Whether a range that the page shows is that of the server: `1MB to 1TB`, or the words that are taken. Years are
/// rounded.
fn is_range(said: &str, setting: &[String]) -> bool {
    let (least, most, unit, words) = (&setting[4], &setting[5], &setting[6], &setting[7]);
    if let Some((from, to)) = said.split_once(" to ") {
        let is = |said: &str, bound: &str| {
            let (Some(said), Ok(bound)) = (in_unit(said, unit), bound.parse::<f64>()) else {
                return false;
            };
            (said - bound).abs() <= 0.01 * bound
        };
        return is(from, least) && is(to, most);
    }
    // The levels of sensitivity stand elsewhere.
    said.contains("levels") || said == words
}

#[test]
fn settings_are_what_the_reference_says() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let settings = client.rows(
        "SELECT name, current_setting(name), context, short_desc, min_val, max_val, coalesce(unit, ''),
                coalesce(array_to_string(enumvals, ', '), 'on, off')
           FROM pg_settings
          WHERE name LIKE 'state\\_cache.%' AND name NOT LIKE 'state\\_cache.test\\_%'",
    );
    assert!(settings.len() > 15, "{}", settings.len());
    let said = page("docs/reference/settings.md");
    let rows: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.starts_with("| `state_cache."))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let mut differences = Vec::new();
    for setting in &settings {
        let name = format!("`{}`", setting[0]);
        let Some(row) = rows.iter().find(|row| row[1] == name) else {
            differences.push(format!("{name} has no row"));
            continue;
        };
        if row[2] != setting[1] {
            differences.push(format!(
                "{name} is {} by default, not {}",
                setting[1], row[2]
            ));
        }
        if !is_range(row[3], setting) {
            differences.push(format!(
                "{name} takes {} to {} {}, or {}, not {}",
                setting[4], setting[5], setting[6], setting[7], row[3]
            ));
        }
        let who = match setting[2].as_str() {
            "postmaster" => "configuration file; server start",
            "sighup" => "configuration file; reload",
            "superuser" => "superuser",
            _ => "any user",
        };
        if !row[4].starts_with(who) {
            differences.push(format!("{name} may be set by: {who}, not: {}", row[4]));
        }
        if setting[3].is_empty() {
            differences.push(format!("{name} has no help"));
        }
    }
    assert_eq!(differences, Vec::<String>::new());
    assert_eq!(rows.len(), settings.len(), "settings that there are not");
}

/// All but what another object explains: indexes of constraints by their table, columns of views by the view, what a
/// partition has by the table that it is part of.
#[test]
fn every_object_has_a_comment() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    partition(&mut client);
    let bare = client.rows(
        "WITH member AS (
             SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
              WHERE e.extname = 'state_cache' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
         ), object AS (
             SELECT classid, objid, 0 AS part FROM member WHERE classid <> 'pg_type'::regclass
             UNION ALL SELECT classid, objid, a.attnum FROM member JOIN pg_class c ON c.oid = objid
               JOIN pg_attribute a ON a.attrelid = objid
              WHERE classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
                AND NOT c.relispartition
             UNION ALL SELECT 'pg_trigger'::regclass, t.oid, 0 FROM pg_trigger t JOIN member ON objid = t.tgrelid
               JOIN pg_class c ON c.oid = t.tgrelid
              WHERE NOT t.tgisinternal AND NOT c.relispartition
             UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, 0 FROM pg_index i JOIN member ON objid = i.indrelid
               JOIN pg_class c ON c.oid = i.indexrelid
              WHERE NOT c.relispartition
                AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conindid = i.indexrelid AND n.conrelid = \
                i.indrelid)
         )
         SELECT pg_describe_object(classid, objid, part) FROM object o
          WHERE NOT EXISTS (SELECT FROM pg_description d
                             WHERE d.classoid = o.classid AND d.objoid = o.objid AND d.objsubid = o.part)
          ORDER BY 1",
    );
    assert_eq!(bare, Vec::<Vec<String>>::new());
}
