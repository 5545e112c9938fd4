//! Huffman codes, and the blocks that are written with them.

use super::ZIGZAG;

/// A table of codes of up to 16 bits.
pub(super) struct Table {
    /// For each length, the first code, the number of codes, and the place of the first value.
    lengths: [(u32, u32, usize); 16],
    values: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length, and the values in order. `None` if there are more codes than fit.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let (mut code, mut place) = (0u32, 0usize);
        let mut lengths = [(0, 0, 0); 16];
        for (index, (&count, length)) in counts.iter().zip(&mut lengths).enumerate() {
            *length = (code, u32::from(count), place);
            code += u32::from(count);
            place += usize::from(count);
            if code > 2 << index {
                return None;
            }
            code <<= 1;
        }
        (place == values.len()).then(|| Table { lengths, values: values.to_vec() })
    }
}

/// Bits of a scan, highest first.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    buffer: u32,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Bits { data, buffer: 0, count: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        if self.count == 0 {
            let (&byte, rest) = self.data.split_first()?;
            // A byte of ones is followed by one of zeros; anything else is a marker.
            self.data = if byte == 0xff { rest.strip_prefix(&[0])? } else { rest };
            (self.buffer, self.count) = (byte.into(), 8);
        }
        self.count -= 1;
        Some((self.buffer >> self.count) & 1)
    }

    fn value(&mut self, table: &Table) -> Option<u8> {
        let mut code = 0;
        for &(first, count, place) in &table.lengths {
            code = (code << 1) | self.bit()?;
            if code < first + count {
                return table.values.get(place + code.checked_sub(first)? as usize).copied();
            }
        }
        None
    }

    /// A number of `size` bits, of which those with a leading 0 are negative.
    fn number(&mut self, size: u8) -> Option<i32> {
        let mut value = 0i32;
        for _ in 0..size {
            value = (value << 1) | self.bit()? as i32;
        }
        let negative = size > 0 && value >> (size - 1) == 0;
        Some(if negative { value - (1 << size) + 1 } else { value })
    }

    /// The coefficients of a block, times those of the quantization table.
    pub(super) fn block(
        &mut self,
        dc: &Table,
        ac: &Table,
        before: &mut i32,
        quantization: &[i32; 64],
    ) -> Option<[i32; 64]> {
        let mut block = [0; 64];
        let size = self.value(dc).filter(|&size| size <= 11)?;
        *before = (*before + self.number(size)?).clamp(-(1 << 15), 1 << 15);
        block[0] = *before * quantization[0];
        let mut index = 1;
        while index < 64 {
            let symbol = self.value(ac)?;
            let (run, size) = (usize::from(symbol >> 4), symbol & 15);
            match (run, size) {
                (15, 0) => index += 16,
                (_, 0) => break,
                _ => {
                    index += run;
                    let place = *ZIGZAG.get(index)?;
                    block[place] = self.number(size)? * quantization[place];
                    index += 1;
                }
            }
        }
        // What no encoder writes would overflow in the transform.
        block.iter().all(|value| value.abs() < 1 << 15).then_some(block)
    }

    /// Goes on after a restart marker.
    pub(super) fn restart(&mut self) -> Option<()> {
        self.count = 0;
        let (&[0xff, 0xd0..=0xd7], rest) = self.data.split_first_chunk::<2>()? else { return None };
        self.data = rest;
        Some(())
    }

    /// True if the image ends here.
    pub(super) fn ends(&self) -> bool {
        self.data.starts_with(&[0xff, 0xd9])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_numbers() {
        let mut counts = [0; 16];
        counts[1] = 2;
        // 00 → 3, 01 → 7.
        let table = Table::new(&counts, &[3, 7]).unwrap();
        let mut bits = Bits::new(&[0b0100_1010, 0xff, 0x00, 0xff, 0xd9]);
        assert_eq!((bits.value(&table), bits.value(&table)), (Some(7), Some(3)));
        assert_eq!((bits.number(2), bits.number(2), bits.number(3)), (Some(2), Some(2), Some(7)));
        assert_eq!(bits.number(5), Some(31));
        assert!(bits.ends());
        assert_eq!(bits.number(1), None, "a marker is no data");
        counts[0] = 3;
        assert!(Table::new(&counts, &[0; 5]).is_none());
    }
}
