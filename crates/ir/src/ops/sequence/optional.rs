//! Values that may be none.

use crate::ops::util::{arity, known_attrs, required};
use crate::ops::{InferCx, OpDef, OpError};
use crate::text::parse_type;
use crate::{Attr, Attrs, Datum, Dim, Fact, Form, ValueType};
use rabot_tensor::{DType, Tensor};

/// `Optional`: the operand as a value that may be none; without one, none of the type of the attribute.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__Optional.html>
#[derive(Clone, Debug, PartialEq)]
pub struct Optional {
    /// Type of the value, where there is no operand.
    pub ty: Option<ValueType>,
}

impl OpDef for Optional {
    const NAMES: &'static [&'static str] = &["Optional"];
    const TAKES_DATA: bool = true;

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["type"])?;
        let ty = match attrs.get("type") {
            None => None,
            Some(Attr::Str(text)) => Some(parse_type(text).map_err(|error| OpError::Attribute {
                name: "type".to_owned(),
                value: text.clone(),
                reason: error.to_string(),
            })?),
            Some(other) => {
                let (name, value) = ("type".to_owned(), format!("{other:?}"));
                return Err(OpError::Attribute { name, value, reason: "expected a type".to_owned() });
            }
        };
        Ok(Optional { ty })
    }

    fn name(&self) -> &'static str {
        "Optional"
    }

    fn attrs(&self) -> Attrs {
        let ty = self.ty.iter().map(|ty| ("type", Attr::Str(ty.to_string())));
        ty.fold(Attrs::new(), |attrs, (name, value)| attrs.with(name, value))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 0, 1)?;
        let operand = inputs.first().copied().flatten().map(|fact| &fact.ty);
        let ty = operand.or(self.ty.as_ref()).ok_or(OpError::MissingAttribute("type".to_owned()))?;
        Ok(vec![Fact::of(ValueType::optional(ty.as_element()))])
    }

    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Unsupported("an optional value as a tensor".to_owned()))
    }

    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let operand = inputs.first().copied().flatten().cloned();
        Ok(vec![Datum::Optional(operand.map(Box::new))])
    }
}

/// `OptionalGetElement`: the value of an optional one, which must be there; any other value as it is.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__OptionalGetElement.html>
#[derive(Clone, Debug, PartialEq)]
pub struct OptionalGetElement;

impl OpDef for OptionalGetElement {
    const NAMES: &'static [&'static str] = &["OptionalGetElement"];
    const TAKES_DATA: bool = true;

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[]).map(|()| OptionalGetElement)
    }

    fn name(&self) -> &'static str {
        "OptionalGetElement"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let fact = required(inputs, 0, "input")?;
        Ok(vec![match &fact.ty.form {
            Form::Optional(element) => {
                let dim = |dim: &Dim| if dim.as_const().is_some() { dim.clone() } else { cx.fresh() };
                let shape = element.shape.iter().map(dim).collect();
                Fact::of(ValueType { shape, ..element.as_ref().clone() })
            }
            _ => fact.clone(),
        }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let operand = inputs.first().copied().flatten().cloned();
        Ok(vec![operand.ok_or(OpError::MissingInput { slot: 0, name: "input" })?])
    }

    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        match inputs.first().copied().flatten() {
            Some(Datum::Optional(Some(value))) => Ok(vec![value.as_ref().clone()]),
            Some(Datum::Optional(None)) => Err(OpError::Value("the optional value is none".to_owned())),
            Some(other) => Ok(vec![other.clone()]),
            None => Err(OpError::MissingInput { slot: 0, name: "input" }),
        }
    }
}

/// `OptionalHasElement`: if there is a value; gives `bool[]`.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__OptionalHasElement.html>
#[derive(Clone, Debug, PartialEq)]
pub struct OptionalHasElement;

impl OpDef for OptionalHasElement {
    const NAMES: &'static [&'static str] = &["OptionalHasElement"];
    const TAKES_DATA: bool = true;

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[]).map(|()| OptionalHasElement)
    }

    fn name(&self) -> &'static str {
        "OptionalHasElement"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 0, 1)?;
        Ok(vec![Fact::of_type(DType::Bool, [])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::from_bools(&[], &[inputs.first().copied().flatten().is_some()])])
    }

    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let there = !matches!(inputs.first().copied().flatten(), None | Some(Datum::Optional(None)));
        Ok(vec![Datum::Tensor(Tensor::from_bools(&[], &[there]))])
    }
}
