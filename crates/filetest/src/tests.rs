use super::*;
use std::fs;

struct Doubled;

impl Backend for Doubled {
    fn run(&self, graph: &Graph, inputs: &Tensors) -> Result<Tensors, String> {
        let outputs = rabot_ir::interp::run(graph, inputs).map_err(|e| e.to_string())?;
        let double = |t: rabot_tensor::Tensor| {
            let values: Vec<f64> = t.to_f64s().iter().map(|v| 2.0 * v).collect();
            rabot_tensor::Tensor::from_f64s(t.dtype(), t.shape(), &values)
        };
        Ok(outputs.into_iter().map(|(name, tensor)| (name, double(tensor))).collect())
    }
}

/// `drop`: points the output at the input; `none`: does nothing.
struct Toy(Exactness);

impl Passes for Toy {
    fn apply(&self, pipeline: &str, graph: &mut Graph) -> Result<PassOutcome, String> {
        match pipeline {
            "none" => {}
            "drop" => {
                let node = graph.inputs()[0];
                graph.set_output(0, rabot_ir::Value { node, slot: 0 });
                graph.remove_unused();
            }
            other => return Err(format!("no pass `{other}`")),
        }
        Ok(PassOutcome { exactness: self.0, report: format!("ran {pipeline}") })
    }
}

fn outcomes(text: &str, backends: &Backends<'_>, bless: bool) -> (Vec<Outcome>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("case.rbt");
    fs::write(&path, text).unwrap();
    let results = run_file(&path, backends, bless);
    (results.into_iter().map(|r| r.outcome).collect(), fs::read_to_string(&path).unwrap())
}

fn message(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed(message) => message,
        other => panic!("{other:?}"),
    }
}

const RUN: &str = "; test run\n; input x = [1, -2] : f32[2]\n; expect y = [1, 0] : f32[2]\n\
    model \"m\"\ninput %0 \"x\" : f32[2]\n%1 = Relu(%0) : f32[2]\noutput \"y\" = %1\n";

#[test]
fn golden_files_hold_for_the_interpreter() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let results = run_dir(&dir, &Backends::default());
    let failed: Vec<String> =
        results.iter().filter(|r| matches!(r.outcome, Outcome::Failed(_))).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(results.len() > 50);
}

#[test]
fn run_compares_interpreter_and_backends() {
    assert_eq!(outcomes(RUN, &Backends::default(), false).0, [Outcome::Passed]);
    let wrong = RUN.replace("[1, 0]", "[1, 0.001]");
    let (found, kept) = outcomes(&wrong, &Backends::default(), true);
    assert!(message(&found[0]).contains("interpreter: output `y`: element 1"), "{found:?}");
    assert_eq!(kept, wrong, "numbers are never blessed");
    let backends = Backends { compiled: vec![("doubled", &Doubled)], ..Backends::default() };
    let (found, _) = outcomes(RUN, &backends, false);
    assert!(message(&found[0]).contains("doubled: output `y`: element 0 is 2.0"), "{found:?}");
}

#[test]
fn passes_are_held_to_text_and_to_outputs() {
    let text = RUN.replace("test run", "test pass none").replace("; expect y = [1, 0] : f32[2]\n", "");
    let toy = Toy(Exactness::Bitwise);
    let backends = Backends { passes: Some(&toy), ..Backends::default() };
    let (found, _) = outcomes(&text, &backends, false);
    assert!(message(&found[0]).contains("+model \"m\"") && message(&found[0]).contains(BLESS_COMMAND));
    let (found, blessed) = outcomes(&text, &backends, true);
    assert_eq!(found, [Outcome::Blessed]);
    assert!(blessed.ends_with("; output \"y\" = %1\n;\n; ran none\n"), "{blessed}");
    assert_eq!(outcomes(&blessed, &backends, false).0, [Outcome::Passed]);
    let (found, kept) = outcomes(&text.replace("none", "drop"), &backends, true);
    assert!(message(&found[0]).contains("the pipeline changes outputs"), "{found:?}");
    assert!(!kept.contains("---"), "what changes outputs is not blessed");
    let skipped = outcomes(&text, &Backends::default(), false).0;
    assert!(matches!(skipped[0], Outcome::Skipped(_)));
}

#[test]
fn roundtrip_shows_a_diff_and_blesses() {
    let text = "; test roundtrip\nmodel \"m\"\ninput %0 \"x\" : f32[2]\n%7 = Relu(%0)\noutput \"y\" = %7\n";
    let (found, _) = outcomes(text, &Backends::default(), false);
    assert!(message(&found[0]).contains("+%1 = Relu(%0) : f32[2] \"v7\" sources=[]\n"), "{found:?}");
    let (_, blessed) = outcomes(text, &Backends::default(), true);
    assert_eq!(outcomes(&blessed, &Backends::default(), false).0, [Outcome::Passed]);
}

#[test]
fn verify_wants_each_error_on_its_line_and_no_other() {
    let text = "; test verify\nmodel \"m\"\ninput %0 \"x\" : f32[2]\ninput %1 \"x\" : f32[2] ; error: V4\n";
    assert_eq!(outcomes(text, &Backends::default(), false).0, [Outcome::Passed]);
    let unexpected = outcomes(&text.replace("; error: V4", ""), &Backends::default(), false).0;
    assert!(message(&unexpected[0]).contains("not expected, on line 4: V4"));
    let other = outcomes(&text.replace("V4", "V5"), &Backends::default(), false).0;
    assert!(message(&other[0]).contains("line 4: expected, but not found: V5"));
}

#[test]
fn unclear_files_are_errors() {
    for text in ["model \"m\"\n", "; test swim\nmodel \"m\"\n", "; test run\n; input x = 3\nmodel \"m\"\n"] {
        let found = outcomes(text, &Backends::default(), false).0;
        assert!(matches!(&found[..], [Outcome::Failed(_)]), "{text:?}: {found:?}");
    }
    let long = format!("; test run\n{}", "\n".repeat(MAX_LINES));
    assert!(message(&outcomes(&long, &Backends::default(), false).0[0]).contains("at most 150"));
}
