// Colours: by what changed, by operator, by error, by time.

import { errorOf, timeOf, type ErrorData, type GraphNode, type StageGraph } from "./data";
import type { Box } from "./layout";

export type Mode = "change" | "op" | "relative" | "added" | "injected" | "time";

export const MODES: [Mode, string][] = [
  ["change", "what changed"],
  ["injected", "error injected by the pass"],
  ["added", "error added by the pass"],
  ["relative", "error in all"],
  ["time", "time of its kernel"],
  ["op", "operator"],
];

export type Status = "same" | "added" | "removed" | "changed";

export interface Theme {
  dark: boolean;
  background: string;
  text: string;
  dim: string;
  line: string;
  strong: string;
  box: string;
  module: string;
  border: string;
  status: Record<Status, string>;
  accent: string;
}

const LIGHT: Theme = {
  dark: false,
  background: "#fafbfc",
  text: "#1c2430",
  dim: "#5b6675",
  line: "#a3adba",
  strong: "#2563eb",
  box: "#ffffff",
  module: "#eef1f5",
  border: "#c3cbd6",
  status: { same: "#ffffff", added: "#c6efd0", removed: "#fbcfcf", changed: "#fde7b0" },
  accent: "#2563eb",
};

const DARK: Theme = {
  dark: true,
  background: "#14181f",
  text: "#e6eaf0",
  dim: "#98a4b3",
  line: "#55606e",
  strong: "#6ea8ff",
  box: "#232a35",
  module: "#1b212a",
  border: "#3c4755",
  status: { same: "#232a35", added: "#1d5a35", removed: "#6e2a2e", changed: "#66500f" },
  accent: "#6ea8ff",
};

export const themes = { light: LIGHT, dark: DARK };

/** A colour of a scale from 0 to 1: pale to dark red in the light, dark to bright in the dark. */
export function heat(at: number, theme: Theme): string {
  const t = Math.min(1, Math.max(0, at));
  return theme.dark
    ? `hsl(${40 - 35 * t} ${30 + 55 * t}% ${20 + 26 * t}%)`
    : `hsl(${48 - 43 * t} ${60 + 30 * t}% ${94 - 36 * t}%)`;
}

/** Colour of a family of operators, by its name. */
export function opColor(op: string, theme: Theme): string {
  let hash = 7;
  for (const letter of op) hash = (hash * 31 + letter.charCodeAt(0)) % 3600;
  return theme.dark ? `hsl(${hash % 360} 32% 28%)` : `hsl(${hash % 360} 55% 88%)`;
}

export interface Scale {
  mode: Mode;
  /** Smallest and largest value; errors are on a logarithmic scale. */
  min: number;
  max: number;
}

/** What a node is coloured by. */
export function valueOf(graph: StageGraph, node: GraphNode, mode: Mode): number | undefined {
  if (mode === "time") return timeOf(graph, node);
  if (mode === "change" || mode === "op") return undefined;
  return errorOf(graph, node, mode as keyof ErrorData);
}

/** The scale that fits the nodes of some graphs. */
export function scaleOf(graphs: StageGraph[], mode: Mode): Scale {
  let [min, max] = [Infinity, 0];
  for (const graph of graphs) {
    for (const node of graph.nodes.values()) {
      const value = valueOf(graph, node, mode);
      if (value === undefined || value <= 0 || !Number.isFinite(value)) continue;
      min = Math.min(min, value);
      max = Math.max(max, value);
    }
  }
  if (max === 0) return { mode, min: 0, max: 0 };
  return { mode, min: mode === "time" ? 0 : Math.max(min, max * 1e-6), max };
}

/** Place of a value on a scale, from 0 to 1. */
export function placeOn(scale: Scale, value: number): number {
  if (value === Infinity || Number.isNaN(value)) return 1;
  if (scale.max === 0 || value <= 0) return 0;
  if (scale.mode === "time") return value / scale.max;
  if (scale.max === scale.min) return 1;
  return Math.log(value / scale.min) / Math.log(scale.max / scale.min);
}

const worstStatus = (box: Box, status: (node: GraphNode) => Status): Status => {
  const members = box.members ?? [];
  const all = new Set(members.map(status));
  if (all.size === 1) return [...all][0];
  return all.size === 0 ? "same" : "changed";
};

/** The fill of a box. */
export function fillOf(
  box: Box,
  graph: StageGraph,
  scale: Scale,
  theme: Theme,
  status: (node: GraphNode) => Status,
): string {
  if (box.kind === "output") return theme.module;
  if (scale.mode === "change") return theme.status[box.node ? status(box.node) : worstStatus(box, status)];
  if (scale.mode === "op") return box.node ? opColor(box.node.op, theme) : theme.box;
  const nodes = box.node ? [box.node] : (box.members ?? []);
  let found: number | undefined;
  for (const node of nodes) {
    const value = valueOf(graph, node, scale.mode);
    if (value === undefined) continue;
    found = found === undefined ? value : Math.max(found, value);
  }
  return found === undefined || found === 0 ? theme.box : heat(0.08 + 0.92 * placeOn(scale, found), theme);
}
