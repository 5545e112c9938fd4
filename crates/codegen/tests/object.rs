//! Object files: linked with a C program where there is a C compiler, made for every profile in any case.

mod common;

use bytes::Bytes;
use common::{access, arg, load, stage, store, values};
use rabot_codegen::{CodegenError, ObjectFile, emit_object};
use rabot_ir::Dim;
use rabot_kernel::{
    BinaryFn, Buffer, Call, Constant, Dag, KernelDesc, LoopKernel, Plan, Port, Size, Step, Storage, UnaryFn,
    Vectorize,
};
use rabot_target::Profile;
use rabot_tensor::DType;
use std::process::Command;

/// y = function(x + c) for `n` elements, the extent a parameter.
fn kernel(function: UnaryFn) -> KernelDesc {
    let mut dag = Dag::default();
    let x = load(&mut dag, 0, DType::F32, access(&[(1, 1)]));
    let c = load(&mut dag, 1, DType::F32, access(&[(1, 1)]));
    let sum = dag.binary(BinaryFn::Add, x, c);
    let y = dag.unary(function, sum);
    KernelDesc::Loop(LoopKernel {
        args: vec![arg(DType::F32, false), arg(DType::F32, false), arg(DType::F32, true)],
        outer: vec![Size::Const(1)],
        items: 1,
        stages: vec![stage(vec![Size::Param(0)], dag, vec![store(2, access(&[(1, 1)]), y)])],
        vectorize: Vectorize::Inner,
    })
}

const N: usize = 11;

/// Once: d = neg(c + c). Then h = tan(x + c); y = flag ? exp(h + d) : neg(h + d); z = x.
fn plan(constant: &[f32]) -> Plan {
    let once = |kernel: usize, args: [usize; 3]| Call {
        kernel,
        args: args.to_vec(),
        params: vec![Dim::from(N as i64)],
        items: Dim::from(1),
        scratch_bytes: Dim::from(0),
        sources: vec!["node".into()],
        parts: vec![],
        flops: Dim::from(0),
        values: vec![],
    };
    let call = |kernel: usize, args: [usize; 3]| Step::Call(once(kernel, args));
    let buffer =
        |storage, dtype, elements: usize| Buffer { storage, dtype, elements: Dim::from(elements as i64) };
    let port = |name: &str, dtype, elements: usize, buffer| Port {
        name: name.into(),
        dtype,
        shape: vec![Dim::from(elements as i64)],
        buffer,
    };
    Plan {
        name: "small".to_owned(),
        inputs: vec![port("x", DType::F32, N, 0), port("flag", DType::Bool, 1, 1)],
        outputs: vec![port("y", DType::F32, N, 4), port("z", DType::F32, N, 0)],
        buffers: vec![
            buffer(Storage::Input(0), DType::F32, N),
            buffer(Storage::Input(1), DType::Bool, 1),
            buffer(Storage::Constant(0), DType::F32, N),
            buffer(Storage::Arena { first: 0, last: 3 }, DType::F32, N),
            buffer(Storage::Output(0), DType::F32, N),
            buffer(Storage::Arena { first: 0, last: usize::MAX }, DType::F32, N),
        ],
        constants: vec![Constant { bytes: Bytes::from(common::bytes(constant)), dtype: DType::F32 }],
        kernels: vec![kernel(UnaryFn::Libm("tan")), kernel(UnaryFn::Exp), kernel(UnaryFn::Neg)],
        kernel_names: vec!["tan".to_owned(), "exp".to_owned(), "neg".to_owned()],
        init: vec![once(2, [2, 2, 5])],
        steps: vec![
            call(0, [0, 2, 3]),
            Step::If {
                condition: 1,
                then_steps: vec![call(1, [3, 5, 4])],
                else_steps: vec![call(2, [3, 5, 4])],
            },
        ],
        checks: vec![],
        symbols: vec![],
        forms: Default::default(),
    }
}

#[test]
fn every_profile_has_an_object_file() {
    for name in Profile::built_in_names() {
        let ObjectFile { object, header } =
            emit_object(&plan(&[0.5; N]), &Profile::by_name(name).unwrap(), "small-one").unwrap();
        assert_eq!(&object[..4], b"\x7fELF");
        let machine = u16::from_le_bytes([object[18], object[19]]);
        let expected = if name == "aarch64" {
            183
        } else if name == "riscv64" {
            243
        } else {
            62
        };
        assert_eq!(machine, expected, "{name}");
        assert!(
            header.contains("rabot_small_one_run") && header.contains("x: f32[11], 44 bytes"),
            "{header}"
        );
    }
}

/// Compiles a C program around the object file and returns what it prints, or `None` if a tool is not there.
fn run_linked(
    profile: &Profile,
    compiler: &str,
    runner: Option<&str>,
    x: &[f32],
    c: &[f32],
) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = emit_object(&plan(c), profile, "small").unwrap();
    std::fs::write(dir.path().join("small.o"), &file.object).unwrap();
    std::fs::write(dir.path().join("small.h"), &file.header).unwrap();
    let list = x.iter().map(|v| format!("{v:?}f")).collect::<Vec<_>>().join(", ");
    let source = format!(
        r#"#include <stdio.h>
#include <string.h>
#include "small.h"
static _Alignas(64) unsigned char arena[RABOT_SMALL_ARENA_BYTES];
int main(void) {{
    float x[{N}] = {{ {list} }}, y[{N}], z[{N}];
    for (unsigned char flag = 0; flag < 2; flag++) {{
        const void *inputs[] = {{ x, &flag }};
        void *outputs[] = {{ y, z }};
        memset(arena, 0x5a, sizeof arena);
        printf("%d", rabot_small_run(inputs, outputs, arena));
        for (int i = 0; i < {N}; i++) printf(" %.9g %.9g", y[i], z[i]);
        printf("\n");
    }}
    return 0;
}}
"#
    );
    std::fs::write(dir.path().join("main.c"), source).unwrap();
    let linking = ["-std=c11", "-static", "-o", "main", "main.c", "small.o", "-lm"];
    let Ok(built) = Command::new(compiler).current_dir(dir.path()).args(linking).output() else {
        eprintln!("skipped: there is no C compiler `{compiler}`");
        return None;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = dir.path().join("main");
    let mut command = match runner {
        None => Command::new(&program),
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(&program);
            command
        }
    };
    let Ok(output) = command.output() else {
        eprintln!("skipped: there is no `{}`", runner.unwrap_or("main"));
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn linked_with_c_it_computes_the_same() {
    let (x, c) = (values(N, 1), values(N, 2));
    let host = Profile::host().unwrap();
    let machines = [
        (host, "cc", None),
        (Profile::by_name("aarch64").unwrap(), "aarch64-linux-gnu-gcc", Some("qemu-aarch64")),
        (Profile::by_name("riscv64").unwrap(), "riscv64-linux-gnu-gcc", Some("qemu-riscv64")),
    ];
    for (profile, compiler, runner) in machines {
        let Some(text) = run_linked(&profile, compiler, runner, &x, &c) else { continue };
        let lines: Vec<Vec<f64>> =
            text.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        for (flag, line) in lines.iter().enumerate() {
            assert_eq!(line[0], 0.0);
            for i in 0..N {
                let h = (x[i] + c[i]).tan() - (c[i] + c[i]);
                let y = if flag == 1 { h.exp() } else { -h };
                let actual = line[1 + 2 * i];
                assert!(
                    (actual - y as f64).abs() <= 1e-5 * y.abs() as f64,
                    "{} {i}: {actual} {y}",
                    profile.name
                );
                assert_eq!(line[2 + 2 * i] as f32, x[i]);
            }
        }
    }
}

#[test]
fn symbols_and_host_ops_are_named() {
    let profile = Profile::by_name("x86-64-v3").unwrap();
    let mut symbolic = plan(&[0.0; N]);
    symbolic.buffers[3].elements = Dim::symbol("batch");
    let error = emit_object(&symbolic, &profile, "m").unwrap_err();
    assert!(matches!(&error, CodegenError::Symbolic { dim, .. } if dim == "batch"), "{error}");
    let mut hosted = plan(&[0.0; N]);
    hosted.steps.push(Step::Host(rabot_kernel::HostCall {
        op: "NonZero".to_owned(),
        reason: "its size depends on data".to_owned(),
        inputs: vec![],
        outputs: vec![],
        function: std::sync::Arc::new(|_| Ok(vec![])),
        sources: vec!["nz_1".into()],
        values: vec![],
    }));
    let error = emit_object(&hosted, &profile, "m").unwrap_err().to_string();
    assert!(error.contains("NonZero") && error.contains("nz_1"), "{error}");
}
