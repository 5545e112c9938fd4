//! Types of values as files declare them.

use crate::dtype;
use crate::limits::Limits;
use crate::wire::{DimensionValue, TensorType, TypeProto, TypeValue};
use rabot_ir::{Dim, ValueType, is_reserved};

/// The type that a file declares for the value `name`.
///
/// Named dims are symbols; every other unknown dim gets a symbol of its own, named after the value.
///
/// **Errors**: in words, what rabot does not support.
pub(crate) fn value_type(name: &str, ty: Option<&TypeProto>, limits: &Limits) -> Result<ValueType, String> {
    match ty.and_then(|ty| ty.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => tensor_type(name, tensor, limits),
        Some(TypeValue::SequenceType(list)) => {
            Ok(ValueType::sequence(value_type(name, list.elem_type.as_deref(), limits)?.as_element()))
        }
        Some(TypeValue::OptionalType(optional)) => {
            Ok(ValueType::optional(value_type(name, optional.elem_type.as_deref(), limits)?.as_element()))
        }
        Some(TypeValue::MapType(map)) => {
            let key = dtype::from_code(map.key_type).map_err(|problem| problem.to_string())?;
            Ok(ValueType::map(key, value_type(name, map.value_type.as_deref(), limits)?.as_element()))
        }
        Some(TypeValue::SparseTensorType(_)) => Err("sparse tensors as values".to_owned()),
        Some(TypeValue::OpaqueType(_)) => Err("values of opaque type".to_owned()),
        None => Err("the type is not given".to_owned()),
    }
}

fn tensor_type(name: &str, tensor: &TensorType, limits: &Limits) -> Result<ValueType, String> {
    let dtype = dtype::from_code(tensor.elem_type).map_err(|problem| problem.to_string())?;
    let Some(shape) = &tensor.shape else { return Ok(ValueType::unranked(dtype)) };
    if shape.dim.len() > limits.rank {
        let problem = crate::error::TensorProblem::Rank { rank: shape.dim.len(), limit: limits.rank };
        return Err(problem.to_string());
    }
    let dims = shape.dim.iter().enumerate().map(|(index, dim)| match &dim.value {
        Some(DimensionValue::DimValue(size)) if *size >= 0 => Dim::from(*size),
        Some(DimensionValue::DimParam(symbol))
            if !symbol.is_empty() && symbol != "?" && !is_reserved(symbol) =>
        {
            Dim::symbol(symbol.as_str())
        }
        _ => Dim::symbol(format!("{name}.dim{index}")),
    });
    Ok(ValueType::new(dtype, dims.collect::<Vec<_>>()))
}
