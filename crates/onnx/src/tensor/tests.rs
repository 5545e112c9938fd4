use super::*;
use crate::error::ExternalProblem;
use crate::wire::StringStringEntryProto;

fn read(proto: &TensorProto) -> Result<Tensor, String> {
    TensorReader::new(None, &Limits::default()).read(proto, "t").map_err(|e| e.to_string())
}

fn proto(code: i32, dims: &[i64]) -> TensorProto {
    TensorProto { data_type: code, dims: dims.to_vec(), ..TensorProto::default() }
}

#[test]
fn raw_data_are_shared_not_copied() {
    let raw = Bytes::from(vec![1u8, 0, 0, 0, 2, 0, 0, 0]);
    let tensor = read(&TensorProto { raw_data: Some(raw.clone()), ..proto(6, &[2]) }).unwrap();
    assert_eq!(tensor.to_i64s(), [1, 2]);
    assert_eq!(tensor.bytes().as_ptr(), raw.as_ptr());
}

#[test]
fn typed_fields_are_converted() {
    let ints = |code, values: &[i32]| {
        let dims = [values.len() as i64];
        read(&TensorProto { int32_data: values.to_vec(), ..proto(code, &dims) }).unwrap()
    };
    assert_eq!(ints(3, &[-1, 127]), Tensor::from_vec(&[2], vec![-1i8, 127]));
    assert_eq!(ints(4, &[65535, 1]), Tensor::from_vec(&[2], vec![65535u16, 1]));
    assert_eq!(ints(10, &[0x3c00, 0xc000]), Tensor::from_f64s(DType::F16, &[2], &[1.0, -2.0]));
    assert_eq!(ints(16, &[0x3f80]), Tensor::from_f64s(DType::BF16, &[1], &[1.0]));
    assert_eq!(ints(9, &[0, 5]), Tensor::from_bools(&[2], &[false, true]));
    let wide = TensorProto { uint64_data: vec![u64::from(u32::MAX)], ..proto(12, &[]) };
    assert_eq!(read(&wide).unwrap(), Tensor::scalar(u32::MAX));
    let text = TensorProto { string_data: vec![Bytes::from_static(b"a")], ..proto(8, &[1]) };
    assert_eq!(read(&text).unwrap().strings().unwrap(), ["a"]);
}

#[test]
fn four_bit_data_are_unpacked_low_half_first() {
    let packed = TensorProto { raw_data: Some(Bytes::from_static(&[0x8f, 0x07])), ..proto(22, &[3]) };
    assert_eq!(read(&packed).unwrap().to_i64s(), [-1, -8, 7]);
    let packed = TensorProto { int32_data: vec![0x8f], ..proto(21, &[2]) };
    assert_eq!(read(&packed).unwrap().to_i64s(), [15, 8]);
}

#[test]
fn bools_become_0_or_1() {
    let odd = TensorProto { raw_data: Some(Bytes::from_static(&[0, 1, 255])), ..proto(9, &[3]) };
    assert_eq!(read(&odd).unwrap().bytes(), [0, 1, 1]);
}

#[test]
fn counts_and_dims_are_checked() {
    let huge = proto(1, &[1 << 40, 1 << 40]);
    assert!(read(&huge).unwrap_err().contains("--max-tensor-bytes"));
    assert!(read(&proto(1, &[1 << 40, 1 << 40, 0])).unwrap_err().contains("--max-tensor-bytes"));
    assert!(read(&proto(1, &[-1])).unwrap_err().contains("negative"));
    assert!(read(&proto(1, &[1; 65])).unwrap_err().contains("rank"));
    assert_eq!(read(&proto(1, &[4])).unwrap_err(), "tensor `t`: f32[4] needs 4 values of data, found 0");
    let short = TensorProto { raw_data: Some(Bytes::from_static(&[0; 3])), ..proto(1, &[1]) };
    assert_eq!(read(&short).unwrap_err(), "tensor `t`: f32[1] needs 4 bytes of data, found 3");
    assert!(read(&proto(99, &[])).unwrap_err().contains("code 99"));
    assert_eq!(read(&proto(1, &[0, 3])).unwrap().shape(), [0, 3]);
    let text = TensorProto { string_data: vec![Bytes::from_static(&[0xff])], ..proto(8, &[1]) };
    assert!(read(&text).unwrap_err().contains("UTF-8"));
}

#[test]
fn external_data_need_a_folder() {
    let entry = StringStringEntryProto { key: "location".into(), value: "data".into() };
    let outside = TensorProto { data_location: 1, external_data: vec![entry], ..proto(1, &[1]) };
    let error = TensorReader::new(None, &Limits::default()).read(&outside, "t").unwrap_err();
    let ImportError::Tensor { problem: TensorProblem::External { problem, .. }, .. } = error else {
        panic!("{error}")
    };
    assert!(matches!(problem, ExternalProblem::NoFolder));
}

fn sparse(dims: &[i64], indices: &[i64], index_dims: &[i64], values: &[f32]) -> Result<Vec<f64>, String> {
    let values = TensorProto { float_data: values.to_vec(), ..proto(1, &[values.len() as i64]) };
    let indices = TensorProto { int64_data: indices.to_vec(), ..proto(7, index_dims) };
    let proto = SparseTensorProto { values: Some(values), indices: Some(indices), dims: dims.to_vec() };
    let limits = Limits { sparse_bytes: 1 << 10, ..Limits::default() };
    let tensor = TensorReader::new(None, &limits).read_sparse(&proto, "s");
    tensor.map(|t| t.to_f64s()).map_err(|e| e.to_string())
}

#[test]
fn sparse_tensors_become_dense() {
    assert_eq!(sparse(&[2, 2], &[1, 2], &[2], &[5.0, 6.0]).unwrap(), [0.0, 5.0, 6.0, 0.0]);
    assert_eq!(sparse(&[2, 2], &[0, 1, 1, 1], &[2, 2], &[5.0, 6.0]).unwrap(), [0.0, 5.0, 0.0, 6.0]);
    assert!(sparse(&[2, 2], &[4], &[1], &[5.0]).unwrap_err().contains("out of range"));
    assert!(sparse(&[2, 2], &[0, 2], &[1, 2], &[5.0]).unwrap_err().contains("out of range"));
    assert!(sparse(&[2, 2], &[-1], &[1], &[5.0]).unwrap_err().contains("out of range"));
    assert!(sparse(&[2, 2], &[0], &[1], &[5.0, 6.0]).unwrap_err().contains("expected [2] or"));
    assert!(sparse(&[1 << 20], &[0], &[1], &[5.0]).unwrap_err().contains("--max-sparse-bytes"));
}
