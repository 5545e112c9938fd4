//! A small builder of primitive operations, the same for scalars and for vectors of four lanes.
//!
//! Values are held as: f32 → F32 or F32X4; integers up to 32 bits, extended → I32 or I32X4; bool → I8 (0 or 1) or
//! a mask I32X4 (0 or all ones); 64-bit types → scalars F64 and I64 only.

use crate::clif::context::{CodeTarget, KernelCx};
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8, I32, I32X4, I64};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::FuncInstBuilder;

/// Flags of a bitcast between vectors of different lane counts.
pub(crate) fn little() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

/// Builds operations on scalars or on vectors.
pub struct Ops<'c, 'f> {
    /// The function.
    pub cx: &'c mut KernelCx<'f>,
    /// Vectors of four lanes instead of scalars.
    pub wide: bool,
}

impl<'f> Ops<'_, 'f> {
    fn ins(&mut self) -> FuncInstBuilder<'_, 'f> {
        self.cx.builder.ins()
    }

    /// The machine.
    pub fn target(&self) -> CodeTarget {
        self.cx.target
    }

    /// CLIF type of f32 values.
    pub fn f32_type(&self) -> Type {
        if self.wide { F32X4 } else { F32 }
    }

    /// CLIF type of 32-bit integer values.
    pub fn i32_type(&self) -> Type {
        if self.wide { I32X4 } else { I32 }
    }

    fn is_float(&self, value: Value) -> bool {
        self.type_of(value).lane_type().is_float()
    }

    fn type_of(&self, value: Value) -> Type {
        self.cx.builder.func.dfg.value_type(value)
    }

    fn splat_bits(&mut self, bits: u32, ty: Type) -> Value {
        let bytes: Vec<u8> = bits.to_le_bytes().repeat(4);
        let handle = self.cx.builder.func.dfg.constants.insert(ConstantData::from(bytes));
        self.ins().vconst(ty, handle)
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.ins().bxor(a, b)
    }

    /// Logical shift right by a constant.
    pub fn shr(&mut self, a: Value, bits: i64) -> Value {
        let bits = self.ins().iconst(I32, bits);
        self.ins().ushr(a, bits)
    }

    /// Logical not of a bool.
    pub fn not_bool(&mut self, a: Value) -> Value {
        if self.wide {
            self.ins().bnot(a)
        } else {
            let one = self.ins().iconst(I8, 1);
            self.ins().bxor(a, one)
        }
    }

    /// The smaller float of `a` and `b`; `b` if either is NaN. One instruction on x86.
    pub fn min_or_second(&mut self, a: Value, b: Value) -> Value {
        let less = self.compare(FloatCC::LessThan, a, b);
        self.select(less, a, b)
    }

    /// The smaller float; NaN if either is.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        let smaller = self.min_or_second(a, b);
        self.keep_nan(a, smaller)
    }

    /// The larger float; NaN if either is.
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        let larger = self.max_or_second(a, b);
        self.keep_nan(a, larger)
    }

    /// `otherwise`, or NaN where `a` is NaN.
    fn keep_nan(&mut self, a: Value, otherwise: Value) -> Value {
        let nan = self.compare(FloatCC::Unordered, a, a);
        if !self.wide {
            return self.select(nan, a, otherwise);
        }
        // All bits set is a NaN, so the mask itself will do: cheaper than a blend.
        let bits = self.bits(otherwise);
        let bits = self.or(bits, nan);
        self.float(bits)
    }

    /// The smaller integer.
    pub fn min_int(&mut self, signed: bool, a: Value, b: Value) -> Value {
        if self.wide {
            return if signed { self.ins().smin(a, b) } else { self.ins().umin(a, b) };
        }
        let condition = if signed { IntCC::SignedLessThan } else { IntCC::UnsignedLessThan };
        let less = self.compare_int(condition, a, b);
        self.select(less, a, b)
    }

    /// The larger integer.
    pub fn max_int(&mut self, signed: bool, a: Value, b: Value) -> Value {
        if self.wide {
            return if signed { self.ins().smax(a, b) } else { self.ins().umax(a, b) };
        }
        let condition = if signed { IntCC::SignedGreaterThan } else { IntCC::UnsignedGreaterThan };
        let greater = self.compare_int(condition, a, b);
        self.select(greater, a, b)
    }

    /// To the nearest integer, halves to even.
    pub fn nearest(&mut self, a: Value) -> Value {
        self.ins().nearest(a)
    }

    /// Works on f32 values in f64: `compute` sees them as F64 or F64X2, and its result is rounded to f32.
    pub fn in_f64<const N: usize>(
        &mut self,
        operands: [Value; N],
        compute: impl Fn(&mut Ops<'_, 'f>, [Value; N]) -> Value,
    ) -> Value {
        if !self.wide {
            let operands = operands.map(|v| self.ins().fpromote(F64, v));
            let result = compute(self, operands);
            return self.ins().fdemote(F32, result);
        }
        let low = operands.map(|v| self.ins().fvpromote_low(v));
        let high = operands.map(|v| {
            let swapped = self.swap_halves(v);
            self.ins().fvpromote_low(swapped)
        });
        let low = compute(self, low);
        let high = compute(self, high);
        let low = self.ins().fvdemote(low);
        let high = self.ins().fvdemote(high);
        self.join_low_halves(low, high)
    }

    /// A constant for use inside [`Ops::in_f64`].
    pub fn f64(&mut self, value: f64) -> Value {
        if !self.wide {
            return self.ins().f64const(value);
        }
        let bytes: Vec<u8> = value.to_le_bytes().repeat(2);
        let handle = self.cx.builder.func.dfg.constants.insert(ConstantData::from(bytes));
        self.ins().vconst(F64X2, handle)
    }

    fn swap_halves(&mut self, v: Value) -> Value {
        self.shuffle_bytes(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])
    }

    fn join_low_halves(&mut self, low: Value, high: Value) -> Value {
        self.shuffle_bytes(low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23])
    }

    /// The bytes that `mask` numbers: 0 to 15 of `a`, 16 to 31 of `b`.
    pub(crate) fn shuffle_bytes(&mut self, a: Value, b: Value, mask: [u8; 16]) -> Value {
        use cranelift_codegen::ir::types::I8X16;
        let ty = self.type_of(a);
        let mask = self.cx.builder.func.dfg.immediates.push(ConstantData::from(mask.as_slice()));
        let a = self.ins().bitcast(I8X16, little(), a);
        let b = self.ins().bitcast(I8X16, little(), b);
        let shuffled = self.ins().shuffle(a, b, mask);
        self.ins().bitcast(ty, little(), shuffled)
    }

    /// A bool as 0 or 1 in an integer of 32 bits.
    pub fn int_from_bool(&mut self, a: Value) -> Value {
        if self.wide {
            let one = self.i32(1);
            self.and(a, one)
        } else {
            self.ins().uextend(I32, a)
        }
    }

    /// Calls a C library function for f32, lane by lane.
    pub(crate) fn call_f32(&mut self, name: &str, a: Value) -> Result<Value, crate::error::KernelError> {
        if !self.wide {
            return self.cx.call_libm(name, F32, &[a]);
        }
        let mut result = a;
        for lane in 0..4u8 {
            let x = self.ins().extractlane(a, lane);
            let y = self.cx.call_libm(name, F32, &[x])?;
            result = self.ins().insertlane(result, y, lane);
        }
        Ok(result)
    }

    /// `fast`, or where `slow` (a bool) is true, the C library's function of `x` (f32). A branch skips the calls
    /// where no lane needs them.
    pub(crate) fn or_call_f32(
        &mut self,
        slow: Value,
        fast: Value,
        name: &str,
        x: Value,
    ) -> Result<Value, crate::error::KernelError> {
        let any = if self.wide { self.ins().vany_true(slow) } else { slow };
        let ty = self.f32_type();
        let (call, next) = (self.cx.builder.create_block(), self.cx.builder.create_block());
        let result = self.cx.builder.append_block_param(next, ty);
        self.cx.builder.set_cold_block(call);
        self.ins().brif(any, call, &[], next, &[fast.into()]);
        self.cx.builder.switch_to_block(call);
        self.cx.builder.seal_block(call);
        let called = self.call_f32(name, x)?;
        let joined = self.select(slow, called, fast);
        self.ins().jump(next, &[joined.into()]);
        self.cx.builder.switch_to_block(next);
        self.cx.builder.seal_block(next);
        Ok(result)
    }

    /// i64 constant.
    pub(crate) fn i64(&mut self, value: i64) -> Value {
        self.ins().iconst(I64, value)
    }
}

impl Prim for Ops<'_, '_> {
    type V = Value;

    fn f32(&mut self, value: f32) -> Value {
        if self.wide { self.splat_bits(value.to_bits(), F32X4) } else { self.ins().f32const(value) }
    }

    fn i32(&mut self, value: i32) -> Value {
        if self.wide {
            self.splat_bits(value as u32, I32X4)
        } else {
            self.ins().iconst(I32, value as u32 as i64)
        }
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        if self.is_float(a) { self.ins().fadd(a, b) } else { self.ins().iadd(a, b) }
    }

    fn sub(&mut self, a: Value, b: Value) -> Value {
        if self.is_float(a) { self.ins().fsub(a, b) } else { self.ins().isub(a, b) }
    }

    fn mul(&mut self, a: Value, b: Value) -> Value {
        if self.is_float(a) { self.ins().fmul(a, b) } else { self.ins().imul(a, b) }
    }

    fn div(&mut self, a: Value, b: Value) -> Value {
        self.ins().fdiv(a, b)
    }

    fn mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.cx.target.fma {
            self.ins().fma(a, b, c)
        } else {
            let product = self.ins().fmul(a, b);
            self.ins().fadd(product, c)
        }
    }

    fn neg_mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.cx.target.fma {
            let a = self.ins().fneg(a);
            self.ins().fma(a, b, c)
        } else {
            let product = self.ins().fmul(a, b);
            self.ins().fsub(c, product)
        }
    }

    fn sqrt(&mut self, a: Value) -> Value {
        self.ins().sqrt(a)
    }

    fn abs(&mut self, a: Value) -> Value {
        self.ins().fabs(a)
    }

    fn bits(&mut self, a: Value) -> Value {
        let ty = self.i32_type();
        self.ins().bitcast(ty, little(), a)
    }

    fn float(&mut self, a: Value) -> Value {
        let ty = self.f32_type();
        self.ins().bitcast(ty, little(), a)
    }

    fn float_from_int(&mut self, a: Value) -> Value {
        let ty = self.f32_type();
        self.ins().fcvt_from_sint(ty, a)
    }

    fn and(&mut self, a: Value, b: Value) -> Value {
        self.ins().band(a, b)
    }

    fn or(&mut self, a: Value, b: Value) -> Value {
        self.ins().bor(a, b)
    }

    fn shl(&mut self, a: Value, bits: i64) -> Value {
        let bits = self.ins().iconst(I32, bits);
        self.ins().ishl(a, bits)
    }

    fn shr_signed(&mut self, a: Value, bits: i64) -> Value {
        let bits = self.ins().iconst(I32, bits);
        self.ins().sshr(a, bits)
    }

    fn compare(&mut self, condition: FloatCC, a: Value, b: Value) -> Value {
        self.ins().fcmp(condition, a, b)
    }

    fn compare_int(&mut self, condition: IntCC, a: Value, b: Value) -> Value {
        self.ins().icmp(condition, a, b)
    }

    fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        if !self.wide {
            return self.ins().select(condition, a, b);
        }
        let ty = self.type_of(a);
        let condition = match self.is_float(a) {
            true => self.ins().bitcast(ty, little(), condition),
            false => condition,
        };
        self.ins().bitselect(condition, a, b)
    }

    fn or_zero(&mut self, condition: Value, a: Value) -> Value {
        if self.wide {
            let bits = self.bits(a);
            let bits = self.and(condition, bits);
            return self.float(bits);
        }
        let zero = self.f32(0.0);
        self.select(condition, a, zero)
    }

    fn max_or_second(&mut self, a: Value, b: Value) -> Value {
        let less = self.compare(FloatCC::LessThan, b, a);
        self.select(less, a, b)
    }
}
