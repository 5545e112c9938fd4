//! Maps: `ZipMap` makes them of scores, `DictVectorizer` and `CastMap` make tensors of them.
//!
//! - `ZipMap`: a row of scores `[n,c]` becomes a map from each label to its score; the result is the list of the rows.
//! - `DictVectorizer`: the values of a vocabulary's keys in order, `[1,v]`; 0 or an empty string where a key is absent.
//! - `CastMap`: the values in the order of the keys, `[1,m]`; SPARSE has a place for each key below `max_map`, with 0
//!   where it is absent (`"0.f"` among strings, as in ONNX Runtime).
//!
//! **Dtypes**: `ZipMap` f32; `DictVectorizer` keys i64 or strings, values i64, f32, f64, strings; `CastMap` keys i64,
//! values f32 or strings, cast to f32, i64 or strings.
//!
//! **Opsets** (ai.onnx.ml): 1.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_DictVectorizer.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_CastMap.html>

use super::{Labels, implied_columns, refused};
use crate::ops::movement::reserve;
use crate::ops::util::{arity, expect_dtype, known_attrs, required};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Datum, Dim, Fact, Form, Map, ValueType};
use rabot_tensor::{DType, Tensor};

/// `ZipMap`: operand scores; result a list of maps.
#[derive(Clone, Debug, PartialEq)]
pub struct ZipMap {
    labels: Labels,
}

/// `DictVectorizer`: operand a map.
#[derive(Clone, Debug, PartialEq)]
pub struct DictVectorizer {
    vocabulary: Labels,
}

/// `CastMap`: operand a map.
#[derive(Clone, Debug, PartialEq)]
pub struct CastMap {
    to: DType,
    /// Number of places, or `None` for one for each entry.
    places: Option<usize>,
}

const NO_TENSORS: &str = "an operator of maps cannot be evaluated with tensors alone";

/// What evaluation of tensors alone says, for ops that take or give maps.
fn maps_only<T>() -> Result<T, OpError> {
    Err(OpError::Unsupported(NO_TENSORS.to_owned()))
}

/// Dtypes of keys and values of an operand that must be a map.
fn map_type(fact: &Fact) -> Result<(DType, DType), OpError> {
    match &fact.ty.form {
        Form::Map(key, value) if matches!(value.form, Form::Tensor | Form::Unranked) => {
            Ok((*key, value.dtype))
        }
        _ => Err(OpError::Form { slot: 0, actual: fact.ty.to_string(), expected: "a map" }),
    }
}

fn operand<'a>(inputs: &[Option<&'a Datum>]) -> Result<&'a Datum, OpError> {
    inputs.first().copied().flatten().ok_or(OpError::MissingInput { slot: 0, name: "X" })
}

fn map_of<'a>(inputs: &[Option<&'a Datum>]) -> Result<&'a Map, OpError> {
    match operand(inputs)? {
        Datum::Map(map) => Ok(map),
        other => Err(OpError::Form { slot: 0, actual: other.to_string(), expected: "a map" }),
    }
}

impl OpDef for ZipMap {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.ZipMap"];
    const TAKES_DATA: bool = true;
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["classlabels_int64s", "classlabels_strings"])?;
        Ok(ZipMap { labels: Labels::from_attrs(attrs, "classlabels_int64s", "classlabels_strings")? })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.labels.add_to(&mut attrs, "classlabels_int64s", "classlabels_strings");
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), "f32", |d| d == DType::F32)?;
        match x.ty.form {
            Form::Unranked => {}
            Form::Tensor => super::expect_columns(&super::table_dims(x)?.1, self.labels.len(), true)?,
            _ => return Err(OpError::Form { slot: 0, actual: x.ty.to_string(), expected: "a tensor" }),
        }
        let value = ValueType::new(DType::F32, []);
        Ok(vec![Fact::of(ValueType::sequence(ValueType::map(self.labels.dtype(), value)))])
    }
    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        maps_only()
    }
    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let x = operand(inputs)?;
        let x = x.tensor().ok_or_else(|| OpError::Form {
            slot: 0,
            actual: x.to_string(),
            expected: "a tensor",
        })?;
        let count = self.labels.len();
        if !(1..=2).contains(&x.rank()) || x.shape().last() != Some(&count) {
            return Err(OpError::Shape(format!("scores {:?} are not rows of {count}", x.shape())));
        }
        let all: Vec<usize> = (0..count).collect();
        let keys = self.labels.pick(&all)?;
        let scores = x.to_slice::<f32>().map_err(|error| OpError::Value(error.to_string()))?;
        let of_row = |row: &[f32]| {
            Datum::Map(Map { keys: keys.clone(), values: Tensor::from_vec(&[count], row.to_vec()) })
        };
        Ok(vec![Datum::sequence(scores.chunks_exact(count).map(of_row).collect())])
    }
}

impl OpDef for DictVectorizer {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.DictVectorizer"];
    const TAKES_DATA: bool = true;
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["int64_vocabulary", "string_vocabulary"])?;
        Ok(DictVectorizer { vocabulary: Labels::from_attrs(attrs, "int64_vocabulary", "string_vocabulary")? })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.vocabulary.add_to(&mut attrs, "int64_vocabulary", "string_vocabulary");
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let (key, value) = map_type(required(inputs, 0, "X")?)?;
        expect_dtype(0, key, "keys of the vocabulary's dtype", |d| d == self.vocabulary.dtype())?;
        expect_dtype(0, value, "values of i64, f32, f64 or strings", |d| {
            matches!(d, DType::I64 | DType::F32 | DType::F64 | DType::String)
        })?;
        Ok(vec![Fact::of_type(value, [Dim::from(1), Dim::from(self.vocabulary.len())])])
    }
    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        maps_only()
    }
    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let map = map_of(inputs)?;
        let all: Vec<usize> = (0..self.vocabulary.len()).collect();
        let default = match map.values.dtype() {
            DType::String => Tensor::from_strings(&[1], vec![String::new()]),
            dtype => Tensor::zeros(dtype, &[1]),
        };
        let shape = [1, all.len()];
        let wanted = self.vocabulary.pick(&all)?;
        expect_dtype(0, map.keys.dtype(), "keys of the vocabulary's dtype", |d| d == wanted.dtype())?;
        Ok(vec![super::encoders::look_up(&wanted, &map.keys, &map.values, &default, &shape)?.into()])
    }
}

impl OpDef for CastMap {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.CastMap"];
    const TAKES_DATA: bool = true;
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["cast_to", "map_form", "max_map"])?;
        let to = match attrs.str("cast_to", "TO_FLOAT")?.as_str() {
            "TO_FLOAT" => DType::F32,
            "TO_INT64" => DType::I64,
            "TO_STRING" => DType::String,
            other => return Err(refused("cast_to", other, "expected TO_FLOAT, TO_INT64 or TO_STRING")),
        };
        let places = match attrs.str("map_form", "DENSE")?.as_str() {
            "DENSE" => None,
            "SPARSE" => Some(implied_columns("max_map", attrs.int("max_map", 1)?)?),
            other => return Err(refused("map_form", other, "expected DENSE or SPARSE")),
        };
        Ok(CastMap { to, places })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let to = match self.to {
            DType::I64 => "TO_INT64",
            DType::String => "TO_STRING",
            _ => "TO_FLOAT",
        };
        let attrs = Attrs::new().with("cast_to", Attr::Str(to.to_owned()));
        match self.places {
            None => attrs.with("map_form", Attr::Str("DENSE".to_owned())),
            Some(count) => attrs
                .with("map_form", Attr::Str("SPARSE".to_owned()))
                .with("max_map", Attr::Int(count as i64)),
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let (key, value) = map_type(required(inputs, 0, "X")?)?;
        expect_dtype(0, key, "keys of i64", |d| d == DType::I64)?;
        expect_dtype(0, value, "values of f32 or strings", |d| matches!(d, DType::F32 | DType::String))?;
        let places = self.places.map_or_else(|| cx.fresh(), Dim::from);
        Ok(vec![Fact::of_type(self.to, [Dim::from(1), places])])
    }
    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        maps_only()
    }
    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let map = map_of(inputs)?;
        let mut entries: Vec<(i64, usize)> =
            map.keys.to_i64s().into_iter().enumerate().map(|(at, key)| (key, at)).collect();
        entries.sort_unstable();
        if let Some((key, _)) = entries.first().filter(|(key, _)| *key < 0 && self.places.is_some()) {
            return Err(OpError::Value(format!("key {key} is negative, and the map is SPARSE")));
        }
        let places = match self.places {
            None => entries.iter().map(|&(_, at)| Some(at)).collect(),
            Some(count) => sparse(&entries, count)?,
        };
        Ok(vec![cast(&map.values, &places, self.to)?.into()])
    }
}

/// For each key from 0 to `count`, where its value is.
fn sparse(entries: &[(i64, usize)], count: usize) -> Result<Vec<Option<usize>>, OpError> {
    let mut places: Vec<Option<usize>> = reserve(&[1, count])?;
    places.resize(count, None);
    for &(key, at) in entries {
        if let Some(place) = usize::try_from(key).ok().and_then(|key| places.get_mut(key)) {
            *place = Some(at);
        }
    }
    Ok(places)
}

/// The values at the places as a row of another dtype.
fn cast(values: &Tensor, places: &[Option<usize>], to: DType) -> Result<Tensor, OpError> {
    let shape = [1, places.len()];
    let missing = || OpError::Value("a map has fewer values than keys".to_owned());
    let numbers = values.to_f64s();
    let text = |at: usize| values.strings().and_then(|all| all.get(at)).cloned();
    let number = |at: usize| match text(at) {
        None => numbers.get(at).copied().ok_or_else(missing),
        Some(text) => {
            text.trim().parse().map_err(|_| OpError::Value(format!("the value {text:?} is no number")))
        }
    };
    let whole = |at: usize| match text(at) {
        None => number(at).map(|value| value as i64),
        Some(text) => {
            text.trim().parse().map_err(|_| OpError::Value(format!("the value {text:?} is no integer")))
        }
    };
    match to {
        DType::String => {
            let one = |place: &Option<usize>| match place {
                None => Ok("0.f".to_owned()),
                Some(at) => text(*at).map_or_else(|| Ok(format!("{:.6}", number(*at)?)), Ok),
            };
            Ok(Tensor::from_strings(&shape, places.iter().map(one).collect::<Result<_, OpError>>()?))
        }
        DType::I64 => {
            let all: Result<Vec<i64>, _> = places.iter().map(|place| place.map_or(Ok(0), whole)).collect();
            Ok(Tensor::from_vec(&shape, all?))
        }
        _ => {
            let all: Result<Vec<f64>, _> = places.iter().map(|place| place.map_or(Ok(0.0), number)).collect();
            Ok(Tensor::from_f64s(DType::F32, &shape, &all?))
        }
    }
}
