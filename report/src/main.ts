// The page: what is shown, and what buttons, keys and files do to it.

import { fillOf, heat, MODES, scaleOf, themes, valueOf, type Mode, type Scale, type Status } from "./color";
import { MAX_RUNS, num, readRuns, Run, sameNode, type GraphNode, type StageGraph } from "./data";
import { error, escape, time } from "./format";
import { allModules, defaultOpen, sceneOf, type Box } from "./layout";
import { kernelsText, ledgerText, METRICS } from "./ledger";
import { Pane, shift } from "./pane";
import { kernelText, moduleText, nodeText, passText } from "./panel";

type View = "graph" | "ledger" | "kernels";
type Arrangement = "pair" | "one" | "runs";

const $ = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;

const state = {
  runs: [] as Run[],
  run: 0,
  stage: 0,
  view: "graph" as View,
  arrangement: "pair" as Arrangement,
  mode: "change" as Mode,
  open: new Set<string>(),
  selected: undefined as string | undefined,
  matches: new Set<string>(),
  metric: METRICS[0],
  theme: matchMedia("(prefers-color-scheme: dark)").matches ? themes.dark : themes.light,
};

let panes: Pane[] = [];
let scale: Scale = { mode: "change", min: 0, max: 0 };

const current = () => state.runs[state.run];

/** Most boxes that are shown before anybody opened a module. */
const FIRST_BOXES = 170;

/** The stage to begin with: the one that added most error, else the one that changed most. */
function firstStage(run: Run): number {
  const best = (of: (index: number) => number) => {
    let found = 0;
    for (let at = 1; at < run.stages.length; at++) if (of(at) > of(found)) found = at;
    return found;
  };
  const broken = run.stages.findIndex((stage) => /breaks|exceeds/i.test(stage.ledger.verdict));
  if (broken > 0) return broken;
  const worst = best((at) => num(run.stages[at].ledger.added));
  return worst > 0 ? worst : best((at) => run.stages[at].applied.length);
}

function addRuns(text: string, name: string): void {
  const raw = readRuns(text);
  if (raw.length === 0) throw new Error("no runs in it");
  for (const run of raw) {
    if (state.runs.length >= MAX_RUNS) throw new Error(`a page shows at most ${MAX_RUNS} runs`);
    const model = run.model.split("/").slice(-2).join("/");
    const same = state.runs.filter((other) => other.label.startsWith(model)).length;
    state.runs.push(new Run(run, (name ? `${model} (${name})` : model) + (same > 0 ? ` #${same + 1}` : "")));
  }
}

function message(text: string): void {
  const box = $("message");
  box.textContent = text;
  box.hidden = text === "";
  if (text) setTimeout(() => (box.hidden = true), 6000);
}

// ---- what the panes show

interface Slot {
  graph: StageGraph;
  other?: StageGraph;
  /** True if the other graph is that before this one, else it is the one after. */
  after: boolean;
  title: string;
}

function slots(): Slot[] {
  const run = current();
  const { stage } = state;
  const name = (run: Run, index: number) => (index === 0 ? "the original model" : `after ${run.stages[index].pass}`);
  if (state.arrangement === "runs") {
    const first = state.runs[0].graph(sameStage(state.runs[0], stage));
    return state.runs.map((run, at) => {
      const graph = run.graph(sameStage(run, stage));
      return { graph, other: at === 0 ? undefined : first, after: true, title: `${run.label}: ${name(run, graph.index)}` };
    });
  }
  const now = run.graph(stage);
  if (stage === 0 || state.arrangement === "one") {
    const before = stage > 0 ? run.graph(stage - 1) : undefined;
    return [{ graph: now, other: before, after: true, title: name(run, stage) }];
  }
  const before = run.graph(stage - 1);
  return [
    { graph: before, other: now, after: false, title: `before ${run.stages[stage].pass}` },
    { graph: now, other: before, after: true, title: name(run, stage) },
  ];
}

/** The stage of another run that is the same step as that of the current one. */
function sameStage(run: Run, index: number): number {
  if (run === current()) return index;
  const pass = (r: Run, at: number) => r.stages[at].pass.split("{")[0];
  const wanted = pass(current(), index);
  const earlier = current().stages.slice(0, index).filter((_, at) => pass(current(), at) === wanted).length;
  const places = run.stages.flatMap((_, at) => (pass(run, at) === wanted ? [at] : []));
  return places[earlier] ?? Math.min(index, run.stages.length - 1);
}

function statusOf(slot: Slot): (node: GraphNode) => Status {
  return (node) => {
    if (!slot.other) return "same";
    const other = slot.other.nodes.get(node.name);
    if (!other) return slot.after ? "added" : "removed";
    return sameNode(node, other) ? "same" : "changed";
  };
}

function remake(): void {
  const wanted = slots().length;
  while (panes.length > wanted) panes.pop()?.remove();
  while (panes.length < wanted) panes.push(new Pane($("panes"), { moved, clicked, opened, tip }));
  $("panes").dataset.count = String(wanted);
}

/** Shows graphs anew. What is at `anchor`, or in the middle, stays where it is. */
function refresh(anchor?: string): void {
  if (state.view !== "graph") return showText();
  if (!current().hasGraphs) return message("This run has a ledger only: no graphs are in it.");
  remake();
  const all = slots();
  scale = scaleOf(all.map((slot) => slot.graph), state.mode);
  for (const [at, slot] of all.entries()) {
    const pane = panes[at];
    const old = pane.scene;
    const center = pane.center;
    const scene = sceneOf(slot.graph, state.open);
    const status = statusOf(slot);
    const fill = new Map<string, string>();
    const ring = new Map<string, string>();
    for (const box of scene.boxes) {
      if (box.kind === "open") continue;
      fill.set(box.key, fillOf(box, slot.graph, scale, state.theme, status));
    }
    pane.show(scene, { theme: state.theme, fill, ring, selected: state.selected, matches: state.matches });
    pane.heading.textContent = slot.title;
    if (!old) continue;
    const box = anchor ? scene.byKey.get(anchor) : undefined;
    const was = anchor ? old.byKey.get(anchor) : undefined;
    const by = box && was ? { dx: box.x + box.w / 2 - was.x - was.w / 2, dy: box.y - was.y } : shift(old, scene, center.x, center.y);
    if (by) pane.look(center.x + by.dx, center.y + by.dy);
  }
  showLegend();
  showTimeline();
}

/** Colours and selection anew, on the same layout. */
function restyle(): void {
  for (const [at, slot] of slots().entries()) {
    const pane = panes[at];
    if (!pane?.scene) continue;
    const status = statusOf(slot);
    const fill = new Map<string, string>();
    for (const box of pane.scene.boxes) {
      if (box.kind !== "open") fill.set(box.key, fillOf(box, slot.graph, scale, state.theme, status));
    }
    pane.show(pane.scene, { theme: state.theme, fill, ring: new Map(), selected: state.selected, matches: state.matches });
  }
}

function moved(pane: Pane): void {
  if (!$<HTMLInputElement>("linked").checked || !pane.scene) return;
  const { x, y } = pane.center;
  for (const other of panes) {
    if (other === pane || !other.scene) continue;
    const by = shift(pane.scene, other.scene, x, y) ?? { dx: 0, dy: 0 };
    other.look(x + by.dx, y + by.dy, pane.scale);
  }
}

function clicked(pane: Pane, box: Box | undefined): void {
  const slot = slots()[panes.indexOf(pane)];
  state.selected = box?.key;
  restyle();
  if (!box) return showPass();
  if (box.kind === "module") $("panel").innerHTML = moduleText(slot.graph, box);
  else if (box.node) showNode(slot, box.node);
  else {
    const output = slot.graph.outputs.find((output) => `o:${output.name}` === box.key);
    const node = output && slot.graph.nodes.get(output.node);
    if (node) showNode(slot, node);
  }
}

function showNode(slot: Slot, node: GraphNode): void {
  $("panel").innerHTML = nodeText(slot.graph, node, slot.after ? slot.other : undefined, statusOf(slot)(node));
  $("panel").scrollTop = 0;
}

function opened(_: Pane, box: Box): void {
  if (box.kind === "open") {
    for (const path of [...state.open]) if (path === box.path || path.startsWith(`${box.path}/`)) state.open.delete(path);
  } else state.open.add(box.path);
  refresh(`m:${box.path}`);
}

function tip(pane: Pane, box: Box | undefined, x: number, y: number): void {
  const element = $("tip");
  element.hidden = !box;
  if (!box) return;
  const slot = slots()[panes.indexOf(pane)];
  const lines = [`<b>${escape(box.label)}</b> ${escape(box.node?.name ?? box.path)}`];
  if (box.kind === "module") lines.push(`${box.detail}; double-click to open`);
  if (box.kind === "open") lines.push("click to close");
  if (box.node) {
    lines.push(...box.node.outputs.map((output) => `<code>${escape(output.type)}</code>`));
    const [off, took] = [valueOf(slot.graph, box.node, "relative"), valueOf(slot.graph, box.node, "time")];
    if (off !== undefined) lines.push(`error ${error(off)}, injected ${error(valueOf(slot.graph, box.node, "injected") ?? 0)}`);
    if (took !== undefined) lines.push(`kernel ${time(took)}`);
  }
  element.innerHTML = lines.join("<br>");
  element.style.left = `${Math.min(x + 14, innerWidth - 360)}px`;
  element.style.top = `${Math.min(y + 14, innerHeight - 110)}px`;
}

/** Opens the modules around a node, selects it, and brings it into view. */
function reveal(name: string): void {
  $("tip").hidden = true;
  if (state.view !== "graph") setView("graph");
  const all = slots();
  let at = all.findIndex((slot, index) => index === all.length - 1 && slot.graph.nodes.has(name));
  if (at < 0) at = all.findIndex((slot) => slot.graph.nodes.has(name));
  if (at < 0) {
    // It is not named so here any more: what stands for it?
    const heir = [...all[all.length - 1].graph.nodes.values()].find((node) => node.sources.includes(name));
    if (heir) return reveal(heir.name);
    const stage = current().stages.findIndex((_, index) => current().graph(index).nodes.has(name));
    if (stage < 0) return message(`${name} is in none of the graphs`);
    setStage(stage);
    return reveal(name);
  }
  const node = all[at].graph.nodes.get(name);
  if (!node) return;
  if (node.op === "Constant") {
    const user = all[at].graph.users.get(name)?.[0];
    return user ? reveal(user) : undefined;
  }
  const path = current().paths.get(name) ?? [];
  for (let depth = 1; depth <= path.length; depth++) state.open.add(path.slice(0, depth).join("/"));
  state.selected = `n:${name}`;
  refresh();
  const box = panes[at].scene?.byKey.get(`n:${name}`);
  if (box) {
    panes[at].look(box.x + box.w / 2, box.y + box.h / 2, Math.max(panes[at].scale, 0.8));
    moved(panes[at]);
  }
  showNode(all[at], node);
}

// ---- around the graphs

function showPass(): void {
  $("panel").innerHTML = passText(current(), state.stage);
  $("panel").scrollTop = 0;
}

function showTimeline(): void {
  const stages = current().stages;
  const added = stages.map((stage) => num(stage.ledger.added));
  const most = Math.max(...added.filter(Number.isFinite), 0);
  const least = Math.min(...added.filter((value) => value > 0), most);
  $("timeline").innerHTML = stages.map((stage, at) => {
    const place = added[at] <= 0 ? -1 : most === least ? 1 : Math.log(added[at] / least) / Math.log(most / least);
    const color = place < 0 ? "transparent" : heat(0.25 + 0.75 * Math.min(1, place), state.theme);
    const bad = /breaks|exceeds/i.test(stage.ledger.verdict) ? " bad" : "";
    const title = `${stage.pass}: ${stage.applied.length} changes, error added ${error(stage.ledger.added)}, ${stage.ledger.verdict}`;
    return `<button class="step${bad}" data-at="${at}" aria-pressed="${at === state.stage}" title="${escape(title)}">
      <span>${escape(stage.pass.split("{")[0])}</span><small>${at === 0 ? `${stage.ledger.nodes} nodes` : stage.applied.length || "–"}</small><i style="background:${color}"></i></button>`;
  }).join("");
  $("timeline").querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function showLegend(): void {
  const { theme, mode } = state;
  const chip = (color: string, text: string) => `<span><i style="background:${color}"></i>${text}</span>`;
  const stops = Array.from({ length: 9 }, (_, at) => heat(0.08 + 0.92 * (at / 8), theme)).join(",");
  let text: string;
  if (mode === "change") {
    text = (["same", "changed", "added", "removed"] as Status[]).map((status) => chip(theme.status[status], status)).join("");
  } else if (mode === "op") text = "<span>one colour for each operator</span>";
  else if (scale.max === 0) text = `<span>${mode === "time" ? "no times are known" : "no error here"}</span>`;
  else {
    const show = (value: number) => (mode === "time" ? time(value) : error(value));
    text = `${chip(theme.box, "none")}<span>${show(scale.min)}</span><i class="ramp" style="background:linear-gradient(90deg,${stops})"></i><span>${show(scale.max)}</span>`;
  }
  $("legend").innerHTML = text;
}

function showText(): void {
  $("text").innerHTML = state.view === "ledger" ? ledgerText(state.runs, state.metric) : kernelsText(current());
}

function setView(view: View): void {
  state.view = view;
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll<HTMLElement>("[data-view-button]")) {
    button.setAttribute("aria-pressed", String(button.dataset.viewButton === view));
  }
  refresh();
  if (view === "kernels") $("panel").innerHTML = "<p class='note'>Click a kernel.</p>";
  else showPass();
}

function setStage(stage: number): void {
  state.stage = Math.min(Math.max(stage, 0), current().stages.length - 1);
  refresh();
  const shown = slots();
  const name = state.selected?.slice(2) ?? "";
  const slot = shown.findLast((slot) => slot.graph.nodes.has(name));
  const node = slot?.graph.nodes.get(name);
  if (slot && node && state.selected?.startsWith("n:")) showNode(slot, node);
  else showPass();
}

function setRun(run: number): void {
  state.run = run;
  state.stage = firstStage(current());
  state.selected = undefined;
  if (current().hasGraphs) state.open = defaultOpen(current().graph(0), FIRST_BOXES);
  chooseMode();
  refresh();
  showTimeline();
  for (const pane of panes) pane.fit();
  lookAtWorst();
  showPass();
}

/** By error, if this stage has any. */
function chooseMode(): void {
  const graph = current().graph(state.stage);
  state.mode = scaleOf([graph], "injected").max > 0 ? "injected" : "change";
  $<HTMLSelectElement>("mode").value = state.mode;
}

/** Goes to the node with the largest value of the scale, where the graph is too large to see at once. */
function lookAtWorst(): void {
  const pane = panes[panes.length - 1];
  const graph = pane?.scene?.graph;
  if (!graph || state.mode === "change" || state.mode === "op") return;
  let [worst, most]: [GraphNode | undefined, number] = [undefined, 0];
  for (const node of graph.nodes.values()) {
    const value = valueOf(graph, node, state.mode) ?? 0;
    if (value > most) [worst, most] = [node, value];
  }
  const path = worst ? (current().paths.get(worst.name) ?? []) : [];
  const keys = path.map((_, depth) => `m:${path.slice(0, depth + 1).join("/")}`);
  const box = [...keys, `n:${worst?.name}`].map((key) => pane.scene?.byKey.get(key)).find((box) => box && box.kind !== "open");
  const fits = pane.scene && pane.scene.height * pane.scale < pane.size.h * 1.1;
  if (box && !fits) {
    pane.look(box.x + box.w / 2, box.y + box.h / 2);
    moved(pane);
  }
}

function showRuns(): void {
  $("runs").innerHTML = state.runs.map((run, at) => `<option value="${at}">${escape(run.label)}</option>`).join("");
  $<HTMLSelectElement>("runs").value = String(state.run);
  const option = $("arrangement").querySelector<HTMLOptionElement>('[value="runs"]');
  if (option) option.disabled = state.runs.filter((run) => run.hasGraphs).length < 2;
  $("about").textContent = `${current().raw.target} · ${current().raw.machine}`;
}

function setTheme(): void {
  document.documentElement.dataset.theme = state.theme.dark ? "dark" : "light";
}

// ---- search

let found: string[] = [];
let foundAt = -1;

function search(text: string): void {
  const wanted = text.trim().toLowerCase();
  const graph = slots().findLast(() => true)?.graph;
  found = [];
  foundAt = -1;
  state.matches = new Set();
  if (wanted && graph) {
    const hits = (node: GraphNode) =>
      [node.name, node.op, ...node.sources, ...node.outputs.map((output) => output.name)].some((name) => name.toLowerCase().includes(wanted));
    found = [...graph.nodes.values()].filter((node) => node.op !== "Constant" && hits(node)).map((node) => node.name);
    for (const name of found) {
      state.matches.add(`n:${name}`);
      const path = graph.run.paths.get(name) ?? [];
      for (let depth = 1; depth <= path.length; depth++) state.matches.add(`m:${path.slice(0, depth).join("/")}`);
    }
  }
  const list = found.slice(0, 40).map((name) => `<li data-node="${escape(name)}"><b>${escape(graph?.nodes.get(name)?.op ?? "")}</b> ${escape(name)}</li>`);
  $("found").innerHTML = wanted ? `<li class="note">${found.length} of ${graph?.nodes.size ?? 0} nodes; Enter goes to the next</li>${list.join("")}` : "";
  $("found").hidden = !wanted;
  restyle();
}

function nextFound(step: number): void {
  if (found.length === 0) return;
  foundAt = (foundAt + step + found.length) % found.length;
  $("found").hidden = true;
  reveal(found[foundAt]);
}

// ---- events

function listen(): void {
  $("timeline").addEventListener("click", (event) => {
    const at = (event.target as HTMLElement).closest<HTMLElement>("[data-at]")?.dataset.at;
    if (at !== undefined) setStage(Number(at));
  });
  $("previous").addEventListener("click", () => setStage(state.stage - 1));
  $("next").addEventListener("click", () => setStage(state.stage + 1));
  $("mode").addEventListener("change", () => {
    state.mode = $<HTMLSelectElement>("mode").value as Mode;
    refresh();
  });
  $("arrangement").addEventListener("change", () => {
    state.arrangement = $<HTMLSelectElement>("arrangement").value as Arrangement;
    refresh();
    for (const pane of panes) pane.fit();
    if (panes[0]) moved(panes[0]);
  });
  $("runs").addEventListener("change", () => setRun(Number($<HTMLSelectElement>("runs").value)));
  $("open-all").addEventListener("click", () => {
    for (const slot of slots()) for (const path of allModules(slot.graph)) state.open.add(path);
    refresh();
  });
  $("close-all").addEventListener("click", () => {
    state.open.clear();
    refresh();
    for (const pane of panes) pane.fit();
  });
  $("fit").addEventListener("click", () => panes.forEach((pane) => pane.fit(0)));
  $("theme").addEventListener("click", () => {
    state.theme = state.theme.dark ? themes.light : themes.dark;
    setTheme();
    restyle();
    showLegend();
    showTimeline();
  });
  for (const button of document.querySelectorAll<HTMLElement>("[data-view-button]")) {
    button.addEventListener("click", () => setView(button.dataset.viewButton as View));
  }
  const box = $<HTMLInputElement>("search");
  box.addEventListener("input", () => search(box.value));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") nextFound(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") {
      box.value = "";
      search("");
      box.blur();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (/INPUT|SELECT|TEXTAREA/.test((event.target as HTMLElement).tagName)) return;
    if (event.key === "ArrowLeft") setStage(state.stage - 1);
    else if (event.key === "ArrowRight") setStage(state.stage + 1);
    else if (event.key === "/") {
      event.preventDefault();
      box.focus();
    } else if (event.key === "f") panes.forEach((pane) => pane.fit(0));
  });
  listenToLinks();
  listenToFiles();
}

function listenToLinks(): void {
  document.addEventListener("click", (event) => {
    const target = event.target as HTMLElement;
    const node = target.closest<HTMLElement>("[data-node]")?.dataset.node;
    const open = target.closest<HTMLElement>("[data-open]")?.dataset.open;
    const kernel = target.closest<HTMLElement>("[data-kernel]")?.dataset.kernel;
    const bar = target.closest<HTMLElement>("g[data-stage]");
    if (!target.closest("#found, #search")) $("found").hidden = true;
    if (node !== undefined) {
      event.preventDefault();
      reveal(node);
    } else if (open !== undefined) {
      state.open.add(open);
      refresh(`m:${open}`);
    } else if (kernel !== undefined) {
      $("panel").innerHTML = kernelText(current().kernels[Number(kernel)]);
      $("panel").querySelector("details")?.setAttribute("open", "");
    } else if (bar) {
      if (Number(bar.dataset.run) !== state.run) state.run = Number(bar.dataset.run);
      showRuns();
      state.stage = Number(bar.dataset.stage);
      setView("graph");
    }
  });
  $("text").addEventListener("change", (event) => {
    const key = (event.target as HTMLSelectElement).value;
    state.metric = METRICS.find((metric) => metric.key === key) ?? METRICS[0];
    showText();
  });
}

async function load(files: Iterable<File>): Promise<void> {
  for (const file of files) {
    try {
      addRuns(await file.text(), file.name);
    } catch (problem) {
      message(`${file.name} cannot be read as a run: ${(problem as Error).message}`);
    }
  }
  showRuns();
  if (state.runs.length > 1) setView("ledger");
}

function listenToFiles(): void {
  const input = $<HTMLInputElement>("file");
  $("add").addEventListener("click", () => input.click());
  input.addEventListener("change", () => void load(input.files ?? []));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    void load(event.dataTransfer?.files ?? []);
  });
}

/** For tests: where things are, and how long they take. */
Object.assign(window, {
  rabotReport: {
    state,
    panes: () => panes,
    setStage,
    position: (key: string, pane = 0) => panes[pane]?.position(key),
    keys: (pane = 0) => panes[pane]?.scene?.boxes.map((box) => box.key) ?? [],
    paint: () => panes.reduce((sum, pane) => sum + pane.paint(), 0),
  },
});

function start(): void {
  setTheme();
  $("mode").innerHTML = MODES.map(([mode, name]) => `<option value="${mode}">${name}</option>`).join("");
  listen();
  try {
    addRuns($("rabot-report").textContent ?? "", "");
  } catch (problem) {
    return message(`The data of this page cannot be read: ${(problem as Error).message}`);
  }
  showRuns();
  document.title = `${state.runs[0].label}: rabot report`;
  if (current().hasGraphs) {
    state.view = "graph";
    setView("graph");
    setRun(0);
  } else setView("ledger");
}

start();
