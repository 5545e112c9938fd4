//! Every second word: lanes that are not neighbours in memory.
//!
//! 32 words are read as two halves, of which masks leave what is needed, and lanes are picked from both. Lanes that are
//! written are spread over two vectors, and masks leave out the words between.

use super::LANES;
use super::asm::{Asm, AsmError, Mem};
use super::lanes::{Cell, Lanes, V};
use super::nest::{AT, END, SPARE, Step, Stream, Streams, Table};
use super::registers::Store;
use rabot_kernel::{Access, Coord, Dag, Expr};
use std::collections::{HashMap, HashSet};

/// Mask registers of the first and of the second half of 32 words of which every second is read, without and with the
/// words between them.
const HALVES: [[usize; 2]; 2] = [[3, 4], [5, 6]];

/// Mask registers of the halves where every second word is written.
const SPREAD: [usize; 2] = [3, 4];

/// Mask registers that are left where there are halves.
const FEW_MASKS: usize = 2;

/// What halves code has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halves {
    /// None.
    No,
    /// Some are read.
    Read,
    /// Some are written.
    Written,
}

/// Loads, each once.
#[derive(Default)]
pub(super) struct Reader {
    loaded: HashMap<(usize, usize), V>,
    /// Places from which every second element is read: pointer and distance.
    seconds: HashSet<(usize, i64)>,
    /// Words are among them.
    has_words: bool,
}

impl Reader {
    /// Notes what a DAG reads, so many rows on and at a point; `None` if there is no code for it.
    pub fn visit(
        &mut self,
        streams: &mut Streams<'_>,
        dag: &Dag,
        rows: i64,
        point: &[(Coord, i64)],
    ) -> Option<()> {
        for node in dag.nodes() {
            if let Expr::Load { arg, access } = &node.expr
                && let (pointer, bytes, Step::Second | Step::SecondOf(_)) =
                    streams.memory(*arg, access, rows, point)?
            {
                self.seconds.insert((pointer, bytes));
            }
        }
        Some(())
    }

    /// An element of each lane.
    pub fn load(
        &mut self,
        lanes: &mut Lanes,
        streams: &mut Streams<'_>,
        (arg, access): (usize, &Access),
        rows: i64,
        point: &[(Coord, i64)],
    ) -> Option<V> {
        let (pointer, bytes, step) = streams.memory(arg, access, rows, point)?;
        self.has_words |= step == Step::Second;
        match step {
            Step::Second => return Some(self.second(lanes, streams, pointer, bytes)),
            Step::SecondOf(cell) => return self.second_byte(lanes, streams, (pointer, bytes), cell),
            _ => {}
        }
        let stream = streams.add(Stream::Memory(pointer, bytes, step));
        Some(self.once((stream, 0), || streams.load_at(lanes, stream)))
    }

    fn once(&mut self, key: (usize, usize), make: impl FnOnce() -> V) -> V {
        *self.loaded.entry(key).or_insert_with(make)
    }

    /// Every second one of the bytes from a place on, as halves of pairs. Both bytes of a pair are needed somewhere, so
    /// that nothing else is read; `None` for a byte without a neighbour.
    fn second_byte(
        &mut self,
        lanes: &mut Lanes,
        streams: &mut Streams<'_>,
        (pointer, bytes): (usize, i64),
        cell: Cell,
    ) -> Option<V> {
        let mut start = bytes;
        while self.seconds.contains(&(pointer, start - 1)) {
            start -= 1;
        }
        let is_low = (bytes - start) % 2 == 0 && self.seconds.contains(&(pointer, bytes + 1));
        if !is_low && start == bytes {
            return None;
        }
        let first = if is_low { bytes } else { bytes - 1 };
        let stream = streams.add(Stream::Memory(pointer, first, Step::NextOf(Cell::U16)));
        let pair = self.once((stream, 0), || streams.load_at(lanes, stream));
        let stream = streams.add(Stream::Memory(pointer, bytes, Step::SecondOf(cell)));
        // No mask has this number: the value itself.
        Some(self.once((stream, usize::MAX), || lanes.byte_of(pair, is_low, cell == Cell::I8)))
    }

    /// Every second one of the elements from a place on. Those between them are read at once, where they are needed.
    fn second(&mut self, lanes: &mut Lanes, streams: &mut Streams<'_>, pointer: usize, bytes: i64) -> V {
        // The run of neighbours that the place is in, from its start: an even one and the odd one behind it are a pair.
        let mut start = bytes;
        while self.seconds.contains(&(pointer, start - 4)) {
            start -= 4;
        }
        let odd = (bytes - start) / 4 % 2;
        let first = bytes - 4 * odd;
        let is_pair = self.seconds.contains(&(pointer, first + 4));
        let halves = HALVES[usize::from(is_pair)];
        let [low, high] = std::array::from_fn(|half| {
            let stream =
                Stream::Memory(pointer, first + Step::Second.vector_bytes() * half as i64, Step::Second);
            let stream = streams.add(stream);
            self.once((stream, halves[half]), || lanes.load_where(stream, halves[half]))
        });
        let table = streams.add(Stream::Table(if odd == 0 { Table::Even } else { Table::Odd }));
        let table = self.once((table, 0), || lanes.table(table));
        let stream = streams.add(Stream::Memory(pointer, bytes, Step::Second));
        // No mask has this number: the value itself.
        self.once((stream, usize::MAX), || lanes.pick(low, high, table))
    }
}

/// Stores of a value to every second word.
pub(super) fn spread(
    lanes: &mut Lanes,
    streams: &mut Streams<'_>,
    value: V,
    pointer: usize,
    bytes: i64,
) -> [Store; 2] {
    std::array::from_fn(|half| {
        let table = streams.add(Stream::Table([Table::Low, Table::High][half]));
        let table = lanes.table(table);
        let value = lanes.permute_by(table, value);
        let stream = streams.add(Stream::Memory(
            pointer,
            bytes + Step::Second.vector_bytes() * half as i64,
            Step::Second,
        ));
        Store { value, stream, mask: Some(SPREAD[half]), cell: None }
    })
}

impl Halves {
    /// What halves code with these loads and stores has; `None` where both have some, which no masks are left for.
    pub fn of(reader: &Reader, stores: &[Store]) -> Option<Halves> {
        match (reader.has_words, stores.iter().any(|store| store.mask.is_some())) {
            (false, false) => Some(Halves::No),
            (true, false) => Some(Halves::Read),
            (false, true) => Some(Halves::Written),
            (true, true) => None,
        }
    }

    /// Mask registers that are left of so many.
    pub fn masks(self, all: usize) -> usize {
        if self == Halves::No { all } else { FEW_MASKS }
    }

    /// Sets the masks for columns that are all there.
    pub fn whole(self, asm: &mut Asm) -> Result<(), AsmError> {
        match self {
            Halves::No => Ok(()),
            Halves::Read => {
                asm.set_number(SPARE, 0xffff)?;
                for mask in [HALVES[0][0], HALVES[1][0], HALVES[1][1]] {
                    asm.set_mask(mask, SPARE)?;
                }
                // The last word of the second half is not needed without those between.
                asm.set_number(SPARE, 0x7fff)?;
                asm.set_mask(HALVES[0][1], SPARE)
            }
            Halves::Written => {
                asm.set_number(SPARE, EVEN)?;
                SPREAD.into_iter().try_for_each(|mask| asm.set_mask(mask, SPARE))
            }
        }
    }

    /// Sets the masks for the columns from `AT` to `END`.
    pub fn cut(self, asm: &mut Asm, ones: Mem) -> Result<(), AsmError> {
        let lists: &[[usize; 2]] = match self {
            Halves::No => &[],
            Halves::Read => &HALVES,
            Halves::Written => &[SPREAD],
        };
        for (index, halves) in lists.iter().enumerate() {
            asm.copy_word(SPARE, END)?;
            asm.subtract_word(SPARE, AT)?;
            asm.add_word(SPARE, SPARE)?;
            asm.ones_below(SPARE, ones)?;
            if self == Halves::Written {
                asm.and_number(SPARE, EVEN)?;
            } else if index == 0 {
                asm.shift_right(SPARE, 1)?;
            }
            asm.set_mask(halves[0], SPARE)?;
            asm.shift_right(SPARE, LANES as u32)?;
            asm.set_mask(halves[1], SPARE)?;
        }
        Ok(())
    }
}

/// Every second bit.
const EVEN: i32 = 0x5555_5555;
