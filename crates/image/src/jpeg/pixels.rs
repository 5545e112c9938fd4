//! From planes to pixels: enlarging those of colors, and their conversion.

use super::Plane;

/// The plane at the size of the image: by interpolation where it has half as many samples, else by repetition.
pub(super) fn enlarged(plane: &Plane, most: (usize, usize), width: usize, height: usize) -> Vec<u8> {
    let factors = (most.0 / plane.across, most.1 / plane.down);
    let row = |y: usize| &plane.samples[y * plane.stride..y * plane.stride + plane.width];
    let mut result = Vec::with_capacity(width * height);
    for y in 0..height {
        let own = row((y / factors.1).min(plane.height - 1));
        // The row that is next to this one in the enlarged plane.
        let upper = y % 2 == 0;
        let near = match (upper, y / 2) {
            (true, own) => row(own.saturating_sub(1).min(plane.height - 1)),
            (false, own) => row((own + 1).min(plane.height - 1)),
        };
        let mut line = match factors {
            (1, 1) => own.to_vec(),
            (2, 1) if plane.width > 2 => {
                let own: Vec<u32> = own.iter().map(|&value| value.into()).collect();
                across(&own, 1, 1, 2)
            }
            (2, 2) if plane.width > 2 => across(&sums(own, near), 4, 8, 7),
            (1, 2) => {
                let bias = if upper { 1 } else { 2 };
                sums(own, near).into_iter().map(|sum| ((sum + bias) >> 2) as u8).collect()
            }
            (times, _) => own.iter().flat_map(|&value| std::iter::repeat_n(value, times)).collect(),
        };
        line.truncate(width);
        result.append(&mut line);
    }
    result
}

/// Three times a row and once the one near it.
fn sums(own: &[u8], near: &[u8]) -> Vec<u32> {
    own.iter().zip(near).map(|(&own, &near)| 3 * u32::from(own) + u32::from(near)).collect()
}

/// Two samples for each: three parts of it and one of its neighbour to the left or right. The sums are `unit` times a
/// sample; `left` and `right` round.
fn across(row: &[u32], unit: u32, left: u32, right: u32) -> Vec<u8> {
    let shift = unit.trailing_zeros() + 2;
    let last = row.len().saturating_sub(1);
    let mut result = Vec::with_capacity(2 * row.len());
    for (at, &own) in row.iter().enumerate() {
        let before = row[at.saturating_sub(1)];
        let after = row[(at + 1).min(last)];
        result.push(((3 * own + before + left) >> shift) as u8);
        result.push(((3 * own + after + right) >> shift) as u8);
    }
    result
}

/// Luma and two colors to red, green and blue, with 16 fractional bits.
pub(super) fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let r = luma + ((91881 * red + HALF) >> 16);
    let g = luma + ((-22554 * blue - 46802 * red + HALF) >> 16);
    let b = luma + ((116130 * blue + HALF) >> 16);
    [r, g, b].map(|value| value.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_those_of_libjpeg() {
        assert_eq!(rgb(76, 85, 255), [254, 0, 0]);
        assert_eq!(rgb(29, 255, 107), [0, 0, 254]);
        assert_eq!(rgb(100, 128, 128), [100; 3]);
    }

    #[test]
    fn samples_are_interpolated() {
        let plane = Plane {
            across: 1,
            down: 1,
            width: 3,
            height: 1,
            stride: 8,
            samples: vec![0, 40, 80, 9, 9, 9, 9, 9],
            ..Plane::default()
        };
        // (3a + b + 1) / 4 to the left, (3a + b + 2) / 4 to the right; the last column is cut off.
        assert_eq!(enlarged(&plane, (2, 1), 5, 1), [0, 10, 30, 50, 70]);
        assert_eq!(enlarged(&plane, (2, 2), 5, 2), [[0, 10, 30, 50, 70]; 2].concat());
        assert_eq!(enlarged(&plane, (1, 1), 3, 1), [0, 40, 80]);
    }
}
