//! Values of any kind in files of their own; see [`crate::read_tensor`] for tensors.

use crate::data::read_tensor;
use crate::dtype;
use crate::error::ImportError;
use crate::import::decode;
use crate::limits::Limits;
use crate::scan;
use crate::tensor::TensorReader;
use crate::types::value_type;
use crate::wire::{MapProto, OptionalProto, SequenceProto, TensorProto};
use bytes::Bytes;
use prost::Message;
use rabot_ir::{Datum, Form, Map, ValueType};
use rabot_tensor::{DType, Tensor};
use std::path::Path;

/// Reads a value of a declared type: a `TensorProto`, `SequenceProto`, `OptionalProto` or `MapProto`, as the type
/// says. `label` names it in errors. Elements are not held to the type; whoever takes the value does that.
///
/// **Errors**: the bytes are no such message, or its data are not what the message says.
///
/// **Source**: onnx-data.proto.
pub fn read_datum(bytes: Bytes, ty: &ValueType, label: &str, limits: &Limits) -> Result<Datum, ImportError> {
    let mut reader = Reader { tensors: TensorReader::new(None, limits), label };
    match &ty.form {
        Form::Tensor | Form::Unranked => Ok(Datum::Tensor(read_tensor(bytes, label, limits)?.1)),
        Form::Sequence(_) => {
            scan::check_sequence(&bytes, limits)?;
            reader.sequence(&SequenceProto::decode(bytes)?)
        }
        Form::Optional(_) => {
            scan::check_optional(&bytes, limits)?;
            reader.optional(&OptionalProto::decode(bytes)?)
        }
        Form::Map(..) => {
            scan::check_map(&bytes, limits)?;
            reader.map(&MapProto::decode(bytes)?)
        }
    }
}

/// Outputs of a model file with the types that it declares; without those whose type is not given or not supported.
///
/// **Errors**: the file cannot be read, or holds no model.
pub fn declared_outputs(path: &Path, limits: &Limits) -> Result<Vec<(String, ValueType)>, ImportError> {
    let read = rabot_mmap::map_file(path);
    let bytes = read.map_err(|error| ImportError::Read { path: path.to_owned(), error })?;
    let proto = decode(bytes, limits)?;
    let graph = proto.graph.as_ref().ok_or(ImportError::NoGraph)?;
    let declared = graph.output.iter().filter_map(|info| {
        let ty = value_type(&info.name, info.r#type.as_ref(), limits).ok()?;
        Some((info.name.clone(), ty))
    });
    Ok(declared.collect())
}

/// Depth is bounded by the scan that every message goes through first.
struct Reader<'a> {
    tensors: TensorReader,
    label: &'a str,
}

impl Reader<'_> {
    fn sequence(&mut self, proto: &SequenceProto) -> Result<Datum, ImportError> {
        let filled = [
            proto.tensor_values.len(),
            proto.sequence_values.len(),
            proto.map_values.len(),
            proto.optional_values.len(),
        ];
        if !proto.sparse_tensor_values.is_empty() {
            return Err(self.problem("a sequence of sparse tensors, which is not supported"));
        }
        if filled.iter().filter(|&&len| len > 0).count() > 1 {
            return Err(self.problem("a sequence has values of more than one kind"));
        }
        let mut values = Vec::with_capacity(filled.iter().sum());
        for tensor in &proto.tensor_values {
            values.push(self.tensor(tensor)?);
        }
        for sequence in &proto.sequence_values {
            values.push(self.sequence(sequence)?);
        }
        for map in &proto.map_values {
            values.push(self.map(map)?);
        }
        for optional in &proto.optional_values {
            values.push(self.optional(optional)?);
        }
        Ok(Datum::sequence(values))
    }

    fn optional(&mut self, proto: &OptionalProto) -> Result<Datum, ImportError> {
        if proto.sparse_tensor_value.is_some() {
            return Err(self.problem("an optional sparse tensor, which is not supported"));
        }
        let mut values = Vec::new();
        if let Some(tensor) = &proto.tensor_value {
            values.push(self.tensor(tensor)?);
        }
        if let Some(sequence) = &proto.sequence_value {
            values.push(self.sequence(sequence)?);
        }
        if let Some(map) = &proto.map_value {
            values.push(self.map(map)?);
        }
        if let Some(optional) = &proto.optional_value {
            values.push(self.optional(optional)?);
        }
        if values.len() > 1 {
            return Err(self.problem("an optional has more than one value"));
        }
        Ok(Datum::Optional(values.pop().map(Box::new)))
    }

    fn map(&mut self, proto: &MapProto) -> Result<Datum, ImportError> {
        let key = dtype::from_code(proto.key_type)
            .map_err(|problem| ImportError::Tensor { tensor: self.label.to_owned(), problem })?;
        let keys = match key {
            DType::String => {
                let texts = proto.string_keys.iter().map(|key| String::from_utf8(key.to_vec()));
                let texts = texts.collect::<Result<Vec<_>, _>>();
                let texts = texts.map_err(|_| self.problem("a key of the map is not UTF-8"))?;
                Tensor::from_strings(&[texts.len()], texts)
            }
            dtype if dtype.is_int() => Tensor::from_i64s(dtype, &[proto.keys.len()], &proto.keys),
            _ => return Err(self.problem("the keys of the map are neither integers nor strings")),
        };
        let values = match &proto.values {
            Some(values) => values.tensor_values.as_slice(),
            None => &[],
        };
        let values = self.joined(values)?;
        if values.len() != keys.len() {
            return Err(self.problem("the map does not have as many values as keys"));
        }
        Ok(Datum::Map(Map { keys, values }))
    }

    /// Tensors of one element each as one of rank 1.
    fn joined(&mut self, protos: &[TensorProto]) -> Result<Tensor, ImportError> {
        let mut tensors = Vec::with_capacity(protos.len());
        for proto in protos {
            tensors.push(self.tensors.read(proto, self.label)?);
        }
        let Some(first) = tensors.first() else {
            return Err(self.problem("the map is empty, so that the type of its values is unknown"));
        };
        let dtype = first.dtype();
        if tensors.iter().any(|tensor| tensor.len() != 1 || tensor.dtype() != dtype) {
            return Err(self.problem("the values of the map are not single elements of one type"));
        }
        let shape = [tensors.len()];
        if dtype == DType::String {
            let texts = tensors.iter().flat_map(|tensor| tensor.strings().unwrap_or_default()).cloned();
            return Ok(Tensor::from_strings(&shape, texts.collect()));
        }
        let bytes: Vec<u8> = tensors.iter().flat_map(Tensor::bytes).copied().collect();
        Tensor::from_bytes(dtype, &shape, bytes.into())
            .map_err(|_| self.problem("the values of the map are not single elements of one type"))
    }

    fn tensor(&mut self, proto: &TensorProto) -> Result<Datum, ImportError> {
        Ok(Datum::Tensor(self.tensors.read(proto, self.label)?))
    }

    fn problem(&self, problem: &'static str) -> ImportError {
        ImportError::Datum { value: self.label.to_owned(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::write_tensor;

    fn tensor(values: &[f32]) -> (Tensor, TensorProto) {
        let tensor = Tensor::from_vec(&[values.len()], values.to_vec());
        let proto = TensorProto::decode(Bytes::from(write_tensor("x", &tensor))).unwrap();
        (tensor, proto)
    }

    fn read(message: &impl Message, ty: &ValueType) -> Result<Datum, ImportError> {
        read_datum(message.encode_to_vec().into(), ty, "x.pb", &Limits::default())
    }

    #[test]
    fn sequences_optionals_and_maps() {
        let ((one, one_proto), (two, two_proto)) = (tensor(&[1.0]), tensor(&[2.0]));
        let element = ValueType::unranked(DType::F32);
        let list = SequenceProto { tensor_values: vec![one_proto, two_proto], ..SequenceProto::default() };
        let values = Datum::sequence(vec![one.into(), two.into()]);
        assert_eq!(read(&list, &ValueType::sequence(element.clone())).unwrap(), values);

        let ty = ValueType::optional(ValueType::sequence(element.clone()));
        let some = OptionalProto { sequence_value: Some(list.clone()), ..OptionalProto::default() };
        assert_eq!(read(&some, &ty).unwrap(), Datum::Optional(Some(Box::new(values))));
        assert_eq!(read(&OptionalProto::default(), &ty).unwrap(), Datum::Optional(None));

        let map =
            MapProto { key_type: 7, keys: vec![5, 6], values: Some(list.clone()), ..MapProto::default() };
        let expected = Map {
            keys: Tensor::from_vec(&[2], vec![5i64, 6]),
            values: Tensor::from_vec(&[2], vec![1.0f32, 2.0]),
        };
        let ty = ValueType::map(DType::I64, element);
        assert_eq!(read(&map, &ty).unwrap(), Datum::Map(expected));
        let short = MapProto { keys: vec![5], ..map };
        assert!(matches!(read(&short, &ty), Err(ImportError::Datum { .. })));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut list = SequenceProto::default();
        for _ in 0..150 {
            list = SequenceProto { sequence_values: vec![list], ..SequenceProto::default() };
        }
        let ty = ValueType::sequence(ValueType::unranked(DType::F32));
        assert!(matches!(read(&list, &ty), Err(ImportError::Wire { .. })));
    }
}
