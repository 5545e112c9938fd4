// A graph on a canvas: pan, zoom, what is under the pointer. Only what is to be seen is drawn.

import { select } from "d3-selection";
import { zoom, zoomIdentity, type D3ZoomEvent, type ZoomBehavior, type ZoomTransform } from "d3-zoom";
import type { Theme } from "./color";
import type { Box, Scene } from "./layout";

export interface Style {
  theme: Theme;
  fill: Map<string, string>;
  /** Colour of the border, where it is not the usual one. */
  ring: Map<string, string>;
  selected?: string;
  /** Boxes that are next to the selected one. */
  matches: Set<string>;
}

export interface PaneEvents {
  moved(pane: Pane): void;
  clicked(pane: Pane, box: Box | undefined): void;
  opened(pane: Pane, box: Box): void;
  tip(pane: Pane, box: Box | undefined, x: number, y: number): void;
}

const TITLE = 24;

export class Pane {
  readonly root: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  readonly heading: HTMLElement;
  scene?: Scene;
  private style?: Style;
  private transform: ZoomTransform = zoomIdentity;
  private readonly behavior: ZoomBehavior<HTMLCanvasElement, unknown>;
  private pending = 0;
  private quiet = false;
  private hover?: string;

  constructor(parent: HTMLElement, private readonly events: PaneEvents) {
    this.root = document.createElement("section");
    this.root.className = "pane";
    this.heading = document.createElement("header");
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.root.append(this.heading, this.canvas);
    parent.append(this.root);
    this.behavior = zoom<HTMLCanvasElement, unknown>()
      .scaleExtent([0.01, 4])
      .on("zoom", (event: D3ZoomEvent<HTMLCanvasElement, unknown>) => {
        this.transform = event.transform;
        this.draw();
        if (!this.quiet) this.events.moved(this);
      });
    select(this.canvas).call(this.behavior).on("dblclick.zoom", null);
    this.canvas.addEventListener("click", (event) => {
      const box = this.boxAt(event);
      if (box?.kind === "open" && box) this.events.opened(this, box);
      else this.events.clicked(this, box);
    });
    this.canvas.addEventListener("dblclick", (event) => {
      const box = this.boxAt(event);
      if (box?.kind === "module") this.events.opened(this, box);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const box = event.buttons === 0 ? this.boxAt(event) : undefined;
      this.canvas.style.cursor = box ? "pointer" : "grab";
      this.events.tip(this, box, event.clientX, event.clientY);
      if (this.hover !== box?.key) {
        this.hover = box?.key;
        this.draw();
      }
    });
    this.canvas.addEventListener("pointerleave", () => this.events.tip(this, undefined, 0, 0));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  remove(): void {
    cancelAnimationFrame(this.pending);
    this.root.remove();
  }

  get scale(): number {
    return this.transform.k;
  }

  /** Size in CSS pixels. */
  get size(): { w: number; h: number } {
    return { w: this.canvas.clientWidth, h: this.canvas.clientHeight };
  }

  /** The point of the graph in the middle. */
  get center(): { x: number; y: number } {
    const { w, h } = this.size;
    return { x: (w / 2 - this.transform.x) / this.transform.k, y: (h / 2 - this.transform.y) / this.transform.k };
  }

  /** Puts a point of the graph in the middle. */
  look(x: number, y: number, k = this.transform.k): void {
    const { w, h } = this.size;
    this.quiet = true;
    select(this.canvas).call(this.behavior.transform, zoomIdentity.translate(w / 2 - x * k, h / 2 - y * k).scale(k));
    this.quiet = false;
  }

  /** Shows all of the graph, or its beginning if it would be too small. */
  fit(least = 0.75): void {
    if (!this.scene) return;
    const { w, h } = this.size;
    const all = Math.min(w / (this.scene.width + 40), h / (this.scene.height + 40), 1.2);
    const k = Math.max(all, least);
    const y = all < k ? h / 2 / k - 20 : this.scene.height / 2;
    this.look(this.scene.width / 2, y, k);
  }

  show(scene: Scene, style: Style): void {
    this.scene = scene;
    this.style = style;
    this.draw();
  }

  draw(): void {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  /** Paints now; gives the time it took, in milliseconds. */
  paint(): number {
    const start = performance.now();
    const { scene, style } = this;
    const ratio = window.devicePixelRatio || 1;
    const { w, h } = this.size;
    if (this.canvas.width !== Math.round(w * ratio) || this.canvas.height !== Math.round(h * ratio)) {
      this.canvas.width = Math.round(w * ratio);
      this.canvas.height = Math.round(h * ratio);
    }
    const context = this.canvas.getContext("2d");
    if (!context || !scene || !style) return 0;
    const { x, y, k } = this.transform;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = style.theme.background;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(ratio * k, 0, 0, ratio * k, ratio * x, ratio * y);
    const view = { x0: -x / k, y0: -y / k, x1: (w - x) / k, y1: (h - y) / k };
    const seen = (box: Box) =>
      box.x < view.x1 && box.x + box.w > view.x0 && box.y < view.y1 && box.y + box.h > view.y0;
    const boxes = scene.boxes.filter(seen);
    for (const box of boxes) if (box.kind === "open") this.paintOpen(context, box, style, k);
    this.paintLines(context, scene, style, k, view);
    for (const box of boxes) if (box.kind !== "open") this.paintBox(context, box, style, k);
    return performance.now() - start;
  }

  private paintOpen(context: CanvasRenderingContext2D, box: Box, style: Style, k: number): void {
    context.fillStyle = style.theme.module;
    context.strokeStyle = style.ring.get(box.key) ?? style.theme.border;
    context.lineWidth = 1 / Math.min(1, k);
    context.beginPath();
    context.roundRect(box.x, box.y, box.w, box.h, 8);
    context.fill();
    context.stroke();
    if (k * 12 < 4) return;
    context.fillStyle = this.hover === box.key ? style.theme.accent : style.theme.dim;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(`▾ ${box.label}`, box.x + 10, box.y + TITLE / 2 + 4, box.w - 20);
  }

  private paintLines(
    context: CanvasRenderingContext2D,
    scene: Scene,
    style: Style,
    k: number,
    view: { x0: number; y0: number; x1: number; y1: number },
  ): void {
    const near: Scene["lines"] = [];
    context.lineWidth = Math.max(1, 0.7 / k);
    context.strokeStyle = style.theme.line;
    for (const faint of [true, false]) {
      context.globalAlpha = faint ? 0.28 : 0.8;
      context.beginPath();
      for (const line of scene.lines) {
        if (line.faint !== faint) continue;
        if (line.minX > view.x1 || line.maxX < view.x0 || line.minY > view.y1 || line.maxY < view.y0) continue;
        if (style.selected && (line.from === style.selected || line.to === style.selected)) near.push(line);
        else trace(context, line.points, k);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
    context.strokeStyle = style.theme.strong;
    context.lineWidth = Math.max(2, 1.6 / k);
    context.beginPath();
    for (const line of near) trace(context, line.points, k);
    context.stroke();
    if (k < 0.3) return;
    context.fillStyle = style.theme.line;
    context.beginPath();
    for (const { points, maxY } of scene.lines) {
      if (maxY > view.y1 + 10 || maxY < view.y0) continue;
      const [px, py] = [points[points.length - 2], points[points.length - 1]];
      context.moveTo(px, py);
      context.lineTo(px - 3.5, py - 6);
      context.lineTo(px + 3.5, py - 6);
    }
    context.fill();
  }

  private paintBox(context: CanvasRenderingContext2D, box: Box, style: Style, k: number): void {
    const { theme } = style;
    const selected = style.selected === box.key;
    const match = style.matches.has(box.key);
    context.fillStyle = style.fill.get(box.key) ?? theme.box;
    context.strokeStyle = selected || match || this.hover === box.key ? theme.accent : (style.ring.get(box.key) ?? theme.border);
    context.lineWidth = (selected ? 3 : match ? 2.5 : 1) / Math.min(1, k);
    context.beginPath();
    if (k < 0.12) context.rect(box.x, box.y, box.w, box.h);
    else context.roundRect(box.x, box.y, box.w, box.h, box.kind === "module" ? 8 : box.node?.op === "Input" || box.kind === "output" ? 18 : 5);
    context.fill();
    context.stroke();
    if (k * 12 < 4.5) return;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const middle = box.x + box.w / 2;
    context.fillStyle = theme.text;
    context.font = "600 12px system-ui, sans-serif";
    const label = box.kind === "module" ? `▸ ${box.label}` : box.label;
    context.fillText(label, middle, box.y + box.h / 2 - (box.detail ? 7 : 0), box.w - 10);
    if (k * 10 < 4.5) return;
    context.globalAlpha = 0.72;
    context.font = "10.5px system-ui, sans-serif";
    context.fillText(clip(box.detail, box.w - 10), middle, box.y + box.h / 2 + 9, box.w - 8);
    context.globalAlpha = 1;
  }

  private boxAt(event: MouseEvent): Box | undefined {
    const x = (event.offsetX - this.transform.x) / this.transform.k;
    const y = (event.offsetY - this.transform.y) / this.transform.k;
    let found: Box | undefined;
    for (const box of this.scene?.boxes ?? []) {
      if (x < box.x || x > box.x + box.w || y < box.y || y > box.y + box.h) continue;
      // Of an open module only the title answers.
      if (box.kind === "open" && y > box.y + TITLE + 4) continue;
      found = box;
    }
    return found;
  }

  /** Where a box is on the page. */
  position(key: string): { x: number; y: number } | undefined {
    const box = this.scene?.byKey.get(key);
    if (!box) return undefined;
    const rect = this.canvas.getBoundingClientRect();
    const { x, y, k } = this.transform;
    return { x: rect.x + x + (box.x + box.w / 2) * k, y: rect.y + y + (box.y + Math.min(box.h / 2, 14)) * k };
  }
}

function clip(text: string, width: number): string {
  const most = Math.max(4, Math.floor(width / 5.4));
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

/** A smooth line through points; far away a straight one does. */
function trace(context: CanvasRenderingContext2D, points: Float32Array, k: number): void {
  const last = points.length - 2;
  context.moveTo(points[0], points[1]);
  if (k < 0.15) {
    context.lineTo(points[last], points[last + 1]);
    return;
  }
  let [x, y] = [points[0], points[1]];
  for (let at = 2; at <= last; at += 2) {
    const [nx, ny] = [points[at], points[at + 1]];
    const bend = (ny - y) / 2;
    context.bezierCurveTo(x, y + bend, nx, ny - bend, nx, ny);
    [x, y] = [nx, ny];
  }
}

/**
 * How far a place of one graph is from the same place of another: the mean over what both show, nearer boxes counting
 * more.
 */
export function shift(from: Scene, to: Scene, x: number, y: number): { dx: number; dy: number } | undefined {
  let [sum, dx, dy] = [0, 0, 0];
  for (const box of from.boxes) {
    if (box.kind === "open") continue;
    const other = to.byKey.get(box.key);
    if (!other || other.kind === "open") continue;
    const [cx, cy] = [box.x + box.w / 2, box.y + box.h / 2];
    const distance = (cx - x) ** 2 + (cy - y) ** 2 + 400;
    const weight = 1 / (distance * distance);
    sum += weight;
    dx += weight * (other.x + other.w / 2 - cx);
    dy += weight * (other.y + other.h / 2 - cy);
  }
  return sum > 0 ? { dx: dx / sum, dy: dy / sum } : undefined;
}
