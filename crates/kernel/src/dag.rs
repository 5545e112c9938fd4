//! The scalar DAG: what a kernel computes for one element.
//!
//! Loop kernels and contract kernels share it. Code makers evaluate it on scalars or on vectors of lanes; both
//! give the same bits, because every function is expanded into the same primitive operations.

use rabot_tensor::DType;

/// Index of a node in its [`Dag`].
pub type ExprId = usize;

/// Number of a coordinate: outer dims first, then the inner dims of the stage (or row and column of a contraction).
pub type Coord = usize;

/// An integer that is known when the kernel is compiled, or handed to it when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// Baked into the code.
    Const(i64),
    /// Read from the kernel's parameters at this index.
    Param(usize),
}

/// Where in a buffer an element is: `offset + Σ coord·stride + Σ value·stride`, in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Access {
    /// Constant part of the index; absent for 0.
    pub offset: Option<Size>,
    /// Stride of each coordinate that the index depends on. A coordinate occurs at most once.
    pub strides: Vec<(Coord, Size)>,
    /// Computed indices (dtype i64) and their strides, for gathers.
    pub dynamic: Vec<(ExprId, Size)>,
}

/// Functions of one operand. Results have the operand's dtype unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryFn {
    /// Absolute value.
    Abs,
    /// Negation; integers wrap.
    Neg,
    /// Square root (float).
    Sqrt,
    /// `1 / x` (float).
    Reciprocal,
    /// e to the x (float).
    Exp,
    /// Natural logarithm (float).
    Log,
    /// Sine (float).
    Sin,
    /// Cosine (float).
    Cos,
    /// Hyperbolic tangent (float).
    Tanh,
    /// `1 / (1 + exp(-x))` (float).
    Sigmoid,
    /// Error function (float).
    Erf,
    /// Towards minus infinity (float).
    Floor,
    /// Towards plus infinity (float).
    Ceil,
    /// To the nearest integer, halves to even (float).
    Round,
    /// Logical not (bool), bitwise not (integer).
    Not,
    /// True for NaN (float → bool).
    IsNaN,
    /// To the nearest f16, kept as f32 (f32).
    RoundF16,
    /// To the nearest bf16, kept as f32 (f32).
    RoundBF16,
    /// Any other function of the C library, by name, for f32 and f64 (`tan`, `acos`, …): a call, never vectorized.
    Libm(&'static str),
}

/// Functions of two operands of the same dtype. Results have that dtype unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryFn {
    /// Sum; integers wrap.
    Add,
    /// Difference; integers wrap.
    Sub,
    /// Product; integers wrap.
    Mul,
    /// Quotient. Integers truncate; a zero divisor sets the status word and gives 0.
    Div,
    /// Remainder with the sign of the dividend. A zero divisor (integer) sets the status word and gives 0.
    Rem,
    /// The smaller; NaN if either is.
    Min,
    /// The larger; NaN if either is.
    Max,
    /// Power (float).
    Pow,
    /// Bitwise and; logical for bool.
    And,
    /// Bitwise or; logical for bool.
    Or,
    /// Bitwise exclusive or; logical for bool.
    Xor,
    /// Equality (→ bool); false for NaN.
    Eq,
    /// Less than (→ bool); false for NaN.
    Lt,
    /// At most (→ bool); false for NaN.
    Le,
}

/// One operation of the DAG. Operands precede their users.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A constant, as the bits of the node's dtype, zero-extended.
    Const(u64),
    /// A run-time parameter or compile-time size (dtype i64).
    Size(Size),
    /// The value of a coordinate (dtype i64).
    Index(Coord),
    /// An element of a buffer. f16 and bf16 elements are widened to f32 here: the node's dtype is then f32.
    Load {
        /// Which argument of the kernel.
        arg: usize,
        /// Which element.
        access: Access,
    },
    /// Result of a reduction of an earlier stage: its position among all reductions of the kernel.
    Reduced(usize),
    /// The accumulator of a contraction.
    Accumulator,
    /// Function of one operand.
    Unary(UnaryFn, ExprId),
    /// Function of two operands.
    Binary(BinaryFn, ExprId, ExprId),
    /// `a * b + c` in f32 or f64: one rounding where the target has FMA, two where it has not.
    MulAdd(ExprId, ExprId, ExprId),
    /// `condition ? a : b`; the condition is bool.
    Select(ExprId, ExprId, ExprId),
    /// Conversion to the node's dtype. Float → integer truncates and saturates (NaN → 0); integers wrap;
    /// anything → bool is `!= 0`.
    Cast(ExprId),
    /// The same bits read as the node's dtype (same size).
    Bitcast(ExprId),
    /// An index (i64) into a dim of size `bound`: negative ones count from the end; out of range sets the status
    /// word and gives 0.
    CheckIndex {
        /// The index.
        index: ExprId,
        /// Size of the dim.
        bound: Size,
    },
}

/// An operation and the dtype of its result.
///
/// Integers narrower than 32 bits and bool are held extended in 32-bit lanes; f16 and bf16 occur in loads and
/// stores only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExprNode {
    /// The operation.
    pub expr: Expr,
    /// Dtype of the result.
    pub dtype: DType,
}

/// A DAG of scalar operations, operands before users, no duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Dag {
    nodes: Vec<ExprNode>,
}

impl Dag {
    /// Adds a node, or finds the equal one.
    pub fn push(&mut self, expr: Expr, dtype: DType) -> ExprId {
        let node = ExprNode { expr, dtype };
        match self.nodes.iter().position(|n| *n == node) {
            Some(id) => id,
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// The nodes in order.
    pub fn nodes(&self) -> &[ExprNode] {
        &self.nodes
    }

    /// Dtype of a node.
    pub fn dtype(&self, id: ExprId) -> DType {
        self.nodes[id].dtype
    }

    /// A constant of any numeric dtype.
    pub fn constant(&mut self, dtype: DType, value: f64) -> ExprId {
        let bits = match dtype {
            DType::F32 => (value as f32).to_bits() as u64,
            DType::F64 => value.to_bits(),
            _ => value as i64 as u64,
        };
        self.push(Expr::Const(bits), dtype)
    }

    /// A function of one operand.
    pub fn unary(&mut self, function: UnaryFn, a: ExprId) -> ExprId {
        let dtype = if function == UnaryFn::IsNaN { DType::Bool } else { self.dtype(a) };
        self.push(Expr::Unary(function, a), dtype)
    }

    /// A function of two operands of the same dtype.
    pub fn binary(&mut self, function: BinaryFn, a: ExprId, b: ExprId) -> ExprId {
        let compares = matches!(function, BinaryFn::Eq | BinaryFn::Lt | BinaryFn::Le);
        let dtype = if compares { DType::Bool } else { self.dtype(a) };
        self.push(Expr::Binary(function, a, b), dtype)
    }

    /// `condition ? a : b`.
    pub fn select(&mut self, condition: ExprId, a: ExprId, b: ExprId) -> ExprId {
        let dtype = self.dtype(a);
        self.push(Expr::Select(condition, a, b), dtype)
    }

    /// Conversion; nothing if the dtype is right already.
    pub fn cast(&mut self, to: DType, a: ExprId) -> ExprId {
        if self.dtype(a) == to { a } else { self.push(Expr::Cast(a), to) }
    }
}

impl std::ops::Index<ExprId> for Dag {
    type Output = ExprNode;
    fn index(&self, id: ExprId) -> &ExprNode {
        &self.nodes[id]
    }
}
