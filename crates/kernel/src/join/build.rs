//! Calls of kernels of several parts.

use super::chain::items_per_step;
use super::order::{Link, Node, Piece};
use super::rows::RowBlocks;
use crate::{Arg, Arrangement, BufferId, Call, CompositeKernel, KernelDesc, Part, Plan, Size, Storage};
use rabot_ir::Dim;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Bytes that the parts of a chain hand on in one go: they stay in an L2 cache, and starting a part costs little.
const CHAIN_BYTES: usize = 128 * 1024;
/// Pieces that a product is cut into at most, and other parts beside products: threads take several pieces at a time,
/// which should be about equal work.
const HEAVY_PIECES: i64 = 64;
const LIGHT_PIECES: i64 = 8;

/// The kernels of a plan, with room for more.
pub(super) struct Registry<'a> {
    pub plan: &'a mut Plan,
    pub ids: &'a mut HashMap<KernelDesc, usize>,
    /// Name of the machine.
    pub target: &'a str,
    /// How often steps touch each buffer.
    pub uses: HashMap<BufferId, usize>,
}

/// A part of a call to be made: the call, and how its work items are counted.
struct Member {
    call: Call,
    count: Dim,
    per: Dim,
}

impl Registry<'_> {
    /// The call of a set of nodes.
    pub fn side(&mut self, piece: &Piece, set: &[usize]) -> Call {
        let nodes: Vec<&Node> = set.iter().filter_map(|&node| piece.nodes[node].as_ref()).collect();
        let heavy = |node: &Node| node.units.iter().any(|&unit| piece.units[unit].is_contract);
        let mut parts: Vec<(bool, Call)> =
            nodes.iter().map(|node| (heavy(node), self.chain(piece, node))).collect();
        if parts.len() == 1
            && let Some((_, call)) = parts.pop()
        {
            return call;
        }
        // Products first, so that what is left at the end is small and threads finish together.
        parts.sort_by_key(|(heavy, _)| !heavy);
        let any_heavy = parts.iter().any(|(heavy, _)| *heavy);
        let mut items = Dim::from(0);
        let mut members = Vec::new();
        for (heavy, call) in parts {
            let pieces = if heavy || !any_heavy { HEAVY_PIECES } else { LIGHT_PIECES };
            let count = call.items.clone();
            // Never 0, also where there are no items.
            let per = count.floor_div(&Dim::from(pieces + 1)) + Dim::from(1);
            items = items + count.ceil_div(&per);
            members.push(Member { call, count, per });
        }
        self.composite(Arrangement::Side, members, items, None)
    }

    /// The call of a node: its unit's own, or that of a chain.
    fn chain(&mut self, piece: &Piece, node: &Node) -> Call {
        let calls: Vec<Call> = node.units.iter().map(|&unit| piece.units[unit].call.clone()).collect();
        let steps = match (&node.link, &calls[..]) {
            (None, _) | (_, [_]) => None,
            (Some(Link::Items), [first, ..]) => Some(first.items.clone()),
            (Some(Link::Lead(lead)), _) => Some(lead.iter().product()),
            (Some(Link::Items), []) => None,
        };
        let Some(steps) = steps else {
            return calls.into_iter().next().unwrap_or_else(|| piece.units[0].call.clone());
        };
        if let Some(Link::Lead(lead)) = &node.link
            && let units = node.units.iter().map(|&unit| &piece.units[unit]).collect::<Vec<_>>()
            && let Some(blocks) = RowBlocks::new(self.plan, &self.uses, &units, lead)
        {
            return self.in_row_blocks(calls, blocks);
        }
        let handed_on = self.handed_on(&calls);
        let bytes = handed_on.floor_div(&steps.maximum(&Dim::from(1))) + Dim::from(1);
        let block = Dim::from(CHAIN_BYTES).floor_div(&bytes) + Dim::from(1);
        let members = node
            .units
            .iter()
            .zip(calls)
            .map(|(&unit, call)| {
                let per = match &node.link {
                    Some(Link::Lead(lead)) => items_per_step(&piece.units[unit], lead),
                    _ => None,
                };
                Member { count: call.items.clone(), per: per.unwrap_or_else(|| Dim::from(1)), call }
            })
            .collect();
        self.composite(Arrangement::Chain, members, steps, Some(block))
    }

    fn in_row_blocks(&mut self, calls: Vec<Call>, blocks: RowBlocks) -> Call {
        let mut members = Vec::with_capacity(calls.len());
        for (mut call, part) in calls.into_iter().zip(blocks.parts.iter()) {
            if let Some(kernel) = &part.kernel {
                let name = self.plan.kernel_names.get(call.kernel).cloned().unwrap_or_default();
                call.kernel = self.kernel(KernelDesc::Contract(kernel.clone()), name);
            }
            members.push(Member { call, count: part.count.clone(), per: Dim::from(part.per) });
        }
        for buffer in blocks.private() {
            // What is handed on is in scratch memory. A buffer without elements would have no results to compute.
            self.plan.buffers[buffer].elements = Dim::from(1);
        }
        let mut call = self.composite(Arrangement::Chain, members, blocks.steps(), Some(Dim::from(1)));
        let KernelDesc::Composite(mut kernel) = self.plan.kernels[call.kernel].clone() else { return call };
        kernel.rows = Some(blocks.row_steps(&mut call));
        let desc = KernelDesc::Composite(kernel);
        let name = self.name(&desc);
        call.kernel = self.kernel(desc, name);
        call
    }

    /// Bytes of the buffers that one of the calls writes and another touches.
    fn handed_on(&self, calls: &[Call]) -> Dim {
        let mut seen: HashMap<usize, usize> = HashMap::new();
        for call in calls {
            for &buffer in call.args.iter().collect::<BTreeSet<_>>() {
                *seen.entry(buffer).or_insert(0) += 1;
            }
        }
        let mut shared: Vec<usize> =
            seen.into_iter().filter(|(_, n)| *n > 1).map(|(buffer, _)| buffer).collect();
        shared.sort_unstable();
        let buffers = shared.into_iter().filter_map(|buffer| self.plan.buffers.get(buffer));
        let arena = buffers.filter(|b| matches!(b.storage, Storage::Arena { .. }));
        arena.fold(Dim::from(0), |sum, b| sum + b.elements.clone() * Dim::from(b.dtype.size_bytes()))
    }

    fn composite(
        &mut self,
        arrangement: Arrangement,
        members: Vec<Member>,
        items: Dim,
        block: Option<Dim>,
    ) -> Call {
        let (mut args, mut params, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut kernel_args: Vec<Arg> = Vec::new();
        let (mut sources, mut values): (Vec<Arc<str>>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
        let (mut scratch_bytes, mut flops) = (Dim::from(0), Dim::from(0));
        let (mut counts, mut leaves) = (Vec::new(), Vec::new());
        for Member { call, count, per } in members {
            if let Some(kernel) = self.plan.kernels.get(call.kernel) {
                kernel_args.extend(kernel.args());
            }
            parts.push((call.kernel, args.len(), params.len()));
            args.extend(call.args);
            params.extend(call.params);
            if call.parts.is_empty() {
                leaves.push(call.sources.clone());
            }
            leaves.extend(call.parts);
            for source in call.sources {
                if !sources.contains(&source) {
                    sources.push(source);
                }
            }
            values.extend(call.values);
            scratch_bytes = scratch_bytes.maximum(&call.scratch_bytes);
            flops = flops + call.flops;
            counts.push((count, per));
        }
        let mut param = |dim: Dim| {
            params.push(dim);
            Size::Param(params.len() - 1)
        };
        let parts = parts
            .into_iter()
            .zip(counts)
            .map(|((kernel, args, params), (count, per))| {
                let (count, per) = (param(count), param(per));
                Part { kernel, args, params, count, per }
            })
            .collect();
        let block = block.map_or(Size::Const(1), param);
        let desc = KernelDesc::Composite(CompositeKernel {
            args: kernel_args,
            arrangement,
            parts,
            block,
            rows: None,
        });
        let name = self.name(&desc);
        let kernel = self.kernel(desc, name);
        Call { kernel, args, params, items, scratch_bytes, sources, parts: leaves, flops, values }
    }

    fn kernel(&mut self, desc: KernelDesc, name: String) -> usize {
        if let Some(&id) = self.ids.get(&desc) {
            return id;
        }
        self.plan.kernel_names.push(name);
        self.plan.kernels.push(desc.clone());
        self.ids.insert(desc, self.plan.kernels.len() - 1);
        self.plan.kernels.len() - 1
    }

    /// `chain(f32_gemm_12x4, f32_row_exp)__x86-64-v3`: the names of the parts, without the machine.
    fn name(&self, desc: &KernelDesc) -> String {
        let KernelDesc::Composite(kernel) = desc else { return String::new() };
        let suffix = format!("__{}", self.target);
        let name = |part: &Part| {
            let name = self.plan.kernel_names.get(part.kernel).map_or("", String::as_str);
            name.strip_suffix(&suffix).unwrap_or(name).to_owned()
        };
        let names: Vec<String> = kernel.parts.iter().map(name).collect();
        format!("{}({}){suffix}", desc.kind(), names.join(", "))
    }
}
