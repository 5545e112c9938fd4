mod draw;
mod seeds;
mod values;

use crate::registry::PASSES;
use draw::Draw;
use rabot_ir::Graph;
use rabot_ir::interp::{self, Tensors};
use rabot_ir::text::{SplitMix64, parse, print};
use rabot_ir::verify::verify;
use rabot_rewrite::{Exactness, Options, PassCx, Pattern, RuleInfo, Rules, Skip, Valid};
use rabot_tensor::DType;
use std::path::Path;

/// Draws of one rule at most.
const TRIES: u64 = 2500;
/// Draws in which a rule must have applied and been compared.
const WANTED: usize = 12;
/// Draws in which it has, after which it is left.
const ENOUGH: usize = 80;
/// Sets of values for one graph.
const SETS: u64 = 3;

/// What came of one graph.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The rule did not apply, or evaluation told nothing.
    Nothing,
    /// It applied and the results agree.
    Holds,
}

/// Applies one rule to a graph and compares.
fn check(
    info: &RuleInfo,
    rules: &Rules,
    graph: &Graph,
    sizes: &[(String, usize)],
    seed: u64,
) -> Result<Outcome, String> {
    let mut after = graph.clone();
    let report = rules.run("sound", &mut after, &PassCx::default()).map_err(|error| error.to_string())?;
    if report.applied.is_empty() {
        return Ok(Outcome::Nothing);
    }
    let describe =
        |what: String| format!("{}: {what}\nbefore:\n{}\nafter:\n{}", info.name, print(graph), print(&after));
    verify(&after).map_err(|errors| describe(errors.to_string()))?;
    let mut outcome = Outcome::Nothing;
    for set in 0..SETS {
        let Some(inputs) = values::inputs(graph, sizes, SETS * seed + set, info.valid) else { continue };
        // The largest number on the way, if all are finite.
        let mut largest = Some(0f64);
        let before = interp::run_observed(graph, &inputs, &mut |_, value| {
            let numbers = if value.dtype().is_float() { value.to_f64s() } else { Vec::new() };
            let top = numbers.iter().try_fold(0f64, |top, v| v.is_finite().then_some(top.max(v.abs())));
            largest = largest.zip(top).map(|(a, b)| a.max(b));
        });
        // Indices and divisors that random values get wrong are errors before and after.
        let Ok(expected) = before else { continue };
        if info.valid == Valid::Finite && largest.is_none() {
            continue;
        }
        let actual = interp::run(&after, &inputs).map_err(|error| describe(error.to_string()))?;
        if compare(&expected, &actual, info.exactness, largest).map_err(&describe)? {
            outcome = Outcome::Holds;
        }
    }
    Ok(outcome)
}

/// Compares outputs; false where rounding on the way is large beside the result, so that nothing can be said.
fn compare(
    expected: &Tensors,
    actual: &Tensors,
    exactness: Exactness,
    largest: Option<f64>,
) -> Result<bool, String> {
    let mut told = true;
    for (name, wanted) in expected {
        let got = actual.get(name).ok_or_else(|| format!("no output `{name}`"))?;
        let differ =
            || format!("`{name}` from {wanted:?} {:?} to {got:?} {:?}", wanted.to_f64s(), got.to_f64s());
        if wanted.shape() != got.shape() || wanted.dtype() != got.dtype() {
            return Err(differ());
        }
        if !wanted.dtype().is_float() {
            // Where rounding is allowed, a number between two integers may go to the other one.
            let step = i64::from(exactness != Exactness::Bitwise && wanted.dtype().bits() == 8);
            let pairs = wanted.to_i64s().into_iter().zip(got.to_i64s());
            if pairs.into_iter().any(|(a, b)| a.abs_diff(b) > step.unsigned_abs()) {
                return Err(differ());
            }
            continue;
        }
        let (wanted, got) = (wanted.to_f64s(), got.to_f64s());
        let top = wanted.iter().copied().filter(|v| v.is_finite()).fold(0f64, |top, v| top.max(v.abs()));
        // The declared factor is for f32. Results are rounded to a shorter dtype, and so is what they are made of.
        let rounding = 8.0 * unit(expected[name].dtype()) * largest.unwrap_or(top);
        let bound = match exactness {
            Exactness::Bitwise => None,
            Exactness::Rel { rtol, atol } => Some(atol + rtol * top + rounding),
            Exactness::Ulp(count) => Some(f64::from(count) * unit(expected[name].dtype()) * top),
            Exactness::Changes(metric) => return Err(format!("no test judges a change of {metric}")),
        };
        let same = |(a, b): (&f64, &f64)| match bound {
            _ if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
            None => a.to_bits() == b.to_bits(),
            Some(bound) => a == b || (a - b).abs() <= bound,
        };
        let ill = bound.is_some() && largest.is_none_or(|largest| top < 1e-2 * largest);
        told &= !ill;
        if !ill && !wanted.iter().zip(&got).all(same) {
            return Err(differ());
        }
    }
    Ok(told)
}

/// Half a unit in the last place of 1.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        DType::F32 => 2f64.powi(-24),
        _ => 2f64.powi(-53),
    }
}

/// Draws graphs for a rule until it has held often enough. Gives how often it did, and a graph it applied to.
fn examine(info: &RuleInfo) -> Result<(usize, Option<Graph>), String> {
    let rules = Rules::new(&[*info]).map_err(|error| error.to_string())?;
    let patterns: Vec<Pattern> = info
        .lhs
        .iter()
        .map(|text| Pattern::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let (mut held, mut example) = (0, None);
    for seed in 0..TRIES {
        let mut rng = SplitMix64::new(seed * 7919 + info.name.len() as u64);
        let pattern = &patterns[seed as usize % patterns.len()];
        let Some((graph, sizes)) = Draw::new(&mut rng, info.valid).graph(pattern) else { continue };
        if verify(&graph).is_err() {
            continue;
        }
        if check(info, &rules, &graph, &sizes, seed)? == Outcome::Holds {
            held += 1;
            example = example.or(Some(graph));
        }
        if held == ENOUGH {
            break;
        }
    }
    for (at, graph) in written_graphs().iter().enumerate() {
        for set in 0..WANTED as u64 {
            if held >= 2 * WANTED
                || check(info, &rules, graph, &[], 1000 * at as u64 + set)? == Outcome::Nothing
            {
                break;
            }
            held += 1;
            example = example.or_else(|| Some(graph.clone()));
        }
    }
    Ok((held, example))
}

/// Graphs for rules that ask for much, and those of the golden files of passes.
fn written_graphs() -> Vec<Graph> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/passes");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let body: Vec<&str> = text.lines().filter(|line| !line.starts_with(';')).collect();
        parse(&body.join("\n")).ok()
    };
    let golden = files.iter().filter(|path| path.extension().is_some_and(|e| e == "rbt")).filter_map(read);
    let seeds = seeds::SEEDS.iter().map(|text| parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")));
    seeds.chain(golden).collect()
}

/// What the rule says of the written graphs that it matches.
fn reasons(info: &RuleInfo) -> String {
    let rules = Rules::new(&[*info]).unwrap();
    let mut text = String::new();
    for mut graph in written_graphs() {
        let report = rules.run("sound", &mut graph, &PassCx::default()).unwrap();
        for skip in report.skipped {
            text.push_str(&format!("\n  {}: {}", graph.name, skip.reason));
        }
        for applied in report.applied {
            text.push_str(&format!("\n  {}: applied at {}", graph.name, applied.node));
        }
    }
    text
}

/// Every rule of every pass.
fn all_rules() -> Vec<RuleInfo> {
    let make = |info: &rabot_rewrite::PassInfo| (info.make)(&Options::new(info.name, info.options)).unwrap();
    PASSES.iter().flat_map(|info| make(info).rules()).collect()
}

#[test]
fn every_rule_keeps_what_graphs_compute() {
    let only = std::env::var("RABOT_RULE").ok();
    let mut problems = Vec::new();
    for info in all_rules() {
        if only.as_ref().is_some_and(|only| only != info.name) {
            continue;
        }
        match examine(&info) {
            Err(error) => problems.push(error),
            Ok((held, _)) if held < WANTED => {
                let reasons = reasons(&info);
                problems
                    .push(format!("{} {:?} was compared {held} times only{reasons}", info.name, info.lhs));
            }
            Ok((_, example)) => {
                if let Some(graph) = example.filter(|_| info.valid == Valid::Finite) {
                    strict_leaves_it_out(&info, graph);
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

fn strict_leaves_it_out(info: &RuleInfo, mut graph: Graph) {
    let cx = PassCx { strict: true, ..PassCx::default() };
    let report = Rules::new(&[*info]).unwrap().run("sound", &mut graph, &cx).unwrap();
    assert!(report.applied.is_empty(), "{} applies under strict", info.name);
    assert!(report.skipped.iter().any(|skip| skip.reason.contains("--strict")), "{}", info.name);
}

/// A rule that is wrong, in a way that only some values or shapes show.
fn wrong(
    name: &'static str,
    lhs: &'static [&'static str],
    uses: &'static [&'static str],
    apply: rabot_rewrite::Apply,
) -> RuleInfo {
    RuleInfo { name, identity: "none", lhs, uses, apply, ..RuleInfo::BITWISE }
}

#[test]
fn wrong_rules_are_found() {
    use rabot_ir::Op;
    use rabot_ir::ops::{Binary, BinaryOp, Transpose, Unary, UnaryOp};
    let rules = [
        // -0 + 0 is 0.
        wrong("plus-positive-zero", &["Add(?x, 0)"], &["x"], |r, m| r.value(m, "x")),
        // NaN * 0 is NaN.
        wrong("times-zero", &["Mul(?x, zero:Mul(?y, 0))"], &["x", "y", "zero"], |r, m| {
            r.value(m, "x")?;
            r.value(m, "y")?;
            r.value(m, "zero")
        }),
        // The operands are not in order.
        wrong("swapped", &["Sub(?x, ?y)"], &["x", "y"], |r, m| {
            let (x, y) = (r.value(m, "x")?, r.value(m, "y")?);
            r.add(Op::Binary(Binary { op: BinaryOp::Sub }), vec![Some(y), Some(x)], "wrong")
        }),
        // x - x is NaN for infinities.
        wrong("minus-itself", &["Sub(?x, ?x)"], &["x"], |r, m| {
            let x = r.value(m, "x")?;
            r.add(Op::Binary(Binary { op: BinaryOp::Mod { fmod: true } }), vec![Some(x), Some(x)], "wrong")
        }),
        // Two transposes cancel only if the permutations are inverse.
        wrong("transposes-cancel", &["Transpose(Transpose(?x))"], &["x"], |r, m| r.value(m, "x")),
        // A missing condition: only one order of axes is right.
        wrong("transpose-reversed", &["Transpose(?x)"], &["x"], |r, m| {
            let x = r.value(m, "x")?;
            r.add(Op::Transpose(Transpose { perm: None }), vec![Some(x)], "wrong")
        }),
        // |x| is not x for negative ones.
        wrong("relu-is-abs", &["Relu(?x)"], &["x"], |r, m| {
            let x = r.value(m, "x")?;
            r.add(Op::Unary(Unary { op: UnaryOp::Abs }), vec![Some(x)], "wrong")
        }),
    ];
    for rule in rules {
        assert!(examine(&rule).is_err(), "{} was not found to be wrong", rule.name);
    }
    // A wrong constant, where rounding is allowed.
    let gelu = RuleInfo {
        exactness: Exactness::Rel { rtol: 1e-4, atol: 1e-6 },
        valid: Valid::Finite,
        ..wrong(
            "gelu-with-a-wrong-constant",
            &["Mul(Mul(?x, 0.5), Add(Erf(Mul(?x, 0.7)), 1))"],
            &["x"],
            |r, m| {
                let x = r.value(m, "x")?;
                r.add(Op::Unary(Unary { op: UnaryOp::Gelu { tanh: false } }), vec![Some(x)], "wrong")
            },
        )
    };
    assert!(examine(&gelu).is_err());
    let never = wrong("never", &["Neg(?x)"], &["x"], |_, _| Err(Skip::NoMatch));
    assert_eq!(examine(&never).unwrap().0, 0);
}
