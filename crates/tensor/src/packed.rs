//! Elements of less than 8 bits as files hold them: packed, the lowest bits first.

use crate::DType;

/// Elements of a byte each as a stream of the dtype's bits, the first element in the lowest bits of the first byte.
/// The rest of the last byte is 0. Dtypes of whole bytes come back as they are.
pub fn pack_bits(dtype: DType, elements: &[u8]) -> Vec<u8> {
    let bits = dtype.bits();
    if !(1..8).contains(&bits) {
        return elements.to_vec();
    }
    let mask = (1u8 << bits) - 1;
    let mut packed = vec![0u8; dtype.packed_bytes(elements.len()).unwrap_or(0)];
    for (index, &element) in elements.iter().enumerate() {
        let at = index * bits as usize;
        // An element of 6 bits may lie in two bytes.
        let wide = u16::from(element & mask) << (at % 8);
        packed[at / 8] |= wide as u8;
        if let Some(next) = packed.get_mut(at / 8 + 1) {
            *next |= (wide >> 8) as u8;
        }
    }
    packed
}

/// The inverse of [`pack_bits`]: `len` elements of a byte each, signed integers extended.
///
/// Elements that `packed` does not hold are left out.
pub fn unpack_bits(dtype: DType, packed: &[u8], len: usize) -> Vec<u8> {
    let bits = dtype.bits();
    if !(1..8).contains(&bits) {
        return packed.to_vec();
    }
    let shift = 8 - bits;
    let element = |index: usize| {
        let at = index * bits as usize;
        let low = u16::from(packed[at / 8]);
        let high = u16::from(packed.get(at / 8 + 1).copied().unwrap_or(0));
        let raised = (((low | high << 8) >> (at % 8)) as u8) << shift;
        if dtype.is_signed_int() { ((raised as i8) >> shift) as u8 } else { raised >> shift }
    };
    (0..len.min(packed.len() * 8 / bits as usize)).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_elements_come_back() {
        for dtype in DType::all().filter(|dtype| (1..8).contains(&dtype.bits())) {
            for len in 0..9usize {
                let codes = (0..len).map(|i| (i * 29 + 3) as u8).collect::<Vec<_>>();
                let elements = unpack_bits(dtype, &pack_bits(dtype, &codes), len);
                assert_eq!(elements.len(), len, "{dtype}");
                assert_eq!(pack_bits(dtype, &elements), pack_bits(dtype, &codes), "{dtype}");
            }
        }
        assert_eq!(pack_bits(DType::U2, &[1, 2, 3, 0, 2]), [0b0011_1001, 2]);
        assert_eq!(unpack_bits(DType::I2, &[0b0011_1001], 4), [1, 0xfe, 0xff, 0]);
        assert_eq!(unpack_bits(DType::I4, &[0x8f], 2), [0xff, 0xf8]);
        assert_eq!(pack_bits(DType::F6E2M3, &[0x3f, 0, 0x21]), [0x3f, 0x10, 0x02]);
    }
}
