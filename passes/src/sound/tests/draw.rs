//! Graphs that patterns may match, made at random.
//!
//! A term becomes a node, an input or a constant. The first operand of a node decides on the shapes, dtypes and
//! attributes that the others get; what an op refuses all the same is drawn again by the caller.

use super::values::random;
use rabot_ir::text::SplitMix64;
use rabot_ir::{Attr, Attrs, Dim, Fact, Graph, Op, Value};
use rabot_rewrite::{Operand, Pattern, Term, Valid};
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

/// What a value should be.
#[derive(Clone)]
struct Spec {
    dtype: DType,
    shape: Vec<Dim>,
    content: Content,
}

#[derive(Clone)]
enum Content {
    /// Any numbers.
    Any,
    /// Numbers above 0.
    Positive,
    /// These integers.
    Ints(Vec<i64>),
    /// This number everywhere.
    Number(f64),
}

pub(super) struct Draw<'a> {
    rng: &'a mut SplitMix64,
    valid: Valid,
    graph: Graph,
    bound: HashMap<String, Value>,
    symbol: Option<usize>,
    names: usize,
}

/// Ops of one operand whose first operand is an image.
const IMAGES: &[&str] = &["Conv", "ConvTranspose", "AveragePool", "MaxPool", "BatchNormalization"];
/// Ops whose operands broadcast.
const BROADCAST: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "Where",
    "PRelu",
];

fn ints(values: &[i64]) -> Spec {
    Spec { dtype: DType::I64, shape: vec![Dim::from(values.len())], content: Content::Ints(values.to_vec()) }
}

fn int(attrs: Attrs, name: &str, value: i64) -> Attrs {
    attrs.with(name, Attr::Int(value))
}

impl<'a> Draw<'a> {
    pub(super) fn new(rng: &'a mut SplitMix64, valid: Valid) -> Self {
        let symbol = rng.chance(0.3).then(|| *rng.pick(&[0, 1, 2, 3]));
        Draw { rng, valid, graph: Graph::new("drawn"), bound: HashMap::new(), symbol, names: 0 }
    }

    /// A graph whose output is the root of the pattern, and sizes of its symbols; `None` if something does not fit.
    pub(super) fn graph(mut self, pattern: &Pattern) -> Option<(Graph, Vec<(String, usize)>)> {
        let dtype = match self.rng.below(10) {
            0 => DType::F64,
            1 => DType::F16,
            2 => DType::I64,
            3 => DType::I32,
            4 => *self.rng.pick(&[DType::U8, DType::I8, DType::BF16]),
            5 => DType::Bool,
            _ => DType::F32,
        };
        let shape = self.shape();
        let root = self.term(pattern.root(), &Spec { dtype, shape, content: Content::Any })?;
        let outputs = self.graph.node(root.node).outputs.len() as u32;
        for slot in 0..outputs {
            self.graph.add_output(&format!("y{slot}"), Value { slot, ..root });
        }
        Some((self.graph, self.symbol.map(|size| ("n".to_owned(), size)).into_iter().collect()))
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn size(&mut self) -> usize {
        if self.rng.chance(0.04) { 0 } else { *self.rng.pick(&[1, 1, 2, 2, 3, 4, 5]) }
    }

    fn shape(&mut self) -> Vec<Dim> {
        let rank = self.rng.below(5);
        // Mistakes in the order of axes do not show in types where all are of one size.
        let cube = self.rng.chance(0.3).then(|| 2 + self.rng.below(2));
        let mut shape: Vec<Dim> = (0..rank).map(|_| Dim::from(cube.unwrap_or_else(|| self.size()))).collect();
        if let (Some(first), true) = (shape.first_mut(), self.symbol.is_some()) {
            *first = Dim::symbol("n");
        }
        shape
    }

    fn image(&mut self) -> Vec<Dim> {
        let mut shape =
            vec![if self.symbol.is_some() { Dim::symbol("n") } else { Dim::from(1 + self.rng.below(2)) }];
        shape.push(Dim::from(*self.rng.pick(&[1, 2, 4])));
        let spatial = 1 + self.rng.below(2);
        shape.extend((0..spatial).map(|_| Dim::from(3 + self.rng.below(4))));
        shape
    }

    /// A shape that broadcasts with this one.
    fn broadcast(&mut self, shape: &[Dim]) -> Vec<Dim> {
        match self.rng.below(4) {
            0 => Vec::new(),
            1 => shape.to_vec(),
            2 => shape
                .iter()
                .map(|dim| if self.rng.chance(0.5) { Dim::from(1) } else { dim.clone() })
                .collect(),
            _ => shape[self.rng.below(shape.len() + 1)..].to_vec(),
        }
    }

    fn term(&mut self, term: &Term, spec: &Spec) -> Option<Value> {
        match term {
            Term::Number(number) => {
                let shape = vec![Dim::from(1); self.rng.below(2)];
                self.leaf(&Spec { dtype: spec.dtype, shape, content: Content::Number(*number) }, true)
            }
            Term::Any { name, constant } => {
                if let Some(&value) = self.bound.get(name) {
                    return Some(value);
                }
                let plain = *constant || !matches!(spec.content, Content::Any) || self.rng.chance(0.8);
                let value = if plain { self.leaf(spec, *constant)? } else { self.chain(spec)? };
                if !name.starts_with('_') {
                    self.bound.insert(name.clone(), value);
                }
                Some(value)
            }
            Term::Node { label, ops, operands, open } => {
                let op = self.rng.pick(ops).clone();
                let value = self.node(&op, operands, *open, spec)?;
                if let Some(label) = label {
                    self.bound.insert(label.clone(), value);
                }
                Some(value)
            }
        }
    }

    fn leaf(&mut self, spec: &Spec, constant: bool) -> Option<Value> {
        let name = self.name();
        if !constant && matches!(spec.content, Content::Any) {
            return Some(self.graph.add_input(&name, Fact::of_type(spec.dtype, spec.shape.clone())));
        }
        let sizes: Vec<usize> = spec.shape.iter().map(|dim| dim.as_usize().unwrap_or(1)).collect();
        let len: usize = sizes.iter().product();
        let tensor = match &spec.content {
            // Neutral elements are what many rules look for.
            Content::Any if spec.dtype.is_float() && self.rng.chance(0.5) => {
                let number = *self.rng.pick(&[1.0, 0.0, -0.0, 2.0, 0.5, -4.0, 3.0]);
                let lowest = self.valid == Valid::Always && self.rng.chance(0.2);
                let number = if lowest { f64::NEG_INFINITY } else { number };
                Tensor::from_f64s(spec.dtype, &sizes, &vec![number; len])
            }
            Content::Any if spec.dtype.is_int() && self.rng.chance(0.5) => {
                Tensor::from_i64s(spec.dtype, &sizes, &vec![self.rng.int(0, 2); len])
            }
            Content::Any => random(self.rng, spec.dtype, &sizes, self.valid)?,
            Content::Positive => {
                let values: Vec<f64> = (0..len).map(|_| self.rng.uniform(0.2, 3.0)).collect();
                Tensor::from_f64s(spec.dtype, &sizes, &values)
            }
            Content::Ints(values) => Tensor::from_i64s(spec.dtype, &sizes, values),
            Content::Number(number) => Tensor::from_f64s(spec.dtype, &sizes, &vec![*number; len]),
        };
        Some(self.graph.add_constant(&name, tensor))
    }

    /// A function of a view of inputs, which rules that look further than their patterns may see through.
    fn chain(&mut self, spec: &Spec) -> Option<Value> {
        let make = |name: &str, attrs: &Attrs| Op::from_attrs(name, attrs)?.ok();
        let x = self.leaf(spec, false)?;
        let view = match self.rng.below(3) {
            0 => return Some(x),
            1 => self.add(make("Transpose", &Attrs::new())?, vec![Some(x)])?,
            _ => {
                let target = self.reshaped(&spec.shape);
                let target = self.leaf(&target, true)?;
                self.add(make("Reshape", &Attrs::new())?, vec![Some(x), Some(target)])?
            }
        };
        let function = *self.rng.pick(&["Neg", "Abs", "Relu", "Add"]);
        let operands = match function {
            "Add" => {
                let other = Spec { shape: vec![], ..spec.clone() };
                vec![Some(view), Some(self.leaf(&other, true)?)]
            }
            _ => vec![Some(view)],
        };
        self.add(make(function, &Attrs::new())?, operands)
    }

    // tidy: long, because each kind of operand is drawn in its own way.
    fn node(&mut self, op: &str, operands: &[Operand], open: bool, spec: &Spec) -> Option<Value> {
        if op == "Concat" {
            return self.concat(operands, spec);
        }
        // What decides: a node rather than an input, and that rather than a constant.
        let rank = |operand: &Operand| match operand.term {
            Term::Node { .. } => 0,
            Term::Any { constant: false, .. } => 1,
            _ => 2,
        };
        let broadcasts = BROADCAST.contains(&op);
        let main =
            if broadcasts { (0..operands.len()).min_by_key(|&slot| rank(&operands[slot]))? } else { 0 };
        let mut wanted = spec.clone();
        if IMAGES.contains(&op) && wanted.shape.len() < 3 {
            wanted.shape = self.image();
        }
        if matches!(op, "Gemm" | "MatMul") {
            wanted.shape = vec![Dim::from(1 + self.rng.below(3)), Dim::from(1 + self.rng.below(4))];
        }
        if op == "Cast" {
            let dtypes = [
                DType::F32,
                DType::F64,
                DType::F16,
                DType::I32,
                DType::I64,
                DType::U8,
                DType::I8,
                DType::Bool,
            ];
            wanted.dtype = *self.rng.pick(&dtypes);
        }
        let first = self.term(&operands[main].term, &wanted)?;
        let fact = self.graph.fact(first).clone();
        if !fact.ty.is_tensor() {
            return None;
        }
        let (attrs, specs) = self.plan(op, &fact, operands.len())?;
        let mut inputs = Vec::new();
        for (slot, operand) in operands.iter().enumerate() {
            let absent = operand.optional && (slot > specs.len() || self.rng.chance(0.4));
            inputs.push(match slot {
                _ if slot == main => Some(first),
                _ if absent => None,
                _ if broadcasts => {
                    let dtype = if op == "Where" && slot == 0 { DType::Bool } else { fact.dtype() };
                    let shape = self.broadcast(fact.shape());
                    Some(self.term(&operand.term, &Spec { dtype, shape, content: Content::Any })?)
                }
                _ => Some(self.term(&operand.term, specs.get(slot - 1)?)?),
            });
        }
        if open {
            for spec in specs.iter().skip(operands.len().saturating_sub(1)) {
                inputs.push(Some(self.leaf(spec, true)?));
            }
        }
        if broadcasts
            && inputs.len() == 2
            && matches!(op, "Add" | "Mul" | "Max" | "Min" | "Sum")
            && self.rng.chance(0.5)
        {
            inputs.swap(0, 1);
        }
        let op = Op::from_attrs(op, &attrs)?.ok()?;
        self.add(op, inputs)
    }

    fn add(&mut self, op: Op, mut inputs: Vec<Option<Value>>) -> Option<Value> {
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let name = self.name();
        let node = self.graph.add_node(op, inputs, &name, vec![name.as_str().into()]).ok()?;
        Some(Value { node, slot: 0 })
    }

    fn permutation(&mut self, rank: usize) -> Vec<i64> {
        let mut perm: Vec<i64> = (0..rank as i64).collect();
        if self.rng.chance(0.8) {
            for at in (1..rank).rev() {
                perm.swap(at, self.rng.below(at + 1));
            }
        }
        perm
    }

    fn axis(&mut self, rank: usize) -> Option<i64> {
        (rank > 0).then(|| self.rng.below(rank) as i64 - if self.rng.chance(0.3) { rank as i64 } else { 0 })
    }

    /// Attributes of an op, and what its operands after the first should be.
    // tidy: long, because it is a table with one entry an op.
    fn plan(&mut self, op: &str, fact: &Fact, count: usize) -> Option<(Attrs, Vec<Spec>)> {
        let (shape, rank, dtype) = (fact.shape().to_vec(), fact.rank(), fact.dtype());
        let float = |shape: Vec<Dim>| Spec { dtype, shape, content: Content::Any };
        let none = Attrs::new();
        Some(match op {
            "Transpose" if self.rng.chance(0.8) => {
                (none.with("perm", Attr::Ints(self.permutation(rank))), vec![])
            }
            "HardSigmoid" if self.rng.chance(0.7) => {
                (none.with("alpha", Attr::Float(1.0 / 6.0)).with("beta", Attr::Float(0.5)), vec![])
            }
            "Cast" => {
                let to = self.rng.pick(&["f32", "f64", "f16", "i32", "i64", "u8", "bool"]);
                let to = if self.rng.chance(0.2) { dtype.name() } else { *to };
                (none.with("to", Attr::Str(to.to_owned())), vec![])
            }
            "Flatten" => (int(none, "axis", self.rng.below(rank + 1) as i64), vec![]),
            "Shape" => (int(none, "start", self.rng.int(0, rank as i64)), vec![]),
            "Reshape" => (none, vec![self.reshaped(&shape)]),
            "Unsqueeze" => {
                let axes: Vec<i64> = (0..=rank as i64).filter(|_| self.rng.chance(0.4)).collect();
                (none, vec![ints(&axes)])
            }
            "Squeeze" => {
                let ones = (0..rank as i64).filter(|&axis| shape[axis as usize].is(1));
                let axes: Vec<i64> = ones.filter(|_| self.rng.chance(0.6)).collect();
                (none, vec![ints(&axes)])
            }
            "Expand" => {
                let mut target: Vec<i64> = Vec::new();
                if self.rng.chance(0.2) {
                    target.push(self.rng.int(1, 3));
                }
                for dim in &shape {
                    let grows = dim.is(1) && self.rng.chance(0.6);
                    target.push(if grows { self.rng.int(0, 3) } else { dim.as_const().unwrap_or(1) });
                }
                (none, vec![ints(&target)])
            }
            "Slice" => (none, self.slice(&shape)),
            "Split" => {
                let axis = self.axis(rank)?;
                let dim = shape[axis.rem_euclid(rank as i64) as usize].as_const()?;
                let cut = self.rng.int(0, dim);
                let sizes = if self.rng.chance(0.4) { vec![dim] } else { vec![cut, dim - cut] };
                (int(int(none, "axis", axis), "num_outputs", sizes.len() as i64), vec![ints(&sizes)])
            }
            "Gather" => {
                let axis = self.axis(rank)?;
                let dim = shape[axis.rem_euclid(rank as i64) as usize].as_const().filter(|&dim| dim > 0)?;
                let (a, b) = (self.rng.int(0, dim - 1), self.rng.int(0, dim - 1));
                let indices: Vec<i64> =
                    if self.rng.chance(0.7) { (a.min(b)..=a.max(b)).collect() } else { vec![a, b] };
                let mut spec = ints(&indices);
                if self.rng.chance(0.3) {
                    spec = Spec { shape: vec![], content: Content::Ints(vec![a]), ..spec };
                }
                (int(none, "axis", axis), vec![spec])
            }
            "Pad" => {
                let lowest = if self.rng.chance(0.1) { -1 } else { 0 };
                let most = if self.rng.chance(0.3) { 0 } else { 2 };
                let plane = if rank > 2 && self.rng.chance(0.7) { 2 } else { 0 };
                let amounts =
                    (0..2 * rank).map(|at| if at % rank < plane { 0 } else { self.rng.int(lowest, most) });
                let amounts: Vec<i64> = amounts.collect();
                let value = *self.rng.pick(&[0.0, 0.0, -0.0, 1.0, f64::NEG_INFINITY]);
                let axes: Vec<i64> = (0..rank as i64).collect();
                let value = Spec { dtype, shape: vec![], content: Content::Number(value) };
                let mode = *self.rng.pick(&["constant", "constant", "constant", "constant", "edge"]);
                (none.with("mode", Attr::Str(mode.to_owned())), vec![ints(&amounts), value, ints(&axes)])
            }
            "Conv" | "ConvTranspose" | "AveragePool" | "MaxPool" => return self.window(op, &shape, dtype),
            "BatchNormalization" => {
                let channels = || vec![shape.get(1).cloned().unwrap_or(Dim::from(1))];
                let positive = Spec { content: Content::Positive, ..float(channels()) };
                (none, vec![float(channels()), float(channels()), float(channels()), positive])
            }
            "Gemm" | "MatMul" => {
                let (n, k) = (Dim::from(1 + self.rng.below(3)), shape.last()?.clone());
                let mut attrs = none;
                let mut weights = vec![k, n.clone()];
                if op == "Gemm" && self.rng.chance(0.5) {
                    attrs = int(attrs, "transB", 1)
                        .with("alpha", Attr::Float(0.5))
                        .with("beta", Attr::Float(2.0));
                    weights.reverse();
                }
                (attrs, vec![float(weights), float(vec![n])])
            }
            "LayerNormalization" => {
                let last = shape.last()?.clone();
                let ones = Spec { content: Content::Number(1.0), ..float(vec![last.clone()]) };
                (int(none, "axis", -1), vec![ones, float(vec![last])])
            }
            _ if op.starts_with("Reduce") => {
                let axes = if self.rng.chance(0.7) { vec![-1] } else { vec![self.axis(rank)?] };
                let keep = i64::from(self.rng.chance(0.85));
                (int(none, "keepdims", keep), vec![ints(&axes)])
            }
            "Softmax" | "LogSoftmax" => (int(none, "axis", -1), vec![]),
            "Clip" => (none, vec![float(vec![]); 2]),
            _ => (none, vec![float(shape); count]),
        })
    }

    /// A target of a Reshape.
    fn reshaped(&mut self, shape: &[Dim]) -> Spec {
        let known: Option<Vec<i64>> = shape.iter().map(Dim::as_const).collect();
        let target = match (self.rng.below(5), known) {
            (0, Some(known)) => known,
            (1, Some(known)) if !known.contains(&0) => known.into_iter().filter(|&dim| dim != 1).collect(),
            (2, Some(known)) if known.len() > 1 && !known.contains(&0) => {
                let (first, rest) = (known[0], &known[1..]);
                [&[first * rest[0]], &rest[1..]].concat()
            }
            (3, Some(known)) if !known.contains(&0) => [known, vec![1]].concat(),
            (_, _) if !shape.is_empty() && self.rng.chance(0.5) => vec![0, -1],
            _ => vec![-1],
        };
        ints(&target)
    }

    /// Starts, ends, axes and steps.
    fn slice(&mut self, shape: &[Dim]) -> Vec<Spec> {
        let (mut starts, mut ends, mut axes, mut steps) = (vec![], vec![], vec![], vec![]);
        for (axis, dim) in shape.iter().enumerate() {
            if self.rng.chance(0.4) {
                continue;
            }
            let dim = dim.as_const().unwrap_or(3);
            let all = self.rng.chance(0.25);
            starts.push(if all { 0 } else { self.rng.int(-dim - 1, dim + 1) });
            ends.push(if all || self.rng.chance(0.3) { i64::MAX } else { self.rng.int(-dim - 1, dim + 2) });
            axes.push(axis as i64);
            steps.push(*self.rng.pick(&[1, 1, 1, 2, 3, -1]));
        }
        [starts, ends, axes, steps].iter().map(|list| ints(list)).collect()
    }

    fn window(&mut self, op: &str, shape: &[Dim], dtype: DType) -> Option<(Attrs, Vec<Spec>)> {
        let spatial = shape.len().checked_sub(2).filter(|&spatial| spatial > 0)?;
        let channels = shape[1].as_const()?;
        let mut attrs = Attrs::new();
        let kernel: Vec<i64> = (0..spatial).map(|_| self.rng.int(1, 3)).collect();
        if self.rng.chance(0.4) {
            attrs.set("strides", Attr::Ints(vec![2; spatial]));
        }
        if self.rng.chance(0.4) {
            attrs.set(
                "pads",
                Attr::Ints((0..2 * spatial).map(|at| self.rng.int(0, kernel[at % spatial] - 1)).collect()),
            );
        }
        if op.ends_with("Pool") {
            attrs.set("kernel_shape", Attr::Ints(kernel));
            attrs.set("ceil_mode", Attr::Int(i64::from(self.rng.chance(0.2))));
            if op == "AveragePool" && self.rng.chance(0.5) {
                attrs.set("count_include_pad", Attr::Int(1));
            }
            return Some((attrs, vec![]));
        }
        let group = *self.rng.pick(&[1, channels.max(1)]);
        attrs.set("group", Attr::Int(group));
        let out = self.rng.int(1, 2);
        let mut weights = match op {
            "Conv" => vec![out * group, channels / group],
            _ => vec![channels, out],
        };
        weights.extend(kernel);
        let of = |shape: Vec<i64>| Spec {
            dtype,
            shape: shape.into_iter().map(Dim::from).collect(),
            content: Content::Any,
        };
        Some((attrs, vec![of(weights), of(vec![out * group])]))
    }

    /// A Concat of what rules about it look for: parts of one value, other Concats, operands without elements.
    // tidy: long, because it lists the kinds of operands that rules look for.
    fn concat(&mut self, operands: &[Operand], spec: &Spec) -> Option<Value> {
        let base = Spec {
            shape: if spec.shape.is_empty() { vec![Dim::from(2)] } else { spec.shape.clone() },
            ..spec.clone()
        };
        let rank = base.shape.len();
        let axis = self.rng.below(rank);
        let concat = |draw: &mut Self, values: Vec<Value>, axis: usize| {
            let op = Op::from_attrs("Concat", &int(Attrs::new(), "axis", axis as i64))?.ok()?;
            draw.add(op, values.into_iter().map(Some).collect())
        };
        let mut values: Vec<Value> = Vec::new();
        for operand in operands {
            values.push(self.term(&operand.term, &base)?);
        }
        if !values.is_empty() && self.rng.chance(0.5) {
            return concat(self, values, axis);
        }
        let x = match values.first() {
            Some(&value) => value,
            None => self.leaf(&base, false)?,
        };
        let shape = self.graph.fact(x).shape().to_vec();
        let axis = axis.min(shape.len().checked_sub(1)?);
        let dim = shape[axis].as_const();
        match self.rng.below(5) {
            0 => {
                let inner = concat(self, vec![x, x], axis)?;
                let other = self.leaf(&Spec { shape, ..base }, false)?;
                values = vec![other, inner];
            }
            1 => {
                let mut empty = shape;
                empty[axis] = Dim::from(0);
                values = vec![x, self.leaf(&Spec { shape: empty, ..base }, false)?];
            }
            2 => {
                let dim = dim?;
                let cut = self.rng.int(0, dim);
                let sizes = self.leaf(&ints(&[cut, dim - cut]), true)?;
                let attrs = int(int(Attrs::new(), "axis", axis as i64), "num_outputs", 2);
                let split = self.add(Op::from_attrs("Split", &attrs)?.ok()?, vec![Some(x), Some(sizes)])?;
                values = vec![split, Value { slot: 1, ..split }];
            }
            3 => {
                let bounds = [0, self.rng.int(-3, 3), *self.rng.pick(&[i64::MAX, -1, 2])];
                values = vec![];
                for pair in bounds.windows(2) {
                    let lists = [pair[0], pair[1], axis as i64].map(|bound| ints(&[bound]));
                    let mut inputs = vec![Some(x)];
                    for list in &lists {
                        inputs.push(Some(self.leaf(list, true)?));
                    }
                    values.push(self.add(Op::from_attrs("Slice", &Attrs::new())?.ok()?, inputs)?);
                }
                if self.rng.chance(0.3) {
                    values.push(self.leaf(&Spec { shape, ..base }, false)?);
                }
            }
            _ => {
                let cut = self.rng.int(0, rank as i64);
                let attrs = [int(Attrs::new(), "end", cut), int(Attrs::new(), "start", cut)];
                values = vec![];
                for attrs in attrs {
                    values.push(self.add(Op::from_attrs("Shape", &attrs)?.ok()?, vec![Some(x)])?);
                }
                return concat(self, values, 0);
            }
        }
        concat(self, values, axis)
    }
}
