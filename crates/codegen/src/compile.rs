//! One kernel: from description to machine code.

use crate::clif::context::{CodeTarget, KernelCx, kernel_signature};
use crate::clif::{composite, contract, loops};
use crate::error::{CodegenError, KernelError};
use crate::x64::{self, Leaf};
use cranelift_codegen::Context;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, InstBuilder, UserFuncName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, ModuleReloc, ModuleRelocTarget};
use rabot_kernel::{KernelDesc, Plan, Step};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Machine code of a function, not yet placed.
pub(crate) struct Compiled {
    pub(crate) bytes: Vec<u8>,
    pub(crate) alignment: u64,
    pub(crate) relocations: Vec<ModuleReloc>,
    /// Assembly text, if asked for.
    pub(crate) assembly: Option<String>,
}

/// A machine and Cranelift's back end for it.
pub(crate) struct Machine {
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) target: CodeTarget,
}

/// A kernel in CLIF, and the leaves that it calls.
pub(crate) struct Built {
    pub(crate) function: Function,
    pub(crate) leaves: Vec<Leaf>,
}

/// Builds the CLIF of a kernel; `kernels` are all those that it may call, by number.
pub(crate) fn build(
    kernel: &KernelDesc,
    kernels: &[KernelDesc],
    machine: &Machine,
) -> Result<Built, KernelError> {
    let signature = kernel_signature(&machine.target);
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let builder = FunctionBuilder::new(&mut function, &mut context);
    let args = match kernel {
        // The parts load theirs.
        KernelDesc::Composite(_) => &[],
        KernelDesc::Loop(_) | KernelDesc::Contract(_) => kernel.args(),
    };
    let mut cx = KernelCx::new(builder, machine.target, args);
    match kernel {
        KernelDesc::Loop(kernel) => loops::emit(&mut cx, kernel)?,
        KernelDesc::Contract(kernel) => contract::emit_contract(&mut cx, kernel)?,
        KernelDesc::Composite(kernel) => composite::emit(&mut cx, kernel, kernels)?,
    }
    cx.builder.ins().return_(&[]);
    let leaves = std::mem::take(&mut cx.leaves);
    cx.builder.finalize(machine.isa.frontend_config());
    Ok(Built { function, leaves })
}

/// Compiles a function, its leaves behind it. `id` is the one it will have in its module.
pub(crate) fn compile(
    context: &mut Context,
    built: Built,
    machine: &Machine,
    id: FuncId,
    assembly: bool,
) -> Result<Compiled, KernelError> {
    context.clear();
    context.func = built.function;
    context.set_disasm(assembly);
    let backend = |error: cranelift_codegen::CompileError| KernelError::Backend(format!("{:?}", error.inner));
    let code = context.compile(&*machine.isa, &mut ControlPlane::default()).map_err(backend)?;
    let (bytes, alignment) = (code.buffer.data().to_vec(), code.buffer.alignment as u64);
    let (relocations, assembly) = (code.buffer.relocs().to_vec(), code.vcode.clone());
    let relocations =
        relocations.iter().map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id)).collect();
    let mut compiled = Compiled { bytes, alignment, relocations, assembly };
    append(&mut compiled, &built.leaves)?;
    Ok(compiled)
}

/// Puts leaves behind a function, and their addresses into its calls.
fn append(compiled: &mut Compiled, leaves: &[Leaf]) -> Result<(), KernelError> {
    if leaves.is_empty() {
        return Ok(());
    }
    let inconsistent = |message: String| KernelError::Inconsistent(message);
    let mut starts = Vec::new();
    for leaf in leaves {
        let start = compiled.bytes.len().next_multiple_of(x64::CODE_ALIGN);
        compiled.bytes.resize(start, NOTHING);
        let code = leaf.assemble().map_err(|error| KernelError::Backend(error.to_string()))?;
        if let Some(text) = &mut compiled.assembly {
            text.push_str(&x64::listing(leaf, &code));
        }
        compiled.bytes.extend(code);
        starts.push(start);
    }
    compiled.alignment = compiled.alignment.max(x64::CODE_ALIGN as u64);
    let relocations = std::mem::take(&mut compiled.relocations);
    for relocation in relocations {
        let ModuleRelocTarget::User { namespace: x64::NAMESPACE, index } = relocation.name else {
            compiled.relocations.push(relocation);
            continue;
        };
        let at = relocation.offset as usize;
        let start = starts.get(index as usize).copied();
        let place = compiled.bytes.get_mut(at..at + 4).filter(|_| relocation.kind == Reloc::X86CallPCRel4);
        let (Some(start), Some(place)) = (start, place) else {
            return Err(inconsistent(format!("a call of leaf {index} by {:?}", relocation.kind)));
        };
        let distance = start as i64 + relocation.addend - at as i64;
        let distance = i32::try_from(distance).map_err(|error| inconsistent(error.to_string()))?;
        place.copy_from_slice(&distance.to_le_bytes());
    }
    Ok(())
}

/// Between functions: a byte that traps.
const NOTHING: u8 = 0xcc;

/// Compiles all kernels of a plan, on as many threads as there are. `ids` are theirs in the module.
///
/// **Errors**: those of the first kernel that fails, by number.
pub(crate) fn compile_all(
    plan: &Plan,
    machine: &Machine,
    ids: &[FuncId],
) -> Result<Vec<Compiled>, CodegenError> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Compiled, KernelError>>>> =
        ids.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        let mut context = Context::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(kernel), Some(slot)) = (plan.kernels.get(index), results.get(index)) else { return };
            let compiled = build(kernel, &plan.kernels, machine)
                .and_then(|built| compile(&mut context, built, machine, ids[index], false));
            *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(compiled);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(ids.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let collect = |(index, slot): (usize, Mutex<Option<Result<Compiled, KernelError>>>)| {
        let result = slot.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let missing = || Err(KernelError::Inconsistent("it was not compiled".to_owned()));
        result.unwrap_or_else(missing).map_err(|reason| kernel_error(plan, index, reason))
    };
    results.into_iter().enumerate().map(collect).collect()
}

/// The error of a kernel, with its name and the source nodes of the first call that uses it.
pub(crate) fn kernel_error(plan: &Plan, index: usize, reason: KernelError) -> CodegenError {
    let kernel = plan.kernel_names.get(index).cloned().unwrap_or_else(|| format!("#{index}"));
    let of_init = plan.init.iter().find(|call| call.kernel == index).map(|call| call.sources.clone());
    let sources = of_init.unwrap_or_else(|| sources_of(&plan.steps, index));
    CodegenError::Kernel { kernel, sources, reason }
}

fn sources_of(steps: &[Step], kernel: usize) -> Vec<Arc<str>> {
    for step in steps {
        let found = match step {
            Step::Call(call) if call.kernel == kernel => call.sources.clone(),
            Step::If { then_steps, else_steps, .. } => {
                let first = sources_of(then_steps, kernel);
                if first.is_empty() { sources_of(else_steps, kernel) } else { first }
            }
            Step::Call(_) | Step::Host(_) => Vec::new(),
        };
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}
