use crate::check::{becomes, run};
use crate::fuse::fusion::Fuse;
use rabot_rewrite::Stats;

#[test]
fn layer_norm_as_torch_writes_it() {
    let report = becomes(
        &Fuse,
        r#"model "g"
        input %0 "x" : f32[n,4]
        %1 = Constant [-1] : i64[1]
        %2 = ReduceMean(%0, %1)
        %3 = Sub(%0, %2)
        %4 = Constant [2.0] : f32[]
        %5 = Pow(%3, %4)
        %6 = Constant [-1] : i64[1]
        %7 = ReduceMean(%5, %6)
        %8 = Constant [0.5] : f32[]
        %9 = Add(%7, %8)
        %10 = Sqrt(%9)
        %11 = Div(%3, %10)
        %12 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
        %13 = Mul(%11, %12)
        %14 = Constant [4.0, 3.0, 2.0, 1.0] : f32[1,4]
        %15 = Add(%13, %14)
        output "y" = %15"#,
        r#"model "g"
        input %0 "x" : f32[n,4]
        %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
        %2 = Constant [4.0, 3.0, 2.0, 1.0] : f32[4]
        %3 = LayerNormalization(%0, %1, %2) {axis=-1, epsilon=0.5}
        output "y" = %3"#,
    );
    let rules: Vec<&str> = report.applied.iter().map(|applied| applied.rule).collect();
    assert_eq!(rules, ["layer-norm", "layer-norm-scale", "layer-norm-bias"]);
}

#[test]
fn a_mean_over_inner_axes_is_no_layer_norm() {
    let (_, report) = run(
        &Fuse,
        r#"model "g"
        input %0 "x" : f32[4,4]
        %1 = Constant [0] : i64[1]
        %2 = ReduceMean(%0, %1)
        %3 = Sub(%0, %2)
        %4 = Mul(%3, %3)
        %5 = ReduceMean(%4, %1)
        %6 = Constant [0.5] : f32[]
        %7 = Add(%5, %6)
        %8 = Sqrt(%7)
        %9 = Div(%3, %8)
        %10 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
        %11 = Mul(%9, %10)
        output "y" = %11"#,
    );
    assert!(report.applied.is_empty());
    assert_eq!(report.skipped[0].reason, "the mean over axes [0] is not over the last ones");
}

#[test]
fn gelu_in_its_spellings() {
    let gelu = |body: &str| {
        let text = format!("model \"g\"\ninput %0 \"x\" : f32[n,4]\n{body}\noutput \"y\" = %9");
        let (graph, report) = run(&Fuse, &text);
        (Stats::of(&graph).nodes, report.applied.last().map(|applied| applied.rule))
    };
    let erf = "%1 = Constant [1.4142135] : f32[]\n%2 = Div(%0, %1)\n%3 = Erf(%2)\n%4 = Constant [1.0] : f32[]
        %5 = Add(%3, %4)\n%6 = Constant [0.5] : f32[]\n";
    assert_eq!(gelu(&format!("{erf}%7 = Mul(%0, %5)\n%9 = Mul(%7, %6)")), (1, Some("gelu")));
    assert_eq!(gelu(&format!("{erf}%7 = Mul(%6, %0)\n%9 = Mul(%7, %5)")), (1, Some("gelu")));
    assert_eq!(gelu(&format!("{erf}%7 = Mul(%6, %5)\n%9 = Mul(%7, %0)")), (1, Some("gelu")));
    let tanh = "%1 = Constant [0.044715] : f32[]\n%2 = Mul(%1, %0)\n%3 = Mul(%0, %2)\n%4 = Mul(%0, %3)
        %5 = Add(%0, %4)\n%6 = Constant [0.7978846] : f32[]\n%7 = Mul(%6, %5)\n%8 = Tanh(%7)
        %10 = Constant [1.0] : f32[1,1]\n%11 = Add(%10, %8)\n%12 = Constant [0.5] : f32[]\n%13 = Mul(%12, %11)
        %9 = Mul(%0, %13)";
    assert_eq!(gelu(tanh), (1, Some("gelu-tanh")));
}

#[test]
fn hard_swish_in_its_spellings() {
    for body in [
        "%1 = HardSigmoid(%0) {alpha=0.16666667, beta=0.5}\n%9 = Mul(%1, %0)",
        "%1 = Constant [3.0] : f32[1]\n%2 = Add(%0, %1)\n%3 = Constant [0.0] : f32[]
         %4 = Constant [6.0] : f32[]\n%5 = Clip(%2, %3, %4)\n%6 = Mul(%0, %5)\n%9 = Div(%6, %4)",
    ] {
        let (graph, _) =
            run(&Fuse, &format!("model \"g\"\ninput %0 \"x\" : f32[n]\n{body}\noutput \"y\" = %9"));
        assert_eq!(graph.node(graph.outputs()[0].value.node).op.name(), "HardSwish");
    }
}

/// Ops that are left of `body`, in order; `run` compares what both compute.
fn ops_of(body: &str) -> Vec<&'static str> {
    let (graph, _) = run(&Fuse, &format!("model \"g\"\n{body}"));
    let ids = graph.topological().unwrap();
    let names = ids.iter().map(|&id| graph.node(id).op.name());
    names.filter(|name| !matches!(*name, "Input" | "Constant")).collect()
}

#[test]
fn rms_norm_with_its_weight() {
    let body =
        "input %0 \"x\" : f32[n,4]\n%1 = Constant [-1] : i64[1]\n%2 = Mul(%0, %0)\n%3 = ReduceMean(%2, %1)
        %4 = Constant [0.5] : f32[]\n%5 = Add(%3, %4)\n%6 = Sqrt(%5)\n%7 = Div(%0, %6)
        %8 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]\n%9 = Mul(%8, %7)\noutput \"y\" = %9";
    assert_eq!(ops_of(body), ["RMSNormalization"]);
}

#[test]
fn a_norm_of_rows_of_unknown_length_keeps_its_scale_apart() {
    let body = "input %0 \"x\" : f32[2,n]\n%1 = Constant [-1] : i64[1]\n%2 = ReduceMean(%0, %1)\n%3 = Sub(%0, %2)
        %4 = Mul(%3, %3)\n%5 = ReduceMean(%4, %1)\n%6 = Constant [0.5] : f32[]\n%7 = Add(%5, %6)\n%8 = Sqrt(%7)
        %9 = Div(%3, %8)\n%10 = Constant [1.0, 2.0] : f32[2,1]\n%11 = Mul(%9, %10)\noutput \"y\" = %11";
    assert_eq!(ops_of(body), ["LayerNormalization", "Mul"]);
}

#[test]
fn softmax_over_one_axis_only() {
    let body = |axes: &str| {
        format!(
            "input %0 \"x\" : f32[2,3,4]\n%1 = Constant {axes}\n%2 = ReduceMax(%0, %1)\n%3 = Sub(%0, %2)
            %4 = Exp(%3)\n%5 = ReduceSum(%4, %1)\n%6 = Div(%4, %5)\noutput \"y\" = %6"
        )
    };
    assert_eq!(ops_of(&body("[1] : i64[1]")), ["Softmax"]);
    assert_eq!(ops_of(&body("[1, 2] : i64[2]")), ["ReduceMax", "Sub", "Exp", "ReduceSum", "Div"]);
}

#[test]
fn a_maximum_with_a_multiple_above_one_is_no_leaky_relu() {
    let body = |factor: &str| {
        format!(
            "input %0 \"x\" : f32[n]\n%1 = Constant [{factor}] : f32[]\n%2 = Mul(%0, %1)\n%3 = Max(%0, %2)
            output \"y\" = %3"
        )
    };
    assert_eq!(ops_of(&body("0.25")), ["LeakyRelu"]);
    assert_eq!(ops_of(&body("1.5")), ["Mul", "Max"]);
}

#[test]
fn rotary_of_other_halves_stays() {
    let body = |start: &str, end: &str| {
        format!(
            "input %0 \"x\" : f32[2,s,4]\ninput %1 \"cos\" : f32[s,4]\ninput %2 \"sin\" : f32[s,4]
            %3 = Constant [{start}] : i64[1]\n%4 = Constant [{end}] : i64[1]\n%5 = Constant [2] : i64[1]
            %6 = Slice(%0, %3, %4, %5)\n%7 = Constant [2] : i64[1]\n%8 = Constant [4] : i64[1]
            %9 = Slice(%0, %7, %8, %5)\n%10 = Neg(%9)\n%11 = Concat(%10, %6) {{axis=2}}
            %12 = Mul(%0, %1)\n%13 = Mul(%11, %2)\n%14 = Add(%12, %13)\noutput \"y\" = %14"
        )
    };
    assert!(ops_of(&body("0", "2")).ends_with(&["Mul", "Add", "Reshape"]));
    assert!(ops_of(&body("1", "3")).contains(&"Concat"));
}

#[test]
fn heads_that_share_keys_are_not_repeated() {
    let body = |mask: &str| {
        format!(
            "input %0 \"q\" : f32[b,6,s,4]\ninput %1 \"k\" : f32[b,2,1,t,4]\ninput %2 \"v\" : f32[b,2,1,t,4]
            input %3 \"mask\" : f32{mask}\ninput %4 \"size\" : f32[b,2,3,t,4]
            %5 = Shape(%4)\n%6 = Constant [0, 6, -1, 4] : i64[4]\n%7 = Expand(%1, %5)\n%8 = Reshape(%7, %6)
            %9 = Transpose(%8) {{perm=[0,1,3,2]}}\n%10 = Expand(%2, %5)\n%11 = Reshape(%10, %6)
            %12 = MatMul(%0, %9)\n%13 = Add(%12, %3)\n%14 = Softmax(%13) {{axis=-1}}\n%15 = MatMul(%14, %11)
            output \"y\" = %15"
        )
    };
    for mask in ["[s,t]", "[b,1,s,t]", "[1,1,1,t]"] {
        let ops = ops_of(&body(mask));
        assert!(!ops.contains(&"Expand"), "{ops:?}");
        assert!(ops.ends_with(&["Softmax", "MatMul", "Reshape"]), "{ops:?}");
    }
}

#[test]
fn rotary_with_an_angle_for_each_pair() {
    let body = "input %0 \"x\" : f32[b,s,3,8]\ninput %1 \"cos\" : f32[b,s,1,4]\ninput %2 \"sin\" : f32[b,s,1,4]
        %3:2 = Split(%0) {axis=-1, num_outputs=2}\n%4 = Mul(%3, %1)\n%5 = Mul(%3#1, %2)\n%6 = Sub(%4, %5)
        %7 = Mul(%3, %2)\n%8 = Mul(%3#1, %1)\n%9 = Add(%7, %8)\n%10 = Concat(%6, %9) {axis=-1}\noutput \"y\" = %10";
    assert!(ops_of(body).ends_with(&["Mul", "Add", "Reshape"]), "{:?}", ops_of(body));
}
