/**
 * All SQL of the saver. Nothing else in this package knows which functions and tables there are.
 *
 * A thread in a namespace is a state; a checkpoint a version of it. What tasks have written since a checkpoint is in
 * the log beside the state, under a name made of the checkpoint's id: an entry per call of `putWrites`.
 */

const CLASS = "langgraph";
// `refOf` the id of a checkpoint. 0.1.0 took the id itself.
const REF = "encode(substring(sha256(convert_to(l.label, 'UTF8')) FROM 1 FOR 9), 'base64')";
const COLUMNS =
  "k.key, k.version, k.execution_context->>'checkpoint_id' AS label, k.execution_context::text AS context";

/** Rows as checkpoints, with the log entries that belong to them in their order. */
export function stored(rows) {
  return rows.map((row) => ({
    key: row.key,
    id: row.label,
    context: JSON.parse(row.context),
    document: JSON.parse(row.state),
    entries: row.payloads ?? [],
  }));
}

/** The statements of one schema: each is what `query` of pg takes. */
export class Calls {
  constructor(schema) {
    this.p = schema === undefined ? "" : `"${schema.replaceAll('"', '""')}".`;
  }

  /** Defines the class, where it is not there already. */
  setup(keepFor) {
    return {
      text:
        `SELECT ${this.p}state_class_define('${CLASS}', keep => 0, keep_for => $1::text::interval,` +
        ` dedup => false, notify => 'off')::text` +
        ` WHERE NOT EXISTS (SELECT FROM ${this.p}state_class WHERE class = '${CLASS}')`,
      values: [keepFor ?? "0"],
    };
  }

  /** Stores a checkpoint. */
  put(key, document, context) {
    return {
      text:
        `SELECT version FROM ${this.p}state_save_text($1::text, $2::text,` +
        ` execution_context => $3::text::jsonb, class => '${CLASS}')`,
      values: [key, JSON.stringify(document), JSON.stringify(context)],
    };
  }

  /** Appends entries to the log. Those that are there stay, unless replaced. */
  putWrites(key, ref, ids, payloads, replace) {
    return {
      text:
        `SELECT ${this.p}state_log_append($1::text, NULL, $2::text, $3::text[],` +
        ` replace => $4::boolean, payloads => $5::bytea[], class => '${CLASS}')`,
      values: [key, ref, ids, replace, payloads],
    };
  }

  withWrites(source, order) {
    const entries = (ref) =>
      `SELECT g.number, g.payload FROM ${this.p}state_log_entry g` +
      ` WHERE g.class = '${CLASS}' AND g.key = l.key AND g.ref = ${ref}`;
    // By one name after the other: each is looked up in the index.
    return (
      `SELECT l.key, l.version, l.label, l.context, l.state, w.payloads FROM (${source}) l` +
      " LEFT JOIN LATERAL (SELECT array_agg(e.payload ORDER BY e.number) AS payloads" +
      ` FROM (${entries(REF)} UNION ALL ${entries("l.label")}) e) w ON true ${order}`
    );
  }

  /** The newest checkpoint of a key. */
  latest(key) {
    // The version decides which row is read: a join would read all versions.
    const source =
      "SELECT h.key, h.version, h.context->>'checkpoint_id' AS label, h.context::text AS context, h.state" +
      " FROM (SELECT g.key, g.version, g.state::text AS state, (SELECT k.execution_context" +
      ` FROM ${this.p}state_snapshot k WHERE k.class = '${CLASS}' AND k.key = $1::text` +
      " AND k.version = g.version) AS context" +
      ` FROM ${this.p}state_get_many(ARRAY[$1::text], class => '${CLASS}') g OFFSET 0) h`;
    return { text: this.withWrites(source, ""), values: [key] };
  }

  /** A checkpoint by its id. */
  one(key, id) {
    const source =
      `SELECT ${COLUMNS}, ${this.p}state_at(k.key, k.version, '${CLASS}')::text AS state` +
      ` FROM ${this.p}state_snapshot k WHERE k.class = '${CLASS}' AND k.key = $1::text` +
      " AND k.execution_context->>'checkpoint_id' = $2::text ORDER BY k.version DESC LIMIT 1";
    return { text: this.withWrites(source, ""), values: [key, id] };
  }

  /** Checkpoints of the keys from `start` on and below `end`, of namespaces that end keys so, newest first. */
  listed({ start = "", end = "", namespaces, filter, before, id, limit }) {
    const label = "execution_context->>'checkpoint_id' COLLATE \"C\"";
    const chosen =
      `SELECT DISTINCT ON (${label}, key) key, version, ${label} AS label, execution_context AS context` +
      ` FROM ${this.p}state_snapshot` +
      ` WHERE class = '${CLASS}' AND key >= $1::text AND ($2::text = '' OR key < $2::text)` +
      ` AND ($4::text IS NULL OR ${label} < $4::text)` +
      " AND ($5::text IS NULL OR execution_context->>'checkpoint_id' = $5::text)" +
      " AND ($7::text[] IS NULL OR split_part(key, U&'\\001F', 2) = ANY ($7::text[]))" +
      ` ORDER BY ${label} DESC, key, version DESC`;
    // In their order, so that no document is read behind the last one that is wanted.
    const read =
      `SELECT k.*, ${this.p}state_at(k.key, k.version, '${CLASS}') AS state FROM (${chosen}) k` +
      " ORDER BY k.label DESC, k.key OFFSET 0";
    const source =
      `SELECT d.key, d.version, d.label, d.context::text AS context, d.state::text AS state FROM (${read}) d` +
      " WHERE ($3::text IS NULL OR d.context @> $3::text::jsonb OR d.state->'metadata' @> $3::text::jsonb)" +
      " ORDER BY d.label DESC, d.key LIMIT $6::bigint";
    return {
      text: this.withWrites(source, 'ORDER BY l.label COLLATE "C" DESC, l.key'),
      values: [start, end, filter && JSON.stringify(filter), before, id, limit, namespaces],
    };
  }

  /** What was stored of a checkpoint, each time that it was. */
  versions(key, id) {
    return {
      text:
        `SELECT ${COLUMNS}, ${this.p}state_at(k.key, k.version, '${CLASS}')::text AS state, NULL AS payloads` +
        ` FROM ${this.p}state_snapshot k WHERE k.class = '${CLASS}' AND k.key = $1::text` +
        " AND k.execution_context->>'checkpoint_id' = $2::text ORDER BY k.version",
      values: [key, id],
    };
  }

  /** Erases states, their versions and logs; the statements of one transaction. */
  erase(start, end) {
    const from = (table) =>
      `DELETE FROM ${this.p}${table} WHERE class = '${CLASS}' AND key >= $1::text AND key < $2::text`;
    return [
      {
        text:
          `SELECT ${this.p}state_delete(key, class => '${CLASS}') FROM ${this.p}state_head` +
          ` WHERE class = '${CLASS}' AND NOT deleted AND key >= $1::text AND key < $2::text`,
        values: [start, end],
      },
      { text: `SELECT action FROM ${this.p}state_batch_commit()`, values: [] },
      { text: from("state_snapshot"), values: [start, end] },
      { text: from("state_log_entry"), values: [start, end] },
    ];
  }
}
