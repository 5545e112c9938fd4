//! Writes models as ONNX files: the way back from rabot's graph, in any operator set that can say what it says.
//!
//! Nodes keep their order and names, and values theirs; constants become initializers that share the bytes of the file
//! they came from. What a node says is brought to the form of the operator set by the schemas of ONNX (`schemas.txt`)
//! and the inverse of the importer's upgrades (`older`).

mod error;
mod file;
mod fit;
mod graph;
mod names;
mod node;
mod older;
mod repeated;
mod schema;
mod types;

pub use error::ExportError;

use crate::NEWEST_OPSET;
use crate::model::Model;
use crate::wire::{GraphProto, ModelProto, OperatorSetIdProto};
use bytes::Bytes;
use file::External;
use graph::{Body, Emitter, Layout, entries, text_bytes};
use indexmap::IndexMap;
use rabot_ir::{Graph, Op};
use rabot_tensor::{DType, Tensor};
use repeated::Repeated;
use schema::Schemas;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The oldest operator set that models are written in: before it, broadcasting was an attribute.
pub const OLDEST_WRITTEN_OPSET: i64 = 7;

/// Operator set of models that do not say which they are in, where it can say all they hold.
const DEFAULT_OPSET: i64 = 17;

/// Protocol buffer messages are smaller than this.
const MAX_MESSAGE_BYTES: u64 = (1 << 31) - 1;

/// How to write a model.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// Version of ONNX's operator set; if absent that of the model, or the lowest above it that can say what the
    /// graph holds.
    pub opset: Option<i64>,
    /// Weights of at least this many bytes are written to a file beside the model. If absent, that is done only for
    /// a model that would be larger than 2 GB.
    pub external_data: Option<u64>,
    /// What the file and its external data should not be larger than, in bytes. All constants are stored where that
    /// fits. Where it does not, the types of values between nodes are left out; then constants of one repeated element
    /// are computed by `ConstantOfShape` nodes, the largest first; what is smallest is written where nothing fits. If
    /// absent, the file holds what the graph holds.
    pub fit: Option<u64>,
}

/// A model as an ONNX file.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Version of ONNX's operator set.
    pub opset: i64,
    model: Vec<Bytes>,
    data: Vec<Bytes>,
    location: String,
}

impl Exported {
    /// Size of the model and of the weights beside it, in bytes.
    pub fn bytes(&self) -> u64 {
        self.model.iter().chain(&self.data).map(|chunk| chunk.len() as u64).sum()
    }

    /// Writes the model file.
    ///
    /// **Errors**: what the writer says.
    pub fn write_model(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.model.iter().try_for_each(|chunk| writer.write_all(chunk))?;
        writer.flush()
    }

    /// Writes the weights that are beside the model file; nothing if there are none.
    ///
    /// **Errors**: what the writer says.
    pub fn write_data(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.data.iter().try_for_each(|chunk| writer.write_all(chunk))?;
        writer.flush()
    }

    /// True if there are weights beside the model file.
    pub fn has_data(&self) -> bool {
        !self.data.is_empty()
    }
}

/// Makes an ONNX file of a model; weights beside it are in a file that is called `location`.
///
/// **Errors**: a node has no form in the operator set, or two inputs or outputs have the same name.
pub fn export(model: &Model, options: &ExportOptions, location: &str) -> Result<Exported, ExportError> {
    let schemas = Schemas::new();
    let mut write = |layout| with_layout(model, options, location, &schemas, layout);
    match options.fit {
        None => write(Layout { typed: true, repeated: Repeated::AsTheyAre }),
        Some(fit) => {
            let mut sizes = Vec::new();
            repeated::candidates(&model.graph, &mut sizes);
            fit::fitting(fit, &sizes, &mut write)
        }
    }
}

fn with_layout(
    model: &Model,
    options: &ExportOptions,
    location: &str,
    schemas: &Schemas,
    layout: Layout,
) -> Result<Exported, ExportError> {
    let mut versions = versions(model, options)?;
    let body = loop {
        match Emitter::new(model, schemas, &versions, layout).main() {
            Ok(body) => break body,
            Err(ExportError::Node { domain, lowest: Some(lowest), .. })
                if options.opset.is_none() || !domain.is_empty() =>
            {
                versions.insert(domain, lowest);
            }
            Err(error) => return Err(error),
        }
    };
    let opset = versions.get("").copied().unwrap_or(DEFAULT_OPSET);
    let Body { proto: graph, initializers } = body;
    let head = head(model, &graph, &initializers, &versions);
    let external = External { threshold: options.external_data, location };
    let (model, data) = file::assemble(&head, &graph, &initializers, &external)?;
    Ok(Exported { opset, model, data, location: location.to_owned() })
}

/// Writes a model to an ONNX file, with the version of ONNX's operator set that it is in and the files that were
/// written: the model, and `NAME.data` beside it if weights are in a file of their own.
///
/// **Errors**: as [`export`], and a file cannot be written; then what was there is as it was.
pub fn export_file(
    model: &Model,
    path: &Path,
    options: &ExportOptions,
) -> Result<(i64, Vec<PathBuf>), ExportError> {
    let exported = export(model, options, &file::location(path)?)?;
    let files = file::write(path, &exported)?;
    Ok((exported.opset, files))
}

/// Multiple of which the position of a tensor of this many bytes is, so that it can be mapped.
fn alignment(bytes: usize) -> u64 {
    if bytes >= 4096 { 4096 } else { 64 }
}

/// The versions to begin with: what the model has, for all domains that it needs.
///
/// **Errors**: there is no such version.
fn versions(model: &Model, options: &ExportOptions) -> Result<IndexMap<String, i64>, ExportError> {
    let (oldest, newest) = (OLDEST_WRITTEN_OPSET, NEWEST_OPSET);
    if let Some(asked) = options.opset.filter(|asked| !(oldest..=newest).contains(asked)) {
        return Err(ExportError::Opset { asked, oldest, newest });
    }
    let mut used = BTreeSet::new();
    domains(&model.graph, &mut used);
    let mut versions = IndexMap::new();
    for (domain, version) in &model.opsets {
        // Functions of other domains have been inlined.
        if used.remove(domain.as_str()) || domain.is_empty() || domain.starts_with("ai.onnx") {
            versions.insert(domain.clone(), *version);
        }
    }
    // The first version of any other; a node that needs a later one raises it.
    versions.extend(used.into_iter().map(|domain| (domain.to_owned(), 1)));
    let own = model.opsets.get("").copied().unwrap_or(DEFAULT_OPSET);
    versions.insert(String::new(), options.opset.unwrap_or(own.clamp(oldest, newest)));
    Ok(versions)
}

/// The domains of a graph's operators.
fn domains(graph: &Graph, found: &mut BTreeSet<&'static str>) {
    for id in graph.node_ids() {
        let op = &graph.node(id).op;
        found.insert(node::split_name(op).0);
        op.regions().into_iter().for_each(|(_, region)| domains(region, found));
    }
}

/// All of a model but its graph.
fn head(
    model: &Model,
    graph: &GraphProto,
    initializers: &[(String, Tensor)],
    versions: &IndexMap<String, i64>,
) -> ModelProto {
    let mut dtypes: BTreeSet<DType> = initializers.iter().map(|(_, tensor)| tensor.dtype()).collect();
    collect_dtypes(&model.graph, &mut dtypes);
    let opset = versions.get("").copied().unwrap_or(DEFAULT_OPSET);
    let needed = dtypes.into_iter().map(ir_version_of).max().unwrap_or(4);
    let own = if model.ir_version > 0 { model.ir_version } else { ir_version_with(opset) };
    // Notes of graphs and nodes have been there since version 10.
    let noted = !graph.metadata_props.is_empty() || graph.node.iter().any(|n| !n.metadata_props.is_empty());
    let needed = if noted { needed.max(10) } else { needed };
    let import =
        |(domain, version): (&String, &i64)| OperatorSetIdProto { domain: domain.clone(), version: *version };
    ModelProto {
        ir_version: own.max(needed),
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        domain: model.domain.clone(),
        model_version: model.model_version,
        doc_string: text_bytes(&model.doc),
        opset_import: versions.iter().map(import).collect(),
        metadata_props: entries(&model.metadata),
        ..ModelProto::default()
    }
}

fn collect_dtypes(graph: &Graph, found: &mut BTreeSet<DType>) {
    for id in graph.node_ids() {
        let node = graph.node(id);
        found.extend(node.outputs.iter().map(|output| output.fact.dtype()));
        if let Op::If(_) | Op::Loop(_) | Op::Scan(_) = node.op {
            node.op.regions().into_iter().for_each(|(_, region)| collect_dtypes(region, found));
        }
    }
}

/// The version of the file format that was the first to have a dtype. Before version 4, constants were inputs too.
///
/// **Source**: the comments on `Version` in onnx.proto.
fn ir_version_of(dtype: DType) -> i64 {
    match dtype {
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 9,
        DType::I4 | DType::U4 => 10,
        DType::F4E2M1 => 11,
        DType::F8E8M0 => 12,
        DType::I2 | DType::U2 => 13,
        DType::F6E2M3 | DType::F6E3M2 => 14,
        _ => 4,
    }
}

/// The version of the file format that came with an operator set.
///
/// **Source**: <https://github.com/onnx/onnx/blob/main/docs/Versioning.md>
fn ir_version_with(opset: i64) -> i64 {
    match opset {
        ..=10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}
