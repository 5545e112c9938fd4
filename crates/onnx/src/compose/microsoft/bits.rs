//! Products with weights of a few bits.

use super::DOMAIN;
use crate::compose::Row;
use crate::compose::chain::Made;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[(DOMAIN, "MatMulNBits", matmul_bits)];

/// What the attributes say of the weights: `rows` of `columns`, in blocks along the columns.
struct Layout {
    columns: i64,
    rows: i64,
    bits: i64,
    block: i64,
}

impl Layout {
    fn read(draft: &Draft<'_>) -> Result<Self, Failure> {
        let required = |name: &str| draft.attrs.required_int(name).map_err(crate::compose::emit::wrong);
        let layout = Layout {
            columns: required("K")?,
            rows: required("N")?,
            bits: draft.int_attr("bits", 4)?,
            block: required("block_size")?,
        };
        let Layout { columns, rows, bits, block } = layout;
        let sizes = 1..=i64::from(i32::MAX);
        if !sizes.contains(&columns)
            || !sizes.contains(&rows)
            || ![2, 4, 8].contains(&bits)
            || !(16..=1 << 16).contains(&block)
            || block.count_ones() != 1
        {
            let text = format!("{rows} by {columns} weights of {bits} bits in blocks of {block}");
            return Err(Failure::unsupported(text));
        }
        Ok(layout)
    }

    /// Blocks of a row.
    fn blocks(&self) -> i64 {
        (self.columns + self.block - 1) / self.block
    }

    /// Numbers of a few bits, the lowest bits first, one a byte: `count` of each row.
    ///
    /// **Errors**: there are not as many bytes as that takes.
    fn unpacked(&self, what: &str, packed: &Tensor, stored: i64, count: i64) -> Result<Tensor, Failure> {
        let (rows, stored, count) = (self.rows as usize, stored as usize, count as usize);
        let bytes = packed.bytes();
        let of_row = (stored * self.bits as usize).div_ceil(8);
        if packed.dtype() != DType::U8 || bytes.len() != rows * of_row {
            let (dtype, shape) = (packed.dtype(), packed.shape());
            let text = format!("{what} is {dtype}{shape:?}, expected {} bytes of u8", rows * of_row);
            return Err(Failure::unsupported(text));
        }
        let (bits, each) = (self.bits as u32, 8 / self.bits as usize);
        let mask = if bits == 8 { u8::MAX } else { (1u8 << bits) - 1 };
        let one = |row: &[u8], at: usize| (row[at / each] >> ((at % each) as u32 * bits)) & mask;
        let numbers = bytes.chunks(of_row).flat_map(|row| (0..count).map(move |at| one(row, at)));
        Ok(Tensor::from_vec(&[rows, count], numbers.collect::<Vec<u8>>()))
    }
}

fn matmul_bits(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known = ["K", "N", "accuracy_level", "bits", "block_size", "weight_prepacked"];
    draft.check_attrs(&known)?;
    draft.check_inputs(6)?;
    if draft.flag("weight_prepacked", false)? {
        return Err(Failure::unsupported("weight_prepacked = 1: a layout of a graphics card"));
    }
    let layout = Layout::read(&draft)?;
    let (a, scales) = (draft.operand(0, "A")?, draft.operand(2, "scales")?);
    let packed = draft.fact(1).and_then(|fact| fact.constant.clone());
    let packed = packed.ok_or_else(|| Failure::unsupported("weights B that are not constant"))?;
    // Every block is stored whole, though the last one may not be used to its end.
    let stored = layout.blocks() * layout.block;
    let weights = layout.unpacked("B", &packed, stored, layout.columns)?;
    let weights = draft.constant("weights", weights);
    let shape = draft.list("shape", vec![layout.rows, layout.blocks()]);
    let scales = draft.node("Reshape", &[scales, shape])?;
    let zeros = zero_points(&mut draft, &layout, shape)?;
    let wide = match (draft.input(4), draft.dtype_of(zeros) == DType::U8) {
        (None, true) => {
            let attrs = Attrs::new().with("axis", Attr::Int(1)).with("block_size", Attr::Int(layout.block));
            draft.node_with("DequantizeLinear", &attrs, &[weights, scales, zeros])?
        }
        (groups, _) => by_groups(&mut draft, &layout, weights, scales, zeros, groups)?,
    };
    let matrix = draft.transpose(wide, &[1, 0])?;
    let dtype = draft.dtype_of(a);
    let matrix = draft.cast(matrix, dtype)?;
    let mut y = draft.matmul(a, matrix)?;
    if let Some(bias) = draft.input(5) {
        y = draft.plus(y, bias)?;
    }
    draft.finish_with(vec![Some(y)])
}

/// Zero points of all blocks: u8, or floats of the dtype of the scales.
fn zero_points(draft: &mut Draft<'_>, layout: &Layout, shape: Value) -> Made {
    let Some(given) = draft.input(3) else {
        let (rows, blocks) = (layout.rows as usize, layout.blocks() as usize);
        let middle = vec![1u8 << (layout.bits - 1); rows * blocks];
        return Ok(draft.constant("zero_points", Tensor::from_vec(&[rows, blocks], middle)));
    };
    if draft.dtype_of(given) != DType::U8 {
        return draft.node("Reshape", &[given, shape]);
    }
    let packed = draft.graph.constant(given).cloned();
    let packed = packed.ok_or_else(|| Failure::unsupported("packed zero_points that are not constant"))?;
    let unpacked = layout.unpacked("zero_points", &packed, layout.blocks(), layout.blocks())?;
    Ok(draft.constant("zero_points", unpacked))
}

/// (weight − zero point) · scale, where the block of each column is a number in a list.
fn by_groups(
    draft: &mut Draft<'_>,
    layout: &Layout,
    weights: Value,
    scales: Value,
    zeros: Value,
    groups: Option<Value>,
) -> Made {
    let groups = match groups {
        Some(groups) => groups,
        None => draft.list("groups", (0..layout.columns).map(|column| column / layout.block).collect()),
    };
    let columns = Attrs::new().with("axis", Attr::Int(1));
    let dtype = draft.dtype_of(scales);
    let scales = draft.node_with("Gather", &columns, &[scales, groups])?;
    let zeros = draft.cast(zeros, dtype)?;
    let zeros = draft.node_with("Gather", &columns, &[zeros, groups])?;
    let weights = draft.cast(weights, dtype)?;
    let shifted = draft.minus(weights, zeros)?;
    draft.times(shifted, scales)
}
