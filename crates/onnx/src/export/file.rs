//! Model files, and the files of weights beside them: whole or not there.

use super::error::ExportError;
use super::{Exported, MAX_MESSAGE_BYTES, alignment};
use crate::data::tensor_proto;
use crate::wire::{DATA_LOCATION_EXTERNAL, GraphProto, ModelProto, StringStringEntryProto};
use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use rabot_tensor::Tensor;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Tags of fields, as in onnx.proto.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;

/// Smallest tensors in a file of their own where nothing else is asked for.
const DEFAULT_THRESHOLD: u64 = 1024;

/// Where weights go that are not in the model file.
pub(super) struct External<'a> {
    /// Tensors of at least this many bytes; only where the model would be too large otherwise, if absent.
    pub(super) threshold: Option<u64>,
    /// Name of the file beside the model.
    pub(super) location: &'a str,
}

/// Puts a model together.
///
/// **Errors**: it is too large for one message.
pub(super) fn assemble(
    model: &ModelProto,
    graph: &GraphProto,
    initializers: &[(String, Tensor)],
    external: &External<'_>,
) -> Result<(Vec<Bytes>, Vec<Bytes>), ExportError> {
    let head = (model.encode_to_vec(), graph.encode_to_vec());
    if external.threshold.is_none() {
        let (chunks, bytes) = message(&head, initializers, None, external.location);
        if bytes <= MAX_MESSAGE_BYTES {
            return Ok((chunks, Vec::new()));
        }
    }
    let mut data = Data::default();
    let threshold = external.threshold.unwrap_or(DEFAULT_THRESHOLD);
    let (chunks, bytes) = message(&head, initializers, Some((threshold, &mut data)), external.location);
    match bytes <= MAX_MESSAGE_BYTES {
        true => Ok((chunks, data.chunks)),
        false => Err(ExportError::TooLarge { bytes, limit: MAX_MESSAGE_BYTES }),
    }
}

/// The message in pieces, of which those of weights are shared; and its length.
fn message(
    (model, graph): &(Vec<u8>, Vec<u8>),
    initializers: &[(String, Tensor)],
    mut data: Option<(u64, &mut Data)>,
    location: &str,
) -> (Vec<Bytes>, u64) {
    let mut chunks = vec![Bytes::new(), Bytes::copy_from_slice(graph)];
    for (name, tensor) in initializers {
        let mut proto = tensor_proto(name, tensor);
        let mut raw = proto.raw_data.take();
        let long = |threshold: u64| raw.as_ref().is_some_and(|raw| raw.len() as u64 >= threshold);
        if let Some((threshold, data)) = &mut data
            && long(*threshold)
            && let Some(raw) = raw.take()
        {
            proto.external_data = data.place(raw, location);
            proto.data_location = DATA_LOCATION_EXTERNAL;
        }
        let mut head = proto.encode_to_vec();
        if let Some(raw) = &raw {
            encode_key(TENSOR_RAW_DATA, WireType::LengthDelimited, &mut head);
            encode_varint(raw.len() as u64, &mut head);
        }
        let mut key = Vec::new();
        encode_key(GRAPH_INITIALIZER, WireType::LengthDelimited, &mut key);
        encode_varint((head.len() + raw.as_ref().map_or(0, Bytes::len)) as u64, &mut key);
        key.append(&mut head);
        chunks.push(key.into());
        chunks.extend(raw);
    }
    let graph_bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let mut first = model.clone();
    encode_key(MODEL_GRAPH, WireType::LengthDelimited, &mut first);
    encode_varint(graph_bytes, &mut first);
    let bytes = first.len() as u64 + graph_bytes;
    chunks[0] = first.into();
    (chunks, bytes)
}

/// Weights beside a model.
#[derive(Default)]
struct Data {
    chunks: Vec<Bytes>,
    length: u64,
    /// Where bytes are that several tensors share.
    placed: HashMap<(usize, usize), u64>,
}

impl Data {
    /// Places the bytes of a tensor; gives the entries that say where.
    fn place(&mut self, raw: Bytes, location: &str) -> Vec<StringStringEntryProto> {
        let key = (raw.as_ptr() as usize, raw.len());
        let offset = match self.placed.get(&key) {
            Some(offset) => *offset,
            None => {
                let offset = self.length.next_multiple_of(alignment(raw.len()));
                // At most one alignment.
                self.chunks.push(Bytes::from(vec![0; (offset - self.length) as usize]));
                self.length = offset + raw.len() as u64;
                // Kept here, so that no other tensor can have the same address.
                self.chunks.push(raw);
                self.placed.insert(key, offset);
                offset
            }
        };
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", key.1.to_string()),
        ]
    }
}

/// Name of the file of weights beside a model file.
///
/// **Errors**: the path has no name, or one that a model cannot hold.
pub(super) fn location(path: &Path) -> Result<String, ExportError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(|name| format!("{name}.data")).ok_or_else(|| ExportError::Location(path.to_owned()))
}

/// Writes a model, and its weights if they are beside it: to temporary files first, which take their names when they
/// are complete. What is no regular file, as `/dev/stdout`, is written directly.
///
/// **Errors**: a file cannot be written; then the model file is as it was.
pub(super) fn write(path: &Path, exported: &Exported) -> Result<Vec<PathBuf>, ExportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| ExportError::Write { path, error }
    };
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        if !exported.data.is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "weights need a folder to be put into");
            return Err(failed(path)(error));
        }
        let mut file = fs::OpenOptions::new().write(true).open(path).map_err(failed(path))?;
        exported.write_model(&mut file).map_err(failed(path))?;
        return Ok(vec![path.to_owned()]);
    }
    // A link stays a link; the weights are beside what it leads to.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let model = temporary(&target, &exported.model).map_err(failed(path))?;
    if exported.data.is_empty() {
        model.persist(&target).map_err(|error| failed(path)(error.error))?;
        return Ok(vec![path.to_owned()]);
    }
    let beside = target.with_file_name(&exported.location);
    let was_there = beside.exists();
    let data = temporary(&beside, &exported.data).map_err(failed(&beside))?;
    data.persist(&beside).map_err(|error| failed(&beside)(error.error))?;
    if let Err(error) = model.persist(&target) {
        if !was_there {
            // What is left is told of by the error; that it cannot be removed adds nothing.
            let _ = fs::remove_file(&beside);
        }
        return Err(failed(path)(error.error));
    }
    Ok(vec![path.to_owned(), path.with_file_name(&exported.location)])
}

/// A complete temporary file beside the one whose name it will take.
fn temporary(target: &Path, chunks: &[Bytes]) -> io::Result<NamedTempFile> {
    let folder = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rabot-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut writer = BufWriter::new(builder.tempfile_in(folder)?);
    for chunk in chunks {
        writer.write_all(chunk)?;
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)
}
