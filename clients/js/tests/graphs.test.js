/** Real graphs give what they give with MemorySaver. */

import { Annotation, Command, END, MemorySaver, START, Send, StateGraph, interrupt } from "@langchain/langgraph";
import { makeDatabase, saverOf } from "./database.js";

let owner;
let saver;

beforeAll(async () => {
  owner = await makeDatabase("js_graphs");
  saver = saverOf("js_graphs");
});

afterAll(async () => {
  await saver?.end();
  await owner?.end();
});

const State = Annotation.Root({
  steps: Annotation({ reducer: (one, other) => one.concat(other), default: () => [] }),
  answer: Annotation(),
});

function inner() {
  return new StateGraph(State)
    .addNode("ask", () => ({ steps: ["ask"], answer: interrupt({ question: "really?" }) }))
    .addNode("told", ({ answer }) => ({ steps: [`told ${answer}`] }))
    .addEdge(START, "ask")
    .addEdge("ask", "told")
    .addEdge("told", END)
    .compile();
}

function graph(checkpointer) {
  return new StateGraph(State)
    .addNode("first", () => ({ steps: ["first"] }))
    .addNode("worker", ({ n }) => ({ steps: [`worker ${n}`] }))
    .addNode("child", inner())
    .addNode("last", ({ steps }) => ({ steps: [`last of ${steps.length}`] }))
    .addEdge(START, "first")
    .addConditionalEdges("first", () => [1, 2, 3].map((n) => new Send("worker", { n })), ["worker"])
    .addEdge("worker", "child")
    .addEdge("child", "last")
    .addEdge("last", END)
    .compile({ checkpointer });
}

/** What can be compared of a history: no ids, no times. */
async function told(compiled, config) {
  const history = [];
  for await (const one of compiled.getStateHistory(config)) {
    history.push({
      values: one.values,
      next: one.next,
      source: one.metadata.source,
      step: one.metadata.step,
      parent: one.parentConfig !== undefined,
      interrupts: one.tasks.map((task) => task.interrupts?.map(({ value }) => value)),
    });
  }
  return history;
}

async function run(checkpointer) {
  const compiled = graph(checkpointer);
  const config = { configurable: { thread_id: "t" } };
  const said = [await compiled.invoke({ steps: ["in"] }, config)];
  const halted = await compiled.getState(config, { subgraphs: true });
  said.push(halted.tasks.map((task) => [task.name, task.state?.values, task.state?.next]));
  said.push(await compiled.invoke(new Command({ resume: "yes" }), config), await told(compiled, config));
  // A fork from the past, where the workers have not run.
  let past;
  for await (const one of compiled.getStateHistory(config)) if (one.next.includes("worker")) past = one;
  const fork = await compiled.updateState(past.config, { steps: ["fork"] }, "first");
  said.push(await compiled.invoke(null, fork), await compiled.invoke(new Command({ resume: "no" }), config));
  said.push(await told(compiled, config));
  const plain = (name, value) => (name === "__interrupt__" ? value.map((one) => one.value) : value);
  return JSON.parse(JSON.stringify(said, plain));
}

test("Send, interrupt, subgraph, fork", async () => {
  const expected = await run(new MemorySaver());
  expect(expected[2].answer).toBe("yes");
  expect(expected[5].answer).toBe("no");
  expect(await run(saver)).toEqual(expected);
});
