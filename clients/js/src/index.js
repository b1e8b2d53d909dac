/** LangGraph.js checkpoints in PostgreSQL with the extension state_cache. */

import {
  BaseCheckpointSaver,
  TASKS,
  WRITES_IDX_MAP,
  compareWritesSortKeys,
  getCheckpointId,
  maxChannelVersion,
  writesSortKey,
} from "@langchain/langgraph-checkpoint";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

import {
  Codec,
  OtherDictionary,
  entryId,
  fitting,
  keyOf,
  keyRange,
  namesOf,
  namespaceParts,
  pack,
  refOf,
  threadRange,
  unpack,
  valuesOf,
} from "./codec.js";
import { Calls, stored } from "./sql.js";

/** How often a call is made that meets a lost connection. Every call may be made twice: what it stores has a name. */
const ATTEMPTS = 3;
const PAUSE_MS = 100;
/** Checkpoints whose values a saver remembers, to pack the writes that follow. */
const REMEMBERED = 256;
const GONE = /Connection terminated|Client has encountered a connection error|not queryable/;
const GONE_CODES = new Set(["ECONNRESET", "ECONNREFUSED", "EPIPE", "ENOENT"]);

/** Whether the server or the connection to it has gone. */
function isLost(error) {
  const code = error?.code;
  if (typeof code === "string" && (GONE_CODES.has(code) || /^(08|57P)/.test(code))) return true;
  return GONE.test(error?.message ?? "");
}

/** Pools whose connections are listened to. */
const heard = new WeakSet();

/**
 * Has the end of a connection be no error that nobody handles: its next statement fails. A connection may end in the
 * very moment in which the pool hands it out, before whoever asked for it can listen.
 */
function hearConnections(pool) {
  if (heard.has(pool)) return;
  heard.add(pool);
  pool.on("connect", (client) => client.on("error", () => {}));
}

function idOf(config, name, doing) {
  const id = config?.configurable?.[name];
  if (id === undefined || id === null || id === "") {
    throw new Error(`${doing} needs ${name} in config.configurable: { configurable: { ${name}: "..." } }`);
  }
  return String(id);
}

const namespaceOf = (config) => config?.configurable?.checkpoint_ns ?? "";

function configOf(thread, namespace, id) {
  return { configurable: { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: id } };
}

export class StateCacheSaver extends BaseCheckpointSaver {
  /**
   * @param {pg.Pool} pool as many calls run at once as it has connections
   * @param {import("@langchain/langgraph-checkpoint").SerializerProtocol} [serde]
   * @param {{ schema?: string }} [options] schema: the extension's, where that is not on search_path
   */
  constructor(pool, serde, options = {}) {
    super(serde);
    hearConnections(pool);
    this.pool = pool;
    this.calls = new Calls(options.schema);
    this.known = new Map();
  }

  /** A saver with a pool of its own; `end()` closes the pool. */
  static fromConnString(connectionString, options = {}) {
    const { serde, schema, max = 10, ...rest } = options;
    const pool = new pg.Pool({ connectionString, max, ...rest });
    // A connection that is lost while nobody uses it: the pool makes another one when somebody asks.
    pool.on("error", () => {});
    return new StateCacheSaver(pool, serde, { schema });
  }

  /** Closes the pool. */
  async end() {
    await this.pool.end();
  }

  /** Defines the class of states; once, as the owner of the extension. keepFor: how long versions are kept. */
  async setup(keepFor) {
    await this.#run([this.calls.setup(keepFor)]);
  }

  getNextVersion(current) {
    // In a thread that a Python saver began, versions in the way of that one.
    if (typeof current === "string") {
      return `${String(Number(current.split(".")[0]) + 1).padStart(32, "0")}.${"0".repeat(16)}`;
    }
    return super.getNextVersion(current);
  }

  /** The rows of the last statement. Several are a transaction. */
  async #run(statements) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#attempt(statements);
      } catch (error) {
        if (!isLost(error) || attempt === ATTEMPTS) throw error;
        await sleep(PAUSE_MS * attempt);
      }
    }
  }

  async #attempt(statements) {
    const client = await this.pool.connect();
    // pg tells of a connection that dies between two statements by an event, too: the next statement fails.
    const ignore = () => {};
    client.on("error", ignore);
    let failed;
    try {
      if (statements.length === 1) return (await client.query(statements[0])).rows;
      await client.query("BEGIN");
      let rows = [];
      for (const statement of statements) rows = (await client.query(statement)).rows;
      await client.query("COMMIT");
      return rows;
    } catch (error) {
      failed = error;
      if (statements.length > 1 && !isLost(error)) await client.query("ROLLBACK").catch(() => {});
      throw error;
    } finally {
      client.off("error", ignore);
      client.release(failed !== undefined && isLost(failed) ? failed : undefined);
    }
  }

  #remember(key, id, values) {
    const name = JSON.stringify([key, id]);
    this.known.delete(name);
    this.known.set(name, values);
    if (this.known.size > REMEMBERED) this.known.delete(this.known.keys().next().value);
  }

  async put(config, checkpoint, metadata, newVersions) {
    const thread = idOf(config, "thread_id", "put");
    const namespace = namespaceOf(config);
    const parent = config.configurable.checkpoint_id || undefined;
    let given = checkpoint;
    if (parent === undefined && newVersions !== undefined) {
      // What is not new is the parent's. Without a parent there is nothing but the new.
      const isNew = ([channel]) => Object.hasOwn(newVersions, channel);
      const fresh = Object.entries(checkpoint.channel_values).filter(isNew);
      given = { ...checkpoint, channel_values: Object.fromEntries(fresh) };
    }
    const key = keyOf(thread, namespace);
    const [document, context] =
      await new Codec(this.serde).document(key, thread, namespace, given, parent, metadata);
    await this.#run([this.calls.put(key, document, context)]);
    this.#remember(key, checkpoint.id, valuesOf(document));
    return configOf(thread, namespace, checkpoint.id);
  }

  async putWrites(config, writes, taskId, taskPath = "") {
    const thread = idOf(config, "thread_id", "putWrites");
    const id = idOf(config, "checkpoint_id", "putWrites");
    if (writes.length === 0) return;
    const key = keyOf(thread, namespaceOf(config));
    // Errors, interrupts and the like have a place each and take the place of the one before. Other writes are an
    // entry for the whole call: its id says how many they are, so that a longer call is another entry.
    const again = writes.every(([channel]) => Object.hasOwn(WRITES_IDX_MAP, channel));
    const known = this.known.get(JSON.stringify([key, id])) ?? new Map();
    const ids = [];
    const payloads = [];
    for (const call of again ? writes.map((write) => [write]) : [writes]) {
      const told = [taskId, taskPath];
      const values = [];
      for (const [place, [channel, value]] of call.entries()) {
        const [kind, data] = await this.serde.dumpsTyped(value);
        const at = Object.hasOwn(WRITES_IDX_MAP, channel) ? WRITES_IDX_MAP[channel] : place;
        told.push([at, channel, kind, data.length]);
        values.push(data);
      }
      ids.push(entryId(taskId, again ? told[2][0] : call.length));
      payloads.push(pack(told, Buffer.concat(values), known, call.map(([channel]) => channel)));
    }
    await this.#run([this.calls.putWrites(key, refOf(id), ids, payloads, again)]);
  }

  /** What tasks have written since a checkpoint, in LangGraph's order. */
  async #pending(entries, contents) {
    const found = new Map();
    for (const entry of entries) {
      const [[task, path, ...told], data] = unpackAny(entry, contents);
      let start = 0;
      for (const [place, channel, kind, size] of told) {
        const name = JSON.stringify([task, place]);
        // Of writes at the same place the first counts, as if each were a row of its own. Those that take the place
        // of others are there once; or twice, where 0.1.0 named the entry otherwise.
        if (place < 0 || !found.has(name)) {
          found.set(name, { order: writesSortKey(path, task, place), task, channel, kind,
            data: new Uint8Array(data.subarray(start, start + size)) });
        }
        start += size;
      }
    }
    const sorted = [...found.values()].sort((one, other) => compareWritesSortKeys(one.order, other.order));
    return Promise.all(
      sorted.map(async ({ task, channel, kind, data }) => [task, channel, await this.serde.loadsTyped(kind, data)]),
    );
  }

  async #tuple(row) {
    const { key, id, context, document, entries } = row;
    const known = valuesOf(document);
    let pending;
    try {
      pending = await this.#pending(entries, [known]);
    } catch (error) {
      if (!(error instanceof OtherDictionary)) throw error;
      // The checkpoint was stored again since: what it was is kept as an older version.
      const before = stored(await this.#run([this.calls.versions(key, id)]));
      pending = await this.#pending(entries, before.map((one) => valuesOf(one.document)));
    }
    this.#remember(key, id, known);
    const codec = new Codec(this.serde);
    const [thread, namespace] = namesOf(key, document);
    const checkpoint = await codec.checkpoint(document, id);
    const tuple = {
      config: configOf(thread, namespace, id),
      checkpoint,
      metadata: await codec.metadata(document, context),
      pendingWrites: pending,
    };
    if (document.parent !== undefined) {
      tuple.parentConfig = configOf(thread, namespace, document.parent);
      if (checkpoint.v < 4) await this.#migrateSends(checkpoint, tuple.parentConfig);
    }
    return tuple;
  }

  /** Before version 4 of checkpoints, what was sent to tasks stood with the parent's writes. */
  async #migrateSends(checkpoint, parentConfig) {
    const parent = await this.getTuple(parentConfig);
    const sends = (parent?.pendingWrites ?? []).filter(([, channel]) => channel === TASKS);
    checkpoint.channel_values[TASKS] = sends.map(([, , value]) => value);
    const versions = Object.values(checkpoint.channel_versions);
    checkpoint.channel_versions[TASKS] =
      versions.length > 0 ? maxChannelVersion(...versions) : this.getNextVersion(undefined);
  }

  async getTuple(config) {
    if (config?.configurable?.thread_id === undefined) return undefined;
    const key = keyOf(idOf(config, "thread_id", "getTuple"), namespaceOf(config));
    const id = getCheckpointId(config);
    const [row] = stored(await this.#run([id ? this.calls.one(key, id) : this.calls.latest(key)]));
    return row === undefined ? undefined : this.#tuple(row);
  }

  async *list(config, options = {}) {
    const { limit, before, filter } = options;
    const thread = config?.configurable?.thread_id;
    const namespace = config?.configurable?.checkpoint_ns;
    const wanted = {
      limit,
      filter: filter && fitting(filter),
      before: (before && getCheckpointId(before)) || undefined,
      id: getCheckpointId(config ?? {}) || undefined,
    };
    if (thread !== undefined) {
      [wanted.start, wanted.end] =
        namespace === undefined ? threadRange(String(thread)) : keyRange(keyOf(String(thread), namespace));
    } else if (namespace !== undefined) {
      wanted.namespaces = namespaceParts(namespace);
    }
    for (const row of stored(await this.#run([this.calls.listed(wanted)]))) yield await this.#tuple(row);
  }

  /** Erases a thread, all namespaces of it: no function can read it again. */
  async deleteThread(threadId) {
    await this.#run(this.calls.erase(...threadRange(String(threadId))));
  }
}

function unpackAny(entry, contents) {
  for (const [place, known] of contents.entries()) {
    try {
      return unpack(entry, known);
    } catch (error) {
      if (!(error instanceof OtherDictionary) || place + 1 === contents.length) throw error;
    }
  }
  throw new OtherDictionary();
}
