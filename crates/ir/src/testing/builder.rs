//! A graph in the making, with the actual value of everything in it.

use super::{bounds, eval_shape, is_f32};
use crate::interp::Tensors;
use crate::text::{SplitMix64, random_tensor};
use crate::{Attr, Attrs, Dim, Fact, Graph, Op, Value};
use rabot_tensor::{DType, Tensor};
use std::sync::Arc;

/// Sizes of dims: small ones, and those around vector widths.
const SIZES: &[usize] = &[1, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33];
/// Most elements of a value.
const MAX_ELEMENTS: usize = 4096;
/// Most inexact operations from an input to a value.
const MAX_DEPTH: u32 = 8;
/// Largest magnitude of a float that may go on.
const MAX_FLOAT: f64 = 500.0;
/// Largest magnitude of an integer that may go on: no sum or product of two overflows 64 bits.
const MAX_INT: f64 = 1e6;
/// A result of inexact ops that is smaller than this is mostly rounding error.
const MIN_INEXACT: f64 = 1e-2;

/// A value of the graph, and what it is on the inputs of the graph.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) tensor: Tensor,
    /// No rounding on the way here that another evaluation could do differently.
    pub(super) exact: bool,
    depth: u32,
}

impl Item {
    pub(super) fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    pub(super) fn rank(&self) -> usize {
        self.tensor.rank()
    }

    /// True if all elements lie within the bounds.
    pub(super) fn is_within(&self, lo: f64, hi: f64) -> bool {
        bounds(&self.tensor).is_none_or(|(min, max)| lo <= min && max <= hi)
    }
}

/// What an op does to rounding errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Rounds nothing: the result is as exact as the operands.
    None,
    /// Rounds: another evaluation may differ in the last bits.
    Some,
}

pub(super) struct Builder {
    pub(super) rng: SplitMix64,
    pub(super) graph: Graph,
    pub(super) pool: Vec<Item>,
    inputs: Tensors,
    symbols: Vec<(Arc<str>, usize)>,
    names: usize,
    seed: u64,
}

impl Builder {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let mut symbols: Vec<(Arc<str>, usize)> = Vec::new();
        if rng.chance(0.5) {
            symbols.push(("batch".into(), *rng.pick(&[1, 2, 3, 5])));
            if rng.chance(0.3) {
                symbols.push(("seq".into(), *rng.pick(&[1, 4, 7, 17])));
            }
        }
        let graph = Graph::new(&format!("random_{seed}"));
        Builder { rng, graph, pool: Vec::new(), inputs: Tensors::new(), symbols, names: 0, seed }
    }

    /// The graph, with everything that nobody uses as an output, and its inputs.
    pub(super) fn finish(mut self) -> (Graph, Tensors) {
        let is_computed = |graph: &Graph, item: &Item| {
            !matches!(graph.node(item.value.node).op, Op::Input | Op::Constant(_))
        };
        let computed: Vec<Value> =
            self.pool.iter().filter(|item| is_computed(&self.graph, item)).map(|item| item.value).collect();
        let mut outputs: Vec<Value> =
            computed.iter().copied().filter(|&value| self.graph.users(value).is_empty()).collect();
        // Something that is used inside as well.
        outputs
            .extend(computed.iter().copied().find(|value| !outputs.contains(value) && self.rng.chance(0.2)));
        if outputs.is_empty() {
            outputs.extend(self.pool.last().map(|item| item.value));
        }
        for (index, value) in outputs.into_iter().enumerate() {
            self.graph.add_output(&format!("y{index}"), value);
        }
        self.graph.remove_unused();
        (self.graph, self.inputs)
    }

    /// True for the result of an op that nobody uses.
    fn is_end(&self, item: &Item) -> bool {
        let is_given = matches!(self.graph.node(item.value.node).op, Op::Input | Op::Constant(_));
        !is_given && self.graph.users(item.value).is_empty()
    }

    fn name(&mut self, stem: &str) -> String {
        self.names += 1;
        format!("{}_{}", stem.to_lowercase(), self.names)
    }

    /// Adds a node and evaluates it. `None`, and no node, if the result is not fit for use.
    ///
    /// **Panics** if the op refuses its operands.
    pub(super) fn node(
        &mut self,
        op: &str,
        attrs: Attrs,
        operands: &[Option<&Item>],
        rounding: Rounding,
    ) -> Option<Vec<Item>> {
        match Op::from_attrs(op, &attrs) {
            Some(Ok(op)) => self.node_of(op, operands, rounding),
            Some(Err(error)) => panic!("seed {}: {op} {attrs:?}: {error}", self.seed),
            None => panic!("seed {}: no op `{op}`", self.seed),
        }
    }

    /// As [`Builder::node`], for an op that is made already.
    pub(super) fn node_of(
        &mut self,
        op: Op,
        operands: &[Option<&Item>],
        rounding: Rounding,
    ) -> Option<Vec<Item>> {
        let present = || operands.iter().flatten();
        let depth = present().map(|item| item.depth).max().unwrap_or(0);
        let depth = depth + u32::from(rounding == Rounding::Some);
        if depth > MAX_DEPTH {
            return None;
        }
        let exact = rounding == Rounding::None && present().all(|item| item.exact);
        let name = self.name(op.name());
        let tensors: Vec<Option<&Tensor>> = operands.iter().map(|o| o.map(|item| &item.tensor)).collect();
        let results = op.eval(&tensors);
        let inputs = operands.iter().map(|o| o.map(|item| item.value)).collect();
        let sources = vec![name.as_str().into()];
        let described = format!("{op:?} on {tensors:?}");
        let id = match self.graph.add_node(op, inputs, &name, sources) {
            Ok(id) => id,
            Err(error) => panic!("seed {}: {error}: {described}", self.seed),
        };
        let results = match results {
            Ok(results) => results,
            Err(error) => panic!("seed {}: {error}: {described}", self.seed),
        };
        let may_be_empty = self.rng.chance(0.05);
        let fit = |tensor: &Tensor| {
            let inexact = rounding == Rounding::Some && is_f32(tensor.dtype());
            is_moderate(tensor)
                && !(inexact && is_mostly_error(tensor))
                && (may_be_empty || !tensor.is_empty() || present().any(|item| item.tensor.is_empty()))
        };
        if !results.iter().all(fit) {
            self.graph.remove_node(id);
            return None;
        }
        let items: Vec<Item> = results
            .into_iter()
            .zip(0u32..)
            .map(|(tensor, slot)| Item { value: Value { node: id, slot }, tensor, exact, depth })
            .collect();
        self.pool.extend(items.iter().cloned());
        Some(items)
    }

    /// As [`Builder::node`], for an op with one output.
    pub(super) fn one(
        &mut self,
        op: &str,
        attrs: Attrs,
        operands: &[Option<&Item>],
        rounding: Rounding,
    ) -> Option<Item> {
        self.node(op, attrs, operands, rounding)?.into_iter().next()
    }

    /// A constant that stays out of the pool: a parameter of one op.
    pub(super) fn constant(&mut self, tensor: Tensor) -> Item {
        let name = self.name("const");
        let value = self.graph.add_constant(&name, tensor.clone());
        Item { value, tensor, exact: true, depth: 0 }
    }

    /// A constant list of i64.
    pub(super) fn ints(&mut self, values: &[i64]) -> Item {
        self.constant(Tensor::from_vec(&[values.len()], values.to_vec()))
    }

    /// A constant of uniform f32.
    pub(super) fn floats(&mut self, shape: &[usize], lo: f64, hi: f64) -> Item {
        let tensor = self.random(DType::F32, shape, lo, hi);
        self.constant(tensor)
    }

    fn random(&mut self, dtype: DType, shape: &[usize], lo: f64, hi: f64) -> Tensor {
        let seed = self.rng.next_u64();
        random_tensor(dtype, shape, seed, lo, hi).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A new input, or a constant where all dims are known, with elements in the interval.
    pub(super) fn fresh_within(&mut self, dtype: DType, dims: &[Dim], lo: f64, hi: f64) -> Item {
        let shape = self.sizes(dims);
        let tensor = self.random(dtype, &shape, lo, hi);
        let is_static = dims.iter().all(|d| d.as_const().is_some());
        if is_static && self.rng.chance(0.25) {
            let item = self.constant(tensor);
            self.pool.push(item.clone());
            return item;
        }
        let name = self.name("x");
        let value = self.graph.add_input(&name, Fact::of_type(dtype, dims.to_vec()));
        self.inputs.insert(name, tensor.clone());
        let item = Item { value, tensor, exact: true, depth: 0 };
        self.pool.push(item.clone());
        item
    }

    /// As [`Builder::fresh_within`], with usual values.
    pub(super) fn fresh(&mut self, dtype: DType, dims: &[Dim]) -> Item {
        let (lo, hi) = match dtype {
            DType::F32 => (-2.0, 2.0),
            DType::I8 => (-50.0, 50.0),
            DType::U8 => (0.0, 100.0),
            DType::Bool => (0.0, 1.0),
            _ => (-9.0, 9.0),
        };
        self.fresh_within(dtype, dims, lo, hi)
    }

    /// Sizes of dims over the symbols of the graph's inputs.
    fn sizes(&self, dims: &[Dim]) -> Vec<usize> {
        let lookup = |name: &str| self.symbols.iter().find(|s| *s.0 == *name).map(|s| s.1 as i64);
        eval_shape(dims, &lookup).unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// Dims as the graph knows them.
    pub(super) fn dims(&self, item: &Item) -> Vec<Dim> {
        self.graph.fact(item.value).shape().to_vec()
    }

    /// A size of a dim.
    pub(super) fn size(&mut self) -> usize {
        if self.rng.chance(0.01) { 0 } else { *self.rng.pick(SIZES) }
    }

    /// Dims of a new value; the first is often a symbol where the graph has one.
    pub(super) fn shape(&mut self, min_rank: usize, max_rank: usize) -> Vec<Dim> {
        let rank = min_rank + self.rng.below(max_rank + 1 - min_rank);
        loop {
            let mut dims: Vec<Dim> = (0..rank).map(|_| Dim::from(self.size())).collect();
            for (at, dim) in dims.iter_mut().enumerate() {
                let chance = if at == 0 { 0.6 } else { 0.1 };
                if !self.symbols.is_empty() && self.rng.chance(chance) {
                    let last = self.symbols.len() - 1;
                    let (name, _) = &self.symbols[if at == 0 { 0 } else { last }];
                    *dim = Dim::symbol(name.clone());
                }
            }
            if self.sizes(&dims).iter().product::<usize>() <= MAX_ELEMENTS / 2 {
                return dims;
            }
        }
    }

    /// True if an input can be declared with this dim: a number or a symbol of the graph.
    pub(super) fn is_plain(&self, dim: &Dim) -> bool {
        dim.as_const().is_some() || dim.as_symbol().is_some_and(|n| self.symbols.iter().any(|s| *s.0 == *n))
    }

    /// An item that fits, rather a late one, or one that nobody uses yet, so that chains form.
    pub(super) fn pick(&mut self, fits: impl Fn(&Item) -> bool) -> Option<Item> {
        const LATE: usize = 4;
        let mut found: Vec<usize> = (0..self.pool.len()).filter(|&at| fits(&self.pool[at])).collect();
        let ends: Vec<usize> = found.iter().copied().filter(|&at| self.is_end(&self.pool[at])).collect();
        if !ends.is_empty() && self.rng.chance(0.7) {
            found = ends;
        }
        let from = if self.rng.chance(0.7) { found.len().saturating_sub(LATE) } else { 0 };
        let late = &found[from..];
        if late.is_empty() { None } else { Some(self.pool[*self.rng.pick(late)].clone()) }
    }

    /// An item of the dtype and a rank in the range, from the pool or new.
    pub(super) fn item(&mut self, dtype: DType, min_rank: usize, max_rank: usize) -> Item {
        let fits = |item: &Item| item.dtype() == dtype && (min_rank..=max_rank).contains(&item.rank());
        let found = if self.rng.chance(0.8) { self.pick(fits) } else { None };
        match found {
            Some(item) => item,
            None => {
                let dims = self.shape(min_rank, max_rank);
                self.fresh(dtype, &dims)
            }
        }
    }

    /// As [`Builder::item`], without rounding errors.
    pub(super) fn exact(&mut self, dtype: DType, min_rank: usize, max_rank: usize) -> Item {
        let item = self.item(dtype, min_rank, max_rank);
        if item.exact {
            return item;
        }
        let dims = self.shape(min_rank, max_rank);
        self.fresh(dtype, &dims)
    }

    /// An item of some dtype that moves work on.
    pub(super) fn any(&mut self, min_rank: usize, max_rank: usize) -> Item {
        let others = [DType::I64, DType::I32, DType::U8, DType::I8, DType::Bool];
        let dtype = if self.rng.chance(0.7) { DType::F32 } else { *self.rng.pick(&others) };
        self.item(dtype, min_rank, max_rank)
    }

    /// The item, or one of the same shape, with elements in the interval.
    pub(super) fn within(&mut self, item: Item, lo: f64, hi: f64) -> Option<Item> {
        if item.is_within(lo, hi) {
            return Some(item);
        }
        let dims = self.dims(&item);
        if item.dtype() == DType::F32 && self.rng.chance(0.5) {
            let bounds = [lo, hi].map(|v| Tensor::scalar(v as f32));
            let [lo, hi] = bounds.map(|bound| self.constant(bound));
            return self.one("Clip", Attrs::new(), &[Some(&item), Some(&lo), Some(&hi)], Rounding::None);
        }
        dims.iter().all(|d| self.is_plain(d)).then(|| self.fresh_within(item.dtype(), &dims, lo, hi))
    }

    /// Dims that broadcast against these without changing them; with `extend`, sometimes of higher rank.
    pub(super) fn broadcastable(&mut self, dims: &[Dim], extend: bool) -> Vec<Dim> {
        let dropped = if self.rng.chance(0.3) { self.rng.below(dims.len() + 1) } else { 0 };
        let mut result: Vec<Dim> = Vec::new();
        if extend && dropped == 0 && dims.len() < 4 && self.rng.chance(0.1) {
            result.push(Dim::from(*self.rng.pick(&[1, 2, 3])));
        }
        for dim in &dims[dropped..] {
            let one = !self.is_plain(dim) || self.rng.chance(0.2);
            result.push(if one { Dim::from(1) } else { dim.clone() });
        }
        result
    }

    /// An item that broadcasts against this one: of the same shape from the pool, or new.
    pub(super) fn partner(&mut self, item: &Item, dtype: DType, extend: bool) -> Item {
        let dims = self.dims(item);
        if self.rng.chance(0.5) {
            let graph = &self.graph;
            let same: Vec<bool> =
                self.pool.iter().map(|other| graph.fact(other.value).shape() == dims).collect();
            let values: Vec<Value> =
                self.pool.iter().zip(same).filter(|(_, same)| *same).map(|(other, _)| other.value).collect();
            let fits = |other: &Item| other.dtype() == dtype && values.contains(&other.value);
            if let Some(found) = self.pick(|other| fits(other) && other.value != item.value) {
                return found;
            }
        }
        let dims = self.broadcastable(&dims, extend);
        self.fresh(dtype, &dims)
    }

    /// An axis, sometimes counted from the end.
    pub(super) fn signed_axis(&mut self, axis: usize, rank: usize) -> i64 {
        if self.rng.chance(0.4) { axis as i64 - rank as i64 } else { axis as i64 }
    }
}

/// Attributes from integers; for building in a line.
pub(super) fn int_attrs(entries: &[(&str, i64)]) -> Attrs {
    entries.iter().map(|(name, value)| ((*name).to_owned(), Attr::Int(*value))).collect()
}

/// Numbers that further ops can work on without overflow or loss.
fn is_moderate(tensor: &Tensor) -> bool {
    if tensor.len() > MAX_ELEMENTS {
        return false;
    }
    let limit = if tensor.dtype().is_float() { MAX_FLOAT } else { MAX_INT };
    tensor.to_f64s().iter().all(|v| v.is_finite() && v.abs() <= limit)
}

fn is_mostly_error(tensor: &Tensor) -> bool {
    bounds(tensor).is_some_and(|(lo, hi)| lo.abs().max(hi.abs()) < MIN_INEXACT)
}
