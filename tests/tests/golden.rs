//! Every golden file, by the interpreter, by compiled code of every level, through passes, and as a plan.

use rabot_filetest::{Backend, Backends, Lower, Outcome, PassOutcome, Passes, run_dir};
use rabot_ir::Graph;
use rabot_ir::interp::Tensors;
use rabot_ir::testing::random_inputs;
use rabot_rewrite::{Exactness, PassCx, Report};
use rabot_target::Profile;
use rabot_tests::{Compiled, levels, listing};
use std::path::Path;

struct Pipelines;

impl Passes for Pipelines {
    fn apply(&self, pipeline: &str, graph: &mut Graph) -> Result<PassOutcome, String> {
        let pipeline = rabot_passes::pipeline(pipeline).map_err(|error| error.to_string())?;
        // For passes that calibrate; where a dim is a symbol, its size does not matter to them.
        let calibration: Vec<Tensors> =
            [1, 2, 3].iter().map(|&seed| random_inputs(graph, seed, &|_| None)).collect::<Result<_, _>>()?;
        let cx = PassCx { calibration: Some(&calibration), ..PassCx::default() };
        let steps = pipeline.run(graph, &cx, &mut |_, _| {}).map_err(|error| error.to_string())?;
        let report = steps.iter().map(|step| lines(&step.pass, &step.report)).collect();
        let exactness = steps.iter().map(|step| step.exactness).fold(Exactness::Bitwise, looser);
        Ok(PassOutcome { exactness, report })
    }
}

/// What was done and what was not.
fn lines(pass: &str, report: &Report) -> String {
    let applied = report.applied.iter().map(|a| format!("{pass}: {} at {}: {}\n", a.rule, a.node, a.detail));
    let skipped =
        report.skipped.iter().map(|s| format!("{pass}: not {} at {}: {}\n", s.rule, s.node, s.reason));
    applied.chain(skipped).collect()
}

/// The looser of two promises.
fn looser(a: Exactness, b: Exactness) -> Exactness {
    match (a, b) {
        (Exactness::Changes(metric), _) | (_, Exactness::Changes(metric)) => Exactness::Changes(metric),
        (Exactness::Rel { rtol, atol }, Exactness::Rel { rtol: r, atol: a }) => {
            Exactness::Rel { rtol: rtol + r, atol: atol + a }
        }
        (rel @ Exactness::Rel { .. }, _) | (_, rel @ Exactness::Rel { .. }) => rel,
        (Exactness::Ulp(a), Exactness::Ulp(b)) => Exactness::Ulp(a + b),
        (ulp @ Exactness::Ulp(_), Exactness::Bitwise) | (Exactness::Bitwise, ulp) => ulp,
    }
}

/// Plans for one profile wherever the test runs, so that the text is the same.
struct Listing;

impl Lower for Listing {
    fn lower(&self, graph: &Graph) -> Result<String, String> {
        let profile = Profile::by_name("x86-64-v3").map_err(|error| error.to_string())?;
        let staged = rabot::lower(graph, &profile).map_err(|error| error.to_string())?;
        Ok(staged.plans().into_iter().map(listing).collect::<Vec<_>>().join("\n"))
    }
}

#[test]
fn golden() {
    let compiled: Vec<Compiled> = levels()
        .into_iter()
        .flat_map(|level| [false, true].map(|optimize| Compiled::new(level.clone(), optimize)))
        .collect();
    let names: Vec<String> = compiled.iter().map(Compiled::name).collect();
    let backends = Backends {
        compiled: names.iter().map(String::as_str).zip(compiled.iter().map(|c| c as &dyn Backend)).collect(),
        passes: Some(&Pipelines),
        lower: Some(&Listing),
    };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
    let results = run_dir(&dir, &backends);
    for result in &results {
        if !matches!(result.outcome, Outcome::Passed) {
            println!("{result}");
        }
    }
    let passed = |wanted: &str| {
        results.iter().filter(|r| r.outcome == Outcome::Passed && r.command.starts_with(wanted)).count()
    };
    println!("{} tests of golden files passed on {}", passed("test"), names.join("; "));
    let failed = results.iter().filter(|r| !matches!(r.outcome, Outcome::Passed | Outcome::Blessed)).count();
    assert_eq!(failed, 0, "of {} tests of golden files failed", results.len());
    for command in ["test roundtrip", "test run", "test verify", "test error", "test pass", "test lower"] {
        let blessed = results.iter().any(|r| r.outcome == Outcome::Blessed);
        assert!(blessed || passed(command) > 0, "no file says `; {command}`");
    }
}
