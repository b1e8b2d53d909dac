/** Values come back as what they were; many calls at once; connections that die. */

import { emptyCheckpoint, uuid6 } from "@langchain/langgraph-checkpoint";
import { HumanMessage } from "@langchain/core/messages";
import { entryId } from "../src/codec.js";
import { makeDatabase, saverOf } from "./database.js";

let owner;
let saver;

beforeAll(async () => {
  owner = await makeDatabase("js_values");
  saver = saverOf("js_values", { max: 8 });
});

afterAll(async () => {
  await saver?.end();
  await owner?.end();
});

const METADATA = { source: "loop", step: 1, parents: {} };

const checkpointOf = (values) => ({
  ...emptyCheckpoint(),
  id: uuid6(0),
  channel_values: values,
  channel_versions: Object.fromEntries(Object.keys(values).map((name) => [name, 1])),
});

async function store(thread, values, { namespace = "", parent, metadata = METADATA } = {}) {
  const checkpoint = checkpointOf(values);
  const config = { configurable: { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: parent } };
  return saver.put(config, checkpoint, metadata, checkpoint.channel_versions);
}

const HARD = {
  nul: "a\0b",
  half: "\ud800 and \udc00",
  object: { b: 1, a: 2, [`\0${"\udfff"}`]: "x" },
  minus: -0.5,
  small: 1e-9,
  large: 1e22,
  many: ["x", 1, null, true, [{ one: 1 }]],
  bytes: new Uint8Array([0, 34, 92, 127, 255]),
  map: new Map([["k", new Set([1])]]),
  long: "ü\n".repeat(150000),
};

test("values, writes and metadata", async () => {
  const metadata = { ...METADATA, note: "n\0\ud800", checkpoint_id: "mine", order: { b: 1, a: 2 } };
  const config = await store("values", HARD, { metadata });
  for (const [place, value] of Object.values(HARD).entries()) {
    await saver.putWrites(config, [["many", value], ["long", "again"]], `task-${place}`);
  }
  const tuple = await saver.getTuple(config);
  expect(tuple.checkpoint.channel_values).toEqual(HARD);
  expect(Object.keys(tuple.checkpoint.channel_values.object)).toEqual(Object.keys(HARD.object));
  expect(tuple.metadata).toEqual(metadata);
  const written = tuple.pendingWrites.filter(([, channel]) => channel === "many").map(([, , value]) => value);
  expect(written).toEqual(Object.values(HARD));
  const found = [];
  for await (const one of saver.list({ configurable: { thread_id: "values" } }, { filter: { note: "n\0\ud800" } })) {
    found.push(one);
  }
  expect(found).toEqual([tuple]);
  const message = await store("messages", { messages: [new HumanMessage("h\0\ud800")] });
  expect((await saver.getTuple(message)).checkpoint.channel_values.messages[0].content).toBe("h\0\ud800");
});

test("names of threads and namespaces", async () => {
  const names = ["%", "%h", "a\x1fb", "\0", "\ud800", "😀", "ü".repeat(300), "__proto__", " ", "a", "a "];
  for (const thread of names) {
    for (const namespace of ["", ...names]) await store(thread, { at: [thread.length] }, { namespace });
  }
  for (const thread of names) {
    for (const namespace of ["", ...names]) {
      const tuple = await saver.getTuple({ configurable: { thread_id: thread, checkpoint_ns: namespace } });
      expect(tuple.config.configurable).toMatchObject({ thread_id: thread, checkpoint_ns: namespace });
    }
    const listed = [];
    for await (const one of saver.list({ configurable: { thread_id: thread } })) listed.push(one);
    expect(listed.length).toBe(names.length + 1);
  }
  await saver.deleteThread("a");
  expect(await saver.getTuple({ configurable: { thread_id: "a" } })).toBeUndefined();
  expect(await saver.getTuple({ configurable: { thread_id: "a " } })).toBeDefined();
});

test("writes since a checkpoint that was stored again", async () => {
  const text = "a text that both have in common, long enough to be packed. ".repeat(20);
  const checkpoint = checkpointOf({ messages: [new HumanMessage(text)] });
  const at = { configurable: { thread_id: "again" } };
  const config = await saver.put(at, checkpoint, METADATA, checkpoint.channel_versions);
  await saver.putWrites(config, [["messages", [new HumanMessage(text)]]], "task");
  checkpoint.channel_values = { messages: [new HumanMessage("other")] };
  await saver.put(at, checkpoint, METADATA, checkpoint.channel_versions);
  const tuple = await saver.getTuple(config);
  expect(tuple.checkpoint.channel_values.messages[0].content).toBe("other");
  expect(tuple.pendingWrites[0][2][0].content).toBe(text);
});

test("what 0.1.0 has stored: metadata as context, writes under the checkpoint's id", async () => {
  const id = uuid6(0);
  const task = "1f1ed702-418a-6b23-bffe-ddcb047f428d";
  const metadata = { ...METADATA, run_id: "r-1", user: "u-17" };
  const document = { v: 1, values: { n: 3 }, bytes: {}, checkpoint: { v: 4, ts: "", versions_seen: {} } };
  const key = "old\x1f";
  await owner.query(
    "SELECT states.state_save_text($1, $2, execution_context => $3, class => 'langgraph')",
    [key, JSON.stringify(document), JSON.stringify({ ...metadata, checkpoint_id: id })],
  );
  const entry = (...told) => Buffer.from(`\0${JSON.stringify([task, "", [...told, "json", 1]])}\n7`);
  await owner.query(
    "SELECT states.state_log_append($1, NULL, $2, $3, payloads => $4, class => 'langgraph')",
    [key, id, [entryId(task, 1), entryId(task, -4)], [entry(0, "n"), entry(-4, "__resume__")]],
  );
  const config = { configurable: { thread_id: "old", checkpoint_ns: "", checkpoint_id: id } };
  const before = await saver.getTuple(config);
  expect(before.metadata).toEqual(metadata);
  expect(before.pendingWrites.toSorted()).toEqual([[task, "__resume__", 7], [task, "n", 7]]);
  // What takes the place of another does so under its new name too, and what is there already counts.
  await saver.putWrites(config, [["__resume__", 8]], task);
  await saver.putWrites(config, [["n", 8]], task);
  const after = await saver.getTuple(config);
  expect(after.pendingWrites.toSorted()).toEqual([[task, "__resume__", 8], [task, "n", 7]]);
  await store("old", { n: 4 }, { parent: id, metadata: { ...METADATA, user: "u-17" } });
  for (const [filter, count] of [[{ user: "u-17" }, 2], [{ run_id: "r-1" }, 1], [{ step: 2 }, 0]]) {
    const found = [];
    for await (const one of saver.list({ configurable: { thread_id: "old" } }, { filter })) found.push(one);
    expect(found.length).toBe(count);
  }
});

test("32 calls at once on one pool", async () => {
  const threads = Array.from({ length: 32 }, (_, n) => `at once ${n}`);
  await Promise.all(
    threads.map(async (thread, n) => {
      let parent;
      for (let step = 0; step < 10; step += 1) {
        const config = await store(thread, { n, step, list: [{ n, step, thread }] }, { parent });
        parent = config.configurable.checkpoint_id;
        await saver.putWrites(config, [["n", { n, step }]], "task");
      }
      const tuple = await saver.getTuple({ configurable: { thread_id: thread } });
      expect(tuple.checkpoint.channel_values).toEqual({ n, step: 9, list: [{ n, step: 9, thread }] });
      expect(tuple.pendingWrites).toEqual([["task", "n", { n, step: 9 }]]);
    }),
  );
});

test("connections are killed in between", async () => {
  let over = false;
  let killed = 0;
  let step = 0;
  const killer = (async () => {
    // At most one for each step: a call gives up when it has lost three connections.
    for (let last = -1; !over; ) {
      if (step !== last) {
        last = step;
        const { rowCount } = await owner.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity" +
            " WHERE usename = 'application' AND datname = current_database() ORDER BY random() LIMIT 1",
        );
        killed += rowCount;
      }
      await new Promise((done) => setTimeout(done, 60));
    }
  })();
  const ids = [];
  let parent;
  try {
    for (; step < 150; step += 1) {
      const config = await store("killed", { step, list: [{ step, b: 1 }] }, { parent });
      parent = config.configurable.checkpoint_id;
      ids.push(parent);
      await saver.putWrites(config, [["step", step]], "task");
    }
  } finally {
    over = true;
    await killer;
  }
  expect(killed).toBeGreaterThan(3);
  const found = [];
  for await (const one of saver.list({ configurable: { thread_id: "killed" } })) found.push(one);
  expect(found.map((one) => one.checkpoint.id)).toEqual(ids.reverse());
  expect(found.map((one) => one.pendingWrites)).toEqual(ids.map((_, n) => [["task", "step", 149 - n]]));
});
