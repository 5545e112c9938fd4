//! One plan's working memory, and runs of it.

use crate::RunError;
use crate::bind::Binding;
use crate::memory::Block;
use crate::pool::Pool;
use crate::program::Leaf;
use crate::session::Observed;
use rabot_codegen::clif::expr::STATUS_CODE_BITS;
use rabot_kernel::{BufferId, Call, Form, HostCall, KernelDesc, Port, Step, Storage};
use rabot_tensor::Tensor;

/// The working memory of a plan.
pub(crate) struct LeafState {
    pub binding: Binding,
    arena: Block,
    pub outputs: Vec<Block>,
    /// Dims of the inputs of the current run, flat, then values of the symbols that the caller gives.
    dims: Vec<usize>,
    /// Address of each input of the current run.
    input_addresses: Vec<*mut u8>,
}

// SAFETY: the input addresses are only used during a run, under the session's lock, while the inputs are borrowed.
unsafe impl Send for LeafState {}

/// Stands in for an input without elements, so that kernels never get a null address.
static EMPTY: [u64; 8] = [0; 8];

/// Shows a value that a kernel has just written.
pub(crate) type Observer<'o> = Option<&'o mut dyn FnMut(Observed<'_>)>;

impl LeafState {
    pub fn new(leaf: &Leaf) -> Self {
        LeafState {
            binding: Binding::default(),
            arena: Block::new("the arena"),
            outputs: leaf.plan.outputs.iter().map(|_| Block::new("an output")).collect(),
            dims: Vec::new(),
            input_addresses: Vec::new(),
        }
    }

    /// Runs a plan on its inputs in order. Its outputs are then in `outputs`.
    ///
    /// **Errors**: wrongly typed inputs; sizes that do not fit; data out of range.
    pub fn run<'t>(
        &mut self,
        leaf: &Leaf,
        pool: &mut Pool,
        inputs: impl Iterator<Item = Result<&'t Tensor, RunError>>,
        symbols: impl Iterator<Item = Result<usize, RunError>>,
        observe: Observer<'_>,
    ) -> Result<(), RunError> {
        let ports = &leaf.plan.inputs;
        self.dims.clear();
        self.input_addresses.clear();
        for (port, tensor) in ports.iter().zip(inputs) {
            let tensor = tensor?;
            check_input(port, tensor)?;
            self.dims.extend_from_slice(tensor.shape());
            let bytes = tensor.bytes();
            let address = if bytes.is_empty() { EMPTY.as_ptr().cast::<u8>() } else { bytes.as_ptr() };
            self.input_addresses.push(address.cast_mut());
        }
        check_symbols(ports, &self.dims)?;
        for symbol in symbols {
            self.dims.push(symbol?);
        }
        let LeafState { binding, arena, outputs, dims, input_addresses } = self;
        let fresh = binding.input_dims != *dims || binding.addresses.is_empty();
        if fresh {
            binding.bind(leaf, dims, arena, outputs)?;
            // The plans of a session share it, and it never shrinks.
            pool.reserve_scratch(binding.scratch_bytes)?;
        }
        for &(entry, input) in &binding.input_args {
            binding.args[entry] = input_addresses[input];
        }
        for (buffer, address) in leaf.plan.buffers.iter().zip(&mut binding.addresses) {
            if let Storage::Input(input) = buffer.storage {
                *address = input_addresses[input];
            }
        }
        let mut runner = Runner { leaf, binding, pool, observe };
        let mut next_call = leaf.plan.init.len();
        if fresh {
            // Of no concern to who observes the values of a run.
            let observe = runner.observe.take();
            let done =
                leaf.plan.init.iter().enumerate().try_for_each(|(index, call)| runner.call(index, call));
            runner.observe = observe;
            done?;
        }
        runner.steps(&leaf.plan.steps, &mut next_call, true)
    }

    /// An output of the last run.
    pub fn output(&self, leaf: &Leaf, index: usize) -> Result<Tensor, RunError> {
        let port = &leaf.plan.outputs[index];
        let shape = self.binding.shape(&port.shape)?;
        Ok(Tensor::from_raw(port.dtype, &shape, self.output_bytes(leaf, index).to_vec()))
    }

    /// The bytes of an output of the last run.
    pub fn output_bytes(&self, leaf: &Leaf, index: usize) -> &[u8] {
        self.outputs[index].bytes(self.binding.bytes[leaf.plan.outputs[index].buffer])
    }
}

pub(crate) fn port_type(port: &Port) -> String {
    let dims: Vec<String> = port.shape.iter().map(|d| d.to_string()).collect();
    format!("{}[{}]", port.dtype, dims.join(","))
}

fn check_input(port: &Port, tensor: &Tensor) -> Result<(), RunError> {
    let fits = tensor.dtype() == port.dtype
        && tensor.rank() == port.shape.len()
        && port.shape.iter().zip(tensor.shape()).all(|(dim, &size)| dim.as_usize().is_none_or(|d| d == size));
    if fits {
        return Ok(());
    }
    Err(RunError::InputType {
        name: port.name.to_string(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        ty: port_type(port),
    })
}

/// A symbol that occurs more than once must have the same size everywhere.
fn check_symbols(ports: &[Port], sizes: &[usize]) -> Result<(), RunError> {
    let dims = || ports.iter().flat_map(|p| p.shape.iter().map(move |d| (p, d))).zip(sizes);
    for (at, ((port, dim), &size)) in dims().enumerate() {
        let Some(name) = dim.as_symbol() else { continue };
        let first = dims().take(at).find(|((_, other), _)| other.as_symbol() == Some(name));
        if let Some(((other, _), &expected)) = first
            && expected != size
        {
            return Err(RunError::Dims {
                node: port.name.to_string(),
                left: name.to_owned(),
                left_value: size as i64,
                right: format!("{name} of input `{}`", other.name),
                right_value: expected as i64,
            });
        }
    }
    Ok(())
}

/// Walks the steps of one run.
struct Runner<'a, 'o> {
    leaf: &'a Leaf,
    binding: &'a Binding,
    pool: &'a mut Pool,
    observe: Observer<'o>,
}

impl Runner<'_, '_> {
    /// Does the steps if `active`; counts their calls in any case.
    fn steps(&mut self, steps: &[Step], next_call: &mut usize, active: bool) -> Result<(), RunError> {
        for step in steps {
            match step {
                Step::Call(call) => {
                    let index = *next_call;
                    *next_call += 1;
                    if active {
                        self.call(index, call)?;
                    }
                }
                Step::Host(call) if active => self.host(call)?,
                Step::Host(_) => {}
                Step::If { condition, then_steps, else_steps } => {
                    let chosen = active && self.bytes(*condition).first().is_some_and(|&b| b != 0);
                    self.steps(then_steps, next_call, active && chosen)?;
                    self.steps(else_steps, next_call, active && !chosen)?;
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, index: usize, call: &Call) -> Result<(), RunError> {
        let bound = &self.binding.calls[index];
        let kernel: &KernelDesc = &self.leaf.plan.kernels[call.kernel];
        let written = || kernel.args().iter().zip(&call.args).filter(|(arg, _)| arg.written);
        // Of results without elements, other dims may be anything: they would only be counted through.
        let has_results = written().any(|(_, &buffer)| self.binding.bytes[buffer] > 0);
        if bound.items > 0 && has_results {
            let args = self.binding.args[bound.args..].as_ptr();
            let params = self.binding.params[bound.params..].as_ptr();
            // SAFETY: the binding lists, from `bound.args` and `bound.params` on, what this call's kernel asks for:
            // buffers sized by the plan's own dims, all alive while the session is locked; scratch is reserved.
            let status = unsafe { self.pool.run(bound, args, params) };
            if status != 0 {
                return Err(RunError::Data {
                    nodes: failed(call, status).join(", "),
                    problem: problem(status),
                });
            }
        }
        if self.observe.is_some() {
            for ((_, &buffer), name) in written().zip(&call.values) {
                self.show(name, buffer, &call.sources);
            }
        }
        Ok(())
    }

    fn show(&mut self, name: &str, buffer: BufferId, sources: &[std::sync::Arc<str>]) {
        let dtype = self.leaf.plan.buffers[buffer].dtype;
        // Not through `self.bytes`, for `observe` is borrowed at the same time.
        let bytes = buffer_bytes(self.binding, buffer);
        let form = self.leaf.plan.forms.get(name);
        let gathered =
            form.and_then(|form| Some((&*form.name, gather(self.binding, form, dtype.size_bytes(), bytes)?)));
        let (name, bytes) = gathered.as_ref().map_or((name, bytes), |(name, bytes)| (*name, bytes));
        if let Some(observe) = &mut self.observe {
            let sources = sources.iter().map(|s| &**s).collect();
            observe(Observed { name, dtype, bytes, sources });
        }
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        buffer_bytes(self.binding, buffer)
    }

    fn host(&mut self, call: &HostCall) -> Result<(), RunError> {
        let plan = &self.leaf.plan;
        let failed =
            |message: String| RunError::Host { op: call.op.clone(), nodes: call.sources.join(", "), message };
        let mut operands = Vec::new();
        for input in &call.inputs {
            operands.push(match input {
                None => None,
                Some((buffer, shape)) => {
                    let shape = self.binding.shape(shape)?;
                    let dtype = plan.buffers[*buffer].dtype;
                    // The value may be the first part of a concatenation, which its buffer holds whole.
                    let size = shape.iter().product::<usize>() * dtype.size_bytes();
                    let held = self.bytes(*buffer);
                    let bytes = held.get(..size).ok_or_else(|| {
                        failed(format!("an operand {dtype}{shape:?} is in {} bytes", held.len()))
                    })?;
                    Some(Tensor::from_raw(dtype, &shape, bytes.to_vec()))
                }
            });
        }
        let results = (call.function)(&operands).map_err(failed)?;
        for ((buffer, shape), result) in call.outputs.iter().zip(results) {
            let expected = self.binding.shape(shape)?;
            let dtype = plan.buffers[*buffer].dtype;
            if result.shape() != expected || result.dtype() != dtype {
                return Err(failed(format!("gave {result:?}, the plan has {dtype}{expected:?}")));
            }
            let target = self.binding.addresses[*buffer];
            // SAFETY: the buffer is in the arena or an output, with room for the elements of the expected shape,
            // which the result was just found to have; the result's bytes are its own.
            unsafe { std::ptr::copy_nonoverlapping(result.bytes().as_ptr(), target, result.bytes().len()) };
        }
        for ((buffer, _), name) in call.outputs.iter().zip(&call.values) {
            self.show(name, *buffer, &call.sources);
        }
        Ok(())
    }
}

/// The elements of a value in row-major order; `None` if its sizes are not known or it is not all in the buffer.
fn gather(binding: &Binding, form: &Form, size: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    let shape = binding.shape(&form.shape).ok()?;
    let strides = binding.shape(&form.strides).ok()?;
    let offset = *binding.shape(std::slice::from_ref(&form.offset)).ok()?.first()?;
    // Lines that lie in one piece are copied as such.
    let piece = match (shape.last(), strides.last()) {
        (Some(&dim), Some(1)) => dim,
        _ => 1,
    };
    let axes = shape.len() - usize::from(piece != 1);
    let count = shape.get(..axes)?.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))?;
    let length = piece.checked_mul(size)?;
    let mut gathered = Vec::with_capacity(count.checked_mul(length)?.min(bytes.len()));
    let mut at = vec![0usize; axes];
    for _ in 0..count {
        let steps = at.iter().zip(&strides).map(|(at, stride)| at * stride);
        let first = (offset + steps.sum::<usize>()).checked_mul(size)?;
        gathered.extend_from_slice(bytes.get(first..first.checked_add(length)?)?);
        for (at, &dim) in at.iter_mut().zip(&shape).rev() {
            *at += 1;
            if *at < dim {
                break;
            }
            *at = 0;
        }
    }
    Some(gathered)
}

fn buffer_bytes(binding: &Binding, buffer: BufferId) -> &[u8] {
    // SAFETY: the binding's address of a buffer points to its `bytes` initialized bytes: the arena and outputs are
    // zeroed when allocated, constants and inputs are slices; no kernel runs while the slice is held.
    unsafe { std::slice::from_raw_parts(binding.addresses[buffer], binding.bytes[buffer]) }
}

/// The source nodes of the part of a call that failed; those of the whole call if it has no parts.
fn failed(call: &Call, status: i64) -> &[std::sync::Arc<str>] {
    let part = usize::try_from((status >> STATUS_CODE_BITS) - 1).ok();
    part.and_then(|part| call.parts.get(part)).unwrap_or(&call.sources)
}

fn problem(status: i64) -> &'static str {
    match status & ((1 << STATUS_CODE_BITS) - 1) {
        rabot_codegen::clif::expr::STATUS_INDEX => "an index is out of range",
        rabot_codegen::clif::expr::STATUS_DIVISION => "an integer is divided by zero",
        _ => "the kernel reports a problem that this version does not know",
    }
}
