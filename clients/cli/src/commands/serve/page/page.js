// The page of `state-cache serve`: a tree of runs, one run with its versions, the cache's figures.
//
// The tree holds blocks: a block is one page of runs below one parent, and is asked for again as a whole when one of
// its runs changes. Children are asked for when their parent is opened. Nothing here is trusted as markup: texts of
// the server become text nodes only.

const at = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function drawn(name, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

async function ask(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  const response = await fetch(`api/${path}${query && "?"}${query}`);
  const text = await response.text();
  if (!response.ok) {
    let said = text;
    try { said = JSON.parse(text).error; } catch { /* Not every refusal is JSON. */ }
    throw new Error(said);
  }
  return JSON.parse(text);
}

function span(seconds) {
  const past = Math.abs(seconds);
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (past >= 2 * length) return `${Math.trunc(past / length)} ${unit}`;
  }
  return `${Math.round(past)} s`;
}

function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${value < 100 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return `${Math.round(value)} TB`;
}

const time = (text) => text.slice(0, 19).replace("T", " ");

// ---- The tree -------------------------------------------------------------------------------------------

const tree = at("tree");
const known = new Map(); // Runs in the tree: id to item.
let chosen = null;
let current = null; // The item that Tab leads to.

function describe(run) {
  const facts = [element("span", { class: "id" }, run.run_id)];
  facts.push(element("span", { class: run.status }, run.status));
  facts.push(element("span", { class: "soft" }, `v${run.version ?? "?"}`));
  if (run.step) facts.push(element("span", { class: "soft" }, `step ${run.step}`));
  if (run.owner) {
    const left = run.lease_in;
    const over = left !== null && left <= 0;
    const lease = left === null ? "" : over ? `, lease over since ${span(left)}` : ` for ${span(left)}`;
    facts.push(element("span", { class: over ? "over" : "soft" }, `owner ${run.owner}${lease}`));
  }
  return facts;
}

function focusOn(item) {
  if (current) current.tabIndex = -1;
  current = item;
  item.tabIndex = 0;
}

function fill(item, run) {
  item.run = run;
  item.firstChild.replaceChildren(...describe(run));
  if (run.has_children && !item.hasAttribute("aria-expanded")) item.setAttribute("aria-expanded", "false");
  item.setAttribute("aria-label", [...item.firstChild.children].map((part) => part.textContent).join(", "));
}

function itemOf(run, level) {
  const item = element("li", { role: "treeitem", tabindex: "-1", "aria-level": level, "aria-selected": "false" },
    element("div", { class: "row" }));
  fill(item, run);
  known.set(run.run_id, item);
  if (run.run_id === chosen) item.setAttribute("aria-selected", "true");
  return item;
}

// Asks for the page behind `after`, and puts it where `more` stood, or at the end.
async function load(list, parent, after, level, more) {
  const page = await ask("runs", { parent, after });
  const block = { list, parent, after, level };
  for (const run of page.runs) {
    const item = known.get(run.run_id) ?? itemOf(run, level);
    item.block = block;
    if (item.parentElement !== list) list.insertBefore(item, more ?? null);
  }
  if (page.next === null) {
    more?.remove();
  } else if (page.runs.length === 0) {
    await load(list, parent, page.next, level, more);
    return;
  } else {
    const next = more ?? element("li", { role: "treeitem", tabindex: "-1", "aria-level": level },
      element("div", { class: "row" }, "Show more runs"));
    next.more = () => load(list, parent, page.next, level, next);
    list.append(next);
  }
  if (!current?.isConnected && tree.firstElementChild) focusOn(tree.firstElementChild);
  at("tree-note").textContent = known.size === 0 ? "There are no runs." : "";
}

// Asks for a block again: what has come, gone or changed.
async function refresh(block) {
  const page = await ask("runs", { parent: block.parent, after: block.after });
  const mine = [...block.list.children].filter((item) => item.block === block);
  const named = new Set(page.runs.map((run) => run.run_id));
  let place = mine[0] ?? block.list.firstElementChild;
  for (const run of page.runs) {
    const item = known.get(run.run_id);
    if (item) {
      if (item.run.version !== run.version || item.run.status !== run.status) flash(item);
      fill(item, run);
      if (item === place) place = item.nextElementSibling;
    } else {
      const made = itemOf(run, block.level);
      made.block = block;
      block.list.insertBefore(made, place);
      flash(made);
    }
  }
  for (const item of mine) {
    // Runs that new ones have pushed out of a full page stay where they are.
    if (!named.has(item.run.run_id) && page.next === null) forget(item);
  }
  if (!current?.isConnected && tree.firstElementChild) focusOn(tree.firstElementChild);
  if (chosen && known.has(chosen)) showFacts(known.get(chosen).run);
}

function forget(item) {
  for (const below of item.querySelectorAll("li")) if (below.run) known.delete(below.run.run_id);
  known.delete(item.run.run_id);
  item.remove();
}

function flash(item) {
  item.classList.remove("fresh");
  requestAnimationFrame(() => item.classList.add("fresh"));
}

async function open(item) {
  if (item.getAttribute("aria-expanded") !== "false") return;
  item.setAttribute("aria-expanded", "true");
  let group = item.querySelector(":scope > ul");
  if (group) {
    group.hidden = false;
    return;
  }
  group = element("ul", { role: "group" });
  item.append(group);
  await load(group, item.run.run_id, null, Number(item.getAttribute("aria-level")) + 1);
}

function close(item) {
  item.setAttribute("aria-expanded", "false");
  const group = item.querySelector(":scope > ul");
  if (group) group.hidden = true;
}

function shown() {
  return [...tree.querySelectorAll("[role=treeitem]")].filter((item) => !item.closest("ul[hidden]"));
}

async function activate(item) {
  if (item.more) {
    const before = item.previousElementSibling;
    await item.more();
    if (document.activeElement === document.body && before) move(before.nextElementSibling ?? before);
  } else {
    await choose(item.run.run_id);
  }
}

function move(item) {
  if (!item) return;
  focusOn(item);
  item.focus();
}

tree.addEventListener("keydown", (event) => {
  const item = event.target.closest("[role=treeitem]");
  if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
  const items = shown();
  const place = items.indexOf(item);
  const expanded = item.getAttribute("aria-expanded");
  const keys = {
    ArrowDown: () => move(items[place + 1]),
    ArrowUp: () => move(items[place - 1]),
    Home: () => move(items[0]),
    End: () => move(items[items.length - 1]),
    ArrowRight: () => (expanded === "false" ? open(item) : expanded === "true" && move(items[place + 1])),
    ArrowLeft: () => (expanded === "true" ? close(item) : move(item.parentElement.closest("[role=treeitem]"))),
    Enter: () => activate(item),
    " ": () => activate(item),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  guarded(keys[event.key]());
});

tree.addEventListener("click", (event) => {
  const item = event.target.closest("[role=treeitem]");
  if (!item) return;
  move(item);
  const row = item.firstChild.getBoundingClientRect();
  if (item.hasAttribute("aria-expanded") && event.clientX < row.left + 22) {
    if (item.getAttribute("aria-expanded") === "true") close(item);
    else guarded(open(item));
    return;
  }
  guarded(activate(item));
});

at("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("name").value.trim();
  if (name) guarded(choose(name).then(() => at("run").focus()));
});

// ---- One run --------------------------------------------------------------------------------------------

let versions = [];
let round = 0; // Answers of an earlier round come too late to be shown.

// Until the last round is answered, what is shown may be of another run than the title says.
function begin() {
  at("run").setAttribute("aria-busy", "true");
  return ++round;
}

function end(mine) {
  if (mine === round) at("run").setAttribute("aria-busy", "false");
}

function showFacts(run) {
  at("run-facts").replaceChildren(...describe(run).flatMap((part) => [part, " "]));
}

async function choose(id) {
  if (chosen && known.has(chosen)) known.get(chosen).setAttribute("aria-selected", "false");
  chosen = id;
  const item = known.get(id);
  item?.setAttribute("aria-selected", "true");
  at("run-title").textContent = id;
  at("run-facts").replaceChildren();
  if (item) showFacts(item.run);
  at("follow").checked = true;
  versions = [];
  await showRun();
}

async function showRun() {
  const mine = begin();
  const note = at("run-note");
  try {
    const page = await ask("versions", { run: chosen });
    if (mine !== round) return;
    versions = page.versions;
    at("line-title").textContent = page.more ? "Versions (the newest)" : "Versions";
    at("run-body").hidden = versions.length === 0;
    note.textContent = versions.length === 0 ? `There are no versions of a run "${chosen}".` : "";
    if (versions.length === 0) return;
    const before = { from: at("from").value, to: at("to").value };
    for (const id of ["from", "to"]) {
      at(id).replaceChildren(...versions.map((version) => element("option", { value: version.version },
        `${version.version} · ${time(version.created_at)} · ${version.checkpoint_type}`)));
    }
    if (at("follow").checked) {
      at("to").value = versions[0].version;
      at("from").value = (versions[1] ?? versions[0]).version;
    } else {
      for (const id of ["from", "to"]) {
        at(id).value = before[id];
        if (at(id).value === "") at(id).value = versions[0].version;
      }
    }
    await compare();
  } catch (error) {
    if (mine !== round) return;
    at("run-body").hidden = true;
    note.textContent = error.message;
  } finally {
    end(mine);
  }
}

async function compare() {
  const mine = begin();
  const [run, from, to] = [chosen, at("from").value, at("to").value];
  drawLine(Number(from), Number(to));
  try {
    const [diff, shownDocument] = await Promise.all([
      ask("diff", { run, from, to }), ask("document", { run, version: to }),
    ]);
    if (mine !== round) return;
    const lines = diff.lines.map((line) => element("span", { class: line.kind }, line.text));
    at("diff").replaceChildren(...(lines.length ? lines : [from === to ? "One version." : "No difference."]));
    at("diff").dataset.pair = `${from}-${to}`;
    at("document").textContent = shownDocument.pretty;
    at("hidden").textContent = shownDocument.hidden
      ? `${shownDocument.hidden} variables are above your level and not shown.` : "";
    at("run-note").textContent = "";
  } catch (error) {
    if (mine !== round) return;
    at("diff").textContent = "";
    at("document").textContent = "";
    at("run-note").textContent = error.message;
  } finally {
    end(mine);
  }
}

function drawLine(from, to) {
  const moments = versions.map((version) => Date.parse(version.created_at));
  const [last, first] = [Math.max(...moments), Math.min(...moments)];
  const line = drawn("line", { x1: 10, x2: 590, y1: 17, y2: 17 });
  const dots = versions.map((version, index) => {
    const x = last === first ? 300 : 10 + (580 * (moments[index] - first)) / (last - first);
    const which = version.version === to ? "to" : version.version === from ? "from" : "other";
    const dot = drawn("circle", { cx: x, cy: 17, r: which === "other" ? 5 : 8, class: which });
    const title = drawn("title");
    title.textContent = `version ${version.version}, ${time(version.created_at)}`;
    dot.append(title);
    dot.addEventListener("click", (event) => {
      at("follow").checked = false;
      at(event.shiftKey ? "from" : "to").value = version.version;
      guarded(compare());
    });
    return dot;
  });
  at("line").replaceChildren(line, ...dots);
}

for (const id of ["from", "to"]) {
  at(id).addEventListener("change", () => {
    at("follow").checked = false;
    guarded(compare());
  });
}
at("follow").addEventListener("change", () => at("follow").checked && guarded(showRun()));

// ---- Changes --------------------------------------------------------------------------------------------

const waiting = new Set();
let all = false;
let busy = false;

// Many changes become one round of questions.
async function catchUp() {
  if (busy) return;
  busy = true;
  tree.setAttribute("aria-busy", "true");
  while (all || waiting.size) {
    const everything = all;
    const changed = new Set(waiting);
    all = false;
    waiting.clear();
    try {
      const blocks = new Set();
      let strangers = false;
      for (const [id, item] of known) if (everything || changed.has(id)) blocks.add(item.block);
      for (const id of changed) strangers ||= !known.has(id);
      // A run that is not here may be a new one: at the top, or in an open parent.
      if (strangers || everything) {
        const firsts = new Set();
        for (const item of known.values()) {
          if (item.block.after === null && !firsts.has(item.block.list)) {
            firsts.add(item.block.list);
            blocks.add(item.block);
          }
        }
        if (known.size === 0) await load(tree, null, null, 1);
      }
      for (const block of blocks) await refresh(block);
      if (chosen && (everything || changed.has(chosen))) await showRun();
    } catch (error) {
      at("tree-note").textContent = error.message;
    }
  }
  busy = false;
  tree.setAttribute("aria-busy", "false");
}

function say(state, text) {
  at("live").dataset.state = state;
  at("live").textContent = text;
}

function listen() {
  const source = new EventSource("api/changes");
  source.addEventListener("ready", () => {
    say("live", "live");
    all = true;
    guarded(catchUp());
  });
  source.addEventListener("lost", (event) => say("lost", `not live: ${JSON.parse(event.data).error}`));
  source.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    if (change.op === "invalidate") all = true;
    else waiting.add(change.key);
    guarded(catchUp());
  });
  source.addEventListener("error", () => say("lost", "not live: the program does not answer"));
}

// ---- Figures --------------------------------------------------------------------------------------------

const titles = ["Reads from L1 a second", "Misses a second", "Writes a second", "Messages a second"];

function plot(title, values) {
  const most = Math.max(1, ...values);
  const svg = drawn("svg", { viewBox: "0 0 240 40", preserveAspectRatio: "none", role: "img" });
  const start = 240 - values.length;
  svg.setAttribute("aria-label", `${title}: ${values[values.length - 1] ?? 0} now, ${most} at most`);
  const points = values.map((value, index) => `${start + index},${38 - (36 * value) / most}`);
  svg.append(drawn("polyline", { points: points.join(" ") }));
  return element("figure", {}, element("figcaption", {}, `${title}: ${values[values.length - 1] ?? 0}`), svg);
}

async function figures() {
  try {
    const { now, history } = await ask("figures");
    at("plots").replaceChildren(...history.map((values, index) => plot(titles[index], values)));
    const numbers = [
      ["L1 hits", now.hit_percent === null ? "no reads" : `${now.hit_percent} %`],
      ["entries", now.entries], ["memory", `${size(now.memory_used)} of ${size(now.memory_total)}`],
      ["unwritten", now.backlog ?? 0], ["lag", span(now.lag_seconds ?? 0)], ["worker", now.worker ?? "none"],
    ];
    at("numbers").replaceChildren(...numbers.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
    at("figures-note").textContent = "";
  } catch (error) {
    at("figures-note").textContent = error.message;
  }
  // Owners and leases change without a message.
  if (chosen && known.has(chosen) && !busy) await refresh(known.get(chosen).block).catch(() => {});
  setTimeout(figures, document.hidden ? 10000 : 2000);
}

function guarded(promise) {
  Promise.resolve(promise).catch((error) => { at("tree-note").textContent = error.message; });
}

guarded(ask("about").then((about) => {
  at("about").textContent = `${about.database} as ${about.role}, up to ${about.sensitivity}`;
}));
guarded(load(tree, null, null, 1).finally(listen));
figures();
