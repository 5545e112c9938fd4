//! Names of kernels, in XNNPACK's order: dtypes, kind, what is done, shape of the tile, ISA.

use crate::{
    Arrangement, BinaryFn, Dag, Expr, KernelDesc, LoopKernel, Operand, ReduceFn, UnaryFn, Vectorize,
};
use rabot_target::Profile;

/// `f32_gemm_relu_6x8__x86-64-v3`, `f32_loop_add_tanh__aarch64`.
pub(super) fn kernel_name(desc: &KernelDesc, profile: &Profile) -> String {
    let mut words: Vec<String> = Vec::new();
    for arg in desc.args() {
        let dtype = arg.dtype.name().to_owned();
        if !words.contains(&dtype) {
            words.push(dtype);
        }
    }
    let mut name = words.join("");
    match desc {
        KernelDesc::Loop(kernel) => {
            name.push_str(loop_kind(kernel));
            for stage in &kernel.stages {
                push_functions(&mut name, &stage.dag);
            }
        }
        KernelDesc::Contract(kernel) => {
            let conv = matches!(kernel.b, Operand::Patches(_));
            name.push_str(if conv { "_conv" } else { "_gemm" });
            push_functions(&mut name, &kernel.epilogue);
            name.push_str(&format!("_{}x{}", kernel.tile.mr, kernel.tile.nr));
            if let Some(tiles) = kernel.tiles {
                name.push_str(&format!("_tiles{}", tiles.pieces));
            }
        }
        // Named after its parts by who joins them.
        KernelDesc::Composite(_) => {}
    }
    format!("{name}__{}", profile.name)
}

fn loop_kind(kernel: &LoopKernel) -> &'static str {
    let mut reductions = kernel.stages.iter().flat_map(|stage| &stage.reductions);
    match (reductions.next().map(|r| r.function), kernel.vectorize) {
        (Some(ReduceFn::Sum | ReduceFn::Prod), Vectorize::Outer) => "_window_sum",
        (Some(_), Vectorize::Outer) => "_window_max",
        (Some(_), _) => "_row",
        (None, _) if is_move(kernel) => "_move",
        (None, _) => "_loop",
    }
}

impl KernelDesc {
    /// What kind of kernel it is: `loop`, `contract`, `move` if it only moves elements; `chain` or `side`
    /// if it has parts.
    pub fn kind(&self) -> &'static str {
        match self {
            KernelDesc::Loop(kernel) if is_move(kernel) => "move",
            KernelDesc::Loop(_) => "loop",
            KernelDesc::Contract(_) => "contract",
            KernelDesc::Composite(kernel) => match kernel.arrangement {
                Arrangement::Chain => "chain",
                Arrangement::Side => "side",
            },
        }
    }
}

/// True if the kernel only moves elements.
pub(super) fn is_move(kernel: &LoopKernel) -> bool {
    kernel.stages.iter().all(|stage| {
        stage.reductions.is_empty()
            && stage
                .stores
                .iter()
                .all(|s| matches!(stage.dag[s.value].expr, Expr::Load { .. } | Expr::Const(_)))
    })
}

/// Appends the functions of a DAG, each once, in order; at most six, for names are for people.
fn push_functions(name: &mut String, dag: &Dag) {
    let functions = dag.nodes().iter().filter_map(|node| match &node.expr {
        Expr::Unary(function, _) => Some(unary_name(*function)),
        Expr::Binary(function, ..) => Some(binary_name(*function)),
        Expr::MulAdd(..) => Some("muladd"),
        Expr::Select(..) => Some("select"),
        _ => None,
    });
    let mut seen: Vec<&str> = Vec::new();
    for function in functions {
        if !seen.contains(&function) && seen.len() < 6 {
            seen.push(function);
            name.push('_');
            name.push_str(function);
        }
    }
}

fn unary_name(function: UnaryFn) -> &'static str {
    match function {
        UnaryFn::Abs => "abs",
        UnaryFn::Neg => "neg",
        UnaryFn::Sqrt => "sqrt",
        UnaryFn::Reciprocal => "rcp",
        UnaryFn::Exp => "exp",
        UnaryFn::Log => "log",
        UnaryFn::Sin => "sin",
        UnaryFn::Cos => "cos",
        UnaryFn::Tanh => "tanh",
        UnaryFn::Sigmoid => "sigmoid",
        UnaryFn::Erf => "erf",
        UnaryFn::Floor => "floor",
        UnaryFn::Ceil => "ceil",
        UnaryFn::Round => "round",
        UnaryFn::Not => "not",
        UnaryFn::IsNaN => "isnan",
        UnaryFn::RoundF16 => "f16",
        UnaryFn::RoundBF16 => "bf16",
        UnaryFn::Libm(name) => name,
    }
}

fn binary_name(function: BinaryFn) -> &'static str {
    match function {
        BinaryFn::Add => "add",
        BinaryFn::Sub => "sub",
        BinaryFn::Mul => "mul",
        BinaryFn::Div => "div",
        BinaryFn::Rem => "rem",
        BinaryFn::Min => "min",
        BinaryFn::Max => "max",
        BinaryFn::Pow => "pow",
        BinaryFn::And => "and",
        BinaryFn::Or => "or",
        BinaryFn::Xor => "xor",
        BinaryFn::Eq => "eq",
        BinaryFn::Lt => "lt",
        BinaryFn::Le => "le",
    }
}
