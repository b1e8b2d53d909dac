// First steps with node-postgres: docs/clients/node-postgres.md shows parts of this program.
//
// Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.

"use strict";

const assert = require("node:assert/strict");

// docs: connect
const { Client, Pool } = require("pg");
const { from: copyFrom } = require("pg-copy-streams");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");

const pool = new Pool();
// docs: end

// The only value of the only row.
async function value(statement, ...values) {
  const { rows } = await pool.query({ text: statement, values, rowMode: "array" });
  return rows[0][0];
}

async function documents() {
  // docs: documents
  await pool.query("SELECT state_set($1, $2)", ["node-run", { step: 1, messages: [] }]);
  const { rows } = await pool.query("SELECT state_get($1) AS state", ["node-run"]);
  assert.deepEqual(rows[0].state, { step: 1, messages: [] }); // an object; null if there is no such state
  // docs: end
}

async function otherDocuments() {
  // docs: json
  // Only plain objects become JSON by themselves. An array would become an array of SQL, and a string is taken for
  // JSON as it is.
  await pool.query("SELECT state_set($1, $2)", ["node-list", JSON.stringify([1, 2])]);
  await pool.query("SELECT state_set($1, $2)", ["node-text", JSON.stringify("hello")]);
  // docs: end
  assert.deepEqual(await value("SELECT state_get('node-list')"), [1, 2]);
  assert.equal(await value("SELECT state_get('node-text')"), "hello");
}

async function paths() {
  // docs: paths
  await pool.query("SELECT state_append($1, $2, $3)", ["node-run", ["messages"], { role: "user" }]);
  const path = ["messages", "0", "role"];
  const { rows } = await pool.query("SELECT state_get_path($1, $2) AS role", ["node-run", path]);
  assert.equal(rows[0].role, "user");
  // docs: end
}

async function argumentsByName() {
  // docs: names
  await pool.query("SELECT state_set($1, $2, ttl => $3, class => $4)", [
    "node-limits", { rows: 100 }, "1 hour", "config",
  ]);
  // docs: end
  assert.equal(await value("SELECT state_get_path('node-limits', '{rows}', class => 'config')"), 100);
}

async function listening() {
  // docs: listen
  const listener = new Client(); // of its own: a connection of the pool serves others
  await listener.connect();
  const heard = [];
  listener.on("notification", (message) => heard.push(JSON.parse(message.payload)));
  await listener.query("LISTEN state_updated");
  // docs: end
  await pool.query("SELECT state_set('node-told', '1')");
  for (let turns = 0; heard.length === 0 && turns < 1000; turns++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(heard[0].changes[0].key, "node-told");
  await listener.end();
}

// docs: retry
// Runs work in a transaction, and again as long as other transactions are faster.
async function inTransaction(work) {
  const client = await pool.connect(); // a transaction needs one connection, not the pool
  try {
    for (;;) {
      try {
        await client.query("BEGIN");
        const result = await work(client);
        await client.query("COMMIT");
        return result;
      } catch (error) {
        await client.query("ROLLBACK").catch(() => {}); // the connection may be gone
        if (error.code !== "40001" && error.code !== "40P01") throw error;
        // From a statement or from COMMIT: nothing is kept, read again.
      }
    }
  } finally {
    client.release();
  }
}
// docs: end

async function retrying() {
  await pool.query("SELECT state_set('node-step', $1)", [{ step: 1 }]);
  let attempts = 0;
  await inTransaction(async (client) => {
    attempts += 1;
    const { rows } = await client.query(
      "SELECT state_version('node-step') AS version, state_get('node-step') AS state");
    const [{ version, state }] = rows;
    state.step += 1;
    await client.query("SELECT state_set('node-step', $1, expected_version => $2)", [state, version]);
    if (attempts === 1) {
      // Somebody is faster. Only COMMIT can find out.
      await pool.query("SELECT state_update('node-step', $1)", [{ note: "mine" }]);
    }
    if (attempts === 2) {
      await client.query("DO $$ BEGIN RAISE deadlock_detected; END $$");
    }
  });
  assert.equal(attempts, 3);
  assert.deepEqual(await value("SELECT state_get('node-step')"), { step: 2, note: "mine" });
}

async function expectedVersion() {
  // docs: expected_version
  const countUp = async (client) => {
    const { rows } = await client.query(
      "SELECT coalesce(state_version($1), 0) AS version, state_get($1) AS state", ["node-hot"]);
    const state = rows[0].state ?? { count: 0 };
    state.count += 1;
    await client.query("SELECT state_set($1, $2, expected_version => $3)", ["node-hot", state, rows[0].version]);
  };
  await inTransaction(countUp);
  // docs: end
  await inTransaction(countUp);
  assert.deepEqual(await value("SELECT state_get('node-hot')"), { count: 2 });
  // A bigint comes as a string, and goes back as one.
  assert.equal(typeof (await value("SELECT state_version('node-hot')")), "string");
}

async function operation() {
  // docs: operation
  await pool.query("SELECT state_merge($1, $2)", ["node-hot", { seen: { mail: true } }]);
  // docs: end
  await inTransaction(async (client) => {
    await client.query("SELECT state_merge('node-hot', $1)", [{ seen: { bank: true } }]);
    await pool.query("SELECT state_update('node-hot', $1)", [{ count: 7 }]);
  });
  assert.deepEqual(await value("SELECT state_get('node-hot')"), { count: 7, seen: { mail: true, bank: true } });
}

async function batch() {
  await pool.query("SELECT state_set('node-a', '{\"left\": 5}'), state_set('node-b', '{\"left\": 0}')");
  // docs: batch
  await inTransaction(async (client) => {
    await client.query("SELECT state_batch_begin()"); // what was read must still be so at COMMIT
    const { rows } = await client.query("SELECT key, state FROM state_get_many($1)", [["node-a", "node-b"]]);
    const [a, b] = rows.map((row) => row.state);
    await client.query("SELECT state_update('node-a', $1)", [{ left: a.left - 1 }]);
    await client.query("SELECT state_update('node-b', $1)", [{ left: b.left + 1 }]);
  });
  // docs: end
  const left = await value("SELECT array(SELECT state ->> 'left' FROM state_get_many('{node-a,node-b}'))");
  assert.deepEqual(left, ["4", "1"]);
  // A state that was only read counts too.
  let attempts = 0;
  await inTransaction(async (client) => {
    attempts += 1;
    await client.query("SELECT state_batch_begin(), state_get('node-a')");
    await client.query("SELECT state_update('node-b', $1)", [{ left: 9 }]);
    if (attempts === 1) {
      await pool.query("SELECT state_update('node-a', $1)", [{ left: 3 }]);
    }
  });
  assert.equal(attempts, 2);
}

async function bulkLoad() {
  const documents = Array.from({ length: 1000 }, (_, n) => [`node-row-${n}`, { row: n }]);
  // docs: bulk
  await inTransaction(async (client) => {
    await client.query("CREATE TEMPORARY TABLE incoming (key text, state jsonb) ON COMMIT DROP");
    const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
    const lines = documents.map(([key, document]) => `${quoted(key)},${quoted(JSON.stringify(document))}\n`);
    const copy = client.query(copyFrom("COPY incoming (key, state) FROM STDIN (FORMAT csv)"));
    await pipeline(Readable.from(lines), copy);
    await client.query("SELECT state_set(key, state, class => 'config') FROM incoming");
  });
  // docs: end
  const rows = await value("SELECT count(*) FROM state_current WHERE class = 'config' AND key ~ '^node-row-'");
  assert.equal(rows, "1000");
}

// What beginners write, and what it is answered with.
async function firstErrors() {
  await pool.query("SELECT state_context_create('node-once', resource_limits => $1)", [{ maxCredits: 9 }]);
  const mistakes = [
    ["22P02", "SELECT state_set('node-x', $1)", [1, 2]],
    ["22P02", "SELECT state_set('node-x', $1)", "hello"],
    ["22023", "SELECT state_set('node-x', $1)", undefined],
    ["22P02", "SELECT state_get_path('node-x', $1)", "messages"],
  ];
  for (const [code, statement, it] of mistakes) {
    await assert.rejects(pool.query(statement, [it]), { code }, `${statement} with ${it}`);
  }
  // docs: runs
  const { rows } = await pool.query("SELECT state_context_spend($1, 'credits', $2) AS left", ["node-once", "0.1"]);
  await pool.query("SELECT state_context_set($1, $2, $3)", ["node-once", "step", JSON.stringify(5)]);
  // docs: end
  assert.equal(rows[0].left, "8.9");
  // A number is not what it looks like in numeric.
  assert.notEqual(await value("SELECT state_context_spend($1, 'credits', $2)", "node-once", 0.1 + 0.2), "8.6");
  // An object as ttl is no hour: PostgreSQL 15 reads its JSON as a second, later servers refuse it.
  try {
    await pool.query("SELECT state_set('node-x', '1', ttl => $1)", [{ hours: 1 }]);
    const soon = await value("SELECT expires_at < now() + interval '1 minute' FROM state_head WHERE key = 'node-x'");
    assert.equal(soon, true);
  } catch (error) {
    assert.equal(error.code, "22007");
  }
}

async function main() {
  await pool.query("SELECT state_delete(key) FROM state_head WHERE key LIKE 'node-%' AND class = 'run'");
  for (const step of [documents, otherDocuments, paths, argumentsByName, listening, retrying, expectedVersion,
    operation, batch, bulkLoad, firstErrors]) {
    await step();
    console.log(`node_postgres: ${step.name}: ok`);
  }
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
