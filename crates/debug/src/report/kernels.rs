//! The kernels of the last graph: what each computes, how long it takes, and its machine code.

use super::data::{CodeData, KernelData};
use super::recorder::Names;
use crate::{DebugError, Tensors};
use rabot_kernel::{Plan, Staged, Step, Work};
use rabot_runtime::{Program, Session};
use rabot_target::Profile;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Runs of which the median is taken.
const RUNS: usize = 5;
/// Assembly of a kernel is cut after this many lines.
const MAX_LINES: usize = 1500;
/// And that of all kernels after this many bytes.
const MAX_BYTES: usize = 6 << 20;

/// Compiles a graph, runs it, and lists its kernels.
///
/// **Errors**: it cannot be planned, compiled or run on these inputs.
pub(super) fn kernels(
    staged: &Staged,
    profile: &Profile,
    threads: usize,
    inputs: &Tensors,
    names: &mut Names,
) -> Result<(Vec<KernelData>, Vec<CodeData>), DebugError> {
    let program = Program::new(staged.clone(), profile)?;
    let session = Session::with_threads(&program, threads)?;
    let mut list =
        List { times: times(&session, inputs)?, profile, names, kernels: vec![], code: vec![], bytes: 0 };
    list.stages(staged)?;
    Ok((list.kernels, list.code))
}

/// Median time from a value to the one before it, in nanoseconds, by name of the value.
fn times(session: &Session, inputs: &Tensors) -> Result<HashMap<String, u64>, DebugError> {
    let mut all: HashMap<String, Vec<u64>> = HashMap::new();
    session.run(inputs)?;
    for _ in 0..RUNS {
        let mut last = Instant::now();
        session.run_observed(inputs, &mut |value| {
            let elapsed = last.elapsed().as_nanos() as u64;
            match all.get_mut(value.name) {
                Some(times) => times.push(elapsed),
                None => drop(all.insert(value.name.to_owned(), vec![elapsed])),
            }
            last = Instant::now();
        })?;
    }
    let median = |mut times: Vec<u64>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    Ok(all.into_iter().map(|(name, times)| (name, median(times))).collect())
}

struct List<'a> {
    times: HashMap<String, u64>,
    profile: &'a Profile,
    names: &'a mut Names,
    kernels: Vec<KernelData>,
    code: Vec<CodeData>,
    /// Bytes of assembly so far.
    bytes: usize,
}

impl List<'_> {
    fn stages(&mut self, staged: &Staged) -> Result<(), DebugError> {
        for stage in &staged.stages {
            match &stage.work {
                Work::Kernels(plan) => {
                    let mut known = HashMap::new();
                    self.steps(plan, &plan.steps, &mut known)?;
                }
                Work::Host(host) => {
                    let data = self.host(host.op.name(), &host.reason, &host.sources, &host.values);
                    self.kernels.push(data);
                    host.regions.iter().try_for_each(|region| self.stages(region))?;
                }
            }
        }
        Ok(())
    }

    fn steps(
        &mut self,
        plan: &Plan,
        steps: &[Step],
        known: &mut HashMap<usize, Option<usize>>,
    ) -> Result<(), DebugError> {
        for step in steps {
            let data = match step {
                Step::Call(call) => {
                    let code = match known.get(&call.kernel) {
                        Some(&code) => code,
                        None => self.assembly(plan, call.kernel)?,
                    };
                    known.insert(call.kernel, code);
                    let kind = plan.kernels.get(call.kernel).map_or("loop", |kernel| kernel.kind());
                    let name = plan.kernel_names.get(call.kernel).cloned().unwrap_or_default();
                    let mut data = self.host(&name, "", &call.sources, &call.values);
                    (data.kind, data.operations, data.code) = (kind.to_owned(), call.flops.to_string(), code);
                    data
                }
                Step::Host(call) => self.host(&call.op, &call.reason, &call.sources, &call.values),
                Step::If { then_steps, else_steps, .. } => {
                    self.steps(plan, then_steps, known)?;
                    self.steps(plan, else_steps, known)?;
                    continue;
                }
            };
            self.kernels.push(data);
        }
        Ok(())
    }

    /// A call on the host.
    fn host(&mut self, name: &str, reason: &str, sources: &[Arc<str>], values: &[Arc<str>]) -> KernelData {
        let times = values.iter().filter_map(|value| self.times.get(&**value));
        let time_ns = times.copied().reduce(|a, b| a + b);
        KernelData {
            name: name.to_owned(),
            kind: "host".to_owned(),
            sources: sources.iter().map(|name| self.names.number(name)).collect(),
            values: values.iter().map(|name| self.names.number(name)).collect(),
            operations: String::new(),
            time_ns,
            reason: reason.to_owned(),
            code: None,
        }
    }

    /// The place of a kernel's assembly; `None` once there is too much of it.
    fn assembly(&mut self, plan: &Plan, kernel: usize) -> Result<Option<usize>, DebugError> {
        if self.bytes > MAX_BYTES {
            return Ok(None);
        }
        let text = rabot_codegen::asm_text(plan, kernel, self.profile)?;
        let lines = text.lines().count();
        let mut assembly: String = text.lines().take(MAX_LINES).flat_map(|line| [line, "\n"]).collect();
        if lines > MAX_LINES {
            assembly.push_str(&format!("... and {} more lines\n", lines - MAX_LINES));
        }
        self.bytes += assembly.len();
        self.code.push(CodeData { lines, assembly });
        Ok(Some(self.code.len() - 1))
    }
}
