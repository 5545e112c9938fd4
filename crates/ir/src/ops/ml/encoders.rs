//! `LabelEncoder` and `OneHotEncoder`: values looked up among keys.
//!
//! - `LabelEncoder(x) = values[k]` where `keys[k] = x`, else the default. NaN is equal to NaN.
//! - `OneHotEncoder(x)[…,k] = 1` where `cats[k] = x`, else 0; floats are cut to integers first.
//!
//! **Shapes**: any; `OneHotEncoder` adds a last dim, the number of categories.
//!
//! **Dtypes**: `LabelEncoder` strings, f32, f64, i16, i32, i64 to any of them; `OneHotEncoder` strings, i32, i64, f32,
//! f64 to f32.
//!
//! **Opsets** (ai.onnx.ml): `LabelEncoder` 2, 4 (tensors of keys and values); version 1 and `CategoryMapper` are brought
//! to this form. `OneHotEncoder` 1.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_OneHotEncoder.html>

use super::{Labels, refused, strs};
use crate::ops::movement::reserve;
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

/// `LabelEncoder`: operand x.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelEncoder {
    keys: Tensor,
    values: Tensor,
    /// One element of the dtype of the values.
    default: Tensor,
}

/// A key in a form that can be looked up: floats by their bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Bits(u64),
    Text(&'a str),
}

/// All elements as keys.
fn keys_of(tensor: &Tensor) -> Vec<Key<'_>> {
    if let Some(strings) = tensor.strings() {
        return strings.iter().map(|text| Key::Text(text)).collect();
    }
    if tensor.dtype().is_int() {
        return tensor.to_i64s().into_iter().map(|value| Key::Bits(value as u64)).collect();
    }
    let bits = |value: f64| match value {
        // All NaNs are one key, and so are both zeros.
        v if v.is_nan() => f64::NAN.to_bits(),
        0.0 => 0,
        v => v.to_bits(),
    };
    tensor.to_f64s().into_iter().map(|value| Key::Bits(bits(value))).collect()
}

fn is_label(dtype: DType) -> bool {
    matches!(dtype, DType::String | DType::F32 | DType::F64 | DType::I16 | DType::I32 | DType::I64)
}

/// The list that one of four attributes gives.
fn list(attrs: &Attrs, what: &str) -> Result<Tensor, OpError> {
    let name = |kind: &str| format!("{what}_{kind}");
    let mut found: Vec<Tensor> = Vec::new();
    if let Some(values) = strs(attrs, &name("strings"))?.filter(|v| !v.is_empty()) {
        found.push(Tensor::from_strings(&[values.len()], values));
    }
    if let Some(values) = attrs.ints(&name("int64s"))?.filter(|v| !v.is_empty()) {
        found.push(Tensor::from_vec(&[values.len()], values));
    }
    if let Some(values) = attrs.floats(&name("floats"))?.filter(|v| !v.is_empty()) {
        found.push(Tensor::from_vec(&[values.len()], values));
    }
    match attrs.get(&name("tensor")) {
        None => {}
        Some(Attr::Tensor(tensor)) if is_label(tensor.dtype()) => {
            found.push(tensor.reshaped(&[tensor.len()]).map_err(|e| OpError::Value(e.to_string()))?);
        }
        Some(other) => {
            return Err(refused(&name("tensor"), format!("{other:?}"), "expected a tensor of labels"));
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(tensor), true) => Ok(tensor),
        (None, _) => Err(OpError::MissingAttribute(name("*"))),
        (Some(_), false) => Err(refused(&name("*"), "several lists", "expected one of them")),
    }
}

/// The value of what has no key: that of the attribute for the dtype.
fn default_of(attrs: &Attrs, dtype: DType) -> Result<Tensor, OpError> {
    match attrs.get("default_tensor") {
        None => {}
        Some(Attr::Tensor(tensor)) if tensor.dtype() == dtype && tensor.len() == 1 => {
            return tensor.reshaped(&[1]).map_err(|e| OpError::Value(e.to_string()));
        }
        Some(other) => {
            return Err(refused(
                "default_tensor",
                format!("{other:?}"),
                "expected one element of the values' dtype",
            ));
        }
    }
    Ok(match dtype {
        DType::String => Tensor::from_strings(&[1], vec![attrs.str("default_string", "_Unused")?]),
        DType::F32 | DType::F64 => {
            Tensor::from_f64s(dtype, &[1], &[f64::from(attrs.float("default_float", -0.0)?)])
        }
        _ => Tensor::from_i64s(dtype, &[1], &[attrs.int("default_int64", -1)?]),
    })
}

/// The elements of `values` at the places, and `default` where there is none.
fn pick(
    shape: &[usize],
    values: &Tensor,
    default: &Tensor,
    places: &[Option<usize>],
) -> Result<Tensor, OpError> {
    if let (Some(values), Some([default])) = (values.strings(), default.strings()) {
        let mut out: Vec<String> = reserve(shape)?;
        out.extend(places.iter().map(|place| place.and_then(|at| values.get(at)).unwrap_or(default).clone()));
        return Ok(Tensor::from_strings(shape, out));
    }
    let size = values.dtype().size_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(places.len() * size);
    for place in places {
        let element = place.and_then(|at| values.bytes().get(at * size..(at + 1) * size));
        out.extend_from_slice(element.unwrap_or(default.bytes()));
    }
    Ok(Tensor::from_raw(values.dtype(), shape, out))
}

/// For each of `wanted` the value of its key, as a tensor of the shape. Of equal keys the first one counts, as in ONNX
/// Runtime.
pub(super) fn look_up(
    wanted: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    default: &Tensor,
    shape: &[usize],
) -> Result<Tensor, OpError> {
    let mut places: HashMap<Key<'_>, usize> = HashMap::new();
    for (at, key) in keys_of(keys).into_iter().enumerate() {
        places.entry(key).or_insert(at);
    }
    let found: Vec<Option<usize>> = keys_of(wanted).iter().map(|key| places.get(key).copied()).collect();
    pick(shape, values, default, &found)
}

impl OpDef for LabelEncoder {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.LabelEncoder"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let known = [
            "default_float",
            "default_int64",
            "default_string",
            "default_tensor",
            "keys_floats",
            "keys_int64s",
            "keys_strings",
            "keys_tensor",
            "values_floats",
            "values_int64s",
            "values_strings",
            "values_tensor",
        ];
        known_attrs(attrs, &known)?;
        let (keys, values) = (list(attrs, "keys")?, list(attrs, "values")?);
        if keys.len() != values.len() {
            let counts = format!("{} keys, {} values", keys.len(), values.len());
            return Err(refused("values_*", counts, "there must be one for each key"));
        }
        let default = default_of(attrs, values.dtype())?;
        Ok(LabelEncoder { keys, values, default })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let tensor = |tensor: &Tensor| Attr::Tensor(tensor.clone());
        Attrs::new()
            .with("keys_tensor", tensor(&self.keys))
            .with("values_tensor", tensor(&self.values))
            .with("default_tensor", tensor(&self.default))
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), &format!("{}, as the keys", self.keys.dtype()), |d| {
            d == self.keys.dtype()
        })?;
        Ok(vec![Fact::of_type(self.values.dtype(), x.shape().to_vec())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), &format!("{}, as the keys", self.keys.dtype()), |d| {
            d == self.keys.dtype()
        })?;
        Ok(vec![look_up(x, &self.keys, &self.values, &self.default, x.shape())?])
    }
}

/// `OneHotEncoder`: operand x.
#[derive(Clone, Debug, PartialEq)]
pub struct OneHotEncoder {
    categories: Labels,
    /// True if a value that is no category gives zeros; else it is an error.
    zeros: bool,
}

impl OneHotEncoder {
    fn expect(&self, dtype: DType) -> Result<(), OpError> {
        match self.categories {
            Labels::Strings(_) => {
                expect_dtype(0, dtype, "strings, as the categories", |d| d == DType::String)
            }
            Labels::Ints(_) => expect_dtype(0, dtype, "i64, i32, f32 or f64", super::is_feature),
        }
    }
}

impl OpDef for OneHotEncoder {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.OneHotEncoder"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["cats_int64s", "cats_strings", "zeros"])?;
        let categories = Labels::from_attrs(attrs, "cats_int64s", "cats_strings")?;
        Ok(OneHotEncoder { categories, zeros: attrs.int("zeros", 1)? != 0 })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("zeros", Attr::Int(self.zeros.into()));
        self.categories.add_to(&mut attrs, "cats_int64s", "cats_strings");
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        self.expect(x.dtype())?;
        let mut shape = x.shape().to_vec();
        shape.push(Dim::from(self.categories.len()));
        Ok(vec![Fact::of_type(DType::F32, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        self.expect(x.dtype())?;
        let count = self.categories.len();
        let all: Vec<usize> = (0..count).collect();
        let categories = self.categories.pick(&all)?;
        // Of equal categories the last one counts, as in ONNX Runtime.
        let places: HashMap<Key<'_>, usize> =
            keys_of(&categories).into_iter().enumerate().map(|(at, key)| (key, at)).collect();
        let whole = (x.dtype() != DType::String).then(|| Tensor::from_vec(x.shape(), x.to_i64s()));
        let values = whole.as_ref().unwrap_or(x);
        let shape = [x.shape(), &[count]].concat();
        let mut out: Vec<f32> = reserve(&shape)?;
        out.resize(x.len() * count, 0.0);
        for (key, row) in keys_of(values).iter().zip(out.chunks_exact_mut(count)) {
            match places.get(key).and_then(|&at| row.get_mut(at)) {
                Some(element) => *element = 1.0,
                None if self.zeros => {}
                None => {
                    return Err(OpError::Value(format!("{key:?} is none of the categories, and zeros = 0")));
                }
            }
        }
        Ok(vec![Tensor::from_vec(&shape, out)])
    }
}
