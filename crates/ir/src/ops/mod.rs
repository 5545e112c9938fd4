//! The closed set of operators.
//!
//! One file an operator family: attributes, inference and reference evaluation. The table below is the only
//! registration. Ops are in the form of the newest opset: whoever reads older forms upgrades them first.

mod binary;
mod cast;
mod contract;
mod control;
mod conv;
mod dense;
mod dropout;
mod elementwise;
mod gather;
mod generate;
mod image;
mod index;
mod inverse;
mod linear_attention;
mod lp_pool;
mod matmul;
mod mersenne;
mod ml;
mod movement;
mod norm;
mod pad;
mod pool;
mod qlinear;
mod quant;
mod random;
mod reduce;
mod reshape;
mod resize;
mod search;
mod select;
mod sequence;
mod signal;
mod slice;
mod softmax;
#[cfg(test)]
mod testing;
mod text;
mod tracked;
mod unary;
mod unranked;
mod util;
mod variadic;
mod vision;
mod window;

pub use binary::{Binary, BinaryOp};
pub use cast::{BitCast, Cast};
pub(crate) use control::refresh_regions;
pub use control::{If, Loop, MAX_TRIPS, Rounds, Scan, widen};
pub use conv::{Conv, ConvTranspose};
pub use dropout::Dropout;
pub use gather::Gather;
pub use generate::{ConstantOfShape, Range};
pub use image::{ImageDecoder, PixelFormat};
pub use index::{
    Col2Im, Compress, Cumulate, GatherElements, GatherNd, Reduction, ReverseSequence, ScatterElements,
    ScatterNd, TensorScatter,
};
pub use inverse::Inverse;
pub use linear_attention::LinearAttention;
pub use lp_pool::LpPool;
pub use matmul::{Gemm, MatMul};
pub use ml::{
    CastMap, DictVectorizer, LabelEncoder, OneHotEncoder, SvmClassifier, SvmRegressor, TreeClassifier,
    TreeEnsemble, TreeRegressor, ZipMap,
};
pub use norm::{BatchNormalization, LayerNormalization, Lrn};
pub use pad::{Pad, PadMode};
pub use pool::{GlobalPool, Pool, PoolKind, StorageOrder};
pub use qlinear::{ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul};
pub use quant::{DequantizeLinear, QuantizeLinear};
pub use random::{Distribution, Extent, Multinomial, Random};
pub use reduce::{ArgReduce, Reduce, ReduceOp};
pub use reshape::{Expand, Flatten, Identity, Reshape, Shape, Squeeze, Transpose, Unsqueeze};
pub use resize::Resize;
pub use search::{Det, NonMaxSuppression, NonZero, TopK, Unique};
pub use select::{Clip, Where};
pub use sequence::{
    ConcatFromSequence, Optional, OptionalGetElement, OptionalHasElement, Sequence, SequenceOp,
    SplitToSequence,
};
pub use signal::{Dft, MelWeightMatrix, SignalWindow, Stft, WindowKind};
pub use slice::{Concat, Slice, Split};
pub use softmax::Softmax;
pub use text::{RegexFullMatch, StringConcat, StringNormalizer, StringSplit, TfIdfVectorizer, Tokenizer};
pub use unary::{Unary, UnaryOp};
pub use variadic::{Variadic, VariadicOp};
pub use vision::{DeformConv, GridMode, GridPadding, GridSample, MaxRoiPool, MaxUnpool, RoiAlign};
pub use window::{AutoPad, Geometry, Window};

use crate::{Attrs, Datum, Dim, Fact, budget};
use rabot_tensor::{DType, Tensor};
use unranked::infer_family;

/// What every operator family defines.
pub(crate) trait OpDef: Sized {
    /// Names of the ops of the family, as ONNX has them.
    const NAMES: &'static [&'static str];
    /// The op named `name` with these attributes (newest opset).
    ///
    /// **Errors**: an attribute is missing, of the wrong kind, unknown or has an unsupported value.
    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError>;
    /// ONNX name of the op.
    fn name(&self) -> &'static str;
    /// The attributes, so that `from_attrs(name(), &attrs())` gives the op back. Defaults may be left out.
    fn attrs(&self) -> Attrs;
    /// Facts of the outputs. Absent optional inputs are `None`.
    ///
    /// **Errors**: wrong count, dtypes or shapes of inputs.
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError>;
    /// Reference evaluation: plain loops, f64 accumulation, each result rounded once to its dtype.
    ///
    /// **Errors**: as `infer`, and values that are out of range (an index, say).
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError>;

    /// True if the family takes or gives values other than tensors, or infers something of tensors of unknown rank.
    const TAKES_DATA: bool = false;

    /// As `eval`, of values that need not be tensors. Families that set `TAKES_DATA` define it where they have to.
    ///
    /// **Errors**: as `eval`.
    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let tensors = tensors(inputs)?;
        Ok(self.eval(&tensors)?.into_iter().map(Datum::Tensor).collect())
    }
}

/// The operands as tensors.
///
/// **Errors**: one is none.
fn tensors<'a>(inputs: &[Option<&'a Datum>]) -> Result<Vec<Option<&'a Tensor>>, OpError> {
    let one = |(slot, input): (usize, &Option<&'a Datum>)| match input {
        None => Ok(None),
        Some(Datum::Tensor(tensor)) => Ok(Some(tensor)),
        Some(other) => Err(OpError::Form { slot, actual: other.to_string(), expected: "a tensor" }),
    };
    inputs.iter().enumerate().map(one).collect()
}

/// The tensors that the results are.
fn only_tensors(data: Vec<Datum>) -> Result<Vec<Tensor>, OpError> {
    let one = |datum: Datum| match datum {
        Datum::Tensor(tensor) => Ok(tensor),
        other => Err(OpError::Unsupported(format!("{other} as the result of an evaluation of tensors"))),
    };
    data.into_iter().map(one).collect()
}

macro_rules! ops {
    ($($(#[$doc:meta])* $family:ident,)*) => {
        /// An operator with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            /// An input of the graph; has no operands.
            Input,
            /// A constant; has no operands.
            Constant(Tensor),
            /// A conditional; operands are the condition, then what the branches capture.
            If(Box<If>),
            /// A loop; operands are trip count, condition, carried values, then what the body captures.
            Loop(Box<Loop>),
            /// A scan; operands are states, scanned tensors, then what the body captures.
            Scan(Box<Scan>),
            $($(#[$doc])* $family($family),)*
        }

        impl Op {
            /// The op named `name` (ONNX's name) with attributes in the form of the newest opset, or `None`
            /// where there is no such op. `If`, `Loop` and `Scan` hold graphs and are made directly.
            pub fn from_attrs(name: &str, attrs: &Attrs) -> Option<Result<Op, OpError>> {
                $(if <$family as OpDef>::NAMES.contains(&name) {
                    return Some(<$family as OpDef>::from_attrs(name, attrs).map(Op::$family));
                })*
                None
            }

            /// Names of all ops that [`Op::from_attrs`] makes.
            pub fn names() -> Vec<&'static str> {
                let mut names = Vec::new();
                $(names.extend_from_slice(<$family as OpDef>::NAMES);)*
                names
            }

            /// ONNX name of the op.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Input => "Input",
                    Op::Constant(_) => "Constant",
                    Op::If(_) => "If",
                    Op::Loop(_) => "Loop",
                    Op::Scan(_) => "Scan",
                    $(Op::$family(op) => op.name(),)*
                }
            }

            /// The attributes. Contents of constants and graphs of conditionals are not attributes.
            pub fn attrs(&self) -> Attrs {
                match self {
                    Op::Input | Op::Constant(_) | Op::If(_) => Attrs::new(),
                    Op::Loop(op) => op.attrs(),
                    Op::Scan(op) => op.attrs(),
                    $(Op::$family(op) => op.attrs(),)*
                }
            }

            /// Facts of the outputs, from facts of the inputs.
            ///
            /// **Errors**: wrong count, dtypes or shapes of inputs.
            pub fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
                match self {
                    Op::Input => Err(OpError::Unsupported("inference of an input".to_owned())),
                    Op::Constant(tensor) => Ok(vec![Fact::of_constant(tensor.clone())]),
                    Op::If(op) => op.infer(inputs, cx),
                    Op::Loop(op) => op.infer(inputs, cx),
                    Op::Scan(op) => op.infer(inputs, cx),
                    $(Op::$family(op) => infer_family(op, inputs, cx),)*
                }
            }

            /// Reference evaluation.
            ///
            /// **Errors**: as [`Op::infer`], and values that are out of range.
            pub fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
                match self {
                    Op::Input => Err(OpError::Unsupported("evaluation of an input".to_owned())),
                    Op::Constant(tensor) => Ok(vec![tensor.clone()]),
                    Op::If(_) | Op::Loop(_) | Op::Scan(_) => {
                        let data: Vec<Option<Datum>> =
                            inputs.iter().map(|i| i.map(|t| Datum::Tensor(t.clone()))).collect();
                        let data: Vec<Option<&Datum>> = data.iter().map(Option::as_ref).collect();
                        only_tensors(self.eval_data(&data)?)
                    }
                    $(Op::$family(op) => {
                        budget::check_results(self, inputs)?;
                        op.eval(inputs)
                    })*
                }
            }

            /// Reference evaluation of values that need not be tensors.
            ///
            /// **Errors**: as [`Op::eval`].
            pub fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
                match self {
                    Op::Input => Err(OpError::Unsupported("evaluation of an input".to_owned())),
                    Op::Constant(tensor) => Ok(vec![Datum::Tensor(tensor.clone())]),
                    Op::If(op) => op.eval(inputs),
                    Op::Loop(_) | Op::Scan(_) => control::eval_rounds(self, inputs),
                    $(Op::$family(op) => {
                        budget::check_data(self, inputs)?;
                        op.eval_data(inputs)
                    })*
                }
            }
        }
    };
}

ops! {
    /// Elementwise, one operand: `Relu`, `Exp`, …
    Unary,
    /// Elementwise with broadcasting, two operands: `Add`, `Equal`, …
    Binary,
    /// Elementwise with broadcasting, any number of operands: `Max`, `Sum`, …
    Variadic,
    /// `Where`.
    Where,
    /// `Clip`.
    Clip,
    /// `Cast`.
    Cast,
    /// `BitCast`.
    BitCast,
    /// `Identity`.
    Identity,
    /// `Reshape`.
    Reshape,
    /// `Flatten`.
    Flatten,
    /// `Squeeze`.
    Squeeze,
    /// `Unsqueeze`.
    Unsqueeze,
    /// `Expand`.
    Expand,
    /// `Transpose`.
    Transpose,
    /// `Shape`.
    Shape,
    /// `Slice`.
    Slice,
    /// `Split`.
    Split,
    /// `Concat`.
    Concat,
    /// `Pad`.
    Pad,
    /// `Gather`.
    Gather,
    /// `GatherElements`.
    GatherElements,
    /// `GatherND`.
    GatherNd,
    /// `ScatterElements`.
    ScatterElements,
    /// `ScatterND`.
    ScatterNd,
    /// `TensorScatter`.
    TensorScatter,
    /// `Compress`.
    Compress,
    /// `ReverseSequence`.
    ReverseSequence,
    /// `CumSum`, `CumProd`.
    Cumulate,
    /// `Col2Im`.
    Col2Im,
    /// `TopK`.
    TopK,
    /// `NonZero`.
    NonZero,
    /// `Unique`.
    Unique,
    /// `NonMaxSuppression`.
    NonMaxSuppression,
    /// `Det`.
    Det,
    /// `ConstantOfShape`.
    ConstantOfShape,
    /// `Range`.
    Range,
    /// `MatMul`.
    MatMul,
    /// `Gemm`.
    Gemm,
    /// `Conv`.
    Conv,
    /// `ConvTranspose`.
    ConvTranspose,
    /// `MaxPool`, `AveragePool`.
    Pool,
    /// `GlobalMaxPool`, `GlobalAveragePool`.
    GlobalPool,
    /// `ReduceSum`, `ReduceMax`, …
    Reduce,
    /// `ArgMax`, `ArgMin`.
    ArgReduce,
    /// `BatchNormalization`.
    BatchNormalization,
    /// `LayerNormalization`, `RMSNormalization`.
    LayerNormalization,
    /// `LRN`.
    Lrn,
    /// `Softmax`, `LogSoftmax`.
    Softmax,
    /// `Resize`.
    Resize,
    /// `QuantizeLinear`.
    QuantizeLinear,
    /// `DequantizeLinear`.
    DequantizeLinear,
    /// `QLinearConv`.
    QLinearConv,
    /// `QLinearMatMul`.
    QLinearMatMul,
    /// `SequenceConstruct`, `SequenceAt`, …
    Sequence,
    /// `SplitToSequence`.
    SplitToSequence,
    /// `ConcatFromSequence`.
    ConcatFromSequence,
    /// `Optional`.
    Optional,
    /// `OptionalGetElement`.
    OptionalGetElement,
    /// `OptionalHasElement`.
    OptionalHasElement,
    /// `LpPool`.
    LpPool,
    /// `Dropout`.
    Dropout,
    /// `LinearAttention`.
    LinearAttention,
    /// `DeformConv`.
    DeformConv,
    /// `GridSample`.
    GridSample,
    /// `MaxUnpool`.
    MaxUnpool,
    /// `MaxRoiPool`.
    MaxRoiPool,
    /// `RoiAlign`.
    RoiAlign,
    /// `RandomNormal`, `RandomUniform`, `RandomNormalLike`, `RandomUniformLike`.
    Random,
    /// `Multinomial`.
    Multinomial,
    /// `DFT`.
    Dft,
    /// `STFT`.
    Stft,
    /// `HannWindow`, `HammingWindow`, `BlackmanWindow`.
    SignalWindow,
    /// `MelWeightMatrix`.
    MelWeightMatrix,
    /// `ImageDecoder`.
    ImageDecoder,
    /// `com.microsoft.Inverse`.
    Inverse,
    /// `ConvInteger`.
    ConvInteger,
    /// `MatMulInteger`.
    MatMulInteger,
    /// `ai.onnx.ml.LabelEncoder`.
    LabelEncoder,
    /// `ai.onnx.ml.OneHotEncoder`.
    OneHotEncoder,
    /// `ai.onnx.ml.SVMClassifier`.
    SvmClassifier,
    /// `ai.onnx.ml.SVMRegressor`.
    SvmRegressor,
    /// `ai.onnx.ml.TreeEnsembleClassifier`.
    TreeClassifier,
    /// `ai.onnx.ml.TreeEnsembleRegressor`.
    TreeRegressor,
    /// `ai.onnx.ml.TreeEnsemble`.
    TreeEnsemble,
    /// `ai.onnx.ml.ZipMap`.
    ZipMap,
    /// `ai.onnx.ml.DictVectorizer`.
    DictVectorizer,
    /// `ai.onnx.ml.CastMap`.
    CastMap,
    /// `RegexFullMatch`.
    RegexFullMatch,
    /// `StringConcat`.
    StringConcat,
    /// `StringSplit`.
    StringSplit,
    /// `StringNormalizer`.
    StringNormalizer,
    /// `TfIdfVectorizer`.
    TfIdfVectorizer,
    /// `com.microsoft.Tokenizer`.
    Tokenizer,
}

/// What inference needs besides the facts of the inputs.
#[derive(Debug, Default)]
pub struct InferCx {
    /// Name of the node, for fresh symbols.
    pub node: String,
    /// Pairs of dims that must be equal when the program runs, found while inferring.
    pub equal: Vec<(Dim, Dim)>,
    fresh: usize,
}

impl InferCx {
    /// For inference of the node with this name.
    pub fn new(node: &str) -> Self {
        InferCx { node: node.to_owned(), ..Self::default() }
    }

    /// A symbol for a dim that only running the node tells. The same node always gets the same symbols.
    pub fn fresh(&mut self) -> Dim {
        self.fresh += 1;
        Dim::symbol(format!("{}.{}", self.node, self.fresh - 1))
    }

    /// States that two dims must be equal when the program runs.
    ///
    /// **Errors**: they are known to differ.
    pub fn require_equal(&mut self, a: &Dim, b: &Dim) -> Result<(), OpError> {
        match (a.clone() - b.clone()).as_const() {
            Some(0) => Ok(()),
            Some(_) => Err(OpError::Shape(format!("dim {a} must equal {b}"))),
            None => {
                self.equal.push((a.clone(), b.clone()));
                Ok(())
            }
        }
    }

    /// Shape of the broadcast of shapes (numpy's rule).
    ///
    /// A dim that is not known to be 1 is taken to equal the other one, and checked when the program runs.
    ///
    /// **Errors**: two known dims differ and neither is 1.
    pub fn broadcast(&mut self, shapes: &[&[Dim]]) -> Result<Vec<Dim>, OpError> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut result = vec![Dim::from(1); rank];
        for shape in shapes {
            for (dim, out) in shape.iter().rev().zip(result.iter_mut().rev()) {
                if out.is(1) {
                    *out = dim.clone();
                } else if !dim.is(1) && dim != out {
                    self.require_equal(dim, out)
                        .map_err(|_| OpError::Shape(format!("shapes {shapes:?} do not broadcast")))?;
                    // A number says more than a symbol.
                    if dim.as_const().is_some() {
                        *out = dim.clone();
                    }
                }
            }
        }
        Ok(result)
    }
}

/// An operator cannot be made, typed or evaluated as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// Wrong number of operands.
    #[error("takes {expected} inputs, got {actual}")]
    InputCount {
        /// What the op takes, in words.
        expected: String,
        /// How many it got.
        actual: usize,
    },
    /// An operand that is not optional is absent.
    #[error("input {slot} ({name}) is missing")]
    MissingInput {
        /// Position of the operand.
        slot: usize,
        /// Its name in the ONNX specification.
        name: &'static str,
    },
    /// An operand is no tensor, or one of unknown rank, or the other way round.
    #[error("input {slot} is {actual}, expected {expected}")]
    Form {
        /// Position of the operand.
        slot: usize,
        /// What it is.
        actual: String,
        /// What the op takes, in words.
        expected: &'static str,
    },
    /// An operand has a dtype the op does not take.
    #[error("input {slot} is {actual}, expected {expected}")]
    DType {
        /// Position of the operand.
        slot: usize,
        /// Its dtype.
        actual: DType,
        /// What the op takes, in words.
        expected: String,
    },
    /// Shapes of operands do not fit; the text gives them.
    #[error("{0}")]
    Shape(String),
    /// A required attribute is absent.
    #[error("attribute `{0}` is missing")]
    MissingAttribute(String),
    /// An attribute has a value that the op does not take.
    #[error("attribute `{name}` = {value}: {reason}")]
    Attribute {
        /// Name of the attribute.
        name: String,
        /// Its value.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// A case the specification has and rabot does not; the text says which, with the values.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// A value in the data is out of range; the text gives it.
    #[error("{0}")]
    Value(String),
}
