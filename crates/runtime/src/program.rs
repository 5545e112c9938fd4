//! Programs: compiled plans, ready to be run by any number of sessions.

use rabot_codegen::{CodegenError, JitProgram, compile_jit};
use rabot_ir::Dim;
use rabot_kernel::{Plan, Step};
use rabot_target::Profile;
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

/// A compiled plan. Cloning shares it; it is `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub plan: Plan,
    pub code: JitProgram,
    pub profile: Profile,
    pub numbers: Numbers,
    /// Elements of each buffer.
    pub elements: Vec<Number>,
    /// One entry per call, in the order of a walk through the steps.
    pub calls: Vec<CallNumbers>,
}

impl Program {
    /// Compiles a plan for this machine.
    ///
    /// **Errors**: the profile does not fit this machine, or a kernel cannot be compiled.
    pub fn new(plan: Plan, profile: &Profile) -> Result<Program, CodegenError> {
        let code = compile_jit(&plan, profile)?;
        let mut numbers = Numbers::default();
        let elements = plan.buffers.iter().map(|b| numbers.intern(&b.elements)).collect();
        let mut calls = Vec::new();
        intern_calls(&plan.steps, &mut numbers, &mut calls);
        let profile = profile.clone();
        Ok(Program { inner: Arc::new(Inner { plan, code, profile, numbers, elements, calls }) })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.inner.plan
    }

    /// The target that it was compiled for.
    pub fn profile(&self) -> &Profile {
        &self.inner.profile
    }

    /// Size of the machine code in bytes.
    pub fn code_bytes(&self) -> usize {
        self.inner.code.code_bytes()
    }
}

fn intern_calls(steps: &[Step], numbers: &mut Numbers, calls: &mut Vec<CallNumbers>) {
    for step in steps {
        match step {
            Step::Call(call) => calls.push(CallNumbers {
                params: call.params.iter().map(|dim| numbers.intern(dim)).collect(),
                items: numbers.intern(&call.items),
                scratch_bytes: numbers.intern(&call.scratch_bytes),
                flops: numbers.intern(&call.flops),
            }),
            Step::Host(_) => {}
            Step::If { then_steps, else_steps, .. } => {
                intern_calls(then_steps, numbers, calls);
                intern_calls(else_steps, numbers, calls);
            }
        }
    }
}
