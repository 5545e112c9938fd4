//! The plan under construction: buffers, constants, kernels and steps.

use super::Target;
use super::frame::Frame;
use super::padding::Border;
use super::view::View;
use crate::{
    Buffer, BufferId, Call, Check, Constant, ContractKernel, Form, KernelDesc, LoopKernel, PackError, Plan,
    Step, Storage,
};
use bytes::Bytes;
use rabot_ir::Dim;
use rabot_target::Profile;
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Which source nodes and values a call stands for.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Source nodes.
    pub sources: Vec<Arc<str>>,
    /// Values written, in the order in which their buffers are first written.
    pub values: Vec<Arc<str>>,
    /// Where those values are that are not row-major.
    pub forms: Vec<(Arc<str>, Form)>,
    /// Operations of the whole call.
    pub flops: Dim,
}

/// A plan being built; shared by the main graph and the branches of conditionals.
pub(super) struct Builder<'p> {
    /// The machine.
    pub profile: &'p Profile,
    /// Whether weights are packed.
    pack: bool,
    /// What is finished so far.
    pub plan: Plan,
    kernel_ids: HashMap<KernelDesc, usize>,
    /// Constants by address and length, so that data shared in the graph is shared here.
    constant_ids: HashMap<(usize, usize, DType), BufferId>,
    /// The list that steps are added to; nested lists are swapped in and out.
    pub(super) steps: Vec<Step>,
    /// Buffers with padding around what steps write.
    pub(super) borders: HashMap<BufferId, Border>,
}

impl<'p> Builder<'p> {
    pub fn new(name: &str, target: Target<'p>) -> Self {
        let plan = Plan {
            name: name.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            buffers: Vec::new(),
            constants: Vec::new(),
            kernels: Vec::new(),
            kernel_names: Vec::new(),
            init: Vec::new(),
            steps: Vec::new(),
            checks: Vec::new(),
            symbols: Vec::new(),
            forms: HashMap::new(),
        };
        let Target { profile, pack } = target;
        let (kernel_ids, constant_ids) = (HashMap::new(), HashMap::new());
        Builder { profile, pack, plan, kernel_ids, constant_ids, steps: Vec::new(), borders: HashMap::new() }
    }

    /// Packed weights, or nothing if they are not asked for.
    ///
    /// **Errors**: they cannot be packed.
    pub fn pack(&self, pack: impl FnOnce() -> Result<Bytes, PackError>) -> Result<Bytes, PackError> {
        if self.pack { pack() } else { Ok(Bytes::new()) }
    }

    /// A new buffer.
    pub fn buffer(&mut self, storage: Storage, dtype: DType, elements: Dim) -> BufferId {
        self.plan.buffers.push(Buffer { storage, dtype, elements });
        self.plan.buffers.len() - 1
    }

    /// A new arena buffer; its life is found when the plan is finished.
    pub fn arena(&mut self, dtype: DType, shape: &[Dim]) -> View {
        let storage = Storage::Arena { first: usize::MAX, last: 0 };
        let buffer = self.buffer(storage, dtype, shape.iter().product());
        View::dense(buffer, dtype, shape)
    }

    /// The buffer of a constant tensor; the data is shared.
    pub fn constant(&mut self, tensor: &Tensor) -> BufferId {
        let key = (tensor.bytes().as_ptr() as usize, tensor.bytes().len(), tensor.dtype());
        if let Some(&buffer) = self.constant_ids.get(&key) {
            return buffer;
        }
        let buffer = self.packed(tensor.shared_bytes(), tensor.dtype());
        self.constant_ids.insert(key, buffer);
        buffer
    }

    /// The buffer of data made at compile time.
    pub fn packed(&mut self, bytes: Bytes, dtype: DType) -> BufferId {
        let elements = Dim::from(bytes.len() / dtype.size_bytes().max(1));
        self.plan.constants.push(Constant { bytes, dtype });
        self.buffer(Storage::Constant(self.plan.constants.len() - 1), dtype, elements)
    }

    /// States that two dims must be equal in a run.
    pub fn check(&mut self, left: &Dim, right: &Dim, node: &str) {
        let known = |c: &Check| c.left == *left && c.right == *right;
        if left != right && !self.plan.checks.iter().any(known) {
            let (left, right) = (left.clone(), right.clone());
            self.plan.checks.push(Check { left, right, node: node.to_owned() });
        }
    }

    /// Adds a call of a loop kernel.
    pub fn call_loop(&mut self, kernel: LoopKernel, frame: Frame, items: Dim, origin: Origin) {
        self.call(KernelDesc::Loop(kernel), frame, items, Dim::from(0), origin);
    }

    /// Adds a call of a contraction.
    pub fn call_contract(
        &mut self,
        kernel: ContractKernel,
        frame: Frame,
        items: Dim,
        scratch_bytes: Dim,
        origin: Origin,
    ) {
        self.call(KernelDesc::Contract(kernel), frame, items, scratch_bytes, origin);
    }

    fn call(&mut self, desc: KernelDesc, frame: Frame, items: Dim, scratch_bytes: Dim, origin: Origin) {
        let kernel = match self.kernel_ids.get(&desc) {
            Some(&id) => id,
            None => {
                self.plan.kernel_names.push(super::name::kernel_name(&desc, self.profile));
                self.plan.kernels.push(desc.clone());
                self.kernel_ids.insert(desc, self.plan.kernels.len() - 1);
                self.plan.kernels.len() - 1
            }
        };
        let Origin { sources, values, forms, flops } = origin;
        self.plan.forms.extend(forms);
        let (args, params) = (frame.buffers, frame.params);
        self.step(Step::Call(Call {
            kernel,
            args,
            params,
            items,
            scratch_bytes,
            sources,
            parts: vec![],
            flops,
            values,
        }));
    }

    /// Adds a step.
    pub fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Collects the steps that `build` adds into a list of their own.
    pub fn nested<E>(&mut self, build: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<Vec<Step>, E> {
        let outer = std::mem::take(&mut self.steps);
        let result = build(self);
        let nested = std::mem::replace(&mut self.steps, outer);
        result.map(|()| nested)
    }

    /// The finished plan: steps in place and the life of each arena buffer known.
    pub fn finish(mut self) -> Plan {
        self.plan.steps = std::mem::take(&mut self.steps);
        crate::join::join(&mut self.plan, &mut self.kernel_ids, &self.profile.name);
        let mut number = 0;
        touch_steps(&self.plan.steps, &mut number, &mut self.plan.buffers);
        self.finish_borders();
        self.plan
    }
}

/// Numbers the steps and widens the life of every buffer they touch.
fn touch_steps(steps: &[Step], number: &mut usize, buffers: &mut [Buffer]) {
    for step in steps {
        let at = *number;
        *number += 1;
        let mut touch = |buffer: BufferId| {
            if let Storage::Arena { first, last } = &mut buffers[buffer].storage {
                *first = (*first).min(at);
                *last = (*last).max(at);
            }
        };
        match step {
            Step::Call(call) => call.args.iter().for_each(|&b| touch(b)),
            Step::Host(call) => {
                call.inputs.iter().flatten().for_each(|(b, _)| touch(*b));
                call.outputs.iter().for_each(|(b, _)| touch(*b));
            }
            Step::If { condition, then_steps, else_steps } => {
                touch(*condition);
                touch_steps(then_steps, number, buffers);
                touch_steps(else_steps, number, buffers);
            }
        }
    }
}
