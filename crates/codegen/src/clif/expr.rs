//! The emitter of scalar DAGs, shared by loop and contract kernels.
//!
//! A [`Point`] says where in the iteration space code is emitted for: the coordinates, and which of them runs
//! along the lanes of a vector, if any. [`eval`] gives the value of a node there, [`store`] writes one. Values that
//! do not depend on the lanes are computed once, as scalars; 64-bit values and calls are computed lane by lane;
//! all others are vectors. Every operation is the same on scalars and on lanes, so the bits are too.
//!
//! Usage, for each element or vector of elements:
//! ```text
//! let mut memo = Memo::new(&dag);
//! eval(cx, &dag, &point, &mut memo, &roots)?;   // all values first: a store may overwrite, in place, what is read
//! for s in &stores { store(cx, &dag, &point, &mut memo, s)?; }
//! ```

use crate::clif::access::{ByteStride, load, store_value};
use crate::clif::cast::{bitcast, cast, register_class};
use crate::clif::context::{KernelCx, LANES};
use crate::clif::functions::{POWERS, Power, binary, check_index, select_bool, special_power, unary};
use crate::clif::ops::Ops;
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::types::{F32, F32X4, F64, I8, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use rabot_kernel::{BinaryFn, Coord, Dag, Expr, ExprId, Store, UnaryFn};
use rabot_tensor::DType;

/// Status that a kernel reports for an index out of range.
pub const STATUS_INDEX: i64 = 1;
/// Status that a kernel reports for an integer division by zero.
pub const STATUS_DIVISION: i64 = 2;
/// Bits of the status word that hold a code. Those above are 0, or 1 + the position of the part of a composite kernel
/// that failed first, nested parts counted one by one.
pub const STATUS_CODE_BITS: u32 = 8;

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

    /// The coordinate as a value, i64.
    pub fn value(&self, cx: &mut KernelCx) -> Value {
        let add = self.add;
        match self.base {
            Some(base) if add == 0 => base,
            Some(base) => cx.builder.ins().iadd_imm_s(base, add),
            None => cx.builder.ins().iconst(I64, add),
        }
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

fn vector_type(dtype: DType) -> Type {
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
                    DType::I8 | DType::I4 | DType::I2 => bits as i8 as i32,
                    DType::I16 => bits as i16 as i32,
                    DType::U8 | DType::U4 | DType::U2 => bits as u8 as i32,
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
            let o = &mut Ops { cx: self.cx, wide };
            let one = if dtype == DType::F64 { o.f64(1.0) } else { o.f32(1.0) };
            return Ok(special_power(o, power, one, x[0]));
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
            Expr::Bitcast(_) => bitcast(o, from, dtype, x[0]),
            Expr::CheckIndex { bound, .. } => {
                let bound = o.cx.size(*bound);
                Ok(check_index(o, x[0], bound))
            }
            other => Err(KernelError::Inconsistent(format!("{other:?} is no operation"))),
        }
    }
}
