//! Matrix products and convolutions, with the elementwise nodes after them as epilogue.

use super::Lowering;
use super::blocks::{WIDE, WIDE_TILES, blocks, wide_tile};
use super::exprs::{Domain, Exprs, Leaf, LoopDim};
use super::frame::Frame;
use super::tiles::Blocking;
use super::view::{View, mergeable_runs, run_size};
use crate::pack::{IN_PLACE_ROWS, PackError, PackSource, pack_f32, pack_half, scratch_bytes};
use crate::tiles::{pack_tiles_b, tile_scratch_bytes};
use crate::{
    BinaryFn, ContractKernel, Coord, Dag, Expr, ExprId, LoopKernel, Operand, ReduceFn, Reduction, Size,
    Stage, Store, Tile, Vectorize,
};
use bytes::Bytes;
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_target::Arch;
use rabot_tensor::DType;
use std::collections::{HashMap, HashSet};

/// What the nodes around a contraction are, after those that cannot join were split off.
pub(super) struct Epilogue {
    /// All nodes of the kernel, the anchor included.
    pub nodes: Vec<NodeId>,
    /// Values that the kernel writes.
    pub roots: Vec<Value>,
    /// Nodes to be planned afterwards.
    pub late: Vec<NodeId>,
}

/// A matrix product over the axes of its result.
pub(super) struct Product {
    /// The result's shape, with a row and a column as its last axes.
    pub shape: Vec<Dim>,
    /// A over the result's axes: stride 0 along the column.
    pub a: View,
    /// Stride of k in A.
    pub a_k: Dim,
    /// B over the result's axes: stride 0 along the row.
    pub b: View,
    /// Stride of k in B.
    pub b_k: Dim,
    /// Terms of the sum.
    pub k: Dim,
    /// Factor of the product.
    pub alpha: f32,
    /// Addend over the result's axes, and its factor.
    pub addend: Option<(View, f32)>,
}

/// Loop dims of a contraction's epilogue.
pub(super) struct Axes {
    /// Batch dims.
    pub batch: Vec<LoopDim>,
    /// The row, unless it is one.
    pub row: Option<LoopDim>,
    /// The column, unless it is one.
    pub column: Option<LoopDim>,
    /// Lines of columns, where views have gaps between them.
    pub line: Option<Line>,
}

/// Columns in lines: views of the epilogue have one axis more, whose stride is what a line adds to its columns.
pub(super) struct Line {
    /// Columns of a line.
    pub width: Dim,
    /// The lines.
    pub dim: LoopDim,
}

impl Axes {
    /// The domain over batch, row and column.
    pub fn domain(&self) -> Domain {
        let mut dims: Vec<(Coord, LoopDim)> = self.batch.iter().cloned().enumerate().collect();
        let row = self.batch.len();
        dims.extend(self.row.clone().map(|dim| (row, dim)));
        dims.extend(self.column.clone().map(|dim| (row + 1, dim)));
        dims.extend(self.line.as_ref().map(|line| (row + 2, line.dim.clone())));
        Domain { dims }
    }
}

impl Lowering<'_, '_, '_> {
    /// Plans a contraction with the elementwise nodes of its group; false if no kernel takes it.
    pub(super) fn lower_contraction(&mut self, group: &[NodeId], anchor: NodeId) -> bool {
        let node = self.graph.node(anchor);
        let dtype = node.outputs[0].fact.dtype();
        let float = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        let matrices = matches!(node.op, Op::MatMul(_) | Op::Gemm(_));
        if !float && !matrices {
            return false;
        }
        let epilogue = self.split_epilogue(group, anchor, float);
        let done = match &self.graph.node(anchor).op {
            Op::Conv(_) => self.lower_conv(&epilogue, anchor),
            Op::ConvTranspose(_) => self.lower_conv_transpose(&epilogue, anchor),
            _ => self.lower_matmul(&epilogue, anchor, float),
        };
        if done && !epilogue.late.is_empty() {
            self.lower_elementwise(&epilogue.late);
        }
        done
    }

    /// Plans what comes before the anchor, and finds what can follow it in the same kernel.
    pub(super) fn split_epilogue(&mut self, group: &[NodeId], anchor: NodeId, fuse: bool) -> Epilogue {
        let (before, mut after) = self.split_at(group, anchor);
        if !before.is_empty() {
            self.lower_elementwise(&before);
        }
        let shape = self.graph.fact(Value { node: anchor, slot: 0 }).shape();
        let fits = after.iter().all(|&id| {
            let fact = &self.graph.node(id).outputs[0].fact;
            fact.shape() == shape && self.has_compiled_dtypes(id)
        });
        let late = if fits && fuse { vec![] } else { std::mem::take(&mut after) };
        let mut nodes = vec![anchor];
        nodes.extend(after);
        let roots = self.roots(&nodes);
        Epilogue { nodes, roots, late }
    }

    fn lower_matmul(&mut self, epilogue: &Epilogue, anchor: NodeId, float: bool) -> bool {
        let Some(product) = self.product(anchor) else { return false };
        let Some((axes, views)) = self.product_axes(&product, epilogue) else { return false };
        if float {
            self.emit_matmul(product, axes, views, epilogue);
        } else {
            self.emit_matmul_loop(product, axes, views, epilogue);
        }
        true
    }

    /// The loop dims of a product, and views of what its epilogue reads and writes over the product's axes.
    pub(super) fn product_axes(
        &mut self,
        product: &Product,
        epilogue: &Epilogue,
    ) -> Option<(Axes, EpilogueViews)> {
        let anchor = epilogue.nodes[0];
        let output = Value { node: anchor, slot: 0 };
        let members = self.members(&epilogue.nodes[1..]);
        let result = self.graph.fact(output).shape().to_vec();
        let mut views = self.leaf_views(&members, &epilogue.roots, &HashSet::from([output]), &result);
        let mut targets: Vec<View> = epilogue.roots.iter().map(|&root| self.allocate(root)).collect();
        // Vectors of operands have a row or column of one element in the product's shape.
        for view in views.values_mut().chain(&mut targets) {
            *view = view.reshape(&product.shape)?;
        }
        let rank = product.shape.len();
        let shared_b = product.b.strides[..rank - 2].iter().all(|s| s.is(0));
        let cuts: Vec<usize> = if shared_b { vec![rank - 1] } else { vec![rank - 2, rank - 1] };
        let mut all: Vec<&View> = views.values().chain(&targets).collect();
        all.extend([&product.a, &product.b]);
        all.extend(product.addend.as_ref().map(|(view, _)| view));
        let shape = product.shape.clone();
        // The row's own stride of B is 0, which would keep it from merging with a batch that B does not have.
        let runs = mergeable_runs(&shape, &all, &cuts);
        let loop_dim = |run: &Vec<usize>| LoopDim {
            size: run_size(&shape, run),
            axis: run[run.len() - 1],
            factor: Dim::from(1),
        };
        let column = runs.iter().find(|run| run[0] == rank - 1).map(loop_dim);
        let mut leading: Vec<LoopDim> = runs.iter().filter(|run| run[0] != rank - 1).map(loop_dim).collect();
        let has_row = shared_b || leading.last().is_some_and(|dim| dim.axis == rank - 2);
        let row = if has_row { leading.pop() } else { None };
        let axes = Axes { batch: leading, row, column, line: None };
        Some((axes, EpilogueViews { views, targets }))
    }

    /// The product that a `MatMul` or `Gemm` is.
    fn product(&mut self, anchor: NodeId) -> Option<Product> {
        let inputs = self.graph.node(anchor).inputs.clone();
        let operand = |slot: usize| inputs.get(slot).copied().flatten();
        let (mut a, mut b) = (self.view(operand(0)?), self.view(operand(1)?));
        let shape = self.graph.node(anchor).outputs[0].fact.shape().to_vec();
        let (mut alpha, mut addend) = (1.0, None);
        if let Op::Gemm(op) = &self.graph.node(anchor).op {
            alpha = op.alpha;
            if op.trans_a {
                a = a.transpose(&[1, 0]);
            }
            if op.trans_b {
                b = b.transpose(&[1, 0]);
            }
            if let Some(c) = operand(2) {
                addend = Some((self.view(c).broadcast(&shape), op.beta));
            }
        }
        let product = matrix_product(a, b, shape)?;
        Some(Product { alpha, addend, ..product })
    }

    fn emit_matmul(&mut self, product: Product, axes: Axes, views: EpilogueViews, epilogue: &Epilogue) {
        let mut frame = Frame::default();
        let on_tiles = self.matmul_on_tiles(&mut frame, &product, &axes);
        let (shape, [a, b], blocking) = match on_tiles {
            Some(operands) => operands,
            None => self.matmul_on_vectors(&mut frame, &product, &axes),
        };
        let domain = axes.domain();
        let (dag, stores) = self.epilogue(&mut frame, &domain, &views, epilogue, DType::F32, |exprs, acc| {
            let mut value = acc;
            if product.alpha != 1.0 {
                let alpha = exprs.dag.constant(DType::F32, product.alpha as f64);
                value = exprs.dag.binary(BinaryFn::Mul, value, alpha);
            }
            if let Some((view, beta)) = &product.addend {
                let mut addend = exprs.load(view);
                if *beta != 1.0 {
                    let beta = exprs.dag.constant(DType::F32, *beta as f64);
                    addend = exprs.dag.binary(BinaryFn::Mul, addend, beta);
                }
                value = exprs.dag.binary(BinaryFn::Add, value, addend);
            }
            value
        });
        self.call_contraction(frame, shape, a, b, DType::F32, dag, stores, blocking, epilogue);
    }

    /// Operands of a product that the tile unit takes, if it is the faster way.
    fn matmul_on_tiles(
        &mut self,
        frame: &mut Frame,
        product: &Product,
        axes: &Axes,
    ) -> Option<(Extents, [Operand; 2], Blocking)> {
        let shared = axes.batch.iter().all(|d| product.b.strides[d.axis].is(0));
        let is_constant = shared && self.constant_of(&product.b).is_some();
        let blocking = self.matmul_tiles(product, axes, is_constant)?;
        let packed = match is_constant {
            true => Some(self.pack_matrix(axes, product, DType::F32, pack_tiles_b)?),
            false => None,
        };
        let (shape, operands) = self.operands(frame, product, axes, packed, [0, 0]);
        Some((shape, operands, blocking))
    }

    fn matmul_on_vectors(
        &mut self,
        frame: &mut Frame,
        product: &Product,
        axes: &Axes,
    ) -> (Extents, [Operand; 2], Blocking) {
        let columns = axes.column.as_ref().map_or(Some(1), |dim| dim.size.as_usize());
        let width = self.micro_tile(DType::F32, columns).nr;
        // Few rows take as long as reading B does, so it is read as it is. Many would widen it again and again.
        let few = axes.row.as_ref().is_none_or(|dim| dim.size.as_usize().is_some_and(|m| m <= IN_PLACE_ROWS));
        let dtype = product.b.dtype;
        let half = (few && dtype != DType::F32)
            .then(|| self.pack_matrix(axes, product, dtype, |source| pack_half(source, width)));
        let packed = half
            .flatten()
            .or_else(|| self.pack_matrix(axes, product, DType::F32, |source| pack_f32(source, width)));
        self.matrices(frame, product, axes, packed, DType::F32, [0, 0])
    }

    /// Extents, operands and blocks of a product; B is `packed` if that is given. `zero_points` are those of A and B.
    pub(super) fn matrices(
        &self,
        frame: &mut Frame,
        product: &Product,
        axes: &Axes,
        packed: Option<View>,
        accumulator: DType,
        zero_points: [i32; 2],
    ) -> (Extents, [Operand; 2], Blocking) {
        let is_packed = packed.is_some();
        let (extents, operands) = self.operands(frame, product, axes, packed, zero_points);
        let (m, n, k) = (&extents.m, &extents.n, &extents.k);
        let tile = match m.as_usize() {
            Some(rows) => self.tile_for(rows, n.as_usize(), accumulator),
            None => self.micro_tile(accumulator, n.as_usize()),
        };
        let tile = blocks(tile, m, n, k, &extents.batch.iter().product(), is_packed);
        (extents, operands, Blocking { tile, tiles: None })
    }

    /// Extents and operands of a product; B is `packed` if that is given.
    fn operands(
        &self,
        frame: &mut Frame,
        product: &Product,
        axes: &Axes,
        packed: Option<View>,
        zero_points: [i32; 2],
    ) -> (Extents, [Operand; 2]) {
        let size = |dim: &Option<LoopDim>| dim.as_ref().map_or(Dim::from(1), |d| d.size.clone());
        let (m, n, k) = (size(&axes.row), size(&axes.column), product.k.clone());
        let a = strided(frame, &product.a, axes, &axes.row, &product.a_k, zero_points[0]);
        let batch: Vec<Dim> = axes.batch.iter().map(|d| d.size.clone()).collect();
        let b = match packed {
            Some(view) => {
                let arg = frame.arg(&view, false);
                Operand::Packed { arg, batch: vec![Size::Const(0); axes.batch.len()] }
            }
            None => strided(frame, &product.b, axes, &axes.column, &product.b_k, zero_points[1]),
        };
        (Extents { batch, m, n, line: None, k, image: vec![] }, [a, b])
    }

    /// A matrix product of a dtype that has no micro-kernel: a reduction in a loop nest.
    fn emit_matmul_loop(&mut self, product: Product, axes: Axes, views: EpilogueViews, epilogue: &Epilogue) {
        let mut frame = Frame::default();
        let mut dims: Vec<LoopDim> = axes.batch.clone();
        dims.extend(axes.row.clone());
        dims.extend(axes.column.clone());
        let sizes: Vec<Dim> = dims.iter().map(|d| d.size.clone()).collect();
        let domain = Domain { dims: dims.into_iter().enumerate().collect() };
        let dtype = views.targets[0].dtype;
        let mut dag = Dag::default();
        let mut factors = Vec::new();
        for (view, k_stride) in [(&product.a, &product.a_k), (&product.b, &product.b_k)] {
            let mut strides = domain.strides(view);
            strides.push((sizes.len(), k_stride.clone()));
            let access = frame.access(&view.offset, &strides);
            let arg = frame.arg(view, false);
            factors.push(dag.push(Expr::Load { arg, access }, dtype));
        }
        let value = dag.binary(BinaryFn::Mul, factors[0], factors[1]);
        let inner = vec![frame.size(&product.k)];
        let reductions = vec![Reduction { function: ReduceFn::Sum, value }];
        let mut stages = vec![Stage { inner, dag, reductions, stores: vec![] }];
        let mut dag = Dag::default();
        let mut value = dag.push(Expr::Reduced(0), dtype);
        if product.alpha != 1.0 {
            let alpha = dag.constant(dtype, product.alpha as f64);
            value = dag.binary(BinaryFn::Mul, value, alpha);
        }
        if let Some((view, beta)) = &product.addend {
            let access = frame.access(&view.offset, &domain.strides(view));
            let arg = frame.arg(view, false);
            let addend = dag.push(Expr::Load { arg, access }, dtype);
            let beta = dag.constant(dtype, *beta as f64);
            let scaled = dag.binary(BinaryFn::Mul, addend, beta);
            value = dag.binary(BinaryFn::Add, value, scaled);
        }
        let target = &views.targets[0];
        let access = frame.access(&target.offset, &domain.strides(target));
        let store = Store { arg: frame.arg(target, true), access, value };
        stages.push(Stage { inner: vec![], dag, reductions: vec![], stores: vec![store] });
        let outer = frame.sizes(&sizes);
        let items = outer.len();
        let mut origin = self.origin(&epilogue.nodes, &epilogue.roots);
        origin.flops = sizes.iter().product::<Dim>() * product.k * Dim::from(2);
        let vectorize = Vectorize::Inner;
        let kernel = LoopKernel { args: frame.args.clone(), outer, items, stages, vectorize };
        self.b.call_loop(kernel, frame, sizes.iter().product(), origin);
    }

    /// B in panels, if it is a constant that all of the batch shares; `dtype` is that of the panels.
    pub(super) fn pack_matrix(
        &mut self,
        axes: &Axes,
        product: &Product,
        dtype: DType,
        pack: impl FnOnce(&PackSource<'_>) -> Result<Bytes, PackError>,
    ) -> Option<View> {
        let view = &product.b;
        if !axes.batch.iter().all(|d| view.strides[d.axis].is(0)) {
            return None;
        }
        let constant = self.constant_of(view)?;
        let (columns, stride) = match &axes.column {
            Some(dim) => (dim.size.as_usize()?, view.strides[dim.axis].as_usize()?),
            None => (1, 0),
        };
        let source = PackSource {
            bytes: &constant,
            dtype: view.dtype,
            offset: view.offset.as_usize()?,
            batch: 1,
            batch_stride: 0,
            outer: columns,
            outer_stride: stride,
            k: product.k.as_usize()?,
            k_stride: product.b_k.as_usize()?,
        };
        let bytes = self.b.pack(|| pack(&source)).ok()?;
        rabot_mmap::release(&constant);
        Some(self.packed_view(bytes, dtype))
    }

    /// A buffer of packed data as a view.
    pub(super) fn packed_view(&mut self, bytes: Bytes, dtype: DType) -> View {
        let elements = Dim::from(bytes.len() / dtype.size_bytes());
        let buffer = self.b.packed(bytes, dtype);
        View::dense(buffer, dtype, &[elements])
    }

    /// The bytes that a view looks at, if they are constant.
    pub(super) fn constant_of(&self, view: &View) -> Option<Bytes> {
        match self.b.plan.buffers[view.buffer].storage {
            crate::Storage::Constant(index) => Some(self.b.plan.constants[index].bytes.clone()),
            _ => None,
        }
    }

    /// The micro-kernel that fits the target's registers, for so many columns if that is known.
    pub(super) fn micro_tile(&self, accumulator: DType, columns: Option<usize>) -> Tile {
        // Vector accumulators, a row of B and the factors of A must fit into the registers: 16 on x86, where an
        // accumulator a row lets each factor be broadcast on its way from memory (measured on x86-64-v3: 12 × 4
        // gives 1.25 times the speed of 6 × 8); 32 on aarch64; scalars on riscv64.
        // Integers have no such way: there, wide rows of B make the most of a broadcast (1.4 times the speed).
        let (mr, nr) = match self.b.profile.arch {
            Arch::X86_64 if accumulator != DType::F32 => (4, 12),
            Arch::X86_64 if self.b.profile.vector_bits >= 512 => match columns {
                Some(few) if few <= WIDE / 2 => (12, 4),
                Some(columns) => wide_tile(columns),
                // As fast as narrow tiles are, however few columns there will be.
                None => WIDE_TILES[2],
            },
            Arch::X86_64 => (12, 4),
            Arch::Aarch64 => (8, 8),
            Arch::Riscv64 => (4, 4),
        };
        Tile { mr, nr, rows: mr, columns: nr }
    }

    /// The tile for numbers of rows and columns that are known: as many tiles as needed, as equal as can be.
    pub(super) fn tile_for(&self, rows: usize, columns: Option<usize>, accumulator: DType) -> Tile {
        let (tile, rows) = (self.micro_tile(accumulator, columns), rows.max(1));
        let mr = rows.div_ceil(rows.div_ceil(tile.mr));
        Tile { mr, rows: mr, ..tile }
    }

    /// The epilogue's DAG and stores; `start` makes the anchor's result of the accumulator.
    pub(super) fn epilogue(
        &mut self,
        frame: &mut Frame,
        domain: &Domain,
        views: &EpilogueViews,
        epilogue: &Epilogue,
        accumulator: DType,
        start: impl FnOnce(&mut Exprs<'_, '_>, ExprId) -> ExprId,
    ) -> (Dag, Vec<Store>) {
        let members = self.members(&epilogue.nodes[1..]);
        let mut exprs = Exprs {
            members: &members,
            views: &views.views,
            domain,
            frame,
            dag: Dag::default(),
            given: HashMap::new(),
        };
        let accumulator = exprs.dag.push(Expr::Accumulator, accumulator);
        let result = start(&mut exprs, accumulator);
        exprs.give(Value { node: epilogue.nodes[0], slot: 0 }, result);
        let values: Vec<ExprId> = epilogue.roots.iter().map(|&root| exprs.stored(root)).collect();
        let dag = exprs.dag;
        let mut stores = Vec::new();
        for (target, value) in views.targets.iter().zip(values) {
            let access = frame.access(&target.offset, &domain.strides(target));
            stores.push(Store { arg: frame.arg(target, true), access, value });
        }
        (dag, stores)
    }

    /// Adds the kernel to the plan.
    #[allow(clippy::too_many_arguments, reason = "the parts of one kernel, each used once")]
    pub(super) fn call_contraction(
        &mut self,
        mut frame: Frame,
        shape: Extents,
        a: Operand,
        b: Operand,
        accumulator: DType,
        epilogue_dag: Dag,
        stores: Vec<Store>,
        blocking: Blocking,
        epilogue: &Epilogue,
    ) {
        let Blocking { tile, tiles } = blocking;
        let kernel = ContractKernel {
            batch: frame.sizes(&shape.batch),
            m: frame.size(&shape.m),
            n: frame.size(&shape.n),
            line: shape.line.as_ref().map(|width| frame.size(width)),
            k: frame.size(&shape.k),
            args: frame.args.clone(),
            a,
            b,
            accumulator,
            epilogue: epilogue_dag,
            stores,
            tile,
            tiles,
            keeps_b: false,
        };
        let scratch = match tiles {
            None => scratch_bytes(&kernel, &shape.k),
            Some(tiles) => {
                let width = shape.image.last().cloned().unwrap_or_else(|| Dim::from(1));
                let bytes = tile_scratch_bytes(&kernel, tiles.pieces, &shape.k, &width);
                if tiles.least_rows > 0 { bytes.maximum(&scratch_bytes(&kernel, &shape.k)) } else { bytes }
            }
        };
        let batch: Dim = shape.batch.iter().product();
        let row_blocks = shape.m.ceil_div(&Dim::from(tile.rows));
        let column_blocks = match tiles.map_or(0, |tiles| tiles.lines) {
            0 => shape.n.ceil_div(&Dim::from(tile.columns)),
            lines => shape.image.first().unwrap_or(&Dim::from(1)).ceil_div(&Dim::from(lines)),
        };
        let mut origin = self.origin(&epilogue.nodes, &epilogue.roots);
        let results = batch.clone() * shape.m * shape.n;
        origin.flops = results * (shape.k * Dim::from(2) + Dim::from(epilogue.nodes.len() - 1));
        self.b.call_contract(kernel, frame, batch * row_blocks * column_blocks, scratch, origin);
    }
}

/// The product of two stacks of matrices by numpy's rules; `shape` is that of the result.
pub(super) fn matrix_product(mut a: View, mut b: View, mut shape: Vec<Dim>) -> Option<Product> {
    let one = Dim::from(1);
    if b.shape.len() == 1 {
        b = b.reshape(&[b.shape[0].clone(), one.clone()])?;
        shape.push(one.clone());
    }
    if a.shape.len() == 1 {
        a = a.reshape(&[one.clone(), a.shape[0].clone()])?;
        shape.insert(shape.len() - 1, one.clone());
    }
    let (a_rank, b_rank) = (a.shape.len(), b.shape.len());
    let k = a.shape[a_rank - 1].clone();
    let (a_k, b_k) = (a.strides[a_rank - 1].clone(), b.strides[b_rank - 2].clone());
    a.shape[a_rank - 1] = one.clone();
    a.strides[a_rank - 1] = Dim::from(0);
    b.shape[b_rank - 2] = one;
    b.strides[b_rank - 2] = Dim::from(0);
    let (a, b) = (a.broadcast(&shape), b.broadcast(&shape));
    Some(Product { shape, a, a_k, b, b_k, k, alpha: 1.0, addend: None })
}

/// Views of what an epilogue reads and writes, over the axes of the result.
pub(super) struct EpilogueViews {
    /// What is read.
    pub views: HashMap<Leaf, View>,
    /// What is written.
    pub targets: Vec<View>,
}

/// Extents of a contraction.
pub(super) struct Extents {
    /// Batch dims.
    pub batch: Vec<Dim>,
    /// Rows.
    pub m: Dim,
    /// Columns.
    pub n: Dim,
    /// Columns of a line, where there are lines.
    pub line: Option<Dim>,
    /// Terms of the sum.
    pub k: Dim,
    /// Spatial axes of the result of a convolution.
    pub image: Vec<Dim>,
}

/// A strided operand over the axes of a product; `outer` is the row of A or the column of B.
fn strided(
    frame: &mut Frame,
    view: &View,
    axes: &Axes,
    outer: &Option<LoopDim>,
    k: &Dim,
    zero_point: i32,
) -> Operand {
    let stride = |dim: &LoopDim| view.strides[dim.axis].clone();
    let batch: Vec<Dim> = axes.batch.iter().map(stride).collect();
    let outer = outer.as_ref().map_or(Dim::from(0), stride);
    Operand::Strided {
        arg: frame.arg(view, false),
        offset: frame.size(&view.offset),
        batch: frame.sizes(&batch),
        outer: frame.size(&outer),
        k: frame.size(k),
        zero_point,
    }
}
