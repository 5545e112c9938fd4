//! Binding: the sizes, offsets and addresses of a run, for the shapes of its inputs.
//!
//! It is done once for each set of input shapes and kept; a run with the same shapes only patches in the addresses of
//! its inputs.

use crate::RunError;
use crate::memory::Block;
use crate::program::{Leaf, Number};
use rabot_codegen::KernelFn;
use rabot_ir::Dim;
use rabot_kernel::{
    BufferId, Call, CompositeKernel, Interval, KernelDesc, Plan, Size, Step, Storage, assign_offsets,
};
use std::collections::HashMap;

/// A call, ready to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundCall {
    pub function: KernelFn,
    /// Start of its arguments in [`Binding::args`].
    pub args: usize,
    /// Start of its parameters in [`Binding::params`].
    pub params: usize,
    pub items: i64,
    pub flops: i64,
}

/// Everything that a run needs, for one set of input shapes.
#[derive(Debug, Default)]
pub(crate) struct Binding {
    /// Sizes of the dims of the inputs that it was made for, then values of the symbols that were given.
    pub input_dims: Vec<usize>,
    /// Sizes of the symbolic dims.
    pub symbols: HashMap<String, i64>,
    /// Values of the dim expressions.
    pub values: Vec<i64>,
    /// Bytes of each buffer.
    pub bytes: Vec<usize>,
    /// Address of each buffer; inputs are patched in by each run.
    pub addresses: Vec<*mut u8>,
    /// Addresses for all calls, one after the other.
    pub args: Vec<*mut u8>,
    /// Entries of `args` that are inputs: entry and number of the input.
    pub input_args: Vec<(usize, usize)>,
    /// Parameters for all calls, one after the other.
    pub params: Vec<i64>,
    /// The calls: those that are made once, then in the order of a walk through the steps.
    pub calls: Vec<BoundCall>,
    /// Scratch memory that each thread needs.
    pub scratch_bytes: usize,
}

// SAFETY: the addresses point into blocks that the same session owns, into constants that its program owns, or into
// inputs during a run; a binding is only used under the session's lock.
unsafe impl Send for Binding {}

impl Binding {
    /// Value of a number.
    pub fn value(&self, number: Number) -> i64 {
        match number {
            Number::Known(value) => value,
            Number::Computed(index) => self.values[index],
        }
    }

    /// A shape in numbers.
    ///
    /// **Errors**: a dim cannot be computed or is negative.
    pub fn shape(&self, dims: &[Dim]) -> Result<Vec<usize>, RunError> {
        let size = |dim: &Dim| {
            let value = dim.eval(&|name| self.symbols.get(name).copied());
            let value = value.map_err(|error| RunError::Size(error.to_string()))?;
            usize::try_from(value).map_err(|_| RunError::Size(format!("dim {dim} is {value}")))
        };
        dims.iter().map(size).collect()
    }

    /// Computes everything for inputs of the given shapes (flat list of all dims, in order).
    ///
    /// **Errors**: dims that must be equal are not, a size is negative or too large, or memory cannot be had.
    pub fn bind(
        &mut self,
        program: &Leaf,
        input_dims: &[usize],
        arena: &mut Block,
        outputs: &mut [Block],
    ) -> Result<(), RunError> {
        // Not bound to anything until all is computed.
        self.input_dims.clear();
        self.evaluate(program, input_dims)?;
        self.place(program, arena, outputs)?;
        self.fill_calls(program)?;
        self.input_dims.extend_from_slice(input_dims);
        Ok(())
    }

    fn evaluate(&mut self, program: &Leaf, input_dims: &[usize]) -> Result<(), RunError> {
        let plan = &program.plan;
        self.symbols.clear();
        let dims = plan.inputs.iter().flat_map(|port| &port.shape);
        for (dim, &size) in dims.zip(input_dims) {
            if let Some(name) = dim.as_symbol() {
                self.symbols.entry(name.to_owned()).or_insert(size as i64);
            }
        }
        let count: usize = plan.inputs.iter().map(|port| port.shape.len()).sum();
        for (name, &value) in plan.symbols.iter().zip(input_dims.iter().skip(count)) {
            self.symbols.insert(name.to_string(), value as i64);
        }
        let symbols = &self.symbols;
        let lookup = |name: &str| symbols.get(name).copied();
        let eval = |dim: &Dim| dim.eval(&lookup).map_err(|error| RunError::Size(error.to_string()));
        let dims = plan.inputs.iter().flat_map(|port| port.shape.iter().map(move |dim| (port, dim)));
        for ((port, dim), &size) in dims.zip(input_dims) {
            let expected = eval(dim)?;
            if expected != size as i64 {
                return Err(RunError::Dims {
                    node: port.name.to_string(),
                    left: "of the input".to_owned(),
                    left_value: size as i64,
                    right: dim.to_string(),
                    right_value: expected,
                });
            }
        }
        for check in &plan.checks {
            let (left_value, right_value) = (eval(&check.left)?, eval(&check.right)?);
            if left_value != right_value {
                let (left, right) = (check.left.to_string(), check.right.to_string());
                let node = check.node.clone();
                return Err(RunError::Dims { node, left, left_value, right, right_value });
            }
        }
        self.values.clear();
        for dim in &program.numbers.dims {
            self.values.push(eval(dim)?);
        }
        self.bytes.clear();
        for (buffer, &elements) in plan.buffers.iter().zip(&program.elements) {
            let elements = self.value(elements);
            let bytes = usize::try_from(elements).ok().and_then(|n| n.checked_mul(buffer.dtype.size_bytes()));
            let bytes = bytes.filter(|&b| b <= isize::MAX as usize / 2).ok_or_else(|| {
                RunError::Size(format!(
                    "a tensor of {} ({elements}) elements for these inputs",
                    buffer.elements
                ))
            })?;
            self.bytes.push(bytes);
        }
        Ok(())
    }

    fn place(&mut self, program: &Leaf, arena: &mut Block, outputs: &mut [Block]) -> Result<(), RunError> {
        let plan = &program.plan;
        let mut intervals = Vec::new();
        for (buffer, &bytes) in plan.buffers.iter().zip(&self.bytes) {
            if let Storage::Arena { first, last } = buffer.storage {
                // A buffer that no step touches takes no room.
                let bytes = if first == usize::MAX { 0 } else { bytes };
                intervals.push(Interval { bytes, first: first.min(last), last });
            }
        }
        let (offsets, total) = assign_offsets(&intervals)
            .ok_or_else(|| RunError::Size("the tensors of a run do not fit into memory".to_owned()))?;
        let outputs_bytes = plan
            .buffers
            .iter()
            .zip(&self.bytes)
            .filter_map(|(buffer, &bytes)| matches!(buffer.storage, Storage::Output(_)).then_some(bytes));
        let all = outputs_bytes.fold(total, usize::saturating_add);
        let limit = rabot_ir::budget::current().bytes;
        if all as u64 > limit {
            return Err(RunError::Budget { bytes: all, limit });
        }
        arena.reserve(total)?;
        let mut offsets = offsets.into_iter();
        self.addresses.clear();
        for (buffer, &bytes) in plan.buffers.iter().zip(&self.bytes) {
            let address = match buffer.storage {
                Storage::Input(_) => std::ptr::null_mut(),
                Storage::Output(index) => {
                    outputs[index].reserve(bytes)?;
                    outputs[index].start()
                }
                Storage::Constant(index) => plan.constants[index].bytes.as_ptr().cast_mut(),
                // Within the arena: the planner keeps every buffer below `total`.
                Storage::Arena { .. } => arena.start().wrapping_add(offsets.next().unwrap_or(0)),
            };
            self.addresses.push(address);
        }
        Ok(())
    }

    fn fill_calls(&mut self, program: &Leaf) -> Result<(), RunError> {
        self.args.clear();
        self.input_args.clear();
        self.params.clear();
        self.calls.clear();
        self.scratch_bytes = 0;
        program.plan.init.iter().try_for_each(|call| self.fill_call(program, call))?;
        self.fill_steps(program, &program.plan.steps)
    }

    fn fill_steps(&mut self, program: &Leaf, steps: &[Step]) -> Result<(), RunError> {
        for step in steps {
            match step {
                Step::Host(_) => {}
                Step::If { then_steps, else_steps, .. } => {
                    self.fill_steps(program, then_steps)?;
                    self.fill_steps(program, else_steps)?;
                }
                Step::Call(call) => self.fill_call(program, call)?,
            }
        }
        Ok(())
    }

    fn fill_call(&mut self, program: &Leaf, call: &Call) -> Result<(), RunError> {
        let numbers = &program.calls[self.calls.len()];
        let size = |value: i64| {
            usize::try_from(value).map_err(|_| RunError::Size(format!("{value} bytes of scratch")))
        };
        self.scratch_bytes = self.scratch_bytes.max(size(self.value(numbers.scratch_bytes))?);
        let missing = || RunError::Size(format!("kernel {} is not in the program", call.kernel));
        let function = program.code.kernel(call.kernel).ok_or_else(missing)?;
        let (args, params) = (self.args.len(), self.params.len());
        self.push_args(&program.plan, &call.args);
        for &param in &numbers.params {
            self.params.push(self.value(param));
        }
        if let Some(KernelDesc::Composite(kernel)) = program.plan.kernels.get(call.kernel) {
            self.leave_out_parts(kernel, call, params);
        }
        let (items, flops) = (self.value(numbers.items), self.value(numbers.flops));
        self.calls.push(BoundCall { function, args, params, items, flops });
        Ok(())
    }

    /// Parts without results have no items: of those, other dims may be anything, and would only be counted through.
    fn leave_out_parts(&mut self, kernel: &CompositeKernel, call: &Call, params: usize) {
        let ends = kernel.parts.iter().skip(1).map(|part| part.args).chain([kernel.args.len()]);
        for (part, end) in kernel.parts.iter().zip(ends) {
            let written = kernel.args.iter().zip(&call.args).take(end).skip(part.args);
            let mut written = written.filter(|(arg, _)| arg.written);
            if let Size::Param(count) = part.count
                && written.all(|(_, &buffer)| self.bytes[buffer] == 0)
                && let Some(count) = self.params.get_mut(params + count)
            {
                *count = 0;
            }
        }
    }

    fn push_args(&mut self, plan: &Plan, buffers: &[BufferId]) {
        for &buffer in buffers {
            if let Storage::Input(index) = plan.buffers[buffer].storage {
                self.input_args.push((self.args.len(), index));
            }
            self.args.push(self.addresses[buffer]);
        }
    }
}
