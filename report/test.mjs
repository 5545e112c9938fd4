// Opens pages in a real browser, without a network: clicks, searches, steps, and takes times and screenshots.
//
//   node test.mjs [--pictures FOLDER] PAGE.html ...      pages that rabot wrote, besides a generated one

import { chromium } from "playwright-core";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { generated, withData } from "./generate.mjs";

// What is fluid; a machine that does other things besides may be ten times as slow, which is what fails.
const FRAME_MS = 50;
const STEP_MS = 500;
const SLACK = 10;

const here = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const picturesAt = args.indexOf("--pictures");
const pictures = picturesAt >= 0 ? resolve(args.splice(picturesAt, 2)[1]) : undefined;
if (pictures) mkdirSync(pictures, { recursive: true });
const browserPath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const scratch = mkdtempSync(join(tmpdir(), "rabot-report-"));

function check(holds, what) {
  if (!holds) throw new Error(what);
}

function pages() {
  const template = readFileSync(join(here, "dist/report.html"), "utf8");
  const path = join(scratch, "generated.html");
  writeFileSync(path, withData(template, generated(2000, 10)));
  return [path, ...args.map((given) => resolve(given))];
}

async function open(browser, path, scheme) {
  const context = await browser.newContext({ viewport: { width: 1600, height: 950 }, colorScheme: scheme });
  const page = await context.newPage();
  const troubles = [];
  page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));
  page.on("pageerror", (error) => troubles.push(String(error)));
  page.on("request", (request) => request.url().startsWith("http") && troubles.push(`asks for ${request.url()}`));
  await context.setOffline(true);
  const start = Date.now();
  await page.goto(pathToFileURL(path).href);
  await page.waitForSelector(".pane canvas");
  return { page, troubles, ms: Date.now() - start };
}

/** Median of the frames' times while the mouse pans and zooms, and the time of the slowest. */
async function frames(page) {
  const box = await page.locator(".pane canvas").last().boundingBox();
  await page.evaluate(() => {
    window.frameTimes = [];
    let last = performance.now();
    const tick = (now) => {
      window.frameTimes.push(now - last);
      last = now;
      window.frameHandle = requestAnimationFrame(tick);
    };
    window.frameHandle = requestAnimationFrame(tick);
  });
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  for (let at = 1; at <= 30; at++) await page.mouse.move(x + 8 * Math.sin(at), y - 6 * at);
  await page.mouse.up();
  for (let at = 0; at < 20; at++) await page.mouse.wheel(0, at < 10 ? 120 : -120);
  const times = await page.evaluate(() => {
    cancelAnimationFrame(window.frameHandle);
    return window.frameTimes.slice(1);
  });
  times.sort((a, b) => a - b);
  const paint = await page.evaluate(() => Math.max(...Array.from({ length: 5 }, () => window.rabotReport.paint())));
  return { median: times[times.length >> 1] ?? 0, slowest: times[times.length - 1] ?? 0, paint };
}

async function steps(page) {
  return page.evaluate(async () => {
    const { rabotReport: report } = window;
    const stages = report.state.runs[report.state.run].stages.length;
    const began = report.state.stage;
    const times = [];
    for (let at = 0; at < stages; at++) {
      const start = performance.now();
      report.setStage(at);
      report.paint();
      times.push(performance.now() - start);
      await new Promise(requestAnimationFrame);
    }
    report.setStage(began);
    return times;
  });
}

/** Where the first box of a kind is that is in view in the last pane. */
async function boxInView(page, prefix) {
  return page.evaluate((prefix) => {
    const report = window.rabotReport;
    const last = report.panes().length - 1;
    const inside = (key) => {
      const at = report.position(key, last);
      const rect = report.panes()[last].canvas.getBoundingClientRect();
      return at && at.x > rect.left + 5 && at.x < rect.right - 5 && at.y > rect.top + 5 && at.y < rect.bottom - 5 ? { key, ...at } : undefined;
    };
    const scene = report.panes()[last].scene;
    const wanted = (key) => key.startsWith(prefix) && scene.byKey.get(key).kind !== "open";
    return report.keys(last).filter(wanted).map(inside).find((at) => at !== undefined);
  }, prefix);
}

async function openModule(page) {
  const place = await boxInView(page, "m:");
  if (!place) return;
  const before = await page.evaluate(() => window.rabotReport.keys().length);
  await page.mouse.dblclick(place.x, place.y);
  const after = await page.evaluate(() => window.rabotReport.keys().length);
  check(after > before, `a double click on ${place.key} opens nothing`);
}

async function clickNode(page) {
  const place = await boxInView(page, "n:");
  check(place, "no node is in view");
  await page.mouse.click(place.x, place.y);
  const name = await page.textContent("#panel .name");
  check(name === place.key.slice(2), `a click on ${place.key} shows ${name}`);
}

async function searchNode(page) {
  const wanted = await page.evaluate(() => {
    const report = window.rabotReport;
    const graph = report.panes().at(-1).scene.graph;
    const names = [...graph.nodes.values()].filter((node) => node.op !== "Constant" && node.op !== "Input").map((node) => node.name);
    return names[Math.floor(names.length * 0.7)];
  });
  await page.keyboard.press("/");
  await page.fill("#search", wanted);
  await page.press("#search", "Enter");
  const name = await page.textContent("#panel .name");
  check(name.toLowerCase().includes(wanted.toLowerCase()), `a search for ${wanted} shows ${name}`);
  const centred = await page.evaluate((key) => window.rabotReport.panes().map((_, at) => window.rabotReport.position(key, at)), `n:${name}`);
  check(centred.some((at) => at !== undefined), `${name} is not to be seen`);
  await page.press("#search", "Escape");
}

async function stepByKey(page) {
  const stage = () => page.evaluate(() => window.rabotReport.state.stage);
  const before = await stage();
  const [there, back] = before > 0 ? ["ArrowLeft", "ArrowRight"] : ["ArrowRight", "ArrowLeft"];
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press(there);
  check(Math.abs((await stage()) - before) === 1, "a key does not step");
  await page.keyboard.press(back);
  check((await stage()) === before, "the other key does not step back");
  check((await page.locator('#timeline [aria-pressed="true"]').count()) === 1, "no pass is marked");
}

async function examine(browser, path, scheme) {
  const name = path.split("/").at(-1).replace(/\.html$/, "");
  const picture = async (what) => {
    if (pictures) await page.screenshot({ path: join(pictures, `${name}-${scheme}-${what}.png`) });
  };
  const { page, troubles, ms } = await open(browser, path, scheme);
  await page.waitForTimeout(200);
  await picture("start");
  const closed = await frames(page);
  await openModule(page);
  await clickNode(page);
  await picture("node");
  await stepByKey(page);
  await searchNode(page);
  await picture("search");
  await page.click("#open-all");
  const all = await page.evaluate(() => window.rabotReport.keys(window.rabotReport.panes().length - 1).length);
  const step = (await steps(page)).sort((a, b) => a - b);
  await page.click("#fit");
  const opened = await frames(page);
  await page.click("#fit");
  await page.waitForTimeout(100);
  await picture("all");
  await page.click('[data-view-button="ledger"]');
  check((await page.locator(".waterfall g").count()) > 0, "the ledger is empty");
  await picture("ledger");
  await page.click('[data-view-button="kernels"]');
  await page.locator(".kernels tbody tr").first().click();
  check((await page.locator("#panel .kernel").count()) === 1, "a click on a kernel shows nothing");
  await picture("kernels");
  await page.setInputFiles("#file", path);
  await page.waitForFunction(() => window.rabotReport.state.runs.length >= 2);
  check((await page.locator(".charts article").count()) >= 2, "a second run is not beside the first");
  await picture("compare");
  await page.click('[data-view-button="graph"]');
  await page.selectOption("#arrangement", "runs");
  check((await page.locator(".pane").count()) >= 2, "runs are not side by side");
  check(troubles.length === 0, troubles.join("\n"));
  const size = (statSync(path).size / 1e6).toFixed(1);
  const [slowest, median] = [step.at(-1), step[step.length >> 1]];
  console.log(
    `${name} (${scheme}, ${size} MB): open ${ms} ms; modules closed: frame ${closed.median.toFixed(0)} ms, slowest ${closed.slowest.toFixed(0)}, ` +
      `painting ${closed.paint.toFixed(1)}; all ${all} boxes open: frame ${opened.median.toFixed(0)} ms, slowest ${opened.slowest.toFixed(0)}, ` +
      `painting ${opened.paint.toFixed(1)}; step ${median.toFixed(0)} ms, slowest ${slowest.toFixed(0)}`,
  );
  const limit = (value, most, what) => {
    if (value > most) console.log(`  ${what} is over ${most} ms`);
    check(value <= most * SLACK, `${what} takes ${value.toFixed(0)} ms, ${SLACK} times more than ${most} ms`);
  };
  limit(closed.median, FRAME_MS, "a frame with modules closed");
  limit(opened.median, FRAME_MS, "a frame with all open");
  limit(median, STEP_MS, "a step");
  await page.context().close();
}

if (!browserPath) {
  console.log("skipped: the report in a browser: there is no chromium (apt-get install chromium, or CHROMIUM=path)");
  process.exit(0);
}
const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  for (const path of pages()) for (const scheme of ["light", "dark"]) await examine(browser, path, scheme);
} finally {
  await browser.close();
  rmSync(scratch, { recursive: true, force: true });
}
