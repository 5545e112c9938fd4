//! Predicted time of a plan: a roofline over its kernels.
//!
//! ```text
//! time = Σ over calls  max(operations / peak, bytes / bandwidth) + cost of a call
//! ```
//!
//! *Operations* are those of the innermost loops: a multiply-add is two, a division or square root eight, a function such
//! as `exp` twenty, as many as it is expanded into. *Peak* is that of the target's profile for multiply-adds, half of it
//! for other vector operations (they do one where a multiply-add does two), and half of that over the lanes for loops
//! without vectors. *Bytes* are those of the buffers that a call touches, each once; they come at the bandwidth of memory
//! where all that the program touches is larger than the last-level cache, four times as fast where it is not, and sixteen
//! times where it fits into the second level. Threads multiply operations and bandwidth, as far as there are cores.
//!
//! What runs on the host moves its bytes at a tenth of the bandwidth. Of a conditional the longer branch counts, and of a
//! loop one round, since the number of rounds is not known.

use rabot_ir::{Dim, Graph, Value};
use rabot_kernel::{
    BinaryFn, BufferId, Call, ContractKernel, Expr, ExprNode, KernelDesc, LoopKernel, Operand, Plan, Size,
    Staged, Step, UnaryFn, Vectorize,
};
use rabot_target::Profile;
use rabot_tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Time of a call besides its work, in seconds: looking up its arguments and handing out its items.
/// Measured on one core of a Xeon of 2023 with kernels of one element, November 2026.
const CALL: f64 = 150e-9;

/// The same of a function of the host: tensors are made of its operands.
const HOST_CALL: f64 = 2e-6;

/// Gain of bandwidth in the last-level cache and in the second level.
const IN_LAST_LEVEL: f64 = 4.0;
const IN_SECOND_LEVEL: f64 = 16.0;

/// Operations of a division and the like, and of a function.
const DIVISION: f64 = 8.0;
const FUNCTION: f64 = 20.0;

/// Share of the peak that contractions reach: loads and stores of the tile's edges take the rest.
const CONTRACTION: f64 = 0.8;

/// How much faster the tile unit is than vectors of 512 bits, six products for one.
const TILES: f64 = 2.0;

/// A predicted time, and what it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Time of a run, in milliseconds.
    pub ms: f64,
    /// Calls of kernels and host functions.
    pub calls: usize,
    /// Operations.
    pub operations: f64,
    /// Bytes that calls touch, those that several touch counted for each.
    pub bytes: f64,
    /// Calls whose sizes only a run tells; they count as nothing.
    pub unknown: usize,
}

/// Sizes of symbols: those of values whose dims are symbols, from the shapes that the values had.
pub fn sizes(graph: &Graph, shapes: &HashMap<Value, Vec<usize>>) -> HashMap<String, i64> {
    let mut found = HashMap::new();
    for (value, shape) in shapes {
        for (dim, size) in graph.fact(*value).shape().iter().zip(shape) {
            if let Some(name) = dim.as_symbol() {
                found.insert(name.to_owned(), i64::try_from(*size).unwrap_or(i64::MAX));
            }
        }
    }
    found
}

/// Predicts the time of a program on a target, with so many threads and these sizes of symbols.
pub fn predict(
    staged: &Staged,
    profile: &Profile,
    threads: usize,
    sizes: &HashMap<String, i64>,
) -> Predicted {
    let plans = staged.plans();
    let number = |dim: &Dim| dim.eval(&|name| sizes.get(name).copied()).ok().map(|size| size.max(0) as f64);
    let touched: f64 = plans.iter().map(|plan| footprint(plan, &number)).sum();
    let cores = threads.min(profile.cores as usize).max(1) as f64;
    let faster = match touched {
        bytes if bytes <= profile.l2_bytes as f64 => IN_SECOND_LEVEL,
        bytes if bytes <= profile.l3_bytes as f64 => IN_LAST_LEVEL,
        _ => 1.0,
    };
    let machine = Machine {
        peak: profile.peak_flops as f64 * cores,
        lanes: f64::from((profile.vector_bits.min(128) / 32).max(1)),
        wide: if profile.vector_bits >= 512 { 4.0 } else { 1.0 },
        bandwidth: profile.bandwidth_bytes as f64 * cores * faster,
    };
    let mut found = Predicted::default();
    for plan in plans {
        add(&mut found, steps(&plan.steps, plan, &machine, &number));
    }
    for _ in staged.hosts() {
        add(&mut found, Predicted { ms: HOST_CALL * 1e3, calls: 1, ..Predicted::default() });
    }
    found
}

/// A target, as a roofline sees it.
struct Machine {
    peak: f64,
    /// Vectors of contractions in f32, in those of the peak.
    wide: f64,
    /// Lanes of f32.
    lanes: f64,
    bandwidth: f64,
}

type Number<'a> = dyn Fn(&Dim) -> Option<f64> + 'a;

fn add(sum: &mut Predicted, other: Predicted) {
    sum.ms += other.ms;
    sum.calls += other.calls;
    sum.operations += other.operations;
    sum.bytes += other.bytes;
    sum.unknown += other.unknown;
}

/// Bytes of all buffers that are not scratch of one step.
fn footprint(plan: &Plan, number: &Number<'_>) -> f64 {
    (0..plan.buffers.len()).filter_map(|buffer| bytes_of(plan, buffer, number)).sum()
}

fn bytes_of(plan: &Plan, buffer: BufferId, number: &Number<'_>) -> Option<f64> {
    let buffer = plan.buffers.get(buffer)?;
    Some(number(&buffer.elements)? * buffer.dtype.size_bytes() as f64)
}

fn steps(steps_: &[Step], plan: &Plan, machine: &Machine, number: &Number<'_>) -> Predicted {
    let mut sum = Predicted::default();
    for step in steps_ {
        let one = match step {
            Step::Call(call) => match work(call, plan, machine, number) {
                Some((seconds, operations, bytes)) => {
                    let seconds = seconds.max(bytes / machine.bandwidth) + CALL;
                    Predicted { ms: seconds * 1e3, calls: 1, operations, bytes, unknown: 0 }
                }
                None => Predicted { ms: CALL * 1e3, calls: 1, unknown: 1, ..Predicted::default() },
            },
            Step::Host(host) => {
                let operands = host.inputs.iter().flatten().chain(&host.outputs);
                let bytes: Option<f64> = operands.map(|(buffer, _)| bytes_of(plan, *buffer, number)).sum();
                let seconds = HOST_CALL + 10.0 * bytes.unwrap_or(0.0) / machine.bandwidth;
                let unknown = usize::from(bytes.is_none());
                Predicted {
                    ms: seconds * 1e3,
                    calls: 1,
                    bytes: bytes.unwrap_or(0.0),
                    operations: 0.0,
                    unknown,
                }
            }
            Step::If { then_steps, else_steps, .. } => {
                let branches = [then_steps, else_steps].map(|branch| steps(branch, plan, machine, number));
                let [first, second] = branches;
                if second.ms > first.ms { second } else { first }
            }
        };
        add(&mut sum, one);
    }
    sum
}

/// Seconds of computing, operations and bytes of a call; `None` if a size is not known.
fn work(call: &Call, plan: &Plan, machine: &Machine, number: &Number<'_>) -> Option<(f64, f64, f64)> {
    let buffers: BTreeSet<BufferId> = call.args.iter().copied().collect();
    let mut bytes = 0.0;
    for buffer in buffers {
        bytes += bytes_of(plan, buffer, number)?;
    }
    let kernel = plan.kernels.get(call.kernel)?;
    let (seconds, operations, packed) = computing(kernel, &call.args, &call.params, plan, machine, number)?;
    Some((seconds, operations, bytes + packed))
}

/// Seconds of computing, operations, and bytes of packed operands that an outline does not hold.
fn computing(
    kernel: &KernelDesc,
    args: &[BufferId],
    params: &[Dim],
    plan: &Plan,
    machine: &Machine,
    number: &Number<'_>,
) -> Option<(f64, f64, f64)> {
    let size = |size: &Size| match size {
        Size::Const(value) => Some((*value).max(0) as f64),
        Size::Param(at) => number(params.get(*at)?),
    };
    let product = |sizes: &[Size]| sizes.iter().try_fold(1.0, |product, dim| Some(product * size(dim)?));
    match kernel {
        KernelDesc::Contract(kernel) => {
            let [batch, m, n, k] =
                [product(&kernel.batch)?, size(&kernel.m)?, size(&kernel.n)?, size(&kernel.k)?];
            let results = batch * m * n;
            let products = 2.0 * results * k;
            let after = results * operations(kernel.epilogue.nodes());
            let rate = machine.peak
                * CONTRACTION
                * if kernel.accumulator == DType::F32 { machine.wide } else { 2.0 }
                * if kernel.tiles.is_some_and(|tiles| m >= tiles.least_rows as f64) { TILES } else { 1.0 };
            let held = |arg: usize| args.get(arg).and_then(|buffer| bytes_of(plan, *buffer, number));
            let packed = packed_bytes(kernel, &held, [batch, m, n, k]);
            Some((products / rate + after / (machine.peak / 2.0), products + after, packed))
        }
        KernelDesc::Loop(kernel) => {
            let outer = product(&kernel.outer)?;
            let mut sum = 0.0;
            for stage in &kernel.stages {
                let reduced = stage.reductions.len() as f64;
                sum += product(&stage.inner)? * (operations(stage.dag.nodes()) + reduced);
            }
            Some((outer * sum / rate(kernel, machine), outer * sum, 0.0))
        }
        KernelDesc::Composite(kernel) => {
            let mut sum = (0.0, 0.0, 0.0);
            for part in &kernel.parts {
                let (args, params) = (args.get(part.args..)?, params.get(part.params..)?);
                let one = computing(plan.kernels.get(part.kernel)?, args, params, plan, machine, number)?;
                sum = (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2);
            }
            Some(sum)
        }
    }
}

/// Operations a second of a loop kernel.
fn rate(kernel: &LoopKernel, machine: &Machine) -> f64 {
    match kernel.vectorize {
        Vectorize::Outer | Vectorize::Inner => machine.peak / 2.0,
        Vectorize::No => machine.peak / 2.0 / machine.lanes,
    }
}

/// Bytes of packed operands that are not held; `held` is how many bytes an argument has.
fn packed_bytes(
    kernel: &ContractKernel,
    held: &dyn Fn(usize) -> Option<f64>,
    [batch, m, n, k]: [f64; 4],
) -> f64 {
    let of = |operand: &Operand, across: f64| match operand {
        Operand::Packed { arg, batch: strides } => {
            let one = if strides.iter().all(|stride| *stride == Size::Const(0)) { 1.0 } else { batch };
            let size = kernel.args.get(*arg).map_or(4, |arg| arg.dtype.size_bytes()) as f64;
            if held(*arg).unwrap_or(0.0) > 0.0 { 0.0 } else { one * across * k * size }
        }
        Operand::Strided { .. } | Operand::Patches(_) => 0.0,
    };
    of(&kernel.a, m) + of(&kernel.b, n)
}

/// Operations of a DAG for one element.
fn operations(nodes: &[ExprNode]) -> f64 {
    let one = |node: &ExprNode| match &node.expr {
        Expr::Const(_) | Expr::Size(_) | Expr::Index(_) | Expr::Reduced(_) | Expr::Accumulator => 0.0,
        Expr::Load { .. } | Expr::Select(..) | Expr::Cast(_) | Expr::Bitcast(_) => 1.0,
        Expr::CheckIndex { .. } | Expr::MulAdd(..) => 2.0,
        Expr::Unary(function, _) => match function {
            UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Not | UnaryFn::IsNaN => 1.0,
            UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round | UnaryFn::RoundF16 | UnaryFn::RoundBF16 => 4.0,
            UnaryFn::Sqrt | UnaryFn::Reciprocal => DIVISION,
            _ => FUNCTION,
        },
        Expr::Binary(function, _, _) => match function {
            BinaryFn::Div | BinaryFn::Rem => DIVISION,
            BinaryFn::Pow => 2.0 * FUNCTION,
            _ => 1.0,
        },
    };
    nodes.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;
    use rabot_kernel::outline;

    fn predicted(text: &str, threads: usize) -> Predicted {
        let graph = parse(text).unwrap();
        let profile = Profile::by_name("x86-64-v3").unwrap();
        let sizes = HashMap::from([("n".to_owned(), 64)]);
        predict(&outline(&graph, &profile).unwrap(), &profile, threads, &sizes)
    }

    const PRODUCT: &str = "model \"m\" input %0 \"x\" : f32[n,512] input %1 \"w\" : f32[512,1024]
        %2 = MatMul(%0, %1) output \"y\" = %2";

    #[test]
    fn products_are_bound_by_operations_and_sums_by_bytes() {
        let product = predicted(PRODUCT, 1);
        assert_eq!((product.calls, product.unknown), (1, 0));
        let products = 2.0 * 64.0 * 512.0 * 1024.0;
        assert!((products..1.1 * products).contains(&product.operations), "{product:?}");
        let least = products / 48e9 * 1e3;
        assert!((least..2.0 * least).contains(&product.ms), "{product:?}");
        assert!(predicted(PRODUCT, 4).ms < 0.5 * product.ms);
        let sum =
            predicted("model \"m\" input %0 \"x\" : f32[n,262144] %1 = Add(%0, %0) output \"y\" = %1", 1);
        let bytes = 2.0 * 4.0 * 64.0 * 262144.0;
        assert_eq!(sum.bytes, bytes);
        assert!((sum.ms - (bytes / 10e9 * 1e3)).abs() < 0.01, "{sum:?}");
    }

    #[test]
    fn sizes_that_nobody_knows_are_told() {
        let found = predicted(&PRODUCT.replace("f32[n,", "f32[k,"), 1);
        assert_eq!((found.calls, found.unknown), (1, 1));
    }
}
