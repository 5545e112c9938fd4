//! ONNX's codes of element types.

use crate::error::TensorProblem;
use rabot_tensor::DType;

/// Code, name in the schema, and the dtype.
///
/// **Source**: `TensorProto.DataType` in onnx.proto.
const TABLE: [(i32, &str, DType); 28] = [
    (1, "FLOAT", DType::F32),
    (2, "UINT8", DType::U8),
    (3, "INT8", DType::I8),
    (4, "UINT16", DType::U16),
    (5, "INT16", DType::I16),
    (6, "INT32", DType::I32),
    (7, "INT64", DType::I64),
    (8, "STRING", DType::String),
    (9, "BOOL", DType::Bool),
    (10, "FLOAT16", DType::F16),
    (11, "DOUBLE", DType::F64),
    (12, "UINT32", DType::U32),
    (13, "UINT64", DType::U64),
    (14, "COMPLEX64", DType::C64),
    (15, "COMPLEX128", DType::C128),
    (16, "BFLOAT16", DType::BF16),
    (17, "FLOAT8E4M3FN", DType::F8E4M3FN),
    (18, "FLOAT8E4M3FNUZ", DType::F8E4M3FNUZ),
    (19, "FLOAT8E5M2", DType::F8E5M2),
    (20, "FLOAT8E5M2FNUZ", DType::F8E5M2FNUZ),
    (21, "UINT4", DType::U4),
    (22, "INT4", DType::I4),
    (23, "FLOAT4E2M1", DType::F4E2M1),
    (24, "FLOAT8E8M0", DType::F8E8M0),
    (25, "UINT2", DType::U2),
    (26, "INT2", DType::I2),
    (27, "FLOAT6E2M3", DType::F6E2M3),
    (28, "FLOAT6E3M2", DType::F6E3M2),
];

/// The dtype with this code. **Errors**: there is none.
pub(crate) fn from_code(code: i32) -> Result<DType, TensorProblem> {
    match TABLE.iter().find(|row| row.0 == code) {
        Some((_, _, dtype)) => Ok(*dtype),
        None => Err(TensorProblem::DType { code, name: "unknown" }),
    }
}

/// The code of a dtype.
pub(crate) fn code(dtype: DType) -> i32 {
    TABLE.iter().find(|row| row.2 == dtype).map_or(0, |row| row.0)
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
