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
  const key = `${sizes}|${edges.join(" ")}`;
  let found = positions.get(key);
  if (!found) {
    found = arrange(items.map((item) => item.box), edges);
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
const LONG = 10;

/** Positions of boxes, by the layered layout of dagre. */
function arrange(boxes: Box[], edges: [number, number][]): Positions {
  const graph = new Graph({ multigraph: false, compound: false });
  graph.setGraph({ rankdir: "TB", nodesep: 18, ranksep: 30, edgesep: 8 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const [at, box] of boxes.entries()) graph.setNode(String(at), { width: box.w, height: box.h });
  const kept = shortEdges(boxes.length, edges);
  for (const [a, b] of kept) graph.setEdge(String(a), String(b), {});
  dagre(graph);
  const size = graph.graph() as { width?: number; height?: number };
  const at = boxes.map((box, at): [number, number] => {
    const placed = graph.node(String(at)) as { x: number; y: number };
    return [placed.x - box.w / 2, placed.y - box.h / 2];
  });
  const points = edges.map(([a, b]) => {
    const edge = graph.edge(String(a), String(b)) as { points?: { x: number; y: number }[] } | undefined;
    return edge?.points?.flatMap((point) => [point.x, point.y]);
  });
  return { w: Math.max(0, size.width ?? 0), h: Math.max(0, size.height ?? 0), at, points };
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
    scene.lines.push({ from, to, points, minX, maxX, minY, maxY });
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
