//! What a call reads and writes, as index maps, and what can be proved of two of them.

use crate::{Access, BufferId, Call, ContractKernel, Dag, Expr, KernelDesc, LoopKernel, Operand, Size};
use rabot_ir::{Atom, Dim};

/// A loop that an index depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// Number of steps.
    pub extent: Dim,
    /// Elements between two steps.
    pub stride: Dim,
}

/// The elements of one buffer that one access reaches.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// The buffer.
    pub buffer: BufferId,
    /// True if they are written.
    pub written: bool,
    /// The index map; `None` if nothing is known of it.
    pub map: Option<Map>,
}

/// An index map: `offset + Σ coordinate · stride`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Map {
    /// Constant part.
    pub offset: Dim,
    /// The dims that work items number, outermost first; all of them, also where the stride is 0.
    pub lead: Vec<Axis>,
    /// The other loops.
    pub rest: Vec<Axis>,
    /// True for a store or epilogue of a contraction: `rest` is then its row and its column.
    pub is_point: bool,
}

/// A size in a call.
pub(super) fn value(call: &Call, size: Size) -> Option<Dim> {
    match size {
        Size::Const(value) => Some(Dim::from(value)),
        Size::Param(index) => call.params.get(index).cloned(),
    }
}

/// All accesses of a call, none for a kernel of several parts. Constants are left out: nobody writes them.
pub(super) fn regions(kernel: &KernelDesc, call: &Call) -> Vec<Region> {
    let mut reader = Reader { call, regions: Vec::new() };
    match kernel {
        KernelDesc::Loop(kernel) => reader.loops(kernel),
        KernelDesc::Contract(kernel) => reader.contract(kernel),
        KernelDesc::Composite(_) => {}
    }
    reader.regions
}

/// As [`regions`], with the rows of a product among the leading dims: of its right operand, all rows read everything.
pub(super) fn row_regions(kernel: &KernelDesc, call: &Call) -> Vec<Region> {
    let mut regions = regions(kernel, call);
    if let KernelDesc::Contract(kernel) = kernel {
        // The operands come first, see `contract`.
        for (at, region) in regions.iter_mut().enumerate() {
            let is_right = at == 1;
            region.map = region.map.take().filter(|map| !is_right && !map.rest.is_empty()).map(|mut map| {
                map.lead.push(map.rest.remove(0));
                map
            });
        }
        debug_assert_eq!(regions.get(1).map(|r| r.buffer), call.args.get(kernel.b.arg()).copied());
    }
    regions
}

struct Reader<'a> {
    call: &'a Call,
    regions: Vec<Region>,
}

impl Reader<'_> {
    fn push(&mut self, arg: usize, written: bool, map: Option<Map>) {
        if let Some(&buffer) = self.call.args.get(arg) {
            self.regions.push(Region { buffer, written, map });
        }
    }

    fn map(&self, access: &Access, extents: &[Size], lead: usize, is_point: bool) -> Option<Map> {
        if !access.dynamic.is_empty() || access.strides.iter().any(|(coord, _)| *coord >= extents.len()) {
            return None;
        }
        let mut axes = Vec::with_capacity(extents.len());
        for (coord, &extent) in extents.iter().enumerate() {
            let stride = access.strides.iter().find(|(at, _)| *at == coord).map(|(_, stride)| *stride);
            let stride = value(self.call, stride.unwrap_or(Size::Const(0)))?;
            axes.push(Axis { extent: value(self.call, extent)?, stride });
        }
        let rest = axes.split_off(lead);
        let offset = access.offset.map_or(Some(Dim::from(0)), |offset| value(self.call, offset))?;
        Some(Map { offset, lead: axes, rest, is_point })
    }

    fn loads(&mut self, dag: &Dag, extents: &[Size], lead: usize, is_point: bool) {
        for node in dag.nodes() {
            if let Expr::Load { arg, access } = &node.expr {
                let map = self.map(access, extents, lead, is_point);
                self.push(*arg, false, map);
            }
        }
    }

    fn loops(&mut self, kernel: &LoopKernel) {
        for stage in &kernel.stages {
            let extents: Vec<Size> = kernel.outer.iter().chain(&stage.inner).copied().collect();
            self.loads(&stage.dag, &extents, kernel.items, false);
            for store in &stage.stores {
                let map = self.map(&store.access, &extents, kernel.items, false);
                self.push(store.arg, true, map);
            }
        }
    }

    fn contract(&mut self, kernel: &ContractKernel) {
        let lead = kernel.batch.len();
        let extents: Vec<Size> = kernel.batch.iter().copied().chain([kernel.m, kernel.n]).collect();
        self.operand(kernel, &kernel.a, kernel.m);
        self.operand(kernel, &kernel.b, kernel.n);
        self.loads(&kernel.epilogue, &extents, lead, true);
        for store in &kernel.stores {
            let map = self.map(&store.access, &extents, lead, true);
            self.push(store.arg, true, map);
        }
    }

    fn operand(&mut self, kernel: &ContractKernel, operand: &Operand, outer_extent: Size) {
        let map = match operand {
            Operand::Strided { offset, batch, outer, k, .. } => {
                let axis = |(extent, stride): (Size, Size)| {
                    let (extent, stride) = (value(self.call, extent)?, value(self.call, stride)?);
                    Some(Axis { extent, stride })
                };
                let lead = kernel.batch.iter().copied().zip(batch.iter().copied()).map(axis);
                let lead: Option<Vec<Axis>> = lead.collect();
                let rest: Option<Vec<Axis>> =
                    [(outer_extent, *outer), (kernel.k, *k)].into_iter().map(axis).collect();
                match (value(self.call, *offset), lead, rest) {
                    (Some(offset), Some(lead), Some(rest)) => {
                        Some(Map { offset, lead, rest, is_point: false })
                    }
                    _ => None,
                }
            }
            Operand::Packed { .. } | Operand::Patches(_) => None,
        };
        self.push(operand.arg(), false, map);
    }
}

/// True if a dim is at least 0 whatever the sizes of the run; symbols are sizes.
pub(super) fn is_natural(dim: &Dim) -> bool {
    let atom = |atom: &Atom| match atom {
        _ if atom.is_large() => false,
        Atom::Symbol(_) => true,
        Atom::FloorDiv(a, b) => is_natural(a) && is_natural(b),
        Atom::Max(a, b) => is_natural(a) || is_natural(b),
        Atom::Min(a, b) => is_natural(a) && is_natural(b),
    };
    dim.terms().iter().all(|(atoms, factor)| *factor >= 0 && atoms.iter().all(atom))
}

/// True if `left <= right` whatever the sizes.
fn at_most(left: &Dim, right: &Dim) -> bool {
    is_natural(&(right.clone() - left.clone()))
}

/// `dim / by` if it leaves no rest.
pub(super) fn exact(dim: &Dim, by: &Dim) -> Option<Dim> {
    if by.is(0) {
        return None;
    }
    let quotient = dim.floor_div(by);
    (quotient.clone() * by.clone() == *dim).then_some(quotient)
}

/// Indices modulo a period: where they lie within it.
struct Low {
    /// The smallest.
    first: Dim,
    /// The largest.
    last: Dim,
}

/// The part of an index that stays when multiples of `period` are left out.
fn low(offset: &Dim, axes: &[&Axis], period: Option<&Dim>) -> Option<Low> {
    let is_high = |dim: &Dim| period.is_some_and(|period| exact(dim, period).is_some());
    let mut first = if is_high(offset) { Dim::from(0) } else { offset.clone() };
    if !is_natural(&first) {
        return None;
    }
    if let (Some(offset), Some(period)) = (first.as_const(), period.and_then(Dim::as_const))
        && period > 0
    {
        first = Dim::from(offset % period);
    }
    let mut last = first.clone();
    for axis in axes {
        if axis.extent.is(1) || axis.stride.is(0) || is_high(&axis.stride) {
            continue;
        }
        if !is_natural(&axis.stride) {
            return None;
        }
        last = last + (axis.extent.clone() - Dim::from(1)) * axis.stride.clone();
    }
    Some(Low { first, last })
}

/// Strides of both that may be the period of an index, and none.
fn periods(maps: [&Map; 2]) -> Vec<Option<Dim>> {
    let mut periods = vec![None];
    for map in maps {
        for axis in map.lead.iter().chain(&map.rest) {
            let period = Some(axis.stride.clone());
            if !axis.stride.is(0) && !axis.extent.is(1) && !periods.contains(&period) {
                periods.push(period);
            }
        }
    }
    periods
}

/// True if the two never reach the same element: modulo some stride, all indices of one lie below those of the other.
pub(super) fn are_disjoint(a: &Map, b: &Map) -> bool {
    // Both begin with the first element of the buffer. So it is with nearly all, and proofs take long.
    if a.offset.is(0) && b.offset.is(0) {
        return false;
    }
    let axes = |map: &Map| map.lead.iter().chain(&map.rest).cloned().collect::<Vec<Axis>>();
    let (a_axes, b_axes) = (axes(a), axes(b));
    periods([a, b]).iter().any(|period| {
        let period = period.as_ref();
        let a = low(&a.offset, &a_axes.iter().collect::<Vec<_>>(), period);
        let b = low(&b.offset, &b_axes.iter().collect::<Vec<_>>(), period);
        let (Some(a), Some(b)) = (a, b) else { return false };
        let inside = |low: &Low| period.is_none_or(|p| at_most(&(low.last.clone() + Dim::from(1)), p));
        let below = |a: &Low, b: &Low| at_most(&(a.last.clone() + Dim::from(1)), &b.first);
        inside(&a) && inside(&b) && (below(&a, &b) || below(&b, &a))
    })
}

/// A map whose leading loops are those over `lead`; what is left of its own follows in `rest`.
pub(super) fn with_lead(map: &Map, lead: &[Dim]) -> Option<Map> {
    let (mut taken, mut rest) = (Vec::new(), Vec::new());
    let mut own = map.lead.iter().filter(|axis| !axis.extent.is(1)).cloned();
    let mut current: Option<Axis> = None;
    for extent in lead {
        let axis = match current.take() {
            Some(axis) => axis,
            None => own.next()?,
        };
        if axis.extent == *extent {
            taken.push(axis);
            continue;
        }
        let inner = exact(&axis.extent, extent)?;
        taken.push(Axis { extent: extent.clone(), stride: axis.stride.clone() * inner.clone() });
        current = Some(Axis { extent: inner, stride: axis.stride });
    }
    rest.extend(current);
    rest.extend(own);
    rest.extend(map.rest.iter().cloned());
    Some(Map { offset: map.offset.clone(), lead: taken, rest, is_point: map.is_point })
}

/// True if an element that both reach has the same leading coordinates in both: each of these can be told from the
/// index, as `(index mod period) / stride`.
pub(super) fn have_same_lead(a: &Map, b: &Map) -> bool {
    a.lead.len() == b.lead.len() && (0..a.lead.len()).all(|at| is_told(a, b, at))
}

fn is_told(a: &Map, b: &Map, at: usize) -> bool {
    let (stride, extent) = (&a.lead[at].stride, &a.lead[at].extent);
    if *stride != b.lead[at].stride || *extent != b.lead[at].extent || stride.is(0) || !is_natural(stride) {
        return false;
    }
    let span = stride.clone() * extent.clone();
    let others = |map: &Map| {
        let lead = map.lead.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, axis)| axis);
        lead.chain(&map.rest).cloned().collect::<Vec<Axis>>()
    };
    let (a_axes, b_axes) = (others(a), others(b));
    let mut candidates = vec![None, Some(span.clone())];
    candidates.extend(periods([a, b]).into_iter().filter(|p| p.as_ref().is_some_and(|p| at_most(&span, p))));
    candidates.iter().any(|period| {
        let period = period.as_ref();
        [(a, &a_axes), (b, &b_axes)].into_iter().all(|(map, axes)| {
            low(&map.offset, &axes.iter().collect::<Vec<_>>(), period)
                .is_some_and(|low| at_most(&(low.last + Dim::from(1)), stride))
        })
    })
}

/// True if both reach an element at the same row and column of equal contractions only.
pub(super) fn is_same_point(a: &Map, b: &Map) -> bool {
    a.is_point && b.is_point && a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str) -> Dim {
        Dim::symbol(name)
    }

    fn axis(extent: impl Into<Dim>, stride: impl Into<Dim>) -> Axis {
        Axis { extent: extent.into(), stride: stride.into() }
    }

    fn map(offset: impl Into<Dim>, lead: Vec<Axis>, rest: Vec<Axis>) -> Map {
        Map { offset: offset.into(), lead, rest, is_point: false }
    }

    /// The part of a cache `[b, 9, past + new, 64]` for each head from a position on.
    fn cached(from: Dim, count: Dim) -> Map {
        let head = (symbol("past") + symbol("new")) * Dim::from(64);
        let lead = vec![axis(symbol("b") * Dim::from(9), head)];
        map(from * Dim::from(64), lead, vec![axis(count, 64), axis(64, 1)])
    }

    #[test]
    fn parts_of_a_concatenation_are_disjoint() {
        let past = cached(Dim::from(0), symbol("past"));
        let new = cached(symbol("past"), symbol("new"));
        assert!(are_disjoint(&past, &new));
        assert!(!are_disjoint(&past, &cached(Dim::from(0), symbol("new"))));
        // Halves of rows that overlap in one element.
        let rows = |offset: i64, width: i64| map(offset, vec![axis(symbol("r"), 64)], vec![axis(width, 1)]);
        assert!(are_disjoint(&rows(0, 32), &rows(32, 32)));
        assert!(!are_disjoint(&rows(0, 33), &rows(32, 32)));
        // Beyond the end of the row: the next row's elements.
        assert!(!are_disjoint(&rows(0, 32), &rows(32, 33)));
    }

    #[test]
    fn leading_coordinates_are_told_from_the_index() {
        let all = cached(Dim::from(0), symbol("past") + symbol("new"));
        let new = cached(symbol("past"), symbol("new"));
        assert!(have_same_lead(&all, &new));
        // Heads interleaved in rows: `[b, s, 9, 64]` by batch and head.
        let rows = symbol("s") * Dim::from(576);
        let by_head = |offset: i64, width: i64| {
            let lead = vec![axis(symbol("b"), rows.clone()), axis(9, 64)];
            map(offset, lead, vec![axis(symbol("s"), 576), axis(width, 1)])
        };
        assert!(have_same_lead(&by_head(0, 64), &by_head(32, 32)));
        assert!(!have_same_lead(&by_head(0, 64), &by_head(32, 64)), "it reaches into the next head");
        let broadcast = map(0, vec![axis(symbol("b"), 0), axis(9, 64)], vec![axis(64, 1)]);
        assert!(!have_same_lead(&by_head(0, 64), &broadcast), "all batches read the same");
    }

    #[test]
    fn leading_dims_are_split_where_they_divide() {
        let heads = symbol("b") * Dim::from(9) * symbol("s");
        let merged = map(0, vec![axis(heads, 16)], vec![axis(16, 1)]);
        let split = with_lead(&merged, &[symbol("b") * Dim::from(9)]).unwrap();
        assert_eq!(split.lead, [axis(symbol("b") * Dim::from(9), symbol("s") * Dim::from(16))]);
        assert_eq!(split.rest, [axis(symbol("s"), 16), axis(16, 1)]);
        assert!(with_lead(&merged, &[Dim::from(7)]).is_none());
    }
}
