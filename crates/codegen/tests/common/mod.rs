//! Running kernels that are written by hand.

#![allow(dead_code, reason = "each test binary uses its part")]

use rabot_codegen::{CodegenError, asm_text, compile_jit};
use rabot_kernel::{
    Access, Arg, Dag, Expr, ExprId, KernelDesc, LoopKernel, Plan, Size, Stage, Store, Vectorize,
};
use rabot_target::Profile;
use rabot_tensor::DType;

/// The levels of this machine, without and with FMA; those it lacks are named.
pub fn levels() -> Vec<Profile> {
    let names = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "host"];
    let all = names.map(|name| Profile::by_name(name).unwrap());
    let runs = |profile: &Profile| match profile.runs_here() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    };
    all.into_iter().filter(runs).collect()
}

pub const VECTORIZE: [Vectorize; 3] = [Vectorize::No, Vectorize::Inner, Vectorize::Outer];

pub fn plan(kernel: KernelDesc) -> Plan {
    Plan {
        name: "test".to_owned(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        buffers: Vec::new(),
        constants: Vec::new(),
        kernel_names: vec!["test".to_owned()],
        init: vec![],
        kernels: vec![kernel],
        steps: Vec::new(),
        checks: Vec::new(),
        symbols: Vec::new(),
        forms: Default::default(),
    }
}

/// Runs a kernel in pieces of one to three items, and all at once; both must agree. Returns the status.
pub fn run(
    kernel: &LoopKernel,
    profile: &Profile,
    params: &[i64],
    items: i64,
    buffers: &mut [Vec<u8>],
) -> i64 {
    try_run(kernel, profile, params, items, buffers).unwrap()
}

pub fn try_run(
    kernel: &LoopKernel,
    profile: &Profile,
    params: &[i64],
    items: i64,
    buffers: &mut [Vec<u8>],
) -> Result<i64, CodegenError> {
    let plan = plan(KernelDesc::Loop(kernel.clone()));
    let program = compile_jit(&plan, profile)?;
    if *profile == levels()[0] {
        // Once for each kernel: other machines have code for it, too.
        for name in ["aarch64", "riscv64"] {
            asm_text(&plan, 0, &Profile::by_name(name).unwrap())?;
        }
    }
    let function = program.kernel(0).unwrap();
    assert_eq!(buffers.len(), kernel.args.len());
    // Guard bytes behind each buffer catch writes past its end.
    const GUARD: [u8; 64] = [0xa5; 64];
    let call = |buffers: &mut [Vec<u8>], pieces: &[(i64, i64)]| {
        let mut guarded: Vec<Vec<u8>> = buffers.iter().map(|b| [b.as_slice(), &GUARD].concat()).collect();
        let pointers: Vec<*mut u8> = guarded.iter_mut().map(|b| b.as_mut_ptr()).collect();
        let mut status = 0i64;
        let mut scratch = [0u8; 64];
        for &(begin, end) in pieces {
            // SAFETY: there is a buffer for each argument, of the size that the test's accesses need, with 64
            // bytes more; loop kernels use no scratch memory.
            unsafe {
                function(pointers.as_ptr(), params.as_ptr(), begin, end, scratch.as_mut_ptr(), &mut status);
            }
        }
        for (buffer, guarded) in buffers.iter_mut().zip(guarded) {
            let (data, guard) = guarded.split_at(buffer.len());
            assert_eq!(guard, GUARD, "written past the end");
            buffer.copy_from_slice(data);
        }
        status
    };
    let mut pieces = Vec::new();
    let mut begin = 0;
    while begin < items {
        let end = (begin + 1 + begin % 3).min(items);
        pieces.push((begin, end));
        begin = end;
    }
    let mut again = buffers.to_vec();
    let status = call(buffers, &[(0, items)]);
    assert_eq!(call(&mut again, &pieces), status);
    assert!(again == buffers, "the partition changes the result");
    Ok(status)
}

pub fn arg(dtype: DType, written: bool) -> Arg {
    Arg { dtype, written }
}

pub fn access(strides: &[(usize, i64)]) -> Access {
    Access {
        offset: None,
        strides: strides.iter().map(|&(c, s)| (c, Size::Const(s))).collect(),
        dynamic: vec![],
    }
}

pub fn load(dag: &mut Dag, arg: usize, dtype: DType, access: Access) -> ExprId {
    let held = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
    dag.push(Expr::Load { arg, access }, held)
}

pub fn store(arg: usize, access: Access, value: ExprId) -> Store {
    Store { arg, access, value }
}

/// A stage with stores only.
pub fn stage(inner: Vec<Size>, dag: Dag, stores: Vec<Store>) -> Stage {
    Stage { inner, dag, reductions: vec![], stores }
}

/// Small deterministic numbers between -4 and 4.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 21) as f32 - 4.0
        })
        .collect()
}

pub fn bytes<T: bytemuck::Pod>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

pub fn typed<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

pub const SIZES: [usize; 9] = [0, 1, 3, 4, 5, 15, 16, 17, 33];
