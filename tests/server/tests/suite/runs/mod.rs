//! Runs: what their functions answer, what a crash leaves of them, and where else they must work.

mod behind;
mod crash;
mod elsewhere;
mod model;
mod reinstalled;
mod taken;

use postgres::Client;
use state_cache_server_tests::{Sql, inconsistencies};

/// A root `{name}` with a running child `{name}/a` that has a claim, one `{name}/b` that has changed several times
/// since it was created, a conflict of the root that was resolved, an open one that took another's place, and an
/// export of the completed child `{name}/c` in the outbox.
fn begin(client: &mut Client, name: &str) {
    client.run(&format!(
        "SELECT state_context_create('{name}', 'main', '{{\"plan\": {{\"a\": 0, \"b\": 0}}, \"left\": 1, \"right\": \
            1}}',
            ARRAY['read:pii'], '{{\"maxCredits\": 10}}', 'swarm {name}');
         SELECT state_context_child('{name}', '{name}/a', resource_limits => '{{\"maxCredits\": 2}}');
         SELECT state_context_child('{name}', '{name}/b');
         SELECT state_context_child('{name}', '{name}/c')"
    ));
    for value in 2..5 {
        client.run(&format!(
            "SELECT state_context_set('{name}/b', 'right', '{value}')"
        ));
    }
    client.run(&format!(
        "SELECT state_context_patch('{name}/b', 'plan', '{{\"b\": 1}}')"
    ));
    client.run(&format!(
        "SELECT state_context_set('{name}', 'card', '\"4711\"', sensitivity => 'pii')"
    ));
    client.run(&format!(
        "SELECT state_context_patch('{name}', 'plan', '{{\"a\": 1}}')"
    ));
    for (run, value) in [("", 5), ("/a", 6), ("/c", 7)] {
        client.run(&format!(
            "SELECT state_context_set('{name}{run}', 'left', '{value}')"
        ));
    }
    for child in ["a", "c"] {
        client.run(&format!(
            "SELECT * FROM state_context_merge('{name}/{child}', 'manual_review')"
        ));
    }
    client.run(&format!(
        "SELECT state_conflict_resolve(min(id), '8', 'tossed a coin') FROM state_conflict WHERE run_id = '{name}'"
    ));
    client.run(&format!(
        "SELECT state_blackboard_add('swarm {name}', 'note', '1');
         SELECT state_context_mark_export('{name}/c', 'right', 'external_system', target => 'mail');
         SELECT * FROM state_context_complete('{name}/c')"
    ));
    client.run(&format!(
        "SELECT state_context_claim('{name}/a', 'first', '1 day')"
    ));
    client.run(&format!(
        "SELECT state_context_claim('{name}/a', 'first', '1 day')"
    ));
}

/// Goes on where [`begin`] has stopped, through all that runs can do; what each step leaves must be right.
fn go_on(client: &mut Client, name: &str) {
    // The claim that is held is good, the one before is not.
    let token = client.number(&format!(
        "SELECT token FROM state_claim WHERE run_id = '{name}/a'"
    ));
    let highest = client.number("SELECT max(token) FROM state_claim");
    client.run(&format!(
        "SELECT state_context_renew('{name}/a', {token}, '1 day')"
    ));
    client.run(&format!(
        "SELECT state_context_spend('{name}/a', 'credits', 0.5, {token})"
    ));
    let stale = format!(
        "SELECT state_context_set('{name}/a', 'left', '0', token => {})",
        token - 1
    );
    assert_eq!(client.error(&stale), "40001");
    let taken = format!("SELECT state_context_claim('{name}/a', 'second')");
    assert_eq!(client.error(&taken), "55P03");
    client.run(&format!(
        "UPDATE state_claim SET expires_at = '-infinity' WHERE run_id = '{name}/a'"
    ));
    let stolen = client.number(&taken);
    assert!(stolen > highest, "token {stolen} after {highest}");
    let late = format!("SELECT state_context_set('{name}/a', 'left', '0', token => {token})");
    assert_eq!(client.error(&late), "40001");
    client.run(&format!(
        "SELECT state_context_set('{name}/a', 'right', '9', token => {stolen})"
    ));

    // A merge finds what the child began with.
    assert_eq!(
        client.rows(&format!(
            "SELECT variable, value, strategy, reason FROM state_context_merge('{name}/b') ORDER \
            BY 1"
        )),
        [
            [
                "plan",
                "{\"a\": 1, \"b\": 1}",
                "merge_objects",
                "both changed it, the objects were merged"
            ],
            ["right", "4", "NULL", "only the child changed it"],
        ]
    );
    // Another conflict, with a name of its own, beside the one that is open.
    let opened = format!("SELECT conflict FROM state_context_merge('{name}/a', 'manual_review')");
    let (before, opened) = (
        client.number("SELECT max(id) FROM state_conflict"),
        client.number(&opened),
    );
    assert!(opened > before, "conflict {opened} after {before}");
    let open = client.rows(&format!(
        "SELECT variable FROM state_conflict WHERE run_id = '{name}' AND status = 'open' ORDER BY id"
    ));
    assert_eq!(open, [["left"], ["right"]]);
    assert_eq!(
        client.error(&format!("SELECT state_context_set('{name}', 'left', '0')")),
        "55006"
    );
    for variable in ["left", "right"] {
        client.run(&format!(
            "SELECT state_conflict_resolve(id, '10', 'decided') FROM state_conflict
                WHERE run_id = '{name}' AND variable = '{variable}' AND status = 'open'"
        ));
    }
    assert_eq!(
        client.error(&format!("SELECT state_context_complete('{name}')")),
        "55006"
    );

    // What was sent before is acknowledged, and more is sent.
    let sent = format!(
        "SELECT id FROM state_outbox WHERE run_id = '{name}/c' AND target = 'mail' AND acknowledged_at IS NULL FOR \
            UPDATE SKIP LOCKED"
    );
    let (sent, newest) = (
        client.number(&sent),
        client.number("SELECT max(id) FROM state_outbox"),
    );
    client.run(&format!(
        "UPDATE state_outbox SET acknowledged_at = now() WHERE id = {sent}"
    ));
    client.run(&format!(
        "SELECT state_context_mark_export('{name}/a', 'right', 'external_system', target => 'mail', token => \
            {stolen});
         SELECT state_context_mark_export('{name}/a', 'right', 'parent_context', token => {stolen});
         SELECT * FROM state_context_complete('{name}/a', 'completed', 'child_wins', {stolen});
         SELECT * FROM state_context_complete('{name}/b', 'cancelled')"
    ));
    let waiting = client.number(&format!(
        "SELECT id FROM state_outbox WHERE run_id LIKE '{name}/%' AND acknowledged_at IS NULL"
    ));
    assert!(waiting > newest, "export {waiting} after {newest}");
    assert_eq!(
        client.text(&format!(
            "SELECT state_context_spend('{name}', 'credits', 9)"
        )),
        "0.5"
    );
    client.run(&format!("SELECT * FROM state_context_complete('{name}')"));
    assert_eq!(
        client.rows(&format!(
            "SELECT run_id, parent_run_id, depth, status FROM state_context_tree('{name}') ORDER \
            BY 1"
        )),
        [
            [name, "NULL", "0", "completed"],
            [&format!("{name}/a"), name, "1", "completed"],
            [&format!("{name}/b"), name, "1", "cancelled"],
            [&format!("{name}/c"), name, "1", "completed"],
        ]
    );
    let visible = format!(
        "SELECT string_agg(key || '=' || (value -> 'value')::text, ' ' ORDER BY key)
            FROM jsonb_each(state_context_visible('{name}') -> 'variables')"
    );
    assert_eq!(
        client.text(&visible),
        "left=10 plan={\"a\": 1, \"b\": 1} right=10"
    );
    assert_eq!(inconsistencies(client), Vec::<Vec<String>>::new());
}
