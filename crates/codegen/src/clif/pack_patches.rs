//! Packing of image patches: convolution's right operand.
//!
//! Columns are output positions, taken four abreast; rows are the terms (channel, tap). For each tap the four
//! addresses in the first channel are found once, and all channels follow at a fixed distance. Four positions that
//! are adjacent in memory are copied as a vector, others one by one; positions outside the image read a zero.

use crate::clif::contract_build::Contraction;
use crate::clif::pack::{GROUP, Lane, Source, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use rabot_kernel::Patches;

/// A position in the image, as far as axes were looked at.
#[derive(Clone, Copy)]
struct Place {
    address: Value,
    /// True if it lies in the image (i8).
    inside: Value,
}

/// What is the same for all groups of columns.
struct Plan<'p> {
    patches: &'p Patches,
    source: Source,
    channels: Value,
    channel_bytes: Value,
    /// Bytes from the row of a tap to that of the same tap in the next channel.
    row_bytes: Value,
    /// Strides of the image, in bytes.
    strides: Vec<Value>,
    missing: Value,
}

impl Contraction<'_, '_, '_> {
    /// Packs the columns `column..column + columns` of the patches of an image into the block of B.
    pub fn pack_patches(
        &mut self,
        patches: &Patches,
        source: Source,
        image: Value,
        column: Value,
        columns: Value,
    ) {
        let nr = self.kernel.tile.nr as i64;
        let plan = self.patch_plan(patches, source);
        let position = self.output_position(patches, column);
        let zero = self.int(0);
        let panels = self.ceil_div(columns, nr);
        let padded = self.mul_int(panels, nr);
        self.for_range(zero, padded, GROUP as i64, |c, at| {
            let starts: Vec<Vec<Value>> = (0..GROUP as i64)
                .map(|lane| {
                    let start = c.window_start(patches, &position, at, lane, columns);
                    c.next_position(patches, &position);
                    start
                })
                .collect();
            let target = c.lane_of_block(at);
            let some = c.ins().icmp(IntCC::SignedLessThan, at, columns);
            c.if_else(
                some,
                |c| {
                    let row = c.variable(target);
                    let one = c.ins().iconst(I8, 1);
                    let places = [Place { address: image, inside: one }; GROUP];
                    c.taps(&plan, &starts, 0, places, row);
                },
                |c| c.pack_nothing(plan.source, target),
            );
        });
        if self.pairs() {
            self.for_range(zero, padded, nr, |c, first| {
                let offset = c.mul(first, c.common.line_bytes);
                let panel = c.add(c.common.b_block, offset);
                c.interleave(panel, nr as usize);
            });
        }
    }

    /// Where a column of the block of B is in its first row.
    pub fn lane_of_block(&mut self, column: Value) -> Value {
        let nr = self.kernel.tile.nr as i64;
        let width = self.int(nr);
        let panel = self.ins().udiv(column, width);
        let first = self.mul_int(panel, nr);
        let lane = self.ins().isub(column, first);
        let offset = self.mul(first, self.common.line_bytes);
        let panel = self.add(self.common.b_block, offset);
        let offset = self.mul_int(lane, self.packed_bytes());
        self.add(panel, offset)
    }

    /// A group of columns that are not there.
    fn pack_nothing(&mut self, source: Source, target: Value) {
        let (zero, missing) = (self.int(0), self.missing(source));
        let row_bytes = self.int(self.kernel.tile.nr as i64 * self.packed_bytes());
        let lanes = [Lane { address: missing, step: zero }; GROUP];
        let target = Target { start: target, row_bytes, rows: self.common.k };
        self.pack_lanes(source, &lanes, target);
    }

    fn patch_plan<'p>(&mut self, patches: &'p Patches, source: Source) -> Plan<'p> {
        let taps = patches.kernel.iter().product::<usize>().max(1) as i64;
        let bytes = source.bytes();
        let channel = self.size(patches.channel);
        let (k, divisor) = (self.common.k, self.int(taps));
        let channels = self.ins().udiv(k, divisor);
        let strides = patches.input_strides.iter().map(|&stride| {
            let stride = self.size(stride);
            self.mul_int(stride, bytes)
        });
        let strides = strides.collect();
        Plan {
            patches,
            source,
            channels,
            channel_bytes: self.mul_int(channel, bytes),
            row_bytes: self.int(taps * self.kernel.tile.nr as i64 * self.packed_bytes()),
            strides,
            missing: self.missing(source),
        }
    }

    /// Coordinates of an output position, in variables.
    fn output_position(&mut self, patches: &Patches, column: Value) -> Vec<Variable> {
        let mut rest = column;
        let mut position = Vec::new();
        for &extent in patches.output.iter().skip(1).rev() {
            let extent = self.size(extent);
            let quotient = self.ins().udiv(rest, extent);
            let product = self.mul(quotient, extent);
            let coord = self.ins().isub(rest, product);
            position.insert(0, self.variable(coord));
            rest = quotient;
        }
        position.insert(0, self.variable(rest));
        position
    }

    /// Moves to the next output position, row-major.
    fn next_position(&mut self, patches: &Patches, position: &[Variable]) {
        let zero = self.int(0);
        let mut carry = self.int(1);
        for (axis, &variable) in position.iter().enumerate().rev() {
            let coord = self.get(variable);
            let next = self.add(coord, carry);
            if axis == 0 {
                self.set(variable, next);
                return;
            }
            let extent = self.size(patches.output[axis]);
            let over = self.ins().icmp(IntCC::Equal, next, extent);
            let wrapped = self.ins().select(over, zero, next);
            self.set(variable, wrapped);
            carry = self.ins().uextend(I64, over);
        }
    }

    /// Where the window of the current output position begins, per axis; far outside for columns that are not there.
    fn window_start(
        &mut self,
        patches: &Patches,
        position: &[Variable],
        at: Value,
        lane: i64,
        columns: Value,
    ) -> Vec<Value> {
        let number = self.add_int(at, lane);
        let exists = self.ins().icmp(IntCC::SignedLessThan, number, columns);
        let nowhere = self.int(i64::MIN / 4);
        let mut starts = Vec::new();
        for (axis, &variable) in position.iter().enumerate() {
            let coord = self.get(variable);
            let coord = self.mul_int(coord, patches.strides[axis] as i64);
            let pad = self.size(patches.pads[axis]);
            let start = self.ins().isub(coord, pad);
            starts.push(if axis == 0 { self.ins().select(exists, start, nowhere) } else { start });
        }
        starts
    }

    /// Loops over the taps of the axes from `axis` on; `row` is the address of the row to write next.
    fn taps(
        &mut self,
        plan: &Plan,
        starts: &[Vec<Value>],
        axis: usize,
        places: [Place; GROUP],
        row: Variable,
    ) {
        let Some(&taps) = plan.patches.kernel.get(axis) else {
            self.tap(plan, places, row);
            return;
        };
        let (zero, extent) = (self.int(0), self.size(plan.patches.input[axis]));
        let dilation = plan.patches.dilations[axis] as i64;
        let end = self.int(taps as i64 * dilation);
        self.for_range(zero, end, dilation, |c, distance| {
            let mut inner = places;
            for (place, start) in inner.iter_mut().zip(starts) {
                let at = c.add(start[axis], distance);
                let inside = c.ins().icmp(IntCC::UnsignedLessThan, at, extent);
                let offset = c.mul(at, plan.strides[axis]);
                *place = Place {
                    address: c.add(place.address, offset),
                    inside: c.ins().band(place.inside, inside),
                };
            }
            c.taps(plan, starts, axis + 1, inner, row);
        });
    }

    /// One tap, all channels.
    fn tap(&mut self, plan: &Plan, places: [Place; GROUP], row: Variable) {
        let zero = self.int(0);
        let bytes = plan.source.bytes();
        let start = self.get(row);
        let target = Target { start, row_bytes: plan.row_bytes, rows: plan.channels };
        let lanes = places.map(|place| Lane {
            address: self.ins().select(place.inside, place.address, plan.missing),
            step: self.ins().select(place.inside, plan.channel_bytes, zero),
        });
        if self.cx.target.vectors {
            let mut adjacent = places[0].inside;
            for (lane, place) in (1i64..).zip(&places[1..]) {
                let expected = self.add_int(places[0].address, lane * bytes);
                let same = self.ins().icmp(IntCC::Equal, place.address, expected);
                let same = self.ins().band(same, place.inside);
                adjacent = self.ins().band(adjacent, same);
            }
            self.if_else(
                adjacent,
                |c| c.pack_adjacent(plan.source, lanes[0], target),
                |c| c.pack_lanes(plan.source, &lanes, target),
            );
        } else {
            self.pack_lanes(plan.source, &lanes, target);
        }
        let next = self.add_int(start, self.kernel.tile.nr as i64 * self.packed_bytes());
        self.set(row, next);
    }
}
