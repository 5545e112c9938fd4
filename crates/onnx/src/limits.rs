//! What a file may cost before it is refused.

/// Bounds on what a model file may make the importer do; see [`Limits::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, in bytes; the model and each file of external data.
    pub file_bytes: u64,
    /// Most nodes, those of nested graphs and of inlined functions counted each time they are inlined.
    pub nodes: usize,
    /// Deepest nesting of graphs in nodes and of function calls.
    pub nesting_depth: usize,
    /// Largest tensor, in bytes.
    pub tensor_bytes: u64,
    /// Bytes that all sparse tensors together may take once they are dense.
    pub sparse_bytes: u64,
    /// Most dims of a tensor.
    pub rank: usize,
}

impl Default for Limits {
    /// 64 GiB a file, a million nodes, 64 levels, 16 GiB a tensor, 256 MiB of sparse tensors, 64 dims.
    fn default() -> Self {
        Limits {
            file_bytes: 64 << 30,
            nodes: 1_000_000,
            nesting_depth: 64,
            tensor_bytes: 16 << 30,
            sparse_bytes: 256 << 20,
            rank: 64,
        }
    }
}
