//! Fingerprints of tensors.

use rabot_tensor::Tensor;

/// BLAKE3 of a tensor's dtype, shape and contents: equal for tensors that are equal to the bit.
pub fn digest(tensor: &Tensor) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{}{:?};", tensor.dtype(), tensor.shape()).as_bytes());
    hasher.update(tensor.bytes());
    for string in tensor.strings().unwrap_or_default() {
        hasher.update(&(string.len() as u64).to_le_bytes());
        hasher.update(string.as_bytes());
    }
    hasher.finalize()
}
