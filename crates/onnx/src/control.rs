//! Conditionals and calls of local functions.

use crate::error::{AttributeProblem, Failure, ImportError};
use crate::import::{
    Body, Captured, CapturedValue, Converted, Env, FunctionId, Importer, Known, opsets, value_name,
};
use crate::names::{captures, node_label};
use crate::node::{failure_of, operand, resolved_attributes};
use crate::wire::{FunctionProto, GraphProto, NodeProto};
use indexmap::IndexSet;
use rabot_ir::ops::If;
use rabot_ir::{Fact, Graph, Op, Value};
use rabot_tensor::Tensor;

impl<'a> Importer<'a> {
    /// Puts the nodes of a function in place of a call of it.
    pub(crate) fn call(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        (id, function): (FunctionId<'a>, &'a FunctionProto),
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        if self.active.contains(&id) {
            return Err(ImportError::Recursion(format!("{}::{}", id.0, id.1)).into());
        }
        let label = self.names.unique(&format!("{}{}", env.prefix, node_label(node)));
        let mut inner = Body::default();
        for (slot, formal) in function.input.iter().enumerate() {
            inner.values.insert(formal, operand(body, node, slot)?);
        }
        let named = function.output.iter().zip(&node.output).filter(|(_, actual)| !actual.is_empty());
        inner.renames = named.map(|(f, actual)| (f.as_str(), value_name(body, actual, env))).collect();
        let mut attrs: std::collections::HashMap<_, _> =
            function.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();
        attrs.extend(resolved_attributes(node, env)?);
        let function_opsets = match function.opset_import.is_empty() {
            true => env.opsets.clone(),
            false => opsets(&function.opset_import, i64::MAX),
        };
        let inner_env = Env { opsets: function_opsets, attrs, prefix: format!("{label}/") };

        self.active.push(id);
        let outputs = function.output.iter().map(String::as_str);
        let result = self
            .nested(&label, |importer| importer.body(graph, &mut inner, &function.node, outputs, &inner_env));
        self.active.pop();
        result?;
        let output = |name: &String| {
            let missing = || ImportError::UndefinedOutput { graph: label.clone(), output: name.clone() };
            inner.values.get(name.as_str()).copied().ok_or_else(missing)
        };
        let outputs = function.output.iter().map(output).collect::<Result<_, _>>()?;
        Ok(Converted { outputs, named: true })
    }

    /// `If`: with a constant condition only the branch taken is read, in place; else both become nested graphs.
    pub(crate) fn conditional(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let then_proto = branch(node, "then_branch")?;
        let else_proto = branch(node, "else_branch")?;
        let condition = match operand(body, node, 0)? {
            Known::Value(value) => Some(value),
            Known::Poisoned => None,
            Known::Absent => {
                let (node, op) = (node_label(node), node.op_type.clone());
                return Err(ImportError::UndefinedInput { node, op, input: "cond".to_owned() }.into());
            }
        };
        if let Some(taken) = condition.and_then(|value| graph.constant(value)).and_then(truth) {
            let proto = if taken { then_proto } else { else_proto };
            return self.inline_branch(graph, body, node, proto, env);
        }
        let mut names: IndexSet<&'a str> = captures(then_proto);
        names.extend(captures(else_proto));
        let label = self.names.unique(&format!("{}{}", env.prefix, node_label(node)));
        let mut operands = vec![condition];
        operands.extend(captured_values(graph, body, &names));
        let then_branch = self.nested_graph(graph, body, &names, then_proto, &[], &label, env)?;
        let else_branch = self.nested_graph(graph, body, &names, else_proto, &[], &label, env)?;
        let (Some(then_branch), Some(else_branch), Some(_)) = (then_branch, else_branch, condition) else {
            return Err(Failure::Poisoned);
        };
        let op = Op::If(Box::new(If { then_branch, else_branch }));
        let source = format!("{}{}", env.prefix, node_label(node));
        let id = graph.add_node(op, operands, &label, vec![source.into()]).map_err(failure_of)?;
        Ok(Converted::of_node(graph, id))
    }

    /// A graph that is nested in a node: `own` are the facts of its own inputs, `names` what it captures.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn nested_graph(
        &mut self,
        graph: &Graph,
        body: &Body<'a>,
        names: &IndexSet<&'a str>,
        proto: &'a GraphProto,
        own: &[Fact],
        label: &str,
        env: &Env<'a>,
    ) -> Result<Option<Graph>, ImportError> {
        let captured = names.iter().map(|&name| {
            let known = body.values.get(name).copied().unwrap_or(Known::Absent);
            let value = match known {
                Known::Value(value) => {
                    let (op, label) = (&graph.node(value.node).op, graph.value_name(value).to_string());
                    match op {
                        // Each branch has its own node; the data are shared.
                        Op::Constant(tensor) => CapturedValue::Constant(label, tensor.clone()),
                        _ => CapturedValue::Input(label, graph.fact(value).clone()),
                    }
                }
                other => CapturedValue::Missing(other),
            };
            Captured { name, value }
        });
        let captured = captured.collect();
        self.nested(label, |importer| importer.graph(proto, env, own, captured))
    }

    fn inline_branch(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        proto: &'a GraphProto,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let label = self.names.unique(&format!("{}{}", env.prefix, node_label(node)));
        let captured = captures(proto).into_iter();
        let values = captured.filter_map(|name| body.values.get(name).map(|known| (name, *known))).collect();
        let named = proto.output.iter().zip(&node.output).filter(|(_, actual)| !actual.is_empty());
        let renames = named.map(|(o, actual)| (o.name.as_str(), value_name(body, actual, env))).collect();
        let mut inner = Body { values, renames };
        let inner_env =
            Env { opsets: env.opsets.clone(), attrs: env.attrs.clone(), prefix: format!("{label}/") };
        let outputs = proto.output.iter().map(|output| output.name.as_str());
        self.nested(&label, |importer| {
            importer.initializers(graph, &mut inner, proto, &inner_env)?;
            importer.body(graph, &mut inner, &proto.node, outputs, &inner_env)
        })?;
        let output = |name: &str| {
            let (graph, output) = (proto.name.clone(), name.to_owned());
            let missing = || ImportError::UndefinedOutput { graph, output };
            inner.values.get(name).copied().ok_or_else(missing)
        };
        let outputs = proto.output.iter().map(|o| output(&o.name)).collect::<Result<_, _>>()?;
        Ok(Converted { outputs, named: true })
    }
}

/// The values that nested graphs capture; constants are not among them, each graph has its own.
pub(crate) fn captured_values<'a>(
    graph: &Graph,
    body: &Body<'a>,
    names: &IndexSet<&'a str>,
) -> Vec<Option<Value>> {
    let value = |name: &&'a str| match body.values.get(*name) {
        Some(Known::Value(value)) if !matches!(graph.node(value.node).op, Op::Constant(_)) => Some(*value),
        _ => None,
    };
    names.iter().filter_map(value).map(Some).collect()
}

fn branch<'a>(node: &'a NodeProto, name: &str) -> Result<&'a GraphProto, Failure> {
    let graph = graph_attribute(node, name)?;
    match graph.input.is_empty() {
        true => Ok(graph),
        false => Err(Failure::unsupported(format!("a branch with {} input(s)", graph.input.len()))),
    }
}

/// An attribute that is a graph.
pub(crate) fn graph_attribute<'a>(node: &'a NodeProto, name: &str) -> Result<&'a GraphProto, Failure> {
    let attribute = node.attribute.iter().find(|attribute| attribute.name == name);
    let graph = attribute.and_then(|attribute| attribute.g.as_deref());
    let Some(graph) = graph else {
        if attribute.is_some_and(|attribute| !attribute.ref_attr_name.is_empty()) {
            return Err(Failure::unsupported("a branch that is an attribute of the enclosing function"));
        }
        return Err(ImportError::Attribute {
            node: node_label(node),
            op: node.op_type.clone(),
            attribute: name.to_owned(),
            problem: AttributeProblem::NoValue,
        }
        .into());
    };
    Ok(graph)
}

/// The value of a condition. `None` if it is none; inference then says so.
fn truth(tensor: &Tensor) -> Option<bool> {
    match tensor.bytes() {
        [byte] => Some(*byte != 0),
        _ => None,
    }
}
