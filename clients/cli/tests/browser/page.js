/** The page in a browser: what a reader does with it, by mouse and by keyboard. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Tab, sql, startBrowser } from "./driver.js";

let browser;

before(async () => {
  browser = await startBrowser();
});

after(() => browser?.close());

/** Runs something in a tab of its own. */
const inTab = (name, options, body) => test(name, async () => {
  const tab = await Tab.open(browser, options);
  await body(tab);
  await tab.close();
});

test("without the token there is no page", async () => {
  const stranger = await browser.createBrowserContext();
  const page = await stranger.newPage();
  const answer = await page.goto(new URL("/", process.env.PAGE).href);
  assert.equal(answer.status(), 401);
  assert.equal(await page.$("#tree"), null);
  await stranger.close();
});

inTab("the address loses its token", {}, async (tab) => {
  assert.equal(new URL(tab.page.url()).search, "");
  assert.match(await tab.text("#about"), /browser as postgres, up to public/);
});

inTab("a click opens a run, and one on its mark the tree", {}, async (tab) => {
  assert.ok(!(await tab.runs()).includes("research/search"));
  await tab.click("research", "mark");
  await tab.page.waitForSelector('#tree [role="group"] .id');
  assert.deepEqual((await tab.runs()).slice(0, 3), ["research", "research/write", "research/search"]);
  await tab.click("research/search", "name");
  await tab.shows("research/search");
  assert.match(await tab.text("#run-facts"), /research\/search running v\d+ .*owner worker-7 for 2\d h/);
  await tab.click("research", "mark");
  assert.ok(!(await tab.runs()).includes("research/search"));
});

inTab("the keyboard does all that", {}, async (tab) => {
  // From the top of the page: the link past the tree, the field, its button, the tree.
  await tab.press("Tab", "Tab", "Tab", "Tab", "Home");
  assert.equal(await tab.focused(), "research");
  await tab.press("ArrowRight");
  await tab.page.waitForSelector('#tree [role="group"] .id');
  await tab.press("ArrowRight");
  assert.equal(await tab.focused(), "research/write");
  await tab.press("ArrowDown", "Enter");
  await tab.shows("research/search");
  assert.equal(await tab.focused(), "research/search");
  await tab.press("ArrowLeft");
  assert.equal(await tab.focused(), "research");
  await tab.press("ArrowLeft");
  assert.ok(!(await tab.runs()).includes("research/search"));
  // One stop of Tab is the whole tree; then come the lists that compare.
  await tab.press(" ");
  await tab.shows("research");
  await tab.press("Tab");
  assert.equal(await tab.page.evaluate(() => document.activeElement.id), "from");
  await tab.press("End");
  await tab.compares("1-3");
});

inTab("two versions are compared", {}, async (tab) => {
  await tab.find("research");
  assert.equal(await tab.page.evaluate(() => [...document.querySelectorAll("#to option")].map((it) => it.value).join()),
    "3,2,1");
  await tab.compares("2-3");
  await tab.page.select("#from", "1");
  await tab.compares("1-3");
  assert.match(await tab.text("#diff .removed"), /^- +"value": "a first outline"/m);
  assert.match(await tab.text("#diff .added"), /^\+ +"value": "three parts, with sources"/m);
  // A dot of the time line, then the same version twice.
  await (await tab.page.$$("#line circle"))[1].click();
  await tab.compares("1-2");
  assert.match(await tab.text("#diff .added"), /"value": "two parts"/);
  await tab.page.select("#from", "2");
  await tab.compares("2-2");
  assert.equal(await tab.text("#diff"), "One version.");
});

inTab("what is above the level does not show", {}, async (tab) => {
  await tab.find("research");
  assert.equal(await tab.text("#hidden"), "1 variables are above your level and not shown.");
  for (const pair of [["1", "2"], ["2", "3"], ["1", "3"]]) {
    await tab.page.select("#from", pair[0]);
    await tab.page.select("#to", pair[1]);
    await tab.compares(pair.join("-"));
    const whole = await tab.page.content();
    assert.match(whole, /a first outline|two parts|three parts/);
    assert.doesNotMatch(whole, /hush|apiKey/);
  }
  assert.equal(sql("SELECT state_context_visible('research', 'secret') -> 'variables' -> 'apiKey' ->> 'value'"), "hush");
});

/** Writes a variable of a run, which everybody may see. */
const set = (run, value) => sql(`SELECT state_context_set('${run}', 'note', '"${value}"', sensitivity => 'public')`);

inTab("changes show as they are committed", {}, async (tab) => {
  await tab.find("live");
  const shows = (text) => tab.until((it) => document.querySelector("#document").textContent.includes(it), text);
  set("live", "first of all");
  await shows("first of all");
  await tab.compares("1-2");
  assert.match(await tab.text("#diff"), /\+ .*first of all/);
  await tab.until(() => document.querySelector("#run-facts").textContent.includes("v2"));
  // A new run, and one below another run.
  sql("SELECT state_context_create('newcomer')");
  await tab.page.waitForSelector('#tree ::-p-xpath(.//span[@class="id"][.="newcomer"])');
  sql("SELECT state_context_child('newcomer', 'newcomer/child')");
  await tab.page.waitForSelector('#tree li[aria-expanded="false"] ::-p-xpath(.//span[@class="id"][.="newcomer"])');
  // Who does not follow keeps the versions that were compared, and sees that there are more.
  await tab.page.click("#follow");
  set("live", "second");
  await tab.page.waitForSelector('#to option[value="3"]');
  await tab.shows("live");
  await tab.compares("1-2");
  await tab.page.click("#follow");
  await shows("second");
  await tab.compares("2-3");
});

inTab("ten thousand runs stay usable", {}, async (tab) => {
  assert.equal((await tab.runs()).length, 100);
  // Each end of the list leads on.
  await tab.page.focus('#tree [tabindex="0"]');
  for (let count = 200; count <= 1000; count += 100) {
    await tab.press("End", "Enter");
    await tab.until((it) => document.querySelectorAll("#tree .id").length === it, count);
  }
  assert.equal(new Set(await tab.runs()).size, 1000);
  // The oldest one is found by its name, and a change of it shows.
  await tab.find("run-1");
  set("run-1", "old, but seen");
  await tab.until(() => document.querySelector("#document").textContent.includes("old, but seen"));
});

/** The least contrast of a text with its ground, as WCAG counts it, with the text. */
function leastContrast() {
  const rgb = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = rgb(color).map((it) => (it / 255 <= 0.03928 ? it / 3294.6 : ((it / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return rgb(color)[3] === 0 ? ground(element.parentElement) : color;
  };
  let least = [21, ""];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].find((it) => it.nodeType === 3 && it.textContent.trim());
    if (!text || element.getClientRects().length === 0) continue;
    const pair = [light(getComputedStyle(element).color), light(ground(element))].toSorted((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < least[0]) least = [contrast, text.textContent];
  }
  return least;
}

for (const [scheme, ground] of [["light", "rgb(255, 255, 255)"], ["dark", "rgb(16, 20, 24)"]]) {
  inTab(`narrow and ${scheme}, all can be read`, { width: 400, height: 800, scheme }, async (tab) => {
    await tab.find("research");
    await tab.page.waitForSelector("#plots figure");
    const seen = await tab.page.evaluate(() => ({
      ground: getComputedStyle(document.body).backgroundColor,
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      below: document.querySelector("#run").offsetTop >=
        document.querySelector("#runs").offsetTop + document.querySelector("#runs").offsetHeight,
    }));
    assert.deepEqual(seen, { ground, wide: 0, below: true });
    // New rows flash: they are looked at when that is over.
    await tab.until(() => document.getAnimations().every((it) => it.playState === "finished"));
    const [contrast, text] = await tab.page.evaluate(leastContrast);
    assert.ok(contrast >= 4.5, `${contrast}: ${text}`);
  });
}

test("pictures for the documentation", async () => {
  const wide = await Tab.open(browser, { width: 860, height: 540 });
  await wide.click("research", "mark");
  await wide.page.waitForSelector('#tree [role="group"] .id');
  await wide.find("research");
  await wide.page.select("#from", "1");
  await wide.compares("1-3");
  await wide.page.evaluate(() => document.activeElement.blur());
  await wide.page.evaluate(() => window.scrollTo(0, 0));
  await wide.picture("page.png");
  await wide.close();
  const narrow = await Tab.open(browser, { width: 400, height: 640, scheme: "dark" });
  await narrow.find("research/search");
  await narrow.page.$eval("#run", (section) => section.scrollIntoView());
  await narrow.picture("page-narrow.png");
  await narrow.close();
});
