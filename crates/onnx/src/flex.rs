//! `FlexAttention`: attention whose scores and probabilities pass through graphs that the node holds.

use crate::compose::flex;
use crate::control::graph_attribute;
use crate::error::{Failure, ImportError};
use crate::import::{Body, Converted, Env, Importer, Known, normalize_domain};
use crate::names::{captures, node_label};
use crate::node::operand;
use crate::upgrade::Draft;
use crate::wire::NodeProto;
use rabot_ir::{Attrs, Graph, Value};
use std::collections::HashSet;

/// The attributes that are graphs.
const GRAPHS: [&str; 2] = ["score_mod", "prob_mod"];

/// True if a node holds graphs.
pub(crate) fn holds_graphs(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| GRAPHS.contains(&attribute.name.as_str()))
}

impl<'a> Importer<'a> {
    /// The graphs are put in place, between the scores, the probabilities and the result.
    pub(crate) fn flex_attention(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        opset: i64,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let mut inputs = Vec::with_capacity(node.input.len());
        for slot in 0..node.input.len() {
            inputs.push(match operand(body, node, slot)? {
                Known::Value(value) => Some(value),
                Known::Absent => None,
                Known::Poisoned => return Err(Failure::Poisoned),
            });
        }
        let attrs = self.attributes_but(node, &GRAPHS, env)?;
        let name = self.names.unique(&format!("{}{}", env.prefix, node_label(node)));
        let mut draft = self.draft(graph, node, env, (&name, opset), (&attrs, &inputs));
        let (heads, mut scores) = flex::scores(&mut draft)?;
        if let Some(modified) = self.through(graph, body, node, (GRAPHS[0], &name), scores, env)? {
            scores = modified;
        }
        let mut draft = self.draft(graph, node, env, (&name, opset), (&attrs, &inputs));
        let mut probabilities = flex::probabilities(&mut draft, scores)?;
        if let Some(modified) = self.through(graph, body, node, (GRAPHS[1], &name), probabilities, env)? {
            probabilities = modified;
        }
        let draft = self.draft(graph, node, env, (&name, opset), (&attrs, &inputs));
        flex::mixed(draft, &heads, probabilities)
    }

    fn draft<'g>(
        &'g mut self,
        graph: &'g mut Graph,
        node: &NodeProto,
        env: &Env<'a>,
        (name, opset): (&str, i64),
        (attrs, inputs): (&Attrs, &[Option<Value>]),
    ) -> Draft<'g> {
        Draft {
            name: name.to_owned(),
            source: format!("{}{}", env.prefix, node_label(node)).into(),
            domain: normalize_domain(&node.domain).to_owned(),
            op: node.op_type.clone(),
            attrs: attrs.clone(),
            inputs: inputs.to_vec(),
            outputs: node.output.len(),
            opset,
            graph,
            names: &mut self.names,
            made: HashSet::new(),
        }
    }

    /// What a graph that the node holds makes of a value; `None` if it holds none of that name.
    fn through(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        (attribute, label): (&str, &str),
        value: Value,
        env: &Env<'a>,
    ) -> Result<Option<Value>, Failure> {
        if !node.attribute.iter().any(|held| held.name == attribute) {
            return Ok(None);
        }
        let proto = graph_attribute(node, attribute)?;
        let ([input], [output]) = (&proto.input[..], &proto.output[..]) else {
            let (inputs, outputs) = (proto.input.len(), proto.output.len());
            return Err(Failure::unsupported(format!(
                "`{attribute}` has {inputs} inputs and {outputs} outputs; expected one of each"
            )));
        };
        let label = format!("{label}/{attribute}");
        let captured = captures(proto).into_iter();
        let values = captured.filter_map(|name| body.values.get(name).map(|known| (name, *known))).collect();
        let mut inner = Body { values, ..Body::default() };
        inner.values.insert(&input.name, Known::Value(value));
        let env = Env { opsets: env.opsets.clone(), attrs: env.attrs.clone(), prefix: format!("{label}/") };
        self.nested(&label, |importer| {
            importer.initializers(graph, &mut inner, proto, &env)?;
            importer.body(graph, &mut inner, &proto.node, std::iter::once(output.name.as_str()), &env)
        })?;
        let modified = match inner.values.get(output.name.as_str()) {
            Some(Known::Value(modified)) => *modified,
            Some(Known::Poisoned) => return Err(Failure::Poisoned),
            Some(Known::Absent) | None => {
                let (graph, output) = (proto.name.clone(), output.name.clone());
                return Err(ImportError::UndefinedOutput { graph, output }.into());
            }
        };
        let (before, after) = (graph.fact(value), graph.fact(modified));
        if before.dtype() != after.dtype() || before.rank() != after.rank() {
            let reason = format!("`{attribute}` makes {} of {}; both must be alike", after.ty, before.ty);
            return Err(Failure::unsupported(reason));
        }
        Ok(Some(modified))
    }
}
