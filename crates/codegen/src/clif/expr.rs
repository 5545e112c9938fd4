//! The emitter of scalar DAGs, shared by loop and contract kernels.
//!
//! A [`Point`] says where in the iteration space code is emitted for: the coordinates, and which of them runs
//! along the lanes of a vector, if any. [`eval`] gives the value of a node there, [`store`] writes one. Values that
//! do not depend on the lanes are computed once, as scalars; 64-bit values and calls are computed lane by lane;
//! all others are vectors. Every operation is the same on scalars and on lanes, so the bits are too.
//!
//! Usage, for each element or vector of elements:
//! ```ignore
//! let mut memo = Memo::new(&dag);
//! eval(cx, &dag, &point, &mut memo, &roots)?;   // all values first: a store may overwrite, in place, what is read
//! for s in &stores { store(cx, &dag, &point, &mut memo, s)?; }
//! ```

use crate::clif::access::{ByteStride, load, store_value};
use crate::clif::cast::{cast, register_class, wrap};
use crate::clif::context::{KernelCx, LANES};
use crate::clif::math;
use crate::clif::ops::Ops;
use crate::error::KernelError;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F64, I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use rabot_kernel::{BinaryFn, Coord, Dag, Expr, ExprId, Store, UnaryFn};
use rabot_tensor::DType;

/// Status that a kernel reports for an index out of range.
pub const STATUS_INDEX: i64 = 1;
/// Status that a kernel reports for an integer division by zero.
pub const STATUS_DIVISION: i64 = 2;

/// A value of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Val {
    /// The same for every lane: a scalar.
    Uniform(Value),
    /// Four lanes of 32 bits: F32X4 or I32X4 (bool: a mask).
    Vector(Value),
    /// One scalar for each lane.
    Lanes([Value; LANES]),
}

/// A coordinate at a point: `base + add`, where an absent base is 0.
#[derive(Clone, Debug, Default)]
pub struct CoordValue {
    /// Part that is known when the kernel runs, i64.
    pub base: Option<Value>,
    /// Part that is known now. For the lane coordinate, this is the one of lane 0.
    pub add: i64,
    /// Products `base · stride`, in bytes, that a loop keeps in variables; others are multiplied out.
    pub running: Vec<(ByteStride, Value)>,
}

impl CoordValue {
    /// A coordinate known now.
    pub fn constant(value: i64) -> Self {
        CoordValue { base: None, add: value, running: Vec::new() }
    }

    /// A coordinate known when the kernel runs.
    pub fn variable(value: Value) -> Self {
        CoordValue { base: Some(value), add: 0, running: Vec::new() }
    }

    /// This one plus a constant.
    pub fn plus(&self, add: i64) -> Self {
        CoordValue { add: self.add + add, ..self.clone() }
    }
}

/// Where code is emitted for.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// The coordinates, by number.
    pub coords: Vec<CoordValue>,
    /// The coordinate that runs along the lanes; absent for scalar code.
    pub lane: Option<Coord>,
    /// Results of reductions of earlier stages.
    pub reduced: Vec<Val>,
    /// The accumulator of a contraction.
    pub accumulator: Option<Val>,
}

impl Point {
    /// The coordinate with this number.
    ///
    /// **Errors**: there is none.
    pub fn coord(&self, coord: Coord) -> Result<&CoordValue, KernelError> {
        let count = self.coords.len();
        self.coords.get(coord).ok_or(KernelError::Index { what: "coordinate", index: coord, count })
    }
}

/// Values already emitted for a point. A clone may be used for another point that differs in coordinates on which
/// none of the values depends.
#[derive(Clone, Debug)]
pub struct Memo(Vec<Option<Val>>);

impl Memo {
    /// Nothing emitted yet.
    pub fn new(dag: &Dag) -> Self {
        Memo(vec![None; dag.nodes().len()])
    }

    /// The value of a node, if it was emitted.
    pub fn get(&self, id: ExprId) -> Option<Val> {
        self.0.get(id).copied().flatten()
    }

    /// Sets the value of a node.
    pub fn set(&mut self, id: ExprId, value: Val) {
        if let Some(slot) = self.0.get_mut(id) {
            *slot = Some(value);
        }
    }
}

/// Operands of a node.
pub fn operands(expr: &Expr) -> Vec<ExprId> {
    match expr {
        Expr::Const(_) | Expr::Size(_) | Expr::Index(_) | Expr::Reduced(_) | Expr::Accumulator => Vec::new(),
        Expr::Load { access, .. } => access.dynamic.iter().map(|(id, _)| *id).collect(),
        Expr::Unary(_, a) | Expr::Cast(a) | Expr::Bitcast(a) | Expr::CheckIndex { index: a, .. } => vec![*a],
        Expr::Binary(_, a, b) => vec![*a, *b],
        Expr::MulAdd(a, b, c) | Expr::Select(a, b, c) => vec![*a, *b, *c],
    }
}

/// Emits the nodes that `roots` need and that are not in the memo.
///
/// **Errors**: an operation that is not compiled for its dtype, or a description that is inconsistent.
pub fn eval(
    cx: &mut KernelCx,
    dag: &Dag,
    at: &Point,
    memo: &mut Memo,
    roots: &[ExprId],
) -> Result<(), KernelError> {
    let mut needed = vec![false; dag.nodes().len()];
    for &root in roots {
        check_id(dag, root)?;
        needed[root] = memo.get(root).is_none();
    }
    for id in (0..dag.nodes().len()).rev() {
        if needed[id] {
            for operand in operands(&dag[id].expr) {
                if operand >= id {
                    return Err(KernelError::Inconsistent(format!(
                        "node {id} uses node {operand}, which follows it"
                    )));
                }
                needed[operand] |= memo.get(operand).is_none();
            }
        }
    }
    for id in (0..dag.nodes().len()).filter(|&id| needed[id]) {
        let value = Node { cx, dag, at, memo, id }.emit()?;
        memo.set(id, value);
    }
    Ok(())
}

fn check_id(dag: &Dag, id: ExprId) -> Result<(), KernelError> {
    let count = dag.nodes().len();
    if id < count { Ok(()) } else { Err(KernelError::Index { what: "node", index: id, count }) }
}

/// Writes the value of a node, which must be in the memo, converted to the dtype of the argument.
///
/// **Errors**: as [`eval`].
pub fn store(
    cx: &mut KernelCx,
    dag: &Dag,
    at: &Point,
    memo: &mut Memo,
    store: &Store,
) -> Result<(), KernelError> {
    let mut roots = vec![store.value];
    roots.extend(store.access.dynamic.iter().map(|(id, _)| *id));
    eval(cx, dag, at, memo, &roots)?;
    let value = value_of(memo, store.value)?;
    store_value(cx, at, memo, store, dag.dtype(store.value), value)
}

/// The value of a node that was emitted.
///
/// **Errors**: it was not.
pub fn value_of(memo: &Memo, id: ExprId) -> Result<Val, KernelError> {
    memo.get(id).ok_or_else(|| KernelError::Inconsistent(format!("node {id} is used before it is computed")))
}

/// A value as a vector. `dtype` must be held in 32-bit lanes.
pub fn to_vector(cx: &mut KernelCx, dtype: DType, value: Val) -> Value {
    let ops = &mut Ops { cx, wide: true };
    match value {
        Val::Vector(value) => value,
        Val::Uniform(value) => {
            let value = lane_scalar(ops.cx, dtype, value);
            let ty = vector_type(dtype);
            ops.cx.builder.ins().splat(ty, value)
        }
        Val::Lanes(lanes) => {
            let lanes = lanes.map(|lane| lane_scalar(ops.cx, dtype, lane));
            let builder = &mut ops.cx.builder;
            let mut vector = builder.ins().scalar_to_vector(vector_type(dtype), lanes[0]);
            for (index, lane) in (1u8..).zip(&lanes[1..]) {
                vector = builder.ins().insertlane(vector, *lane, index);
            }
            vector
        }
    }
}

fn vector_type(dtype: DType) -> cranelift_codegen::ir::Type {
    use cranelift_codegen::ir::types::{F32X4, I32X4};
    if dtype == DType::F32 { F32X4 } else { I32X4 }
}

/// A scalar as it is held in a lane: bools become 0 or all ones.
fn lane_scalar(cx: &mut KernelCx, dtype: DType, value: Value) -> Value {
    if dtype != DType::Bool {
        return value;
    }
    let value = cx.builder.ins().uextend(I32, value);
    cx.builder.ins().ineg(value)
}

/// One lane of a value, as a scalar.
pub fn to_lane(cx: &mut KernelCx, dtype: DType, value: Val, lane: usize) -> Value {
    match value {
        Val::Uniform(value) => value,
        Val::Lanes(lanes) => lanes[lane],
        Val::Vector(vector) => {
            let value = cx.builder.ins().extractlane(vector, lane as u8);
            if dtype != DType::Bool {
                return value;
            }
            let value = cx.builder.ins().ireduce(I8, value);
            let one = cx.builder.ins().iconst(I8, 1);
            cx.builder.ins().band(value, one)
        }
    }
}

/// True if the dtype is held in lanes of a vector.
pub fn in_lanes(dtype: DType) -> bool {
    register_class(dtype).is_ok_and(|ty| ty != F64 && ty != I64)
}

/// Combines two values of a dtype, as [`BinaryFn`] says.
///
/// **Errors**: the function is not compiled for the dtype.
pub fn combine(
    cx: &mut KernelCx,
    wide: bool,
    function: BinaryFn,
    dtype: DType,
    a: Value,
    b: Value,
) -> Result<Value, KernelError> {
    binary(&mut Ops { cx, wide }, function, dtype, a, b)
}

struct Node<'a, 'f> {
    cx: &'a mut KernelCx<'f>,
    dag: &'a Dag,
    at: &'a Point,
    memo: &'a Memo,
    id: ExprId,
}

impl Node<'_, '_> {
    fn emit(&mut self) -> Result<Val, KernelError> {
        let node = &self.dag[self.id];
        match &node.expr {
            Expr::Const(bits) => Ok(Val::Uniform(self.constant(*bits, node.dtype)?)),
            Expr::Size(size) => Ok(Val::Uniform(self.cx.size(*size))),
            Expr::Index(coord) => self.index(*coord),
            Expr::Load { arg, access } => load(self.cx, self.at, self.memo, *arg, access),
            Expr::Reduced(index) => {
                let count = self.at.reduced.len();
                let value = self.at.reduced.get(*index).copied();
                value.ok_or(KernelError::Index { what: "reduction", index: *index, count })
            }
            Expr::Accumulator => {
                let message = "the accumulator is used outside a contraction";
                self.at.accumulator.ok_or_else(|| KernelError::Inconsistent(message.to_owned()))
            }
            _ => self.operation(),
        }
    }

    fn constant(&mut self, bits: u64, dtype: DType) -> Result<Value, KernelError> {
        let ins = self.cx.builder.ins();
        Ok(match register_class(dtype)? {
            F32 => ins.f32const(f32::from_bits(bits as u32)),
            F64 => ins.f64const(f64::from_bits(bits)),
            I64 => ins.iconst(I64, bits as i64),
            I8 => ins.iconst(I8, (bits != 0) as i64),
            _ => {
                // Held extended, whatever the upper bits of the constant are.
                let value = match dtype {
                    DType::I8 | DType::I4 => bits as i8 as i32,
                    DType::I16 => bits as i16 as i32,
                    DType::U8 | DType::U4 => bits as u8 as i32,
                    DType::U16 => bits as u16 as i32,
                    _ => bits as i32,
                };
                ins.iconst(I32, value as u32 as i64)
            }
        })
    }

    fn index(&mut self, coord: Coord) -> Result<Val, KernelError> {
        let value = self.at.coord(coord)?.clone();
        let builder = &mut self.cx.builder;
        let mut at = |add: i64| match value.base {
            None => builder.ins().iconst(I64, add),
            Some(base) if add == 0 => base,
            Some(base) => {
                let add = builder.ins().iconst(I64, add);
                builder.ins().iadd(base, add)
            }
        };
        if self.at.lane == Some(coord) {
            Ok(Val::Lanes(std::array::from_fn(|lane| at(value.add + lane as i64))))
        } else {
            Ok(Val::Uniform(at(value.add)))
        }
    }

    /// A node with operands: once if they are uniform, lane by lane if it must, else on vectors.
    fn operation(&mut self) -> Result<Val, KernelError> {
        let ids = operands(&self.dag[self.id].expr);
        let values = ids.iter().map(|&id| value_of(self.memo, id)).collect::<Result<Vec<_>, _>>()?;
        if values.iter().all(|value| matches!(value, Val::Uniform(_))) {
            let scalars: Vec<Value> =
                ids.iter().zip(values).map(|(&id, v)| to_lane(self.cx, self.dag.dtype(id), v, 0)).collect();
            return Ok(Val::Uniform(self.apply(false, &scalars)?));
        }
        if self.lane_by_lane(&ids) {
            let mut lanes = Vec::with_capacity(LANES);
            for lane in 0..LANES {
                let scalars: Vec<Value> = ids
                    .iter()
                    .zip(&values)
                    .map(|(&id, &v)| to_lane(self.cx, self.dag.dtype(id), v, lane))
                    .collect();
                lanes.push(self.apply(false, &scalars)?);
            }
            return Ok(Val::Lanes(std::array::from_fn(|lane| lanes[lane])));
        }
        let vectors: Vec<Value> = ids.iter().zip(values).map(|(&id, v)| self.vector(id, v)).collect();
        Ok(Val::Vector(self.apply(true, &vectors)?))
    }

    /// Constants go into vectors directly: a load from the constant pool instead of a broadcast.
    fn vector(&mut self, id: ExprId, value: Val) -> Value {
        let dtype = self.dag.dtype(id);
        match (&self.dag[id].expr, dtype) {
            (Expr::Const(bits), DType::F32) => {
                Ops { cx: self.cx, wide: true }.f32(f32::from_bits(*bits as u32))
            }
            (Expr::Const(bits), DType::I32 | DType::U32) => Ops { cx: self.cx, wide: true }.i32(*bits as i32),
            _ => to_vector(self.cx, dtype, value),
        }
    }

    fn lane_by_lane(&self, ids: &[ExprId]) -> bool {
        let node = &self.dag[self.id];
        let narrow = in_lanes(node.dtype) && ids.iter().all(|&id| in_lanes(self.dag.dtype(id)));
        let called = match node.expr {
            Expr::Unary(UnaryFn::Libm(_), _) => true,
            Expr::Binary(BinaryFn::Pow, _, b) => self.power(b).is_none(),
            Expr::Binary(BinaryFn::Div, ..) => node.dtype != DType::F32,
            Expr::Binary(BinaryFn::Rem, ..) => true,
            Expr::CheckIndex { .. } => true,
            _ => false,
        };
        !narrow || called
    }

    /// A constant exponent that has a better way than `pow`.
    fn power(&self, exponent: ExprId) -> Option<Power> {
        let node = &self.dag[exponent];
        let Expr::Const(bits) = node.expr else { return None };
        let value = match node.dtype {
            DType::F32 => f32::from_bits(bits as u32) as f64,
            DType::F64 => f64::from_bits(bits),
            _ => return None,
        };
        POWERS.iter().find(|(exponent, _)| *exponent == value).map(|(_, power)| *power)
    }

    fn apply(&mut self, wide: bool, x: &[Value]) -> Result<Value, KernelError> {
        let node = &self.dag[self.id];
        let dtype = node.dtype;
        if let Expr::Binary(BinaryFn::Pow, _, b) = node.expr
            && let Some(power) = self.power(b)
        {
            return Ok(special_power(&mut Ops { cx: self.cx, wide }, power, dtype, x[0]));
        }
        let from = operands(&node.expr).first().map_or(dtype, |&id| self.dag.dtype(id));
        let o = &mut Ops { cx: self.cx, wide };
        match &node.expr {
            Expr::Unary(function, _) => unary(o, *function, from, x[0]),
            Expr::Binary(function, ..) => binary(o, *function, from, x[0], x[1]),
            Expr::MulAdd(..) => Ok(o.mul_add(x[0], x[1], x[2])),
            Expr::Select(..) if dtype == DType::Bool => Ok(select_bool(o, x[0], x[1], x[2])),
            Expr::Select(..) => Ok(o.select(x[0], x[1], x[2])),
            Expr::Cast(_) => cast(o, from, dtype, x[0]),
            Expr::Bitcast(_) => crate::clif::cast::bitcast(o, from, dtype, x[0]),
            Expr::CheckIndex { bound, .. } => {
                let bound = o.cx.size(*bound);
                Ok(check_index(o, x[0], bound))
            }
            other => Err(KernelError::Inconsistent(format!("{other:?} is no operation"))),
        }
    }
}

#[derive(Clone, Copy)]
enum Power {
    Reciprocal,
    ReciprocalSqrt,
    Sqrt,
    Same,
    Square,
    Cube,
}

const POWERS: [(f64, Power); 6] = [
    (-1.0, Power::Reciprocal),
    (-0.5, Power::ReciprocalSqrt),
    (0.5, Power::Sqrt),
    (1.0, Power::Same),
    (2.0, Power::Square),
    (3.0, Power::Cube),
];

fn special_power(o: &mut Ops, power: Power, dtype: DType, x: Value) -> Value {
    match power {
        Power::Same => x,
        Power::Square => o.mul(x, x),
        Power::Cube => {
            let square = o.mul(x, x);
            o.mul(square, x)
        }
        Power::Sqrt => o.sqrt(x),
        Power::Reciprocal => reciprocal(o, dtype, x),
        Power::ReciprocalSqrt => {
            let root = o.sqrt(x);
            reciprocal(o, dtype, root)
        }
    }
}

fn reciprocal(o: &mut Ops, dtype: DType, x: Value) -> Value {
    let one = if dtype == DType::F64 { o.f64(1.0) } else { o.f32(1.0) };
    o.div(one, x)
}

fn select_bool(o: &mut Ops, condition: Value, a: Value, b: Value) -> Value {
    let a = o.and(condition, a);
    let not = o.not_bool(condition);
    let b = o.and(not, b);
    o.or(a, b)
}

/// Negative indices count from the end; others out of range set the status and become 0.
fn check_index(o: &mut Ops, index: Value, bound: Value) -> Value {
    let zero = o.i64(0);
    let negative = o.compare_int(IntCC::SignedLessThan, index, zero);
    let from_end = o.add(index, bound);
    let index = o.select(negative, from_end, index);
    let bad = o.compare_int(IntCC::UnsignedGreaterThanOrEqual, index, bound);
    o.cx.set_status(bad, STATUS_INDEX);
    o.select(bad, zero, index)
}

fn unsupported(function: impl std::fmt::Debug, dtype: DType) -> KernelError {
    KernelError::DType { operation: format!("{function:?}"), dtype }
}

fn unary(o: &mut Ops, function: UnaryFn, dtype: DType, x: Value) -> Result<Value, KernelError> {
    match dtype {
        DType::F32 => unary_f32(o, function, x),
        DType::F64 => unary_f64(o, function, x),
        DType::Bool if function == UnaryFn::Not => Ok(o.not_bool(x)),
        _ if dtype.is_int() => {
            let value = match function {
                UnaryFn::Abs if dtype.is_unsigned_int() => x,
                UnaryFn::Abs => o.cx.builder.ins().iabs(x),
                UnaryFn::Neg => o.cx.builder.ins().ineg(x),
                UnaryFn::Not => o.cx.builder.ins().bnot(x),
                _ => return Err(unsupported(function, dtype)),
            };
            Ok(wrap(o, dtype, value))
        }
        _ => Err(unsupported(function, dtype)),
    }
}

/// What is one instruction for floats of either size.
fn unary_float(o: &mut Ops, function: UnaryFn, x: Value) -> Option<Value> {
    let ins = o.cx.builder.ins();
    Some(match function {
        UnaryFn::Abs => ins.fabs(x),
        UnaryFn::Neg => ins.fneg(x),
        UnaryFn::Sqrt => ins.sqrt(x),
        UnaryFn::Floor => ins.floor(x),
        UnaryFn::Ceil => ins.ceil(x),
        UnaryFn::Round => ins.nearest(x),
        UnaryFn::IsNaN => ins.fcmp(FloatCC::Unordered, x, x),
        _ => return None,
    })
}

fn unary_f32(o: &mut Ops, function: UnaryFn, x: Value) -> Result<Value, KernelError> {
    if let Some(value) = unary_float(o, function, x) {
        return Ok(value);
    }
    Ok(match function {
        UnaryFn::Reciprocal => reciprocal(o, DType::F32, x),
        UnaryFn::Exp => math::exp(o, x),
        UnaryFn::Log => math::log(o, x),
        UnaryFn::Sin => math::sin(o, x)?,
        UnaryFn::Cos => math::cos(o, x)?,
        UnaryFn::Tanh => math::tanh(o, x),
        UnaryFn::Sigmoid => math::sigmoid(o, x),
        UnaryFn::Erf => math::erf(o, x),
        UnaryFn::Libm(name) => o.cx.call_libm(name, F32, &[x])?,
        _ => return Err(unsupported(function, DType::F32)),
    })
}

fn unary_f64(o: &mut Ops, function: UnaryFn, x: Value) -> Result<Value, KernelError> {
    if let Some(value) = unary_float(o, function, x) {
        return Ok(value);
    }
    let name = match function {
        UnaryFn::Reciprocal => return Ok(reciprocal(o, DType::F64, x)),
        UnaryFn::Sigmoid => return sigmoid_f64(o, x),
        UnaryFn::Exp => "exp",
        UnaryFn::Log => "log",
        UnaryFn::Sin => "sin",
        UnaryFn::Cos => "cos",
        UnaryFn::Tanh => "tanh",
        UnaryFn::Erf => "erf",
        UnaryFn::Libm(name) => name,
        _ => return Err(unsupported(function, DType::F64)),
    };
    o.cx.call_libm(name, F64, &[x])
}

fn sigmoid_f64(o: &mut Ops, x: Value) -> Result<Value, KernelError> {
    let (zero, one) = (o.f64(0.0), o.f64(1.0));
    let magnitude = o.abs(x);
    let negative = o.cx.builder.ins().fneg(magnitude);
    let e = o.cx.call_libm("exp", F64, &[negative])?;
    let denominator = o.add(one, e);
    let is_negative = o.compare(FloatCC::LessThan, x, zero);
    let numerator = o.select(is_negative, e, one);
    Ok(o.div(numerator, denominator))
}

fn binary(o: &mut Ops, function: BinaryFn, dtype: DType, a: Value, b: Value) -> Result<Value, KernelError> {
    match dtype {
        DType::F32 | DType::F64 => binary_float(o, function, dtype, a, b),
        DType::Bool => binary_bool(o, function, a, b),
        _ if dtype.is_int() => binary_int(o, function, dtype, a, b),
        _ => Err(unsupported(function, dtype)),
    }
}

fn binary_float(
    o: &mut Ops,
    function: BinaryFn,
    dtype: DType,
    a: Value,
    b: Value,
) -> Result<Value, KernelError> {
    let ty = if dtype == DType::F64 { F64 } else { F32 };
    Ok(match function {
        BinaryFn::Add => o.add(a, b),
        BinaryFn::Sub => o.sub(a, b),
        BinaryFn::Mul => o.mul(a, b),
        BinaryFn::Div => o.div(a, b),
        BinaryFn::Rem => o.cx.call_libm("fmod", ty, &[a, b])?,
        BinaryFn::Pow => o.cx.call_libm("pow", ty, &[a, b])?,
        // A constant is no NaN, mostly: then one instruction that gives its second operand will do.
        BinaryFn::Min if is_number(o, b) => o.min_or_second(b, a),
        BinaryFn::Min if is_number(o, a) => o.min_or_second(a, b),
        BinaryFn::Max if is_number(o, b) => o.max_or_second(b, a),
        BinaryFn::Max if is_number(o, a) => o.max_or_second(a, b),
        BinaryFn::Min => o.min(a, b),
        BinaryFn::Max => o.max(a, b),
        BinaryFn::Eq => o.compare(FloatCC::Equal, a, b),
        BinaryFn::Lt => o.compare(FloatCC::LessThan, a, b),
        BinaryFn::Le => o.compare(FloatCC::LessThanOrEqual, a, b),
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => return Err(unsupported(function, dtype)),
    })
}

/// True if the value is a constant that is not NaN.
fn is_number(o: &Ops, value: Value) -> bool {
    use cranelift_codegen::ir::InstructionData;
    let dfg = &o.cx.builder.func.dfg;
    let Some(inst) = dfg.value_def(value).inst() else { return false };
    match dfg.insts[inst] {
        InstructionData::UnaryIeee32 { imm, .. } => !f32::from_bits(imm.bits()).is_nan(),
        InstructionData::UnaryIeee64 { imm, .. } => !f64::from_bits(imm.bits()).is_nan(),
        InstructionData::UnaryConst { constant_handle, .. } => {
            let bytes = dfg.constants.get(constant_handle).as_slice();
            bytes.first_chunk().is_some_and(|first| !f32::from_le_bytes(*first).is_nan())
        }
        _ => false,
    }
}

fn binary_bool(o: &mut Ops, function: BinaryFn, a: Value, b: Value) -> Result<Value, KernelError> {
    Ok(match function {
        BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => o.and(a, b),
        BinaryFn::Or | BinaryFn::Max | BinaryFn::Add => o.or(a, b),
        BinaryFn::Xor => o.xor(a, b),
        BinaryFn::Eq => {
            let different = o.xor(a, b);
            o.not_bool(different)
        }
        BinaryFn::Lt => {
            let not = o.not_bool(a);
            o.and(not, b)
        }
        BinaryFn::Le => {
            let not = o.not_bool(a);
            o.or(not, b)
        }
        BinaryFn::Sub | BinaryFn::Div | BinaryFn::Rem | BinaryFn::Pow => {
            return Err(unsupported(function, DType::Bool));
        }
    })
}

fn binary_int(
    o: &mut Ops,
    function: BinaryFn,
    dtype: DType,
    a: Value,
    b: Value,
) -> Result<Value, KernelError> {
    let signed = dtype.is_signed_int();
    let (less, at_most) = match signed {
        true => (IntCC::SignedLessThan, IntCC::SignedLessThanOrEqual),
        false => (IntCC::UnsignedLessThan, IntCC::UnsignedLessThanOrEqual),
    };
    let value = match function {
        BinaryFn::Add => o.add(a, b),
        BinaryFn::Sub => o.sub(a, b),
        BinaryFn::Mul => o.mul(a, b),
        BinaryFn::Div | BinaryFn::Rem => divide(o, function == BinaryFn::Div, signed, a, b),
        BinaryFn::Min => return Ok(o.min_int(signed, a, b)),
        BinaryFn::Max => return Ok(o.max_int(signed, a, b)),
        BinaryFn::And => return Ok(o.and(a, b)),
        BinaryFn::Or => return Ok(o.or(a, b)),
        BinaryFn::Xor => return Ok(o.xor(a, b)),
        BinaryFn::Eq => return Ok(o.compare_int(IntCC::Equal, a, b)),
        BinaryFn::Lt => return Ok(o.compare_int(less, a, b)),
        BinaryFn::Le => return Ok(o.compare_int(at_most, a, b)),
        BinaryFn::Pow => return Err(unsupported(function, dtype)),
    };
    Ok(wrap(o, dtype, value))
}

/// Scalar division that never traps: by zero sets the status and gives 0, by -1 negates (or leaves no remainder).
fn divide(o: &mut Ops, quotient: bool, signed: bool, a: Value, b: Value) -> Value {
    let ty = o.cx.builder.func.dfg.value_type(b);
    let (zero, one) = (o.cx.builder.ins().iconst(ty, 0), o.cx.builder.ins().iconst(ty, 1));
    let by_zero = o.compare_int(IntCC::Equal, b, zero);
    let known = o.cx.builder.func.dfg.value_def(b).inst();
    let is_constant = known.is_some_and(|inst| {
        o.cx.builder.func.dfg.insts[inst].opcode() == cranelift_codegen::ir::Opcode::Iconst
    });
    if !is_constant || is_zero_constant(o, b) {
        o.cx.set_status(by_zero, STATUS_DIVISION);
    }
    let divisor = o.select(by_zero, one, b);
    if !signed {
        let ins = o.cx.builder.ins();
        let result = if quotient { ins.udiv(a, divisor) } else { ins.urem(a, divisor) };
        return o.select(by_zero, zero, result);
    }
    let minus_one = o.cx.builder.ins().iconst(ty, if ty == I64 { -1 } else { u32::MAX as i64 });
    let negates = o.compare_int(IntCC::Equal, b, minus_one);
    let divisor = o.select(negates, one, divisor);
    let ins = o.cx.builder.ins();
    let result = if quotient { ins.sdiv(a, divisor) } else { ins.srem(a, divisor) };
    let by_minus_one = if quotient { o.cx.builder.ins().ineg(a) } else { zero };
    let result = o.select(negates, by_minus_one, result);
    o.select(by_zero, zero, result)
}

fn is_zero_constant(o: &Ops, value: Value) -> bool {
    use cranelift_codegen::ir::InstructionData;
    let dfg = &o.cx.builder.func.dfg;
    dfg.value_def(value).inst().is_some_and(
        |inst| matches!(dfg.insts[inst], InstructionData::UnaryImm { imm, .. } if imm.bits() == 0),
    )
}
