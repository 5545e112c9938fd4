// The panel beside the graphs: what is known of a node, a module, or a pass.

import { num, type ErrorData, type GraphNode, type Kernel, type Run, type StageGraph, type Statistics } from "./data";
import { bytes, count, error, escape, number, time } from "./format";
import type { Box } from "./layout";

const row = (name: string, value: string) => `<tr><th>${name}</th><td>${value}</td></tr>`;
const link = (name: string, text = name) => `<a href="#" data-node="${escape(name)}">${escape(text)}</a>`;

/** A histogram; that of the stage before as an outline. */
function histogram(now: Statistics, before: Statistics | undefined): string {
  const bars = now.histogram ?? [];
  if (bars.length === 0) return "";
  const same = before?.histogram && num(before.min) === num(now.min) && num(before.max) === num(now.max);
  const old = same ? (before?.histogram ?? []) : [];
  // Few large bins would hide all others on a linear scale.
  const height = (value: number) => (value === 0 ? 0 : 4 + (52 * Math.log1p(value)) / Math.log1p(Math.max(...bars, ...old)));
  const bar = (value: number, at: number) =>
    `<rect x="${at * 10}" y="${60 - height(value)}" width="9" height="${height(value)}"><title>${count(value)}</title></rect>`;
  const outline = old.map((value, at) => `${at === 0 ? "M" : "L"}${at * 10} ${60 - height(value)}h10`).join("");
  return `<svg class="histogram" viewBox="0 0 320 74" role="img" aria-label="histogram">${bars.map(bar).join("")}
    <path d="${outline}"/><text x="0" y="72">${number(now.min)}</text><text x="320" y="72" text-anchor="end">${number(now.max)}</text></svg>
    <p class="note">32 bins, height by logarithm${same ? "; line: before the pass" : ""}</p>`;
}

function statistics(now: Statistics, shape: number[] | undefined): string {
  const special = [now.nan > 0 ? `${count(now.nan)} NaN` : "", now.inf > 0 ? `${count(now.inf)} ∞` : ""].filter(Boolean);
  return `<table class="facts">${row("shape", escape(`[${(shape ?? []).join(", ")}]`))}
    ${row("min … max", `${number(now.min)} … ${number(now.max)}`)}${row("mean ± std", `${number(now.mean)} ± ${number(now.std)}`)}
    ${row("zeros", count(now.zeros))}${row("not finite", special.join(", ") || "none")}</table>`;
}

function errors(found: ErrorData): string {
  return `<table class="facts">${row("largest", `${error(found.max)} (${error(found.relative)} of the largest magnitude)`)}
    ${row("RMS", error(found.rms))}${row("SQNR", found.sqnr_db === undefined ? "–" : `${number(found.sqnr_db)} dB`)}
    ${row("added by this pass", error(found.added))}${row("&emsp;injected here", error(found.injected))}
    ${row("&emsp;through operands", error(found.inherited))}</table>`;
}

/** The error of a value after each pass, as bars. */
function history(run: Run, value: string, current: number): string {
  const values = run.stages.map((_, index) => num(run.graph(index).values.get(value)?.error?.relative ?? 0));
  const finite = values.filter((v) => v > 0 && Number.isFinite(v));
  if (finite.length === 0) return "";
  const low = Math.log10(Math.min(...finite)) - 1;
  const high = Math.max(Math.log10(Math.max(...finite)), low + 1);
  const bars = values.map((v, at) => {
    const h = v === 0 ? 1 : Number.isFinite(v) ? 4 + (32 * (Math.log10(v) - low)) / (high - low) : 40;
    return `<rect class="${at === current ? "now" : ""}" x="${at * 14}" y="${42 - h}" width="12" height="${h}"><title>${escape(run.stages[at].pass)}: ${error(v)}</title></rect>`;
  });
  return `<p class="note">relative error after each pass</p><svg class="history" viewBox="0 0 ${values.length * 14} 44" width="${values.length * 14}" height="44">${bars.join("")}</svg>`;
}

export function kernelText(kernel: Kernel): string {
  const facts = [kernel.kind, time(kernel.timeNs)];
  const operations = Number(kernel.operations);
  if (kernel.operations && operations > 0) {
    facts.push(`${count(operations)} operations`);
    if (kernel.timeNs) facts.push(`${number(operations / kernel.timeNs)} GFLOP/s`);
  } else if (kernel.operations && kernel.operations !== "0") facts.push(`${escape(kernel.operations)} operations`);
  const code = kernel.code
    ? `<details class="code"><summary>assembly, ${count(kernel.code.lines)} lines</summary><pre>${escape(kernel.code.assembly)}</pre></details>`
    : "";
  const reason = kernel.reason ? `<p class="note">on the host: ${escape(kernel.reason)}</p>` : "";
  return `<div class="kernel"><b>${escape(kernel.name)}</b><p>${facts.join(" · ")}</p>${reason}
    <p class="note">source nodes: ${kernel.sources.map((name) => link(name)).join(", ") || "none"}</p>${code}</div>`;
}

function constantsOf(graph: StageGraph, node: GraphNode): string {
  const rows = node.inputs.map((input, at) => {
    const from = input && graph.nodes.get(input.node);
    if (!input || !from) return row(`${at}`, "<i>absent</i>");
    const output = from.outputs[input.slot];
    const value = graph.values.get(output?.name ?? "");
    const isConstant = from.op === "Constant";
    const name = isConstant ? `<span class="constant">${escape(from.name)}</span>` : link(from.name);
    const literal = isConstant && from.attrs ? ` <code>${escape(from.attrs)}</code>` : "";
    const range = isConstant && !from.attrs && value?.statistics
      ? ` <span class="note">${number(value.statistics.min)} … ${number(value.statistics.max)}, mean ${number(value.statistics.mean)}</span>`
      : "";
    return row(`${at}`, `${name} <code>${escape(output?.type ?? "")}</code>${literal}${range}`);
  });
  return rows.length > 0 ? `<h3>Operands</h3><table class="facts">${rows.join("")}</table>` : "";
}

/** All about a node. */
export function nodeText(graph: StageGraph, node: GraphNode, before: StageGraph | undefined, status: string): string {
  const parts = [`<h2>${escape(node.op)} <span class="badge ${status}">${status}</span></h2><p class="name">${escape(node.name)}</p>`];
  const old = before?.nodes.get(node.name);
  if (node.attrs) parts.push(`<h3>Attributes</h3><p class="attrs"><code>${escape(node.attrs)}</code></p>`);
  if (old && old !== node && (old.attrs !== node.attrs || old.op !== node.op)) {
    parts.push(`<p class="note">before: <code>${escape(`${old.op} ${old.attrs}`)}</code></p>`);
  }
  parts.push(constantsOf(graph, node));
  for (const output of node.outputs) {
    const value = graph.values.get(output.name);
    parts.push(`<h3>Result <code>${escape(output.type)}</code></h3>`);
    if (output.name !== node.name) parts.push(`<p class="name">${escape(output.name)}</p>`);
    if (value?.statistics) {
      parts.push(statistics(value.statistics, value.shape), histogram(value.statistics, before?.values.get(output.name)?.statistics));
    }
    if (value?.error) parts.push("<h4>Error against the original model</h4>", errors(value.error));
    else if (value && graph.index > 0) parts.push(`<p class="note">no error against the original model, or it has no such value</p>`);
    parts.push(history(graph.run, output.name, graph.index));
  }
  const users = graph.users.get(node.name) ?? [];
  if (users.length > 0) {
    const shown = users.slice(0, 12).map((name) => link(name));
    parts.push(`<h3>Read by</h3><p>${shown.join(", ")}${users.length > 12 ? ` and ${users.length - 12} more` : ""}</p>`);
  }
  parts.push(`<h3>Comes from</h3><p>${node.sources.map((name) => link(name)).join(", ") || "made by a pass"}</p>`);
  const kernels = graph.run.kernelsOf(node);
  if (kernels.length > 0) parts.push(`<h3>${kernels.length === 1 ? "Kernel" : "Kernels"}</h3>${kernels.map(kernelText).join("")}`);
  if (node.group !== undefined) parts.push(`<p class="note">group ${node.group}</p>`);
  return parts.join("");
}

/** All about a module that is closed. */
export function moduleText(graph: StageGraph, box: Box): string {
  const ops = new Map<string, number>();
  let [worst, total] = [0, 0];
  const kernels = new Set<Kernel>();
  for (const node of box.members ?? []) {
    ops.set(node.op, (ops.get(node.op) ?? 0) + 1);
    for (const output of node.outputs) worst = Math.max(worst, num(graph.values.get(output.name)?.error?.relative ?? 0));
    for (const kernel of graph.run.kernelsOf(node)) kernels.add(kernel);
  }
  for (const kernel of kernels) total += kernel.timeNs ?? 0;
  const list = [...ops].sort((a, b) => b[1] - a[1]).map(([op, n]) => row(escape(op), count(n)));
  return `<h2>${escape(box.label)}</h2><p class="name">${escape(box.path)}</p>
    <p><button data-open="${escape(box.path)}">Open</button></p><table class="facts">${row("nodes", count(box.members?.length ?? 0))}
    ${row("kernels", count(kernels.size))}${row("time", time(total))}${row("largest error", error(worst))}</table>
    <h3>Operators</h3><table class="facts">${list.join("")}</table>`;
}

const MOST_CHANGES = 300;

/** What a pass did and did not do. */
export function passText(run: Run, index: number): string {
  const { pass, ledger, applied, skipped } = run.stages[index];
  const list = (changes: typeof applied) => {
    const items = changes.slice(0, MOST_CHANGES).map((change) =>
      `<li><b>${escape(change.rule)}</b> ${link(change.node)}${change.detail ? `<br><span class="note">${escape(change.detail)}</span>` : ""}</li>`);
    const more = changes.length > MOST_CHANGES ? `<li class="note">and ${count(changes.length - MOST_CHANGES)} more</li>` : "";
    return `<ol>${items.join("")}${more}</ol>`;
  };
  const promise = ledger.exactness ? row("promise", escape(ledger.exactness)) : "";
  return `<h2>${escape(pass)} <span class="badge ${ledger.verdict.toLowerCase()}">${escape(ledger.verdict)}</span></h2>
    ${ledger.why ? `<p class="bad">${escape(ledger.why)}</p>` : ""}
    <table class="facts">${promise}${row("nodes", count(ledger.nodes))}${row("kernels", count(ledger.kernels))}
    ${row("constants", bytes(ledger.constants_bytes))}${row("pass took", `${number(ledger.pass_ms)} ms`)}
    ${ledger.run_ms === undefined ? "" : row("run", `${number(ledger.run_ms)} ms`)}
    ${ledger.predicted_ms === undefined ? "" : row("run, predicted", `${number(ledger.predicted_ms)} ms`)}
    ${row("error added", error(ledger.added))}${row("error in all", error(ledger.total))}</table>
    <details ${applied.length > 0 ? "open" : ""}><summary>${count(applied.length)} changes</summary>${list(applied)}</details>
    <details><summary>${count(skipped.length)} changes not made</summary>${list(skipped)}</details>`;
}
