//! Runs of programs in stages: values in slots, compiled plans and nodes on the host in turn.

use crate::leaf::Observer;
use crate::program::{Inner, RunStep, RunWork, Stages};
use crate::session::{State, check_names};
use crate::{Observed, RunError};
use rabot_ir::interp::Data;
use rabot_ir::ops::Rounds;
use rabot_ir::{Datum, Dim, Op, ValueType};
use rabot_kernel::HostStage;
use std::collections::HashMap;

/// Sizes of symbolic dims, as far as they are known.
type Symbols = HashMap<String, i64>;

/// Runs a program on named inputs; gives its outputs by name.
pub(crate) fn run(
    program: &Inner,
    state: &mut State,
    inputs: &Data,
    observe: Observer<'_>,
) -> Result<Data, RunError> {
    let stages = &program.stages;
    let ports = || stages.inputs.iter().map(|port| &*port.name);
    check_names(inputs.keys(), stages.inputs.len(), ports)?;
    let mut operands = Vec::new();
    for port in &stages.inputs {
        let missing = || RunError::MissingInput { name: port.name.to_string(), ty: port.ty.to_string() };
        operands.push(Some(inputs.get(&*port.name).ok_or_else(missing)?.clone()));
    }
    let mut runner = Runner { program, state, observe };
    let outputs = runner.run(stages, operands, Symbols::new())?;
    Ok(stages.outputs.iter().map(|port| port.name.to_string()).zip(outputs).collect())
}

struct Runner<'r, 'o> {
    program: &'r Inner,
    state: &'r mut State,
    observe: Observer<'o>,
}

impl Runner<'_, '_> {
    /// Runs stages on operands in the order of their inputs, where some symbols are known already.
    fn run(
        &mut self,
        stages: &Stages,
        operands: Vec<Option<Datum>>,
        mut symbols: Symbols,
    ) -> Result<Vec<Datum>, RunError> {
        let mut slots: Vec<Option<Datum>> = vec![None; stages.slots];
        for (slot, tensor) in &stages.constants {
            slots[*slot] = Some(Datum::Tensor(tensor.clone()));
        }
        for (port, operand) in stages.inputs.iter().zip(operands) {
            if let Some(datum) = &operand
                && let Err(problem) = learn(datum, &port.ty, &mut symbols)
            {
                return Err(input_error(&port.name, datum, &port.ty, problem));
            }
            slots[port.slot] = operand;
        }
        for step in &stages.steps {
            match &step.work {
                RunWork::Kernels(leaf) => self.kernels(*leaf, step, &mut slots, &symbols)?,
                RunWork::Host(host, regions) => self.host(host, regions, step, &mut slots, &mut symbols)?,
            }
            for &slot in &step.frees {
                slots[slot] = None;
            }
        }
        let output = |port: &rabot_kernel::StagePort| {
            let missing = || RunError::MissingInput { name: port.name.to_string(), ty: port.ty.to_string() };
            slots[port.slot].clone().ok_or_else(missing)
        };
        stages.outputs.iter().map(output).collect()
    }

    fn kernels(
        &mut self,
        index: usize,
        step: &RunStep,
        slots: &mut [Option<Datum>],
        symbols: &Symbols,
    ) -> Result<(), RunError> {
        let leaf = &self.program.leaves[index];
        let state = &mut self.state.leaves[index];
        let tensors = step.inputs.iter().zip(&leaf.plan.inputs).map(|(slot, port)| {
            let tensor = slot.and_then(|slot| slots[slot].as_ref()).and_then(Datum::tensor);
            tensor.ok_or_else(|| RunError::MissingInput {
                name: port.name.to_string(),
                ty: port.dtype.to_string(),
            })
        });
        let known = leaf.plan.symbols.iter().map(|name| {
            let value = symbols.get(&**name).and_then(|&value| usize::try_from(value).ok());
            value.ok_or_else(|| RunError::Size(format!("dim `{name}` is not known")))
        });
        let observe = self.observe.as_mut().map(|observe| &mut **observe as &mut dyn FnMut(Observed<'_>));
        state.run(leaf, &mut self.state.pool, tensors, known, observe)?;
        for (at, &slot) in step.outputs.iter().enumerate() {
            slots[slot] = Some(Datum::Tensor(state.output(leaf, at)?));
        }
        Ok(())
    }

    fn host(
        &mut self,
        host: &HostStage,
        regions: &[Stages],
        step: &RunStep,
        slots: &mut [Option<Datum>],
        symbols: &mut Symbols,
    ) -> Result<(), RunError> {
        let failed = |message: String| RunError::Host {
            op: host.op.name().to_owned(),
            nodes: host.sources.join(", "),
            message,
        };
        let operands: Vec<Option<Datum>> =
            step.inputs.iter().map(|slot| slot.and_then(|slot| slots[slot].clone())).collect();
        // A list that nothing else holds is changed in place.
        for &slot in &step.frees {
            slots[slot] = None;
        }
        let borrowed: Vec<Option<&Datum>> = operands.iter().map(Option::as_ref).collect();
        let results = match &host.op {
            Op::If(_) => {
                let condition = match borrowed.first() {
                    Some(Some(Datum::Tensor(tensor))) if tensor.len() == 1 => tensor.bytes()[0] != 0,
                    _ => return Err(failed("the condition is no single bool".to_owned())),
                };
                let region = &regions[usize::from(!condition)];
                self.run(region, operands[1..].to_vec(), symbols.clone())?
            }
            op @ (Op::Loop(_) | Op::Scan(_)) => {
                let mut rounds = Rounds::new(op, &borrowed).map_err(|e| failed(e.to_string()))?;
                drop(borrowed);
                while let Some(inputs) = rounds.start().map_err(|e| failed(e.to_string()))? {
                    let results = self.run(&regions[0], inputs, symbols.clone())?;
                    rounds.finish(results).map_err(|e| failed(e.to_string()))?;
                }
                rounds.outputs().map_err(|e| failed(e.to_string()))?
            }
            op => op.eval_data(&borrowed).map_err(|e| failed(e.to_string()))?,
        };
        for (((&slot, result), ty), name) in
            step.outputs.iter().zip(results).zip(&host.types).zip(&host.values)
        {
            learn(&result, ty, symbols)
                .map_err(|problem| failed(format!("gave {result}, expected {ty}: {problem}")))?;
            if let (Some(observe), Datum::Tensor(tensor)) = (&mut self.observe, &result) {
                let sources = host.sources.iter().map(|s| &**s).collect();
                observe(Observed { name, dtype: tensor.dtype(), bytes: tensor.bytes(), sources });
            }
            slots[slot] = Some(result);
        }
        Ok(())
    }
}

/// Checks a value against its type, and takes the sizes of dims that nothing before has told.
///
/// **Errors**: what does not fit, in words.
fn learn(datum: &Datum, ty: &ValueType, symbols: &mut Symbols) -> Result<(), String> {
    let mut expressions: Vec<(Dim, usize)> = Vec::new();
    let mut problem = None;
    let fits = datum.dims_of(ty, &mut |dim, actual| {
        let Some(name) = dim.as_symbol() else {
            if dim.as_const().is_none() {
                expressions.push((dim.clone(), actual));
            }
            return true;
        };
        let known = *symbols.entry(name.to_owned()).or_insert(actual as i64);
        if known != actual as i64 {
            problem = Some(format!("dim {name} is {actual}, but it was {known} before"));
        }
        true
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    if !fits {
        return Err("another type".to_owned());
    }
    for (dim, actual) in expressions {
        let expected = dim.eval(&|name| symbols.get(name).copied()).map_err(|error| error.to_string())?;
        if expected != actual as i64 {
            return Err(format!("dim {dim} is {actual}, expected {expected}"));
        }
    }
    Ok(())
}

fn input_error(name: &str, datum: &Datum, ty: &ValueType, problem: String) -> RunError {
    match datum {
        Datum::Tensor(tensor) => RunError::InputType {
            name: name.to_owned(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            ty: format!("{ty} ({problem})"),
        },
        other => RunError::InputForm { name: name.to_owned(), actual: other.to_string(), ty: ty.to_string() },
    }
}
