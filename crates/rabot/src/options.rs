//! What a compilation may be told.

use rabot_onnx::Limits;
use rabot_runtime::Tensors;

/// Options of [`crate::compile`].
#[derive(Clone, Debug)]
pub struct Options {
    /// `host` or a built-in profile.
    pub target: String,
    /// The passes; the default pipeline if absent. An empty text is no passes at all.
    pub pipeline: Option<String>,
    /// Leaves out rules that only hold for finite values.
    pub strict: bool,
    /// Sizes for symbolic dims, by name. A dim that is not named stays symbolic.
    pub dims: Vec<(String, usize)>,
    /// Input sets for passes that calibrate.
    pub calibration: Vec<Tensors>,
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
            dims: Vec::new(),
            calibration: Vec::new(),
            limits: Limits::default(),
        }
    }
}
