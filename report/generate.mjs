// Data of a run that never was: layers of a transformer, with passes that fuse and move it. For tests only.

const OPS = ["LayerNormalization", "MatMul", "Add", "Reshape", "Transpose", "MatMul", "Softmax", "MatMul", "Mul", "Sigmoid", "Add"];

/** A page with data in it, as rabot puts them there. */
export function withData(template, data) {
  const open = '<script type="application/json" id="rabot-report">';
  return template.replace(open, () => open + JSON.stringify(data).replaceAll("<", "\\u003c"));
}

/** A run over `count` nodes and `passes` passes. */
export function generated(count, passes) {
  const names = [];
  const numbers = new Map();
  const number = (text) => {
    if (!numbers.has(text)) numbers.set(text, names.push(text) - 1);
    return numbers.get(text);
  };
  // A small generator of numbers that are the same in each run.
  let seed = 12345;
  const random = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;
  const perLayer = 62;
  const node = (at, removed) => {
    const layer = Math.floor(at / perLayer);
    const name = (index) => `/layers.${Math.floor(index / perLayer)}/${index % perLayer < 30 ? "attn" : "mlp"}/${OPS[index % OPS.length]}_${index}`;
    const before = (index) => {
      let found = index - 1;
      while (found >= 0 && removed.has(found)) found--;
      return found;
    };
    const inputs = [before(at) >= 0 ? [number(name(before(at))), 0] : [number("x"), 0]];
    if (OPS[at % OPS.length] === "Add" && before(at - 5) >= 0) inputs.push([number(name(before(at - 5))), 0]);
    return { id: number(name(at)), op: OPS[at % OPS.length], attrs: at % 3 ? "" : `axis=-1, layer=${layer}`, inputs, outputs: [{ name: number(`${name(at)}_output_0`), type: "f32[n,64,576]" }], group: at >> 2 };
  };
  const statistics = () => ({ min: -random() * 4, max: random() * 4, mean: random() - 0.5, std: random(), zeros: 3, nan: 0, inf: 0, histogram: Array.from({ length: 32 }, (_, at) => Math.round(1000 * Math.exp(-(((at - 16) / 6) ** 2)))) });
  const removed = new Set();
  const stages = [];
  for (let pass = 0; pass <= passes; pass++) {
    const gone = [];
    const changed = [];
    const values = [];
    for (let at = 1; at < count - 1 && pass > 0; at++) {
      if (!removed.has(at) && (at * 7 + pass * 13) % (pass + 11) === 0) gone.push(at);
    }
    for (const at of gone) removed.add(at);
    for (let at = 0; at < count; at++) {
      if (removed.has(at)) continue;
      if (pass === 0 || removed.has(at - 1) || removed.has(at - 6)) changed.push(node(at, removed));
      const made = node(at, removed).outputs[0].name;
      const relative = pass > 3 ? 1e-7 * (1 + at * random()) * pass : 0;
      const error = relative > 0 ? { max: relative * 3, relative, rms: relative / 3, sqnr_db: 120, added: relative / 4, injected: at % 9 ? 0 : relative / 5, inherited: relative / 9 } : undefined;
      if (pass === 0) values.push({ name: made, shape: [1, 64, 576], statistics: statistics() });
      else if (error) values.push({ name: made, error });
    }
    if (pass === 0) changed.unshift({ id: number("x"), op: "Input", inputs: [], outputs: [{ name: number("x"), type: "f32[n,64,576]" }], sources: [] });
    const left = count - removed.size;
    const added = pass > 3 ? 10 ** -(8 - (pass % 4)) : 0;
    stages.push({
      pass: pass === 0 ? "import" : `pass-${pass}{level=${pass}}`,
      ledger: { exactness: "rtol 1e-6, atol 0", verdict: pass === 0 ? "reference" : "holds", nodes: left, kernels: left >> 1, constants_bytes: 4e6 + 1e5 * left, pass_ms: pass * 1.5, run_ms: left / 100, predicted_ms: left / 130, added, total: pass > 3 ? 2e-7 * pass : 0 },
      applied: gone.map((at) => ({ rule: "fuse", node: names[node(at, removed).id], detail: `</script> & "quoted" ${at}` })),
      skipped: [{ rule: "fuse", node: names[0], detail: "used twice" }],
      nodes: changed,
      removed: pass === 0 ? [] : gone.map((at) => node(at, removed).id),
      values,
      outputs: pass === 0 ? [{ name: "logits", value: [node(count - 1, removed).id, 0] }] : undefined,
    });
  }
  const kernels = [];
  for (let at = 0; at < count; at++) {
    if (removed.has(at)) continue;
    const { id, outputs } = node(at, removed);
    kernels.push({ name: `f32_gemm_${at % 40}`, kind: at % 3 ? "loop" : "contract", sources: [id], values: [outputs[0].name], operations: String(1e6 + at), time_ns: Math.round(1e4 * (1 + 9 * random())), code: at % 40 });
  }
  const code = Array.from({ length: 40 }, (_, at) => ({ lines: 200, assembly: Array.from({ length: 200 }, (_, line) => `  vfmadd231ps ymm${line % 16}, ymm${at % 16}, [rdi+${line * 32}]`).join("\n") }));
  return { version: 1, runs: [{ model: "generated/model.onnx", pipeline: "pass-1,pass-2", target: "host", machine: "x86-64 with 2 cores: avx2 fma", threads: 1, names, stages, compiled: { ...stages.at(-1).ledger, added: 1e-7 }, kernels, code }] };
}
