//! What a role may do is remembered by its sessions, and what takes it away counts at the next statement.

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

const PRIVILEGES: [(&str, &str); 6] = [
    ("SELECT", "state_head"),
    ("INSERT", "state_head"),
    ("UPDATE", "state_head"),
    ("SELECT", "state_snapshot"),
    ("INSERT", "state_snapshot"),
    ("DELETE", "state_snapshot"),
];

/// Only staged, so that nothing but the look at the privileges refuses the change.
const CHANGE: &str = "SELECT state_set('k', '{\"n\": 1}')";

fn may_change(client: &mut Client) -> bool {
    client.run("BEGIN");
    let refused = client.simple_query(CHANGE).err();
    client.run("ROLLBACK");
    match refused.as_ref().and_then(postgres::Error::code) {
        None if refused.is_none() => true,
        Some(code) if code.code() == "42501" => false,
        _ => panic!("{refused:?}"),
    }
}

fn grant(admin: &mut Client, role: &str) {
    admin.run(&format!("GRANT SELECT ON state_class TO {role}"));
    for (privilege, table) in PRIVILEGES {
        admin.run(&format!("GRANT {privilege} ON {table} TO {role}"));
    }
}

/// The server, a session of its superuser, and a session of the role `writer`, which may change nothing.
fn sessions() -> (Server, Client, Client) {
    let server = Server::new(&[]);
    let mut admin = server.connect();
    admin.run("CREATE ROLE writer");
    let mut writer = server.connect();
    writer.run("SET ROLE writer");
    (server, admin, writer)
}

#[test]
fn each_privilege_that_another_session_revokes_is_missed_at_the_next_statement() {
    let (_server, mut admin, mut writer) = sessions();
    grant(&mut admin, "writer");
    assert!(may_change(&mut writer));
    for (privilege, table) in PRIVILEGES {
        admin.run(&format!("REVOKE {privilege} ON {table} FROM writer"));
        assert!(!may_change(&mut writer), "{privilege} on {table}");
        admin.run(&format!("GRANT {privilege} ON {table} TO writer"));
        assert!(may_change(&mut writer), "{privilege} on {table}");
    }
    // In a transaction that goes on, and in one of its own that takes the privilege from itself.
    writer.run(&format!("BEGIN; {CHANGE}"));
    admin.run("REVOKE UPDATE ON state_head FROM writer");
    assert_eq!(writer.error(CHANGE), "42501");
    writer.run("ROLLBACK");
    admin.run("GRANT UPDATE ON state_head TO writer");
    writer.run(&format!("BEGIN; {CHANGE}"));
    writer.run("RESET ROLE; REVOKE INSERT ON state_snapshot FROM writer; SET ROLE writer");
    assert_eq!(writer.error(CHANGE), "42501");
    writer.run("ROLLBACK");
    assert!(may_change(&mut writer));
}

#[test]
fn a_membership_that_ends_is_missed_at_the_next_statement() {
    let (_server, mut admin, mut writer) = sessions();
    admin.run("CREATE ROLE writers");
    grant(&mut admin, "writers");
    admin.run("GRANT writers TO writer");
    assert!(may_change(&mut writer));
    admin.run("REVOKE writers FROM writer");
    assert!(!may_change(&mut writer));
    admin.run("ALTER ROLE writer SUPERUSER");
    assert!(may_change(&mut writer));
    admin.run("ALTER ROLE writer NOSUPERUSER");
    assert!(!may_change(&mut writer));
    // The owner of the database is a member of a role of its own.
    grant(&mut admin, "pg_database_owner");
    let database = admin.text("SELECT current_database()");
    for (owner, may) in [("writer", true), ("writers", false)] {
        admin.run(&format!("ALTER DATABASE {database} OWNER TO {owner}"));
        assert_eq!(may_change(&mut writer), may, "{owner}");
    }
}

#[test]
fn each_role_of_a_session_is_asked_for_itself() {
    let (_server, mut admin, mut writer) = sessions();
    admin.run("CREATE ROLE other");
    grant(&mut admin, "writer");
    let definer = format!(
        "CREATE FUNCTION as_other() RETURNS void SECURITY DEFINER LANGUAGE sql AS $$ {CHANGE} $$"
    );
    admin.run(&format!(
        "{definer}; ALTER FUNCTION as_other() OWNER TO other"
    ));
    for _ in 0..2 {
        writer.run("SET ROLE writer");
        assert!(may_change(&mut writer));
        assert_eq!(writer.error("SELECT as_other()"), "42501");
        writer.run("SET ROLE other");
        assert!(!may_change(&mut writer));
    }
}
