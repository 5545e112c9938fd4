// Numbers and text for people.

import { num, type Num } from "./data";

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

export function number(value: Num | undefined): string {
  const n = num(value);
  if (value === undefined) return "–";
  if (Number.isNaN(n)) return "NaN";
  if (!Number.isFinite(n)) return n > 0 ? "∞" : "−∞";
  if (n === 0) return "0";
  const size = Math.abs(n);
  if (size >= 1e5 || size < 1e-3) return n.toExponential(2);
  return String(Number(n.toPrecision(4)));
}

export function error(value: Num | undefined): string {
  const n = num(value);
  if (value === undefined) return "–";
  return n === 0 ? "0" : Number.isFinite(n) ? n.toExponential(1) : number(value);
}

export function time(ns: number | undefined): string {
  if (ns === undefined) return "–";
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toPrecision(3)} µs`;
  return `${(ns / 1e6).toPrecision(3)} ms`;
}

export function bytes(count: number): string {
  if (count < 1e3) return `${count} B`;
  if (count < 1e6) return `${(count / 1e3).toPrecision(3)} kB`;
  if (count < 1e9) return `${(count / 1e6).toPrecision(3)} MB`;
  return `${(count / 1e9).toPrecision(3)} GB`;
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}
