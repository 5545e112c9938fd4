//! Sequential JPEG to the very pixels that libjpeg-turbo gives, which ONNX asks for: its integer cosine transform
//! (`islow`), its "fancy" upsampling of colors, its conversion to RGB.
//!
//! Any other JPEG (progressive, arithmetic coding, more than 8 bits, four colors) and any that is damaged gives `None`;
//! the general decoder takes it then.
//!
//! **Source**: ITU-T T.81; jidctint.c, jdsample.c and jdcolor.c of <https://github.com/libjpeg-turbo/libjpeg-turbo>

mod huffman;
mod pixels;
mod transform;

use crate::{Pixels, check_size};
use huffman::{Bits, Table};

/// Place of each coefficient in a block, in the order of the file.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One of the planes of an image.
#[derive(Clone, Debug, Default)]
struct Plane {
    id: u8,
    /// Samples for each unit of the frame, across and down.
    across: usize,
    down: usize,
    /// Number of the quantization table.
    quantization: usize,
    dc_table: usize,
    ac_table: usize,
    /// Samples that mean something.
    width: usize,
    height: usize,
    /// Samples of a stored row.
    stride: usize,
    samples: Vec<u8>,
}

/// What the file has said so far.
#[derive(Default)]
struct Decoder {
    quantization: [Option<[i32; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    width: usize,
    height: usize,
    planes: Vec<Plane>,
    restart: usize,
    /// The transform that a marker of Adobe's names.
    adobe: Option<u8>,
    jfif: bool,
}

/// The pixels of a sequential JPEG of 8 bits with one scan.
pub(crate) fn decode(bytes: &[u8]) -> Option<Pixels> {
    let mut decoder = Decoder::default();
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
    loop {
        while let Some(after) = rest.strip_prefix(&[0xff, 0xff]) {
            rest = &rest[rest.len() - after.len() - 1..];
        }
        let (&[0xff, marker, high, low], _) = rest.split_first_chunk::<4>()? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = rest.get(4..2usize.checked_add(length)?)?;
        rest = rest.get(2 + length..)?;
        match marker {
            0xc0 | 0xc1 => decoder.frame(segment)?,
            0xc4 => decoder.huffman_tables(segment)?,
            0xdb => decoder.quantization_tables(segment)?,
            0xdd => decoder.restart = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
            0xda => {
                decoder.scan(segment, rest)?;
                return decoder.finish();
            }
            0xe0 => decoder.jfif |= segment.starts_with(b"JFIF\0"),
            0xee if segment.starts_with(b"Adobe") => decoder.adobe = segment.get(11).copied(),
            0xe1..=0xef | 0xfe => {}
            _ => return None,
        }
    }
}

impl Decoder {
    fn quantization_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let wide = head >> 4 == 1;
            let size = if wide { 128 } else { 64 };
            let values = rest.get(..size).filter(|_| head >> 4 < 2)?;
            let mut table = [0; 64];
            for (index, place) in ZIGZAG.iter().enumerate() {
                table[*place] = match wide {
                    true => i32::from(u16::from_be_bytes([values[2 * index], values[2 * index + 1]])),
                    false => i32::from(values[index]),
                };
            }
            *self.quantization.get_mut(usize::from(head & 15))? = Some(table);
            segment = &rest[size..];
        }
        Some(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let counts: &[u8; 16] = rest.first_chunk()?;
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let values = rest.get(16..16 + total)?;
            let table = Table::new(counts, values)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & 15)).filter(|_| head >> 4 < 2)? = Some(table);
            segment = &rest[16 + total..];
        }
        Some(())
    }

    /// The largest number of samples of a plane for a unit.
    fn most(&self) -> (usize, usize) {
        let across = self.planes.iter().map(|plane| plane.across).max();
        (across.unwrap_or(1), self.planes.iter().map(|plane| plane.down).max().unwrap_or(1))
    }

    /// Units across and down.
    fn units(&self) -> (usize, usize) {
        let (across, down) = self.most();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    fn frame(&mut self, segment: &[u8]) -> Option<()> {
        let (&[8, h0, h1, w0, w1, count], planes) = segment.split_first_chunk::<6>()? else { return None };
        let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
        let refused = !self.planes.is_empty() || width == 0 || height == 0;
        if refused || (count != 1 && count != 3) || planes.len() != 3 * usize::from(count) {
            return None;
        }
        check_size(width.into(), height.into()).ok()?;
        (self.width, self.height) = (width.into(), height.into());
        for plane in planes.chunks_exact(3) {
            let (across, down) = (usize::from(plane[1] >> 4), usize::from(plane[1] & 15));
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return None;
            }
            let (id, quantization) = (plane[0], plane[2].into());
            self.planes.push(Plane { id, across, down, quantization, ..Plane::default() });
        }
        if let [only] = self.planes.as_mut_slice() {
            // The samples of a single plane are not interleaved: its factors have no meaning.
            (only.across, only.down) = (1, 1);
        }
        let ((most_across, most_down), (units_across, _)) = (self.most(), self.units());
        for plane in &mut self.planes {
            if most_across % plane.across != 0 || most_down % plane.down != 0 {
                return None;
            }
            plane.width = (self.width * plane.across).div_ceil(most_across);
            plane.height = (self.height * plane.down).div_ceil(most_down);
            plane.stride = units_across * plane.across * 8;
        }
        Some(())
    }

    /// All planes in one scan.
    fn scan(&mut self, segment: &[u8], data: &[u8]) -> Option<()> {
        let (&count, rest) = segment.split_first()?;
        let count = usize::from(count);
        if count != self.planes.len() || rest.get(2 * count..)? != [0, 63, 0] {
            return None;
        }
        for (plane, tables) in self.planes.iter_mut().zip(rest.chunks_exact(2)) {
            (plane.dc_table, plane.ac_table) = (usize::from(tables[1] >> 4), usize::from(tables[1] & 15));
            if plane.id != tables[0] {
                return None;
            }
        }
        let (units_across, units_down) = self.units();
        // A block takes two bits at least, so that the memory for the samples is not more than the file is worth.
        let of_unit: usize = self.planes.iter().map(|plane| plane.across * plane.down).sum();
        if units_across * units_down * of_unit > data.len().saturating_mul(4) {
            return None;
        }
        for plane in &mut self.planes {
            plane.samples = vec![0; plane.stride * units_down * plane.down * 8];
        }
        let mut bits = Bits::new(data);
        let mut before = [0i32; 3];
        for unit in 0..units_across * units_down {
            if self.restart > 0 && unit > 0 && unit % self.restart == 0 {
                bits.restart()?;
                before = [0; 3];
            }
            for (plane, before) in self.planes.iter_mut().zip(&mut before) {
                let dc = self.dc.get(plane.dc_table)?.as_ref()?;
                let ac = self.ac.get(plane.ac_table)?.as_ref()?;
                let quantization = self.quantization.get(plane.quantization)?.as_ref()?;
                for block in 0..plane.across * plane.down {
                    let coefficients = bits.block(dc, ac, before, quantization)?;
                    let x = unit % units_across * plane.across + block % plane.across;
                    let y = unit / units_across * plane.down + block / plane.across;
                    transform::inverse(
                        &coefficients,
                        &mut plane.samples,
                        8 * (y * plane.stride + x),
                        plane.stride,
                    );
                }
            }
        }
        // Another scan would change what there is.
        bits.ends().then_some(())
    }

    fn finish(self) -> Option<Pixels> {
        let (width, height) = (self.width, self.height);
        let most = self.most();
        let planes: Vec<Vec<u8>> =
            self.planes.iter().map(|plane| pixels::enlarged(plane, most, width, height)).collect();
        let named: Vec<u8> = self.planes.iter().map(|plane| plane.id).collect();
        let is_rgb = match (self.adobe, self.jfif) {
            (Some(transform), _) => transform == 0,
            (None, true) => false,
            (None, false) => named == b"RGB",
        };
        let rgb = match planes.as_slice() {
            [gray] => gray.iter().flat_map(|&value| [value; 3]).collect(),
            [a, b, c] => {
                let pixels = a.iter().zip(b).zip(c);
                pixels
                    .flat_map(|((&a, &b), &c)| if is_rgb { [a, b, c] } else { pixels::rgb(a, b, c) })
                    .collect()
            }
            _ => return None,
        };
        Some(Pixels { width, height, rgb })
    }
}
