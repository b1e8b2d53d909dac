/** A database of each test file's own, and a role with what `state_grant` gives an application, and no more. */

import pg from "pg";
import { StateCacheSaver } from "../src/index.js";

/** Makes the database; the extension is in schema `states`, and the class of LangGraph is defined. */
export async function makeDatabase(name) {
  const admin = new pg.Client({ database: "postgres" });
  await admin.connect();
  await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  await admin.query(`CREATE DATABASE ${name}`);
  await admin.query(
    "DO $$ BEGIN CREATE ROLE application LOGIN;" +
      " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
  );
  await admin.end();
  const owner = new pg.Pool({ database: name, max: 1 });
  await owner.query("CREATE SCHEMA states; CREATE EXTENSION state_cache SCHEMA states");
  await owner.query("SELECT states.state_grant('application', 'application')");
  await new StateCacheSaver(owner, undefined, { schema: "states" }).setup();
  return owner;
}

/** A saver of the application. */
export function saverOf(name, options = {}) {
  const as = { database: name, user: "application", schema: "states" };
  return StateCacheSaver.fromConnString(undefined, { ...as, ...options });
}
