//! A check of the tables as a whole.

use crate::Sql;
use postgres::Client;

/// What is wrong with the tables, each row a complaint: a head without its document, a version that two rows hold, a
/// snapshot without a head or above it, a head row that describes what it does not hold, hashes that do not match,
/// more versions than the class keeps (deltas go a chain later); and, once nothing is being written, whatever a read
/// through the functions answers differently from the tables.
pub fn inconsistencies(client: &mut Client) -> Vec<Vec<String>> {
    client.rows(
        "SELECT 'head without its document', class, key, version::text
             FROM state_head h WHERE NOT deleted AND NOT EXISTS
                 (SELECT FROM state_kept s WHERE (s.class, s.key, s.version) = (h.class, h.key, h.version))
         UNION ALL
         SELECT 'held twice', class, key, version::text
             FROM state_kept GROUP BY class, key, version HAVING count(*) > 1
         UNION ALL
         SELECT 'head says what it holds, and holds nothing', class, key, version::text
             FROM state_head WHERE state IS NULL
                 AND num_nonnulls(parent_version, checkpoint_type, agent_phase, execution_context, writer) > 0
         UNION ALL
         SELECT 'snapshot without a head', s.class, s.key, s.version::text
             FROM state_snapshot s LEFT JOIN state_head h USING (class, key)
             WHERE h.version IS NULL OR h.version < s.version
         UNION ALL
         SELECT 'hash of the head', h.class, h.key, h.version::text
             FROM state_head h JOIN state_kept s USING (class, key, version)
             WHERE NOT h.deleted AND h.hash IS DISTINCT FROM s.hash
         UNION ALL
         SELECT 'hash of the document', class, key, version::text
             FROM state_kept WHERE hash IS DISTINCT FROM state_hash(coalesce(state, state_at(key, version, \
             class)))
         UNION ALL
         SELECT 'more versions than kept', class, key, count(*)::text
             FROM state_kept JOIN state_class c USING (class)
             GROUP BY class, key, c.keep
             HAVING count(*) FILTER (WHERE NOT recovery_point)
                 > c.keep + CASE WHEN bool_and(state IS NOT NULL) THEN 0 ELSE 2 * 24 END
         UNION ALL
         SELECT 'function and table differ', h.class, h.key, coalesce(c.version::text, 'absent')
             FROM state_head h LEFT JOIN state_current c USING (class, key)
             WHERE state_get(h.key, h.class) IS DISTINCT FROM c.state
                 OR state_version(h.key, h.class) IS DISTINCT FROM c.version
         ORDER BY 1, 2, 3",
    )
}
