/** kill -9 of the process in mid-graph, and of the server: the run goes on, no step twice, no write lost. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeDatabase } from "./database.js";

const program = new URL("crash.js", import.meta.url).pathname;
const ALL = "beside s0 s1 s2 s3";
let folder;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "crashes-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const ran = () => readFileSync(join(folder, "ran"), "utf8").trim().split("\n").toSorted().join(" ");

test("the process", { timeout: 300000 }, async () => {
  const owner = await makeDatabase("js_crashes");
  await owner.end();
  const env = { ...process.env, PGDATABASE: "js_crashes", PGOPTIONS: "-c search_path=states" };
  const run = () => spawnSync(process.execPath, [program, join(folder, "ran"), "process"], { env, encoding: "utf8" });
  expect(run().signal).toBe("SIGKILL");
  expect(run().stdout.trim()).toBe(ALL);
  expect(ran()).toBe("beside beside s0 s1 s2 s3");
});

test("the server", { timeout: 300000 }, () => {
  // Safe on disk, unlike the server of the other tests.
  const server = join(process.env.STATE_CACHE_TOP, "scripts/with-server");
  const options = ["--conf", "restart_after_crash = on", "--"];
  const command = [...options, process.execPath, program, join(folder, "ran"), "server"];
  const done = spawnSync(server, command, { encoding: "utf8" });
  expect(done.stdout + done.stderr).toContain(ALL);
  const found = ran();
  // The killed step may have been begun more than once: the server was away meanwhile.
  expect(found.replace(/^(beside )+/, "beside ")).toBe(ALL);
});
