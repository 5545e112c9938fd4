use super::*;
use std::io::Cursor;

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn read(bytes: &[u8]) -> Result<Tensor, ArrayProblem> {
    read_array(&mut &bytes[..], bytes.len() as u64)
}

fn samples() -> Vec<Tensor> {
    let dtypes = DType::all().filter(|&d| d != DType::String && d != DType::Bool);
    let mut samples: Vec<Tensor> =
        dtypes.map(|d| Tensor::from_f64s(d, &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 7.0])).collect();
    samples.push(Tensor::from_bools(&[3], &[true, false, true]));
    samples.push(Tensor::from_strings(&[2, 1], vec!["a".to_owned(), "grün".to_owned()]));
    samples.push(Tensor::scalar(-1.5f32));
    samples.push(Tensor::from_vec::<i64>(&[0, 3], vec![]));
    samples
}

#[test]
fn what_is_written_reads_back() {
    for tensor in samples() {
        let mut bytes = Vec::new();
        write_npy(&mut bytes, &tensor).unwrap();
        // numpy promises that data begin at a multiple of 64.
        assert!((10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))).is_multiple_of(64));
        let back = read(&bytes).unwrap();
        assert_eq!(back.shape(), tensor.shape());
        assert_eq!(back.to_f64s(), tensor.to_f64s());
        assert_eq!(back.strings(), tensor.strings());
    }
}

#[test]
fn archives_keep_names_and_order() {
    let named = || samples().into_iter().enumerate().map(|(i, t)| (format!("group/{i}"), t));
    // numpy has no dtype for the others: they come back as the next larger one.
    let of_numpy = |dtype: DType| {
        let short = ["i2", "u2", "i4", "u4", "f4", "f6", "f8", "bf16"];
        !short.iter().any(|prefix| dtype.name().starts_with(prefix))
    };
    let tensors: Tensors = named().filter(|(_, t)| of_numpy(t.dtype())).collect();
    let mut bytes = Cursor::new(Vec::new());
    write_npz(&mut bytes, &tensors).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes.into_inner()).unwrap();
    assert_eq!(read_npz(file.path()).unwrap(), tensors);
}

#[test]
fn column_order_and_big_endian_are_converted() {
    let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
    // Columns (1, 4), (2, 5), (3, 6).
    let data: Vec<u8> = [1i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
    let tensor = read(&npy(header, &data)).unwrap();
    assert_eq!(tensor, Tensor::from_vec(&[2, 3], vec![1i16, 2, 3, 4, 5, 6]));
}

#[test]
fn packed_archives_are_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut archive = ZipWriter::new(file.reopen().unwrap());
    let options = SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Deflated);
    archive.start_file("zeros.npy", options).unwrap();
    // Packed by nearly as much as deflate can.
    let zeros = Tensor::zeros(DType::F32, &[1000, 1000]);
    write_npy(&mut archive, &zeros).unwrap();
    archive.finish().unwrap();
    assert!(file.as_file().metadata().unwrap().len() < 10_000);
    assert_eq!(read_npz(file.path()).unwrap()["zeros"], zeros);
}

#[test]
fn sizes_are_not_believed() {
    let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9), }";
    assert!(matches!(read(&npy(huge, &[0; 64])), Err(ArrayProblem::Size { actual: 64, .. })));
    let overflow =
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999, 9999999999), }";
    assert!(matches!(read(&npy(overflow, &[0; 64])), Err(ArrayProblem::Size { .. })));
    let strings = "{'descr': '<U0', 'fortran_order': False, 'shape': (9999999999,), }";
    assert!(matches!(read(&npy(strings, &[])), Err(ArrayProblem::Size { .. })));
    let short = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }";
    assert!(matches!(read(&npy(short, &[0; 15])), Err(ArrayProblem::Size { expected: 16, actual: 15, .. })));
    assert!(matches!(read(&npy(short, &[0; 17])), Err(ArrayProblem::Size { expected: 16, actual: 17, .. })));
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    assert!(matches!(read(&long), Err(ArrayProblem::Header(_))));
}

#[test]
fn headers_that_are_none_are_refused() {
    for header in [
        "",
        "{",
        "{'descr': '<f4'}",
        "{'descr': '', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': 'é', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<c8', 'fortran_order': False, 'shape': ()}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}",
        "((((((((((",
    ] {
        assert!(read(&npy(header, &[0; 4])).is_err(), "{header}");
    }
    assert!(matches!(read(b"PK"), Err(ArrayProblem::Magic)));
    assert!(matches!(read(b"\x93NUMPY\x09\x00"), Err(ArrayProblem::Version(9, 0))));
}

#[test]
fn damaged_archives_are_errors() {
    let tensors = Tensors::from_iter([("x".to_owned(), Tensor::from_vec(&[4], vec![1.0f32, 2.0, 3.0, 4.0]))]);
    let mut bytes = Cursor::new(Vec::new());
    write_npz(&mut bytes, &tensors).unwrap();
    let bytes = bytes.into_inner();
    let file = tempfile::NamedTempFile::new().unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(file.path(), &damaged).unwrap();
        // Some bytes mean nothing (times, permissions); none may lead to a panic or to other numbers.
        if let Ok(read) = read_npz(file.path()) {
            assert!(read.values().all(|t| t.bytes() == tensors["x"].bytes()), "byte {at}");
        }
        std::fs::write(file.path(), &bytes[..at]).unwrap();
        assert!(read_npz(file.path()).is_err(), "{at} bytes");
    }
}
