//! Plans as machine code in memory, and as text.

use crate::clif::{composite, libm};
use crate::compile::{Compiled, Machine, build, compile, compile_all, kernel_error};
use crate::error::CodegenError;
use crate::isa::{code_target, target_isa};
use cranelift_codegen::Context;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget, default_libcall_names};
use rabot_kernel::{KernelDesc, Plan};
use rabot_target::Profile;
use std::collections::HashMap;
use std::sync::Arc;

/// A compiled kernel: `(args, params, begin, end, scratch, status)`.
///
/// It does the work items `begin..end`.
///
/// # Safety
///
/// - `args` points to one pointer per argument of the kernel, `params` to its parameters.
/// - Each argument points to a buffer that holds all elements that the kernel's accesses reach for these parameters,
///   and at least one element; those that are written overlap no other and are not touched by others meanwhile.
/// - `scratch` points to the bytes of scratch memory that the call asks for, aligned to 64.
/// - `status` points to a word that becomes [`crate::clif::expr::STATUS_INDEX`] or
///   [`crate::clif::expr::STATUS_DIVISION`] if data are at fault, and is left alone otherwise.
pub type KernelFn = unsafe extern "C" fn(
    args: *const *mut u8,
    params: *const i64,
    begin: i64,
    end: i64,
    scratch: *mut u8,
    status: *mut i64,
);

/// Compiled kernels of a plan, in memory. Cloning shares them.
#[derive(Clone)]
pub struct JitProgram {
    code: Arc<Code>,
}

struct Code {
    /// Absent only while it is dropped.
    module: Option<JITModule>,
    kernels: Vec<KernelFn>,
    code_bytes: usize,
}

// SAFETY: after `compile_jit` nothing calls a method of the module until it is dropped; its memory is then only
// read and executed, and the function pointers are plain addresses into it.
unsafe impl Send for Code {}
// SAFETY: as for Send: shared access is executing immutable code.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: `kernels` is the only copy of the pointers that outlives calls of `JitProgram::kernel`, whose
            // documentation bounds their use by the life of the program; this is its end.
            unsafe { module.free_memory() };
        }
    }
}

impl JitProgram {
    /// The kernel with this index in [`Plan::kernels`]. The pointer is valid as long as the program or a clone lives.
    pub fn kernel(&self, index: usize) -> Option<KernelFn> {
        self.code.kernels.get(index).copied()
    }

    /// Number of kernels.
    pub fn len(&self) -> usize {
        self.code.kernels.len()
    }

    /// True if there are no kernels.
    pub fn is_empty(&self) -> bool {
        self.code.kernels.is_empty()
    }

    /// Size of the machine code in bytes.
    pub fn code_bytes(&self) -> usize {
        self.code.code_bytes
    }
}

impl std::fmt::Debug for JitProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JitProgram({} kernels, {} bytes)", self.len(), self.code_bytes())
    }
}

/// Compiles the kernels of a plan into memory.
///
/// **Errors**: the profile does not fit this machine, or a kernel cannot be compiled.
pub fn compile_jit(plan: &Plan, profile: &Profile) -> Result<JitProgram, CodegenError> {
    profile.runs_here()?;
    let machine = machine(profile, false)?;
    if plan.kernels.iter().any(KernelDesc::uses_tiles) {
        take_tile_unit(profile)?;
    }
    let mut builder = JITBuilder::with_isa(machine.isa.clone(), default_libcall_names());
    for symbol in libm::SYMBOLS {
        builder.symbol(symbol.name, (symbol.address)());
    }
    let mut module = JITModule::new(builder);
    let ids = declare_kernels(&mut module, plan, "kernel", &machine)?;
    let compiled = compile_all(plan, &machine, &ids)?;
    let code_bytes = compiled.iter().map(|c| c.bytes.len()).sum();
    define_kernels(&mut module, &ids, compiled, &machine)?;
    module.finalize_definitions().map_err(|e| CodegenError::Module(e.to_string()))?;
    let kernels = ids
        .iter()
        .map(|&id| {
            let address = module.get_finalized_function(id);
            // SAFETY: the function was compiled with the signature of `kernel_signature`, which is that of
            // `KernelFn` in the C calling convention of this machine; its memory lives as long as the module.
            unsafe { std::mem::transmute::<*const u8, KernelFn>(address) }
        })
        .collect();
    Ok(JitProgram { code: Arc::new(Code { module: Some(module), kernels, code_bytes }) })
}

/// Asks the system to let this process use the tile unit: its state is not saved for those that do not ask (Linux,
/// Documentation/arch/x86/xstate.rst).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn take_tile_unit(profile: &Profile) -> Result<(), CodegenError> {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: this call reads no memory; it changes only which registers the system saves for this process.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) };
    if result == 0 {
        return Ok(());
    }
    Err(CodegenError::TileUnit {
        profile: profile.name.clone(),
        reason: std::io::Error::last_os_error().to_string(),
    })
}

/// There is no tile unit elsewhere.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn take_tile_unit(profile: &Profile) -> Result<(), CodegenError> {
    Err(CodegenError::TileUnit {
        profile: profile.name.clone(),
        reason: "it is asked for on Linux only".to_owned(),
    })
}

pub(crate) fn machine(profile: &Profile, pic: bool) -> Result<Machine, CodegenError> {
    let isa = target_isa(profile, pic)?;
    let target = code_target(profile, &isa);
    Ok(Machine { isa, target })
}

/// Declares all kernels of a plan as local functions.
pub(crate) fn declare_kernels(
    module: &mut dyn Module,
    plan: &Plan,
    prefix: &str,
    machine: &Machine,
) -> Result<Vec<FuncId>, CodegenError> {
    let signature = crate::clif::context::kernel_signature(&machine.target);
    (0..plan.kernels.len())
        .map(|index| {
            module
                .declare_function(&format!("{prefix}_{index}"), Linkage::Local, &signature)
                .map_err(|e| CodegenError::Module(e.to_string()))
        })
        .collect()
}

/// Places compiled kernels in a module, with the C library functions that they call.
pub(crate) fn define_kernels(
    module: &mut dyn Module,
    ids: &[FuncId],
    compiled: Vec<Compiled>,
    machine: &Machine,
) -> Result<(), CodegenError> {
    let mut imported = HashMap::new();
    for (&id, code) in ids.iter().zip(compiled) {
        let mut relocations = code.relocations;
        for relocation in &mut relocations {
            resolve(module, ids, relocation, &mut imported, machine)?;
        }
        module
            .define_function_bytes(id, code.alignment, &code.bytes, &relocations)
            .map_err(|e| CodegenError::Module(e.to_string()))?;
    }
    Ok(())
}

/// Gives a reference to the C library or to another kernel the number that the function has in this module.
fn resolve(
    module: &mut dyn Module,
    ids: &[FuncId],
    relocation: &mut ModuleReloc,
    imported: &mut HashMap<u32, FuncId>,
    machine: &Machine,
) -> Result<(), CodegenError> {
    let index = match relocation.name {
        ModuleRelocTarget::User { namespace: libm::NAMESPACE, index } => index,
        ModuleRelocTarget::User { namespace: composite::NAMESPACE, index } => {
            let id = ids.get(index as usize);
            let id = id.ok_or_else(|| CodegenError::Module(format!("no kernel has number {index}")))?;
            relocation.name = ModuleRelocTarget::from(*id);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let id = match imported.get(&index) {
        Some(&id) => id,
        None => {
            let symbol = libm::SYMBOLS
                .get(index as usize)
                .ok_or_else(|| CodegenError::Module(format!("no C library function has number {index}")))?;
            let signature = libm::signature(symbol, machine.target.call_conv);
            let id = module
                .declare_function(symbol.name, Linkage::Import, &signature)
                .map_err(|e| CodegenError::Module(e.to_string()))?;
            imported.insert(index, id);
            id
        }
    };
    relocation.name = ModuleRelocTarget::from(id);
    Ok(())
}

/// The Cranelift IR of a kernel, before optimization.
///
/// **Errors**: there is no such kernel, or it cannot be built.
pub fn clif_text(plan: &Plan, kernel: usize, profile: &Profile) -> Result<String, CodegenError> {
    let machine = machine(profile, false)?;
    let description = description(plan, kernel)?;
    let built =
        build(description, &plan.kernels, &machine).map_err(|reason| kernel_error(plan, kernel, reason))?;
    Ok(built.function.display().to_string())
}

/// The assembly of a kernel.
///
/// **Errors**: there is no such kernel, or it cannot be compiled.
pub fn asm_text(plan: &Plan, kernel: usize, profile: &Profile) -> Result<String, CodegenError> {
    let machine = machine(profile, false)?;
    let description = description(plan, kernel)?;
    let compiled = build(description, &plan.kernels, &machine)
        .and_then(|built| compile(&mut Context::new(), built, &machine, FuncId::from_u32(0), true));
    let compiled = compiled.map_err(|reason| kernel_error(plan, kernel, reason))?;
    Ok(compiled.assembly.unwrap_or_default())
}

fn description(plan: &Plan, index: usize) -> Result<&rabot_kernel::KernelDesc, CodegenError> {
    let count = plan.kernels.len();
    plan.kernels.get(index).ok_or(CodegenError::NoKernel { index, count })
}
