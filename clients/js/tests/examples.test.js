/** The program of docs/clients/langgraph-js.md comes out as the page says. */

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import pg from "pg";

test("five minutes", async () => {
  const admin = new pg.Client({ database: "postgres" });
  await admin.connect();
  await admin.query("DROP DATABASE IF EXISTS js_examples WITH (FORCE)");
  await admin.query("CREATE DATABASE js_examples");
  await admin.end();
  const owner = new pg.Client({ database: "js_examples" });
  await owner.connect();
  await owner.query("CREATE EXTENSION state_cache");
  await owner.end();
  const program = new URL("../examples/first_graph.js", import.meta.url).pathname;
  const env = { ...process.env, PGDATABASE: "js_examples" };
  const { stdout } = await promisify(execFile)(process.execPath, [program], { env });
  expect(stdout).toBe("You have said 3 things.\n6 checkpoints\n");
});
