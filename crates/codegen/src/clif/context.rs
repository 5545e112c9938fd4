//! The function that a kernel becomes, while it is being built.

use crate::clif::libm;
use crate::error::KernelError;
use crate::x64::{self, Leaf};
use cranelift_codegen::ir::types::{F32, F64, I64};
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, MemFlagsData, Signature, Type,
    UserExternalName, Value,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use rabot_kernel::{Arg, Size};
use rabot_tensor::DType;
use std::collections::HashMap;

/// Lanes of a vector: 4 × 32 bits.
pub const LANES: usize = 4;

/// What the kernel builders must know of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeTarget {
    /// A multiply-add is one instruction and rounds once.
    pub fma: bool,
    /// There are vectors of 128 bits.
    pub vectors: bool,
    /// There are vectors of 512 bits, for leaves.
    pub wide: bool,
    /// There is a tile unit that multiplies bf16.
    pub tiles: bool,
    /// Type of pointers.
    pub pointer: Type,
    /// Calling convention of kernels and of the C library.
    pub call_conv: CallConv,
}

/// An argument of the kernel, inside it.
#[derive(Clone, Copy, Debug)]
pub struct ArgValue {
    /// Start of the buffer.
    pub pointer: Value,
    /// Element type in memory.
    pub dtype: DType,
    /// True if the kernel writes it.
    pub written: bool,
}

/// A kernel function under construction.
pub struct KernelCx<'f> {
    /// The function. Positioned in an unterminated block at all times.
    pub builder: FunctionBuilder<'f>,
    /// The machine.
    pub target: CodeTarget,
    /// The buffers.
    pub args: Vec<ArgValue>,
    /// Pointer to the parameters.
    pub params: Value,
    /// First work item.
    pub begin: Value,
    /// One past the last work item.
    pub end: Value,
    /// Scratch memory of the thread.
    pub scratch: Value,
    /// Pointer to the status word.
    pub status: Value,
    /// Loads of arguments that are not written may move; arguments do not overlap.
    pub movable_loads: bool,
    /// Functions that lie behind this one.
    pub(crate) leaves: Vec<Leaf>,
    arg_list: Value,
    libm: HashMap<usize, FuncRef>,
}

/// Signature of a kernel: `(args, params, begin, end, scratch, status)`.
pub fn kernel_signature(target: &CodeTarget) -> Signature {
    let mut signature = Signature::new(target.call_conv);
    let types = [target.pointer, target.pointer, I64, I64, target.pointer, target.pointer];
    signature.params.extend(types.map(AbiParam::new));
    signature
}

/// Accesses of memory that never trap; nothing is said of alignment.
pub fn plain() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// Loads of memory that does not change while the kernel runs.
pub fn constant() -> MemFlagsData {
    plain().with_readonly().with_can_move()
}

impl<'f> KernelCx<'f> {
    /// Opens the entry block of a kernel function and loads what is always needed.
    ///
    /// `builder` is over a fresh function whose signature is [`kernel_signature`].
    pub fn new(mut builder: FunctionBuilder<'f>, target: CodeTarget, args: &[Arg]) -> Self {
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        builder.seal_block(entry);
        let values: [Value; 6] = std::array::from_fn(|i| builder.block_params(entry)[i]);
        let [arg_list, param_list, begin, end, scratch, status] = values;
        let pointer_bytes = target.pointer.bytes() as i32;
        let args = (0i32..)
            .zip(args)
            .map(|(i, arg)| ArgValue {
                pointer: builder.ins().load(target.pointer, constant(), arg_list, i * pointer_bytes),
                dtype: arg.dtype,
                written: arg.written,
            })
            .collect();
        KernelCx {
            builder,
            target,
            args,
            params: param_list,
            begin,
            end,
            scratch,
            status,
            movable_loads: true,
            leaves: Vec::new(),
            arg_list,
            libm: HashMap::new(),
        }
    }

    /// Pointer to the list of arguments.
    pub fn arg_list(&self) -> Value {
        self.arg_list
    }

    /// The value of a size, i64.
    pub fn size(&mut self, size: Size) -> Value {
        match size {
            Size::Const(value) => self.builder.ins().iconst(I64, value),
            // These loads may move: the optimizer keeps one, outside all loops.
            Size::Param(index) => self.builder.ins().load(I64, constant(), self.params, 8 * index as i32),
        }
    }

    /// An argument.
    ///
    /// **Errors**: there is no such argument.
    pub fn arg(&self, index: usize) -> Result<ArgValue, KernelError> {
        let count = self.args.len();
        self.args.get(index).copied().ok_or(KernelError::Index { what: "argument", index, count })
    }

    /// Calls a function of the C library on scalars of `ty` (F32 or F64). `name` is the one for f64.
    ///
    /// **Errors**: compiled code may not call it, or it takes another number of operands.
    pub fn call_libm(&mut self, name: &str, ty: Type, operands: &[Value]) -> Result<Value, KernelError> {
        let index = libm::index(name, ty == F32, operands.len())
            .filter(|_| ty == F32 || ty == F64)
            .ok_or_else(|| KernelError::Libm(name.to_owned()))?;
        let function = match self.libm.get(&index) {
            Some(&function) => function,
            None => {
                let function = self.import_libm(index);
                self.libm.insert(index, function);
                function
            }
        };
        let call = self.builder.ins().call(function, operands);
        Ok(self.builder.inst_results(call)[0])
    }

    fn import_libm(&mut self, index: usize) -> FuncRef {
        let signature = libm::signature(&libm::SYMBOLS[index], self.target.call_conv);
        let signature = self.builder.import_signature(signature);
        let function: &mut Function = self.builder.func;
        let name = UserExternalName { namespace: libm::NAMESPACE, index: index as u32 };
        let name = ExternalName::user(function.declare_imported_user_function(name));
        self.builder.import_function(ExtFuncData { name, signature, colocated: false, patchable: false })
    }

    /// Calls a leaf with a pointer to its words.
    pub(crate) fn call_leaf(&mut self, leaf: Leaf, words: Value) {
        let known = self.leaves.iter().position(|known| *known == leaf);
        let index = known.unwrap_or_else(|| {
            self.leaves.push(leaf);
            self.leaves.len() - 1
        });
        let mut signature = Signature::new(self.target.call_conv);
        signature.params.push(AbiParam::new(self.target.pointer));
        let signature = self.builder.import_signature(signature);
        let name = UserExternalName { namespace: x64::NAMESPACE, index: index as u32 };
        let name = ExternalName::user(self.builder.func.declare_imported_user_function(name));
        let data = ExtFuncData { name, signature, colocated: true, patchable: false };
        let function = self.builder.import_function(data);
        self.builder.ins().call(function, &[words]);
    }

    /// Stores `code` to the status word if `condition` (i8) is not 0.
    pub fn set_status(&mut self, condition: Value, code: i64) {
        let (failed, next) = (self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(failed);
        self.builder.ins().brif(condition, failed, &[], next, &[]);
        self.builder.switch_to_block(failed);
        self.builder.seal_block(failed);
        let code = self.builder.ins().iconst(I64, code);
        self.builder.ins().store(plain(), code, self.status, 0);
        self.builder.ins().jump(next, &[]);
        self.builder.switch_to_block(next);
        self.builder.seal_block(next);
    }
}
