//! What inlining all functions will make of a model, before it is begun: thirty functions that each call the next one
//! twice are a few hundred bytes, and a billion nodes.

use crate::error::ImportError;
use crate::import::{FunctionId, normalize_domain};
use crate::limits::Limits;
use crate::names::subgraphs;
use crate::wire::{FunctionProto, ModelProto, NodeProto};
use std::collections::HashMap;

/// Checks how many nodes a model has once its functions are inlined, and how deep their calls nest.
///
/// **Errors**: there are more than the limits allow, or a function calls itself.
pub(crate) fn check(model: &ModelProto, limits: &Limits) -> Result<(), ImportError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let functions = model.functions.iter().map(|f| (id(f), f));
    let mut count = Count { functions: functions.collect(), sizes: HashMap::new(), limits };
    let nodes = model.graph.as_ref().map_or(&[][..], |graph| &graph.node);
    let size = count.nodes(nodes, 0)?;
    if size > limits.nodes as u64 {
        let largest = model.functions.iter().max_by_key(|f| count.size(&id(f)));
        let name = largest.map(|f| format!("{}::{}", f.domain, f.name)).unwrap_or_default();
        let what = format!("nodes after functions such as `{name}` are inlined");
        return Err(ImportError::Limit { what, actual: size, limit: limits.nodes as u64, field: "nodes" });
    }
    Ok(())
}

fn id(function: &FunctionProto) -> FunctionId<'_> {
    (normalize_domain(&function.domain), &function.name, &function.overload)
}

struct Count<'a> {
    functions: HashMap<FunctionId<'a>, &'a FunctionProto>,
    /// Nodes of each function with all that it calls; `None` while it is being counted.
    sizes: HashMap<FunctionId<'a>, Option<u64>>,
    limits: &'a Limits,
}

impl<'a> Count<'a> {
    fn size(&self, id: &FunctionId<'_>) -> u64 {
        self.sizes.get(id).copied().flatten().unwrap_or(0)
    }

    /// Nodes of a body with all that it calls. Calls recurse as deep as the limit allows, graphs as messages nest.
    fn nodes(&mut self, nodes: &'a [NodeProto], depth: usize) -> Result<u64, ImportError> {
        let mut sum = nodes.len() as u64;
        for node in nodes {
            for graph in subgraphs(node) {
                sum = sum.saturating_add(self.nodes(&graph.node, depth)?);
            }
            let id = (normalize_domain(&node.domain), node.op_type.as_str(), node.overload.as_str());
            if let Some(&function) = self.functions.get(&id) {
                sum = sum.saturating_add(self.call(id, function, depth)?);
            }
        }
        Ok(sum)
    }

    fn call(
        &mut self,
        id: FunctionId<'a>,
        function: &'a FunctionProto,
        depth: usize,
    ) -> Result<u64, ImportError> {
        match self.sizes.get(&id) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return Err(ImportError::Recursion(format!("{}::{}", id.0, id.1))),
            None => {}
        }
        if depth >= self.limits.nesting_depth {
            let (actual, limit) = (depth as u64 + 1, self.limits.nesting_depth as u64);
            let what = format!("nesting depth of calls at function `{}::{}`", id.0, id.1);
            return Err(ImportError::Limit { what, actual, limit, field: "nesting_depth" });
        }
        self.sizes.insert(id, None);
        let size = self.nodes(&function.node, depth + 1)?;
        self.sizes.insert(id, Some(size));
        Ok(size)
    }
}
