// Where things are drawn: each module is laid out by itself, and is a box in the one around it. Modules that look the
// same are laid out once, so that a step from pass to pass, or a model of equal layers, costs little.

import { Graph, layout as dagre } from "@dagrejs/dagre";
import type { GraphNode, StageGraph } from "./data";

export interface Box {
  /** `n:` and the name of a node, `m:` and the path of a module, or `o:` and the name of an output. */
  key: string;
  kind: "node" | "module" | "open" | "output";
  label: string;
  detail: string;
  path: string;
  node?: GraphNode;
  /** Nodes in a module. */
  members?: GraphNode[];
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Line {
  from: string;
  to: string;
  points: Float32Array;
  /** It goes a long way without a route of its own. */
  faint: boolean;
  minX: number;
  maxX: number;
  minY: number;
  maxY: number;
}

export interface Scene {
  graph: StageGraph;
  /** Modules before what is in them. */
  boxes: Box[];
  byKey: Map<string, Box>;
  lines: Line[];
  width: number;
  height: number;
}

interface Module {
  path: string;
  name: string;
  modules: Map<string, Module>;
  nodes: GraphNode[];
  outputs: { name: string; node: string }[];
  members: GraphNode[];
  /** Pairs of keys, of items that are directly in it. */
  edges: Map<string, [string, string]>;
}

const PADDING = 16;
const TITLE = 24;
const NODE_HEIGHT = 38;

const trees = new WeakMap<StageGraph, Module>();

function emptyModule(path: string, name: string): Module {
  return { path, name, modules: new Map(), nodes: [], outputs: [], members: [], edges: new Map() };
}

function pathOf(graph: StageGraph, name: string): string[] {
  return graph.run.paths.get(name) ?? [];
}

/** Modules, and the edges that each of them holds. */
export function treeOf(graph: StageGraph): Module {
  const known = trees.get(graph);
  if (known) return known;
  const root = emptyModule("", "");
  const at = (path: string[]): Module => {
    let module = root;
    for (const [depth, name] of path.entries()) {
      let next = module.modules.get(name);
      if (!next) {
        next = emptyModule(path.slice(0, depth + 1).join("/"), name);
        module.modules.set(name, next);
      }
      module = next;
    }
    return module;
  };
  for (const node of graph.nodes.values()) {
    if (node.op === "Constant") continue;
    const path = pathOf(graph, node.name);
    at(path).nodes.push(node);
    for (let depth = 0; depth <= path.length; depth++) at(path.slice(0, depth)).members.push(node);
  }
  for (const output of graph.outputs) at(pathOf(graph, output.node)).outputs.push(output);
  const connect = (from: string[], fromKey: string, to: string[], toKey: string) => {
    let depth = 0;
    while (depth < from.length && depth < to.length && from[depth] === to[depth]) depth++;
    const item = (path: string[], key: string) =>
      path.length > depth ? `m:${path.slice(0, depth + 1).join("/")}` : key;
    const [a, b] = [item(from, fromKey), item(to, toKey)];
    at(from.slice(0, depth)).edges.set(`${a}\n${b}`, [a, b]);
  };
  for (const [name, users] of graph.users) {
    if (graph.nodes.get(name)?.op === "Constant") continue;
    for (const user of users) connect(pathOf(graph, name), `n:${name}`, pathOf(graph, user), `n:${user}`);
  }
  for (const output of graph.outputs) {
    const path = pathOf(graph, output.node);
    if (graph.nodes.get(output.node)?.op !== "Constant") connect(path, `n:${output.node}`, path, `o:${output.name}`);
  }
  trees.set(graph, root);
  return root;
}

/** Paths to open at first: outer modules before inner ones, as long as no more than `most` boxes are to be seen. */
export function defaultOpen(graph: StageGraph, most: number): Set<string> {
  const open = new Set<string>();
  const size = (module: Module) => module.modules.size + module.nodes.length + module.outputs.length;
  let seen = size(treeOf(graph));
  let level = [...treeOf(graph).modules.values()];
  while (level.length > 0) {
    const extra = level.reduce((sum, module) => sum + size(module) - 1, 0);
    if (seen + extra > most) break;
    seen += extra;
    for (const module of level) open.add(module.path);
    level = level.flatMap((module) => [...module.modules.values()]);
  }
  return open;
}

/** Paths of all modules. */
export function allModules(graph: StageGraph): string[] {
  const paths: string[] = [];
  const visit = (module: Module) => {
    for (const inner of module.modules.values()) {
      paths.push(inner.path);
      visit(inner);
    }
  };
  visit(treeOf(graph));
  return paths;
}

interface Placed {
  w: number;
  h: number;
  items: Item[];
  lines: { from: string; to: string; points: number[] }[];
}

interface Item {
  box: Box;
  inner?: Placed;
}

interface Positions {
  w: number;
  h: number;
  at: [number, number][];
  points: (number[] | undefined)[];
}

const positions = new Map<string, Positions>();

const textWidth = (text: string) => text.length * 6.3;
export const shortName = (name: string) => name.slice(name.lastIndexOf("/") + 1) || name;

/** Lays out a graph with these modules open. */
export function sceneOf(graph: StageGraph, open: Set<string>): Scene {
  const placed = place(treeOf(graph), open);
  const scene: Scene = { graph, boxes: [], byKey: new Map(), lines: [], width: placed.w, height: placed.h };
  const routes = new Map<string, number[]>();
  flatten(placed, 0, 0, scene, routes);
  for (const box of scene.boxes) scene.byKey.set(box.key, box);
  drawEdges(graph, scene, routes);
  return scene;
}

function place(module: Module, open: Set<string>): Placed {
  const items: Item[] = [];
  for (const node of module.nodes) {
    const label = node.op;
    const detail = node.op === "Input" ? node.name : shortName(node.name);
    const w = Math.min(200, Math.max(70, textWidth(label) + 24, textWidth(detail) * 0.9 + 20));
    items.push({ box: { key: `n:${node.name}`, kind: "node", label, detail, path: module.path, node, x: 0, y: 0, w, h: NODE_HEIGHT } });
  }
  for (const output of module.outputs) {
    const w = Math.min(200, Math.max(70, textWidth(output.name) * 0.9 + 20));
    const base = { label: "Output", detail: output.name, path: module.path, x: 0, y: 0, w, h: NODE_HEIGHT };
    items.push({ box: { key: `o:${output.name}`, kind: "output", ...base } });
  }
  for (const inner of module.modules.values()) {
    const detail = `${inner.members.length} nodes`;
    const base = { key: `m:${inner.path}`, label: inner.name, detail, path: inner.path, members: inner.members, x: 0, y: 0 };
    if (open.has(inner.path)) {
      const placed = place(inner, open);
      items.push({ box: { ...base, kind: "open", w: placed.w, h: placed.h }, inner: placed });
    } else {
      const w = Math.min(240, Math.max(120, textWidth(inner.name) * 1.15 + 40));
      items.push({ box: { ...base, kind: "module", w, h: 46 } });
    }
  }
  const index = new Map(items.map((item, at) => [item.box.key, at]));
  const edges: [number, number][] = [];
  for (const [from, to] of module.edges.values()) {
    const [a, b] = [index.get(from), index.get(to)];
    if (a !== undefined && b !== undefined && a !== b) edges.push([a, b]);
  }
  const sizes = items.map((item) => `${Math.round(item.box.w)}x${Math.round(item.box.h)}`).join(" ");
  const key = `${module.path === ""}|${sizes}|${edges.join(" ")}`;
  let found = positions.get(key);
  if (!found) {
    const boxes = items.map((item) => item.box);
    found = arrange(boxes, edges);
    if (module.path === "") found = inColumns(boxes, edges, found);
    positions.set(key, found);
  }
  const top = module.path === "" ? PADDING : PADDING + TITLE;
  for (const [at, item] of items.entries()) {
    item.box.x = found.at[at][0] + PADDING;
    item.box.y = found.at[at][1] + top;
  }
  const lines = edges.map(([a, b], at) => ({
    from: items[a].box.key,
    to: items[b].box.key,
    points: (found.points[at] ?? []).map((value, axis) => value + (axis % 2 === 0 ? PADDING : top)),
  }));
  const title = textWidth(module.name) * 1.15 + 60;
  return { w: Math.max(found.w + 2 * PADDING, title), h: found.h + PADDING + top, items, lines };
}

/** Edges over more ranks than this are not laid out: they would only push everything else apart. */
const LONG = 5;

const GAP = 26;

/** Boxes one under the other that are laid out as one: each is all that the one before leads to. */
interface Chain {
  members: number[];
  w: number;
  h: number;
}

function chainsOf(boxes: Box[], edges: [number, number][]): Chain[] {
  const users: number[][] = boxes.map(() => []);
  const operands = new Array<number>(boxes.length).fill(0);
  for (const [a, b] of edges) {
    users[a].push(b);
    operands[b]++;
  }
  const next = users.map((list) => (list.length === 1 && operands[list[0]] === 1 ? list[0] : -1));
  const follows = new Set(next.filter((at) => at >= 0));
  const chains: Chain[] = [];
  const placed = new Set<number>();
  // Those that follow each other in a circle, as closed modules may, begin anywhere.
  for (const at of [...boxes.keys()].sort((a, b) => Number(follows.has(a)) - Number(follows.has(b)))) {
    const members: number[] = [];
    for (let member = at; member >= 0 && !placed.has(member); member = next[member]) {
      members.push(member);
      placed.add(member);
    }
    if (members.length === 0) continue;
    const h = members.reduce((sum, member) => sum + boxes[member].h, GAP * (members.length - 1));
    chains.push({ members, w: Math.max(...members.map((member) => boxes[member].w)), h });
  }
  return chains;
}

/** Positions of boxes, by the layered layout of dagre on chains. */
function arrange(boxes: Box[], edges: [number, number][]): Positions {
  const kept = shortEdges(boxes.length, edges);
  const chains = chainsOf(boxes, kept);
  const chainOf = new Array<number>(boxes.length).fill(0);
  for (const [number, chain] of chains.entries()) for (const member of chain.members) chainOf[member] = number;
  const graph = new Graph({ multigraph: false, compound: false });
  graph.setGraph({ rankdir: "TB", nodesep: 18, ranksep: GAP + 4, edgesep: 8, ranker: "tight-tree" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const [number, chain] of chains.entries()) graph.setNode(String(number), { width: chain.w, height: chain.h });
  for (const [a, b] of kept) if (chainOf[a] !== chainOf[b]) graph.setEdge(String(chainOf[a]), String(chainOf[b]), {});
  if (chains.length > 1) dagre(graph);
  const single = { x: (chains[0]?.w ?? 0) / 2, y: (chains[0]?.h ?? 0) / 2 };
  const size = chains.length > 1 ? (graph.graph() as { width?: number; height?: number }) : { width: chains[0]?.w, height: chains[0]?.h };
  const at: [number, number][] = boxes.map(() => [0, 0]);
  for (const [number, chain] of chains.entries()) {
    const middle = chains.length > 1 ? (graph.node(String(number)) as { x: number; y: number }) : single;
    let y = middle.y - chain.h / 2;
    for (const member of chain.members) {
      at[member] = [middle.x - boxes[member].w / 2, y];
      y += boxes[member].h + GAP;
    }
  }
  const points = edges.map(([a, b]) => {
    if (chainOf[a] === chainOf[b]) return undefined;
    const edge = graph.edge(String(chainOf[a]), String(chainOf[b])) as { points?: { x: number; y: number }[] } | undefined;
    return edge?.points?.flatMap((point) => [point.x, point.y]);
  });
  return { w: Math.max(0, size.width ?? 0), h: Math.max(0, size.height ?? 0), at, points };
}

/** A graph that is this many times as high as wide is put into columns. */
const TALL = 3;
const COLUMN_GAP = 60;

/** A tall layout in columns side by side, each going on where the one before ends. */
function inColumns(boxes: Box[], edges: [number, number][], tall: Positions): Positions {
  if (tall.h < TALL * tall.w || tall.h < 1500) return tall;
  const usual = boxes.reduce((sum, box) => sum + box.w * box.h, 0) / tall.h;
  const wanted = tall.h / Math.max(2, Math.round(Math.sqrt(tall.h / (usual + COLUMN_GAP) / 1.4)));
  const order = [...boxes.keys()].sort((a, b) => tall.at[a][1] - tall.at[b][1]);
  const column = new Array<number>(boxes.length).fill(0);
  const starts = [0];
  let end = 0;
  for (const member of order) {
    const y = tall.at[member][1];
    // Only where no box is cut in two.
    if (y >= end && y - starts[starts.length - 1] >= wanted) starts.push(y);
    end = Math.max(end, y + boxes[member].h);
    column[member] = starts.length - 1;
  }
  const left = starts.map(() => Infinity);
  const right = starts.map(() => 0);
  for (const [member, box] of boxes.entries()) {
    left[column[member]] = Math.min(left[column[member]], tall.at[member][0]);
    right[column[member]] = Math.max(right[column[member]], tall.at[member][0] + box.w);
  }
  let width = 0;
  const shifts = starts.map((_, at) => {
    const shift = width - left[at];
    width += right[at] - left[at] + COLUMN_GAP;
    return shift;
  });
  const x = (member: number) => shifts[column[member]];
  const at = boxes.map((_, member): [number, number] => [tall.at[member][0] + x(member), tall.at[member][1] - starts[column[member]]]);
  const points = edges.map(([a, b], edge) =>
    column[a] === column[b]
      ? tall.points[edge]?.map((value, axis) => (axis % 2 === 0 ? value + x(a) : value - starts[column[a]]))
      : undefined,
  );
  const h = Math.max(...boxes.map((box, member) => at[member][1] + box.h));
  return { w: width - COLUMN_GAP, h, at, points };
}

function shortEdges(count: number, edges: [number, number][]): [number, number][] {
  const users: number[][] = Array.from({ length: count }, () => []);
  const waiting = new Array<number>(count).fill(0);
  for (const [a, b] of edges) {
    users[a].push(b);
    waiting[b]++;
  }
  const rank = new Array<number>(count).fill(0);
  const ready = waiting.flatMap((left, at) => (left === 0 ? [at] : []));
  for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
    for (const user of users[next]) {
      rank[user] = Math.max(rank[user], rank[next] + 1);
      if (--waiting[user] === 0) ready.push(user);
    }
  }
  const held = new Set(edges.filter(([a, b]) => rank[b] - rank[a] <= LONG).map(([, b]) => b));
  return edges.filter(([a, b]) => rank[b] - rank[a] <= LONG || !held.has(b));
}

function flatten(placed: Placed, x: number, y: number, scene: Scene, routes: Map<string, number[]>): void {
  for (const { from, to, points } of placed.lines) {
    routes.set(`${from}\n${to}`, points.map((value, axis) => value + (axis % 2 === 0 ? x : y)));
  }
  for (const { box, inner } of placed.items) {
    box.x += x;
    box.y += y;
    scene.boxes.push(box);
    if (inner) flatten(inner, box.x, box.y, scene, routes);
  }
}

const FAR = 400;

/** Edges between what is to be seen; those of nodes in closed modules are drawn at the module. */
function drawEdges(graph: StageGraph, scene: Scene, routes: Map<string, number[]>): void {
  const seen = new Set<string>();
  const visible = (name: string): string => {
    const path = pathOf(graph, name);
    for (let depth = 1; depth <= path.length; depth++) {
      const key = `m:${path.slice(0, depth).join("/")}`;
      if (scene.byKey.get(key)?.kind === "module") return key;
    }
    return `n:${name}`;
  };
  const add = (from: string, to: string, fromPath: string[], toPath: string[], fromKey: string, toKey: string) => {
    if (from === to || seen.has(`${from}\n${to}`)) return;
    seen.add(`${from}\n${to}`);
    const [a, b] = [scene.byKey.get(from), scene.byKey.get(to)];
    if (!a || !b) return;
    let depth = 0;
    while (depth < fromPath.length && depth < toPath.length && fromPath[depth] === toPath[depth]) depth++;
    const item = (path: string[], key: string) =>
      path.length > depth ? `m:${path.slice(0, depth + 1).join("/")}` : key;
    const route = routes.get(`${item(fromPath, fromKey)}\n${item(toPath, toKey)}`) ?? [];
    const points = new Float32Array([a.x + a.w / 2, a.y + a.h, ...route.slice(2, -2), b.x + b.w / 2, b.y]);
    let [minX, maxX, minY, maxY] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let at = 0; at < points.length; at += 2) {
      minX = Math.min(minX, points[at]);
      maxX = Math.max(maxX, points[at]);
      minY = Math.min(minY, points[at + 1]);
      maxY = Math.max(maxY, points[at + 1]);
    }
    const faint = points.length === 4 && maxX - minX + maxY - minY > FAR;
    scene.lines.push({ from, to, points, faint, minX, maxX, minY, maxY });
  };
  for (const [name, users] of graph.users) {
    if (graph.nodes.get(name)?.op === "Constant") continue;
    const [from, path] = [visible(name), pathOf(graph, name)];
    for (const user of users) add(from, visible(user), path, pathOf(graph, user), `n:${name}`, `n:${user}`);
  }
  for (const output of graph.outputs) {
    const path = pathOf(graph, output.node);
    add(visible(output.node), `o:${output.name}`, path, path, `n:${output.node}`, `o:${output.name}`);
  }
}
