//! Convolutions as matrix products over patches of the image.

use super::Lowering;
use super::blocks::even_blocks;
use super::contract::{Axes, Epilogue, EpilogueViews, Extents, Line};
use super::exprs::{Exprs, Leaf, LoopDim};
use super::frame::Frame;
use super::tiles::Blocking;
use super::view::{View, mergeable_runs, run_size};
use crate::pack::{PackSource, pack_f32};
use crate::tiles::pack_tiles_a;
use crate::{BinaryFn, ExprId, Operand, Patches, Size, TILE_ROWS, TILE_TERMS, Tile};
use rabot_ir::ops::Geometry;
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::DType;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Elements of a packed block of patches: 512 KiB of f32, a part of the second-level cache.
const BLOCK_ELEMENTS: usize = 131072;
/// Items below which a convolution is cut along its channels too, so that threads can share it.
const MIN_ITEMS: usize = 4;

/// A convolution with resolved geometry.
pub(super) struct Convolution {
    /// The node.
    pub anchor: NodeId,
    /// The image.
    pub x: View,
    /// What is subtracted from its elements.
    pub zero_point: i32,
    /// Number of groups.
    pub group: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Channels of the image in one group.
    pub channels: usize,
    /// The window.
    pub geometry: Geometry,
    /// Vectors of one element for each output channel that the epilogue reads.
    pub parameters: Vec<View>,
}

impl Convolution {
    /// Terms of the sum.
    pub fn terms(&self) -> usize {
        self.channels * self.geometry.kernel.iter().product::<usize>()
    }

    /// Rows of the product in one group.
    pub fn rows(&self) -> usize {
        self.out_channels / self.group
    }
}

/// The weights of a convolution in panels, and the dtype in which they are multiplied.
pub(super) struct PackedWeights {
    /// The panels.
    pub view: View,
    /// Distance of groups in elements.
    pub group_stride: usize,
    /// `f32`, or `i32` for integers.
    pub accumulator: DType,
    /// Set where the panels are those of the tile unit.
    pub blocking: Option<Blocking>,
}

impl Lowering<'_, '_, '_> {
    /// `Conv` in floats; false if no kernel takes it.
    pub(super) fn lower_conv(&mut self, epilogue: &Epilogue, anchor: NodeId) -> bool {
        let Op::Conv(op) = &self.graph.node(anchor).op else { return false };
        let inputs = self.graph.node(anchor).inputs.clone();
        let (Some(Some(x)), Some(Some(w))) = (inputs.first().copied(), inputs.get(1).copied()) else {
            return false;
        };
        let Some((w_sizes, geometry)) = self.conv_geometry(anchor) else { return false };
        let (out_channels, channels, group) = (w_sizes[0], w_sizes[1], op.group.max(1));
        if group > 1 && channels == 1 && out_channels == group {
            self.lower_depthwise(&epilogue.nodes, anchor, &geometry);
            return true;
        }
        let w = self.view(w);
        let x = self.view(x);
        let parameters = inputs.get(2).copied().flatten().map(|bias| self.view(bias)).into_iter().collect();
        let conv =
            Convolution { anchor, x, zero_point: 0, group, out_channels, channels, geometry, parameters };
        self.emit_float_conv(conv, &w, epilogue)
    }

    /// The sizes of the weights and the geometry of a `Conv`.
    fn conv_geometry(&self, anchor: NodeId) -> Option<(Vec<usize>, Geometry)> {
        let Op::Conv(op) = &self.graph.node(anchor).op else { return None };
        let [x, w] =
            [0, 1].map(|slot| self.operand(anchor, slot).map(|value| self.graph.fact(value).shape()));
        let w_sizes: Vec<usize> = w?.iter().map(Dim::as_usize).collect::<Option<_>>()?;
        let geometry = op.window.geometry(&x?[2..], &w_sizes[2..], false).ok()?;
        Some((w_sizes, geometry))
    }

    /// The geometry of a `Conv` in floats of each channel by itself.
    pub(super) fn depthwise_geometry(&self, anchor: NodeId) -> Option<Geometry> {
        let Op::Conv(op) = &self.graph.node(anchor).op else { return None };
        let (w_sizes, geometry) = self.conv_geometry(anchor)?;
        let each = op.group > 1 && w_sizes[1] == 1 && w_sizes[0] == op.group;
        each.then_some(geometry)
    }

    /// `ConvTranspose`: a convolution of the image with zeros between its elements by the mirrored weights.
    pub(super) fn lower_conv_transpose(&mut self, epilogue: &Epilogue, anchor: NodeId) -> bool {
        let Op::ConvTranspose(op) = &self.graph.node(anchor).op else { return false };
        let inputs = self.graph.node(anchor).inputs.clone();
        let (Some(Some(x)), Some(Some(w))) = (inputs.first().copied(), inputs.get(1).copied()) else {
            return false;
        };
        let Some(weights) = self.graph.constant(w).cloned() else { return false };
        let source = self.view(x);
        let kernel = weights.shape()[2..].to_vec();
        let spatial = source.shape[2..].to_vec();
        let geometry = op.window.transposed_geometry(&spatial, &kernel, &op.output_padding, &op.output_shape);
        let Ok(geometry) = geometry else { return false };
        let result = self.graph.fact(Value { node: anchor, slot: 0 }).shape().to_vec();
        let Some(spread) = self.spread(anchor, &source, &geometry, &result) else { return false };
        let group = op.group.max(1);
        let Some(mirrored) = mirror(&weights, group) else { return false };
        let shape: Vec<Dim> = mirrored.shape().iter().map(|&d| Dim::from(d)).collect();
        let w = View::dense(self.b.constant(&mirrored), mirrored.dtype(), &shape);
        let zeros = vec![Dim::from(0); kernel.len()];
        let geometry = Geometry {
            strides: vec![1; kernel.len()],
            pads_begin: zeros.clone(),
            pads_end: zeros,
            output: result[2..].to_vec(),
            ..geometry
        };
        let parameters = inputs.get(2).copied().flatten().map(|bias| self.view(bias)).into_iter().collect();
        let (out_channels, channels) = (mirrored.shape()[0], mirrored.shape()[1]);
        let conv = Convolution {
            anchor,
            x: spread,
            zero_point: 0,
            group,
            out_channels,
            channels,
            geometry,
            parameters,
        };
        self.emit_float_conv(conv, &w, epilogue)
    }

    /// The image with `stride - 1` zeros between its elements, and as much around them as the window reaches.
    fn spread(&mut self, id: NodeId, source: &View, geometry: &Geometry, result: &[Dim]) -> Option<View> {
        let mut shape = source.shape.clone();
        let mut starts = Vec::new();
        for axis in 0..geometry.kernel.len() {
            let reach = ((geometry.kernel[axis] - 1) * geometry.dilations[axis]) as i64;
            let start = reach - geometry.pads_begin[axis].as_const()?;
            if start < 0 || geometry.pads_end[axis].as_const()? > reach {
                return None;
            }
            starts.push(start);
            shape[2 + axis] = result[2 + axis].clone() + Dim::from(reach);
        }
        let spread = |whole: &View| {
            let mut inside = whole.clone();
            for (axis, &start) in starts.iter().enumerate() {
                let (step, size) = (geometry.strides[axis] as i64, &source.shape[2 + axis]);
                inside = inside.slice(2 + axis, &Dim::from(start), step, size);
            }
            inside
        };
        let (target, inside) = self.bordered(id, &View { shape, ..source.clone() }, spread, 0.0);
        let mut origin = self.origin(&[id], &[]);
        let name: Arc<str> = format!("{} (spread)", self.graph.node(id).name).into();
        origin.forms = vec![(name.clone(), inside.form(&name))];
        origin.values = vec![name];
        self.copy(source, &inside, origin);
        Some(target)
    }

    /// The tile of a convolution, pixels being its columns.
    pub(super) fn conv_tile(&self, conv: &Convolution, accumulator: DType) -> Tile {
        let shape = self.graph.fact(Value { node: conv.anchor, slot: 0 }).shape();
        let pixels: Dim = shape.get(2..).unwrap_or(&[]).iter().product();
        self.tile_for(conv.rows(), pixels.as_usize(), accumulator)
    }

    fn emit_float_conv(&mut self, conv: Convolution, w: &View, epilogue: &Epilogue) -> bool {
        let (rows, k, mr) = (conv.rows(), conv.terms(), self.conv_tile(&conv, DType::F32).mr);
        let weights = match self.constant_of(w) {
            None if !w.is_dense() => return false,
            None => {
                PackedWeights { view: w.clone(), group_stride: 0, accumulator: DType::F32, blocking: None }
            }
            Some(bytes) => {
                // Not dense: one value for all, or a transposed constant.
                let Some(matrix) = w.reshape(&[Dim::from(conv.out_channels), Dim::from(k)]) else {
                    return false;
                };
                let strides: Option<Vec<usize>> = matrix.strides.iter().map(Dim::as_usize).collect();
                let (Some(strides), Some(offset)) = (strides, matrix.offset.as_usize()) else { return false };
                let source = PackSource {
                    bytes: &bytes,
                    dtype: w.dtype,
                    offset,
                    batch: conv.group,
                    batch_stride: rows * strides[0],
                    outer: rows,
                    outer_stride: strides[0],
                    k,
                    k_stride: strides[1],
                };
                let Some(weights) = self.pack_weights(&conv, &source, mr) else { return false };
                rabot_mmap::release(&bytes);
                weights
            }
        };
        self.emit_conv(conv, weights, epilogue, |exprs, acc, parameters| match parameters {
            [bias] => exprs.dag.binary(BinaryFn::Add, acc, *bias),
            _ => acc,
        })
    }

    /// Constant weights in panels: those of the tile unit where that is faster and can hold them.
    fn pack_weights(
        &mut self,
        conv: &Convolution,
        source: &PackSource<'_>,
        mr: usize,
    ) -> Option<PackedWeights> {
        let result = self.graph.fact(Value { node: conv.anchor, slot: 0 }).shape().to_vec();
        let image = self.conv_image(&mut Frame::default(), conv, &conv_axes(conv, &result), &result);
        if let Some(blocking) = self.conv_tiles(conv, &result, &image)
            && let Some(tiles) = blocking.tiles
        {
            let taps: usize = conv.geometry.kernel.iter().product();
            if let Ok(packed) = self.b.pack(|| pack_tiles_a(source, tiles.pieces, taps)) {
                let panels = conv.rows().div_ceil(TILE_ROWS) * taps * conv.channels.div_ceil(TILE_TERMS);
                let group_stride = panels * tiles.pieces * TILE_ROWS * TILE_TERMS;
                let view = self.packed_view(packed, DType::BF16);
                let accumulator = DType::F32;
                return Some(PackedWeights { view, group_stride, accumulator, blocking: Some(blocking) });
            }
        }
        let packed = self.b.pack(|| pack_f32(source, mr)).ok()?;
        let view = self.packed_view(packed, DType::F32);
        let group_stride = conv.rows().next_multiple_of(mr) * source.k;
        Some(PackedWeights { view, group_stride, accumulator: DType::F32, blocking: None })
    }

    /// `C[oc, pixel] = Σ W[oc, (ic, tap)] · X[(ic, tap), pixel]` for each image and group. `start` makes the anchor's
    /// result of the accumulator and the per-channel parameters.
    pub(super) fn emit_conv(
        &mut self,
        conv: Convolution,
        weights: PackedWeights,
        epilogue: &Epilogue,
        start: impl FnOnce(&mut Exprs<'_, '_>, ExprId, &[ExprId]) -> ExprId,
    ) -> bool {
        let output = Value { node: conv.anchor, slot: 0 };
        let result = self.graph.fact(output).shape().to_vec();
        let members = self.members(&epilogue.nodes[1..]);
        let mut views = self.leaf_views(&members, &epilogue.roots, &HashSet::from([output]), &result);
        let mut targets: Vec<View> = epilogue.roots.iter().map(|&root| self.allocate(root)).collect();
        let lines = image_lines(&result, views.values().chain(&targets));
        if let Lines::None = lines {
            self.merge_spatially(&mut targets, &mut views, epilogue);
        }
        let mut loads: Vec<View> = conv.parameters.iter().map(|view| view.along(1, &result)).collect();
        let pixels: Dim = result[2..].iter().product();
        let mut axes = conv_axes(&conv, &result);
        if let Lines::Split { outer, inner, width } = lines {
            for view in views.values_mut().chain(&mut targets).chain(&mut loads) {
                let line = view.strides[outer].clone() - view.strides[inner].clone() * width.clone();
                view.strides.push(line);
                view.shape.push(Dim::from(1));
            }
            let dim = LoopDim { size: Dim::from(1), axis: result.len(), factor: Dim::from(1) };
            axes.line = Some(Line { width, dim });
        }
        let mut frame = Frame::default();
        let a = self.conv_weights(&mut frame, &conv, &axes, &weights);
        let b = self.conv_image(&mut frame, &conv, &axes, &result);
        let batch: Vec<Dim> = axes.batch.iter().map(|d| d.size.clone()).collect();
        let blocking = weights.blocking.unwrap_or_else(|| {
            let tile = self.conv_tile(&conv, weights.accumulator);
            Blocking { tile: conv_blocks(tile, &conv, &pixels, &batch.iter().product()), tiles: None }
        });
        let domain = axes.domain();
        let views = EpilogueViews { views, targets };
        let accumulator = weights.accumulator;
        let (dag, stores) =
            self.epilogue(&mut frame, &domain, &views, epilogue, accumulator, |exprs, acc| {
                let parameters: Vec<ExprId> = loads.iter().map(|view| exprs.load(view)).collect();
                start(exprs, acc, &parameters)
            });
        let shape = Extents {
            batch,
            m: Dim::from(conv.rows()),
            n: pixels,
            line: axes.line.map(|line| line.width),
            k: Dim::from(conv.terms()),
            image: result[2..].to_vec(),
        };
        self.call_contraction(frame, shape, a, b, accumulator, dag, stores, blocking, epilogue);
        true
    }

    /// Makes the spatial axes of what an epilogue writes and reads walkable by one stride.
    fn merge_spatially(
        &mut self,
        targets: &mut [View],
        views: &mut HashMap<Leaf, View>,
        epilogue: &Epilogue,
    ) {
        for (target, &root) in targets.iter_mut().zip(&epilogue.roots) {
            if !is_spatially_merged(target) {
                *target = self.allocate_dense(root);
            }
        }
        for view in views.values_mut() {
            *view = self.spatially_merged(view, epilogue.nodes[0]);
        }
    }

    /// The view with its spatial axes walkable by one stride; copied where they are not.
    fn spatially_merged(&mut self, view: &View, id: NodeId) -> View {
        if is_spatially_merged(view) {
            return view.clone();
        }
        let dense = self.b.arena(view.dtype, &view.shape);
        let mut origin = self.origin(&[id], &[]);
        origin.values = vec![format!("{} (broadcast)", self.graph.node(id).name).into()];
        self.copy(view, &dense, origin);
        dense
    }

    /// The weights as matrix A: panels, or rows as they lie in memory where they are not constant.
    fn conv_weights(
        &self,
        frame: &mut Frame,
        conv: &Convolution,
        axes: &Axes,
        weights: &PackedWeights,
    ) -> Operand {
        let arg = frame.arg(&weights.view, false);
        let per_group = |stride: usize| -> Vec<Size> {
            let group = |dim: &LoopDim| if dim.axis == 1 { stride as i64 } else { 0 };
            axes.batch.iter().map(|dim| Size::Const(group(dim))).collect()
        };
        if weights.group_stride > 0 {
            return Operand::Packed { arg, batch: per_group(weights.group_stride) };
        }
        Operand::Strided {
            arg,
            offset: Size::Const(0),
            batch: per_group(conv.rows() * conv.terms()),
            outer: Size::Const(conv.terms() as i64),
            k: Size::Const(1),
            zero_point: 0,
        }
    }

    /// The image as matrix B: as it lies in memory for a 1×1 window of stride 1, else patches of it.
    fn conv_image(&self, frame: &mut Frame, conv: &Convolution, axes: &Axes, result: &[Dim]) -> Operand {
        let (x, geometry, zero_point) = (&conv.x, &conv.geometry, conv.zero_point);
        let per_batch = |dim: &LoopDim| match dim.axis {
            0 => x.strides[0].clone(),
            _ => x.strides[1].clone() * Dim::from(conv.channels),
        };
        let batch: Vec<Dim> = axes.batch.iter().map(per_batch).collect();
        let pointwise = geometry.kernel.iter().chain(&geometry.strides).all(|&v| v == 1)
            && geometry.pads_begin.iter().chain(&geometry.pads_end).all(|p| p.is(0));
        let column = (2..x.shape.len()).rev().find(|&axis| !x.shape[axis].is(1));
        let merged = is_spatially_merged(x);
        let arg = frame.arg(x, false);
        let (offset, batch) = (frame.size(&x.offset), frame.sizes(&batch));
        if pointwise && merged {
            let outer = column.map_or(Dim::from(0), |axis| x.strides[axis].clone());
            let (outer, k) = (frame.size(&outer), frame.size(&x.strides[1]));
            return Operand::Strided { arg, offset, batch, outer, k, zero_point };
        }
        Operand::Patches(Patches {
            arg,
            offset,
            batch,
            channel: frame.size(&x.strides[1]),
            input: frame.sizes(&x.shape[2..]),
            input_strides: frame.sizes(&x.strides[2..]),
            output: frame.sizes(&result[2..]),
            kernel: geometry.kernel.clone(),
            strides: geometry.strides.clone(),
            dilations: geometry.dilations.clone(),
            pads: frame.sizes(&geometry.pads_begin),
            zero_point,
        })
    }
}

/// True if one stride walks the pixels of a channel.
fn is_spatially_merged(view: &View) -> bool {
    let runs = mergeable_runs(&view.shape, &[view], &[1, 2]);
    runs.iter().filter(|run| run[0] >= 2).count() <= 1
}

/// How views walk the pixels of a channel.
enum Lines {
    /// Each with one stride.
    One,
    /// Each with one stride in lines of `width` pixels, the last of whose axes is `inner`, and one from line to line,
    /// that of axis `outer`.
    Split { outer: usize, inner: usize, width: Dim },
    /// Neither.
    None,
}

fn image_lines<'v>(shape: &[Dim], views: impl Iterator<Item = &'v View>) -> Lines {
    let views: Vec<&View> = views.collect();
    let runs = mergeable_runs(shape, &views, &[1, 2]);
    let runs: Vec<&Vec<usize>> = runs.iter().filter(|run| run[0] >= 2).collect();
    match runs[..] {
        [] | [_] => Lines::One,
        [outer, inner] => Lines::Split {
            outer: outer[outer.len() - 1],
            inner: inner[inner.len() - 1],
            width: run_size(shape, inner),
        },
        _ => Lines::None,
    }
}

/// Images and groups are the batch, channels the row, pixels the column.
fn conv_axes(conv: &Convolution, result: &[Dim]) -> Axes {
    let rows = conv.rows();
    let mut batch = Vec::new();
    if !result[0].is(1) {
        batch.push(LoopDim { size: result[0].clone(), axis: 0, factor: Dim::from(1) });
    }
    if conv.group > 1 {
        batch.push(LoopDim { size: Dim::from(conv.group), axis: 1, factor: Dim::from(rows) });
    }
    let row = Some(LoopDim { size: Dim::from(rows), axis: 1, factor: Dim::from(1) });
    let last = (2..result.len()).rev().find(|&axis| !result[axis].is(1));
    let pixels = result[2..].iter().product();
    let column = last.map(|axis| LoopDim { size: pixels, axis, factor: Dim::from(1) });
    Axes { batch, row, column, line: None }
}

/// Blocks of a convolution: as many pixels as a block of patches may hold; all channels at once, so that patches are
/// packed once, unless there would be too few items to share.
fn conv_blocks(tile: Tile, conv: &Convolution, pixels: &Dim, batch: &Dim) -> Tile {
    let (rows, k) = (conv.rows(), conv.terms().max(1));
    let columns = even_blocks(pixels, (BLOCK_ELEMENTS / k).clamp(tile.nr, 1024), tile.nr);
    let blocks = match (pixels.as_usize(), batch.as_usize()) {
        (Some(pixels), Some(batch)) => pixels.div_ceil(columns) * batch,
        _ => MIN_ITEMS,
    };
    let parts =
        if blocks < MIN_ITEMS && rows >= 16 * tile.mr { MIN_ITEMS.div_ceil(blocks.max(1)) } else { 1 };
    let rows = even_blocks(&Dim::from(rows), rows.div_ceil(parts), tile.mr).max(tile.mr);
    Tile { rows, columns, ..tile }
}

/// Weights `[C, M / group, taps…]` of a transposed convolution as those of a convolution, `[M, C / group, taps…]`,
/// with taps in reverse order.
fn mirror(weights: &rabot_tensor::Tensor, group: usize) -> Option<rabot_tensor::Tensor> {
    let (size, shape) = (weights.dtype().size_bytes(), weights.shape());
    let (channels, rows) = (shape[0] / group, shape[1]);
    let taps: usize = shape[2..].iter().product();
    let mut bytes = Vec::with_capacity(weights.bytes().len());
    for g in 0..group {
        for row in 0..rows {
            for channel in 0..channels {
                for tap in (0..taps).rev() {
                    let at = (((g * channels + channel) * rows + row) * taps + tap) * size;
                    bytes.extend_from_slice(weights.bytes().get(at..at + size)?);
                }
            }
        }
    }
    let mut mirrored = vec![group * rows, channels];
    mirrored.extend_from_slice(&shape[2..]);
    rabot_tensor::Tensor::from_bytes(weights.dtype(), &mirrored, bytes.into()).ok()
}
