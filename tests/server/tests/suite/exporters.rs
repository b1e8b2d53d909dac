//! `contrib/monitoring/`: what exporters ask is there, an exporter's role may ask it, and the dashboard asks for
//! metrics that they make.

use postgres::types::Type;
use serde_json::Value;
use state_cache_server_tests::{Server, Sql};
use std::collections::{BTreeMap, BTreeSet};
use yaml_rust2::{Yaml, YamlLoader};

const POSTGRES_EXPORTER: &str =
    include_str!("../../../../contrib/monitoring/postgres_exporter.yaml");
const SQL_EXPORTER: &str = include_str!("../../../../contrib/monitoring/sql_exporter.yaml");
const DASHBOARD: &str = include_str!("../../../../contrib/monitoring/grafana.json");

/// A query of an exporter.
#[derive(Debug, Default, PartialEq)]
struct Query {
    sql: String,
    /// The columns that become labels.
    labels: BTreeSet<String>,
    /// The columns that become metrics, with their type and their explanation.
    metrics: BTreeMap<String, (String, String)>,
}

fn yaml(text: &str) -> Yaml {
    YamlLoader::load_from_str(text).unwrap().remove(0)
}

fn text(of: &Yaml, field: &str) -> String {
    of[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field}: {of:?}"))
        .to_owned()
}

/// The queries for postgres_exporter, by the beginning of the names of their metrics.
fn of_postgres_exporter() -> BTreeMap<String, Query> {
    let file = yaml(POSTGRES_EXPORTER);
    let mut queries = BTreeMap::new();
    for (name, entry) in file.as_hash().unwrap() {
        let mut query = Query {
            sql: text(entry, "query"),
            ..Query::default()
        };
        for metric in entry["metrics"].as_vec().unwrap() {
            let (column, about) = metric.as_hash().unwrap().iter().next().unwrap();
            let column = column.as_str().unwrap().to_owned();
            let help = text(about, "description");
            match text(about, "usage").as_str() {
                "LABEL" => drop(query.labels.insert(column)),
                usage @ ("COUNTER" | "GAUGE") => {
                    drop(query.metrics.insert(column, (usage.to_lowercase(), help)));
                }
                other => panic!("{other}"),
            }
        }
        queries.insert(name.as_str().unwrap().to_owned(), query);
    }
    queries
}

/// The queries for sql_exporter, by their names.
fn of_sql_exporter() -> BTreeMap<String, Query> {
    let file = yaml(SQL_EXPORTER);
    let mut queries = BTreeMap::new();
    for query in file["queries"].as_vec().unwrap() {
        let sql = text(query, "query");
        let query_of = Query {
            sql,
            ..Query::default()
        };
        queries.insert(text(query, "query_name"), query_of);
    }
    for metric in file["metrics"].as_vec().unwrap() {
        let name = text(metric, "query_ref");
        let query = queries.get_mut(&name).unwrap();
        for label in metric["key_labels"].as_vec().unwrap() {
            query.labels.insert(label.as_str().unwrap().to_owned());
        }
        let values = metric["values"].as_vec().unwrap();
        assert_eq!(values.len(), 1, "{metric:?}");
        let column = values[0].as_str().unwrap().to_owned();
        assert_eq!(text(metric, "metric_name"), format!("{name}_{column}"));
        let about = (text(metric, "type"), text(metric, "help"));
        query.metrics.insert(column, about);
    }
    queries
}

#[test]
fn both_exporters_ask_the_same() {
    let queries = of_postgres_exporter();
    assert!(queries.len() >= 3);
    assert_eq!(queries, of_sql_exporter());
}

#[test]
fn the_role_of_an_exporter_may_ask_and_gets_what_is_named() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(
        "DROP EXTENSION state_cache; CREATE SCHEMA agents; CREATE EXTENSION state_cache SCHEMA agents;
         CREATE ROLE exporter LOGIN; GRANT pg_monitor TO exporter; GRANT USAGE ON SCHEMA agents TO exporter;
         CREATE ROLE an_operator LOGIN",
    );
    client.text("SELECT agents.state_grant('an_operator', 'operator')::text");
    client.text("SELECT agents.state_set('counted', '{\"a\": 1}')::text");
    for role in ["exporter", "an_operator"] {
        client.run(&format!(
            "RESET ROLE; SET search_path = agents; SET ROLE {role}"
        ));
        for (name, query) in of_postgres_exporter() {
            let rows = client
                .query(&query.sql, &[])
                .unwrap_or_else(|error| panic!("{name} as {role}: {error:?}"));
            let statement = client.prepare(&query.sql).unwrap();
            let mut columns = BTreeSet::new();
            for column in statement.columns() {
                let is_label = query.labels.contains(column.name());
                let kinds: &[Type] = match is_label {
                    true => &[Type::TEXT, Type::NAME],
                    false => &[Type::INT4, Type::INT8, Type::FLOAT8, Type::NUMERIC],
                };
                assert!(kinds.contains(column.type_()), "{name}.{}", column.name());
                assert!(
                    columns.insert(column.name().to_owned()),
                    "{name}.{}",
                    column.name()
                );
            }
            let named: BTreeSet<String> = query
                .labels
                .iter()
                .chain(query.metrics.keys())
                .cloned()
                .collect();
            assert_eq!(columns, named, "{name}");
            // The class that was used, the database as a whole; a database without a worker has no row.
            assert!(
                name == "state_cache_worker" || !rows.is_empty(),
                "{name} as {role}"
            );
        }
    }
}

#[test]
fn a_class_that_was_used_is_counted_under_its_name() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.text("SELECT state_set('counted', '{\"a\": 1}')::text");
    let sql = &of_postgres_exporter()["state_cache_class"].sql;
    let written = format!(
        "SELECT states_written FROM ({sql}) q WHERE class = 'run' AND datname = current_database()"
    );
    assert_eq!(client.number(&written), 1);
}

/// The metrics of an expression, each with what stands in its braces.
fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("state_cache_") {
        rest = &rest[at..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let braces = after.strip_prefix('{').and_then(|it| it.split('}').next());
        found.push((name, braces.unwrap_or("")));
        rest = after;
    }
    found
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_made() {
    let queries = of_postgres_exporter();
    // Labels and type by the name of the metric.
    let mut made = BTreeMap::new();
    for (name, query) in &queries {
        for (column, (kind, _)) in &query.metrics {
            made.insert(format!("{name}_{column}"), (&query.labels, kind.as_str()));
        }
    }
    let check = |expression: &str| {
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "{expression}");
        for (metric, braces) in &selectors {
            let (labels, kind) = made
                .get(*metric)
                .unwrap_or_else(|| panic!("{metric}: {expression}"));
            let is_rate = expression.contains(&format!("rate({metric}"));
            assert_eq!(is_rate, expression.contains("rate("), "{expression}");
            assert!(
                !is_rate || *kind == "counter",
                "{metric} is no counter: {expression}"
            );
            for part in braces.split(", ").filter(|part| !part.is_empty()) {
                let label = part.split("=~").next().unwrap();
                assert!(labels.contains(label), "{label}: {expression}");
            }
            for part in expression.split("by (").skip(1) {
                let label = part.split(')').next().unwrap();
                assert!(labels.contains(label), "{label}: {expression}");
            }
        }
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            assert_eq!(
                expression.matches(open).count(),
                expression.matches(close).count(),
                "{expression}"
            );
        }
        selectors.len()
    };
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut ids, mut asked) = (BTreeSet::new(), 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["id"]);
        assert!(!panel["title"].as_str().unwrap().is_empty());
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            asked += check(expression);
            // What the legend names is what the expression groups by.
            let legend = target["legendFormat"].as_str().unwrap();
            for part in legend.split("{{").skip(1) {
                let label = part.split("}}").next().unwrap();
                assert!(
                    expression.contains(&format!("by ({label})")),
                    "{legend}: {expression}"
                );
            }
        }
    }
    assert!(asked >= 30, "{asked}");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"].as_str().unwrap();
        if let Some(inside) = query.strip_prefix("label_values(") {
            check(inside.trim_end_matches(')').split(", ").next().unwrap());
        }
    }
}
