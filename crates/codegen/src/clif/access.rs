//! Addresses, loads and stores.

use crate::clif::cast::{bf16_from_f32, cast, f16_from_f32, f32_from_bf16, f32_from_f16};
use crate::clif::context::{ArgValue, KernelCx, LANES, constant, plain};
use crate::clif::expr::{Memo, Point, Val, in_lanes, to_lane, to_vector, value_of};
use crate::clif::ops::{Ops, little};
use crate::error::KernelError;
use cranelift_codegen::ir::types::{F32, F32X4, F64, I8, I8X16, I16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};
use rabot_kernel::{Access, Size, Store};
use rabot_tensor::DType;

/// A stride in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteStride {
    /// Known now.
    Const(i64),
    /// A parameter times the size of an element.
    Param {
        /// Index of the parameter.
        param: usize,
        /// Bytes of an element.
        element_bytes: i64,
    },
}

impl ByteStride {
    /// The stride of elements of this dtype.
    pub fn new(stride: Size, dtype: DType) -> Self {
        let element_bytes = dtype.size_bytes() as i64;
        match stride {
            Size::Const(value) => ByteStride::Const(value.wrapping_mul(element_bytes)),
            Size::Param(param) => ByteStride::Param { param, element_bytes },
        }
    }

    /// True if a machine's addressing mode multiplies by it.
    pub fn is_scale(self) -> bool {
        matches!(self, ByteStride::Const(1 | 2 | 4 | 8))
    }

    /// `value · stride`.
    pub fn times(self, cx: &mut KernelCx, value: Value) -> Value {
        match self {
            ByteStride::Const(1) => value,
            ByteStride::Const(bytes) if bytes > 0 && (bytes as u64).is_power_of_two() => {
                let shift = cx.builder.ins().iconst(I32, bytes.trailing_zeros() as i64);
                cx.builder.ins().ishl(value, shift)
            }
            _ => {
                let stride = self.value(cx);
                cx.builder.ins().imul(value, stride)
            }
        }
    }

    /// The stride as a value, i64.
    pub fn value(self, cx: &mut KernelCx) -> Value {
        match self {
            ByteStride::Const(bytes) => cx.builder.ins().iconst(I64, bytes),
            ByteStride::Param { param, element_bytes } => {
                let value = cx.size(Size::Param(param));
                ByteStride::Const(element_bytes).times(cx, value)
            }
        }
    }
}

/// A place in memory.
#[derive(Clone, Copy, Debug)]
struct Address {
    base: Value,
    offset: i32,
}

/// Adds up an address: parts known now go into the offset.
struct Sum {
    base: Value,
    offset: i64,
}

impl Sum {
    fn add(&mut self, cx: &mut KernelCx, bytes: Value) {
        self.base = cx.builder.ins().iadd(self.base, bytes);
    }

    /// Adds `count · stride`.
    fn add_constant(&mut self, cx: &mut KernelCx, count: i64, stride: ByteStride) {
        match stride {
            _ if count == 0 => {}
            ByteStride::Const(bytes) => self.offset = self.offset.wrapping_add(count.wrapping_mul(bytes)),
            stride => {
                let stride = stride.value(cx);
                let count = cx.builder.ins().iconst(I64, count);
                let bytes = cx.builder.ins().imul(stride, count);
                self.add(cx, bytes);
            }
        }
    }

    fn finish(mut self, cx: &mut KernelCx) -> Address {
        let offset = i32::try_from(self.offset).unwrap_or_else(|_| {
            self.base = cx.builder.ins().iadd_imm_s(self.base, self.offset);
            0
        });
        Address { base: self.base, offset }
    }
}

/// How an access runs along the lanes.
enum Along {
    /// All lanes at one address.
    Nowhere,
    /// Neighbours in memory.
    Contiguous,
    /// Every other element, for loads of 32 bits: two vectors hold them.
    EveryOther,
    /// Anything else.
    Apart,
}

struct Place<'a> {
    arg: ArgValue,
    access: &'a Access,
    at: &'a Point,
    memo: &'a Memo,
}

impl Place<'_> {
    fn along(&self) -> Result<Along, KernelError> {
        let Some(lane) = self.at.lane else { return Ok(Along::Nowhere) };
        for (id, _) in &self.access.dynamic {
            if !matches!(value_of(self.memo, *id)?, Val::Uniform(_)) {
                return Ok(Along::Apart);
            }
        }
        let stride = self.access.strides.iter().find(|(coord, _)| *coord == lane).map(|(_, stride)| *stride);
        Ok(match stride {
            None | Some(Size::Const(0)) => Along::Nowhere,
            Some(Size::Const(1)) => Along::Contiguous,
            Some(Size::Const(2)) if self.arg.dtype.size_bytes() == 4 => Along::EveryOther,
            Some(_) => Along::Apart,
        })
    }

    /// Address of the element of one lane. Terms are added from the outer coordinates to the inner ones, so that
    /// what a loop does not change is computed outside it.
    fn address(&self, cx: &mut KernelCx, lane: usize) -> Result<Address, KernelError> {
        let dtype = self.arg.dtype;
        let mut sum = Sum { base: self.arg.pointer, offset: 0 };
        if let Some(offset) = self.access.offset {
            sum.add_constant(cx, 1, ByteStride::new(offset, dtype));
        }
        let mut strides: Vec<_> = self.access.strides.iter().filter(|(_, s)| *s != Size::Const(0)).collect();
        strides.sort_by_key(|(coord, _)| *coord);
        for &&(coord, stride) in &strides {
            let stride = ByteStride::new(stride, dtype);
            let value = self.at.coord(coord)?;
            let lane = if self.at.lane == Some(coord) { lane as i64 } else { 0 };
            sum.add_constant(cx, value.add + lane, stride);
            if let Some(base) = value.base {
                let running = value.running.iter().find(|(key, _)| *key == stride).map(|(_, bytes)| *bytes);
                let bytes = running.unwrap_or_else(|| stride.times(cx, base));
                sum.add(cx, bytes);
            }
        }
        for &(id, stride) in &self.access.dynamic {
            let index = to_lane(cx, DType::I64, value_of(self.memo, id)?, lane);
            let bytes = ByteStride::new(stride, dtype).times(cx, index);
            sum.add(cx, bytes);
        }
        Ok(sum.finish(cx))
    }
}

/// Loads an element, or those of all lanes.
pub(crate) fn load(
    cx: &mut KernelCx,
    at: &Point,
    memo: &Memo,
    arg: usize,
    access: &Access,
) -> Result<Val, KernelError> {
    let arg = cx.arg(arg)?;
    let place = Place { arg, access, at, memo };
    let flags = if arg.written || !cx.movable_loads { plain() } else { constant() };
    let held = held_dtype(arg.dtype);
    match place.along()? {
        Along::Nowhere => {
            let address = place.address(cx, 0)?;
            Ok(Val::Uniform(load_scalar(cx, arg.dtype, flags, address)?))
        }
        Along::Contiguous if in_lanes(held) => {
            let address = place.address(cx, 0)?;
            Ok(Val::Vector(load_vector(cx, arg.dtype, flags, address)?))
        }
        Along::EveryOther => {
            let address = place.address(cx, 0)?;
            Ok(Val::Vector(load_every_other(cx, arg.dtype, flags, address)))
        }
        Along::Contiguous | Along::Apart => {
            let mut lanes = Vec::with_capacity(LANES);
            for lane in 0..LANES {
                let address = place.address(cx, lane)?;
                lanes.push(load_scalar(cx, arg.dtype, flags, address)?);
            }
            let lanes = Val::Lanes(std::array::from_fn(|lane| lanes[lane]));
            Ok(if in_lanes(held) { Val::Vector(to_vector(cx, held, lanes)) } else { lanes })
        }
    }
}

/// Dtype of a loaded element in registers.
fn held_dtype(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

fn load_as(cx: &mut KernelCx, ty: Type, flags: MemFlagsData, address: Address) -> Value {
    cx.builder.ins().load(ty, flags, address.base, address.offset)
}

fn load_scalar(
    cx: &mut KernelCx,
    dtype: DType,
    flags: MemFlagsData,
    address: Address,
) -> Result<Value, KernelError> {
    let narrow = |cx: &mut KernelCx, ty: Type, signed: bool| {
        let value = load_as(cx, ty, flags, address);
        let ins = cx.builder.ins();
        if signed { ins.sextend(I32, value) } else { ins.uextend(I32, value) }
    };
    Ok(match dtype {
        DType::F32 => load_as(cx, F32, flags, address),
        DType::F64 => load_as(cx, F64, flags, address),
        DType::I64 | DType::U64 => load_as(cx, I64, flags, address),
        DType::I32 | DType::U32 => load_as(cx, I32, flags, address),
        DType::Bool => load_as(cx, I8, flags, address),
        DType::I8 | DType::I4 | DType::I2 => narrow(cx, I8, true),
        DType::U8 | DType::U4 | DType::U2 => narrow(cx, I8, false),
        DType::I16 => narrow(cx, I16, true),
        DType::U16 => narrow(cx, I16, false),
        DType::F16 => {
            let half = narrow(cx, I16, false);
            f32_from_f16(&mut Ops { cx, wide: false }, half)
        }
        DType::BF16 => {
            let half = narrow(cx, I16, false);
            f32_from_bf16(&mut Ops { cx, wide: false }, half)
        }
        DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F6E2M3
        | DType::F6E3M2
        | DType::F4E2M1
        | DType::C64
        | DType::C128
        | DType::String => return Err(KernelError::Element(dtype)),
    })
}

/// Four neighbours, widened to 32 bits. Reads exactly their bytes.
fn load_vector(
    cx: &mut KernelCx,
    dtype: DType,
    flags: MemFlagsData,
    address: Address,
) -> Result<Value, KernelError> {
    let signed = dtype.is_signed_int();
    match dtype.size_bytes() {
        4 => Ok(load_as(cx, if dtype == DType::F32 { F32X4 } else { I32X4 }, flags, address)),
        2 => {
            let bits = load_as(cx, I64, flags, address);
            let ins = cx.builder.ins().scalar_to_vector(I64X2, bits);
            let vector = cx.builder.ins().bitcast(I16X8, little(), ins);
            let vector = widen_low(cx, vector, signed);
            let o = &mut Ops { cx, wide: true };
            Ok(match dtype {
                DType::F16 => f32_from_f16(o, vector),
                DType::BF16 => f32_from_bf16(o, vector),
                _ => vector,
            })
        }
        1 => {
            let bits = load_as(cx, I32, flags, address);
            let vector = cx.builder.ins().scalar_to_vector(I32X4, bits);
            let vector = cx.builder.ins().bitcast(I8X16, little(), vector);
            let vector = widen_low(cx, vector, signed);
            let vector = widen_low(cx, vector, signed);
            Ok(if dtype == DType::Bool { cx.builder.ins().ineg(vector) } else { vector })
        }
        _ => Err(KernelError::Element(dtype)),
    }
}

/// Elements 0, 2, 4, 6 from the vectors at 0 and at 3, which read nothing behind the last of them.
fn load_every_other(cx: &mut KernelCx, dtype: DType, flags: MemFlagsData, address: Address) -> Value {
    let ty = if dtype == DType::F32 { F32X4 } else { I32X4 };
    let low = load_as(cx, ty, flags, address);
    let base = cx.builder.ins().iadd_imm_s(address.base, address.offset as i64 + 3 * 4);
    let high = load_as(cx, ty, flags, Address { base, offset: 0 });
    let mask = [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23, 28, 29, 30, 31];
    Ops { cx, wide: true }.shuffle_bytes(low, high, mask)
}

fn widen_low(cx: &mut KernelCx, vector: Value, signed: bool) -> Value {
    let ins = cx.builder.ins();
    if signed { ins.swiden_low(vector) } else { ins.uwiden_low(vector) }
}

/// Writes a value of dtype `from`, converted to the argument's dtype.
pub(crate) fn store_value(
    cx: &mut KernelCx,
    at: &Point,
    memo: &Memo,
    store: &Store,
    from: DType,
    value: Val,
) -> Result<(), KernelError> {
    let arg = cx.arg(store.arg)?;
    if !arg.written {
        return Err(KernelError::Inconsistent(format!(
            "argument {} is written, but not declared so",
            store.arg
        )));
    }
    let place = Place { arg, access: &store.access, at, memo };
    let held = held_dtype(arg.dtype);
    match place.along()? {
        Along::Contiguous if in_lanes(held) && in_lanes(from) => {
            let vector = to_vector(cx, from, value);
            let vector = cast(&mut Ops { cx, wide: true }, from, held, vector)?;
            let address = place.address(cx, 0)?;
            store_vector(cx, arg.dtype, vector, address)
        }
        Along::Nowhere => {
            // Lanes write one after the other: the last one stays.
            let last = if at.lane.is_some() { LANES - 1 } else { 0 };
            store_lane(cx, &place, from, value, last)
        }
        Along::Contiguous | Along::EveryOther | Along::Apart => {
            (0..LANES).try_for_each(|lane| store_lane(cx, &place, from, value, lane))
        }
    }
}

fn store_lane(
    cx: &mut KernelCx,
    place: &Place,
    from: DType,
    value: Val,
    lane: usize,
) -> Result<(), KernelError> {
    let dtype = place.arg.dtype;
    let scalar = to_lane(cx, from, value, lane);
    let o = &mut Ops { cx, wide: false };
    let scalar = cast(o, from, held_dtype(dtype), scalar)?;
    let scalar = match dtype {
        DType::F16 => f16_from_f32(o, scalar),
        DType::BF16 => bf16_from_f32(o, scalar),
        _ => scalar,
    };
    let address = place.address(cx, lane)?;
    let (base, offset, ins) = (address.base, address.offset, cx.builder.ins());
    match dtype.size_bytes() {
        1 if dtype != DType::Bool => ins.istore8(plain(), scalar, base, offset),
        2 => ins.istore16(plain(), scalar, base, offset),
        _ => ins.store(plain(), scalar, base, offset),
    };
    Ok(())
}

/// Writes four neighbours from lanes of 32 bits.
fn store_vector(cx: &mut KernelCx, dtype: DType, vector: Value, address: Address) -> Result<(), KernelError> {
    let o = &mut Ops { cx, wide: true };
    let vector = match dtype {
        DType::F16 => f16_from_f32(o, vector),
        DType::BF16 => bf16_from_f32(o, vector),
        DType::Bool => o.int_from_bool(vector),
        _ => vector,
    };
    // Values are within the range of the dtype, so narrowing with saturation keeps them.
    let signed = dtype.is_signed_int();
    let builder = &mut cx.builder;
    let narrow = match dtype.size_bytes() {
        4 => vector,
        2 => {
            let half = if signed {
                builder.ins().snarrow(vector, vector)
            } else {
                builder.ins().unarrow(vector, vector)
            };
            let half = builder.ins().bitcast(I64X2, little(), half);
            builder.ins().extractlane(half, 0)
        }
        1 => {
            let half = builder.ins().snarrow(vector, vector);
            let quarter =
                if signed { builder.ins().snarrow(half, half) } else { builder.ins().unarrow(half, half) };
            let quarter = builder.ins().bitcast(I32X4, little(), quarter);
            builder.ins().extractlane(quarter, 0)
        }
        _ => return Err(KernelError::Element(dtype)),
    };
    builder.ins().store(plain(), narrow, address.base, address.offset);
    Ok(())
}

/// Moves one element, whatever its dtype.
pub(crate) fn copy_scalar(
    cx: &mut KernelCx,
    at: &Point,
    memo: &Memo,
    from: (usize, &Access),
    to: (usize, &Access),
) -> Result<(), KernelError> {
    let dtype = cx.arg(from.0)?.dtype;
    let ty = match dtype.size_bytes() {
        1 => I8,
        2 => I16,
        4 => I32,
        8 => I64,
        _ => return Err(KernelError::Element(dtype)),
    };
    copy(cx, ty, at, memo, from, to)
}

/// Moves 16 bytes of neighbours.
pub(crate) fn copy_vector(
    cx: &mut KernelCx,
    at: &Point,
    memo: &Memo,
    from: (usize, &Access),
    to: (usize, &Access),
) -> Result<(), KernelError> {
    copy(cx, I8X16, at, memo, from, to)
}

fn copy(
    cx: &mut KernelCx,
    ty: Type,
    at: &Point,
    memo: &Memo,
    from: (usize, &Access),
    to: (usize, &Access),
) -> Result<(), KernelError> {
    let (source, target) = (cx.arg(from.0)?, cx.arg(to.0)?);
    let flags = if source.written || !cx.movable_loads { plain() } else { constant() };
    let address = Place { arg: source, access: from.1, at, memo }.address(cx, 0)?;
    let value = load_as(cx, ty, flags, address);
    let address = Place { arg: target, access: to.1, at, memo }.address(cx, 0)?;
    cx.builder.ins().store(plain(), value, address.base, address.offset);
    Ok(())
}
