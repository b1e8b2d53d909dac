/**
 * How a checkpoint becomes a document, and a document a checkpoint: the layout of the Python package, whose
 * `langgraph/_codec.py` describes it. What differs is what the serializers of the two languages give, not where it
 * stands: this one gives JSON, that one msgpack.
 */

import { blake2b } from "@noble/hashes/blake2.js";
import { JsonPlusSerializer } from "@langchain/langgraph-checkpoint";
import { createHash } from "node:crypto";
import * as zlib from "node:zlib";

/** Between thread and namespace in a key. */
export const SEPARATOR = "\x1f";
const KEY_BYTES = 255;
const THREAD_BYTES = 160;
const WINDOW = 32 * 1024;

// A printable byte is its own letter; another one is the letter whose low byte it is.
const isPlain = (byte) => byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c;
const LETTERS = Array.from({ length: 256 }, (_, byte) => (isPlain(byte) ? byte : 0x100 + byte));

/** Bytes as text, one character each. */
export function textOf(data) {
  const wide = Buffer.allocUnsafe(data.length * 2);
  for (let i = 0; i < data.length; i += 1) wide.writeUInt16LE(LETTERS[data[i]], i * 2);
  return wide.toString("utf16le");
}

/** The bytes that `textOf` made a text of. */
export function bytesOf(text) {
  // latin1 keeps the low byte of each character.
  return Buffer.from(text, "latin1");
}

/** UTF-8 in which half a surrogate pair is three bytes, as Python's `surrogatepass` has it. */
export function utf8Of(name) {
  const parts = name.split(/([\ud800-\udfff])/u);
  return Buffer.concat(
    parts.map((part, place) => {
      if (place % 2 === 0) return Buffer.from(part, "utf8");
      const code = part.charCodeAt(0);
      return Buffer.from([0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]);
    }),
  );
}

/** The name that `utf8Of` made bytes of. */
export function nameOf(bytes) {
  let made = "";
  let start = 0;
  for (let i = 0; i + 2 < bytes.length; i += 1) {
    if (bytes[i] === 0xed && bytes[i + 1] >= 0xa0) {
      made += bytes.toString("utf8", start, i);
      made += String.fromCharCode(0xd000 | ((bytes[i + 1] & 0x3f) << 6) | (bytes[i + 2] & 0x3f));
      start = i + 3;
      i += 2;
    }
  }
  return made + bytes.toString("utf8", start);
}

const UNFIT = /[\0\ud800-\udfff]/u;

function isPlainObject(value) {
  if (value === null || typeof value !== "object") return false;
  const prototype = Object.getPrototypeOf(value);
  return (
    (prototype === Object.prototype || prototype === null) &&
    Object.getOwnPropertySymbols(value).length === 0 &&
    typeof value.toJSON !== "function"
  );
}

function isPlainArray(value) {
  return Array.isArray(value) && Object.keys(value).length === value.length && value.toJSON === undefined;
}

function isExactScalar(value) {
  if (value === null || typeof value === "boolean") return true;
  if (typeof value === "string") return !UNFIT.test(value);
  return typeof value === "number" && Number.isFinite(value) && !Object.is(value, -0) && !/e/.test(String(value));
}

/** Whether JSON, stored as jsonb, gives back exactly this value, the order of its names included. */
export function isExact(value) {
  if (isPlainArray(value)) return value.every(isExact);
  if (!isPlainObject(value)) return isExactScalar(value);
  // jsonb sorts the names of an object.
  const entries = Object.entries(value);
  return entries.length < 2 && entries.every(([name, element]) => !UNFIT.test(name) && isExact(element));
}

/** The same where the order of names means nothing. */
export function isJsonb(value) {
  if (isPlainArray(value)) return value.every(isJsonb);
  if (!isPlainObject(value)) return isExactScalar(value);
  return Object.entries(value).every(([name, element]) => !UNFIT.test(name) && isJsonb(element));
}

const fittingText = (text) => text.toWellFormed().replaceAll("\0", "");

/** What of a value jsonb can hold, for filters; the exact value is stored beside it. */
export function fitting(value) {
  if (typeof value === "string") return fittingText(value);
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (Array.isArray(value)) return value.map(fitting);
  if (value instanceof Map) return fitting(Object.fromEntries(value));
  if (isPlainObject(value)) {
    const told = Object.entries(value).filter(([, element]) => element !== undefined);
    return Object.fromEntries(told.map(([name, element]) => [fittingText(name), fitting(element)]));
  }
  return fittingText(String(value));
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");

/** A part of a key: the name with escapes, or a hash where that is too long. */
function part(name, atMost) {
  const spelled = name.replace(/[%\x00-\x1f\ud800-\udfff]/gu, (found) =>
    [...utf8Of(found)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  );
  if (Buffer.byteLength(spelled) <= atMost) return spelled;
  // No escape begins with %h.
  return `%h${hex(blake2b(utf8Of(name), { dkLen: 20 }))}`;
}

/** All keys of a thread are at or above the first and below the second. */
export function threadRange(thread) {
  const start = part(thread, THREAD_BYTES);
  return [start + SEPARATOR, `${start} `];
}

/** The key of the state whose versions are the checkpoints of a thread in a namespace. */
export function keyOf(thread, namespace) {
  const start = part(thread, THREAD_BYTES) + SEPARATOR;
  return start + part(namespace, KEY_BYTES - Buffer.byteLength(start));
}

/** The key alone, as `threadRange`: no spelled name holds U+0001. */
export function keyRange(key) {
  return [key, `${key}\x01`];
}

/** How a namespace ends keys, whatever their thread: spelled, or hashed where the thread leaves no room. */
export function namespaceParts(namespace) {
  return [part(namespace, KEY_BYTES), part(namespace, 0)];
}

const unescaped = (spelled) =>
  spelled.replace(/(?:%[0-9A-F]{2})+/g, (found) => nameOf(Buffer.from(found.replaceAll("%", ""), "hex")));

/** Thread and namespace of a checkpoint. */
export function namesOf(key, document) {
  if (document.name !== undefined) return document.name.map((name) => nameOf(bytesOf(name)));
  const end = key.indexOf(SEPARATOR);
  return [unescaped(key.slice(0, end)), unescaped(key.slice(end + 1))];
}

/** The name of a log entry: a task, and a place. Short, since it stands in an index; 72 bits tell tasks apart. */
export function entryId(taskId, place) {
  return `${Buffer.from(blake2b(utf8Of(taskId), { dkLen: 9 })).toString("base64")}/${place}`;
}

/** The name of what was written since a checkpoint. Short, as `entryId`; SQL makes the same of the id. */
export function refOf(id) {
  return createHash("sha256").update(utf8Of(id)).digest().subarray(0, 9).toString("base64");
}

// What entries of the log are made of, for zlib to refer to. The same bytes as in Python: they must never change.
const WORDS = Buffer.from(
  "additional_kwargs response_metadata usage_metadata input_tokens output_tokens total_tokens finish_reason stop" +
    "invalid_tool_calls tool_call_id artifact success name args type tool_call langgraph.types Interrupt Send value" +
    "langchain_core.messages.system SystemMessage langchain_core.messages.human HumanMessage human " +
    "langchain_core.messages.tool ToolMessage tool langchain_core.messages.ai AIMessage ai content id " +
    "model_validate_json tool_calls " +
    '"~__pregel_push, "~__pregel_pull, agent",[0,"messages","msgpack",1],[1,"branch:to:tools","null",0],[2,"' +
    '__pregel_tasks","msgpack",__start__"__error__"__interrupt__",[-3,"__resume__",[-4,"',
);

/** The name of a task in an entry: for a UUID `=` and its bytes. */
function short(task) {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(task)) {
    return `=${Buffer.from(task.replaceAll("-", ""), "hex").toString("base64").slice(0, 22)}`;
  }
  return task.startsWith("=") ? `=${task}` : task;
}

/** The name of a task again. */
function long(spelled) {
  if (!spelled.startsWith("=")) return spelled;
  if (spelled.startsWith("==") || spelled.length !== 23) return spelled.slice(1);
  const digits = Buffer.from(spelled.slice(1), "base64").toString("hex");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** What the values of channels may have in common with those in their checkpoint. */
function dictionary(known, channels) {
  const values = Buffer.concat(channels.map((channel) => bytesOf(known.get(channel))));
  return Buffer.concat([values.subarray(Math.max(0, values.length - (WINDOW - WORDS.length))), WORDS]);
}

/** Orders strings by code point, as Python does: the place of a channel counts in this order. */
export function byCodePoint(one, other) {
  return Buffer.compare(utf8Of(one), utf8Of(other));
}

const ordered = (known) => [...known.keys()].sort(byCodePoint);

/** An entry of the log: 0 and the plain entry; or 1, places of channels, a CRC, and the entry packed with these. */
export function pack(told, data, known, channels) {
  const plain = Buffer.concat([Buffer.from(`${JSON.stringify([short(told[0]), ...told.slice(1)])}\n`), data]);
  const chosen = ordered(known)
    .map((channel, place) => [place, channel])
    .filter(([place, channel]) => place < 256 && channels.includes(channel))
    .slice(0, 255);
  const words = dictionary(known, chosen.map(([, channel]) => channel));
  const head = Buffer.alloc(2 + chosen.length + 4);
  head[0] = 1;
  head[1] = chosen.length;
  chosen.forEach(([place], at) => {
    head[2 + at] = place;
  });
  head.writeUInt32BE(zlib.crc32(words), 2 + chosen.length);
  const packed = Buffer.concat([head, zlib.deflateRawSync(plain, { level: 9, memLevel: 9, dictionary: words })]);
  return packed.length < plain.length ? packed : Buffer.concat([Buffer.from([0]), plain]);
}

/** An entry was packed with another content of its checkpoint: somebody has stored that again since. */
export class OtherDictionary extends Error {}

/** What `pack` was given. */
export function unpack(packed, known) {
  let plain = packed.subarray(1);
  if (packed[0] !== 0) {
    const start = 2 + packed[1];
    const names = ordered(known);
    const places = [...packed.subarray(2, start)];
    if (places.some((place) => place >= names.length)) throw new OtherDictionary();
    const words = dictionary(known, places.map((place) => names[place]));
    if (zlib.crc32(words) !== packed.readUInt32BE(start)) throw new OtherDictionary();
    plain = zlib.inflateRawSync(packed.subarray(start + 4), { dictionary: words });
  }
  const end = plain.indexOf(10);
  const [task, ...told] = JSON.parse(plain.toString("utf8", 0, end));
  return [[long(task), ...told], plain.subarray(end + 1)];
}

/** The bytes in a document as text, by channel. */
export function valuesOf(document) {
  return new Map(Object.entries(document.bytes).map(([channel, encoded]) => [channel, encoded[1]]));
}

function set(object, name, value) {
  // A channel may be called __proto__.
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}

/** Documents under one serializer. */
export class Codec {
  constructor(serde) {
    this.serde = serde;
    this.readable = serde.constructor === JsonPlusSerializer;
  }

  /** A value as JSON: [value] for what JSON holds exactly, else [type, text]. */
  async encode(value) {
    if (this.readable && isExact(value)) return [value];
    const [kind, data] = await this.serde.dumpsTyped(value);
    return [kind, textOf(data)];
  }

  /** The value again. */
  async decode(encoded) {
    return encoded.length === 1 ? encoded[0] : this.serde.loadsTyped(encoded[0], new Uint8Array(bytesOf(encoded[1])));
  }

  /** Document of a checkpoint, and the context of its version: what finds it without its document. */
  async document(key, thread, namespace, checkpoint, parent, metadata) {
    const { id, channel_values: channels, ...rest } = checkpoint;
    const document = { v: 1, values: {}, bytes: {} };
    for (const [channel, value] of Object.entries(channels)) {
      const encoded = await this.encode(value);
      if (encoded.length === 1) set(document.values, channel, encoded[0]);
      else set(document.bytes, channel, encoded);
    }
    if (isJsonb(rest)) document.checkpoint = rest;
    else document.rest = await this.encode(rest);
    if (parent !== undefined) document.parent = parent;
    let context = { ...metadata };
    if (!isJsonb(context) || "checkpoint_id" in context) {
      document.meta = await this.encode(context);
      context = fitting(context);
    } else {
      document.metadata = context;
      context = "run_id" in context ? { run_id: context.run_id } : {};
    }
    const [read, space] = namesOf(key, {});
    if (read !== thread || space !== namespace) {
      document.name = [thread, namespace].map((name) => textOf(utf8Of(name)));
    }
    context.checkpoint_id = id;
    return [document, context];
  }

  /** The checkpoint of a document. */
  async checkpoint(document, id) {
    const rest = document.checkpoint ?? (await this.decode(document.rest));
    const values = { ...document.values };
    for (const [channel, encoded] of Object.entries(document.bytes)) set(values, channel, await this.decode(encoded));
    return { ...rest, id, channel_values: values };
  }

  /** The metadata of a checkpoint. */
  async metadata(document, context) {
    if (document.meta !== undefined) return this.decode(document.meta);
    if (document.metadata !== undefined) return document.metadata;
    const { checkpoint_id: _, ...metadata } = context;
    return metadata;
  }
}
