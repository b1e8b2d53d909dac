//! `state_grant` and `state_revoke`: what they grant is what the page on privileges lists, and they leave nothing.

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

const PAGE: &str = include_str!("../../../../docs/operations/privileges.md");

/// What the page calls the role of each profile, and which profiles each has by itself.
const PROFILES: [(&str, &str, &[&str]); 4] = [
    ("reader", "reader", &["reader"]),
    ("application", "app", &["reader", "app"]),
    ("runner", "runner", &["reader", "app", "runner"]),
    ("operator", "operator", &["reader", "app", "operator"]),
];

/// The statements of the page that grant something to a role of a profile, without comments.
fn statements(role: &str) -> Vec<String> {
    let text: Vec<&str> = PAGE
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect();
    let ends = format!(" TO {role}");
    text.join(" ")
        .split(';')
        .filter_map(|statement| Some(&statement[statement.find("GRANT ")?..]))
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|statement| statement.ends_with(&ends))
        .collect()
}

/// All that a role may do by itself: object and privilege, with the right to pass it on.
fn granted(client: &mut Client, role: &str) -> Vec<Vec<String>> {
    client.rows(&format!(
        "SELECT o.name, a.privilege_type, a.is_grantable FROM (
             SELECT oid::regclass::text, relacl FROM pg_class
             UNION ALL SELECT oid::regprocedure::text, proacl FROM pg_proc
             UNION ALL SELECT nspname, nspacl FROM pg_namespace
         ) o (name, acl), aclexplode(o.acl) a WHERE a.grantee = '{role}'::regrole ORDER BY 1, 2"
    ))
}

#[test]
fn a_profile_grants_what_the_page_lists_and_can_be_taken_back() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("DROP EXTENSION state_cache; CREATE SCHEMA agents; CREATE EXTENSION state_cache SCHEMA agents");
    for (profile, _, own) in PROFILES {
        client.run(&format!(
            "CREATE ROLE by_hand; CREATE ROLE \"The {profile}\""
        ));
        for role in own {
            let list = statements(role);
            assert!(!list.is_empty(), "the page grants {role} nothing");
            for statement in list {
                let as_role = statement.replace(&format!(" TO {role}"), " TO by_hand");
                client.run(&as_role);
            }
        }
        let listed = granted(&mut client, "by_hand");
        let of_profile = format!("\"The {profile}\"");
        for _ in 0..2 {
            client.run(&format!(
                "SELECT agents.state_grant('{of_profile}', '{profile}')"
            ));
            assert_eq!(granted(&mut client, &of_profile), listed, "{profile}");
        }
        client.run(&format!(
            "SELECT agents.state_revoke('{of_profile}', '{profile}')"
        ));
        assert!(granted(&mut client, &of_profile).is_empty(), "{profile}");
        client.run(&format!(
            "SELECT agents.state_grant('{of_profile}', '{profile}')"
        ));
        client.run(&format!("SELECT agents.state_revoke('{of_profile}')"));
        assert!(granted(&mut client, &of_profile).is_empty(), "{profile}");
        client.run(&format!(
            "DROP OWNED BY by_hand; DROP ROLE by_hand; DROP ROLE {of_profile}"
        ));
    }
}

/// With what the profiles grant, each does its work, and no more.
#[test]
fn each_profile_suffices() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("DROP EXTENSION state_cache; CREATE SCHEMA agents; CREATE EXTENSION state_cache SCHEMA agents");
    client.run("SET search_path = agents; CREATE TABLE agents.beside (n integer)");
    client.run("SELECT state_budget_define('b', 100, 'USD', agents => '{\"a\": {\"price\": 1}}')");
    let work: [(&str, &[&str]); 4] = [
        (
            "reader",
            &[
                "SELECT state_get('k'), state_version('k')",
                "SELECT * FROM state_history('k')",
                "SELECT * FROM state_current, state_kept, state_class, state_l2_classes",
                "SELECT * FROM state_log('k')",
                "SELECT * FROM state_changes()",
            ],
        ),
        (
            "application",
            &[
                "SELECT state_set('k', '{\"a\": [1]}'), state_append('k', '{a}', '2')",
                "SELECT * FROM state_save('k', '{\"a\": [3]}')",
                "SELECT state_log_append('k', '[1]', ids => '{i}', replace => true), state_log_erase('k')",
                "SELECT state_context_create('r'), state_context_claim('r', 'me', '1 minute')",
                "SELECT state_job_create('j', '[\"t\"]')",
                "SELECT state_delete('k')",
            ],
        ),
        (
            "runner",
            &[
                "SELECT * FROM state_budget_reserve('b', 'a', hold_id => 'h')",
                "SELECT state_budget_void('h')",
            ],
        ),
        (
            "operator",
            &[
                "SELECT state_class_define('mine', keep => 2)",
                "SELECT count(*) FROM state_cache_stats",
                "SELECT count(*) FROM state_cache_workers",
                "SELECT count(*) FROM state_cache_entries",
                "SELECT count(*) FROM state_progress",
                "SELECT count(*) FROM state_sources",
                "SELECT count(*) FROM state_recovery_log, state_damaged, state_conflict",
            ],
        ),
    ];
    let may = |profile: &str, of: &str| match profile {
        "reader" => of == "reader",
        "application" => matches!(of, "reader" | "application"),
        _ => matches!(of, "reader" | "application") || profile == of,
    };
    for (profile, _) in work {
        client.run(&format!(
            "CREATE ROLE the_{profile}; SELECT state_grant('the_{profile}', '{profile}')"
        ));
        for (of, statements) in work {
            for statement in statements {
                client.run(&format!(
                    "BEGIN; SET LOCAL ROLE the_{profile}; SET CONSTRAINTS ALL IMMEDIATE"
                ));
                let done = client
                    .simple_query(statement)
                    .and_then(|_| client.simple_query("COMMIT"));
                client.run("ROLLBACK");
                let code = done
                    .err()
                    .and_then(|error| error.code().map(|code| code.code().to_owned()));
                let expected = (!may(profile, of)).then(|| "42501".to_owned());
                assert_eq!(code, expected, "{profile}: {statement}");
            }
        }
        assert_eq!(
            client.error("SELECT state_grant('pg_monitor', 'nobody')"),
            "22023"
        );
        client.run("DELETE FROM state_head; DELETE FROM state_context; DELETE FROM state_task");
        client.run(&format!("SET ROLE the_{profile}"));
        assert_eq!(
            client.error("SELECT state_grant('pg_monitor', 'reader')"),
            "42501"
        );
        assert_eq!(client.error("SELECT state_revoke('pg_monitor')"), "42501");
        client.run("RESET ROLE");
        // What the role may do beside it in the schema stays, and with it the schema.
        client.run(&format!(
            "GRANT SELECT ON beside TO the_{profile}; SELECT state_revoke('the_{profile}')"
        ));
        client.run(&format!("SET ROLE the_{profile}"));
        client.run("SELECT * FROM agents.beside");
        assert_eq!(client.error("SELECT state_get('k')"), "42501");
        client.run("RESET ROLE");
    }
}
