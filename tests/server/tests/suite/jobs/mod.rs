//! Jobs across crashes, dumps, replication and the worker, and under stress.

mod life;
mod stress;

use postgres::Client;
use state_cache_server_tests::Sql;

/// Jobs whose summary differs from their rows under one snapshot, and those that `state_job_verify` names.
fn wrong(client: &mut Client) -> Vec<Vec<String>> {
    let mut found = client.rows("SELECT job_id, kept, counted FROM state_job_verify()");
    found.extend(client.rows(COMPARED));
    found
}

/// The same by plain SQL: every status of every job, as the document and as the rows have it.
const COMPARED: &str = "SELECT c.key, s.status, c.state->'summary'->>s.status, coalesce(n.rows, 0)
    FROM state_current c CROSS JOIN unnest('{pending,running,completed,failed,cancelled}'::text[]) s (status)
    LEFT JOIN (SELECT job_id, status, count(*) AS rows FROM state_task GROUP BY 1, 2) n
        ON n.job_id = c.key AND n.status = s.status
    WHERE c.class = 'job' AND (c.state->'summary'->>s.status)::bigint <> coalesce(n.rows, 0)";
