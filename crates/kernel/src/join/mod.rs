//! Joining: calls that one kernel of several parts can do.
//!
//! After lowering, the list of steps is cut at host steps and conditionals; within each piece, calls become *chains*
//! (a product, the softmax over it and the product with that: one after the other for each head) and, after that,
//! calls that do not depend on each other are put *side by side*. Steps move only where no call between them touches
//! the same elements of a buffer; this is done before buffers have places in memory.

mod build;
mod chain;
mod order;
mod region;
mod rows;
mod side;

use crate::{BufferId, KernelDesc, Plan, Step};
use build::Registry;
use order::Piece;
use std::collections::HashMap;

/// Joins the calls of a plan. `ids` are the numbers of its kernels.
pub(crate) fn join(plan: &mut Plan, ids: &mut HashMap<KernelDesc, usize>, target: &str) {
    let steps = std::mem::take(&mut plan.steps);
    let mut uses = HashMap::new();
    count_uses(&steps, &mut uses);
    let mut registry = Registry { plan, ids, target, uses };
    let steps = join_steps(steps, &mut registry);
    plan.steps = steps;
}

/// Counts how often steps touch each buffer.
fn count_uses(steps: &[Step], uses: &mut HashMap<BufferId, usize>) {
    let mut touch = |buffer: BufferId| *uses.entry(buffer).or_insert(0) += 1;
    for step in steps {
        match step {
            Step::Call(call) => call.args.iter().for_each(|&buffer| touch(buffer)),
            Step::Host(call) => {
                call.inputs.iter().flatten().chain(&call.outputs).for_each(|(buffer, _)| touch(*buffer));
            }
            Step::If { condition, .. } => touch(*condition),
        }
    }
    for step in steps {
        if let Step::If { then_steps, else_steps, .. } = step {
            count_uses(then_steps, uses);
            count_uses(else_steps, uses);
        }
    }
}

fn join_steps(steps: Vec<Step>, registry: &mut Registry<'_>) -> Vec<Step> {
    let (mut done, mut calls) = (Vec::with_capacity(steps.len()), Vec::new());
    for step in steps {
        let step = match step {
            Step::Call(call) => {
                calls.push(call);
                continue;
            }
            Step::Host(call) => Step::Host(call),
            Step::If { condition, then_steps, else_steps } => Step::If {
                condition,
                then_steps: join_steps(then_steps, registry),
                else_steps: join_steps(else_steps, registry),
            },
        };
        join_calls(std::mem::take(&mut calls), registry, &mut done);
        done.push(step);
    }
    join_calls(calls, registry, &mut done);
    done
}

fn join_calls(calls: Vec<crate::Call>, registry: &mut Registry<'_>, done: &mut Vec<Step>) {
    if calls.len() < 2 {
        done.extend(calls.into_iter().map(Step::Call));
        return;
    }
    let mut piece = Piece::new(calls, registry.plan);
    chain::find(&mut piece, registry.plan);
    for set in side::find(&piece) {
        done.push(Step::Call(registry.side(&piece, &set)));
    }
}
