//! Tensors in files of their own, as ONNX lays out test data: `test_data_set_0/input_0.pb`.

use crate::dtype;
use crate::error::ImportError;
use crate::limits::Limits;
use crate::scan;
use crate::tensor::TensorReader;
use crate::wire::TensorProto;
use bytes::Bytes;
use prost::Message;
use rabot_tensor::{Tensor, pack_bits};

/// The bytes of a `TensorProto` with this name.
pub fn write_tensor(name: &str, tensor: &Tensor) -> Vec<u8> {
    tensor_proto(name, tensor).encode_to_vec()
}

/// A tensor as a message. Data are shared, unless elements are packed.
pub(crate) fn tensor_proto(name: &str, tensor: &Tensor) -> TensorProto {
    // Dims are at most isize::MAX: the tensor is in memory.
    let mut proto = TensorProto {
        dims: tensor.shape().iter().map(|&dim| dim as i64).collect(),
        data_type: dtype::code(tensor.dtype()),
        name: name.to_owned(),
        ..TensorProto::default()
    };
    match tensor.strings() {
        Some(strings) => {
            proto.string_data = strings.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect()
        }
        None => proto.raw_data = Some(raw(tensor)),
    }
    proto
}

/// Elements as files hold them: those of less than 8 bits packed.
fn raw(tensor: &Tensor) -> Bytes {
    match tensor.dtype().bits() {
        1..8 => pack_bits(tensor.dtype(), tensor.bytes()).into(),
        _ => tensor.shared_bytes(),
    }
}

/// Reads a `TensorProto`: its name, and the tensor. `label` names it in errors. Data outside the bytes are refused.
///
/// **Errors**: the bytes are no such message, or its data are not what its type says.
pub fn read_tensor(bytes: Bytes, label: &str, limits: &Limits) -> Result<(String, Tensor), ImportError> {
    scan::check_tensor(&bytes, limits)?;
    let proto = TensorProto::decode(bytes)?;
    let tensor = TensorReader::new(None, limits).read(&proto, label)?;
    Ok((proto.name, tensor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_tensor::DType;

    #[test]
    fn every_dtype_round_trips() {
        for dtype in DType::all() {
            let tensor = match dtype {
                DType::String => {
                    Tensor::from_strings(&[3], vec!["a".to_owned(), String::new(), "ü".to_owned()])
                }
                dtype => Tensor::from_f64s(dtype, &[3], &[1.0, 0.0, 1.0]),
            };
            let bytes = Bytes::from(write_tensor("x", &tensor));
            assert_eq!(read_tensor(bytes, "x.pb", &Limits::default()).unwrap(), ("x".to_owned(), tensor));
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let bytes = write_tensor("x", &Tensor::from_vec(&[2], vec![1.0f32, 2.0]));
        for end in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..end]);
            let read = read_tensor(cut, "x.pb", &Limits::default());
            // What ends between fields is a message, without name or data.
            assert!(read.is_err() || read.is_ok_and(|(name, _)| name.is_empty()), "{end}");
        }
    }
}
