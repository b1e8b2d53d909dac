//! Kept versions: whatever is written, pruned, restored, redefined, crashed or damaged in between, each of them
//! reads back as it was written or is gone as a whole.

mod case;
mod corruption;
mod crash;
mod histories;
mod look;
mod model;
mod patch;
mod stress;

use postgres::Client;
use state_cache_server_tests::Sql;

/// `document(writer, n)`: the document that a writer saves as version n. It shares most of itself with the one
/// before, and any two differ.
pub const DOCUMENT: &str =
    "CREATE FUNCTION document(writer text, n bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('writer', writer, 'n', n, 'log',
        (SELECT jsonb_agg(md5(writer || i)) FROM generate_series(greatest(1, n - 30), n) i)) $$";

/// A text as a literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What `state_verify` says of a class: version and fault of each finding.
pub fn findings(client: &mut Client, class: &str) -> Vec<Vec<String>> {
    client.rows(&format!(
        "SELECT key, version, fault FROM state_verify({}) ORDER BY 1, 2",
        quoted(class)
    ))
}
