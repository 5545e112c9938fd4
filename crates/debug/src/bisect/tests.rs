use super::*;
use rabot_ir::text::parse;
use rabot_tensor::Tensor;

const TEXT: &str = "model \"m\" input %0 \"x\" : f32[2,5]
    %1 = Constant [2.0] : f32[1] \"two\"
    %2 = Mul(%0, %1) \"double\"
    %3 = Exp(%2) \"grow\"
    output \"y\" = %3";

fn inputs() -> Vec<Tensors> {
    let x = Tensor::from_vec(&[2, 5], (0..10).map(|v| v as f32 / 10.0).collect());
    vec![Tensors::from_iter([("x".to_owned(), x)])]
}

fn found(edit_plan: Option<&EditPlan>, check: &Check) -> Result<Bisection, DebugError> {
    found_in(TEXT, inputs(), edit_plan, check)
}

fn found_in(
    text: &str,
    inputs: Vec<Tensors>,
    edit_plan: Option<&EditPlan>,
    check: &Check,
) -> Result<Bisection, DebugError> {
    let (graph, pipeline) = (parse(text).unwrap(), rabot_passes::default_pipeline());
    let profile = Profile::host().unwrap();
    bisect(Subject {
        graph: &graph,
        pipeline: &pipeline,
        calibration: &[],
        strict: false,
        without: &[],
        engine: None,
        inputs: &inputs,
        profile: &profile,
        check,
        edit_plan,
    })
}

#[test]
fn what_is_right_has_no_culprit() {
    let found = found(None, &Check::Tolerance).unwrap();
    assert!(!found.fails && found.rewrites.is_empty() && found.kernels.is_empty(), "{found:?}");
}

#[test]
fn a_check_that_the_model_fails_itself_is_refused() {
    let check = Check::Expression(Expression::parse("max(\"y\") < 0").unwrap());
    let error = found(None, &check).unwrap_err().to_string();
    assert!(error.contains("fails for the model as imported"), "{error}");
}

#[test]
fn a_kernel_that_stops_early_is_named() {
    use rabot_kernel::{KernelDesc, Size, Work};
    let short = |staged: &mut Staged| {
        for stage in &mut staged.stages {
            let Work::Kernels(plan) = &mut stage.work else { continue };
            for kernel in &mut plan.kernels {
                let KernelDesc::Loop(kernel) = kernel else { continue };
                let inner = kernel.stages.iter_mut().filter_map(|stage| stage.inner.last_mut());
                for extent in inner.take(1) {
                    if let Size::Const(extent) = extent {
                        *extent -= 1;
                    }
                }
            }
        }
    };
    let found = found(Some(&short), &Check::Tolerance).unwrap();
    assert!(found.fails && found.rewrites.is_empty(), "{found:?}");
    assert_eq!(found.kernels.len(), 1);
    let kernel = &found.kernels[0];
    assert_eq!((kernel.value.as_str(), kernel.first_wrong, kernel.in_tail), ("grow", 9, true), "{found:?}");
}

#[test]
fn a_kernel_that_copies_an_operand_wrong_is_named() {
    use rabot_kernel::{KernelDesc, Size, Work};
    // The pool reads a copy of its operand with a border around it.
    let text = "model \"m\" input %0 \"x\" : f32[1,2,5,7]
        %1 = MaxPool(%0) {kernel_shape=[3,3], pads=[1,1,1,1]} \"pool\"
        output \"y\" = %1";
    let x = Tensor::from_vec(&[1, 2, 5, 7], (0..70).map(|v| (v * 37 % 70) as f32).collect());
    let short = |staged: &mut Staged| {
        for stage in &mut staged.stages {
            let Work::Kernels(plan) = &mut stage.work else { continue };
            for (name, kernel) in plan.kernel_names.iter().zip(&mut plan.kernels) {
                let KernelDesc::Loop(kernel) = kernel else { continue };
                let last = kernel.outer.last_mut().filter(|_| name.contains("move"));
                if let Some(Size::Const(extent)) = last {
                    *extent -= 1;
                }
            }
        }
    };
    let inputs = vec![Tensors::from_iter([("x".to_owned(), x)])];
    let found = found_in(text, inputs, Some(&short), &Check::Tolerance).unwrap();
    let kernels: Vec<&str> = found.kernels.iter().map(|kernel| kernel.value.as_str()).collect();
    assert_eq!(kernels, ["pool (padded)"], "{found:?}");
    let kernel = &found.kernels[0];
    assert_eq!(kernel.shape, [1, 2, 5, 7]);
    assert!(kernel.kernel.contains("move") && kernel.within.is_some(), "{kernel:?}");
}
