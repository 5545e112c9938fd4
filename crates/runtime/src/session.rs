//! Sessions: one program, its working memory, its threads.

use crate::bind::Binding;
use crate::memory::Block;
use crate::pool::{Pool, lock};
use crate::{Program, RunError};
use indexmap::IndexMap;
use rabot_kernel::{BufferId, Call, HostCall, KernelDesc, Port, Step, Storage};
use rabot_tensor::{DType, Tensor};
use std::sync::Mutex;

/// Tensors by name, in order.
pub type Tensors = IndexMap<String, Tensor>;

/// A value that a kernel has just written.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Name of the value.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Little-endian elements, row-major.
    pub bytes: &'a [u8],
    /// The kernel's source nodes.
    pub sources: Vec<&'a str>,
}

/// Runs a program. It may be shared among threads; runs of one session follow each other.
#[derive(Debug)]
pub struct Session {
    program: Program,
    state: Mutex<State>,
}

struct State {
    binding: Binding,
    arena: Block,
    outputs: Vec<Block>,
    pool: Pool,
    /// Dims of the inputs of the current run, flat.
    dims: Vec<usize>,
    /// Address of each input of the current run.
    input_addresses: Vec<*mut u8>,
}

// SAFETY: the input addresses are only used during a run, under the lock, while the inputs are borrowed.
unsafe impl Send for State {}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({:?})", self.arena)
    }
}

/// Stands in for an input without elements, so that kernels never get a null address.
static EMPTY: [u64; 8] = [0; 8];

impl Session {
    /// A session on one thread.
    ///
    /// **Errors**: none today; see [`Session::with_threads`].
    pub fn new(program: &Program) -> Result<Self, RunError> {
        Self::with_threads(program, 1)
    }

    /// A session on several threads; outputs do not depend on how many.
    ///
    /// **Errors**: a thread cannot be started.
    pub fn with_threads(program: &Program, threads: usize) -> Result<Self, RunError> {
        let outputs = program.plan().outputs.iter().map(|_| Block::new("an output")).collect();
        let state = State {
            binding: Binding::default(),
            arena: Block::new("the arena"),
            outputs,
            pool: Pool::new(threads)?,
            dims: Vec::new(),
            input_addresses: Vec::new(),
        };
        Ok(Session { program: program.clone(), state: Mutex::new(state) })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs the program on named inputs; gives its outputs by name.
    ///
    /// **Errors**: a missing, unknown or wrongly typed input; sizes that do not fit; data out of range.
    pub fn run(&self, inputs: &Tensors) -> Result<Tensors, RunError> {
        self.run_observed(inputs, &mut |_| {})
    }

    /// As [`Session::run`], and shows every value to `observe` as soon as its kernel has written it.
    pub fn run_observed(
        &self,
        inputs: &Tensors,
        observe: &mut dyn FnMut(Observed<'_>),
    ) -> Result<Tensors, RunError> {
        let mut state = lock(&self.state);
        let plan = self.program.plan();
        self.run_in(&mut state, inputs, Some(observe))?;
        let mut outputs = Tensors::with_capacity(plan.outputs.len());
        for (index, port) in plan.outputs.iter().enumerate() {
            let shape = state.binding.shape(&port.shape)?;
            let bytes = state.outputs[index].bytes(state.binding.bytes[port.buffer]).to_vec();
            outputs.insert(port.name.to_string(), Tensor::from_raw(port.dtype, &shape, bytes));
        }
        Ok(outputs)
    }

    /// Runs the program and hands the bytes of each output, in order, to `read`. Allocates nothing once it has run on
    /// inputs of the same shapes.
    ///
    /// **Errors**: as [`Session::run`].
    pub fn run_with(&self, inputs: &Tensors, read: &mut dyn FnMut(usize, &[u8])) -> Result<(), RunError> {
        let mut state = lock(&self.state);
        self.run_in(&mut state, inputs, None)?;
        for (index, port) in self.program.plan().outputs.iter().enumerate() {
            read(index, state.outputs[index].bytes(state.binding.bytes[port.buffer]));
        }
        Ok(())
    }

    fn run_in(
        &self,
        state: &mut State,
        inputs: &Tensors,
        observe: Option<&mut dyn FnMut(Observed<'_>)>,
    ) -> Result<(), RunError> {
        let program = &*self.program.inner;
        let ports = &program.plan.inputs;
        state.dims.clear();
        state.input_addresses.clear();
        for port in ports {
            let tensor = inputs
                .get(&*port.name)
                .ok_or_else(|| RunError::MissingInput { name: port.name.to_string(), ty: port_type(port) })?;
            check_input(port, tensor)?;
            state.dims.extend_from_slice(tensor.shape());
            let bytes = tensor.bytes();
            let address = if bytes.is_empty() { EMPTY.as_ptr().cast::<u8>() } else { bytes.as_ptr() };
            state.input_addresses.push(address.cast_mut());
        }
        // All of the program's inputs are there: more means unknown ones.
        if inputs.len() > ports.len() {
            let known = |name: &str| ports.iter().any(|port| &*port.name == name);
            let name = inputs.keys().find(|name| !known(name)).cloned().unwrap_or_default();
            let known = ports.iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(", ");
            return Err(RunError::UnknownInput { name, known });
        }
        check_symbols(ports, &state.dims)?;
        let State { binding, arena, outputs, pool, dims, input_addresses } = state;
        if binding.input_dims != *dims || binding.addresses.is_empty() {
            binding.bind(program, dims, arena, outputs)?;
            pool.reserve_scratch(binding.scratch_bytes)?;
        }
        for &(entry, input) in &binding.input_args {
            binding.args[entry] = input_addresses[input];
        }
        for (buffer, address) in program.plan.buffers.iter().zip(&mut binding.addresses) {
            if let Storage::Input(input) = buffer.storage {
                *address = input_addresses[input];
            }
        }
        let mut runner = Runner { program: &self.program, binding, pool, observe };
        let mut next_call = 0;
        runner.steps(&program.plan.steps, &mut next_call, true)
    }
}

fn port_type(port: &Port) -> String {
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
    program: &'a Program,
    binding: &'a Binding,
    pool: &'a mut Pool,
    observe: Option<&'o mut dyn FnMut(Observed<'_>)>,
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
        if bound.items > 0 {
            let args = self.binding.args[bound.args..].as_ptr();
            let params = self.binding.params[bound.params..].as_ptr();
            // SAFETY: the binding lists, from `bound.args` and `bound.params` on, what this call's kernel asks for:
            // buffers sized by the plan's own dims, all alive while the session is locked; scratch is reserved.
            let status = unsafe { self.pool.run(bound, args, params) };
            if status != 0 {
                return Err(RunError::Data { nodes: call.sources.join(", "), problem: problem(status) });
            }
        }
        if self.observe.is_some() {
            let kernel: &KernelDesc = &self.program.plan().kernels[call.kernel];
            let written = kernel.args().iter().zip(&call.args).filter(|(arg, _)| arg.written);
            for ((_, &buffer), name) in written.zip(&call.values) {
                self.show(name, buffer, &call.sources);
            }
        }
        Ok(())
    }

    fn show(&mut self, name: &str, buffer: BufferId, sources: &[std::sync::Arc<str>]) {
        let dtype = self.program.plan().buffers[buffer].dtype;
        // Not through `self.bytes`, for `observe` is borrowed at the same time.
        let bytes = buffer_bytes(self.binding, buffer);
        if let Some(observe) = &mut self.observe {
            let sources = sources.iter().map(|s| &**s).collect();
            observe(Observed { name, dtype, bytes, sources });
        }
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        buffer_bytes(self.binding, buffer)
    }

    fn host(&mut self, call: &HostCall) -> Result<(), RunError> {
        let plan = self.program.plan();
        let failed =
            |message: String| RunError::Host { op: call.op.clone(), nodes: call.sources.join(", "), message };
        let mut operands = Vec::new();
        for input in &call.inputs {
            operands.push(match input {
                None => None,
                Some((buffer, shape)) => {
                    let shape = self.binding.shape(shape)?;
                    let dtype = plan.buffers[*buffer].dtype;
                    Some(Tensor::from_raw(dtype, &shape, self.bytes(*buffer).to_vec()))
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

fn buffer_bytes(binding: &Binding, buffer: BufferId) -> &[u8] {
    // SAFETY: the binding's address of a buffer points to its `bytes` initialized bytes: the arena and outputs are
    // zeroed when allocated, constants and inputs are slices; no kernel runs while the slice is held.
    unsafe { std::slice::from_raw_parts(binding.addresses[buffer], binding.bytes[buffer]) }
}

fn problem(status: i64) -> &'static str {
    match status {
        rabot_codegen::clif::expr::STATUS_INDEX => "an index is out of range",
        rabot_codegen::clif::expr::STATUS_DIVISION => "an integer is divided by zero",
        _ => "the kernel reports a problem that this version does not know",
    }
}
