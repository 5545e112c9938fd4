//! Integer contractions: exact sums, then one multiplication in f32 and one rounding, as the interpreter does it.

use super::Lowering;
use rabot_ir::NodeId;

impl Lowering<'_, '_, '_> {
    /// `QLinearConv`, `QLinearMatMul`.
    pub(super) fn lower_quantized(&mut self, id: NodeId) {
        self.lower_host(id, "integer kernels need constant weights and quantization parameters");
    }
}
