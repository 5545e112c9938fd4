//! Tests of tracing.

use super::*;
use rabot_ir::Op;
use rabot_ir::text::parse;
use rabot_rewrite::{Exactness, Pass, PassError, Report};
use rabot_tensor::Tensor;

pub(crate) const TEXT: &str = "model \"m\" input %0 \"x\" : f32[n,3]
    %1 = Constant [1.0, 2.0, 3.0] : f32[3] \"w\"
    %2 = Mul(%0, %1) \"scaled\"
    %3 = Relu(%2) \"kept\"
    output \"y\" = %3";

pub(crate) fn inputs() -> Tensors {
    let x = Tensor::from_vec(&[2, 3], vec![0.5f32, -1.0, 0.25, 1.0, 2.0, -3.0]);
    Tensors::from_iter([("x".to_owned(), x)])
}

/// Says that it changes nothing, and adds to a constant.
#[derive(Debug)]
pub(crate) struct Sabotage(pub f32);

impl Pass for Sabotage {
    fn name(&self) -> &'static str {
        "sabotage"
    }

    fn summary(&self) -> &'static str {
        "add to a weight"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Report, PassError> {
        let id = graph.node_ids().find(|&id| matches!(graph.node(id).op, Op::Constant(_))).unwrap();
        graph.set_op(id, Op::Constant(Tensor::from_vec(&[3], vec![1.0, 2.0 + self.0, 3.0]))).unwrap();
        let mut report = Report::default();
        report.apply("sabotage", "w", "");
        Ok(report)
    }
}

#[test]
fn the_pass_that_breaks_its_promise_is_named() {
    let graph = parse(TEXT).unwrap();
    let mut pipeline = rabot_passes::pipeline("fold,cse").unwrap();
    pipeline.push(Box::new(Sabotage(0.5)));
    for pass in ["dce", "group"] {
        pipeline.push(passes_of(pass));
    }
    let options = TraceOptions { values: true, ..TraceOptions::new(Profile::host().unwrap()) };
    let found = trace(&graph, &pipeline, &PassCx::default(), &inputs(), &options, &mut |_, _| {}).unwrap();
    assert!(!found.passed);
    let names: Vec<&str> = found.rows.iter().map(|row| row.verdict.name()).collect();
    assert_eq!(names, ["reference", "holds", "holds", "BREAKS", "holds", "holds"]);
    let row = &found.rows[3];
    assert_eq!((row.pass.as_str(), row.outputs[0].name.as_str()), ("sabotage", "y"));
    assert_eq!(row.outputs[0].added.max_abs, 1.0);
    assert_eq!(row.origin.as_ref().unwrap().name, "scaled");
    // The error is made at one value and goes on to the next.
    let value = |name: &str| row.values.iter().find(|value| value.name == name).unwrap();
    let (scaled, kept) = (value("scaled"), value("kept"));
    assert!(scaled.inherited.is_equal() && scaled.injected.max_abs == 1.0, "{scaled:?}");
    assert!(kept.injected.is_equal() && kept.inherited == kept.added, "{kept:?}");
    assert!(row.outputs[0].injected.is_equal() && row.outputs[0].inherited.max_abs == 1.0);
    // The graph and what changed in it, once each, and on perturbed inputs.
    assert_eq!(found.evaluations, 3 * 2);
    // Later passes add nothing, but the error stays.
    assert_eq!((found.rows[4].outputs[0].added.max_abs, found.rows[4].outputs[0].total.max_abs), (0.0, 1.0));
    assert!(found.compiled.comparison.passed);
}

pub(crate) fn passes_of(name: &str) -> Box<dyn Pass> {
    let info = rabot_passes::PASSES.iter().find(|info| info.name == name).unwrap();
    (info.make)(&rabot_rewrite::Options::new(info.name, info.options)).unwrap()
}

#[test]
fn the_default_pipeline_keeps_its_promises() {
    let graph = parse(TEXT).unwrap();
    let options = TraceOptions { time: true, ..TraceOptions::new(Profile::host().unwrap()) };
    let pipeline = rabot_passes::default_pipeline();
    let mut seen = 0;
    let found =
        trace(&graph, &pipeline, &PassCx::default(), &inputs(), &options, &mut |_, _| seen += 1).unwrap();
    assert!(found.passed, "{found:?}");
    assert_eq!(seen, pipeline.passes().len() + 1);
    assert_eq!(found.rows.last().unwrap().kernels, 1);
    assert!(found.rows.iter().all(|row| row.measured.is_some()));
}

/// Puts two nodes in the place of one: negates twice, and adds to what lies between.
#[derive(Debug)]
struct Detour;

impl Pass for Detour {
    fn name(&self) -> &'static str {
        "detour"
    }

    fn summary(&self) -> &'static str {
        "by way of a negation"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Changes("accuracy")
    }

    fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Report, PassError> {
        let id = graph.node_ids().find(|&id| &*graph.node(id).name == "kept").unwrap();
        let operand = graph.node(id).inputs[0].unwrap();
        let op = |name: &str| Op::from_attrs(name, &rabot_ir::Attrs::new()).unwrap().unwrap();
        let by = graph.add_constant("by", Tensor::from_vec(&[1], vec![0.25f32]));
        let less = graph.add_node(op("Sub"), vec![Some(operand), Some(by)], "less", vec![]).unwrap();
        let less = Value { node: less, slot: 0 };
        let new = graph.add_node(op("Relu"), vec![Some(less)], "new", vec![]).unwrap();
        graph.replace_value(Value { node: id, slot: 0 }, Value { node: new, slot: 0 });
        graph.remove_unused();
        let kept: std::sync::Arc<str> = "kept".into();
        graph.annotate(new, |node| node.outputs[0].name = kept);
        let mut report = Report::default();
        report.apply("detour", "kept", "");
        Ok(report)
    }
}

#[test]
fn errors_of_new_nodes_are_injected_at_the_value_that_they_stand_for() {
    let graph = parse(TEXT).unwrap();
    let pipeline = Pipeline::new(vec![Box::new(Sabotage(0.5)), Box::new(Detour)]);
    let options = TraceOptions { values: true, workers: 3, ..TraceOptions::new(Profile::host().unwrap()) };
    let found = trace(&graph, &pipeline, &PassCx::default(), &inputs(), &options, &mut |_, _| {}).unwrap();
    let row = found.rows.last().unwrap();
    assert_eq!(row.verdict, PassVerdict::Changes("accuracy".to_owned()));
    let kept = row.values.iter().find(|value| value.name == "kept").unwrap();
    assert_eq!((kept.injected.max_abs, kept.inherited.max_abs), (0.25, 0.0));
    assert_eq!(row.origin.as_ref().unwrap().name, "kept");
    let one = TraceOptions { workers: 1, ..options };
    let again = trace(&graph, &pipeline, &PassCx::default(), &inputs(), &one, &mut |_, _| {}).unwrap();
    let outputs =
        |trace: &Trace| format!("{:?}", trace.rows.iter().map(|row| &row.outputs).collect::<Vec<_>>());
    assert_eq!(outputs(&found), outputs(&again));
}

#[test]
fn wrong_inputs_are_errors() {
    let graph = parse(TEXT).unwrap();
    let options = TraceOptions::new(Profile::host().unwrap());
    let none = Tensors::new();
    let pipeline = rabot_passes::default_pipeline();
    let error = trace(&graph, &pipeline, &PassCx::default(), &none, &options, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("`x`"), "{error}");
}
