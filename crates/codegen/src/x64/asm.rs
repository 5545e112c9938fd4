//! iced-x86's assembler, by register numbers.

use super::lanes::Cell;
use super::registers::TAIL;
use iced_x86::code_asm::{CodeAssembler, CodeLabel, get_gpr64, ptr};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

/// Code that cannot be encoded: a fault of the code maker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode: {0}")]
pub(crate) struct AsmError(String);

impl AsmError {
    /// More values are alive at once than there are registers.
    pub fn registers() -> Self {
        AsmError("too many values for the registers".to_owned())
    }
}

impl From<IcedError> for AsmError {
    fn from(error: IcedError) -> Self {
        AsmError(error.to_string())
    }
}

/// A function under construction.
pub(crate) struct Asm {
    code: CodeAssembler,
}

/// A vector register, by number.
pub(crate) type Zmm = usize;

/// A general register.
pub(crate) type Gpr = Register;

/// A place in memory: base, index times a scale, and bytes from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mem {
    /// Base register.
    pub base: Gpr,
    /// Index register and its factor: 1, 2, 4 or 8.
    pub index: Option<(Gpr, u32)>,
    /// Distance in bytes.
    pub offset: i64,
}

impl Mem {
    /// `base + offset`.
    pub fn at(base: Gpr, offset: i64) -> Mem {
        Mem { base, index: None, offset }
    }

    /// `base + index·scale + offset`.
    pub fn indexed(base: Gpr, index: Gpr, scale: u32, offset: i64) -> Mem {
        Mem { base, index: Some((index, scale)), offset }
    }

    pub(super) fn operand(self, broadcast: bool) -> MemoryOperand {
        let (index, scale) = self.index.unwrap_or((Register::None, 1));
        let size = if self.offset == 0 { 0 } else { 1 };
        MemoryOperand::new(self.base, index, scale, self.offset, size, broadcast, Register::None)
    }
}

/// The vector register of a number.
pub(crate) fn zmm(number: Zmm) -> Register {
    Register::ZMM0 + number as u32
}

/// The lower half of it.
fn ymm(number: Zmm) -> Register {
    Register::YMM0 + number as u32
}

/// To the nearest number, halves to even.
const NEAREST: i32 = 0;

impl Asm {
    /// An empty function.
    ///
    /// **Errors**: none on x86-64.
    pub fn new() -> Result<Asm, AsmError> {
        Ok(Asm { code: CodeAssembler::new(64)? })
    }

    /// The bytes; they may be placed anywhere.
    ///
    /// **Errors**: a jump to a label that is not placed.
    pub fn finish(mut self) -> Result<Vec<u8>, AsmError> {
        Ok(self.code.assemble(0)?)
    }

    /// Adds an instruction.
    pub fn add(&mut self, instruction: Instruction) -> Result<(), AsmError> {
        Ok(self.code.add_instruction(instruction)?)
    }

    /// A new label.
    pub fn label(&mut self) -> CodeLabel {
        self.code.create_label()
    }

    /// Places a label here.
    pub fn place(&mut self, label: &mut CodeLabel) -> Result<(), AsmError> {
        Ok(self.code.set_label(label)?)
    }

    /// Lets the next label be at the same place as the last one.
    pub fn separate(&mut self) -> Result<(), AsmError> {
        Ok(self.code.zero_bytes()?)
    }

    /// Jumps if the last comparison or subtraction was below 0 (signed).
    pub fn jump_if_less(&mut self, label: CodeLabel) -> Result<(), AsmError> {
        Ok(self.code.jl(label)?)
    }

    /// Jumps if it was 0 or more (signed).
    pub fn jump_if_not_less(&mut self, label: CodeLabel) -> Result<(), AsmError> {
        Ok(self.code.jge(label)?)
    }

    /// Jumps if it was 0.
    pub fn jump_if_zero(&mut self, label: CodeLabel) -> Result<(), AsmError> {
        Ok(self.code.je(label)?)
    }

    /// Jumps if it was above 0 (signed).
    pub fn jump_if_greater(&mut self, label: CodeLabel) -> Result<(), AsmError> {
        Ok(self.code.jg(label)?)
    }

    /// `to = word at from`.
    pub fn load_word(&mut self, to: Gpr, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Mov_r64_rm64, to, from.operand(false))?)
    }

    /// `word at to = from`.
    pub fn store_word(&mut self, to: Mem, from: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Mov_rm64_r64, to.operand(false), from)?)
    }

    /// `to = from`.
    pub fn copy_word(&mut self, to: Gpr, from: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Mov_r64_rm64, to, from)?)
    }

    /// `to += number`; sets the flags.
    pub fn add_number(&mut self, to: Gpr, number: i64) -> Result<(), AsmError> {
        let number = i32::try_from(number).map_err(|_| AsmError(format!("{number} as 32 bits")))?;
        self.add(Instruction::with2(Code::Add_rm64_imm32, to, number)?)
    }

    /// `to += from`.
    pub fn add_word(&mut self, to: Gpr, from: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Add_r64_rm64, to, from)?)
    }

    /// A mask of 16 lanes from memory, by number.
    pub fn load_mask(&mut self, to: usize, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Kmovw_kr_km16, Register::K0 + to as u32, from.operand(false))?)
    }

    /// The lanes of a mask, from memory; the others stay as they are, or become 0.
    pub fn load_where(&mut self, to: Zmm, mask: usize, from: Mem, keep: bool) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmovups_zmm_k1z_zmmm512;
        let mut instruction = Instruction::with2(code, zmm(to), from.operand(false))?;
        instruction.set_op_mask(Register::K0 + mask as u32);
        instruction.set_zeroing_masking(!keep);
        self.add(instruction)
    }

    /// `to += word at from`.
    pub fn add_word_at(&mut self, to: Gpr, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Add_r64_rm64, to, from.operand(false))?)
    }

    /// `to = base + index·scale`.
    pub fn address(&mut self, to: Gpr, base: Gpr, index: Gpr, scale: u32) -> Result<(), AsmError> {
        let memory = MemoryOperand::with_base_index_scale(base, index, scale);
        self.add(Instruction::with2(Code::Lea_r64_m, to, memory)?)
    }

    /// Prefetches the line of an address.
    pub fn prefetch(&mut self, at: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with1(Code::Prefetcht0_m8, at.operand(false))?)
    }

    /// Ends the function.
    pub fn ret(&mut self) -> Result<(), AsmError> {
        self.add(Instruction::with(Code::VEX_Vzeroupper))?;
        self.add(Instruction::with(Code::Retnq))
    }

    /// `to = 0`.
    pub fn zero(&mut self, to: Zmm) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32, zmm(to), zmm(to), zmm(to))?)
    }

    /// `to = 16 words`.
    pub fn load(&mut self, to: Zmm, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::EVEX_Vmovups_zmm_k1z_zmmm512, zmm(to), from.operand(false))?)
    }

    /// `to = 16 elements of f16`, widened.
    pub fn load_f16(&mut self, to: Zmm, from: Mem) -> Result<(), AsmError> {
        let code = Code::EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae;
        self.add(Instruction::with2(code, zmm(to), from.operand(false))?)
    }

    /// `to = 16 elements of bf16`, widened: their bits are the upper ones of an f32.
    pub fn load_bf16(&mut self, to: Zmm, from: Mem) -> Result<(), AsmError> {
        let code = Code::EVEX_Vpmovzxwd_zmm_k1z_ymmm256;
        self.add(Instruction::with2(code, zmm(to), from.operand(false))?)?;
        self.add(Instruction::with3(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, zmm(to), zmm(to), 16)?)
    }

    /// `16 words = from`.
    pub fn store(&mut self, to: Mem, from: Zmm) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::EVEX_Vmovups_zmmm512_k1z_zmm, to.operand(false), zmm(from))?)
    }

    /// `to = one word in all lanes`.
    pub fn broadcast(&mut self, to: Zmm, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32, zmm(to), from.operand(false))?)
    }

    /// 16 words, or those of the lanes that are there and 0 in the others.
    pub fn load_lanes(&mut self, to: Zmm, from: Mem, cut: bool) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmovups_zmm_k1z_zmmm512;
        let mut instruction = Instruction::with2(code, zmm(to), from.operand(false))?;
        if cut {
            instruction.set_op_mask(TAIL);
            instruction.set_zeroing_masking(true);
        }
        self.add(instruction)
    }

    /// 16 elements of a type of memory, widened, or those of the lanes that are there.
    pub fn load_cells(&mut self, to: Zmm, from: Mem, cell: Cell, cut: bool) -> Result<(), AsmError> {
        let code = match cell {
            Cell::F16 => Code::EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae,
            Cell::BF16 | Cell::U16 => Code::EVEX_Vpmovzxwd_zmm_k1z_ymmm256,
            Cell::I16 => Code::EVEX_Vpmovsxwd_zmm_k1z_ymmm256,
            Cell::U8 => Code::EVEX_Vpmovzxbd_zmm_k1z_xmmm128,
            Cell::I8 => Code::EVEX_Vpmovsxbd_zmm_k1z_xmmm128,
            Cell::I32 => Code::EVEX_Vmovups_zmm_k1z_zmmm512,
        };
        let mut instruction = Instruction::with2(code, zmm(to), from.operand(false))?;
        if cut {
            instruction.set_op_mask(TAIL);
            instruction.set_zeroing_masking(true);
        }
        self.add(instruction)?;
        // The bits of bf16 are the upper ones of an f32.
        if cell == Cell::BF16 {
            self.shift(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, to, 16)
        } else {
            Ok(())
        }
    }

    fn shift(&mut self, code: Code, to: Zmm, bits: i32) -> Result<(), AsmError> {
        self.add(Instruction::with3(code, zmm(to), zmm(to), bits)?)
    }

    /// `to = one element of a type of memory in all lanes`, widened.
    pub fn broadcast_cell(&mut self, to: Zmm, from: Mem, cell: Cell) -> Result<(), AsmError> {
        let code = match cell {
            Cell::I32 => return self.broadcast(to, from),
            Cell::F16 => {
                let code = Code::EVEX_Vpbroadcastw_ymm_k1z_xmmm16;
                self.add(Instruction::with2(code, ymm(to), from.operand(false))?)?;
                let code = Code::EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae;
                return self.add(Instruction::with2(code, zmm(to), ymm(to))?);
            }
            Cell::BF16 | Cell::I16 | Cell::U16 => Code::EVEX_Vpbroadcastw_zmm_k1z_xmmm16,
            Cell::I8 | Cell::U8 => Code::EVEX_Vpbroadcastb_zmm_k1z_xmmm8,
        };
        self.add(Instruction::with2(code, zmm(to), from.operand(false))?)?;
        // Each word is the element several times: the uppermost one is kept.
        let bits = 32 - 8 * cell.bytes() as i32;
        self.shift(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, to, bits)?;
        match cell {
            Cell::I8 | Cell::I16 => self.shift(Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8, to, bits),
            Cell::U8 | Cell::U16 => self.shift(Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8, to, bits),
            _ => Ok(()),
        }
    }

    /// `to = the nearest f16`, as f32.
    pub fn round_f16(&mut self, to: Zmm, from: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vcvtps2ph_ymmm256_k1z_zmm_imm8_sae;
        self.add(Instruction::with3(code, ymm(to), zmm(from), NEAREST)?)?;
        self.add(Instruction::with2(Code::EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae, zmm(to), ymm(to))?)
    }

    /// Stores the nearest f16 of 16 lanes, or of those that are there.
    pub fn store_f16(&mut self, to: Mem, from: Zmm, cut: bool) -> Result<(), AsmError> {
        let code = Code::EVEX_Vcvtps2ph_ymmm256_k1z_zmm_imm8_sae;
        let mut instruction = Instruction::with3(code, to.operand(false), zmm(from), NEAREST)?;
        if cut {
            instruction.set_op_mask(TAIL);
        }
        self.add(instruction)
    }

    /// Stores the lower halves of 16 words, or of those of the lanes that are there.
    pub fn store_low_halves(&mut self, to: Mem, from: Zmm, cut: bool) -> Result<(), AsmError> {
        self.store_cut(Code::EVEX_Vpmovdw_ymmm256_k1z_zmm, to, from, cut)
    }

    /// Stores the low bytes of 16 words, or of those of the lanes that are there.
    pub fn store_low_bytes(&mut self, to: Mem, from: Zmm, cut: bool) -> Result<(), AsmError> {
        self.store_cut(Code::EVEX_Vpmovdb_xmmm128_k1z_zmm, to, from, cut)
    }

    fn store_cut(&mut self, code: Code, to: Mem, from: Zmm, cut: bool) -> Result<(), AsmError> {
        let mut instruction = Instruction::with2(code, to.operand(false), zmm(from))?;
        if cut {
            instruction.set_op_mask(TAIL);
        }
        self.add(instruction)
    }

    /// Stores 16 words, or those of the lanes that are there.
    pub fn store_lanes(&mut self, to: Mem, from: Zmm, cut: bool) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmovups_zmmm512_k1z_zmm;
        let mut instruction = Instruction::with2(code, to.operand(false), zmm(from))?;
        if cut {
            instruction.set_op_mask(TAIL);
        }
        self.add(instruction)
    }

    /// `to = from`.
    pub fn copy(&mut self, to: Zmm, from: Zmm) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512, zmm(to), zmm(from))?)
    }

    /// `to = mask ? from : 0`; the mask by number.
    pub fn copy_where(&mut self, to: Zmm, mask: usize, from: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512;
        let mut instruction = Instruction::with2(code, zmm(to), zmm(from))?;
        instruction.set_op_mask(Register::K0 + mask as u32);
        instruction.set_zeroing_masking(true);
        self.add(instruction)
    }

    /// `to = mask ? a : b`; the mask by number.
    pub fn blend(&mut self, to: Zmm, mask: usize, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vpblendmd_zmm_k1z_zmm_zmmm512b32;
        let mut instruction = Instruction::with3(code, zmm(to), zmm(b), zmm(a))?;
        instruction.set_op_mask(Register::K0 + mask as u32);
        self.add(instruction)
    }

    /// Lane `i` of `index` becomes word `index[i]` of the 32 words of `a` and `b`.
    pub fn pick(&mut self, index: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vpermi2ps_zmm_k1z_zmm_zmmm512b32;
        self.add(Instruction::with3(code, zmm(index), zmm(a), zmm(b))?)
    }

    /// `sum += a·b`, or `sum -= a·b`, rounded once.
    pub fn multiply_add_to(&mut self, negate: bool, sum: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = match negate {
            false => Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
            true => Code::EVEX_Vfnmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
        };
        self.add(Instruction::with3(code, zmm(sum), zmm(a), zmm(b))?)
    }

    /// `factor = factor·b + c`, or `c - factor·b`, rounded once.
    pub fn multiply_add_over(&mut self, negate: bool, factor: Zmm, b: Zmm, c: Zmm) -> Result<(), AsmError> {
        let code = match negate {
            false => Code::EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
            true => Code::EVEX_Vfnmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
        };
        self.add(Instruction::with3(code, zmm(factor), zmm(b), zmm(c))?)
    }

    /// The mask of the lanes that are there: those from `at` to `end`, fewer than 16, of `1 << bits` each. `ones` is a
    /// word of all ones in memory; `spare` is overwritten.
    pub fn tail(&mut self, end: Gpr, at: Gpr, bits: u32, ones: Mem, spare: Gpr) -> Result<(), AsmError> {
        self.copy_word(spare, end)?;
        self.subtract_word(spare, at)?;
        if bits > 0 {
            self.shift_right(spare, bits)?;
        }
        let spare = Register::EAX + (spare as u32 - Register::RAX as u32);
        self.add(Instruction::with3(Code::VEX_Bzhi_r32_rm32_r32, spare, ones.operand(false), spare)?)?;
        self.add(Instruction::with2(Code::VEX_Kmovw_kr_r32, TAIL, spare)?)
    }

    /// `word -= 1`, in memory; sets the flags.
    pub fn count_down(&mut self, word: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Sub_rm64_imm8, word.operand(false), 1)?)
    }

    /// `word -= number`, in memory; sets the flags.
    pub fn subtract_at(&mut self, word: Mem, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Sub_rm64_imm8, word.operand(false), number)?)
    }

    /// Compares a word in memory with a number below 128; sets the flags.
    pub fn compare_at(&mut self, word: Mem, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Cmp_rm64_imm8, word.operand(false), number)?)
    }

    /// Jumps.
    pub fn jump(&mut self, label: CodeLabel) -> Result<(), AsmError> {
        Ok(self.code.jmp(label)?)
    }

    /// `to = word at from · number`.
    pub fn multiply_word_at(&mut self, to: Gpr, from: Mem, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::Imul_r64_rm64_imm32, to, from.operand(false), number)?)
    }

    /// `to` becomes that many ones from bit 0 on, 31 at most; `ones` is a word of all ones in memory.
    pub fn ones_below(&mut self, to: Gpr, ones: Mem) -> Result<(), AsmError> {
        let to = Register::EAX + (to as u32 - Register::RAX as u32);
        self.add(Instruction::with3(Code::VEX_Bzhi_r32_rm32_r32, to, ones.operand(false), to)?)
    }

    /// Puts the low bits of `from` where `places` has ones.
    pub fn spread_bits(&mut self, to: Gpr, from: Gpr, places: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::VEX_Pdep_r64_r64_rm64, to, from, places)?)
    }

    /// A mask of 16 lanes, by number, from the low bits of a register.
    pub fn set_mask(&mut self, mask: usize, from: Gpr) -> Result<(), AsmError> {
        let from = Register::EAX + (from as u32 - Register::RAX as u32);
        self.add(Instruction::with2(Code::VEX_Kmovw_kr_r32, Register::K0 + mask as u32, from)?)
    }

    /// Stores the lanes of a mask, by number.
    pub fn store_where(&mut self, to: Mem, mask: usize, from: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmovups_zmmm512_k1z_zmm;
        let mut instruction = Instruction::with2(code, to.operand(false), zmm(from))?;
        instruction.set_op_mask(Register::K0 + mask as u32);
        self.add(instruction)
    }

    /// `to &= number`.
    pub fn and_number(&mut self, to: Gpr, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::And_rm64_imm32, to, number)?)
    }

    /// `to = from` in the lanes that are there; the others stay.
    pub fn copy_tail(&mut self, to: Zmm, from: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512;
        let mut instruction = Instruction::with2(code, zmm(to), zmm(from))?;
        instruction.set_op_mask(TAIL);
        self.add(instruction)
    }

    /// `word of 32 bits = lane 0`.
    pub fn store_one(&mut self, to: Mem, from: Zmm) -> Result<(), AsmError> {
        let from = Register::XMM0 + from as u32;
        self.add(Instruction::with2(Code::EVEX_Vmovss_m32_k1_xmm, to.operand(false), from)?)
    }

    /// Compares a word in memory with 0; sets the flags.
    pub fn compare_with_zero(&mut self, word: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Cmp_rm64_imm8, word.operand(false), 0)?)
    }

    /// Saves a register that belongs to the caller.
    pub fn push(&mut self, register: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with1(Code::Push_r64, register)?)
    }

    /// Restores it.
    pub fn pop(&mut self, register: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with1(Code::Pop_r64, register)?)
    }

    /// `to = number`.
    pub fn set_number(&mut self, to: Gpr, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Mov_rm64_imm32, to, number)?)
    }

    /// Words of 32 bits in the code.
    pub fn words(&mut self, words: &[u32]) -> Result<(), AsmError> {
        Ok(self.code.dd(words)?)
    }

    /// `to = address of a label`.
    pub fn address_of(&mut self, to: Gpr, label: CodeLabel) -> Result<(), AsmError> {
        let to = get_gpr64(to).ok_or_else(AsmError::registers)?;
        Ok(self.code.lea(to, ptr(label))?)
    }

    /// Compares two registers; sets the flags.
    pub fn compare_words(&mut self, a: Gpr, b: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Cmp_r64_rm64, a, b)?)
    }

    /// `to -= from`; sets the flags.
    pub fn subtract_word(&mut self, to: Gpr, from: Gpr) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Sub_r64_rm64, to, from)?)
    }

    /// `to >>= bits`, unsigned.
    pub fn shift_right(&mut self, to: Gpr, bits: u32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Shr_rm64_imm8, to, bits)?)
    }

    /// `sum += a·b`, rounded once.
    pub fn multiply_add(&mut self, sum: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er;
        self.add(Instruction::with3(code, zmm(sum), zmm(a), zmm(b))?)
    }

    /// `sum += a·b` with b in memory: 16 words, or one for all lanes.
    pub fn multiply_add_at(&mut self, sum: Zmm, a: Zmm, b: Mem, broadcast: bool) -> Result<(), AsmError> {
        let code = Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er;
        self.add(Instruction::with3(code, zmm(sum), zmm(a), b.operand(broadcast))?)
    }
}
