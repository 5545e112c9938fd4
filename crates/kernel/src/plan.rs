//! The plan: kernels, the order in which they run, and the buffers between them.

use crate::KernelDesc;
use bytes::Bytes;
use rabot_ir::Dim;
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Index of a buffer in [`Plan::buffers`].
pub type BufferId = usize;

/// Everything that code generation and the run time need, and nothing of the graph.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the model.
    pub name: String,
    /// Inputs, in order. Their symbolic dims bind the symbols.
    pub inputs: Vec<Port>,
    /// Outputs, in order.
    pub outputs: Vec<Port>,
    /// Buffers: row-major, dense.
    pub buffers: Vec<Buffer>,
    /// Constant data.
    pub constants: Vec<Constant>,
    /// Distinct kernels; calls share them.
    pub kernels: Vec<KernelDesc>,
    /// Names of the kernels, in XNNPACK's order; for people.
    pub kernel_names: Vec<String>,
    /// What is done once when the plan is bound to sizes: padding that no step writes is filled in. Where the arena's
    /// contents do not stay from run to run, it is done before the steps of each.
    pub init: Vec<Call>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What must hold of the dims of a run.
    pub checks: Vec<Check>,
    /// Symbols that the caller has to give besides the inputs, whose dims do not tell them.
    pub symbols: Vec<Arc<str>>,
    /// Where values are in their buffers that are not row-major from the start of one, by their names in [`Call::values`].
    pub forms: HashMap<Arc<str>, Form>,
}

impl Plan {
    /// The kernel that writes each of a call's values: of a composite kernel, the part that does.
    pub fn writers(&self, call: &Call) -> Vec<usize> {
        let mut writers = Vec::new();
        self.add_writers(call.kernel, &mut writers);
        writers
    }

    fn add_writers(&self, kernel: usize, writers: &mut Vec<usize>) {
        match self.kernels.get(kernel) {
            Some(KernelDesc::Composite(composite)) => {
                composite.parts.iter().for_each(|part| self.add_writers(part.kernel, writers));
            }
            Some(desc) => writers.extend(desc.args().iter().filter(|arg| arg.written).map(|_| kernel)),
            None => {}
        }
    }
}

/// Where a value is in a buffer. Strides and offset are in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Name of the value; of an operand that was copied, the name of the copy.
    pub name: Arc<str>,
    /// Index of the first element.
    pub offset: Dim,
    /// Dims, outermost first.
    pub shape: Vec<Dim>,
    /// Distance of neighbours along each dim.
    pub strides: Vec<Dim>,
}

/// An input or output.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<Dim>,
    /// Its buffer. Several outputs may share one; an output may be an input or a constant.
    pub buffer: BufferId,
}

/// Where a buffer's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The caller's input with this index.
    Input(usize),
    /// The output with this index.
    Output(usize),
    /// The constant with this index.
    Constant(usize),
    /// The arena. Live from the step (counted through nested steps) that first writes it to the last that reads it.
    Arena {
        /// Number of the first step that touches it.
        first: usize,
        /// Number of the last one.
        last: usize,
    },
}

/// A buffer.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Where its memory comes from.
    pub storage: Storage,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: Dim,
}

/// Constant data, shared with the model file or packed.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Little-endian bytes.
    pub bytes: Bytes,
    /// Element type.
    pub dtype: DType,
}

/// Two dims that must be equal in a run.
#[derive(Clone, Debug)]
pub struct Check {
    /// One dim.
    pub left: Dim,
    /// The other.
    pub right: Dim,
    /// The source node that asks for it, for the message.
    pub node: String,
}

/// One thing done.
#[derive(Clone, Debug)]
pub enum Step {
    /// A compiled kernel.
    Call(Call),
    /// A Rust function.
    Host(HostCall),
    /// One of two lists of steps.
    If {
        /// A bool buffer of one element.
        condition: BufferId,
        /// Done where it is true.
        then_steps: Vec<Step>,
        /// Done where it is false.
        else_steps: Vec<Step>,
    },
}

/// A call of a compiled kernel.
#[derive(Clone, Debug)]
pub struct Call {
    /// Index in [`Plan::kernels`].
    pub kernel: usize,
    /// Buffers, in the order of the kernel's args.
    pub args: Vec<BufferId>,
    /// Values of the kernel's parameters.
    pub params: Vec<Dim>,
    /// Number of work items.
    pub items: Dim,
    /// Scratch memory that each thread needs.
    pub scratch_bytes: Dim,
    /// Names of the source nodes.
    pub sources: Vec<Arc<str>>,
    /// Of a composite kernel: the source nodes of each part, those of nested parts one by one, in the order of the
    /// parts. Empty for other kernels.
    pub parts: Vec<Vec<Arc<str>>>,
    /// Floating-point (or integer) operations of the whole call, a multiply-add counted as two.
    pub flops: Dim,
    /// Names of the values in the buffers that are written, in the order of written args.
    pub values: Vec<Arc<str>>,
}

/// A function from tensors to tensors.
pub type HostFn = dyn Fn(&[Option<Tensor>]) -> Result<Vec<Tensor>, String> + Send + Sync;

/// A call of a Rust function.
#[derive(Clone)]
pub struct HostCall {
    /// Name of the op.
    pub op: String,
    /// Why it is not compiled.
    pub reason: String,
    /// Operands and their shapes.
    pub inputs: Vec<Option<(BufferId, Vec<Dim>)>>,
    /// Results and their shapes.
    pub outputs: Vec<(BufferId, Vec<Dim>)>,
    /// The function.
    pub function: Arc<HostFn>,
    /// Names of the source nodes.
    pub sources: Vec<Arc<str>>,
    /// Names of the values in `outputs`.
    pub values: Vec<Arc<str>>,
}

impl fmt::Debug for HostCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostCall({} {:?} -> {:?})", self.op, self.inputs, self.outputs)
    }
}
