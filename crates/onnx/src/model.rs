//! A model, and what its file says of it.

use crate::wire::StringStringEntryProto;
use indexmap::IndexMap;
use rabot_ir::Graph;

/// A model as rabot holds it, and what its file says of it.
#[derive(Clone, Debug)]
pub struct Model {
    /// The graph; functions are inlined, constants share the file's bytes.
    pub graph: Graph,
    /// Size of the file that was read and of its external data, in bytes; 0 if there is none.
    pub file_bytes: u64,
    /// Version of the file format.
    pub ir_version: i64,
    /// Versions of the operator sets by domain; ONNX's own is the empty domain.
    pub opsets: IndexMap<String, i64>,
    /// Tool that wrote the file.
    pub producer_name: String,
    /// Its version.
    pub producer_version: String,
    /// Namespace of the model.
    pub domain: String,
    /// Version of the model.
    pub model_version: i64,
    /// What the writer noted, by key.
    pub metadata: IndexMap<String, String>,
    /// What the writer explains of the model.
    pub doc: String,
    /// What is noted of the graph.
    pub graph_notes: Notes,
    /// What is noted of nodes, by the name that [`rabot_ir::Node::sources`] has.
    pub node_notes: IndexMap<String, Notes>,
}

/// What a file says of a part of itself, for people and tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// The doc string.
    pub doc: String,
    /// Other notes, by key.
    pub metadata: IndexMap<String, String>,
}

impl Notes {
    /// `None` if nothing is noted.
    pub(crate) fn of(doc: &[u8], entries: &[StringStringEntryProto]) -> Option<Notes> {
        let notes = Notes { doc: doc_text(doc), metadata: metadata(entries) };
        (notes != Notes::default()).then_some(notes)
    }
}

/// A doc string; what is no UTF-8 in it is replaced.
pub(crate) fn doc_text(doc: &[u8]) -> String {
    String::from_utf8_lossy(doc).into_owned()
}

/// Notes by key.
pub(crate) fn metadata(entries: &[StringStringEntryProto]) -> IndexMap<String, String> {
    entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
}

impl Model {
    /// A model that is a graph, and of which nothing else is known.
    pub fn of_graph(graph: Graph) -> Self {
        Model {
            graph,
            file_bytes: 0,
            ir_version: 0,
            opsets: IndexMap::new(),
            producer_name: "rabot".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: String::new(),
            model_version: 0,
            metadata: IndexMap::new(),
            doc: String::new(),
            graph_notes: Notes::default(),
            node_notes: IndexMap::new(),
        }
    }
}
