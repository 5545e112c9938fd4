//! Speed of contractions on one thread: `cargo run --release -p rabot-codegen --example gemm [PROFILE…]`.
//!
//! Prints, for each problem, 10⁹ operations a second (multiply and add both counted) and 10⁹ bytes of B a second,
//! best of several runs.

use rabot_codegen::compile_jit;
use rabot_ir::Dim;
use rabot_kernel::{
    Access, Arg, BinaryFn, ContractKernel, Dag, Expr, KernelDesc, Operand, Patches, Plan, Size, Store, Tile,
    scratch_bytes,
};
use rabot_target::Profile;
use rabot_tensor::DType;
use std::time::Instant;

/// A contraction, and the number of elements of its operands as they lie in memory.
struct Problem {
    name: &'static str,
    kernel: ContractKernel,
    elements: [usize; 4],
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = vec!["x86-64-v2".to_owned(), "x86-64-v3".to_owned(), "host".to_owned()];
    }
    for name in names {
        let profile = Profile::by_name(&name)?;
        for problem in problems() {
            measure(&profile, &problem)?;
        }
    }
    Ok(())
}

fn problems() -> Vec<Problem> {
    let float = DType::F32;
    vec![
        product("256×256×256, weights right", [256, 256, 256], true, float),
        product("512×512×512, weights right", [512, 512, 512], true, float),
        product("512×512×512, both at run time", [512, 512, 512], false, float),
        product("1×49152×576, weights right", [1, 49152, 576], true, float),
        product("13×1536×576, weights right", [13, 1536, 576], true, float),
        pointwise("1×1 conv, 64 → 256, 56×56", [256, 3136, 64]),
        pointwise("1×1 conv, 256 → 64, 56×56", [64, 3136, 256]),
        pointwise("1×1 conv, 2048 → 512, 7×7", [512, 49, 2048]),
        conv("3×3 conv, 64 → 64, 56×56", 64, 56, 1, float),
        conv("3×3 conv, 256 → 256, 14×14", 256, 14, 1, float),
        conv("3×3 conv, 512 → 512, 7×7", 512, 7, 1, float),
        conv("3×3 conv by 2, 3 → 32, 224×224", 3, 224, 2, float),
        product("512×512×512 of i8", [512, 512, 512], true, DType::I8),
        conv("3×3 conv of i8, 64 → 64, 56×56", 64, 56, 1, DType::I8),
    ]
}

fn kernel(
    sizes: [usize; 3],
    a: Operand,
    b: Operand,
    dtype: DType,
    bias: usize,
    tile: Tile,
) -> ContractKernel {
    let [m, n, k] = sizes.map(|size| Size::Const(size as i64));
    let accumulator = if dtype == DType::F32 { DType::F32 } else { DType::I32 };
    let packed = if dtype == DType::F32 { DType::F32 } else { DType::I16 };
    let in_memory =
        |operand: &Operand| if matches!(operand, Operand::Packed { .. }) { packed } else { dtype };
    let mut epilogue = Dag::default();
    let sum = epilogue.push(Expr::Accumulator, accumulator);
    let access = Access { strides: vec![(bias, Size::Const(1))], ..Access::default() };
    let bias = epilogue.push(Expr::Load { arg: 2, access }, accumulator);
    let value = epilogue.binary(BinaryFn::Add, sum, bias);
    let access = Access { strides: vec![(0, n), (1, Size::Const(1))], ..Access::default() };
    let arg = |dtype: DType, written: bool| Arg { dtype, written };
    ContractKernel {
        args: vec![
            arg(in_memory(&a), false),
            arg(in_memory(&b), false),
            arg(accumulator, false),
            arg(accumulator, true),
        ],
        batch: vec![],
        m,
        n,
        k,
        a,
        b,
        accumulator,
        epilogue,
        line: None,
        stores: vec![Store { arg: 3, access, value }],
        tile,
        tiles: None,
        keeps_b: false,
    }
}

/// The micro-kernel that the planner chooses for a number of rows.
fn micro(rows: usize, dtype: DType) -> (usize, usize) {
    let (most, nr) = if dtype == DType::F32 { (12, 4) } else { (4, 12) };
    (rows.div_ceil(rows.div_ceil(most)), nr)
}

fn product(name: &'static str, sizes: [usize; 3], packed: bool, dtype: DType) -> Problem {
    let [m, n, k] = sizes;
    let strided = |arg: usize, outer: usize, k: usize| Operand::Strided {
        arg,
        offset: Size::Const(0),
        batch: vec![],
        outer: Size::Const(outer as i64),
        k: Size::Const(k as i64),
        zero_point: 0,
    };
    let b = if packed { Operand::Packed { arg: 1, batch: vec![] } } else { strided(1, 1, n) };
    let (mr, nr) = micro(m, dtype);
    let columns = 512 / nr * nr;
    let tile = Tile { mr, nr, rows: m.min(240).next_multiple_of(mr), columns };
    Problem {
        name,
        kernel: kernel(sizes, strided(0, k, 1), b, dtype, 1, tile),
        elements: [m * k, k.next_multiple_of(2) * n.next_multiple_of(nr), n, m * n],
    }
}

fn pointwise(name: &'static str, sizes: [usize; 3]) -> Problem {
    let [m, n, k] = sizes;
    let (mr, nr) = micro(m, DType::F32);
    let columns = (131072 / k).clamp(nr, 1024) / nr * nr;
    let b = Operand::Strided {
        arg: 1,
        offset: Size::Const(0),
        batch: vec![],
        outer: Size::Const(1),
        k: Size::Const(n as i64),
        zero_point: 0,
    };
    let tile = Tile { mr, nr, rows: m.next_multiple_of(mr), columns };
    Problem {
        name,
        kernel: kernel(sizes, Operand::Packed { arg: 0, batch: vec![] }, b, DType::F32, 0, tile),
        elements: [m.next_multiple_of(mr) * k, k * n, m, m * n],
    }
}

fn conv(name: &'static str, channels: usize, extent: usize, stride: usize, dtype: DType) -> Problem {
    let rows = if channels == 3 { 32 } else { channels };
    let output = extent.div_ceil(stride);
    let constant = |value: usize| Size::Const(value as i64);
    let patches = Patches {
        arg: 1,
        offset: Size::Const(0),
        batch: vec![],
        channel: constant(extent * extent),
        input: vec![constant(extent); 2],
        input_strides: vec![constant(extent), Size::Const(1)],
        output: vec![constant(output); 2],
        kernel: vec![3, 3],
        strides: vec![stride; 2],
        dilations: vec![1, 1],
        pads: vec![Size::Const(1); 2],
        zero_point: 0,
    };
    let ((mr, nr), k) = (micro(rows, dtype), channels * 9);
    let columns = (131072 / k).clamp(nr, 1024) / nr * nr;
    let tile = Tile { mr, nr, rows: rows.next_multiple_of(mr), columns };
    let a = Operand::Packed { arg: 0, batch: vec![] };
    let kernel = kernel([rows, output * output, k], a, Operand::Patches(patches), dtype, 0, tile);
    let elements = [
        rows.next_multiple_of(mr) * k.next_multiple_of(2),
        channels * extent * extent,
        rows,
        rows * output * output,
    ];
    Problem { name, kernel, elements }
}

fn measure(profile: &Profile, problem: &Problem) -> Result<(), Box<dyn std::error::Error>> {
    let kernel = &problem.kernel;
    let plan = Plan {
        name: problem.name.to_owned(),
        inputs: vec![],
        outputs: vec![],
        buffers: vec![],
        constants: vec![],
        kernels: vec![KernelDesc::Contract(kernel.clone())],
        kernel_names: vec![problem.name.to_owned()],
        init: vec![],
        steps: vec![],
        checks: vec![],
        symbols: vec![],
        forms: Default::default(),
    };
    let start = Instant::now();
    let program = compile_jit(&plan, profile)?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    let function = program.kernel(0).ok_or("no kernel")?;
    let [m, n, k] = [kernel.m, kernel.n, kernel.k].map(|size| match size {
        Size::Const(value) => value as usize,
        Size::Param(_) => 0,
    });
    let items = m.div_ceil(kernel.tile.rows) * n.div_ceil(kernel.tile.columns);
    // Words, so that buffers are aligned; as floats or integers these are small numbers. Memory that was never
    // written would all be one page of zeros.
    let mut buffers: Vec<Vec<u64>> =
        problem.elements.iter().map(|len| vec![0x0101_0101_0101_0101; len.div_ceil(2) + 8]).collect();
    let scratch_bytes = scratch_bytes(kernel, &Dim::from(k)).as_usize().ok_or("scratch")?;
    let mut scratch = vec![0u64; scratch_bytes / 8 + 8];
    let aligned = scratch.as_mut_ptr().cast::<u8>();
    let aligned = aligned.wrapping_add(aligned.align_offset(64));
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(|buffer| buffer.as_mut_ptr().cast()).collect();
    let mut status = 0i64;
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        // SAFETY: the kernel has no parameters; each buffer has at least the elements that its operand's sizes and
        // strides reach, 4 bytes for each; the scratch memory has the bytes that the kernel asks for.
        unsafe {
            function(pointers.as_ptr(), std::ptr::null(), 0, items as i64, aligned, &mut status);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let (operations, b_bytes) = (2.0 * (m * n * k) as f64, (n * k * 4) as f64);
    println!(
        "{:10} {:32} {:7.1} Gop/s {:6.1} GB/s   compiled in {compile_ms:.1} ms, {} bytes",
        profile.name,
        problem.name,
        operations / best / 1e9,
        b_bytes / best / 1e9,
        program.code_bytes()
    );
    Ok(())
}
