//! ONNX's codes of element types.

use crate::error::TensorProblem;
use rabot_tensor::DType;

/// Code, name in the schema, and the dtype where rabot has one.
///
/// **Source**: `TensorProto.DataType` in onnx.proto.
const TABLE: [(i32, &str, Option<DType>); 28] = [
    (1, "FLOAT", Some(DType::F32)),
    (2, "UINT8", Some(DType::U8)),
    (3, "INT8", Some(DType::I8)),
    (4, "UINT16", Some(DType::U16)),
    (5, "INT16", Some(DType::I16)),
    (6, "INT32", Some(DType::I32)),
    (7, "INT64", Some(DType::I64)),
    (8, "STRING", Some(DType::String)),
    (9, "BOOL", Some(DType::Bool)),
    (10, "FLOAT16", Some(DType::F16)),
    (11, "DOUBLE", Some(DType::F64)),
    (12, "UINT32", Some(DType::U32)),
    (13, "UINT64", Some(DType::U64)),
    (14, "COMPLEX64", None),
    (15, "COMPLEX128", None),
    (16, "BFLOAT16", Some(DType::BF16)),
    (17, "FLOAT8E4M3FN", Some(DType::F8E4M3FN)),
    (18, "FLOAT8E4M3FNUZ", Some(DType::F8E4M3FNUZ)),
    (19, "FLOAT8E5M2", Some(DType::F8E5M2)),
    (20, "FLOAT8E5M2FNUZ", Some(DType::F8E5M2FNUZ)),
    (21, "UINT4", Some(DType::U4)),
    (22, "INT4", Some(DType::I4)),
    (23, "FLOAT4E2M1", None),
    (24, "FLOAT8E8M0", None),
    (25, "UINT2", None),
    (26, "INT2", None),
    (27, "FLOAT6E2M3", None),
    (28, "FLOAT6E3M2", None),
];

/// The dtype with this code. **Errors**: rabot has none.
pub(crate) fn from_code(code: i32) -> Result<DType, TensorProblem> {
    match TABLE.iter().find(|row| row.0 == code) {
        Some((_, _, Some(dtype))) => Ok(*dtype),
        Some((_, name, None)) => Err(TensorProblem::DType { code, name }),
        None => Err(TensorProblem::DType { code, name: "unknown" }),
    }
}

/// The code of a dtype.
pub(crate) fn code(dtype: DType) -> i32 {
    TABLE.iter().find(|row| row.2 == Some(dtype)).map_or(0, |row| row.0)
}

/// The code with this name in the schema, as `Cast` had it before opset 6.
pub(crate) fn code_of_name(name: &str) -> Option<i32> {
    TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_has_a_code() {
        for dtype in DType::all() {
            assert_eq!(from_code(code(dtype)).unwrap(), dtype);
        }
    }
}
