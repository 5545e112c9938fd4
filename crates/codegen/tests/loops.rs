//! Loop kernels against plain Rust loops, on every level of this machine.

mod common;

use common::{SIZES, VECTORIZE, access, arg, bytes, levels, load, run, stage, store, try_run, typed, values};
use rabot_codegen::CodegenError;
use rabot_codegen::clif::expr::{STATUS_DIVISION, STATUS_INDEX};
use rabot_kernel::{
    Access, BinaryFn, Dag, Expr, LoopKernel, ReduceFn, Reduction, Size, Stage, UnaryFn, Vectorize,
};
use rabot_tensor::DType;

use Size::{Const, Param};

fn reduction(function: ReduceFn, value: usize) -> Reduction {
    Reduction { function, value }
}

/// Outer dims of `[rows, n]` for vectors along an outer or inner dim: the last dim is an inner one for `Inner`.
fn split(vectorize: Vectorize, rows: Size, n: Size) -> (Vec<Size>, Vec<Size>) {
    if vectorize == Vectorize::Outer { (vec![rows, n], vec![]) } else { (vec![rows], vec![n]) }
}

#[test]
fn elementwise_with_broadcasts() {
    // y[i, j] = max(x[i, j] * row[j] + column[i], 0), the second dim a parameter and a constant.
    for profile in levels() {
        for (n, vectorize) in SIZES.iter().flat_map(|&n| VECTORIZE.map(|v| (n, v))) {
            for extent in [Const(n as i64), Param(0)] {
                let rows = 5;
                let mut dag = Dag::default();
                let stride = if extent == Param(0) { Param(0) } else { Const(n as i64) };
                let matrix = Access { strides: vec![(0, stride), (1, Const(1))], ..Access::default() };
                let x = load(&mut dag, 0, DType::F32, matrix.clone());
                let row = load(&mut dag, 1, DType::F32, access(&[(1, 1)]));
                let column = load(&mut dag, 2, DType::F32, access(&[(0, 1), (1, 0)]));
                let y = dag.push(Expr::MulAdd(x, row, column), DType::F32);
                let zero = dag.constant(DType::F32, 0.0);
                let y = dag.binary(BinaryFn::Max, y, zero);
                let (outer, inner) = split(vectorize, Const(rows), extent);
                let kernel = LoopKernel {
                    args: vec![
                        arg(DType::F32, false),
                        arg(DType::F32, false),
                        arg(DType::F32, false),
                        arg(DType::F32, true),
                    ],
                    outer,
                    items: 1,
                    stages: vec![stage(inner, dag, vec![store(3, matrix, y)])],
                    vectorize,
                };
                let (x, row, column) = (values(rows as usize * n, 1), values(n, 2), values(rows as usize, 3));
                let mut buffers = vec![bytes(&x), bytes(&row), bytes(&column), vec![0; x.len() * 4]];
                assert_eq!(run(&kernel, &profile, &[n as i64], rows, &mut buffers), 0);
                let expected: Vec<f32> = (0..x.len())
                    .map(|i| {
                        let (a, b, c) = (x[i], row[i % n], column[i / n]);
                        if profile.fma { a.mul_add(b, c).max(0.0) } else { (a * b + c).max(0.0) }
                    })
                    .collect();
                assert_eq!(typed::<f32>(&buffers[3]), expected, "{} {vectorize:?} {n}", profile.name);
            }
        }
    }
}

#[test]
fn transpose_slice_and_several_item_dims() {
    // y[a, b, c] = x[c, a, 2b + 1], items over a and b.
    for profile in levels() {
        for n in SIZES {
            let (a, b, c) = (3usize, n, 7usize);
            let width = 2 * b + 1;
            let mut dag = Dag::default();
            let from = Access {
                offset: Some(Const(1)),
                strides: vec![(2, Param(1)), (0, Const(width as i64)), (1, Const(2))],
                dynamic: vec![],
            };
            let x = load(&mut dag, 0, DType::F32, from);
            let to = Access {
                strides: vec![(0, Param(2)), (1, Const(c as i64)), (2, Const(1))],
                ..Access::default()
            };
            let kernel = |vectorize| LoopKernel {
                args: vec![arg(DType::F32, false), arg(DType::F32, true)],
                outer: vec![Const(a as i64), Param(0), Const(c as i64)],
                items: 2,
                stages: vec![stage(vec![], dag.clone(), vec![store(1, to.clone(), x)])],
                vectorize,
            };
            let data = values(c * a * width, 4);
            for vectorize in [Vectorize::No, Vectorize::Outer] {
                let mut buffers = vec![bytes(&data), vec![0; a * b * c * 4]];
                let params = [b as i64, (a * width) as i64, (b * c) as i64];
                run(&kernel(vectorize), &profile, &params, (a * b) as i64, &mut buffers);
                let mut expected = Vec::new();
                for (i, j, k) in (0..a).flat_map(|i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
                {
                    expected.push(data[k * a * width + i * width + 2 * j + 1]);
                }
                assert_eq!(typed::<f32>(&buffers[1]), expected);
            }
        }
    }
}

#[test]
fn strided_vectors() {
    // y[i] = x[s·i] for strides that have a shuffle and ones that have not.
    for profile in levels() {
        for (n, s) in SIZES.iter().flat_map(|&n| [-1i64, 2, 3].map(|s| (n, s))) {
            let mut dag = Dag::default();
            let offset = if s < 0 { Some(Const(n as i64 - 1)) } else { None };
            let x = load(&mut dag, 0, DType::F32, Access { offset, ..access(&[(1, s)]) });
            let y = dag.unary(UnaryFn::Neg, x);
            let kernel = LoopKernel {
                args: vec![arg(DType::F32, false), arg(DType::F32, true)],
                outer: vec![Const(1), Const(n as i64)],
                items: 1,
                stages: vec![stage(vec![], dag, vec![store(1, access(&[(1, 1)]), y)])],
                vectorize: Vectorize::Outer,
            };
            // Exactly the elements that are needed: nothing behind them may be read, either.
            let data = values(if n == 0 { 0 } else { (n - 1) * s.unsigned_abs() as usize + 1 }, 5);
            let mut buffers = vec![bytes(&data), vec![0; n * 4]];
            run(&kernel, &profile, &[], 1, &mut buffers);
            let at = |i: usize| if s < 0 { n - 1 - i } else { i * s as usize };
            let expected: Vec<f32> = (0..n).map(|i| -data[at(i)]).collect();
            assert_eq!(typed::<f32>(&buffers[1]), expected, "stride {s}, {n}");
        }
    }
}

/// y[i, j] = table[index[i], j]
fn gather(vectorize: Vectorize, n: i64, rows: i64, dtype: DType) -> LoopKernel {
    let mut dag = Dag::default();
    let index = load(&mut dag, 1, DType::I64, access(&[(0, 1)]));
    let index = dag.push(Expr::CheckIndex { index, bound: Const(rows) }, DType::I64);
    let from = Access { dynamic: vec![(index, Const(n))], ..access(&[(1, 1)]) };
    let x = load(&mut dag, 0, dtype, from);
    let (outer, inner) = split(vectorize, Const(4), Const(n));
    LoopKernel {
        args: vec![arg(dtype, false), arg(DType::I64, false), arg(dtype, true)],
        outer,
        items: 1,
        stages: vec![stage(inner, dag, vec![store(2, access(&[(0, n), (1, 1)]), x)])],
        vectorize,
    }
}

#[test]
fn gathers_check_indices() {
    for profile in levels() {
        for (n, vectorize) in SIZES.iter().flat_map(|&n| VECTORIZE.map(|v| (n, v))) {
            let table = values(6 * n, 6);
            let mut buffers = vec![bytes(&table), bytes(&[2i64, -1, 0, 5]), vec![0; 16 * n]];
            let kernel = gather(vectorize, n as i64, 6, DType::F32);
            assert_eq!(run(&kernel, &profile, &[], 4, &mut buffers), 0);
            let expected: Vec<f32> =
                [2, 5, 0, 5].iter().flat_map(|&r| table[r * n..][..n].to_vec()).collect();
            assert_eq!(typed::<f32>(&buffers[2]), expected);
            if n > 0 {
                for bad in [6i64, -7, i64::MIN, i64::MAX] {
                    buffers[1] = bytes(&[0i64, bad, 0, 0]);
                    assert_eq!(run(&kernel, &profile, &[], 4, &mut buffers), STATUS_INDEX, "{bad}");
                }
            }
        }
    }
}

#[test]
fn copies_of_any_dtype() {
    for profile in levels() {
        for (n, vectorize) in SIZES.iter().flat_map(|&n| VECTORIZE.map(|v| (n, v))) {
            for dtype in
                [DType::Bool, DType::F8E5M2, DType::I8, DType::F16, DType::U32, DType::F64, DType::I64]
            {
                let size = dtype.size_bytes();
                let table: Vec<u8> = (0..6 * n * size).map(|i| i as u8).collect();
                let mut buffers = vec![table.clone(), bytes(&[3i64, 1, -6, 2]), vec![0; 4 * n * size]];
                run(&gather(vectorize, n as i64, 6, dtype), &profile, &[], 4, &mut buffers);
                let row = |r: usize| table[r * n * size..][..n * size].to_vec();
                assert_eq!(
                    buffers[2],
                    [row(3), row(1), row(0), row(2)].concat(),
                    "{dtype} {n} {vectorize:?}"
                );
            }
        }
    }
}

#[test]
fn per_lane_indices() {
    // y[j] = x[indices[j]], i32 indices cast to i64: every lane has its own.
    for profile in levels() {
        for (n, vectorize) in SIZES.iter().flat_map(|&n| VECTORIZE.map(|v| (n, v))) {
            let mut dag = Dag::default();
            let index = load(&mut dag, 1, DType::I32, access(&[(1, 1)]));
            let index = dag.cast(DType::I64, index);
            let index = dag.push(Expr::CheckIndex { index, bound: Param(0) }, DType::I64);
            let x = load(
                &mut dag,
                0,
                DType::F32,
                Access { dynamic: vec![(index, Const(1))], ..Access::default() },
            );
            let position = dag.push(Expr::Index(1), DType::I64);
            let position = dag.cast(DType::F32, position);
            let y = dag.binary(BinaryFn::Add, x, position);
            let (outer, inner) = split(vectorize, Const(1), Const(n as i64));
            let kernel = LoopKernel {
                args: vec![arg(DType::F32, false), arg(DType::I32, false), arg(DType::F32, true)],
                outer,
                items: 1,
                stages: vec![stage(inner, dag, vec![store(2, access(&[(1, 1)]), y)])],
                vectorize,
            };
            let table = values(10, 7);
            let indices: Vec<i32> = (0..n as i32).map(|i| (i * 7) % 20 - 10).collect();
            let mut buffers = vec![bytes(&table), bytes(&indices), vec![0; 4 * n]];
            assert_eq!(run(&kernel, &profile, &[10], 1, &mut buffers), 0);
            let expected: Vec<f32> = indices
                .iter()
                .enumerate()
                .map(|(j, &i)| table[i.rem_euclid(10) as usize] + j as f32)
                .collect();
            assert_eq!(typed::<f32>(&buffers[2]), expected);
        }
    }
}

#[test]
fn reductions_along_either_dim() {
    for profile in levels() {
        for (n, by_inner) in SIZES.iter().flat_map(|&n| [(n, true), (n, false)]) {
            // Rows of 33 are reduced over n, or n columns over 33.
            let m = 33usize;
            let x = values(m * n, 8);
            let strides = if by_inner { [(0, n as i64), (1, 1)] } else { [(1, 1), (2, n as i64)] };
            let mut dag = Dag::default();
            let v = load(&mut dag, 0, DType::F32, access(&strides));
            let square = dag.binary(BinaryFn::Mul, v, v);
            let reductions = vec![
                reduction(ReduceFn::Sum, v),
                reduction(ReduceFn::Max, v),
                reduction(ReduceFn::Min, v),
                reduction(ReduceFn::Sum, square),
            ];
            let mut last = Dag::default();
            let results: Vec<usize> = (0..4).map(|i| last.push(Expr::Reduced(i), DType::F32)).collect();
            let to = if by_inner { access(&[(0, 1)]) } else { access(&[(1, 1)]) };
            let stores = results.iter().map(|&r| store(1 + r, to.clone(), r)).collect();
            let first_inner = if by_inner { vec![Const(n as i64)] } else { vec![Param(0)] };
            let kernel = LoopKernel {
                args: [vec![arg(DType::F32, false)], vec![arg(DType::F32, true); 4]].concat(),
                outer: if by_inner { vec![Const(m as i64)] } else { vec![Const(1), Const(n as i64)] },
                items: 1,
                stages: vec![
                    Stage { inner: first_inner, dag, reductions, stores: vec![] },
                    stage(vec![], last, stores),
                ],
                vectorize: if by_inner { Vectorize::Inner } else { Vectorize::Outer },
            };
            let count = if by_inner { m } else { n };
            let mut buffers = vec![vec![0; count * 4]; 5];
            buffers[0] = bytes(&x);
            run(&kernel, &profile, &[m as i64], if by_inner { m as i64 } else { 1 }, &mut buffers);
            for i in 0..count {
                let line: Vec<f32> =
                    if by_inner { x[i * n..][..n].to_vec() } else { (0..m).map(|k| x[k * n + i]).collect() };
                let near = |b: usize, exact: f64| {
                    let actual = typed::<f32>(&buffers[b])[i] as f64;
                    assert!((actual - exact).abs() < 1e-4 || actual == exact, "{actual} {exact}");
                };
                near(1, line.iter().map(|&v| v as f64).sum());
                near(2, line.iter().fold(f64::NEG_INFINITY, |a, &v| a.max(v as f64)));
                near(3, line.iter().fold(f64::INFINITY, |a, &v| a.min(v as f64)));
                near(4, line.iter().map(|&v| v as f64 * v as f64).sum());
            }
        }
    }
}

#[test]
fn integer_and_bool_reductions() {
    for profile in levels() {
        for n in SIZES {
            let x: Vec<i8> = values(n, 9).iter().map(|v| (v * 31.0) as i8).collect();
            let mut dag = Dag::default();
            let v = load(&mut dag, 0, DType::I8, access(&[(1, 1)]));
            let wide = dag.cast(DType::I32, v);
            let zero = dag.constant(DType::I8, 0.0);
            let negative = dag.binary(BinaryFn::Lt, v, zero);
            let reductions = vec![
                reduction(ReduceFn::Sum, wide),
                reduction(ReduceFn::Max, v),
                reduction(ReduceFn::Sum, v),
                reduction(ReduceFn::Max, negative),
                reduction(ReduceFn::Min, negative),
            ];
            let dtypes = [DType::I32, DType::I8, DType::I8, DType::Bool, DType::Bool];
            let mut last = Dag::default();
            let stores = (0..5)
                .map(|i| {
                    let value = last.push(Expr::Reduced(i), dtypes[i]);
                    store(1 + i, access(&[(0, 1)]), value)
                })
                .collect();
            let kernel = LoopKernel {
                args: [vec![arg(DType::I8, false)], dtypes.map(|d| arg(d, true)).to_vec()].concat(),
                outer: vec![Const(1)],
                items: 1,
                stages: vec![
                    Stage { inner: vec![Param(0)], dag, reductions, stores: vec![] },
                    stage(vec![], last, stores),
                ],
                vectorize: Vectorize::Inner,
            };
            let mut buffers = vec![bytes(&x), vec![0; 4], vec![0], vec![0], vec![0], vec![0]];
            run(&kernel, &profile, &[n as i64], 1, &mut buffers);
            assert_eq!(typed::<i32>(&buffers[1]), [x.iter().map(|&v| v as i32).sum::<i32>()]);
            assert_eq!(typed::<i8>(&buffers[2]), [x.iter().copied().max().unwrap_or(i8::MIN)]);
            assert_eq!(typed::<i8>(&buffers[3]), [x.iter().fold(0i8, |a, &v| a.wrapping_add(v))]);
            assert_eq!(buffers[4], [x.iter().any(|&v| v < 0) as u8]);
            assert_eq!(buffers[5], [x.iter().all(|&v| v < 0) as u8]);
        }
    }
}

#[test]
fn maxima_propagate_nan() {
    for profile in levels() {
        for at in 0..9 {
            let mut x = values(9, 10);
            x[at] = f32::NAN;
            let mut dag = Dag::default();
            let v = load(&mut dag, 0, DType::F32, access(&[(1, 1)]));
            let mut last = Dag::default();
            let r = last.push(Expr::Reduced(0), DType::F32);
            let kernel = LoopKernel {
                args: vec![arg(DType::F32, false), arg(DType::F32, true)],
                outer: vec![Const(1)],
                items: 1,
                stages: vec![
                    Stage {
                        inner: vec![Const(9)],
                        dag,
                        reductions: vec![reduction(ReduceFn::Max, v)],
                        stores: vec![],
                    },
                    stage(vec![], last, vec![store(1, access(&[]), r)]),
                ],
                vectorize: Vectorize::Inner,
            };
            let mut buffers = vec![bytes(&x), vec![0; 4]];
            run(&kernel, &profile, &[], 1, &mut buffers);
            assert!(typed::<f32>(&buffers[1])[0].is_nan(), "NaN at {at} is lost");
        }
    }
}

/// Softmax over the last dim, in three stages.
fn softmax(n: Size) -> LoopKernel {
    let strides = Access { strides: vec![(0, n), (1, Const(1))], ..Access::default() };
    let mut first = Dag::default();
    let x = load(&mut first, 0, DType::F32, strides.clone());
    let shifted_exp = |dag: &mut Dag| {
        let x = load(dag, 0, DType::F32, strides.clone());
        let max = dag.push(Expr::Reduced(0), DType::F32);
        let shifted = dag.binary(BinaryFn::Sub, x, max);
        dag.unary(UnaryFn::Exp, shifted)
    };
    let mut second = Dag::default();
    let e = shifted_exp(&mut second);
    let mut third = Dag::default();
    let kept = load(&mut third, 1, DType::F32, strides.clone());
    let sum = third.push(Expr::Reduced(1), DType::F32);
    let y = third.binary(BinaryFn::Div, kept, sum);
    LoopKernel {
        args: vec![arg(DType::F32, false), arg(DType::F32, true)],
        outer: vec![Const(3)],
        items: 1,
        stages: vec![
            Stage {
                inner: vec![n],
                dag: first,
                reductions: vec![reduction(ReduceFn::Max, x)],
                stores: vec![],
            },
            Stage {
                inner: vec![n],
                dag: second,
                reductions: vec![reduction(ReduceFn::Sum, e)],
                stores: vec![store(1, strides.clone(), e)],
            },
            stage(vec![n], third, vec![store(1, strides.clone(), y)]),
        ],
        vectorize: Vectorize::Inner,
    }
}

#[test]
fn softmax_rows() {
    for profile in levels() {
        for n in SIZES {
            for extent in [Const(n as i64), Param(0)] {
                let x = values(3 * n, 11);
                let mut buffers = vec![bytes(&x), vec![0; 12 * n]];
                run(&softmax(extent), &profile, &[n as i64], 3, &mut buffers);
                let y = typed::<f32>(&buffers[1]);
                for row in 0..3 {
                    let e: Vec<f64> = x[row * n..][..n].iter().map(|&v| (v as f64).exp()).collect();
                    let sum: f64 = e.iter().sum();
                    for (j, e) in e.iter().enumerate() {
                        assert!((y[row * n + j] as f64 - e / sum).abs() < 1e-6);
                    }
                }
            }
        }
    }
}

/// Compares sums and maxima of 3 × 3 windows with plain loops.
fn check_windows(results: &(Vec<f32>, Vec<f32>), sizes: [usize; 5], operands: [&[f32]; 3]) {
    let [rows, n, s, height, width] = sizes;
    let [x, w, b] = operands;
    for (index, (&sum, &max)) in results.0.iter().zip(&results.1).enumerate() {
        let (c, i, j) = (index / (rows * n), index / n % rows, index % n);
        let taps: Vec<(f32, f32)> = (0..9)
            .map(|t| {
                let at = c * height * width + (s * i + t / 3) * width + s * j + t % 3;
                (x[at], w[c * 9 + t])
            })
            .collect();
        let exact = taps.iter().map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + b[c] as f64;
        assert!((sum as f64 - exact).abs() < 1e-4);
        assert_eq!(max, taps.iter().fold(f32::NEG_INFINITY, |m, t| m.max(t.0)));
    }
}

#[test]
fn depthwise_convolution_and_pooling() {
    // y[c, i, j] = Σ x[c, s·i + u, s·j + v] · w[c, u, v], and the maximum of the window; 3 × 3.
    for profile in levels() {
        for (n, s) in SIZES.iter().flat_map(|&n| [(n, 1usize), (n, 2)]) {
            let (channels, rows) = (2usize, 3usize);
            let (width, height) = (if n == 0 { 0 } else { (n - 1) * s + 3 }, (rows - 1) * s + 3);
            let window = access(&[
                (0, (height * width) as i64),
                (1, (s * width) as i64),
                (2, s as i64),
                (3, width as i64),
                (4, 1),
            ]);
            let mut dag = Dag::default();
            let x = load(&mut dag, 0, DType::F32, window);
            let w = load(&mut dag, 1, DType::F32, access(&[(0, 9), (3, 3), (4, 1)]));
            let product = dag.binary(BinaryFn::Mul, x, w);
            let mut last = Dag::default();
            let sum = last.push(Expr::Reduced(0), DType::F32);
            let max = last.push(Expr::Reduced(1), DType::F32);
            let bias = load(&mut last, 2, DType::F32, access(&[(0, 1)]));
            let sum = last.binary(BinaryFn::Add, sum, bias);
            let to = access(&[(0, (rows * n) as i64), (1, n as i64), (2, 1)]);
            let kernel = |vectorize| LoopKernel {
                args: [vec![arg(DType::F32, false); 3], vec![arg(DType::F32, true); 2]].concat(),
                outer: vec![Const(channels as i64), Const(rows as i64), Const(n as i64)],
                items: 1,
                stages: vec![
                    Stage {
                        inner: vec![Const(3), Const(3)],
                        dag: dag.clone(),
                        reductions: vec![reduction(ReduceFn::Sum, product), reduction(ReduceFn::Max, x)],
                        stores: vec![],
                    },
                    stage(vec![], last.clone(), vec![store(3, to.clone(), sum), store(4, to.clone(), max)]),
                ],
                vectorize,
            };
            let (x, w, b) =
                (values(channels * height * width, 12), values(9 * channels, 13), values(channels, 14));
            let mut results = Vec::new();
            for vectorize in [Vectorize::No, Vectorize::Outer] {
                let size = channels * rows * n * 4;
                let mut buffers = vec![bytes(&x), bytes(&w), bytes(&b), vec![0; size], vec![0; size]];
                run(&kernel(vectorize), &profile, &[], channels as i64, &mut buffers);
                results.push((typed::<f32>(&buffers[3]), typed::<f32>(&buffers[4])));
            }
            assert_eq!(results[0], results[1], "scalar and vector code differ");
            let sizes = [rows, n, s, height, width];
            check_windows(&results[0], sizes, [&x, &w, &b]);
        }
    }
}

fn convert(from: DType, to: DType, n: usize, vectorize: Vectorize) -> LoopKernel {
    let mut dag = Dag::default();
    let x = load(&mut dag, 0, from, access(&[(1, 1)]));
    let held = if matches!(to, DType::F16 | DType::BF16) { DType::F32 } else { to };
    let y = dag.cast(held, x);
    let (outer, inner) = split(vectorize, Const(1), Const(n as i64));
    LoopKernel {
        args: vec![arg(from, false), arg(to, true)],
        outer,
        items: 1,
        stages: vec![stage(inner, dag, vec![store(1, access(&[(1, 1)]), y)])],
        vectorize,
    }
}

fn converts<A: bytemuck::Pod, B: bytemuck::Pod>(
    dtypes: (DType, DType),
    x: &[A],
    expected: impl Fn(A) -> B,
    same: impl Fn(B, B) -> bool,
) {
    for profile in levels() {
        for vectorize in VECTORIZE {
            let mut buffers = vec![bytes(x), vec![0; x.len() * size_of::<B>()]];
            run(&convert(dtypes.0, dtypes.1, x.len(), vectorize), &profile, &[], 1, &mut buffers);
            for (i, (&x, y)) in x.iter().zip(typed::<B>(&buffers[1])).enumerate() {
                assert!(same(y, expected(x)), "{dtypes:?} of element {i}, {vectorize:?}, {}", profile.name);
            }
        }
    }
}

#[test]
fn halves_are_read_and_written_exactly() {
    use half::{bf16, f16};
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let equal = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    converts((DType::F16, DType::F32), &all, |x| f16::from_bits(x).to_f32(), equal);
    converts((DType::BF16, DType::F32), &all, |x| bf16::from_bits(x).to_f32(), equal);
    // Every half, its neighbours in f32, and what lies between two halves.
    let near = |x: f32| {
        [-0x1001i32, -0x1000, -1, 0, 1, 0x0fff, 0x1000, 0x1001]
            .map(|d| f32::from_bits(x.to_bits().wrapping_add_signed(d)))
    };
    let floats: Vec<f32> = all.iter().flat_map(|&x| near(f16::from_bits(x).to_f32())).collect();
    let half = |a: u16, b: u16| a == b || (f16::from_bits(a).is_nan() && f16::from_bits(b).is_nan());
    converts((DType::F32, DType::F16), &floats, |x| f16::from_f32(x).to_bits(), half);
    let brain = |a: u16, b: u16| a == b || (bf16::from_bits(a).is_nan() && bf16::from_bits(b).is_nan());
    converts((DType::F32, DType::BF16), &floats, |x| bf16::from_f32(x).to_bits(), brain);
}

#[test]
fn casts_saturate_and_wrap() {
    let floats = [
        0.0,
        -0.5,
        0.99,
        127.5,
        128.0,
        -129.0,
        255.9,
        256.0,
        3e9,
        -3e9,
        5e9,
        1e30,
        -1e30,
        f32::NAN,
        65_535.7,
    ];
    converts((DType::F32, DType::I8), &floats, |x| x as i8, |a, b| a == b);
    converts((DType::F32, DType::U8), &floats, |x| x as u8, |a, b| a == b);
    converts((DType::F32, DType::I16), &floats, |x| x as i16, |a, b| a == b);
    converts((DType::F32, DType::U16), &floats, |x| x as u16, |a, b| a == b);
    converts((DType::F32, DType::I32), &floats, |x| x as i32, |a, b| a == b);
    converts((DType::F32, DType::U32), &floats, |x| x as u32, |a, b| a == b);
    converts((DType::F32, DType::I64), &floats, |x| x as i64, |a, b| a == b);
    converts((DType::F32, DType::U64), &floats, |x| x as u64, |a, b| a == b);
    converts((DType::F32, DType::Bool), &floats, |x| (x != 0.0) as u8, |a, b| a == b);
    converts((DType::F32, DType::F64), &floats, |x| x as f64, |a: f64, b| a == b || a.is_nan());
    let ints = [0, 1, -1, 127, 128, -128, -129, 255, 256, 65_535, 65_536, i32::MAX, i32::MIN];
    converts((DType::I32, DType::I8), &ints, |x| x as i8, |a, b| a == b);
    converts((DType::I32, DType::U8), &ints, |x| x as u8, |a, b| a == b);
    converts((DType::I32, DType::I16), &ints, |x| x as i16, |a, b| a == b);
    converts((DType::I32, DType::U16), &ints, |x| x as u16, |a, b| a == b);
    converts((DType::I32, DType::I64), &ints, |x| x as i64, |a, b| a == b);
    converts((DType::I32, DType::F32), &ints, |x| x as f32, |a, b| a == b);
    converts((DType::I32, DType::Bool), &ints, |x| (x != 0) as u8, |a, b| a == b);
    converts(
        (DType::U32, DType::F32),
        &[0u32, 1, u32::MAX, 1 << 31, 16_777_217],
        |x| x as f32,
        |a, b| a == b,
    );
    converts((DType::I64, DType::I32), &[0i64, 1 << 40, -5, i64::MAX], |x| x as i32, |a, b| a == b);
    converts((DType::U8, DType::F32), &(0..=255).collect::<Vec<u8>>(), |x| x as f32, |a, b| a == b);
    converts((DType::I8, DType::F32), &(-128..=127).collect::<Vec<i8>>(), |x| x as f32, |a, b| a == b);
    converts((DType::U16, DType::F32), &[0u16, 1, 40_000, u16::MAX], |x| x as f32, |a, b| a == b);
    converts((DType::Bool, DType::F32), &[0u8, 1, 1, 0, 1], |x| x as f32, |a, b| a == b);
    converts((DType::Bool, DType::I64), &[0u8, 1, 1, 0, 1], |x| x as i64, |a, b| a == b);
}

#[test]
fn narrow_integers_wrap_and_divide() {
    // Sum, product, quotient, remainder of u8 and of i8 in all combinations of edge values.
    let edges = [0i64, 1, 2, 7, 100, 127, 128, 200, 255];
    let pairs: Vec<(i64, i64)> = edges.iter().flat_map(|&a| edges.map(|b| (a, b))).collect();
    for profile in levels() {
        for (vectorize, signed) in VECTORIZE.iter().flat_map(|&v| [(v, false), (v, true)]) {
            let dtype = if signed { DType::I8 } else { DType::U8 };
            let functions =
                [BinaryFn::Add, BinaryFn::Mul, BinaryFn::Div, BinaryFn::Rem, BinaryFn::Max, BinaryFn::Lt];
            for function in functions {
                let mut dag = Dag::default();
                let a = load(&mut dag, 0, dtype, access(&[(1, 1)]));
                let b = load(&mut dag, 1, dtype, access(&[(1, 1)]));
                let y = dag.binary(function, a, b);
                let to = dag.dtype(y);
                let (outer, inner) = split(vectorize, Const(1), Const(pairs.len() as i64));
                let kernel = LoopKernel {
                    args: vec![arg(dtype, false), arg(dtype, false), arg(to, true)],
                    outer,
                    items: 1,
                    stages: vec![stage(inner, dag, vec![store(2, access(&[(1, 1)]), y)])],
                    vectorize,
                };
                let operands =
                    |f: fn(&(i64, i64)) -> i64| pairs.iter().map(|p| f(p) as u8).collect::<Vec<u8>>();
                let mut buffers = vec![operands(|p| p.0), operands(|p| p.1), vec![0; pairs.len()]];
                let divides = matches!(function, BinaryFn::Div | BinaryFn::Rem);
                let status = run(&kernel, &profile, &[], 1, &mut buffers);
                assert_eq!(status, if divides { STATUS_DIVISION } else { 0 });
                for (&(a, b), &y) in pairs.iter().zip(&buffers[2]) {
                    let (a, b) = if signed { (a as i8 as i64, b as i8 as i64) } else { (a, b) };
                    let expected = match function {
                        BinaryFn::Add => a + b,
                        BinaryFn::Mul => a * b,
                        BinaryFn::Div => a.checked_div(b).unwrap_or(0),
                        BinaryFn::Rem => a.checked_rem(b).unwrap_or(0),
                        BinaryFn::Max => a.max(b),
                        _ => (a < b) as i64,
                    };
                    assert_eq!(y, expected as u8, "{function:?}({a}, {b}) of {dtype}");
                }
            }
        }
    }
}

#[test]
fn bools_select_and_64_bit_types() {
    // y = (x < limit && flag) ? x : big, in i64; and the condition itself.
    for profile in levels() {
        for (n, vectorize) in SIZES.iter().flat_map(|&n| VECTORIZE.map(|v| (n, v))) {
            let mut dag = Dag::default();
            let x = load(&mut dag, 0, DType::I64, access(&[(1, 1)]));
            let flag = load(&mut dag, 1, DType::Bool, access(&[(1, 1)]));
            let limit = dag.push(Expr::Size(Param(0)), DType::I64);
            let less = dag.binary(BinaryFn::Lt, x, limit);
            let both = dag.binary(BinaryFn::And, less, flag);
            let not = dag.unary(UnaryFn::Not, both);
            let big = dag.constant(DType::I64, 1e15);
            let y = dag.select(both, x, big);
            let float = load(&mut dag, 2, DType::F32, access(&[(1, 1)]));
            let negated = dag.unary(UnaryFn::Neg, float);
            let float = dag.select(not, negated, float);
            let (outer, inner) = split(vectorize, Const(1), Const(n as i64));
            let along = access(&[(1, 1)]);
            let kernel = LoopKernel {
                args: vec![
                    arg(DType::I64, false),
                    arg(DType::Bool, false),
                    arg(DType::F32, false),
                    arg(DType::I64, true),
                    arg(DType::Bool, true),
                    arg(DType::F32, true),
                ],
                outer,
                items: 1,
                stages: vec![stage(
                    inner,
                    dag,
                    vec![store(3, along.clone(), y), store(4, along.clone(), not), store(5, along, float)],
                )],
                vectorize,
            };
            let x: Vec<i64> = (0..n as i64).map(|i| i * 1_000_000_007 - 5).collect();
            let flags: Vec<u8> = (0..n).map(|i| (i % 3 != 0) as u8).collect();
            let floats = values(n, 15);
            let mut buffers =
                vec![bytes(&x), flags.clone(), bytes(&floats), vec![0; 8 * n], vec![0; n], vec![0; 4 * n]];
            run(&kernel, &profile, &[6_000_000_000], 1, &mut buffers);
            let kept = |i: usize| x[i] < 6_000_000_000 && flags[i] == 1;
            let ints = typed::<i64>(&buffers[3]);
            let out = typed::<f32>(&buffers[5]);
            for i in 0..n {
                assert_eq!(ints[i], if kept(i) { x[i] } else { 1_000_000_000_000_000 });
                assert_eq!(buffers[4][i], !kept(i) as u8);
                assert_eq!(out[i], if kept(i) { floats[i] } else { -floats[i] });
            }
        }
    }
}

#[test]
fn powers() {
    let x = [0.0f32, 1.0, -1.0, 2.5, -2.0, 4.0, 0.25, 1e20, f32::INFINITY];
    for profile in levels() {
        for (vectorize, e) in
            VECTORIZE.iter().flat_map(|&v| [-1.0f64, -0.5, 0.5, 1.0, 2.0, 3.0, 2.2, -3.0].map(|e| (v, e)))
        {
            let mut dag = Dag::default();
            let loaded = load(&mut dag, 0, DType::F32, access(&[(1, 1)]));
            let exponent = dag.constant(DType::F32, e);
            let y = dag.binary(BinaryFn::Pow, loaded, exponent);
            let (outer, inner) = split(vectorize, Const(1), Const(x.len() as i64));
            let kernel = LoopKernel {
                args: vec![arg(DType::F32, false), arg(DType::F32, true)],
                outer,
                items: 1,
                stages: vec![stage(inner, dag, vec![store(1, access(&[(1, 1)]), y)])],
                vectorize,
            };
            let mut buffers = vec![bytes(&x), vec![0; 4 * x.len()]];
            run(&kernel, &profile, &[], 1, &mut buffers);
            for (&x, y) in x.iter().zip(typed::<f32>(&buffers[1])) {
                let exact = (x as f64).powf(e as f32 as f64);
                let close = (y as f64 - exact).abs() <= 3e-7 * exact.abs() || y == exact as f32;
                assert!(close || (y.is_nan() && exact.is_nan()), "{x}^{e} = {y}, not {exact}");
            }
        }
    }
}

#[test]
fn errors_name_the_kernel() {
    let profile = &levels()[0];
    let mut dag = Dag::default();
    let x = load(&mut dag, 0, DType::F32, access(&[(0, 1)]));
    let y = dag.unary(UnaryFn::Libm("system"), x);
    let kernel = |dag: Dag, outer: Vec<Size>| LoopKernel {
        args: vec![arg(DType::F32, false), arg(DType::F32, true)],
        outer,
        items: 1,
        stages: vec![stage(vec![], dag, vec![store(1, access(&[(0, 1)]), y)])],
        vectorize: Vectorize::No,
    };
    let error = try_run(&kernel(dag.clone(), vec![Const(1)]), profile, &[], 1, &mut []).unwrap_err();
    assert!(matches!(&error, CodegenError::Kernel { kernel, .. } if kernel == "test"), "{error}");
    assert!(error.to_string().contains("system"), "{error}");
    let error = try_run(&kernel(dag, vec![]), profile, &[], 1, &mut []).unwrap_err();
    assert!(error.to_string().contains("work item"), "{error}");
}
