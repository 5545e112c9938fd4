//! What a compilation may be told.

use rabot_onnx::Limits;
use rabot_runtime::Tensors;
use std::path::PathBuf;

/// Options of [`crate::compile`].
#[derive(Clone, Debug)]
pub struct Options {
    /// `host` or a built-in profile.
    pub target: String,
    /// The passes; the default pipeline if absent. An empty text is no passes at all.
    pub pipeline: Option<String>,
    /// Leaves out rules that only hold for finite values.
    pub strict: bool,
    /// Rewrites that are left out: pairs of rule and node.
    pub without: Vec<(String, String)>,
    /// Sizes for symbolic dims, by name. A dim that is not named stays symbolic.
    pub dims: Vec<(String, usize)>,
    /// Input sets for passes that calibrate.
    pub calibration: Vec<Tensors>,
    /// Folder for results of passes; a run begins at the first pass whose result is not there.
    pub cache: Option<PathBuf>,
    /// Folder for the graph that a pass panicked on or left invalid; it is not kept if absent.
    pub reproducers: Option<PathBuf>,
    /// What a model file may cost before it is refused.
    pub limits: Limits,
}

impl Default for Options {
    /// For this machine, by the default pipeline, all symbolic dims left so.
    fn default() -> Self {
        Options {
            target: "host".to_owned(),
            pipeline: None,
            strict: false,
            without: Vec::new(),
            dims: Vec::new(),
            calibration: Vec::new(),
            cache: None,
            reproducers: None,
            limits: Limits::default(),
        }
    }
}
