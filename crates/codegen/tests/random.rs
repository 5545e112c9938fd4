//! Random DAGs: scalar code and vectors along either dim give the same bits.

mod common;

use common::{access, arg, bytes, levels, load, run, stage, store, typed, values};
use rabot_kernel::{Access, Vectorize};
use rabot_kernel::{Arg, BinaryFn, Dag, Expr, ExprId, LoopKernel, ReduceFn, Reduction, Size, Stage, UnaryFn};
use rabot_tensor::DType;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const INPUTS: [DType; 8] =
    [DType::F32, DType::F16, DType::BF16, DType::I8, DType::U8, DType::I32, DType::Bool, DType::I64];
const HELD: [DType; 10] = [
    DType::F32,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::U32,
    DType::Bool,
    DType::I64,
    DType::F64,
];
const UNARY: [UnaryFn; 16] = [
    UnaryFn::Abs,
    UnaryFn::Neg,
    UnaryFn::Sqrt,
    UnaryFn::Reciprocal,
    UnaryFn::Exp,
    UnaryFn::Log,
    UnaryFn::Sin,
    UnaryFn::Cos,
    UnaryFn::Tanh,
    UnaryFn::Sigmoid,
    UnaryFn::Erf,
    UnaryFn::Floor,
    UnaryFn::Ceil,
    UnaryFn::Round,
    UnaryFn::IsNaN,
    UnaryFn::Libm("atan"),
];
const ARITHMETIC: [BinaryFn; 10] = [
    BinaryFn::Add,
    BinaryFn::Sub,
    BinaryFn::Mul,
    BinaryFn::Div,
    BinaryFn::Rem,
    BinaryFn::Min,
    BinaryFn::Max,
    BinaryFn::Eq,
    BinaryFn::Lt,
    BinaryFn::Le,
];
const LOGIC: [BinaryFn; 8] = [
    BinaryFn::And,
    BinaryFn::Or,
    BinaryFn::Xor,
    BinaryFn::Eq,
    BinaryFn::Lt,
    BinaryFn::Le,
    BinaryFn::Min,
    BinaryFn::Max,
];

/// Rows and columns of the iteration space.
const ROWS: usize = 3;
const COLUMNS: usize = 23;

/// A random access along the second, first, both or no dims.
fn random_access(r: &mut Random) -> Access {
    match r.below(6) {
        0 => access(&[(0, 1)]),
        1 => access(&[]),
        2 => access(&[(1, 2)]),
        3 => access(&[(1, 3)]),
        4 => access(&[(1, 1)]),
        _ => access(&[(0, COLUMNS as i64), (1, 1)]),
    }
}

fn random_dag(r: &mut Random) -> Dag {
    let mut dag = Dag::default();
    let mut ids: Vec<ExprId> = Vec::new();
    for _ in 0..3 {
        let input = r.below(INPUTS.len());
        let place = random_access(r);
        ids.push(load(&mut dag, input, INPUTS[input], place));
    }
    let position = r.below(2);
    ids.push(dag.push(Expr::Index(position), DType::I64));
    ids.push(dag.constant(DType::F32, 0.75));
    for _ in 0..8 + r.below(8) {
        let a = r.pick(&ids);
        let dtype = dag.dtype(a);
        let same: Vec<ExprId> = ids.iter().copied().filter(|&id| dag.dtype(id) == dtype).collect();
        let b = r.pick(&same);
        let bools: Vec<ExprId> = ids.iter().copied().filter(|&id| dag.dtype(id) == DType::Bool).collect();
        let new = match r.below(5) {
            0 => dag.cast(r.pick(&HELD), a),
            1 if !bools.is_empty() => dag.select(r.pick(&bools), a, b),
            2 if dtype.is_float() => dag.unary(r.pick(&UNARY), a),
            2 if dtype == DType::Bool => dag.unary(UnaryFn::Not, a),
            2 => dag.unary(r.pick(&[UnaryFn::Abs, UnaryFn::Neg, UnaryFn::Not]), a),
            3 if dtype == DType::F32 => dag.push(Expr::MulAdd(a, b, r.pick(&same)), DType::F32),
            _ if dtype == DType::Bool => dag.binary(r.pick(&LOGIC), a, b),
            _ => dag.binary(r.pick(&ARITHMETIC), a, b),
        };
        ids.push(new);
    }
    dag
}

/// Output dtypes that hold a value, halves for some f32.
fn output(r: &mut Random, dtype: DType) -> DType {
    if dtype == DType::F32 { r.pick(&[DType::F32, DType::F16, DType::BF16]) } else { dtype }
}

fn kernel(dag: &Dag, outputs: &[(ExprId, DType)], vectorize: Vectorize) -> LoopKernel {
    let mut args: Vec<Arg> = INPUTS.iter().map(|&d| arg(d, false)).collect();
    args.extend(outputs.iter().map(|&(_, d)| arg(d, true)));
    let to = access(&[(0, COLUMNS as i64), (1, 1)]);
    let stores =
        outputs.iter().enumerate().map(|(i, &(id, _))| store(INPUTS.len() + i, to.clone(), id)).collect();
    let (rows, columns) = (Size::Const(ROWS as i64), Size::Const(COLUMNS as i64));
    let (outer, inner) = if vectorize == Vectorize::Outer {
        (vec![rows, columns], vec![])
    } else {
        (vec![rows], vec![columns])
    };
    LoopKernel { args, outer, items: 1, stages: vec![stage(inner, dag.clone(), stores)], vectorize }
}

fn inputs() -> Vec<Vec<u8>> {
    let count = ROWS * COLUMNS;
    let floats = values(count, 77);
    let special = [f32::NAN, f32::INFINITY, -0.0, 1e-40, f32::MAX];
    let float = |i: usize| if i % 9 == 8 { special[i / 9 % special.len()] } else { floats[i] };
    let floats: Vec<f32> = (0..count).map(float).collect();
    let ints: Vec<i32> = floats.iter().map(|&v| (v * 1e8) as i32).collect();
    vec![
        bytes(&floats),
        bytes(&floats.iter().map(|&v| half::f16::from_f32(v).to_bits()).collect::<Vec<_>>()),
        bytes(&floats.iter().map(|&v| half::bf16::from_f32(v).to_bits()).collect::<Vec<_>>()),
        bytes(&ints.iter().map(|&v| v as i8).collect::<Vec<_>>()),
        bytes(&ints.iter().map(|&v| (v >> 8) as u8).collect::<Vec<_>>()),
        bytes(&ints),
        ints.iter().map(|&v| (v & 16 == 0) as u8).collect(),
        bytes(&ints.iter().map(|&v| v as i64 * 7).collect::<Vec<_>>()),
    ]
}

/// The same bytes, all NaN taken as one.
fn canonical(dtype: DType, data: &[u8]) -> Vec<u8> {
    match dtype {
        DType::F32 => bytes(
            &typed::<f32>(data).iter().map(|v| if v.is_nan() { f32::NAN } else { *v }).collect::<Vec<_>>(),
        ),
        DType::F64 => bytes(
            &typed::<f64>(data).iter().map(|v| if v.is_nan() { f64::NAN } else { *v }).collect::<Vec<_>>(),
        ),
        DType::BF16 => {
            let one = |v: &u16| if half::bf16::from_bits(*v).is_nan() { 0x7fc0 } else { *v };
            bytes(&typed::<u16>(data).iter().map(one).collect::<Vec<_>>())
        }
        _ => data.to_vec(),
    }
}

#[test]
fn vectors_compute_what_scalars_do() {
    let inputs = inputs();
    for profile in levels() {
        let mut r = Random(0x1234_5678_9abc_def1);
        for case in 0..60 {
            let dag = random_dag(&mut r);
            let last = dag.nodes().len() - 1;
            let ids = [last, r.below(last + 1), r.below(last + 1)];
            let outputs = ids.map(|id| (id, output(&mut r, dag.dtype(id))));
            let results = [Vectorize::No, Vectorize::Inner, Vectorize::Outer].map(|vectorize| {
                let mut buffers = inputs.clone();
                buffers.extend(outputs.iter().map(|(_, d)| vec![0; ROWS * COLUMNS * d.size_bytes()]));
                let status =
                    run(&kernel(&dag, &outputs, vectorize), &profile, &[], ROWS as i64, &mut buffers);
                let data = buffers.split_off(INPUTS.len());
                (status, outputs.iter().zip(data).map(|((_, d), b)| canonical(*d, &b)).collect::<Vec<_>>())
            });
            assert!(results[0] == results[1], "case {case} by inner on {}: {dag:?}", profile.name);
            assert!(results[0] == results[2], "case {case} by outer on {}: {dag:?}", profile.name);
        }
    }
}

#[test]
fn exact_reductions_do_not_depend_on_the_order() {
    // Sums of integers, and extremes: the same from scalars and from vectors.
    let inputs = inputs();
    for profile in levels() {
        let mut r = Random(0xfeed_0000_1111_2223);
        for case in 0..40 {
            let dag = random_dag(&mut r);
            let candidates: Vec<ExprId> = (0..dag.nodes().len()).collect();
            let value = r.pick(&candidates);
            let dtype = dag.dtype(value);
            let function = match dtype {
                DType::F32 | DType::F64 => r.pick(&[ReduceFn::Max, ReduceFn::Min]),
                _ => r.pick(&[ReduceFn::Max, ReduceFn::Min, ReduceFn::Sum, ReduceFn::Prod]),
            };
            let mut end = Dag::default();
            let result = end.push(Expr::Reduced(0), dtype);
            let results = [Vectorize::No, Vectorize::Inner].map(|vectorize| {
                let mut args: Vec<Arg> = INPUTS.iter().map(|&d| arg(d, false)).collect();
                args.push(arg(dtype, true));
                let reductions = vec![Reduction { function, value }];
                let kernel = LoopKernel {
                    args,
                    outer: vec![Size::Const(ROWS as i64)],
                    items: 1,
                    stages: vec![
                        Stage { inner: vec![Size::Param(0)], dag: dag.clone(), reductions, stores: vec![] },
                        stage(vec![], end.clone(), vec![store(INPUTS.len(), access(&[(0, 1)]), result)]),
                    ],
                    vectorize,
                };
                let mut buffers = inputs.clone();
                buffers.push(vec![0; ROWS * dtype.size_bytes()]);
                let status = run(&kernel, &profile, &[COLUMNS as i64], ROWS as i64, &mut buffers);
                let data = canonical(dtype, &buffers[INPUTS.len()]);
                // The order decides which zero a maximum of both is.
                let data = data.chunks(dtype.size_bytes()).map(|b| {
                    let zero = dtype.is_float()
                        && b.iter().rev().skip(1).all(|&b| b == 0)
                        && b.last() == Some(&0x80);
                    if zero { vec![0; b.len()] } else { b.to_vec() }
                });
                (status, data.collect::<Vec<_>>())
            });
            assert!(
                results[0] == results[1],
                "case {case}, {function:?} of node {value} on {}: {dag:?} {results:?}",
                profile.name
            );
        }
    }
}
