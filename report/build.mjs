// Bundles the page into one file without data: dist/report.html, or the file that is named.

import { build } from "esbuild";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "dist/report.html");
const made = await build({
  entryPoints: [join(here, "src/main.ts")],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  write: false,
});
const style = await build({ entryPoints: [join(here, "src/style.css")], minify: true, write: false });
// The script is inside an element that this text would end.
const script = made.outputFiles[0].text.replaceAll("</script", "<\\/script");
const parts = { "/*STYLE*/": style.outputFiles[0].text.trim(), "/*SCRIPT*/": script.trim() };
let page = readFileSync(join(here, "src/template.html"), "utf8");
const notices = readFileSync(join(here, "NOTICES.txt"), "utf8").replaceAll("--", "- -");
page = page.replace("<head>", () => `<head>\n<!--\n${notices}-->`);
for (const [mark, text] of Object.entries(parts)) page = page.replace(mark, () => text);
writeFileSync(`${target}.tmp`, page);
renameSync(`${target}.tmp`, target);
