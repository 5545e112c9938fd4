//! What a file may cost before it is refused.

/// Bounds on what a model file may make the importer do; see [`Limits::default`].
///
/// On the command line each has a flag: `--max-file-bytes` for `file_bytes` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, in bytes; the model and each file of external data.
    pub file_bytes: u64,
    /// Most bytes that the decoded messages of a file may take: nodes, names, lists of numbers in attributes. Contents
    /// of tensors are not among them.
    pub message_bytes: u64,
    /// Longest name or other text in the messages, in bytes. Strings that are data are not meant.
    pub name_bytes: usize,
    /// Most nodes, those of nested graphs and of inlined functions counted each time they are inlined, and those that
    /// operators are composed of.
    pub nodes: usize,
    /// Deepest nesting of graphs in nodes and of function calls.
    pub nesting_depth: usize,
    /// Largest tensor, in bytes.
    pub tensor_bytes: u64,
    /// Bytes that all sparse tensors together may take once they are dense.
    pub sparse_bytes: u64,
    /// Most dims of a tensor.
    pub rank: usize,
    /// Whether files of external data may be reached by symbolic links, and may have more names than one. Such links can
    /// lead out of the model's folder.
    pub follow_links: bool,
}

impl Default for Limits {
    /// 64 GiB a file, 128 MiB of messages, 1 MiB a name, a million nodes, 64 levels, 16 GiB a tensor, 256 MiB of sparse
    /// tensors, 64 dims, no links.
    fn default() -> Self {
        Limits {
            file_bytes: 64 << 30,
            message_bytes: 128 << 20,
            name_bytes: 1 << 20,
            nodes: 1_000_000,
            nesting_depth: 64,
            tensor_bytes: 16 << 30,
            sparse_bytes: 256 << 20,
            rank: 64,
            follow_links: false,
        }
    }
}

/// The flag of the command line for a field of [`Limits`].
pub(crate) fn flag(field: &str) -> String {
    format!("--max-{}", field.replace('_', "-"))
}
