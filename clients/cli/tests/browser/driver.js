/**
 * A browser, and the page of `state-cache serve` in it.
 *
 * Each wait is for something to be the case, for a minute at most: a slow machine takes longer, and fails no test.
 *
 * STATE_CACHE_CHROMIUM is the browser, PAGE the address with the token, PICTURES a folder for pictures. psql in
 * STATE_CACHE_BIN leads to the database of the page.
 */

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const PATIENCE = 60000;

/** Runs SQL beside the page. */
export const sql = (text) =>
  execFileSync(join(process.env.STATE_CACHE_BIN, "psql"), ["-qXAtv", "ON_ERROR_STOP=1", "-c", text]).toString().trim();

/** Starts the browser. */
export async function startBrowser() {
  return puppeteer.launch({
    executablePath: process.env.STATE_CACHE_CHROMIUM,
    headless: "shell",
    timeout: PATIENCE,
    // The sandbox is not to be had by root and in containers, and the page is our own. Shared memory is small there.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
}

/** A tab that shows the page. */
export class Tab {
  /** Opens the page by the address with the token, and waits until it is live. */
  static async open(browser, { width = 1200, height = 900, scheme = "light" } = {}) {
    const tab = new Tab();
    tab.page = await browser.newPage();
    tab.errors = [];
    tab.page.on("pageerror", (error) => tab.errors.push(String(error)));
    tab.page.on("console", (said) => {
      // A browser with a screen asks for a picture of the page, which it has none of.
      const isIcon = said.location()?.url?.endsWith("/favicon.ico");
      if (said.type() === "error" && !isIcon) tab.errors.push(said.text());
    });
    tab.page.setDefaultTimeout(PATIENCE);
    await tab.page.setViewport({ width, height });
    await tab.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await tab.page.goto(process.env.PAGE, { waitUntil: "load" });
    await tab.until(() =>
      document.querySelector("#live").textContent === "live" && document.querySelector("#tree").ariaBusy === "false");
    return tab;
  }

  /** Waits until a condition holds in the page. */
  async until(condition, ...values) {
    await this.page.waitForFunction(condition, {}, ...values);
  }

  /**
   * The texts of elements, as a reader sees them: of those that show. All is asked at once: between two questions the
   * page may have replaced an element by its like.
   */
  async texts(selector) {
    return this.page.evaluate((it) => [...document.querySelectorAll(it)]
      .filter((element) => element.getClientRects().length > 0).map((element) => element.innerText), selector);
  }

  /** The text of one element. */
  async text(selector) {
    return (await this.texts(selector)).join("\n");
  }

  /** The names of the runs that show in the tree, in their order. */
  async runs() {
    return this.texts("#tree .id");
  }

  /** The run that has the focus, if one has. */
  async focused() {
    return this.page.evaluate(() => document.activeElement.querySelector(":scope > .row > .id")?.textContent ?? null);
  }

  async press(...keys) {
    for (const key of keys) await this.page.keyboard.press(key);
  }

  /** Clicks on a run of the tree: on its name, or on the mark before it. */
  async click(run, on) {
    const row = await this.page.waitForSelector(`#tree ::-p-xpath(.//*[@class="row"][*[@class="id"]="${run}"])`);
    await row.click({ offset: { x: on === "name" ? 40 : 8, y: 8 } });
  }

  /** Waits until a run is shown, with a comparison of its versions. */
  async shows(run) {
    await this.until(
      (name) => document.querySelector("#run-title").textContent === name &&
        document.querySelector("#run").ariaBusy === "false" && !document.querySelector("#run-body").hidden,
      run,
    );
  }

  /** Chooses a run by its id. */
  async find(run) {
    await this.page.$eval("#name", (input) => { input.value = ""; });
    await this.page.type("#name", run);
    await this.press("Enter");
    await this.shows(run);
  }

  /** Waits until two versions are compared. */
  async compares(pair) {
    await this.until((it) => document.querySelector("#diff").dataset.pair === it, pair);
  }

  /** Keeps a picture, where pictures are kept. */
  async picture(name) {
    await this.page.screenshot({ path: join(process.env.PICTURES, name) });
  }

  /** Ends; the page must have been without errors. */
  async close() {
    await this.page.close();
    if (this.errors.length > 0) throw new Error(`the page has errors: ${this.errors.join("; ")}`);
  }
}
