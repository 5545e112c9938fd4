//! Programs: compiled plans, ready to be run by any number of sessions.

use rabot_codegen::{CodegenError, JitProgram, compile_jit};
use rabot_ir::Dim;
use rabot_kernel::{Call, HostStage, Plan, StagePort, Staged, Step, Work};
use rabot_target::Profile;
use rabot_tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// An integer of a run: known, or computed from the dims of the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// Known when the program was compiled.
    Known(i64),
    /// Entry of the table of dim expressions.
    Computed(usize),
}

/// The distinct dim expressions of a plan. A run evaluates each once.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// The expressions.
    pub dims: Vec<Dim>,
    ids: HashMap<Dim, usize>,
}

impl Numbers {
    /// The number that a dim is.
    pub fn intern(&mut self, dim: &Dim) -> Number {
        if let Some(value) = dim.as_const() {
            return Number::Known(value);
        }
        if let Some(&id) = self.ids.get(dim) {
            return Number::Computed(id);
        }
        self.dims.push(dim.clone());
        self.ids.insert(dim.clone(), self.dims.len() - 1);
        Number::Computed(self.dims.len() - 1)
    }
}

/// A call with its numbers interned.
#[derive(Debug)]
pub(crate) struct CallNumbers {
    pub params: Vec<Number>,
    pub items: Number,
    pub scratch_bytes: Number,
    pub flops: Number,
}

/// A compiled program. Cloning shares it; it is `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// What is done with the values of a run.
    pub stages: Stages,
    /// The compiled plans.
    pub leaves: Vec<Leaf>,
    /// True if the program is its only plan.
    pub is_single: bool,
    pub profile: Profile,
}

/// A compiled plan.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub plan: Plan,
    pub code: JitProgram,
    pub numbers: Numbers,
    /// Elements of each buffer.
    pub elements: Vec<Number>,
    /// One entry per call: those that are made once, then in the order of a walk through the steps.
    pub calls: Vec<CallNumbers>,
}

/// A [`Staged`] whose plans are compiled.
#[derive(Debug)]
pub(crate) struct Stages {
    pub inputs: Vec<StagePort>,
    pub outputs: Vec<StagePort>,
    pub slots: usize,
    pub constants: Vec<(usize, Tensor)>,
    pub steps: Vec<RunStep>,
}

/// A stage.
#[derive(Debug)]
pub(crate) struct RunStep {
    pub work: RunWork,
    pub inputs: Vec<Option<usize>>,
    pub outputs: Vec<usize>,
    pub frees: Vec<usize>,
}

/// What a stage does.
#[derive(Debug)]
pub(crate) enum RunWork {
    /// Runs the compiled plan with this index.
    Kernels(usize),
    /// Evaluates a node, whose nested graphs are programs.
    Host(Box<HostStage>, Vec<Stages>),
}

impl Program {
    /// Compiles a plan for this machine.
    ///
    /// **Errors**: the profile does not fit this machine, or a kernel cannot be compiled.
    pub fn new(staged: Staged, profile: &Profile) -> Result<Program, CodegenError> {
        let is_single = staged.single().is_some();
        let mut leaves = Vec::new();
        let stages = compile(staged, profile, &mut leaves)?;
        let profile = profile.clone();
        Ok(Program { inner: Arc::new(Inner { stages, leaves, is_single, profile }) })
    }

    /// The plans, in order.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.inner.leaves.iter().map(|leaf| &leaf.plan)
    }

    /// Number of nodes that run on the host between plans, those of nested graphs included.
    pub fn host_stages(&self) -> usize {
        fn count(stages: &Stages) -> usize {
            let one = |step: &RunStep| match &step.work {
                RunWork::Kernels(_) => 0,
                RunWork::Host(_, regions) => 1 + regions.iter().map(count).sum::<usize>(),
            };
            stages.steps.iter().map(one).sum()
        }
        count(&self.inner.stages)
    }

    /// The only plan, if the program is one.
    pub(crate) fn single(&self) -> Option<&Leaf> {
        self.inner.leaves.first().filter(|_| self.inner.is_single)
    }

    /// The target that it was compiled for.
    pub fn profile(&self) -> &Profile {
        &self.inner.profile
    }

    /// Size of the machine code in bytes.
    pub fn code_bytes(&self) -> usize {
        self.inner.leaves.iter().map(|leaf| leaf.code.code_bytes()).sum()
    }
}

fn compile(staged: Staged, profile: &Profile, leaves: &mut Vec<Leaf>) -> Result<Stages, CodegenError> {
    let mut steps = Vec::with_capacity(staged.stages.len());
    for step in staged.stages {
        let work = match step.work {
            Work::Kernels(plan) => {
                leaves.push(Leaf::new(*plan, profile)?);
                RunWork::Kernels(leaves.len() - 1)
            }
            Work::Host(mut host) => {
                let regions = std::mem::take(&mut host.regions).into_iter();
                let regions = regions.map(|region| compile(region, profile, leaves));
                let regions = regions.collect::<Result<_, _>>()?;
                RunWork::Host(host, regions)
            }
        };
        steps.push(RunStep { work, inputs: step.inputs, outputs: step.outputs, frees: step.frees });
    }
    let Staged { inputs, outputs, slots, constants, .. } = staged;
    Ok(Stages { inputs, outputs, slots, constants, steps })
}

impl Leaf {
    fn new(plan: Plan, profile: &Profile) -> Result<Self, CodegenError> {
        let code = compile_jit(&plan, profile)?;
        let mut numbers = Numbers::default();
        let elements = plan.buffers.iter().map(|b| numbers.intern(&b.elements)).collect();
        let mut calls = Vec::new();
        calls.extend(plan.init.iter().map(|call| intern_call(call, &mut numbers)));
        intern_calls(&plan.steps, &mut numbers, &mut calls);
        Ok(Leaf { plan, code, numbers, elements, calls })
    }
}

fn intern_call(call: &Call, numbers: &mut Numbers) -> CallNumbers {
    CallNumbers {
        params: call.params.iter().map(|dim| numbers.intern(dim)).collect(),
        items: numbers.intern(&call.items),
        scratch_bytes: numbers.intern(&call.scratch_bytes),
        flops: numbers.intern(&call.flops),
    }
}

fn intern_calls(steps: &[Step], numbers: &mut Numbers, calls: &mut Vec<CallNumbers>) {
    for step in steps {
        match step {
            Step::Call(call) => calls.push(intern_call(call, numbers)),
            Step::Host(_) => {}
            Step::If { then_steps, else_steps, .. } => {
                intern_calls(then_steps, numbers, calls);
                intern_calls(else_steps, numbers, calls);
            }
        }
    }
}
