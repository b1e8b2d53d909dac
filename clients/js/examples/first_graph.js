// Five minutes with LangGraph.js: docs/clients/langgraph-js.md shows parts of this program.
//
// Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.

import assert from "node:assert/strict";

// docs: graph
import { AIMessage } from "@langchain/core/messages";
import { MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { StateCacheSaver } from "state-cache-langgraph";

const builder = new StateGraph(MessagesAnnotation)
  .addNode("answer", ({ messages }) => ({
    messages: [new AIMessage(`You have said ${messages.length} things.`)],
  }))
  .addEdge(START, "answer");

const saver = StateCacheSaver.fromConnString(); // a connection string: "postgresql:///app"
await saver.setup(); // once, as the owner of the extension
const graph = builder.compile({ checkpointer: saver });
const config = { configurable: { thread_id: "thread-js" } };
await graph.invoke({ messages: [["user", "hello"]] }, config);
const state = await graph.invoke({ messages: [["user", "hello again"]] }, config);
console.log(state.messages.at(-1).content); // You have said 3 things.
// docs: end
assert.equal(state.messages.at(-1).content, "You have said 3 things.");

// docs: travel
const past = [];
for await (const one of graph.getStateHistory(config)) past.push(one);
console.log(past.length, "checkpoints");
const fork = await graph.updateState(past[2].config, { messages: [["user", "something else"]] });
await graph.invoke(null, fork);
// docs: end
assert.equal(past.length, 6);

// docs: admin
await saver.deleteThread("thread-js"); // erased: no function can read it again
await saver.end(); // closes the pool
// docs: end
