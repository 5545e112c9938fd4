// The data of a report, and the graphs that its stages make one after the other.

export type Num = number | "NaN" | "inf" | "-inf";

export interface Statistics {
  min: Num;
  max: Num;
  mean: Num;
  std: Num;
  zeros: number;
  nan: number;
  inf: number;
  histogram?: number[];
}

export interface ErrorData {
  max: Num;
  relative: Num;
  rms: Num;
  sqnr_db?: Num;
  added: Num;
  injected: Num;
  inherited: Num;
}

export interface LedgerRow {
  exactness?: string;
  verdict: string;
  why?: string;
  nodes: number;
  kernels: number;
  constants_bytes: number;
  pass_ms: Num;
  run_ms?: Num;
  predicted_ms?: Num;
  added: Num;
  added_sqnr_db?: Num;
  total: Num;
}

export interface Change {
  rule: string;
  node: string;
  detail?: string;
}

interface RawNode {
  id: number;
  op: string;
  attrs?: string;
  inputs?: ([number, number] | null)[];
  outputs: { name: number; type: string }[];
  sources?: number[];
  group?: number;
}

interface RawStage {
  pass: string;
  ledger: LedgerRow;
  applied: Change[];
  skipped: Change[];
  nodes: RawNode[];
  removed: number[];
  values: { name: number; shape?: number[]; statistics?: Statistics; error?: ErrorData }[];
  outputs?: { name: string; value: [number, number] }[];
}

interface RawKernel {
  name: string;
  kind: string;
  sources: number[];
  values: number[];
  operations?: string;
  time_ns?: number;
  reason?: string;
  code?: number;
}

export interface RawRun {
  model: string;
  pipeline: string;
  target: string;
  machine: string;
  threads: number;
  names: string[];
  stages: RawStage[];
  compiled: LedgerRow;
  kernels: RawKernel[];
  code: { lines: number; assembly: string }[];
}

export interface GraphNode {
  name: string;
  op: string;
  attrs: string;
  inputs: ({ node: string; slot: number } | null)[];
  outputs: { name: string; type: string }[];
  sources: string[];
  group?: number;
}

export interface ValueInfo {
  shape?: number[];
  statistics?: Statistics;
  error?: ErrorData;
}

export interface Kernel {
  index: number;
  name: string;
  kind: string;
  sources: string[];
  values: string[];
  operations: string;
  timeNs?: number;
  reason: string;
  code?: { lines: number; assembly: string };
}

export interface StageGraph {
  run: Run;
  index: number;
  nodes: Map<string, GraphNode>;
  values: Map<string, ValueInfo>;
  outputs: { name: string; node: string; slot: number }[];
  users: Map<string, string[]>;
}

export interface Stage {
  pass: string;
  ledger: LedgerRow;
  applied: Change[];
  skipped: Change[];
}

const VERSION = 1;
export const MAX_RUNS = 4;

/** Numbers of the data, with those that JSON has no form for. */
export function num(value: Num | undefined): number {
  if (value === undefined) return NaN;
  if (typeof value === "number") return value;
  return value === "NaN" ? NaN : value === "inf" ? Infinity : -Infinity;
}

/** A run, and its graphs as they are asked for. */
export class Run {
  readonly stages: Stage[];
  readonly kernels: Kernel[];
  readonly label: string;
  private readonly graphs: StageGraph[] = [];
  private bySource = new Map<string, Kernel[]>();
  private byValue = new Map<string, Kernel>();
  /** Module of each node, over all stages. */
  readonly paths = new Map<string, string[]>();

  constructor(readonly raw: RawRun, label: string) {
    this.label = label;
    this.stages = raw.stages.map(({ pass, ledger, applied, skipped }) => ({ pass, ledger, applied, skipped }));
    const names = raw.names;
    this.kernels = raw.kernels.map((kernel, index) => ({
      index,
      name: kernel.name,
      kind: kernel.kind,
      sources: kernel.sources.map((at) => names[at]),
      values: kernel.values.map((at) => names[at]),
      operations: kernel.operations ?? "",
      timeNs: kernel.time_ns,
      reason: kernel.reason ?? "",
      code: kernel.code === undefined ? undefined : raw.code[kernel.code],
    }));
    for (const kernel of this.kernels) {
      for (const value of kernel.values) this.byValue.set(value, kernel);
      for (const source of kernel.sources) {
        const list = this.bySource.get(source);
        if (list) list.push(kernel);
        else this.bySource.set(source, [kernel]);
      }
    }
    placeNodes(this);
  }

  get hasGraphs(): boolean {
    return this.raw.stages.some((stage) => stage.nodes.length > 0);
  }

  /** The graph after a stage. */
  graph(index: number): StageGraph {
    const known = this.graphs[index];
    if (known) return known;
    const before = index > 0 ? this.graph(index - 1) : undefined;
    const graph = this.apply(index, before);
    this.graphs[index] = graph;
    return graph;
  }

  /** The kernels that compute a node: the one that writes its value, or those that stand for its sources. */
  kernelsOf(node: GraphNode): Kernel[] {
    const own = node.outputs.map((output) => this.byValue.get(output.name)).filter((kernel) => kernel !== undefined);
    if (own.length > 0) return [...new Set(own)];
    const found = new Set<Kernel>();
    for (const source of node.sources) {
      for (const kernel of this.bySource.get(source) ?? []) found.add(kernel);
    }
    return [...found];
  }

  private apply(index: number, before: StageGraph | undefined): StageGraph {
    const stage = this.raw.stages[index];
    const names = this.raw.names;
    const nodes = new Map(before?.nodes);
    const values = new Map(before?.values);
    for (const id of stage.removed) nodes.delete(names[id]);
    for (const raw of stage.nodes) {
      nodes.set(names[raw.id], {
        name: names[raw.id],
        op: raw.op,
        attrs: raw.attrs ?? "",
        inputs: (raw.inputs ?? []).map((input) => input && { node: names[input[0]], slot: input[1] }),
        outputs: raw.outputs.map((output) => ({ name: names[output.name], type: output.type })),
        sources: raw.sources ? raw.sources.map((at) => names[at]) : [names[raw.id]],
        group: raw.group,
      });
    }
    for (const { name, shape, statistics, error } of stage.values) {
      const old = values.get(names[name]);
      values.set(names[name], shape ? { shape, statistics, error } : { ...old, error });
    }
    // What a stage says of errors is against the stage before it: where it says nothing, nothing was added.
    const told = new Set(stage.values.map((value) => names[value.name]));
    for (const [name, value] of values) {
      if (value.error && !told.has(name) && num(value.error.added) !== 0) {
        values.set(name, { ...value, error: { ...value.error, added: 0, injected: 0, inherited: 0 } });
      }
    }
    const outputs = stage.outputs
      ? stage.outputs.map((output) => ({ name: output.name, node: names[output.value[0]], slot: output.value[1] }))
      : (before?.outputs ?? []);
    const users = new Map<string, string[]>();
    for (const node of nodes.values()) {
      for (const input of node.inputs) {
        if (!input) continue;
        const list = users.get(input.node);
        if (!list) users.set(input.node, [node.name]);
        else if (list[list.length - 1] !== node.name) list.push(node.name);
      }
    }
    return { run: this, index, nodes, values, outputs, users };
  }
}

/** The largest error of a node's values by a measure. */
export function errorOf(graph: StageGraph, node: GraphNode, measure: keyof ErrorData): number | undefined {
  let worst: number | undefined;
  for (const output of node.outputs) {
    const error = graph.values.get(output.name)?.error;
    if (!error) continue;
    const value = num(error[measure]);
    if (worst === undefined || value > worst) worst = value;
  }
  return worst;
}

/** Time of the kernels of a node, in nanoseconds. */
export function timeOf(graph: StageGraph, node: GraphNode): number | undefined {
  const times = graph.run.kernelsOf(node).map((kernel) => kernel.timeNs);
  const known = times.filter((time) => time !== undefined);
  return known.length > 0 ? known.reduce((sum, time) => sum + time, 0) : undefined;
}

/** True if two nodes are the same in all that is shown of them. */
export function sameNode(a: GraphNode, b: GraphNode): boolean {
  if (a === b) return true;
  const text = (n: GraphNode) => JSON.stringify([n.op, n.attrs, n.inputs, n.outputs, n.sources]);
  return text(a) === text(b);
}

/** More nodes directly in one module are put into parts. */
const MAX_DIRECT = 160;
const PART = 80;

function pathOfName(name: string): string[] {
  const parts = name.split("/").filter((part) => part.length > 0);
  return parts.slice(0, -1);
}

/** Finds the module of every node: from its name, else from its sources, else from what it reads. */
function placeNodes(run: Run): void {
  const bases = new Map<string, string>();
  const parts = new Map<string, Map<string, number>>();
  for (let index = 0; index < run.raw.stages.length; index++) {
    const graph = run.graph(index);
    const fresh = [...graph.nodes.values()].filter((node) => node.op !== "Constant" && !run.paths.has(node.name));
    const direct = new Map<string, GraphNode[]>();
    for (const node of fresh) {
      const reads = node.inputs.map((input) => input?.node).filter((name) => name !== undefined);
      const near = [...node.sources, ...reads].filter((name) => bases.has(name));
      const user = graph.users.get(node.name)?.[0];
      let path = pathOfName(node.name);
      if (node.op === "Input" && user) path = pathOfName(user);
      for (const source of node.sources) if (path.length === 0) path = pathOfName(source);
      const base = path.length > 0 || near.length === 0 ? path.join("/") : (bases.get(near[0]) ?? "");
      bases.set(node.name, base);
      run.paths.set(node.name, base === "" ? [] : base.split("/"));
      const list = direct.get(base);
      if (list) list.push(node);
      else direct.set(base, [node]);
    }
    for (const [base, list] of direct) splitModule(run, parts, base, list);
  }
}

function splitModule(run: Run, parts: Map<string, Map<string, number>>, base: string, list: GraphNode[]): void {
  let known = parts.get(base);
  if (!known && list.length <= MAX_DIRECT) return;
  if (!known) {
    known = new Map();
    parts.set(base, known);
    for (const [at, node] of list.entries()) known.set(node.name, Math.floor(at / PART));
  }
  for (const node of list) {
    const near = [...node.sources, ...node.inputs.map((input) => input?.node ?? "")];
    const part = known.get(node.name) ?? known.get(near.find((name) => known.has(name)) ?? "") ?? 0;
    known.set(node.name, part);
    run.paths.get(node.name)?.push(`part ${part + 1}`);
  }
}

/** Reads runs from a report's page, its data, or the output of `rabot debug --json`. */
export function readRuns(text: string): RawRun[] {
  // Written so that the page holds the text of this element once.
  const open = /<script type="application\/json" id="rabot-report">/.exec(text);
  const at = open ? open.index + open[0].length : 0;
  const json = open ? text.slice(at, text.indexOf("</script>", at)) : text;
  if (json.trim() === "") return [];
  const data = JSON.parse(json);
  if (data.trace) return [fromTrace(data)];
  if (data.version !== VERSION) throw new Error(`version ${data.version} of the data; this page reads ${VERSION}`);
  return data.runs.map((run: RawRun & { trace?: unknown }) => (run.trace ? fromTrace(run) : run));
}

/** The ledger of a run of which only the table is known. */
function fromTrace(data: any): RawRun {
  const distance = (value: number | null | undefined): Num => (value === null ? "inf" : (value ?? 0));
  const stages = data.trace.rows.map((row: any): RawStage => {
    const largest = (of: (output: any) => any) =>
      row.outputs.reduce((worst: Num, output: any) => {
        const value = distance(of(output).relative);
        return num(value) > num(worst) ? value : worst;
      }, 0 as Num);
    return {
      pass: row.pass,
      ledger: {
        exactness: row.exactness,
        verdict: row.verdict.kind,
        why: row.verdict.why,
        nodes: row.nodes,
        kernels: row.kernels,
        constants_bytes: row.constants_bytes,
        pass_ms: row.pass_ms,
        run_ms: row.measured?.median_ms,
        predicted_ms: row.predicted?.ms,
        added: largest((output) => output.added),
        total: largest((output) => output.total),
      },
      applied: row.applied,
      skipped: row.skipped.map((skip: any) => ({ rule: skip.rule, node: skip.node, detail: skip.reason })),
      nodes: [],
      removed: [],
      values: [],
    };
  });
  const last = stages[stages.length - 1].ledger;
  const measured = data.trace.compiled.measured;
  const compiled = { ...last, verdict: "", kernels: measured.kernels, run_ms: measured.median_ms, pass_ms: measured.compile_ms, added: 0 };
  return { model: data.model, pipeline: data.pipeline, target: "", machine: "", threads: 1, names: [], stages, compiled, kernels: [], code: [] };
}
