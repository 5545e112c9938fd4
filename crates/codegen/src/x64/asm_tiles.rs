//! Instructions of the tile unit, and those that cut numbers for it.

use super::asm::{Asm, AsmError, Gpr, Mem, Zmm, zmm};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

fn tmm(number: usize) -> Register {
    Register::TMM0 + number as u32
}

fn mask(number: usize) -> Register {
    Register::K0 + number as u32
}

/// The lower 32 bits of a register.
fn low(register: Gpr) -> Register {
    Register::EAX + (register as u32 - Register::RAX as u32)
}

impl Asm {
    /// Describes the tiles.
    pub fn configure_tiles(&mut self, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with1(Code::VEX_Ldtilecfg_m512, from.operand(false))?)
    }

    /// Gives the tile unit back.
    pub fn release_tiles(&mut self) -> Result<(), AsmError> {
        self.add(Instruction::with(Code::VEX_Tilerelease))
    }

    /// `tile = 0`.
    pub fn zero_tile(&mut self, to: usize) -> Result<(), AsmError> {
        self.add(Instruction::with1(Code::VEX_Tilezero_tmm, tmm(to))?)
    }

    /// `tile = rows from memory`; the index register is the distance of rows.
    pub fn load_tile(&mut self, to: usize, from: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Tileloadd_tmm_sibmem, tmm(to), from.operand(false))?)
    }

    /// `rows in memory = tile`; the index register is the distance of rows.
    pub fn store_tile(&mut self, to: Mem, from: usize) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Tilestored_sibmem_tmm, to.operand(false), tmm(from))?)
    }

    /// `sum += a·b`, products of pairs of bf16 in f32.
    pub fn multiply_tiles(&mut self, sum: usize, a: usize, b: usize) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::VEX_Tdpbf16ps_tmm_tmm_tmm, tmm(sum), tmm(a), tmm(b))?)
    }

    /// Fetches the line of an address into the second-level cache.
    pub fn prefetch_second(&mut self, at: Mem) -> Result<(), AsmError> {
        self.add(Instruction::with1(Code::Prefetcht1_m8, at.operand(false))?)
    }

    /// `to <<= bits`.
    pub fn shift_left(&mut self, to: Gpr, bits: u32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Shl_rm64_imm8, to, bits)?)
    }

    /// Compares a register with a number; sets the flags.
    pub fn compare_number(&mut self, a: Gpr, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Cmp_rm64_imm32, a, number)?)
    }

    /// `word in memory |= number`.
    pub fn or_number_at(&mut self, to: Mem, number: i32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Or_rm64_imm32, to.operand(false), number)?)
    }

    /// `to = as many low bits as count, 32 at most`; `spare` is overwritten.
    pub fn lowest_bits(&mut self, to: Gpr, count: Gpr, spare: Gpr) -> Result<(), AsmError> {
        self.set_number(to, 32)?;
        self.compare_words(count, to)?;
        self.add(Instruction::with2(Code::Cmovl_r64_rm64, to, count)?)?;
        self.set_number(spare, -1)?;
        self.add(Instruction::with3(Code::VEX_Bzhi_r64_rm64_r64, to, spare, to)?)
    }

    /// A mask from the lower 32 bits of a register.
    pub fn word_to_mask(&mut self, to: usize, from: Register) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Kmovd_kr_r32, mask(to), from)?)
    }

    /// The lower 16 bits of a mask, into a register of 32 bits.
    pub fn mask_to_word(&mut self, to: Register, from: usize) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Kmovw_r32_kr, to, mask(from))?)
    }

    /// `to = from`, masks of 16 lanes.
    pub fn copy_mask(&mut self, to: usize, from: usize) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Kmovw_kr_km16, mask(to), mask(from))?)
    }

    /// No lanes.
    pub fn clear_mask(&mut self, to: usize) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::VEX_Kxorw_kr_kr_kr, mask(to), mask(to), mask(to))?)
    }

    /// The lanes that are not in a mask of 16.
    pub fn complement_mask(&mut self, to: usize) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::VEX_Knotw_kr_kr, mask(to), mask(to))?)
    }

    /// `to = from >> bits`, masks of 32 lanes.
    pub fn shift_mask_right(&mut self, to: usize, from: usize, bits: u32) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::VEX_Kshiftrd_kr_kr_imm8, mask(to), mask(from), bits)?)
    }

    /// A word in all lanes; `spare` is overwritten.
    pub fn broadcast_number(&mut self, to: Zmm, spare: Gpr, number: u32) -> Result<(), AsmError> {
        self.add(Instruction::with2(Code::Mov_r32_imm32, low(spare), number)?)?;
        self.add(Instruction::with2(Code::EVEX_Vpbroadcastd_zmm_k1z_r32, zmm(to), low(spare))?)
    }

    /// A word of 32 bits from memory in all lanes.
    pub fn broadcast_word(&mut self, to: Zmm, from: Mem) -> Result<(), AsmError> {
        let code = Code::EVEX_Vpbroadcastd_zmm_k1z_xmmm32;
        self.add(Instruction::with2(code, zmm(to), from.operand(false))?)
    }

    /// The lanes of a mask from `base + index`, bytes each; the mask becomes 0.
    pub fn gather(&mut self, to: Zmm, lanes: usize, base: Gpr, index: Zmm) -> Result<(), AsmError> {
        let from = MemoryOperand::with_base_index_scale(base, zmm(index), 1);
        let mut instruction = Instruction::with2(Code::EVEX_Vgatherdps_zmm_k1_vm32z, zmm(to), from)?;
        instruction.set_op_mask(mask(lanes));
        self.add(instruction)
    }

    fn three(&mut self, code: Code, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.add(Instruction::with3(code, zmm(to), zmm(a), zmm(b))?)
    }

    /// `to = a | b`, bit by bit.
    pub fn or(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vpord_zmm_k1z_zmm_zmmm512b32, to, a, b)
    }

    /// `to = a & b`, bit by bit.
    pub fn and(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32, to, a, b)
    }

    /// `to = a + b` in f32.
    pub fn sum(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, to, a, b)
    }

    /// `to = a - b` in f32.
    pub fn difference(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er, to, a, b)
    }

    /// `to = a + b`, words.
    pub fn add_words(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32, to, a, b)
    }

    /// `to = a·b` in f32.
    pub fn product(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er, to, a, b)
    }

    /// `to = a·b` of words.
    pub fn product_words(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32, to, a, b)
    }

    /// `to = max(a, b)` of unsigned words.
    pub fn largest_words(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vpmaxud_zmm_k1z_zmm_zmmm512b32, to, a, b)
    }

    /// `to = mask ? a + b : to`, words.
    pub fn add_words_where(&mut self, to: Zmm, lanes: usize, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32;
        let mut instruction = Instruction::with3(code, zmm(to), zmm(a), zmm(b))?;
        instruction.set_op_mask(mask(lanes));
        self.add(instruction)
    }

    /// `to = a·b` in f32, b one word in memory for all lanes.
    pub fn product_with(&mut self, to: Zmm, a: Zmm, b: Mem) -> Result<(), AsmError> {
        let code = Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er;
        self.add(Instruction::with3(code, zmm(to), zmm(a), b.operand(true))?)
    }

    /// `to = mask ? a - b : 0` in f32.
    pub fn difference_where(&mut self, to: Zmm, lanes: usize, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er;
        let mut instruction = Instruction::with3(code, zmm(to), zmm(a), zmm(b))?;
        instruction.set_op_mask(mask(lanes));
        instruction.set_zeroing_masking(true);
        self.add(instruction)
    }

    /// The lanes where `a < b`, unsigned words.
    pub fn compare_words_below(&mut self, to: usize, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        let code = Code::EVEX_Vpcmpud_kr_k1_zmm_zmmm512b32_imm8;
        self.add(Instruction::with4(code, mask(to), zmm(a), zmm(b), 1)?)
    }

    /// `to <<= bits`, words.
    pub fn shift_words_left(&mut self, to: Zmm, bits: u32) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, zmm(to), zmm(to), bits)?)
    }

    /// `to = from >> bits`, unsigned words.
    pub fn shift_words_right_to(&mut self, to: Zmm, from: Zmm, bits: u32) -> Result<(), AsmError> {
        self.add(Instruction::with3(Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8, zmm(to), zmm(from), bits)?)
    }

    /// `to = mask ? from : to`, half words.
    pub fn copy_halves_where(&mut self, to: Zmm, lanes: usize, from: Zmm) -> Result<(), AsmError> {
        let mut instruction = Instruction::with2(Code::EVEX_Vmovdqu16_zmm_k1z_zmmm512, zmm(to), zmm(from))?;
        instruction.set_op_mask(mask(lanes));
        self.add(instruction)
    }

    /// `to[i] = (a, b)[to[i]]`, half words.
    pub fn pick_halves(&mut self, to: Zmm, a: Zmm, b: Zmm) -> Result<(), AsmError> {
        self.three(Code::EVEX_Vpermi2w_zmm_k1z_zmm_zmmm512, to, a, b)
    }
}
