//! Compiling a graph and taking its time.

use crate::{DebugError, Tensors};
use rabot_ir::Graph;
use rabot_kernel::Step;
use rabot_runtime::{Program, Session};
use rabot_target::Profile;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Runs until this much time has passed.
const TIME: Duration = Duration::from_millis(4);
/// Fewest runs, unless they take so much time together: the median of slow runs is steady.
const MIN_RUNS: usize = 3;
const MOST_TIME: Duration = Duration::from_millis(250);
const MAX_RUNS: usize = 1000;

fn more(runs: usize, elapsed: Duration) -> bool {
    match runs {
        0 => true,
        runs if runs < MIN_RUNS => elapsed < MOST_TIME,
        runs => elapsed < TIME && runs < MAX_RUNS,
    }
}

/// What compiling and running a graph took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// Planning and making code, in milliseconds.
    pub compile_ms: f64,
    /// Median of the runs, in milliseconds.
    pub median_ms: f64,
    /// Number of runs.
    pub runs: usize,
    /// Calls of kernels and host functions in a run.
    pub kernels: usize,
}

/// Calls of kernels and host functions, both branches of conditionals and one round of each loop counted.
pub fn count_kernels(program: &Program) -> usize {
    fn count_steps(steps: &[Step]) -> usize {
        let count = |step: &Step| match step {
            Step::Call(_) | Step::Host(_) => 1,
            Step::If { then_steps, else_steps, .. } => count_steps(then_steps) + count_steps(else_steps),
        };
        steps.iter().map(count).sum()
    }
    program.plans().map(|plan| count_steps(&plan.steps)).sum::<usize>() + program.host_stages()
}

/// Compiles a graph.
///
/// **Errors**: it cannot be planned or compiled.
pub(crate) fn compile(graph: &Graph, profile: &Profile) -> Result<Program, DebugError> {
    Ok(Program::new(rabot_kernel::stages(graph, profile)?, profile)?)
}

/// Compiles a graph and runs it until the median of its time is known.
///
/// **Errors**: it cannot be compiled, or not be run on these inputs.
pub fn measure(
    graph: &Graph,
    profile: &Profile,
    threads: usize,
    inputs: &Tensors,
) -> Result<Measured, DebugError> {
    let start = Instant::now();
    let program = compile(graph, profile)?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    let session = Session::with_threads(&program, threads)?;
    session.run_with(inputs, &mut |_, _| {})?;
    timed(&session, compile_ms, inputs)
}

/// Runs a session, which has run once on these inputs, until the median of its time is known.
///
/// **Errors**: it cannot be run on these inputs.
pub(crate) fn timed(session: &Session, compile_ms: f64, inputs: &Tensors) -> Result<Measured, DebugError> {
    let mut times = Vec::new();
    let start = Instant::now();
    while more(times.len(), start.elapsed()) {
        let run = Instant::now();
        session.run_with(inputs, &mut |_, _| {})?;
        times.push(run.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let median_ms = times.get(times.len() / 2).copied().unwrap_or(0.0);
    Ok(Measured { compile_ms, median_ms, runs: times.len(), kernels: count_kernels(session.program()) })
}
