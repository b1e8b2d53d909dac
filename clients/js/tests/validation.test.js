/** LangGraph's own suite for savers, as the application. */

import { validate } from "@langchain/langgraph-checkpoint-validation";
import { makeDatabase, saverOf } from "./database.js";

let owner;

validate({
  checkpointerName: "StateCacheSaver",
  beforeAllTimeout: 60000,
  async beforeAll() {
    owner = await makeDatabase("js_validation");
  },
  async afterAll() {
    await owner.end();
  },
  createCheckpointer: () => saverOf("js_validation", { max: 4 }),
  // The suite wants each saver to find nothing of the one before.
  async destroyCheckpointer(saver) {
    const threads = new Set();
    for await (const { config } of saver.list({})) threads.add(config.configurable.thread_id);
    for (const thread of threads) await saver.deleteThread(thread);
    await saver.end();
    const { rows } = await owner.query(
      "SELECT (SELECT count(*) FROM states.state_snapshot) + (SELECT count(*) FROM states.state_log_entry) AS left",
    );
    if (rows[0].left !== "0") throw new Error(`${rows[0].left} rows are left`);
  },
});
