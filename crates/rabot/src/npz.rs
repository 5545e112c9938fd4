//! Tensors as numpy keeps them: `.npy` files hold one array, `.npz` files hold several by name.
//!
//! Files are untrusted: no count in them is believed before the size of the file allows it. numpy reads what is
//! written here.
//!
//! **Source**: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use crate::{DType, Tensor, Tensors};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// A file of arrays cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file cannot be opened or read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is no zip archive, which an npz file is.
    #[error("`{}` is not an npz file: {error}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ZipError,
    },
    /// An array cannot be read.
    #[error("`{}`{}: {problem}", path.display(), entry.as_ref().map_or_else(String::new, |e| format!(", array `{e}`")))]
    Array {
        /// The file.
        path: PathBuf,
        /// The array in an npz file.
        entry: Option<String>,
        /// What is wrong.
        problem: ArrayProblem,
    },
    /// The arrays cannot be written.
    #[error("cannot write arrays: {0}")]
    Write(#[from] ZipError),
}

/// Why an array cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArrayProblem {
    /// The bytes do not begin like an npy file.
    #[error("not an npy array")]
    Magic,
    /// The version of the format is not known.
    #[error("version {0}.{1} of the npy format is not supported; numpy.save writes 1.0")]
    Version(u8, u8),
    /// The header cannot be understood.
    #[error("the npy header is not valid: {0}")]
    Header(String),
    /// rabot has no such element type.
    #[error(
        "numpy dtype `{0}` is not supported; there are bool, int8 to int64, uint8 to uint64, float16 to float64 and str"
    )]
    DType(String),
    /// There is more or less data than the header says.
    #[error("{dtype}{shape:?} needs {expected} bytes of data, found {actual}; is the file complete?")]
    Size {
        /// numpy's name of the element type.
        dtype: String,
        /// Shape in the header.
        shape: Vec<u64>,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes there are, or can be at most.
        actual: u64,
    },
    /// A string holds a number that is no character.
    #[error("a string holds {0:#x}, which is no character")]
    Character(u32),
    /// The bytes cannot be read or unpacked.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The entry of the archive cannot be read.
    #[error("{0}")]
    Entry(#[from] ZipError),
}

/// Longest header that is read; numpy's own are below 200 bytes.
const MAX_HEADER_BYTES: u64 = 1 << 16;

/// Most dims, as in numpy.
const MAX_RANK: usize = 64;

/// Deflate makes at most 1032 bytes of one. **Source**: zlib's technical details, "Maximum Compression Factor".
const MAX_INFLATION: u64 = 1032;

/// Reads the array of a `.npy` file.
///
/// **Errors**: the file cannot be read, or is no array of a supported dtype.
pub fn read_npy(path: &Path) -> Result<Tensor, NpzError> {
    let read_error = |error| NpzError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(read_error)?;
    let bytes = file.metadata().map_err(read_error)?.len();
    read_array(&mut BufReader::new(file), bytes).map_err(|problem| NpzError::Array {
        path: path.to_owned(),
        entry: None,
        problem,
    })
}

/// Reads all arrays of a `.npz` file, in the order of the file.
///
/// **Errors**: the file cannot be read, or one of its entries is no array of a supported dtype.
pub fn read_npz(path: &Path) -> Result<Tensors, NpzError> {
    let read_error = |error| NpzError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(read_error)?;
    let file_bytes = file.metadata().map_err(read_error)?.len();
    read_archive(BufReader::new(file), file_bytes, path)
}

/// Reads all arrays of a `.npz` file that is in memory; `name` stands for it in errors.
///
/// **Errors**: as [`read_npz`].
pub fn read_npz_bytes(bytes: &[u8], name: &str) -> Result<Tensors, NpzError> {
    read_archive(io::Cursor::new(bytes), bytes.len() as u64, Path::new(name))
}

fn read_archive<R: Read + Seek>(reader: R, file_bytes: u64, path: &Path) -> Result<Tensors, NpzError> {
    let archive_error = |error| NpzError::Archive { path: path.to_owned(), error };
    let mut archive = ZipArchive::new(reader).map_err(archive_error)?;
    let mut tensors = Tensors::with_capacity(archive.len());
    // Entries may share their compressed bytes; together they may not unfold to more than the file can.
    let mut budget = file_bytes.saturating_mul(MAX_INFLATION);
    for index in 0..archive.len() {
        let mut name = None;
        let result = read_entry(&mut archive, index, file_bytes, &mut budget, &mut name);
        let entry = name.unwrap_or_else(|| format!("number {index}"));
        match result {
            Ok(tensor) => tensors.insert(entry, tensor),
            Err(problem) => {
                return Err(NpzError::Array { path: path.to_owned(), entry: Some(entry), problem });
            }
        };
    }
    Ok(tensors)
}

fn read_entry<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    index: usize,
    file_bytes: u64,
    budget: &mut u64,
    name: &mut Option<String>,
) -> Result<Tensor, ArrayProblem> {
    let mut entry = archive.by_index(index)?;
    let full = entry.name()?.into_owned();
    *name = Some(full.strip_suffix(".npy").unwrap_or(&full).to_owned());
    let packed = entry.compressed_size().min(file_bytes);
    let possible = match entry.compression() {
        CompressionMethod::Stored => packed,
        _ => packed.saturating_mul(MAX_INFLATION),
    };
    let bytes = entry.size().min(possible).min(*budget);
    *budget -= bytes;
    read_array(&mut entry, bytes)
}

/// Reads an array out of at most `available` bytes, and finds the end of them.
fn read_array(reader: &mut dyn Read, available: u64) -> Result<Tensor, ArrayProblem> {
    let mut start = [0u8; 8];
    if !fill(reader, &mut start)? || start[..6] != *b"\x93NUMPY" {
        return Err(ArrayProblem::Magic);
    }
    let truncated = || ArrayProblem::Header("the file ends within it".to_owned());
    let mut length = [0u8; 4];
    let length_bytes = match (start[6], start[7]) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        (major, minor) => return Err(ArrayProblem::Version(major, minor)),
    };
    if !fill(reader, &mut length[..length_bytes])? {
        return Err(truncated());
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > MAX_HEADER_BYTES {
        return Err(ArrayProblem::Header(format!("it has {length} bytes, more than {MAX_HEADER_BYTES}")));
    }
    let mut text = vec![0u8; length as usize];
    if !fill(reader, &mut text)? {
        return Err(truncated());
    }
    let header = Header::parse(&text)?;
    let rest = available.saturating_sub(8 + length_bytes as u64 + length);
    let bytes = header.read_data(reader, rest)?;
    header.tensor(bytes)
}

/// Fills a buffer; false if the data end before it is full.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the header of an array says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// numpy's type string: `<f4`.
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// How elements lie in the file.
struct Layout {
    dtype: DType,
    item_bytes: usize,
    swapped: bool,
}

impl Header {
    /// Reads the Python literal `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
    fn parse(text: &[u8]) -> Result<Self, ArrayProblem> {
        let text =
            std::str::from_utf8(text).map_err(|_| ArrayProblem::Header("it is not text".to_owned()))?;
        let mut cursor = Literal { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        cursor.expect("{")?;
        while !cursor.accept("}") {
            let key = cursor.string()?;
            cursor.expect(":")?;
            match key {
                "descr" if cursor.peek("[") => return Err(ArrayProblem::DType("structured".to_owned())),
                "descr" => descr = Some(cursor.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(cursor.boolean()?),
                "shape" => shape = Some(cursor.tuple()?),
                other => return Err(ArrayProblem::Header(format!("it has a key `{other}`"))),
            }
            if !cursor.accept(",") {
                cursor.expect("}")?;
                break;
            }
        }
        let missing = |what: &str| ArrayProblem::Header(format!("it has no `{what}`"));
        Ok(Header {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }

    fn layout(&self) -> Result<Layout, ArrayProblem> {
        let unsupported = || ArrayProblem::DType(self.descr.clone());
        let order = self.descr.chars().next().filter(|c| "<>|=".contains(*c)).ok_or_else(unsupported)?;
        let kind = &self.descr[1..];
        let dtype = match kind {
            "f4" => DType::F32,
            "f8" => DType::F64,
            "f2" => DType::F16,
            "i1" => DType::I8,
            "i2" => DType::I16,
            "i4" => DType::I32,
            "i8" => DType::I64,
            "u1" => DType::U8,
            "u2" => DType::U16,
            "u4" => DType::U32,
            "u8" => DType::U64,
            "b1" => DType::Bool,
            "c8" => DType::C64,
            "c16" => DType::C128,
            _ => match kind.strip_prefix('U') {
                Some(_) => DType::String,
                None => return Err(unsupported()),
            },
        };
        let item_bytes = match kind.strip_prefix('U') {
            Some(count) => {
                count.parse::<usize>().ok().and_then(|n| n.checked_mul(4)).ok_or_else(unsupported)?
            }
            None => dtype.size_bytes(),
        };
        let swapped = order == '>' || (order == '=' && cfg!(target_endian = "big"));
        Ok(Layout { dtype, item_bytes, swapped })
    }

    fn size_error(&self, expected: u64, actual: u64) -> ArrayProblem {
        ArrayProblem::Size { dtype: self.descr.clone(), shape: self.shape.clone(), expected, actual }
    }

    /// Reads as many bytes as the header asks for, if there can be that many, and checks that they are all.
    fn read_data(&self, reader: &mut dyn Read, available: u64) -> Result<Vec<u8>, ArrayProblem> {
        if self.shape.len() > MAX_RANK {
            return Err(ArrayProblem::Header(format!("{} dims, more than {MAX_RANK}", self.shape.len())));
        }
        let item_bytes = self.layout()?.item_bytes as u64;
        let elements = if self.shape.contains(&0) {
            Some(0)
        } else {
            self.shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))
        };
        // Strings without characters take no bytes, so their number must be bounded some other way.
        let plausible = elements.filter(|&n| item_bytes > 0 || n <= available);
        let expected = plausible.and_then(|n| n.checked_mul(item_bytes)).unwrap_or(u64::MAX);
        if expected > available {
            return Err(self.size_error(expected, available));
        }
        let mut bytes = Vec::new();
        let reserved = usize::try_from(expected).ok().and_then(|n| bytes.try_reserve_exact(n).ok());
        reserved.ok_or_else(|| self.size_error(expected, available))?;
        let actual = reader.take(expected).read_to_end(&mut bytes)? as u64;
        if actual < expected {
            return Err(self.size_error(expected, actual));
        }
        // Reading past the end also makes the archive check its sum.
        let more = io::copy(&mut reader.take(available.saturating_add(1)), &mut io::sink())?;
        if more > 0 {
            return Err(self.size_error(expected, expected.saturating_add(more)));
        }
        Ok(bytes)
    }

    fn tensor(&self, mut bytes: Vec<u8>) -> Result<Tensor, ArrayProblem> {
        let layout = self.layout()?;
        let shape: Option<Vec<usize>> = self.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let shape = shape.ok_or_else(|| self.size_error(u64::MAX, bytes.len() as u64))?;
        if self.fortran_order {
            bytes = to_row_major(&bytes, &shape, layout.item_bytes);
        }
        if layout.swapped {
            let unit = match layout.dtype {
                DType::String => 4,
                // Each part on its own.
                dtype if dtype.is_complex() => layout.item_bytes / 2,
                _ => layout.item_bytes,
            };
            bytes.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
        }
        match layout.dtype {
            DType::String => {
                let count = shape.iter().product();
                Ok(Tensor::from_strings(&shape, read_strings(&bytes, layout.item_bytes, count)?))
            }
            DType::Bool => {
                bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
                Ok(Tensor::from_raw(DType::Bool, &shape, bytes))
            }
            dtype => Ok(Tensor::from_raw(dtype, &shape, bytes)),
        }
    }
}

/// Elements in the order of the last index first, from the order of the first index first.
fn to_row_major(bytes: &[u8], shape: &[usize], item_bytes: usize) -> Vec<u8> {
    let mut strides = vec![item_bytes; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut result = Vec::with_capacity(bytes.len());
    let mut index = vec![0usize; shape.len()];
    let mut at = 0;
    while result.len() < bytes.len() {
        result.extend_from_slice(&bytes[at..at + item_bytes]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    result
}

/// Strings of fixed length in UTF-32, filled up with zeros.
fn read_strings(bytes: &[u8], item_bytes: usize, count: usize) -> Result<Vec<String>, ArrayProblem> {
    if item_bytes == 0 {
        return Ok(vec![String::new(); count]);
    }
    let decode = |item: &[u8]| {
        let codes: Vec<u32> =
            item.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        let length = codes.iter().rposition(|&code| code != 0).map_or(0, |last| last + 1);
        let char_of = |&code: &u32| char::from_u32(code).ok_or(ArrayProblem::Character(code));
        codes.iter().take(length).map(char_of).collect()
    };
    bytes.chunks_exact(item_bytes).map(decode).collect()
}

/// Reads the Python literals of headers.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn peek(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.starts_with(token)
    }

    fn accept(&mut self, token: &str) -> bool {
        let found = self.peek(token);
        if found {
            self.rest = &self.rest[token.len()..];
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ArrayProblem> {
        if self.accept(token) { Ok(()) } else { Err(self.error(&format!("`{token}`"))) }
    }

    fn error(&self, expected: &str) -> ArrayProblem {
        let found: String = self.rest.chars().take(20).collect();
        ArrayProblem::Header(format!("expected {expected}, found {found:?}"))
    }

    fn string(&mut self) -> Result<&'a str, ArrayProblem> {
        let quote = if self.peek("'") { '\'' } else { '"' };
        let inner = self.rest.strip_prefix(quote);
        let (text, rest) = inner.and_then(|i| i.split_once(quote)).ok_or_else(|| self.error("a string"))?;
        self.rest = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, ArrayProblem> {
        if self.accept("True") {
            Ok(true)
        } else if self.accept("False") {
            Ok(false)
        } else {
            Err(self.error("True or False"))
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>, ArrayProblem> {
        let mut dims = Vec::new();
        self.expect("(")?;
        while !self.accept(")") {
            self.rest = self.rest.trim_start();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let dim = self.rest[..end].parse().map_err(|_| self.error("a dim"))?;
            dims.push(dim);
            self.rest = &self.rest[end..];
            // Python 2 wrote long integers so.
            self.accept("L");
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(dims)
    }
}

/// Writes tensors as a `.npz` archive, not compressed, as `numpy.savez` does.
///
/// Dtypes that numpy does not have are written as the smallest that holds all their values: `bf16` and floats of 4, 6
/// and 8 bits as `float32`, integers of 2 and 4 bits as 8-bit ones.
///
/// **Errors**: the writer fails.
pub fn write_npz<W: Write + Seek>(writer: W, tensors: &Tensors) -> Result<(), NpzError> {
    let mut archive = ZipWriter::new(writer);
    for (name, tensor) in tensors {
        // The sizes are not known to the archive before they are written; beyond 4 GiB it needs another form.
        let large = tensor.bytes().len() as u64 > u64::from(u32::MAX) / 2;
        let options =
            SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Stored).large_file(large);
        archive.start_file(format!("{name}.npy"), options)?;
        write_npy(&mut archive, tensor).map_err(ZipError::Io)?;
    }
    archive.finish()?.flush().map_err(ZipError::Io)?;
    Ok(())
}

/// Writes a tensor as a `.npy` file; dtypes as in [`write_npz`].
///
/// **Errors**: the writer fails.
pub fn write_npy<W: Write>(writer: &mut W, tensor: &Tensor) -> io::Result<()> {
    let (descr, converted) = numpy_form(tensor);
    let dims = tensor.shape().iter().map(|dim| format!("{dim}, ")).collect::<String>();
    // A tuple of one needs its comma; numpy writes the others without one at the end.
    let dims = if tensor.rank() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data begin at a multiple of 64, after a line feed.
    let end = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(end - 1 - header.len()));
    header.push('\n');
    writer.write_all(b"\x93NUMPY\x01\x00")?;
    writer.write_all(&(header.len() as u16).to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    writer.write_all(converted.as_deref().unwrap_or(tensor.bytes()))
}

/// numpy's type string, and the bytes where they are not the tensor's own.
fn numpy_form(tensor: &Tensor) -> (String, Option<Vec<u8>>) {
    let name = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I2 | DType::I4 | DType::I8 => "|i1",
        DType::U2 | DType::U4 | DType::U8 => "|u1",
        DType::I16 => "<i2",
        DType::U16 => "<u2",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::BF16
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F6E2M3
        | DType::F6E3M2
        | DType::F4E2M1 => {
            let wide = tensor.to_f64s().into_iter().flat_map(|v| (v as f32).to_le_bytes()).collect();
            return ("<f4".to_owned(), Some(wide));
        }
        DType::String => {
            let strings = tensor.strings().unwrap_or_default();
            let width = strings.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            let mut bytes = Vec::new();
            for string in strings {
                let codes = string.chars().map(u32::from).chain(std::iter::repeat(0)).take(width);
                bytes.extend(codes.flat_map(u32::to_le_bytes));
            }
            return (format!("<U{width}"), Some(bytes));
        }
    };
    (name.to_owned(), None)
}

#[cfg(test)]
mod tests;
