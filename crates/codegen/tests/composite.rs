//! Kernels of several parts: the same bits as their parts one by one, however their items are shared out.

mod common;

use common::{access, arg, load, stage, store};
use rabot_codegen::{JitProgram, asm_text, compile_jit};
use rabot_kernel::{
    Arrangement, BinaryFn, CompositeKernel, Dag, KernelDesc, LoopKernel, Part, Plan, Size, Vectorize,
};
use rabot_target::Profile;
use rabot_tensor::DType;

const ROWS: usize = 7;
const COLUMNS: usize = 5;

/// `out[r, c] = function(a[r, c], b[r, c])` over rows as items.
fn binary(function: BinaryFn) -> LoopKernel {
    let mut dag = Dag::default();
    let index = access(&[(0, COLUMNS as i64), (1, 1)]);
    let [a, b] = [0, 1].map(|at| load(&mut dag, at, DType::F32, index.clone()));
    let value = dag.binary(function, a, b);
    LoopKernel {
        args: vec![arg(DType::F32, false), arg(DType::F32, false), arg(DType::F32, true)],
        outer: vec![Size::Const(ROWS as i64)],
        items: 1,
        stages: vec![stage(vec![Size::Const(COLUMNS as i64)], dag, vec![store(2, index, value)])],
        vectorize: Vectorize::Inner,
    }
}

/// A product, a sum with it, and both in one.
fn plan(arrangement: Arrangement) -> Plan {
    let parts = [binary(BinaryFn::Mul), binary(BinaryFn::Add)];
    let composite = CompositeKernel {
        args: parts.iter().flat_map(|part| part.args.clone()).collect(),
        arrangement,
        parts: (0..2)
            .map(|kernel| Part {
                kernel,
                args: 3 * kernel,
                params: 0,
                count: Size::Param(2 * kernel),
                per: Size::Param(2 * kernel + 1),
            })
            .collect(),
        block: Size::Param(4),
        rows: None,
    };
    let mut plan = common::plan(KernelDesc::Composite(composite));
    for part in parts.into_iter().rev() {
        plan.kernels.insert(0, KernelDesc::Loop(part));
    }
    plan.kernel_names = vec!["mul".into(), "add".into(), "both".into()];
    plan
}

/// Runs the kernel of both on `[x, y, product, product or z, y, sum]` in pieces.
fn run(program: &JitProgram, params: [i64; 5], pieces: &[(i64, i64)], chained: bool) -> [Vec<f32>; 2] {
    let mut x = common::values(ROWS * COLUMNS, 1);
    let mut y = common::values(ROWS * COLUMNS, 2);
    let mut z = common::values(ROWS * COLUMNS, 3);
    let mut product = vec![0f32; ROWS * COLUMNS];
    let mut sum = product.clone();
    let [x, y, z, p, s] =
        [&mut x, &mut y, &mut z, &mut product, &mut sum].map(|v| v.as_mut_ptr().cast::<u8>());
    let args = [x, y, p, if chained { p } else { z }, y, s];
    let (mut scratch, mut status) = ([0u8; 64], 0i64);
    let function = program.kernel(2).unwrap();
    for &(begin, end) in pieces {
        // SAFETY: every argument has the rows and columns that the parts' accesses reach; no part uses scratch.
        unsafe { function(args.as_ptr(), params.as_ptr(), begin, end, scratch.as_mut_ptr(), &mut status) };
    }
    assert_eq!(status, 0);
    [product, sum]
}

fn expected(chained: bool) -> [Vec<f32>; 2] {
    let [x, y, z] = [1, 2, 3].map(|seed| common::values(ROWS * COLUMNS, seed));
    let product: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
    let left = if chained { &product } else { &z };
    let sum = left.iter().zip(&y).map(|(a, b)| a + b).collect();
    [product, sum]
}

#[test]
fn chains_and_sets_give_the_bits_of_their_parts() {
    let pieces = |items: i64| {
        let each: Vec<(i64, i64)> = (0..items).map(|i| (i, i + 1)).collect();
        let mut backwards = each.clone();
        backwards.reverse();
        [vec![(0, items)], each, backwards, vec![(items / 2, items), (0, items / 2)]]
    };
    let rows = ROWS as i64;
    for profile in common::levels() {
        let chain = compile_jit(&plan(Arrangement::Chain), &profile).unwrap();
        let side = compile_jit(&plan(Arrangement::Side), &profile).unwrap();
        for per in [1, 2, 3, 100] {
            let items = (rows + per - 1) / per;
            for block in [1, 2, 100] {
                for pieces in pieces(items) {
                    assert_eq!(run(&chain, [rows, per, rows, per, block], &pieces, true), expected(true));
                }
            }
            for pieces in pieces(items + rows) {
                assert_eq!(run(&side, [rows, per, rows, 1, 1], &pieces, false), expected(false));
            }
        }
        let nothing = vec![0.0; ROWS * COLUMNS];
        let [product, sum] = run(&side, [0, 1, rows, 1, 1], &[(0, rows)], false);
        assert_eq!((product, sum), (nothing, expected(false)[1].clone()), "a part without items");
    }
    for name in ["aarch64", "riscv64"] {
        for arrangement in [Arrangement::Chain, Arrangement::Side] {
            asm_text(&plan(arrangement), 2, &Profile::by_name(name).unwrap()).unwrap();
        }
    }
}
