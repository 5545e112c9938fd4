//! Sliding windows: what convolutions and pools share.
//!
//! A [`Window`] is the attributes; [`Geometry`] is what they come to for one input: every default filled in,
//! padding chosen, output size known. Works for any number of spatial axes.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Conv.html>, `onnx__MaxPool.html`,
//! `onnx__ConvTranspose.html`.

use super::OpError;
use crate::{Attr, Attrs, Dim};

/// Geometry of a sliding window, as `Conv` and the pools have it. Lists are per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extent of the window; empty if it is to be taken from the weights.
    pub kernel_shape: Vec<usize>,
    /// Steps; empty for all 1.
    pub strides: Vec<usize>,
    /// Distance of taps; empty for all 1.
    pub dilations: Vec<usize>,
    /// Padding before each axis, then after each; empty for none. Ignored unless `auto_pad` is `NOTSET`.
    pub pads: Vec<i64>,
    /// `NOTSET`, `VALID`, `SAME_UPPER` or `SAME_LOWER`.
    pub auto_pad: AutoPad,
}

/// How padding is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoPad {
    /// By the attribute `pads`.
    NotSet,
    /// None.
    Valid,
    /// So that output = ceil(input / stride); the odd one goes to the end.
    SameUpper,
    /// As `SameUpper`; the odd one goes to the start.
    SameLower,
}

const AUTO_PADS: [(AutoPad, &str); 4] = [
    (AutoPad::NotSet, "NOTSET"),
    (AutoPad::Valid, "VALID"),
    (AutoPad::SameUpper, "SAME_UPPER"),
    (AutoPad::SameLower, "SAME_LOWER"),
];

/// A window laid over one input: all lists are per spatial axis and complete.
///
/// With `auto_pad` or `output_shape` and a symbolic input, padding is symbolic too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Number of taps.
    pub kernel: Vec<usize>,
    /// Steps.
    pub strides: Vec<usize>,
    /// Distance of taps.
    pub dilations: Vec<usize>,
    /// Padding before the input (of a transposed window: elements cut from the start of the output).
    pub pads_begin: Vec<Dim>,
    /// Padding after the input (of a transposed window: elements cut from the end of the output).
    pub pads_end: Vec<Dim>,
    /// Size of the output.
    pub output: Vec<Dim>,
}

/// Largest extent, step or padding: keeps index arithmetic on 64 bits far from overflow.
const MAX_EXTENT: i64 = i32::MAX as i64;

/// Most taps a window may have: more than any real layer, and a table of them fits in memory.
const MAX_TAPS: usize = 1 << 24;

impl Window {
    /// Names of the attributes.
    pub(super) const ATTRS: [&'static str; 5] = ["kernel_shape", "strides", "dilations", "pads", "auto_pad"];

    /// The window that attributes describe.
    ///
    /// **Errors**: an extent, step, distance or padding that is out of range, an unknown `auto_pad`.
    pub(super) fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let auto_pad = attrs.str("auto_pad", "NOTSET")?;
        let known = AUTO_PADS.iter().find(|row| row.1 == auto_pad).ok_or_else(|| OpError::Attribute {
            name: "auto_pad".to_owned(),
            value: auto_pad.clone(),
            reason: "expected NOTSET, VALID, SAME_UPPER or SAME_LOWER".to_owned(),
        })?;
        Ok(Window {
            kernel_shape: extents(attrs, "kernel_shape", 1)?,
            strides: extents(attrs, "strides", 1)?,
            dilations: extents(attrs, "dilations", 1)?,
            pads: extents(attrs, "pads", 0)?.into_iter().map(|p| p as i64).collect(),
            auto_pad: known.0,
        })
    }

    /// Adds the attributes that are not at their default.
    pub(super) fn write(&self, attrs: &mut Attrs) {
        let lists = [
            ("kernel_shape", &self.kernel_shape),
            ("strides", &self.strides),
            ("dilations", &self.dilations),
        ];
        for (name, values) in lists {
            set_extents(attrs, name, values);
        }
        if !self.pads.is_empty() {
            attrs.set("pads", Attr::Ints(self.pads.clone()));
        }
        if let Some(row) = AUTO_PADS.iter().find(|row| row.0 == self.auto_pad && row.0 != AutoPad::NotSet) {
            attrs.set("auto_pad", Attr::Str(row.1.to_owned()));
        }
    }

    /// The window over an input with these spatial dims; `kernel` is that of the weights or of the pool.
    ///
    /// With `ceil_mode` the output size is rounded up, but a window that would start in the padding at the
    /// end is dropped.
    ///
    /// **Errors**: lists of the wrong length, a kernel that is not `kernel_shape`, or an input that is known
    /// to be smaller than the window.
    pub fn geometry(&self, input: &[Dim], kernel: &[usize], ceil_mode: bool) -> Result<Geometry, OpError> {
        let mut geometry = self.complete(input, kernel)?;
        for axis in 0..input.len() {
            let extent = extent(&geometry, axis);
            let stride = Dim::from(geometry.strides[axis]);
            let (begin, end) = match self.auto_pad {
                AutoPad::NotSet => explicit_pads(&self.pads, axis, input.len()),
                AutoPad::Valid => (Dim::from(0), Dim::from(0)),
                AutoPad::SameUpper | AutoPad::SameLower => {
                    let covered = (input[axis].ceil_div(&stride) - Dim::from(1)) * stride.clone();
                    self.distribute((covered + extent.clone() - input[axis].clone()).maximum(&Dim::from(0)))
                }
            };
            let padded = input[axis].clone() + begin.clone() + end.clone();
            let output = match (self.auto_pad, ceil_mode) {
                // Windows start at multiples of the stride, before the end of the data. As rounding is
                // monotone, the smaller of both bounds may be taken before it.
                (AutoPad::NotSet, true) => {
                    let bound = input[axis].clone() + begin.clone();
                    let all = padded.clone() - extent.clone() + stride.clone();
                    all.minimum(&bound).ceil_div(&stride)
                }
                (AutoPad::NotSet | AutoPad::Valid, _) => {
                    (padded.clone() - extent.clone()).floor_div(&stride) + Dim::from(1)
                }
                (AutoPad::SameUpper | AutoPad::SameLower, _) => input[axis].ceil_div(&stride),
            };
            if output.as_const().is_some_and(|o| o < 1) {
                return Err(OpError::Shape(format!(
                    "spatial axis {axis}: a window of extent {extent} does not fit into {} ({padded} with padding)",
                    input[axis]
                )));
            }
            geometry.push(begin, end, output);
        }
        Ok(geometry)
    }

    /// The window of a transposed convolution over an input with these spatial dims.
    ///
    /// Output = stride · (input − 1) + output_padding + extent − padding, unless `output_shape` asks for
    /// another; empty lists are absent ones. Where the output asked for is larger than what the window can
    /// reach, the rest stays without contributions.
    ///
    /// **Errors**: lists of the wrong length, or an output that is known to be empty.
    pub fn transposed_geometry(
        &self,
        input: &[Dim],
        kernel: &[usize],
        output_padding: &[usize],
        output_shape: &[usize],
    ) -> Result<Geometry, OpError> {
        let mut geometry = self.complete(input, kernel)?;
        check_len("output_padding", output_padding.len(), input.len())?;
        check_len("output_shape", output_shape.len(), input.len())?;
        for axis in 0..input.len() {
            let stride = Dim::from(geometry.strides[axis]);
            let extra = Dim::from(output_padding.get(axis).copied().unwrap_or(0));
            let full =
                stride.clone() * (input[axis].clone() - Dim::from(1)) + extra + extent(&geometry, axis);
            let cut_to = |size: Dim| self.distribute((full.clone() - size).maximum(&Dim::from(0)));
            let (begin, end, output) = match (output_shape.get(axis), self.auto_pad) {
                (Some(&asked), _) => {
                    let (begin, end) = cut_to(Dim::from(asked));
                    (begin, end, Dim::from(asked))
                }
                (None, auto_pad) => {
                    let (begin, end) = match auto_pad {
                        AutoPad::NotSet => explicit_pads(&self.pads, axis, input.len()),
                        AutoPad::Valid => (Dim::from(0), Dim::from(0)),
                        AutoPad::SameUpper | AutoPad::SameLower => cut_to(input[axis].clone() * stride),
                    };
                    let output = full.clone() - begin.clone() - end.clone();
                    (begin, end, output)
                }
            };
            if output.as_const().is_some_and(|o| o < 1) {
                return Err(OpError::Shape(format!("spatial axis {axis}: output size {output}")));
            }
            geometry.push(begin, end, output);
        }
        Ok(geometry)
    }

    /// Kernel, strides and dilations with defaults filled in; no padding, no output yet.
    fn complete(&self, input: &[Dim], kernel: &[usize]) -> Result<Geometry, OpError> {
        let rank = input.len();
        if kernel.len() != rank {
            return Err(OpError::Shape(format!("kernel {kernel:?} for {rank} spatial axes {input:?}")));
        }
        if !self.kernel_shape.is_empty() && self.kernel_shape != kernel {
            return Err(OpError::Shape(format!(
                "kernel_shape is {:?}, but the weights are {kernel:?}",
                self.kernel_shape
            )));
        }
        check_len("strides", self.strides.len(), rank)?;
        check_len("dilations", self.dilations.len(), rank)?;
        check_len("pads", self.pads.len(), 2 * rank)?;
        let taps = kernel.iter().try_fold(1usize, |n, &k| n.checked_mul(k));
        if taps.is_none_or(|taps| taps == 0 || taps > MAX_TAPS) {
            return Err(OpError::Unsupported(format!("a window of {kernel:?} taps")));
        }
        let or_ones = |list: &[usize]| if list.is_empty() { vec![1; rank] } else { list.to_vec() };
        Ok(Geometry {
            kernel: kernel.to_vec(),
            strides: or_ones(&self.strides),
            dilations: or_ones(&self.dilations),
            pads_begin: Vec::with_capacity(rank),
            pads_end: Vec::with_capacity(rank),
            output: Vec::with_capacity(rank),
        })
    }

    /// Splits padding in two; with `SAME_UPPER` the odd element goes to the end, else to the start.
    fn distribute(&self, total: Dim) -> (Dim, Dim) {
        let half = total.floor_div(&Dim::from(2));
        let rest = total - half.clone();
        if self.auto_pad == AutoPad::SameUpper { (half, rest) } else { (rest, half) }
    }
}

impl Geometry {
    /// Number of taps of the whole window.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn push(&mut self, begin: Dim, end: Dim, output: Dim) {
        self.pads_begin.push(begin);
        self.pads_end.push(end);
        self.output.push(output);
    }
}

/// Number of input elements from the first to the last tap.
fn extent(geometry: &Geometry, axis: usize) -> Dim {
    Dim::from(geometry.kernel[axis] - 1) * Dim::from(geometry.dilations[axis]) + Dim::from(1)
}

fn explicit_pads(pads: &[i64], axis: usize, rank: usize) -> (Dim, Dim) {
    let pad = |at: usize| Dim::from(pads.get(at).copied().unwrap_or(0));
    (pad(axis), pad(rank + axis))
}

fn check_len(name: &str, len: usize, expected: usize) -> Result<(), OpError> {
    if len == 0 || len == expected {
        return Ok(());
    }
    Err(OpError::Attribute {
        name: name.to_owned(),
        value: format!("{len} values"),
        reason: format!("expected {expected}"),
    })
}

/// A list of sizes; empty where absent. **Errors**: a value below `min` or beyond what indices allow.
pub(super) fn extents(attrs: &Attrs, name: &str, min: i64) -> Result<Vec<usize>, OpError> {
    let values = attrs.ints(name)?.unwrap_or_default();
    if values.iter().all(|v| (min..=MAX_EXTENT).contains(v)) {
        return Ok(values.into_iter().map(|v| v as usize).collect());
    }
    Err(OpError::Attribute {
        name: name.to_owned(),
        value: format!("{values:?}"),
        reason: format!("expected values from {min} to {MAX_EXTENT}"),
    })
}

/// Sets a list of sizes unless it is empty.
pub(super) fn set_extents(attrs: &mut Attrs, name: &str, values: &[usize]) {
    if !values.is_empty() {
        attrs.set(name, Attr::Ints(values.iter().map(|&v| v as i64).collect()));
    }
}

/// Where each tap of each output position reads: offsets into one channel of the input.
pub(super) struct TapTable {
    /// `[positions, taps]`; [`TapTable::OUTSIDE`] for padding.
    offsets: Vec<usize>,
    /// Taps of a window.
    pub(super) taps: usize,
    /// Output positions of one channel.
    pub(super) positions: usize,
}

impl TapTable {
    /// The offset of a tap that reads padding: no slice has an element there.
    pub(super) const OUTSIDE: usize = usize::MAX;

    /// For a window over an input of known size.
    pub(super) fn forward(geometry: &Geometry, input: &[usize]) -> Result<Self, OpError> {
        Self::build(geometry, input, |axis, out, tap, begin| {
            let at = (out * geometry.strides[axis] + tap * geometry.dilations[axis]) as i64 - begin;
            usize::try_from(at).ok()
        })
    }

    /// For a transposed window: the input element, if any, that reaches the output through the tap.
    pub(super) fn transposed(geometry: &Geometry, input: &[usize]) -> Result<Self, OpError> {
        Self::build(geometry, input, |axis, out, tap, begin| {
            let at = out as i64 + begin - (tap * geometry.dilations[axis]) as i64;
            let stride = geometry.strides[axis] as i64;
            (at >= 0 && at % stride == 0).then_some((at / stride) as usize)
        })
    }

    fn build(
        geometry: &Geometry,
        input: &[usize],
        read: impl Fn(usize, usize, usize, i64) -> Option<usize>,
    ) -> Result<Self, OpError> {
        let unknown = || OpError::Shape(format!("window {geometry:?} is not known in numbers"));
        let mut table = TapTable { offsets: vec![0], taps: 1, positions: 1 };
        for (axis, &size) in input.iter().enumerate() {
            let output = geometry.output.get(axis).and_then(Dim::as_usize).ok_or_else(unknown)?;
            let begin = geometry.pads_begin.get(axis).and_then(Dim::as_const).ok_or_else(unknown)?;
            let kernel = geometry.kernel[axis];
            let (positions, taps) = (table.positions.saturating_mul(output), table.taps * kernel);
            let mut offsets = super::dense::filled(&[positions, taps], 0usize)?;
            for (position, row) in offsets.chunks_exact_mut(taps).enumerate() {
                let outer = &table.offsets[position / output * table.taps..][..table.taps];
                for (at, offset) in row.iter_mut().enumerate() {
                    let outer = outer[at / kernel];
                    let here = read(axis, position % output, at % kernel, begin).filter(|&i| i < size);
                    *offset = match here {
                        Some(here) if outer != Self::OUTSIDE => outer * size + here,
                        _ => Self::OUTSIDE,
                    };
                }
            }
            table = TapTable { offsets, taps, positions };
        }
        Ok(table)
    }

    /// The taps of an output position.
    pub(super) fn row(&self, position: usize) -> &[usize] {
        &self.offsets[position * self.taps..][..self.taps]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{num, sym};

    fn window(strides: &[usize], dilations: &[usize], pads: &[i64], auto_pad: AutoPad) -> Window {
        Window {
            kernel_shape: vec![],
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
            pads: pads.to_vec(),
            auto_pad,
        }
    }

    #[test]
    fn explicit_padding_and_dilation() {
        let geometry = window(&[2, 1], &[1, 3], &[1, 0, 2, 1], AutoPad::NotSet)
            .geometry(&[num(9), num(8)], &[3, 2], false)
            .unwrap();
        assert_eq!(geometry.output, [num((9 + 3 - 3) / 2 + 1), num(8 + 1 - 4 + 1)]);
        assert_eq!(geometry.pads_end, [num(2), num(1)]);
    }

    #[test]
    fn same_padding_puts_the_odd_element_where_asked() {
        for (auto_pad, begin, end) in [(AutoPad::SameUpper, 0, 1), (AutoPad::SameLower, 1, 0)] {
            let geometry = window(&[2], &[], &[], auto_pad).geometry(&[num(8)], &[3], false).unwrap();
            assert_eq!(geometry.output, [num(4)]);
            assert_eq!((&geometry.pads_begin[0], &geometry.pads_end[0]), (&num(begin), &num(end)));
        }
    }

    #[test]
    fn symbolic_same_padding_evaluates_to_the_numeric_one() {
        let window = window(&[2], &[], &[], AutoPad::SameUpper);
        let symbolic = window.geometry(&[sym("n")], &[4], false).unwrap();
        for n in 1..20 {
            let numeric = window.geometry(&[num(n)], &[4], false).unwrap();
            let at = |dim: &Dim| dim.eval(&|_| Some(n)).unwrap();
            assert_eq!(at(&symbolic.output[0]), numeric.output[0].as_const().unwrap(), "n = {n}");
            assert_eq!(at(&symbolic.pads_begin[0]), numeric.pads_begin[0].as_const().unwrap(), "n = {n}");
            assert_eq!(at(&symbolic.pads_end[0]), numeric.pads_end[0].as_const().unwrap(), "n = {n}");
        }
    }

    #[test]
    fn ceil_mode_drops_a_window_that_starts_in_the_end_padding() {
        let window = window(&[3], &[], &[1, 1], AutoPad::NotSet);
        // Windows start at 0 and 3 of 1 + 4 + 1; a third would start at 6, beyond the data.
        for (input, floor, ceil) in [(4, 2, 2), (5, 2, 2), (6, 2, 3), (7, 3, 3)] {
            assert_eq!(window.geometry(&[num(input)], &[3], false).unwrap().output, [num(floor)]);
            assert_eq!(window.geometry(&[num(input)], &[3], true).unwrap().output, [num(ceil)]);
        }
        let symbolic = window.geometry(&[sym("n")], &[3], true).unwrap();
        assert_eq!(symbolic.output[0].eval(&|_| Some(6)), Ok(3));
        assert_eq!(symbolic.output[0].eval(&|_| Some(5)), Ok(2));
    }

    #[test]
    fn a_window_larger_than_its_input_is_refused() {
        let refused = window(&[], &[4], &[], AutoPad::NotSet).geometry(&[num(8)], &[3], false);
        assert!(matches!(refused, Err(OpError::Shape(text)) if text.contains("extent 9")));
        let huge = window(&[], &[], &[], AutoPad::NotSet).geometry(
            &[sym("n"), sym("n")],
            &[1 << 13, 1 << 13],
            false,
        );
        assert!(matches!(huge, Err(OpError::Unsupported(_))));
        let length = window(&[1, 1], &[], &[], AutoPad::NotSet).geometry(&[num(8)], &[3], false);
        assert!(matches!(length, Err(OpError::Attribute { .. })));
    }

    #[test]
    fn transposed_padding_follows_from_the_output_asked_for() {
        // Full size: 2 * (4 - 1) + 3 = 9.
        let upper = window(&[2], &[], &[], AutoPad::SameUpper);
        let geometry = upper.transposed_geometry(&[num(4)], &[3], &[], &[]).unwrap();
        assert_eq!(
            (&geometry.output[0], &geometry.pads_begin[0], &geometry.pads_end[0]),
            (&num(8), &num(0), &num(1))
        );
        let plain = window(&[2], &[], &[], AutoPad::NotSet);
        let geometry = plain.transposed_geometry(&[num(4)], &[3], &[], &[6]).unwrap();
        assert_eq!(
            (&geometry.output[0], &geometry.pads_begin[0], &geometry.pads_end[0]),
            (&num(6), &num(2), &num(1))
        );
        let geometry = plain.transposed_geometry(&[sym("n")], &[3], &[1], &[]).unwrap();
        assert_eq!(geometry.output, [num(2) * sym("n") + num(2)]);
    }

    #[test]
    fn attributes_out_of_range_are_refused() {
        for (name, values) in [("strides", vec![0]), ("pads", vec![-1, 0]), ("dilations", vec![1 << 40])] {
            let attrs = Attrs::new().with(name, Attr::Ints(values));
            assert!(
                matches!(Window::from_attrs(&attrs), Err(OpError::Attribute { name: n, .. }) if n == name)
            );
        }
        let unknown = Attrs::new().with("auto_pad", Attr::Str("SAME".to_owned()));
        assert!(Window::from_attrs(&unknown).is_err());
    }
}
