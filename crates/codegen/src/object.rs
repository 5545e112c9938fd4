//! Plans as object files, which need nothing of rabot to run.
//!
//! The file holds the kernels, the constants and one function that does the steps in order, in the caller's thread
//! and in the caller's memory. It calls nothing but the C library.

use crate::clif::context::plain;
use crate::clif::expr::STATUS_CODE_BITS;
use crate::compile::{Machine, compile_all};
use crate::error::CodegenError;
use crate::header::header_text;
use crate::module::{declare_kernels, define_kernels, machine};
use cranelift_codegen::Context;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, FuncRef, GlobalValue, InstBuilder, Signature, StackSlot, StackSlotData, StackSlotKind, Value,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use rabot_kernel::{
    BUFFER_ALIGN_BYTES, Buffer, BufferId, Call, Interval, KernelDesc, Plan, Step, Storage, assign_offsets,
};
use rabot_target::Profile;
use std::collections::HashMap;

/// An object file and its C header.
#[derive(Clone, Debug)]
pub struct ObjectFile {
    /// The ELF relocatable file.
    pub object: Vec<u8>,
    /// Text of the header.
    pub header: String,
}

/// Zeros behind each constant, as behind each buffer of the arena: kernels may read a vector past the end.
const SLACK_BYTES: usize = 64;

/// Where everything lies in the arena.
pub(crate) struct Layout {
    /// Offset of each buffer that is in the arena.
    offsets: HashMap<BufferId, usize>,
    /// Offset of the scratch memory.
    scratch: usize,
    /// Size of the arena.
    pub(crate) bytes: usize,
}

/// Compiles a plan with constant dims into an object file with a function `rabot_NAME_run`.
///
/// **Errors**: dims that depend on symbols, host ops, kernels on the tile unit, and those of compiling.
pub fn emit_object(plan: &Plan, profile: &Profile, name: &str) -> Result<ObjectFile, CodegenError> {
    check_steps(plan)?;
    if plan.kernels.iter().any(KernelDesc::uses_tiles) {
        return Err(CodegenError::Plan("an object file cannot ask the system for the tile unit".to_owned()));
    }
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let prefix = format!("rabot_{name}");
    let layout = layout(plan)?;
    let machine = machine(profile, true)?;
    let builder = ObjectBuilder::new(machine.isa.clone(), prefix.as_str(), default_libcall_names());
    let mut module = ObjectModule::new(builder.map_err(|e| CodegenError::Module(e.to_string()))?);
    let kernels = declare_kernels(&mut module, plan, &format!("{prefix}_kernel"), &machine)?;
    let compiled = compile_all(plan, &machine, &kernels)?;
    define_kernels(&mut module, &kernels, compiled, &machine)?;
    let constants = define_constants(&mut module, plan, &prefix)?;
    let params = define_params(&mut module, plan, &prefix)?;
    let data = Data { kernels, constants, params };
    define_driver(&mut module, plan, &prefix, &machine, &layout, &data)?;
    let object = module.finish().emit().map_err(|e| CodegenError::Module(e.to_string()))?;
    let header = header_text(plan, profile, &name, layout.bytes)?;
    Ok(ObjectFile { object, header })
}

struct Data {
    kernels: Vec<FuncId>,
    constants: Vec<DataId>,
    /// Parameters of all calls, in the order in which [`for_each_call`] meets them.
    params: DataId,
}

fn module_error(error: cranelift_module::ModuleError) -> CodegenError {
    CodegenError::Module(error.to_string())
}

/// A dim that must be constant and not negative.
pub(crate) fn constant(dim: &rabot_ir::Dim, what: impl FnOnce() -> String) -> Result<usize, CodegenError> {
    dim.as_usize().ok_or_else(|| CodegenError::Symbolic { what: what(), dim: dim.to_string() })
}

fn check_steps(plan: &Plan) -> Result<(), CodegenError> {
    let mut ops = Vec::new();
    host_ops(&plan.steps, &mut ops);
    if !ops.is_empty() {
        return Err(CodegenError::HostOps { ops });
    }
    for check in &plan.checks {
        let what = || format!("a check of node `{}`", check.node);
        let (left, right) = (constant(&check.left, what)?, constant(&check.right, what)?);
        if left != right {
            return Err(CodegenError::Plan(format!("node `{}` needs {left} to be {right}", check.node)));
        }
    }
    Ok(())
}

fn host_ops(steps: &[Step], ops: &mut Vec<String>) {
    for step in steps {
        match step {
            Step::Call(_) => {}
            Step::Host(call) => {
                ops.push(format!("{} (from {}): {}", call.op, call.sources.join(", "), call.reason))
            }
            Step::If { then_steps, else_steps, .. } => {
                host_ops(then_steps, ops);
                host_ops(else_steps, ops);
            }
        }
    }
}

/// Visits all calls, those before the steps and those of branches included, in order.
fn for_each_call(
    plan: &Plan,
    visit: &mut dyn FnMut(&Call) -> Result<(), CodegenError>,
) -> Result<(), CodegenError> {
    plan.init.iter().try_for_each(&mut *visit)?;
    for_each_step_call(&plan.steps, visit)
}

fn for_each_step_call(
    steps: &[Step],
    visit: &mut dyn FnMut(&Call) -> Result<(), CodegenError>,
) -> Result<(), CodegenError> {
    for step in steps {
        match step {
            Step::Call(call) => visit(call)?,
            Step::Host(_) => {}
            Step::If { then_steps, else_steps, .. } => {
                for_each_step_call(then_steps, visit)?;
                for_each_step_call(else_steps, visit)?;
            }
        }
    }
    Ok(())
}

fn buffer(plan: &Plan, id: BufferId) -> Result<&Buffer, CodegenError> {
    plan.buffers.get(id).ok_or_else(|| CodegenError::Plan(format!("there is no buffer {id}")))
}

/// Bytes of a buffer.
pub(crate) fn buffer_bytes(plan: &Plan, id: BufferId) -> Result<usize, CodegenError> {
    let buffer = buffer(plan, id)?;
    let elements = constant(&buffer.elements, || format!("the size of buffer {id}"))?;
    let bytes = elements.checked_mul(buffer.dtype.size_bytes());
    bytes.ok_or_else(|| CodegenError::Plan(format!("buffer {id} does not fit in memory")))
}

fn layout(plan: &Plan) -> Result<Layout, CodegenError> {
    let (mut ids, mut intervals) = (Vec::new(), Vec::new());
    for (id, buffer) in plan.buffers.iter().enumerate() {
        if let Storage::Arena { first, last } = buffer.storage {
            ids.push(id);
            intervals.push(Interval { bytes: buffer_bytes(plan, id)?, first, last });
        }
    }
    let mut scratch_bytes = 0;
    for_each_call(plan, &mut |call| {
        let what = || format!("scratch memory of {}", call.sources.join(", "));
        scratch_bytes = scratch_bytes.max(constant(&call.scratch_bytes, what)?);
        Ok(())
    })?;
    let too_large = || CodegenError::Plan("the arena does not fit in memory".to_owned());
    let (offsets, total) = assign_offsets(&intervals).ok_or_else(too_large)?;
    let scratch = total.checked_next_multiple_of(BUFFER_ALIGN_BYTES).ok_or_else(too_large)?;
    let bytes = scratch.checked_add(scratch_bytes).ok_or_else(too_large)?;
    Ok(Layout { offsets: ids.into_iter().zip(offsets).collect(), scratch, bytes })
}

fn define_constants(
    module: &mut ObjectModule,
    plan: &Plan,
    prefix: &str,
) -> Result<Vec<DataId>, CodegenError> {
    let mut ids = Vec::with_capacity(plan.constants.len());
    for (index, constant) in plan.constants.iter().enumerate() {
        let mut bytes = Vec::with_capacity(constant.bytes.len() + SLACK_BYTES);
        bytes.extend_from_slice(&constant.bytes);
        bytes.resize(constant.bytes.len() + SLACK_BYTES, 0);
        ids.push(define_data(module, &format!("{prefix}_constant_{index}"), bytes)?);
    }
    Ok(ids)
}

fn define_params(module: &mut ObjectModule, plan: &Plan, prefix: &str) -> Result<DataId, CodegenError> {
    // Never empty: a symbol of no size could share its address with anything.
    let mut bytes = vec![0u8; 8];
    for_each_call(plan, &mut |call| {
        for dim in &call.params {
            let what = || format!("a parameter of {}", call.sources.join(", "));
            let symbolic = || CodegenError::Symbolic { what: what(), dim: dim.to_string() };
            let value = dim.as_const().ok_or_else(symbolic)?;
            bytes.extend(value.to_le_bytes());
        }
        Ok(())
    })?;
    define_data(module, &format!("{prefix}_params"), bytes)
}

fn define_data(module: &mut ObjectModule, name: &str, bytes: Vec<u8>) -> Result<DataId, CodegenError> {
    let id = module.declare_data(name, Linkage::Local, false, false).map_err(module_error)?;
    let mut description = DataDescription::new();
    description.define(bytes.into_boxed_slice());
    description.set_align(BUFFER_ALIGN_BYTES as u64);
    module.define_data(id, &description).map_err(module_error)?;
    Ok(id)
}

fn define_driver(
    module: &mut ObjectModule,
    plan: &Plan,
    prefix: &str,
    machine: &Machine,
    layout: &Layout,
    data: &Data,
) -> Result<(), CodegenError> {
    let pointer = machine.target.pointer;
    let mut signature = Signature::new(machine.target.call_conv);
    signature.params.extend([AbiParam::new(pointer); 3]);
    signature.returns.push(AbiParam::new(I32));
    let id = module
        .declare_function(&format!("{prefix}_run"), Linkage::Export, &signature)
        .map_err(module_error)?;
    let mut context = Context::new();
    context.func.signature = signature;
    let mut functions = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut functions);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_block(block);
    let [inputs, outputs, arena]: [Value; 3] = std::array::from_fn(|i| builder.block_params(block)[i]);
    let slots = plan.kernels.iter().map(|kernel| kernel.args().len()).max().unwrap_or(0).max(1);
    let mut slot = |bytes: u32| {
        builder.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3))
    };
    let (args, status) = (slot(slots as u32 * pointer.bytes()), slot(8));
    let mut driver = Driver {
        module,
        builder,
        plan,
        layout,
        data,
        inputs,
        outputs,
        arena,
        args,
        status,
        next_param: 8,
        functions: HashMap::new(),
        globals: HashMap::new(),
    };
    let zero = driver.builder.ins().iconst(I64, 0);
    driver.builder.ins().stack_store(pointer, zero, status, 0);
    // The arena is the caller's: nothing of the last run can be relied on.
    plan.init.iter().try_for_each(|call| driver.call(call))?;
    driver.steps(&plan.steps)?;
    driver.outputs()?;
    // The low half of the word: all back ends are little-endian, and the codes are small.
    let word = driver.builder.ins().stack_load(pointer, I32, status, 0);
    // Which part of a kernel failed is not told.
    let result = driver.builder.ins().band_imm_u(word, (1 << STATUS_CODE_BITS) - 1);
    driver.builder.ins().return_(&[result]);
    driver.builder.finalize(machine.isa.frontend_config());
    module.define_function(id, &mut context).map_err(|e| CodegenError::Module(format!("{e:?}")))
}

/// The function that does the steps.
struct Driver<'a, 'f> {
    module: &'a mut ObjectModule,
    builder: FunctionBuilder<'f>,
    plan: &'a Plan,
    layout: &'a Layout,
    data: &'a Data,
    inputs: Value,
    outputs: Value,
    arena: Value,
    /// The arguments of a call.
    args: StackSlot,
    status: StackSlot,
    /// Offset of the parameters of the next call.
    next_param: i64,
    functions: HashMap<FuncId, FuncRef>,
    globals: HashMap<DataId, GlobalValue>,
}

impl Driver<'_, '_> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), CodegenError> {
        for step in steps {
            match step {
                Step::Call(call) => self.call(call)?,
                Step::Host(call) => return Err(CodegenError::HostOps { ops: vec![call.op.clone()] }),
                Step::If { condition, then_steps, else_steps } => {
                    let condition = self.buffer(*condition)?;
                    let condition = self.builder.ins().load(I8, plain(), condition, 0);
                    let blocks: [_; 3] = std::array::from_fn(|_| self.builder.create_block());
                    let [then_block, else_block, next] = blocks;
                    self.builder.ins().brif(condition, then_block, &[], else_block, &[]);
                    for (block, steps) in [(then_block, then_steps), (else_block, else_steps)] {
                        self.builder.switch_to_block(block);
                        self.builder.seal_block(block);
                        self.steps(steps)?;
                        self.builder.ins().jump(next, &[]);
                    }
                    self.builder.switch_to_block(next);
                    self.builder.seal_block(next);
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, call: &Call) -> Result<(), CodegenError> {
        let pointer = self.module.isa().pointer_type();
        let id = self.data.kernels.get(call.kernel).copied();
        let id = id.ok_or_else(|| CodegenError::Plan(format!("there is no kernel {}", call.kernel)))?;
        let expected = self.plan.kernels[call.kernel].args().len();
        if expected != call.args.len() {
            let (kernel, actual) = (call.kernel, call.args.len());
            return Err(CodegenError::Plan(format!(
                "kernel {kernel} takes {expected} buffers, not {actual}"
            )));
        }
        for (index, &buffer) in (0i32..).zip(&call.args) {
            let address = self.buffer(buffer)?;
            self.builder.ins().stack_store(pointer, address, self.args, index * pointer.bytes() as i32);
        }
        let items = constant(&call.items, || format!("the work of {}", call.sources.join(", ")))?;
        let args = self.builder.ins().stack_addr(pointer, self.args, 0);
        let params = self.symbol(self.data.params);
        let params = self.offset(params, self.next_param);
        self.next_param += 8 * call.params.len() as i64;
        let begin = self.builder.ins().iconst(I64, 0);
        let end = self.builder.ins().iconst(I64, items as i64);
        let scratch = self.offset(self.arena, self.layout.scratch as i64);
        let status = self.builder.ins().stack_addr(pointer, self.status, 0);
        let function = match self.functions.get(&id) {
            Some(&function) => function,
            None => {
                let function = self.module.declare_func_in_func(id, self.builder.func);
                self.functions.insert(id, function);
                function
            }
        };
        self.builder.ins().call(function, &[args, params, begin, end, scratch, status]);
        Ok(())
    }

    /// Address of a buffer.
    fn buffer(&mut self, id: BufferId) -> Result<Value, CodegenError> {
        let storage = buffer(self.plan, id)?.storage;
        Ok(match storage {
            Storage::Input(index) => self.pointer(self.inputs, index),
            Storage::Output(index) => self.pointer(self.outputs, index),
            Storage::Constant(index) => {
                let data = self.data.constants.get(index).copied();
                let data = data.ok_or_else(|| CodegenError::Plan(format!("there is no constant {index}")))?;
                self.symbol(data)
            }
            Storage::Arena { .. } => {
                let offset = self.layout.offsets.get(&id).copied().unwrap_or(0);
                self.offset(self.arena, offset as i64)
            }
        })
    }

    fn pointer(&mut self, list: Value, index: usize) -> Value {
        let pointer = self.module.isa().pointer_type();
        self.builder.ins().load(pointer, plain(), list, (index * pointer.bytes() as usize) as i32)
    }

    fn offset(&mut self, base: Value, bytes: i64) -> Value {
        let bytes = self.builder.ins().iconst(I64, bytes);
        self.builder.ins().iadd(base, bytes)
    }

    fn symbol(&mut self, data: DataId) -> Value {
        let pointer = self.module.isa().pointer_type();
        let global = match self.globals.get(&data) {
            Some(&global) => global,
            None => {
                let global = self.module.declare_data_in_func(data, self.builder.func);
                self.globals.insert(data, global);
                global
            }
        };
        self.builder.ins().symbol_value(pointer, global)
    }

    /// Copies outputs that are inputs, constants, or the same buffer as another output.
    fn outputs(&mut self) -> Result<(), CodegenError> {
        for (index, port) in self.plan.outputs.iter().enumerate() {
            if buffer(self.plan, port.buffer)?.storage == Storage::Output(index) {
                continue;
            }
            let bytes = buffer_bytes(self.plan, port.buffer)?;
            let from = self.buffer(port.buffer)?;
            let to = self.pointer(self.outputs, index);
            let bytes = self.builder.ins().iconst(I64, bytes as i64);
            let config = self.module.target_config();
            self.builder.call_memcpy(config, to, from, bytes);
        }
        Ok(())
    }
}
