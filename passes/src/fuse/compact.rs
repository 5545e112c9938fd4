//! `compact`: says the same in fewer nodes, for files that other programs read.
//!
//! It belongs at the end of the passes before a model is written: kernels are made of the forms that it removes.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,3]
//! %1 = Constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[3,2]
//! %2 = Constant [0.5, 0.25] : f32[2]
//! %3 = MatMul(%0, %1)
//! %4 = Add(%3, %2)
//! output "y" = %4
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,3]
//! %1 = Constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[3,2]
//! %2 = Constant [0.5, 0.25] : f32[2]
//! %3 = Gemm(%0, %1, %2)
//! output "y" = %3
//! ```

use super::affine;
use super::fusion::ROUNDED;
use rabot_ir::ops::{BatchNormalization, Binary, BinaryOp, Gemm};
use rabot_ir::{Dim, Graph, NodeId, Op, Value};
use rabot_rewrite::{
    Exactness, Match, Pass, PassCx, PassError, PassInfo, PatternError, Report, Rewriter, RuleInfo, Rules,
    Skip, Valid, edit_branches, taken_names, unique_name,
};
use rabot_tensor::{DType, Tensor};
use std::sync::LazyLock;

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "compact", options: &[], make: |_| Ok(Box::new(Compact)) };

const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "gemm",
        identity: "A B + c is Gemm(A, B, c) for matrices",
        lhs: &["Add(MatMul(?a, ?b), ?c)"],
        uses: &["a", "b", "c"],
        apply: gemm,
        valid: Valid::Always,
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-and-shift",
        identity: "x s + t is BatchNormalization(x, s, t, 0, 1) with epsilon = 0 along axis 1",
        lhs: &["Add(Mul(?x, #scale), #shift)"],
        uses: &["x", "scale", "shift"],
        apply: scale_and_shift,
        valid: Valid::Always,
        ..ROUNDED
    },
];

/// Says the same in fewer nodes.
#[derive(Clone, Debug)]
pub struct Compact;

impl Pass for Compact {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn summary(&self) -> &'static str {
        "say the same in fewer nodes, for files that other programs read: Gemm, BatchNormalization"
    }

    fn exactness(&self) -> Exactness {
        Exactness::of_rules(&self.rules())
    }

    fn rules(&self) -> Vec<RuleInfo> {
        // A scale or shift that fits into weights goes there.
        [affine::RULES, RULES]
            .concat()
            .into_iter()
            .filter(|rule| rule.name != "batch-norm-to-mul-add")
            .collect()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        static RULES: LazyLock<Result<Rules, PatternError>> = LazyLock::new(|| Rules::new(&Compact.rules()));
        let rules = match &*RULES {
            Ok(rules) => rules,
            Err(error) => return Err(PassError::Pattern { pass: self.name(), error: error.clone() }),
        };
        let mut report = Report::default();
        separate(graph, cx, &mut report)?;
        let mut ruled = rules.run(self.name(), graph, cx)?;
        report.applied.append(&mut ruled.applied);
        report.skipped.append(&mut ruled.skipped);
        Ok(report)
    }
}

/// Takes apart linear nodes that stand for several of the file, whose scales and shifts differ: with weights of its own
/// each takes up what follows it.
fn separate(graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
    let error = |error| PassError::Graph { pass: "compact", error };
    let ids: Vec<NodeId> = graph.node_ids().collect();
    let mut names = taken_names(graph);
    for id in ids {
        let value = Value { node: id, slot: 0 };
        let users = affine_users(graph, id);
        let shared = users.len() > 1 && graph.node(id).sources.len() >= users.len();
        // The value itself must not be needed any more.
        if !shared || graph.use_count(value) != users.len() || !cx.admits("separate", &graph.node(id).name) {
            continue;
        }
        let node = graph.node(id).clone();
        for &(user, slot) in users.iter().skip(1) {
            let name = unique_name(&mut names, &node.name);
            let copy = graph.add_node(node.op.clone(), node.inputs.clone(), &name, node.sources.clone());
            let copy = copy.map_err(error)?;
            graph.set_input(user, slot, Some(Value { node: copy, slot: 0 }));
        }
        report.apply("separate", node.name, format!("{} of {}", users.len(), node.op.name()));
    }
    edit_branches("compact", graph, &mut |branch| {
        let before = report.applied.len();
        separate(branch, cx, report)?;
        Ok(report.applied.len() > before)
    })
}

/// The users of a convolution or product by constant weights that scale its result by a constant, or shift it, where
/// more than one does and nothing else uses it.
fn affine_users(graph: &Graph, id: NodeId) -> Vec<(NodeId, usize)> {
    let node = graph.node(id);
    let linear = matches!(node.op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_));
    let weights = node.inputs.get(1).copied().flatten();
    if !linear || weights.is_none_or(|weights| graph.constant(weights).is_none()) {
        return Vec::new();
    }
    let users = graph.users(Value { node: id, slot: 0 });
    let is_affine = |&(user, slot): &(NodeId, usize)| {
        let user = graph.node(user);
        let other = user.inputs.get(1 - slot.min(1)).copied().flatten();
        matches!(user.op, Op::Binary(Binary { op: BinaryOp::Mul | BinaryOp::Add }))
            && other.is_some_and(|other| graph.constant(other).is_some())
    };
    if users.iter().all(is_affine) { users } else { Vec::new() }
}

fn gemm(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let [a, b, c] = ["a", "b", "c"].map(|name| rewriter.value(found, name));
    let (a, b, c) = (a?, b?, c?);
    let (left, right, added) = (rewriter.fact(a), rewriter.fact(b), rewriter.fact(c));
    let floats = matches!(left.dtype(), DType::F16 | DType::F32 | DType::F64);
    let matrices = [left, right].iter().all(|fact| fact.ty.is_tensor() && fact.rank() == 2);
    if !floats || !matrices || !added.ty.is_tensor() {
        return Err(Skip::NoMatch);
    }
    let result = [&left.shape()[0], &right.shape()[1]];
    let one = Dim::from(1);
    let spreads = |(dim, to): (&Dim, &&Dim)| *dim == one || dim == *to;
    let dims = added.shape();
    if dims.len() > 2 || !dims.iter().rev().zip(result.iter().rev()).all(spreads) {
        return Err(Skip::because(format!(
            "{} does not spread to a matrix of the product's shape",
            added.ty
        )));
    }
    let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    rewriter.add(Op::Gemm(op), vec![Some(a), Some(b), Some(c)], "gemm")
}

fn scale_and_shift(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let (scale, shift) = (rewriter.tensor(found, "scale")?, rewriter.tensor(found, "shift")?);
    let fact = rewriter.fact(x);
    if fact.dtype() != DType::F32 || !fact.ty.is_tensor() || fact.rank() < 2 {
        return Err(Skip::NoMatch);
    }
    let rank = fact.rank();
    let channels =
        fact.shape()[1].as_usize().ok_or_else(|| Skip::because("the number of channels is open"))?;
    let per_channel = |tensor: &Tensor| {
        let before = rank.checked_sub(tensor.rank())?;
        let elsewhere = |(at, dim): (usize, &usize)| at + before != 1 && *dim != 1;
        if tensor.shape().iter().enumerate().any(elsewhere) {
            return None;
        }
        let values = tensor.to_slice::<f32>().ok()?;
        match values.len() {
            1 => values.first().map(|&value| vec![value; channels]),
            count => (count == channels).then(|| values.to_vec()),
        }
    };
    let (Some(scales), Some(shifts)) = (per_channel(&scale), per_channel(&shift)) else {
        return Err(Skip::because("scale and shift vary not only along axis 1"));
    };
    // Four lists of one number each would be more than is saved.
    if channels == 0 || (scale.len() == 1 && shift.len() == 1 && channels > 1) {
        return Err(Skip::NoMatch);
    }
    let lists = [
        (scales, "scale"),
        (shifts, "shift"),
        (vec![0.0f32; channels], "mean"),
        (vec![1.0f32; channels], "variance"),
    ];
    let constants =
        lists.map(|(values, part)| rewriter.constant(Tensor::from_vec(&[channels], values), part));
    let operands = [x].into_iter().chain(constants).map(Some).collect();
    rewriter.add(Op::BatchNormalization(BatchNormalization { epsilon: 0.0 }), operands, "normalized")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{example, run, run_graph};
    use rabot_ir::text::parse;

    /// Ops of a graph after the pass, in order.
    fn ops(text: &str) -> Vec<String> {
        names(&run(&Compact, &format!("model \"g\"\n{text}")).0)
    }

    fn names(graph: &Graph) -> Vec<String> {
        let nodes = graph.topological().unwrap().into_iter();
        let names = nodes.map(|id| graph.node(id).op.name().to_owned());
        names.filter(|name| name != "Input" && name != "Constant").collect()
    }

    #[test]
    fn header_example() {
        example(&Compact, include_str!("compact.rs"));
    }

    #[test]
    fn only_what_gemm_can_add_goes_into_it() {
        let with = |c: &str| {
            ops(&format!(
                "input %0 \"x\" : f32[n,3] input %1 \"w\" : f32[3,4] input %2 \"c\" : {c}
                 %3 = MatMul(%0, %1) %4 = Add(%2, %3) output \"y\" = %4"
            ))
        };
        for fits in ["f32[4]", "f32[1,4]", "f32[n,1]", "f32[n,4]", "f32[1]", "f32[]"] {
            assert_eq!(with(fits), ["Gemm"], "{fits}");
        }
        assert_eq!(with("f32[2,n,4]"), ["MatMul", "Add"]);
    }

    #[test]
    fn products_of_batches_stay() {
        let batch = "input %0 \"x\" : f32[2,5,3] input %1 \"w\" : f32[3,4] input %2 \"c\" : f32[4]
             %3 = MatMul(%0, %1) %4 = Add(%3, %2) output \"y\" = %4";
        assert_eq!(ops(batch), ["MatMul", "Add"]);
    }

    #[test]
    fn a_scale_and_a_shift_of_channels_are_one_node() {
        let with = |scale: &str, shift: &str| {
            ops(&format!(
                "input %0 \"x\" : f32[n,3,2,2] %1 = Constant rand(1, -2.0, 2.0) : {scale}
                 %2 = Constant rand(2, -2.0, 2.0) : {shift}
                 %3 = Mul(%0, %1) %4 = Add(%3, %2) output \"y\" = %4"
            ))
        };
        assert_eq!(with("f32[3,1,1]", "f32[1,3,1,1]"), ["BatchNormalization"]);
        assert_eq!(with("f32[3,1,1]", "f32[]"), ["BatchNormalization"]);
        assert_eq!(with("f32[1]", "f32[1]"), ["Mul", "Add"]);
        assert_eq!(with("f32[3,2,1]", "f32[3,1,1]"), ["Mul", "Add"]);
    }

    #[test]
    fn convolutions_that_were_merged_take_up_their_scales() {
        let text = "model \"g\" input %0 \"x\" : f32[1,2,3,3]
             %1 = Constant rand(1, -1.0, 1.0) : f32[4,2,1,1]
             %2 = Constant rand(2, -1.0, 1.0) : f32[4,1,1] %3 = Constant rand(3, -1.0, 1.0) : f32[4,1,1]
             %4 = Conv(%0, %1) %5 = Mul(%4, %2) %6 = Mul(%4, %3)
             output \"y\" = %5 output \"z\" = %6";
        let graph = parse(text).unwrap();
        assert_eq!(names(&run_graph(&Compact, graph.clone()).0), ["Conv", "Mul", "Mul"]);
        let mut merged = graph;
        let conv = merged.node_ids().find(|&id| merged.node(id).op.name() == "Conv").unwrap();
        merged.annotate(conv, |node| *node.sources = vec!["a".into(), "b".into()]);
        assert_eq!(names(&run_graph(&Compact, merged).0), ["Conv", "Conv"]);
    }
}
