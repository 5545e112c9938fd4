// The ledger: what each pass did to a figure, as a waterfall; several runs beside each other.

import { num, type LedgerRow, type Run } from "./data";
import { bytes, count, error, escape, number, time } from "./format";

export interface Metric {
  key: string;
  name: string;
  log: boolean;
  of(row: LedgerRow): number | undefined;
  text(value: number): string;
}

const ms = (value: number) => `${number(value)} ms`;
const optional = (value: LedgerRow["run_ms"]) => (value === undefined ? undefined : num(value));

export const METRICS: Metric[] = [
  { key: "total", name: "error of the outputs", log: true, of: (row) => num(row.total), text: error },
  { key: "run_ms", name: "measured time of a run", log: false, of: (row) => optional(row.run_ms), text: ms },
  { key: "predicted_ms", name: "predicted time of a run", log: false, of: (row) => optional(row.predicted_ms), text: ms },
  { key: "kernels", name: "kernels", log: false, of: (row) => row.kernels, text: count },
  { key: "nodes", name: "nodes", log: false, of: (row) => row.nodes, text: count },
  { key: "constants_bytes", name: "bytes of the constants", log: false, of: (row) => row.constants_bytes, text: bytes },
  { key: "pass_ms", name: "time of the pass", log: false, of: (row) => num(row.pass_ms), text: ms },
];

const HEIGHT = 24;
const LABEL = 170;
const WIDTH = 620;

/** One run: a bar from the figure before a pass to that after it. */
function waterfall(run: Run, at: number, metric: Metric, span: { low: number; high: number }): string {
  const rows = run.stages.map((stage) => ({ name: stage.pass, value: metric.of(stage.ledger) }));
  const place = (value: number) => {
    if (value === Infinity) return 1;
    if (!metric.log) return span.high > 0 ? value / span.high : 0;
    if (value <= 0) return 0;
    return 0.04 + (0.96 * (Math.log10(value) - span.low)) / (span.high - span.low || 1);
  };
  const x = (value: number) => LABEL + place(value) * (WIDTH - LABEL - 130);
  const apart = metric.key === "pass_ms";
  let before: number | undefined;
  const bars = rows.map(({ name, value }, index) => {
    const y = index * HEIGHT;
    const title = `<text class="label" x="${LABEL - 8}" y="${y + 16}" text-anchor="end">${escape(name.length > 26 ? `${name.slice(0, 25)}…` : name)}</text>`;
    if (value === undefined) return `<g data-stage="${index}" data-run="${at}">${title}<text class="dim" x="${LABEL + 4}" y="${y + 16}">not known</text></g>`;
    const from = apart || before === undefined ? 0 : before;
    const [left, right] = [Math.min(x(from), x(value)), Math.max(x(from), x(value))];
    const kind = index === 0 || apart ? "base" : value > from ? "worse" : value < from ? "better" : "same";
    before = value;
    const step = `<line x1="${x(value)}" x2="${x(value)}" y1="${y + HEIGHT - 4}" y2="${y + HEIGHT + 4}"/>`;
    return `<g data-stage="${index}" data-run="${at}"><rect class="hit" x="0" y="${y}" width="${WIDTH}" height="${HEIGHT}"/>${title}
      <rect class="${kind}" x="${left}" y="${y + 4}" width="${Math.max(2, right - left)}" height="${HEIGHT - 8}" rx="2"/>
      ${index + 1 < rows.length && !apart ? step : ""}<text class="value" x="${Math.max(right, x(value)) + 6}" y="${y + 16}">${metric.text(value)}</text></g>`;
  });
  return `<article><h3><span class="run-${at}">■</span> ${escape(run.label)}</h3><p class="note">${escape(run.raw.pipeline)}<br>${escape(run.raw.target)} ${run.raw.threads} thread${run.raw.threads === 1 ? "" : "s"}</p>
    <svg viewBox="0 0 ${WIDTH} ${rows.length * HEIGHT}" class="waterfall" role="img" aria-label="waterfall of ${escape(metric.name)}">${bars.join("")}</svg></article>`;
}

/** Passes of all runs, in an order that holds for each as far as one can. */
function passes(runs: Run[]): { name: string; at: (number | undefined)[] }[] {
  const rows: { name: string; at: (number | undefined)[] }[] = [];
  for (const [number, run] of runs.entries()) {
    let next = 0;
    for (const [index, stage] of run.stages.entries()) {
      const name = stage.pass.split("{")[0];
      let found = rows.findIndex((row, at) => at >= next && row.name === name && row.at[number] === undefined);
      if (found < 0) {
        rows.splice(next, 0, { name, at: runs.map(() => undefined) });
        found = next;
      }
      rows[found].at[number] = index;
      next = found + 1;
    }
  }
  return rows;
}

function table(runs: Run[], metric: Metric): string {
  const head = runs.map((run, at) => `<th><span class="run-${at}">■</span> ${escape(run.label)}</th>`).join("");
  const cell = (value: number | undefined) => `<td>${value === undefined ? "" : metric.text(value)}</td>`;
  const body = passes(runs).map(({ name, at }) => {
    const cells = runs.map((run, number) => {
      const index = at[number];
      return cell(index === undefined ? undefined : metric.of(run.stages[index].ledger));
    });
    return `<tr><th>${escape(name)}</th>${cells.join("")}</tr>`;
  });
  const compiled = runs.map((run) => cell(metric.of(run.raw.compiled))).join("");
  return `<table class="compare"><thead><tr><th>after</th>${head}</tr></thead><tbody>${body.join("")}<tr><th>compiled</th>${compiled}</tr></tbody></table>`;
}

/** The whole view. */
export function ledgerText(runs: Run[], metric: Metric): string {
  const all = runs.flatMap((run) => run.stages.map((stage) => metric.of(stage.ledger)));
  const values = all.filter((value) => value !== undefined && value > 0 && Number.isFinite(value)) as number[];
  const span = metric.log
    ? { low: Math.log10(Math.min(...values, 1)) - 0.5, high: Math.log10(Math.max(...values, 1e-12)) }
    : { low: 0, high: Math.max(...values, 0) };
  const options = METRICS.map((m) => `<option value="${m.key}" ${m === metric ? "selected" : ""}>${m.name}</option>`).join("");
  const charts = runs.map((run, at) => waterfall(run, at, metric, span)).join("");
  return `<p><label>Figure <select id="metric">${options}</select></label>
    <span class="note">${metric.log ? "logarithmic" : "linear"} scale; a bar goes from the figure before a pass to that after it; click one to see the pass</span></p>
    <div class="charts">${charts}</div><h3>Side by side</h3>${table(runs, metric)}`;
}

/** The kernels of a run, slowest first. */
export function kernelsText(run: Run): string {
  const total = run.kernels.reduce((sum, kernel) => sum + (kernel.timeNs ?? 0), 0);
  const sorted = [...run.kernels].sort((a, b) => (b.timeNs ?? 0) - (a.timeNs ?? 0));
  const rows = sorted.map((kernel) => {
    const share = total > 0 ? (100 * (kernel.timeNs ?? 0)) / total : 0;
    const operations = Number(kernel.operations);
    const speed = kernel.timeNs && operations > 0 ? number(operations / kernel.timeNs) : "";
    const sources = kernel.sources.slice(0, 3).join(", ") + (kernel.sources.length > 3 ? ` and ${kernel.sources.length - 3} more` : "");
    return `<tr data-kernel="${kernel.index}"><td>${kernel.index}</td><td>${escape(kernel.kind)}</td><td>${escape(kernel.name)}</td>
      <td class="r">${time(kernel.timeNs)}</td><td><meter max="100" value="${share}"></meter> ${share.toFixed(1)} %</td><td class="r">${speed}</td><td class="dim">${escape(sources)}</td></tr>`;
  });
  return `<p class="note">${count(run.kernels.length)} calls of ${count(run.raw.code.length)} distinct kernels; ${time(total)} in all, the time to look at each value included. Click one for its assembly.</p>
    <table class="kernels"><thead><tr><th>#</th><th>kind</th><th>kernel</th><th>time</th><th>share</th><th>GFLOP/s</th><th>source nodes</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
}
