//! Plans as text: what each step reads, writes and computes.

use rabot_kernel::{
    Access, Arrangement, Call, CompositeKernel, ContractKernel, Dag, Expr, ExprId, KernelDesc, LoopKernel,
    Operand, Plan, Size, Stage, Step, Storage, Store,
};
use std::fmt::Write;

/// The steps of a plan, then its kernels: buffers `b0 …`, kernels `k0 …`, arguments `a0 …`, coordinates `c0 …`,
/// parameters `p0 …`.
pub fn listing(plan: &Plan) -> String {
    let mut text = String::new();
    for port in &plan.inputs {
        let _ = writeln!(text, "input \"{}\" = b{}", port.name, port.buffer);
    }
    for (index, buffer) in plan.buffers.iter().enumerate() {
        // Addresses in the arena are the run time's; constants are named by what they are, not by their bytes.
        let storage = match buffer.storage {
            Storage::Input(_) => "input".to_owned(),
            Storage::Output(_) => "output".to_owned(),
            Storage::Constant(at) => format!("constant of {} bytes", plan.constants[at].bytes.len()),
            Storage::Arena { first, last } if first == usize::MAX => format!("unused, {last}"),
            Storage::Arena { first, last } => format!("arena, steps {first} to {last}"),
        };
        let _ = writeln!(text, "b{index}: {}[{}] {storage}", buffer.dtype, buffer.elements);
    }
    for port in &plan.outputs {
        let _ = writeln!(text, "output \"{}\" = b{}", port.name, port.buffer);
    }
    for call in &plan.init {
        let _ = writeln!(text, "once {}", call_line(call));
    }
    steps(&mut text, &plan.steps, "");
    for (index, kernel) in plan.kernels.iter().enumerate() {
        let name = plan.kernel_names.get(index).map_or("", String::as_str);
        let _ = writeln!(text, "\nk{index} {} {name}", kernel.kind());
        match kernel {
            KernelDesc::Loop(kernel) => loop_kernel(&mut text, kernel),
            KernelDesc::Contract(kernel) => contract_kernel(&mut text, kernel),
            KernelDesc::Composite(kernel) => composite_kernel(&mut text, kernel),
        }
    }
    text
}

fn call_line(call: &Call) -> String {
    let args = join(&call.args, |b| format!("b{b}"));
    let params = join(&call.params, ToString::to_string);
    let sources = join(&call.sources, ToString::to_string);
    let params = if params.is_empty() { params } else { format!(" params [{params}]") };
    let (kernel, items, flops) = (call.kernel, &call.items, &call.flops);
    format!("k{kernel}({args}){params} items {items} flops {flops} from {sources}")
}

fn steps(text: &mut String, steps_: &[Step], indent: &str) {
    for step in steps_ {
        match step {
            Step::Call(call) => {
                let _ = writeln!(text, "{indent}call {}", call_line(call));
            }
            Step::Host(call) => {
                let name = |b: usize| format!("b{b}");
                let inputs = join(&call.inputs, |i| i.as_ref().map_or("_".to_owned(), |(b, _)| name(*b)));
                let outputs = join(&call.outputs, |(b, _)| name(*b));
                let _ = writeln!(text, "{indent}host {}({inputs}) -> {outputs}: {}", call.op, call.reason);
            }
            Step::If { condition, then_steps, else_steps } => {
                let inner = format!("{indent}  ");
                let _ = writeln!(text, "{indent}if b{condition}");
                steps(text, then_steps, &inner);
                let _ = writeln!(text, "{indent}else");
                steps(text, else_steps, &inner);
            }
        }
    }
}

fn loop_kernel(text: &mut String, kernel: &LoopKernel) {
    let args = join(&kernel.args, |a| format!("{}{}", if a.written { "out " } else { "" }, a.dtype));
    let outer = join(&kernel.outer, |s| size(*s));
    let _ = writeln!(
        text,
        "  args ({args}) outer [{outer}] items {} vectorize {:?}",
        kernel.items, kernel.vectorize
    );
    for stage in &kernel.stages {
        self::stage(text, stage);
    }
}

fn stage(text: &mut String, stage: &Stage) {
    let _ = writeln!(text, "  stage [{}]", join(&stage.inner, |s| size(*s)));
    dag(text, &stage.dag);
    for reduction in &stage.reductions {
        let _ = writeln!(text, "    reduce {:?} v{}", reduction.function, reduction.value);
    }
    stores(text, &stage.stores);
}

fn contract_kernel(text: &mut String, kernel: &ContractKernel) {
    let args = join(&kernel.args, |a| format!("{}{}", if a.written { "out " } else { "" }, a.dtype));
    let batch = join(&kernel.batch, |s| size(*s));
    let (m, n, k) = (size(kernel.m), size(kernel.n), size(kernel.k));
    let _ = writeln!(text, "  args ({args}) batch [{batch}] m {m} n {n} k {k} sum in {}", kernel.accumulator);
    if let Some(width) = kernel.line {
        let _ = writeln!(text, "  lines of {} columns", size(width));
    }
    let tile = kernel.tile;
    let _ = writeln!(text, "  tile {}x{} of {}x{}", tile.mr, tile.nr, tile.rows, tile.columns);
    for (name, operand) in [("A", &kernel.a), ("B", &kernel.b)] {
        let _ = writeln!(text, "  {name} {}", self::operand(operand));
    }
    dag(text, &kernel.epilogue);
    stores(text, &kernel.stores);
}

fn composite_kernel(text: &mut String, kernel: &CompositeKernel) {
    for part in &kernel.parts {
        let (count, per) = (size(part.count), size(part.per));
        let (args, params) = (part.args, part.params);
        let _ = writeln!(
            text,
            "  part k{} args from a{args} params from p{params}: {per} of {count} items",
            part.kernel
        );
    }
    if kernel.arrangement == Arrangement::Chain {
        let _ = writeln!(text, "  {} items at a time", size(kernel.block));
    }
}

fn operand(operand: &Operand) -> String {
    let sizes = |list: &[Size]| join(list, |s| size(*s));
    match operand {
        Operand::Packed { arg, batch } => format!("packed a{arg} batch [{}]", sizes(batch)),
        Operand::Strided { arg, offset, batch, outer, k, zero_point } => format!(
            "strided a{arg} offset {} batch [{}] outer {} k {} zero {zero_point}",
            size(*offset),
            sizes(batch),
            size(*outer),
            size(*k)
        ),
        Operand::Patches(p) => format!(
            "patches a{} offset {} batch [{}] channel {} input [{}] strides [{}] output [{}] kernel {:?} steps {:?} \
             dilations {:?} pads [{}] zero {}",
            p.arg,
            size(p.offset),
            sizes(&p.batch),
            size(p.channel),
            sizes(&p.input),
            sizes(&p.input_strides),
            sizes(&p.output),
            p.kernel,
            p.strides,
            p.dilations,
            sizes(&p.pads),
            p.zero_point
        ),
    }
}

fn dag(text: &mut String, dag: &Dag) {
    for (id, node) in dag.nodes().iter().enumerate() {
        let _ = writeln!(text, "    v{id} = {} : {}", expr(dag, id), node.dtype);
    }
}

fn expr(dag: &Dag, id: ExprId) -> String {
    let node = &dag[id];
    match &node.expr {
        Expr::Const(bits) => match node.dtype {
            rabot_tensor::DType::F32 => format!("{:?}", f32::from_bits(*bits as u32)),
            rabot_tensor::DType::F64 => format!("{:?}", f64::from_bits(*bits)),
            _ => format!("{}", *bits as i64),
        },
        Expr::Size(s) => size(*s),
        Expr::Index(coord) => format!("c{coord}"),
        Expr::Load { arg, access } => format!("a{arg}[{}]", self::access(access)),
        Expr::Reduced(index) => format!("reduced {index}"),
        Expr::Accumulator => "accumulator".to_owned(),
        Expr::Unary(function, a) => format!("{function:?}(v{a})"),
        Expr::Binary(function, a, b) => format!("{function:?}(v{a}, v{b})"),
        Expr::MulAdd(a, b, c) => format!("v{a} * v{b} + v{c}"),
        Expr::Select(c, a, b) => format!("v{c} ? v{a} : v{b}"),
        Expr::Cast(a) => format!("Cast(v{a})"),
        Expr::Bitcast(a) => format!("Bitcast(v{a})"),
        Expr::CheckIndex { index, bound } => format!("CheckIndex(v{index}, {})", size(*bound)),
    }
}

fn stores(text: &mut String, stores: &[Store]) {
    for store in stores {
        let _ = writeln!(text, "    a{}[{}] = v{}", store.arg, access(&store.access), store.value);
    }
}

fn access(access: &Access) -> String {
    let mut terms: Vec<String> = access.offset.iter().map(|s| size(*s)).collect();
    let times = |name: String, stride: Size| match stride {
        Size::Const(1) => name,
        other => format!("{}*{name}", size(other)),
    };
    terms.extend(access.strides.iter().map(|(coord, stride)| times(format!("c{coord}"), *stride)));
    terms.extend(access.dynamic.iter().map(|(id, stride)| times(format!("v{id}"), *stride)));
    if terms.is_empty() { "0".to_owned() } else { terms.join(" + ") }
}

fn size(size: Size) -> String {
    match size {
        Size::Const(value) => value.to_string(),
        Size::Param(index) => format!("p{index}"),
    }
}

fn join<T>(list: &[T], text: impl Fn(&T) -> String) -> String {
    list.iter().map(text).collect::<Vec<_>>().join(", ")
}
