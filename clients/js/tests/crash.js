/**
 * A graph whose process, or server, is killed with -9 in the middle: a program of crashes.test.js.
 *
 *     node crash.js FILE process|server
 *
 * Each node notes in FILE that it has run. Prints what is in the state at the end.
 */

import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { StateCacheSaver } from "../src/index.js";

const [, , file, victim] = process.argv;
const config = { configurable: { thread_id: "killed" } };
const saver = StateCacheSaver.fromConnString();
const State = Annotation.Root({
  items: Annotation({ reducer: (one, other) => one.concat(other), default: () => [] }),
});

async function kill() {
  if (victim === "process") process.kill(process.pid, "SIGKILL");
  // The server restarts when one of its processes dies so.
  const client = new pg.Client();
  client.on("error", () => {});
  await client.connect();
  process.kill(client.processID, "SIGKILL");
  await sleep(200);
}

const step = (name) => () => {
  appendFileSync(file, `${name}\n`);
  return { items: [name] };
};

/** Waits until the writes of its neighbour are stored, then kills. */
async function beside() {
  appendFileSync(file, "beside\n");
  if (readFileSync(file, "utf8").split("beside").length === 2) {
    const end = Date.now() + 60000;
    for (;;) {
      const found = await saver.getTuple(config);
      if (found.pendingWrites.some(([, , value]) => JSON.stringify(value) === '["s2"]')) break;
      if (Date.now() > end) throw new Error("the writes of s2 are not stored");
      await sleep(10);
    }
    await kill();
  }
  return { items: ["beside"] };
}

const graph = new StateGraph(State)
  .addNode("s0", step("s0"))
  .addNode("s1", step("s1"))
  .addNode("s2", step("s2"))
  .addNode("beside", beside)
  .addNode("s3", step("s3"))
  .addEdge(START, "s0")
  .addEdge("s0", "s1")
  .addEdge("s1", "s2")
  .addEdge("s1", "beside")
  .addEdge(["s2", "beside"], "s3")
  .addEdge("s3", END)
  .compile({ checkpointer: saver });

await saver.setup();
for (let attempt = 0; attempt < 100; attempt += 1) {
  try {
    const begun = (await saver.getTuple(config)) !== undefined;
    const { items } = await graph.invoke(begun ? null : { items: [] }, { ...config, durability: "sync" });
    console.log(items.toSorted().join(" "));
    process.exit(0);
  } catch (error) {
    console.error(error.message);
    await sleep(200);
  }
}
process.exit(1);
