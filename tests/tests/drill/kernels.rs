//! Faults of kernels: plans that are changed before code is made of them.

use super::plant::{Model, Row, row, search};
use rabot_debug::bisect::{Check, KernelCulprit};
use rabot_ir::Graph;
use rabot_kernel::{Dag, Expr, KernelDesc, Plan, Size, Staged, Step, UnaryFn, Work};
use rabot_passes::{DEFAULT_PIPELINE, pipeline};
use rabot_rewrite::PassCx;
use rabot_target::Profile;
use std::sync::Arc;

/// Makes a kernel wrong; false if there is nothing to make wrong.
pub type KernelFault = fn(&mut KernelDesc) -> bool;

/// The faults of kernels, by name.
pub const KERNELS: [(&str, KernelFault); 7] = [
    ("wrong extent", |kernel| match kernel {
        KernelDesc::Loop(kernel) => kernel.outer.last_mut().is_some_and(less),
        KernelDesc::Contract(kernel) => less(&mut kernel.k),
        KernelDesc::Composite(_) => false,
    }),
    ("wrong tail", |kernel| match kernel {
        KernelDesc::Loop(kernel) => {
            kernel.stages.last_mut().and_then(|stage| stage.inner.last_mut()).is_some_and(less)
        }
        KernelDesc::Contract(kernel) => less(&mut kernel.n),
        KernelDesc::Composite(_) => false,
    }),
    ("wrong stride of a store", |kernel| match kernel {
        KernelDesc::Loop(kernel) => {
            let store = kernel.stages.iter_mut().flat_map(|stage| stage.stores.last_mut()).last();
            store.is_some_and(|store| store.access.strides.iter_mut().any(|(_, size)| less(size)))
        }
        KernelDesc::Contract(kernel) => kernel
            .stores
            .last_mut()
            .is_some_and(|store| store.access.strides.iter_mut().any(|(_, size)| less(size))),
        KernelDesc::Composite(_) => false,
    }),
    ("reduction left out", |kernel| match kernel {
        KernelDesc::Loop(kernel) => kernel
            .stages
            .first_mut()
            .is_some_and(|stage| !stage.reductions.is_empty() && stage.inner.last_mut().is_some_and(less)),
        _ => false,
    }),
    ("missing rows", |kernel| match kernel {
        KernelDesc::Contract(kernel) => less(&mut kernel.m),
        _ => false,
    }),
    ("approximated exp", |kernel| match kernel {
        KernelDesc::Loop(kernel) => kernel.stages.iter_mut().any(|stage| approximated(&mut stage.dag)),
        KernelDesc::Contract(kernel) => approximated(&mut kernel.epilogue),
        KernelDesc::Composite(_) => false,
    }),
    ("short sum", |kernel| match kernel {
        KernelDesc::Contract(kernel) => less(&mut kernel.k) && less(&mut kernel.k),
        _ => false,
    }),
];

/// Puts 1 / (1 + exp(-x)), which is near exp(x) for negative x, in its place.
fn approximated(dag: &mut Dag) -> bool {
    let (mut other, mut changed) = (Dag::default(), false);
    for (at, node) in dag.nodes().iter().enumerate() {
        let expr = match node.expr.clone() {
            Expr::Unary(UnaryFn::Exp, x) => {
                changed = true;
                Expr::Unary(UnaryFn::Sigmoid, x)
            }
            expr => expr,
        };
        if other.push(expr, node.dtype) != at {
            return false;
        }
    }
    if changed {
        *dag = other;
    }
    changed
}

fn less(size: &mut Size) -> bool {
    match size {
        Size::Const(number) if *number > 1 => {
            *number -= 1;
            true
        }
        _ => false,
    }
}

/// The first plan of a program.
fn plan(staged: &mut Staged) -> Option<&mut Plan> {
    staged.stages.iter_mut().find_map(|stage| match &mut stage.work {
        Work::Kernels(plan) => Some(&mut **plan),
        Work::Host(_) => None,
    })
}

/// Plants each of the faults in up to `places` kernels of a model, after the default pipeline.
pub fn kernel_faults(model: &Model, faults: &[(&str, KernelFault)], places: usize, rows: &mut Vec<Row>) {
    let pipeline = pipeline(DEFAULT_PIPELINE).unwrap();
    let mut graph = model.graph.clone();
    pipeline.run(&mut graph, &PassCx::default(), &mut |_, _| {}).unwrap();
    let mut staged = rabot_kernel::stages(&graph, &Profile::host().unwrap()).unwrap();
    let Some(plan) = plan(&mut staged) else { return };
    for (name, fault) in faults {
        let mut planted = 0;
        for at in 0..plan.kernels.len() {
            let right = plan.kernels[at].clone();
            let writes = written(plan, at);
            if !writes.iter().any(|name| can_be_told(&graph, name))
                || planted == places
                || !fault(&mut right.clone())
            {
                continue;
            }
            // Only the same kernel is made wrong: trials have other plans.
            let fault = *fault;
            let edit = move |staged: &mut Staged| {
                let Some(plan) = self::plan(staged) else { return };
                for kernel in plan.kernels.iter_mut().filter(|kernel| **kernel == right) {
                    fault(kernel);
                }
            };
            let Ok(found) = search(model, &pipeline, &Check::Tolerance, Some(&edit)) else { continue };
            if !found.fails {
                continue;
            }
            planted += 1;
            let kernel = &plan.kernel_names[at];
            let among =
                |culprit: &KernelCulprit| culprit.kernel == *kernel && writes.contains(&culprit.value);
            let named = found.rewrites.is_empty() && found.kernels.first().is_some_and(among);
            let missed = (!named).then(|| {
                let told = |culprit: &KernelCulprit| format!("{} of {}", culprit.value, culprit.kernel);
                let kernels: Vec<String> = found.kernels.iter().map(told).collect();
                format!("found {kernels:?}, not {kernel}")
            });
            rows.push(row(name, model, writes.join(" "), missed, &found));
        }
    }
}

/// True for values of the graph and copies of a node's operand; what calls for filling a border or for spreading an
/// operand over more elements write is neither.
fn can_be_told(graph: &Graph, name: &str) -> bool {
    let mut outputs = graph.node_ids().flat_map(|id| &graph.node(id).outputs);
    name.ends_with(" (padded)") || name.ends_with(" (spread)") || outputs.any(|output| *output.name == *name)
}

/// The values that a kernel writes, by their own names.
fn written(plan: &Plan, kernel: usize) -> Vec<String> {
    let own = |shown: &Arc<str>| plan.forms.get(shown).map_or(shown, |form| &form.name).to_string();
    let mut written = Vec::new();
    for step in &plan.steps {
        let Step::Call(call) = step else { continue };
        let writers = plan.writers(call).into_iter().zip(&call.values);
        written.extend(writers.filter(|(writer, _)| *writer == kernel).map(|(_, shown)| own(shown)));
    }
    written
}
