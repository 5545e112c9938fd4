//! Rotary embeddings.

use super::DOMAIN;
use crate::compose::Row;
use crate::compose::chain::Made;
use crate::compose::emit::{Size, working};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};

pub(super) const TABLE: &[Row] = &[(DOMAIN, "RotaryEmbedding", rotary)];

/// Which elements of heads `[batch, heads, positions, size]` are turned, by angles `[batch or 1, 1, positions, pairs]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) cos: Value,
    pub(super) sin: Value,
    /// Neighbours are a pair, instead of elements of the first and the second half.
    pub(super) interleaved: bool,
}

impl Turn {
    /// Angles of positions `[batch or 1, positions]` from tables `[position, pairs]`.
    pub(super) fn new(
        draft: &mut Draft<'_>,
        tables: [Value; 2],
        positions: Value,
        interleaved: bool,
    ) -> Result<Self, Failure> {
        let rows = Attrs::new().with("axis", Attr::Int(0));
        let mut angles = Vec::new();
        for table in tables {
            let work = working(draft.dtype_of(table));
            let table = draft.cast(table, work)?;
            let of = draft.node_with("Gather", &rows, &[table, positions])?;
            angles.push(draft.unsqueeze(of, vec![1])?);
        }
        Ok(Turn { cos: angles[0], sin: angles[1], interleaved })
    }

    /// The heads with the first elements of each turned.
    pub(super) fn of(&self, draft: &mut Draft<'_>, heads: Value) -> Made {
        let (dtype, work) = (draft.dtype_of(heads), draft.dtype_of(self.cos));
        let wide = draft.cast(heads, work)?;
        let (Some(size), Some(pairs)) = (draft.known_length(heads, 3), draft.known_length(self.cos, 3))
        else {
            return Err(Failure::unsupported("a head size or number of angles that is not known"));
        };
        let turned = pairs.saturating_mul(2);
        if turned > size {
            return Err(Failure::unsupported(format!("{pairs} angles for heads of {size} elements")));
        }
        let (first, second) = match self.interleaved {
            true => ((0, turned, 2), (1, turned, 2)),
            false => ((0, pairs, 1), (pairs, turned, 1)),
        };
        let (first, second) = (draft.slice(wide, 3, first)?, draft.slice(wide, 3, second)?);
        let (a, b) = (draft.times(first, self.cos)?, draft.times(second, self.sin)?);
        let (c, d) = (draft.times(first, self.sin)?, draft.times(second, self.cos)?);
        let (real, imaginary) = (draft.minus(a, b)?, draft.plus(c, d)?);
        let mut parts = vec![real, imaginary];
        if self.interleaved {
            let pair = [draft.unsqueeze(real, vec![4])?, draft.unsqueeze(imaginary, vec![4])?];
            let pairs = draft.concat(4, &pair)?;
            let sizes = [Size::Of(heads, 0), Size::Of(heads, 1), Size::Of(heads, 2), Size::Is(turned)];
            parts = vec![draft.reshape(pairs, &sizes)?];
        }
        if turned < size {
            parts.push(draft.slice(wide, 3, (turned, size, 1))?);
        }
        let joined = draft.joined(&parts, 3)?;
        draft.cast(joined, dtype)
    }
}

fn rotary(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[
        "interleaved",
        "is_packed_batching",
        "num_heads",
        "rotary_embedding_dim",
        "scale",
    ])?;
    draft.check_inputs(4)?;
    if draft.flag("is_packed_batching", false)? {
        return Err(Failure::unsupported("is_packed_batching = 1: sequences of several lengths in one"));
    }
    if draft.float_attr("scale", 1.0)? != 1.0 {
        return Err(Failure::unsupported("a scale other than 1, which ONNX Runtime does not apply either"));
    }
    let (x, ids) = (draft.operand(0, "input")?, draft.operand(1, "position_ids")?);
    let tables = [draft.operand(2, "cos_cache")?, draft.operand(3, "sin_cache")?];
    let pairs = draft.known_length(tables[0], 1).unwrap_or(0);
    let turned = draft.int_attr("rotary_embedding_dim", 0)?;
    if turned != 0 && turned != pairs.saturating_mul(2) {
        return Err(Failure::unsupported(format!("{turned} elements to turn with {pairs} angles")));
    }
    let flat = match draft.rank_of(x)? {
        3 => true,
        4 => false,
        rank => return Err(Failure::unsupported(format!("an input of rank {rank}; expected 3 or 4"))),
    };
    let heads = match flat {
        false => x,
        true => {
            // Without a number of heads, all elements of a head are turned.
            let apart = match draft.int_attr("num_heads", 0)? {
                0 => [Size::Of(x, 0), Size::Of(x, 1), Size::Rest, Size::Is(pairs.saturating_mul(2).max(1))],
                heads => [Size::Of(x, 0), Size::Of(x, 1), Size::Is(heads), Size::Rest],
            };
            let apart = draft.reshape(x, &apart)?;
            draft.transpose(apart, &[0, 2, 1, 3])?
        }
    };
    let positions = match draft.rank_of(ids)? {
        1 => {
            let steps = draft.positions(heads, 2)?;
            let ids = draft.cast(ids, rabot_tensor::DType::I64)?;
            let all = draft.plus(steps, ids)?;
            draft.unsqueeze(all, vec![0])?
        }
        _ => ids,
    };
    let interleaved = draft.flag("interleaved", false)?;
    let turn = Turn::new(&mut draft, tables, positions, interleaved)?;
    let mut y = turn.of(&mut draft, heads)?;
    if flat {
        y = draft.transpose(y, &[0, 2, 1, 3])?;
        y = draft.reshape(y, &[Size::Of(x, 0), Size::Of(x, 1), Size::Rest])?;
    }
    draft.finish_with(vec![Some(y)])
}
