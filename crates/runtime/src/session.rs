//! Sessions: one program, its working memory, its threads.

use crate::leaf::{LeafState, Observer, port_type};
use crate::pool::{Pool, lock};
use crate::program::Leaf;
use crate::{Program, RunError};
use indexmap::IndexMap;
use rabot_ir::{Datum, interp::Data};
use rabot_tensor::{DType, Tensor};
use std::sync::{Mutex, MutexGuard};

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

/// Working memory of a session.
pub(crate) struct State {
    /// That of each plan.
    pub leaves: Vec<LeafState>,
    pub pool: Pool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} plans)", self.leaves.len())
    }
}

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
        let leaves = program.inner.leaves.iter().map(LeafState::new).collect();
        let state = State { leaves, pool: Pool::new(threads)? };
        Ok(Session { program: program.clone(), state: Mutex::new(state) })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs the program on named inputs; gives its outputs by name.
    ///
    /// **Errors**: a missing, unknown or wrongly typed input; sizes that do not fit; data out of range; an output that
    /// is no tensor.
    pub fn run(&self, inputs: &Tensors) -> Result<Tensors, RunError> {
        self.run_observed(inputs, &mut |_| {})
    }

    /// As [`Session::run`], and shows every value to `observe` as soon as its kernel has written it.
    pub fn run_observed(
        &self,
        inputs: &Tensors,
        observe: &mut dyn FnMut(Observed<'_>),
    ) -> Result<Tensors, RunError> {
        let Some(leaf) = self.program.single() else {
            return only_tensors(self.run_stages(&data_of(inputs), Some(observe))?);
        };
        let mut state = self.lock();
        run_single(leaf, &mut state, inputs, Some(observe))?;
        let ports = leaf.plan.outputs.iter().enumerate();
        ports.map(|(at, port)| Ok((port.name.to_string(), state.leaves[0].output(leaf, at)?))).collect()
    }

    /// As [`Session::run`], for inputs and outputs that need not be tensors.
    ///
    /// **Errors**: as [`Session::run`].
    pub fn run_data(&self, inputs: &Data) -> Result<Data, RunError> {
        self.run_stages(inputs, None)
    }

    /// Runs the program and hands the bytes of each output, in order, to `read`; those of strings are empty. A program
    /// that is a single plan allocates nothing once it has run on inputs of the same shapes.
    ///
    /// **Errors**: as [`Session::run`].
    pub fn run_with(&self, inputs: &Tensors, read: &mut dyn FnMut(usize, &[u8])) -> Result<(), RunError> {
        let Some(leaf) = self.program.single() else {
            let outputs = only_tensors(self.run_stages(&data_of(inputs), None)?)?;
            outputs.values().enumerate().for_each(|(at, tensor)| read(at, tensor.bytes()));
            return Ok(());
        };
        let mut state = self.lock();
        run_single(leaf, &mut state, inputs, None)?;
        for index in 0..leaf.plan.outputs.len() {
            read(index, state.leaves[0].output_bytes(leaf, index));
        }
        Ok(())
    }

    fn run_stages(&self, inputs: &Data, observe: Observer<'_>) -> Result<Data, RunError> {
        crate::staged::run(&self.program.inner, &mut self.lock(), inputs, observe)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn data_of(inputs: &Tensors) -> Data {
    inputs.iter().map(|(name, tensor)| (name.clone(), Datum::Tensor(tensor.clone()))).collect()
}

fn only_tensors(data: Data) -> Result<Tensors, RunError> {
    let tensor = |(name, datum): (String, Datum)| match datum {
        Datum::Tensor(tensor) => Ok((name, tensor)),
        other => Err(RunError::OutputForm { name, actual: other.to_string() }),
    };
    data.into_iter().map(tensor).collect()
}

/// Runs a program that is one plan.
fn run_single(
    leaf: &Leaf,
    state: &mut State,
    inputs: &Tensors,
    observe: Observer<'_>,
) -> Result<(), RunError> {
    let ports = &leaf.plan.inputs;
    check_names(inputs.keys(), ports.len(), || ports.iter().map(|port| &*port.name))?;
    let tensors = ports.iter().map(|port| {
        let missing = || RunError::MissingInput { name: port.name.to_string(), ty: port_type(port) };
        inputs.get(&*port.name).ok_or_else(missing)
    });
    state.leaves[0].run(leaf, &mut state.pool, tensors, std::iter::empty(), observe)
}

/// **Errors**: there are more inputs than ports, so that some are unknown; or as many, of which one is unknown.
pub(crate) fn check_names<'k, 'p, P: Iterator<Item = &'p str>>(
    mut given: impl ExactSizeIterator<Item = &'k String>,
    expected: usize,
    ports: impl Fn() -> P,
) -> Result<(), RunError> {
    if given.len() <= expected {
        return Ok(());
    }
    let name = given.find(|name| !ports().any(|port| port == name.as_str())).cloned().unwrap_or_default();
    Err(RunError::UnknownInput { name, known: ports().collect::<Vec<_>>().join(", ") })
}
