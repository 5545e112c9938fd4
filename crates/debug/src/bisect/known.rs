//! Values that trials share.
//!
//! Trials differ in a few nodes. A value is known by a hash of its contents, and what a node makes by its operator, its
//! attributes and the hashes of its operands: where those were met before, the hashes of the results are known, and
//! nothing is computed. Contents are computed, or once more if they were dropped, where a node that was not met needs
//! them. So a trial costs what its rewrite changes.
//!
//! Contents are kept up to a limit; those that are quick to compute for their size go first.
//!
//! Source of the order: Cao, Irani, "Cost-aware WWW proxy caching algorithms", USITS 1997 (GreedyDual-Size).

use crate::Tensors;
use crate::trace::exprs::{Hash, hash_of, signature};
use rabot_ir::interp::{self, Data, InterpError, run_node};
use rabot_ir::{Datum, Graph, NodeId, Op, Value, budget};
use rabot_tensor::Tensor;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Most bytes of contents that are kept.
const MOST_BYTES: u64 = 1 << 30;

/// The part of the memory that an evaluation may take that is for what is kept.
const SHARE: u64 = 4;

/// Most bytes of constants whose hashes are kept with them.
const MOST_CONSTANTS: usize = 512 << 20;

/// What is known of a value without its contents.
#[derive(Clone, Debug)]
pub(crate) struct Trait {
    /// Hash of its contents.
    pub hash: Hash,
    /// Its shape, if it is a tensor.
    pub shape: Option<Vec<usize>>,
}

/// Contents of a value.
struct Content {
    datum: Datum,
    bytes: u64,
    /// Seconds to compute it, for each byte.
    worth: f64,
    /// The smallest goes first.
    rank: f64,
}

/// What nodes made in earlier trials.
#[derive(Default)]
pub(crate) struct Known {
    /// Results of a node, by a hash of the node and of its operands' contents.
    results: RefCell<HashMap<Hash, Rc<Vec<Trait>>>>,
    contents: RefCell<HashMap<Hash, Content>>,
    bytes: Cell<u64>,
    /// Rank of what was dropped last.
    floor: Cell<f64>,
    /// Hashes of constants, by the place of their bytes; the tensor keeps the place taken.
    constants: RefCell<HashMap<Place, (Tensor, Hash)>>,
}

/// Where the bytes of a tensor are, and its shape.
type Place = (usize, usize, Vec<usize>);

/// The values of a graph on some inputs, without their contents.
pub(crate) struct Seen<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// Why evaluation ended before the last node, if so.
    pub failed: Option<InterpError>,
    inputs: Vec<Option<Datum>>,
    values: HashMap<Value, Trait>,
    /// Contents that the rest of an evaluation needs.
    live: RefCell<HashMap<Value, Datum>>,
}

impl Seen<'_> {
    /// What is known of a value; `None` for those behind a node that failed.
    pub fn of(&self, value: Value) -> Option<&Trait> {
        self.values.get(&value)
    }

    /// Shapes of the values that are tensors.
    pub fn shapes(&self) -> HashMap<Value, Vec<usize>> {
        let shape = |(value, of): (&Value, &Trait)| Some((*value, of.shape.clone()?));
        self.values.iter().filter_map(shape).collect()
    }

    fn leaf(&self, id: NodeId) -> Option<Datum> {
        match &self.graph.node(id).op {
            Op::Input => {
                let position = self.graph.inputs().iter().position(|&input| input == id);
                position.and_then(|at| self.inputs.get(at).cloned().flatten())
            }
            Op::Constant(tensor) => Some(Datum::Tensor(tensor.clone())),
            _ => None,
        }
    }
}

impl Known {
    /// The outputs of a graph, as [`interp::run`] gives them.
    ///
    /// **Errors**: as [`interp::run`].
    pub fn run(&self, graph: &Graph, inputs: &Tensors) -> Result<Tensors, InterpError> {
        let mut seen = self.look(graph, inputs)?;
        if let Some(error) = seen.failed.take() {
            return Err(error);
        }
        let output = |output: &rabot_ir::GraphOutput| {
            let name = output.name.to_string();
            match self.content(&seen, output.value)? {
                Datum::Tensor(tensor) => Ok((name, tensor)),
                other => Err(InterpError::OutputForm { name, actual: other.to_string() }),
            }
        };
        graph.outputs().iter().map(output).collect()
    }

    /// The values of a graph, as far as they can be evaluated.
    ///
    /// **Errors**: the inputs are not those of the graph, or it has a cycle.
    pub fn look<'g>(&self, graph: &'g Graph, inputs: &Tensors) -> Result<Seen<'g>, InterpError> {
        let data: Data =
            inputs.iter().map(|(name, tensor)| (name.clone(), Datum::Tensor(tensor.clone()))).collect();
        let mut seen = Seen {
            graph,
            failed: None,
            inputs: interp::bind(graph, &data)?,
            values: HashMap::new(),
            live: RefCell::default(),
        };
        let order = graph.topological()?;
        let mut uses: HashMap<Value, usize> = HashMap::new();
        let operands = order.iter().flat_map(|&id| graph.node(id).inputs.iter().flatten().copied());
        for value in operands.chain(graph.outputs().iter().map(|output| output.value)) {
            *uses.entry(value).or_insert(0) += 1;
        }
        for id in order {
            let results = match self.node(&seen, id) {
                Ok(results) => results,
                Err(error) => {
                    seen.failed = Some(error);
                    break;
                }
            };
            let slots = results.iter().cloned().enumerate();
            seen.values.extend(slots.map(|(slot, of)| (Value { node: id, slot: slot as u32 }, of)));
            let live = seen.live.get_mut();
            for value in graph.node(id).inputs.iter().flatten() {
                let left = uses.entry(*value).or_insert(1);
                *left -= 1;
                if *left == 0 {
                    live.remove(value);
                }
            }
            live.retain(|value, _| value.node != id || uses.contains_key(value));
        }
        Ok(seen)
    }

    /// The results of a node, whose operands are known.
    ///
    /// **Errors**: it fails.
    fn node(&self, seen: &Seen<'_>, id: NodeId) -> Result<Rc<Vec<Trait>>, InterpError> {
        if let Some(datum) = seen.leaf(id) {
            return Ok(Rc::new(vec![self.leaf(&datum)]));
        }
        let node = seen.graph.node(id);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&signature(seen.graph, id, None));
        for operand in &node.inputs {
            match operand.and_then(|value| seen.of(value)) {
                Some(of) => hasher.update(&of.hash),
                None => hasher.update(b"-"),
            };
        }
        let key: Hash = *hasher.finalize().as_bytes();
        if let Some(known) = self.results.borrow().get(&key) {
            return Ok(known.clone());
        }
        let operands = node.inputs.iter().map(|input| input.map(|v| self.content(seen, v)).transpose());
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        let started = Instant::now();
        let results = run_node(node, &operands.iter().map(Option::as_ref).collect::<Vec<_>>())?;
        let took = started.elapsed();
        let of = |datum: &Datum| Trait {
            hash: hash_of(datum),
            shape: datum.tensor().map(|tensor| tensor.shape().to_vec()),
        };
        let traits: Rc<Vec<Trait>> = Rc::new(results.iter().map(of).collect());
        self.results.borrow_mut().insert(key, traits.clone());
        let slots = results.iter().cloned().enumerate();
        let live = slots.map(|(slot, datum)| (Value { node: id, slot: slot as u32 }, datum));
        seen.live.borrow_mut().extend(live);
        self.keep(&traits, results, took);
        Ok(traits)
    }

    /// The contents of a value, computed if they are not there. Values on the way are held until it is done.
    ///
    /// **Errors**: the time is over, or the value is behind a node that failed.
    pub fn content(&self, seen: &Seen<'_>, value: Value) -> Result<Datum, InterpError> {
        let mut held: HashMap<Value, Datum> = HashMap::new();
        let mut wanted = vec![value];
        while let Some(&next) = wanted.last() {
            if held.contains_key(&next) {
                wanted.pop();
                continue;
            }
            if let Some(datum) = self.at_hand(seen, next) {
                held.insert(next, datum);
                wanted.pop();
                continue;
            }
            let node = seen.graph.node(next.node);
            let missing: Vec<Value> =
                node.inputs.iter().flatten().copied().filter(|operand| !held.contains_key(operand)).collect();
            if !missing.is_empty() {
                wanted.extend(missing);
                continue;
            }
            let operands: Vec<Option<&Datum>> =
                node.inputs.iter().map(|input| input.and_then(|value| held.get(&value))).collect();
            let started = Instant::now();
            let results = run_node(node, &operands)?;
            let took = started.elapsed();
            let slots = (0..results.len()).map(|slot| Value { node: next.node, slot: slot as u32 });
            let traits: Option<Vec<Trait>> = slots.clone().map(|value| seen.of(value).cloned()).collect();
            held.extend(slots.zip(results.iter().cloned()));
            if let Some(traits) = traits {
                self.keep(&traits, results, took);
            }
            if !held.contains_key(&next) {
                break;
            }
        }
        held.remove(&value).ok_or_else(|| InterpError::MissingInput {
            name: seen.graph.value_name(value).to_string(),
            ty: seen.graph.fact(value).ty.to_string(),
        })
    }

    /// The contents of a value if nothing has to be computed for them.
    fn at_hand(&self, seen: &Seen<'_>, value: Value) -> Option<Datum> {
        let own = || seen.live.borrow().get(&value).cloned();
        seen.leaf(value.node).or_else(own).or_else(|| {
            let mut contents = self.contents.borrow_mut();
            let content = contents.get_mut(&seen.of(value)?.hash)?;
            content.rank = self.floor.get() + content.worth;
            Some(content.datum.clone())
        })
    }

    /// Keeps the results of a node, which took so long.
    fn keep(&self, traits: &[Trait], results: Vec<Datum>, took: Duration) {
        let mut contents = self.contents.borrow_mut();
        for (of, datum) in traits.iter().zip(results) {
            let bytes = size_of_datum(&datum);
            let worth = took.as_secs_f64() / bytes.max(1) as f64;
            let rank = self.floor.get() + worth;
            if contents.insert(of.hash, Content { datum, bytes, worth, rank }).is_none() {
                self.bytes.set(self.bytes.get() + bytes);
            }
        }
        let most = MOST_BYTES.min(budget::current().bytes / SHARE);
        if self.bytes.get() <= most {
            return;
        }
        let mut ranked: Vec<(f64, Hash)> = contents.iter().map(|(hash, c)| (c.rank, *hash)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (rank, hash) in ranked {
            // A bit more than needed, so that not every result sorts them all.
            if self.bytes.get() <= most - most / 8 {
                return;
            }
            if let Some(dropped) = contents.remove(&hash) {
                self.bytes.set(self.bytes.get() - dropped.bytes);
                self.floor.set(rank);
            }
        }
    }

    /// An input or a constant.
    fn leaf(&self, datum: &Datum) -> Trait {
        let Datum::Tensor(tensor) = datum else { return Trait { hash: hash_of(datum), shape: None } };
        let of = |hash| Trait { hash, shape: Some(tensor.shape().to_vec()) };
        if tensor.strings().is_some() {
            return of(hash_of(datum));
        }
        let bytes = tensor.bytes();
        let place = (bytes.as_ptr() as usize, bytes.len(), tensor.shape().to_vec());
        let mut constants = self.constants.borrow_mut();
        if let Some((known, hash)) = constants.get(&place)
            && known.dtype() == tensor.dtype()
        {
            return of(*hash);
        }
        let hash = hash_of(datum);
        if constants.values().map(|(tensor, _)| tensor.bytes().len()).sum::<usize>() > MOST_CONSTANTS {
            constants.clear();
        }
        constants.insert(place, (tensor.clone(), hash));
        of(hash)
    }
}

fn size_of_datum(datum: &Datum) -> u64 {
    match datum {
        Datum::Tensor(tensor) => {
            let strings = tensor.strings().unwrap_or_default().iter().map(|string| string.len() as u64);
            tensor.bytes().len() as u64 + strings.sum::<u64>()
        }
        Datum::Sequence(values) => values.iter().map(size_of_datum).sum(),
        Datum::Optional(value) => value.iter().map(|value| size_of_datum(value)).sum(),
        Datum::Map(map) => [&map.keys, &map.values].iter().map(|t| t.bytes().len() as u64).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;

    const TEXT: &str = "model \"m\" input %0 \"x\" : f32[4]
        %1 = Exp(%0) \"a\"
        %2 = Tanh(%1) \"b\"
        %3 = Add(%2, %1) \"c\"
        output \"y\" = %3";

    fn inputs() -> Tensors {
        [("x".to_owned(), Tensor::from_vec(&[4], vec![0.5f32, -1.0, 0.25, 2.0]))].into_iter().collect()
    }

    #[test]
    fn outputs_are_those_of_the_interpreter_and_what_was_met_is_not_computed_again() {
        let known = Known::default();
        let graph = parse(TEXT).unwrap();
        let wanted = interp::run(&graph, &inputs()).unwrap();
        assert_eq!(known.run(&graph, &inputs()).unwrap(), wanted);
        let nodes = known.results.borrow().len();
        assert_eq!(nodes, 3);
        // Only the last node is another.
        let other = parse(&TEXT.replace("Add(%2, %1)", "Mul(%2, %1)")).unwrap();
        assert_eq!(known.run(&other, &inputs()).unwrap(), interp::run(&other, &inputs()).unwrap());
        assert_eq!(known.results.borrow().len(), nodes + 1);
    }

    #[test]
    fn what_was_dropped_is_computed_again() {
        let known = Known::default();
        let graph = parse(TEXT).unwrap();
        known.run(&graph, &inputs()).unwrap();
        known.contents.borrow_mut().clear();
        known.bytes.set(0);
        assert_eq!(known.run(&graph, &inputs()).unwrap(), interp::run(&graph, &inputs()).unwrap());
    }

    #[test]
    fn little_memory_drops_contents() {
        let known = Known::default();
        let graph = parse(TEXT).unwrap();
        let budget = budget::Budget { bytes: 160, ..budget::Budget::default() };
        let outputs = budget::within(budget, || known.run(&graph, &inputs()).unwrap());
        assert_eq!(outputs, interp::run(&graph, &inputs()).unwrap());
        assert!(known.bytes.get() <= 40, "{}", known.bytes.get());
    }
}
