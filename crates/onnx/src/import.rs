//! From the messages of a model to a graph.

use crate::error::{Failure, ImportError, UnsupportedNode, UnsupportedNodes};
use crate::limits::Limits;
use crate::model::{Model, Notes, doc_text, metadata};
use crate::names::{UniqueNames, node_label, operands};
use crate::scan;
use crate::tensor::TensorReader;
use crate::types::value_type;
use crate::wire::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message;
use rabot_ir::{Dim, Fact, Graph, NodeId, Op, Value};
use rabot_tensor::Tensor;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;

/// The newest version of ONNX's own operator set that the importer knows.
pub const NEWEST_OPSET: i64 = 28;

/// The newest version of the file format that the importer knows.
pub const NEWEST_IR_VERSION: i64 = 14;

/// Reads a model from a file. Large files are memory-mapped, and weights stay where they are.
///
/// **Errors**: the file cannot be read, is no valid model, exceeds a limit, or holds what rabot does not support.
pub fn import_file(path: &Path, limits: &Limits) -> Result<Model, ImportError> {
    let read = rabot_mmap::map_file(path);
    let bytes = read.map_err(|error| ImportError::Read { path: path.to_owned(), error })?;
    // The parent of a bare file name is the empty path, which is no folder that can be opened.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    import_bytes(bytes, Some(folder), limits)
}

/// Reads a model from bytes. External data are read from `base_dir` only.
///
/// **Errors**: as [`import_file`].
pub fn import_bytes(bytes: Bytes, base_dir: Option<&Path>, limits: &Limits) -> Result<Model, ImportError> {
    let model_bytes = bytes.len() as u64;
    let proto = decode(bytes, limits)?;
    let graph_proto = proto.graph.as_ref().ok_or(ImportError::NoGraph)?;
    crate::calls::check(&proto, limits)?;
    let mut importer = Importer::new(&proto, base_dir, limits);
    let env = Env {
        opsets: opsets(&proto.opset_import, proto.ir_version),
        attrs: HashMap::new(),
        prefix: String::new(),
    };
    importer.check_versions(&env, &proto);
    let graph = importer.graph(graph_proto, &env, &[], Vec::new())?;
    if !importer.unsupported.is_empty() {
        return Err(ImportError::Unsupported(UnsupportedNodes(importer.unsupported)));
    }
    let graph_notes = Notes::of(&graph_proto.doc_string, &graph_proto.metadata_props);
    Ok(Model {
        graph: graph.ok_or(ImportError::NoGraph)?,
        file_bytes: model_bytes.saturating_add(importer.tensors.external_bytes()),
        ir_version: proto.ir_version,
        opsets: env.opsets.iter().map(|(domain, version)| ((*domain).to_owned(), *version)).collect(),
        metadata: metadata(&proto.metadata_props),
        doc: doc_text(&proto.doc_string),
        graph_notes: graph_notes.unwrap_or_default(),
        node_notes: importer.node_notes,
        producer_name: proto.producer_name,
        producer_version: proto.producer_version,
        domain: proto.domain,
        model_version: proto.model_version,
    })
}

/// Decodes the messages of a file, if it is no larger than it may be.
pub(crate) fn decode(bytes: Bytes, limits: &Limits) -> Result<ModelProto, ImportError> {
    if bytes.len() as u64 > limits.file_bytes {
        let (actual, limit) = (bytes.len() as u64, limits.file_bytes);
        let what = "bytes of the model file".to_owned();
        return Err(ImportError::Limit { what, actual, limit, field: "file_bytes" });
    }
    scan::check(&bytes, limits)?;
    Ok(ModelProto::decode(bytes)?)
}

/// ONNX's own operator set goes by two names.
pub(crate) fn normalize_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Versions of operator sets. Files from before there were any mean the first.
pub(crate) fn opsets(imports: &[OperatorSetIdProto], ir_version: i64) -> IndexMap<&str, i64> {
    let mut opsets: IndexMap<&str, i64> =
        imports.iter().map(|import| (normalize_domain(&import.domain), import.version)).collect();
    if ir_version < 3 && opsets.is_empty() {
        opsets.insert("", 1);
    }
    opsets
}

/// Domain, name and overload of a function.
pub(crate) type FunctionId<'a> = (&'a str, &'a str, &'a str);

/// What names of operators and attributes mean in a body of nodes.
pub(crate) struct Env<'a> {
    /// Versions by domain.
    pub(crate) opsets: IndexMap<&'a str, i64>,
    /// Attributes of the function being inlined.
    pub(crate) attrs: HashMap<&'a str, &'a AttributeProto>,
    /// Put before names, so that a body inlined twice gets different ones.
    pub(crate) prefix: String,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// A value of the graph.
    Value(Value),
    /// An optional operand that the caller of a function left out.
    Absent,
    /// The result of an unsupported node.
    Poisoned,
}

/// What a nested graph takes from outside.
pub(crate) struct Captured<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: CapturedValue,
}

/// How a nested graph gets what it captures.
pub(crate) enum CapturedValue {
    /// As an input, with this name.
    Input(String, Fact),
    /// As a constant of its own, with this name.
    Constant(String, Tensor),
    /// It does not.
    Missing(Known),
}

/// The names of a body of nodes.
#[derive(Default)]
pub(crate) struct Body<'a> {
    pub(crate) values: HashMap<&'a str, Known>,
    /// Names that values get in the graph, where they differ from those in the body.
    pub(crate) renames: HashMap<&'a str, String>,
}

/// What a node became.
pub(crate) struct Converted {
    /// Its outputs, in order; there may be fewer or more than the node names.
    pub(crate) outputs: Vec<Known>,
    /// The values already have the names they should have.
    pub(crate) named: bool,
}

/// State of an import.
pub(crate) struct Importer<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) tensors: TensorReader,
    pub(crate) functions: HashMap<FunctionId<'a>, &'a FunctionProto>,
    /// Functions being inlined, outermost first.
    pub(crate) active: Vec<FunctionId<'a>>,
    pub(crate) names: UniqueNames,
    node_notes: IndexMap<String, Notes>,
    depth: usize,
    nodes: usize,
    unsupported: Vec<UnsupportedNode>,
}

impl<'a> Importer<'a> {
    fn new(proto: &'a ModelProto, base_dir: Option<&Path>, limits: &'a Limits) -> Self {
        let id = |f: &'a FunctionProto| {
            (normalize_domain(f.domain.as_str()), f.name.as_str(), f.overload.as_str())
        };
        Importer {
            limits,
            tensors: TensorReader::new(base_dir, limits),
            functions: proto.functions.iter().map(|f| (id(f), f)).collect(),
            active: Vec::new(),
            names: UniqueNames::default(),
            node_notes: IndexMap::new(),
            depth: 0,
            nodes: 0,
            unsupported: Vec::new(),
        }
    }

    fn check_versions(&mut self, env: &Env<'a>, proto: &ModelProto) {
        let opset = env.opsets.get("").copied().unwrap_or(0);
        let name = proto.graph.as_ref().map_or("", |graph| graph.name.as_str());
        if opset > NEWEST_OPSET {
            let reason = format!("operator sets newer than {NEWEST_OPSET} are not known");
            self.refuse("Model", name, env, reason);
        }
        if proto.ir_version > NEWEST_IR_VERSION {
            let version = proto.ir_version;
            let reason = format!("its IR version is {version}; none newer than {NEWEST_IR_VERSION} is known");
            self.refuse("Model", name, env, reason);
        }
    }

    /// Runs `body` one level deeper. **Errors**: that is too deep; `what` names the place.
    pub(crate) fn nested<T, E: From<ImportError>>(
        &mut self,
        what: &str,
        body: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.depth >= self.limits.nesting_depth {
            let (actual, limit) = (self.depth as u64 + 1, self.limits.nesting_depth as u64);
            let what = format!("nesting depth of {what}");
            return Err(ImportError::Limit { what, actual, limit, field: "nesting_depth" }.into());
        }
        self.depth += 1;
        let result = body(self);
        self.depth -= 1;
        result
    }

    /// A graph and all that is nested in it; `None` if it needs the result of an unsupported node.
    ///
    /// `own` are facts of its inputs, where they are known better than the file declares them. Everything captured that
    /// is an input becomes one after those, in order.
    pub(crate) fn graph(
        &mut self,
        proto: &'a GraphProto,
        env: &Env<'a>,
        own: &[Fact],
        captured: Vec<Captured<'a>>,
    ) -> Result<Option<Graph>, ImportError> {
        let mut graph = Graph::new(&proto.name);
        let mut body = Body::default();
        self.inputs(&mut graph, &mut body, proto, env, own)?;
        for Captured { name, value } in captured {
            let known = match value {
                CapturedValue::Input(name, fact) => Known::Value(graph.add_input(&name, fact)),
                CapturedValue::Constant(name, tensor) => Known::Value(graph.add_constant(&name, tensor)),
                CapturedValue::Missing(known) => known,
            };
            body.values.insert(name, known);
        }
        self.initializers(&mut graph, &mut body, proto, env)?;
        let outputs = proto.output.iter().map(|output| output.name.as_str());
        self.body(&mut graph, &mut body, &proto.node, outputs, env)?;
        let mut complete = true;
        let mut given = HashSet::new();
        for output in &proto.output {
            if !given.insert(output.name.as_str()) {
                let (first, second) =
                    (format!("graph `{}`, as an output", proto.name), "it, again".to_owned());
                return Err(ImportError::Duplicate { name: output.name.clone(), first, second });
            }
            match body.values.get(output.name.as_str()) {
                Some(Known::Value(value)) => graph.add_output(&output.name, *value),
                Some(Known::Poisoned) => complete = false,
                Some(Known::Absent) | None => {
                    let (graph, output) = (proto.name.clone(), output.name.clone());
                    return Err(ImportError::UndefinedOutput { graph, output });
                }
            }
        }
        drop_unused_constants(&mut graph);
        Ok(complete.then_some(graph))
    }

    fn inputs(
        &mut self,
        graph: &mut Graph,
        body: &mut Body<'a>,
        proto: &'a GraphProto,
        env: &Env<'a>,
        own: &[Fact],
    ) -> Result<(), ImportError> {
        // Before IR version 4 every initializer was an input too; its value is what counts.
        let mut defined: HashSet<&str> = proto.initializer.iter().map(|t| t.name.as_str()).collect();
        let sparse = proto.sparse_initializer.iter().filter_map(|t| t.values.as_ref());
        defined.extend(sparse.map(|values| values.name.as_str()));
        for (at, input) in proto.input.iter().enumerate() {
            if input.name.is_empty() {
                return Err(ImportError::Unnamed { what: "an input".to_owned(), graph: proto.name.clone() });
            }
            if defined.contains(input.name.as_str()) {
                continue;
            }
            self.names.reserve(&input.name);
            let fact = own.get(at).cloned().map_or_else(|| self.input_fact(input), Ok);
            let known = match fact {
                Ok(fact) => Known::Value(graph.add_input(&input.name, fact)),
                Err(reason) => {
                    self.refuse("Input", &input.name, env, reason);
                    Known::Poisoned
                }
            };
            define(body, &input.name, known, "an input")?;
        }
        Ok(())
    }

    /// Dtype and dims of an input. **Errors**: in words, what rabot does not support.
    fn input_fact(&mut self, input: &ValueInfoProto) -> Result<Fact, String> {
        let ty = value_type(&input.name, input.r#type.as_ref(), self.limits)?;
        for symbol in ty.shape.iter().filter_map(Dim::as_symbol) {
            // Inference calls the dims that node `a` makes up `a.0`, `a.1`: no node may be called so that they meet.
            if let Some((base, index)) = symbol.rsplit_once('.')
                && index.bytes().all(|byte| byte.is_ascii_digit())
            {
                self.names.reserve(base);
            }
        }
        Ok(Fact::of(ty))
    }

    pub(crate) fn initializers(
        &mut self,
        graph: &mut Graph,
        body: &mut Body<'a>,
        proto: &'a GraphProto,
        env: &Env<'a>,
    ) -> Result<(), ImportError> {
        let unnamed =
            || ImportError::Unnamed { what: "an initializer".to_owned(), graph: proto.name.clone() };
        for tensor in &proto.initializer {
            let read = self.tensors.read(tensor, &tensor.name);
            if tensor.name.is_empty() {
                return Err(unnamed());
            }
            self.initializer(graph, body, &tensor.name, read, env)?;
        }
        for sparse in &proto.sparse_initializer {
            let name = sparse.values.as_ref().map(|values| values.name.as_str()).unwrap_or_default();
            if name.is_empty() {
                return Err(unnamed());
            }
            let read = self.tensors.read_sparse(sparse, name);
            self.initializer(graph, body, name, read, env)?;
        }
        Ok(())
    }

    fn initializer(
        &mut self,
        graph: &mut Graph,
        body: &mut Body<'a>,
        name: &'a str,
        read: Result<Tensor, ImportError>,
        env: &Env<'a>,
    ) -> Result<(), ImportError> {
        self.names.reserve(name);
        let known = match read.map_err(Failure::from) {
            Ok(tensor) => Known::Value(graph.add_constant(&format!("{}{name}", env.prefix), tensor)),
            Err(Failure::Invalid(error)) => return Err(error),
            Err(Failure::Unsupported { reason, .. }) => {
                self.refuse("Initializer", name, env, reason);
                Known::Poisoned
            }
            Err(Failure::Poisoned) => Known::Poisoned,
        };
        define(body, name, known, "an initializer")
    }

    /// Runs `body` so that nothing of it is left but its result, if that is to be tried again.
    pub(crate) fn attempt<T>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(T, bool), ImportError>,
    ) -> Result<(T, bool), ImportError> {
        let before = (self.names.clone(), self.nodes, self.unsupported.len());
        let (result, again) = body(self)?;
        if again {
            (self.names, self.nodes) = (before.0, before.1);
            self.unsupported.truncate(before.2);
        }
        Ok((result, again))
    }

    fn refuse(&mut self, op: &str, name: &str, env: &Env<'a>, reason: String) {
        self.unsupported.push(UnsupportedNode {
            node: format!("{}{name}", env.prefix),
            op: op.to_owned(),
            domain: String::new(),
            opset: env.opsets.get("").copied().unwrap_or(0),
            reason,
            hint: None,
        });
    }

    /// Converts nodes in the order of what they need. `outputs` are names that are used from outside.
    pub(crate) fn body(
        &mut self,
        graph: &mut Graph,
        body: &mut Body<'a>,
        nodes: &'a [NodeProto],
        outputs: impl Iterator<Item = &'a str>,
        env: &Env<'a>,
    ) -> Result<(), ImportError> {
        self.nodes = self.nodes.saturating_add(nodes.len());
        if self.nodes > self.limits.nodes {
            let (actual, limit) = (self.nodes as u64, self.limits.nodes as u64);
            return Err(ImportError::Limit { what: "nodes".to_owned(), actual, limit, field: "nodes" });
        }
        let mut used: HashSet<&str> = outputs.collect();
        used.extend(nodes.iter().flat_map(operands));
        for index in order(nodes, body)? {
            self.node(graph, body, &nodes[index], &used, env)?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        graph: &mut Graph,
        body: &mut Body<'a>,
        node: &'a NodeProto,
        used: &HashSet<&str>,
        env: &Env<'a>,
    ) -> Result<(), ImportError> {
        if let Some(notes) = Notes::of(&node.doc_string, &node.metadata_props) {
            self.node_notes.insert(format!("{}{}", env.prefix, node_label(node)), notes);
        }
        let failure = match self.convert(graph, body, node, env) {
            Ok(converted) => {
                let missing = bind(graph, body, node, &converted, used, env);
                missing.map(|(slot, name)| {
                    let given = converted.outputs.len();
                    Failure::unsupported(format!(
                        "output {slot} (`{name}`) is used, but rabot's {} has {given} output(s)",
                        node.op_type
                    ))
                })
            }
            Err(failure) => {
                let outputs = node.output.iter().filter(|name| !name.is_empty());
                body.values.extend(outputs.map(|name| (name.as_str(), Known::Poisoned)));
                Some(failure)
            }
        };
        match failure {
            None | Some(Failure::Poisoned) => Ok(()),
            Some(Failure::Invalid(error)) => Err(error),
            Some(Failure::Unsupported { reason, hint }) => {
                let domain = normalize_domain(&node.domain);
                self.unsupported.push(UnsupportedNode {
                    node: format!("{}{}", env.prefix, node_label(node)),
                    op: node.op_type.clone(),
                    domain: domain.to_owned(),
                    opset: env.opsets.get(domain).copied().unwrap_or(0),
                    reason,
                    hint: hint.map(str::to_owned),
                });
                Ok(())
            }
        }
    }
}

/// Gives a node's outputs their names. Returns the first that is used and does not exist.
fn bind<'a>(
    graph: &mut Graph,
    body: &mut Body<'a>,
    node: &'a NodeProto,
    converted: &Converted,
    used: &HashSet<&str>,
    env: &Env<'a>,
) -> Option<(usize, &'a str)> {
    let mut missing = None;
    for (slot, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        let known = match converted.outputs.get(slot) {
            Some(known) => *known,
            None if used.contains(name.as_str()) => {
                missing = missing.or(Some((slot, name.as_str())));
                Known::Poisoned
            }
            None => continue,
        };
        if let (Known::Value(value), false) = (known, converted.named) {
            let name = value_name(body, name, env);
            graph.annotate(value.node, |node| {
                if let Some(output) = node.outputs.get_mut(value.slot as usize) {
                    output.name = name.into();
                }
            });
        }
        body.values.insert(name, known);
    }
    missing
}

/// The name that a value of a body gets in the graph.
pub(crate) fn value_name(body: &Body<'_>, name: &str, env: &Env<'_>) -> String {
    body.renames.get(name).cloned().unwrap_or_else(|| format!("{}{name}", env.prefix))
}

fn define<'a>(
    body: &mut Body<'a>,
    name: &'a str,
    known: Known,
    what: &'static str,
) -> Result<(), ImportError> {
    match body.values.insert(name, known) {
        None => Ok(()),
        Some(_) => Err(ImportError::Duplicate {
            name: name.to_owned(),
            first: "an input, initializer or outer value".to_owned(),
            second: what.to_owned(),
        }),
    }
}

/// Indices of nodes, operands before users; the file's order where that is free.
///
/// **Errors**: a value is made twice or never, or nodes depend on each other in a circle.
fn order(nodes: &[NodeProto], body: &Body<'_>) -> Result<Vec<usize>, ImportError> {
    let quoted = |index: usize| format!("{} `{}`", nodes[index].op_type, node_label(&nodes[index]));
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let first = match makers.insert(name, index) {
                Some(first) => quoted(first),
                None if body.values.contains_key(name.as_str()) => "an input or initializer".to_owned(),
                None => continue,
            };
            return Err(ImportError::Duplicate { name: name.clone(), first, second: quoted(index) });
        }
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waiting = vec![0usize; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for name in operands(node) {
            match makers.get(name) {
                Some(&maker) => {
                    users[maker].push(index);
                    waiting[index] += 1;
                }
                None if body.values.contains_key(name) => {}
                None => {
                    let (node, op) = (node_label(node), node.op_type.clone());
                    return Err(ImportError::UndefinedInput { node, op, input: name.to_owned() });
                }
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&index| waiting[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    match waiting.iter().position(|&left| left > 0) {
        None => Ok(order),
        Some(index) => {
            let node = &nodes[index];
            Err(ImportError::Cycle { node: node_label(node), op: node.op_type.clone() })
        }
    }
}

/// Operands that became attributes, or that an op does not read, leave constants behind.
fn drop_unused_constants(graph: &mut Graph) {
    let constants: Vec<NodeId> =
        graph.node_ids().filter(|&id| matches!(graph.node(id).op, Op::Constant(_))).collect();
    for node in constants {
        if graph.use_count(Value { node, slot: 0 }) == 0 {
            graph.remove_node(node);
        }
    }
}
