//! Constants of which all elements are the same: stored in full, or computed by a `ConstantOfShape` node.
//!
//! A stored one costs bytes, a computed one costs a node.

use crate::data::tensor_proto;
use crate::wire::{AttributeProto, NodeProto, attribute_type as kind};
use bytes::Bytes;
use rabot_ir::{Graph, NodeId, Op};
use rabot_tensor::{DType, Tensor};

/// The first operator set with `ConstantOfShape`.
pub(super) const FIRST_OPSET: i64 = 9;

/// Which constants of one repeated element are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    /// Those that the graph holds as constants; nodes stay nodes.
    AsTheyAre,
    /// Those of fewer bytes than this; the others are computed.
    StoredBelow(u64),
}

impl Repeated {
    /// True if a constant of so many bytes is to be computed.
    pub(super) fn computes(self, bytes: u64) -> bool {
        matches!(self, Repeated::StoredBelow(limit) if bytes >= limit)
    }

    /// True if the result of a node is to be stored, of so many bytes.
    pub(super) fn stores(self, bytes: u64) -> bool {
        matches!(self, Repeated::StoredBelow(limit) if bytes < limit)
    }
}

/// The element of which a constant consists, if it is one repeated, as a tensor of one element.
pub(super) fn element(tensor: &Tensor) -> Option<Tensor> {
    // What the first version of the operator takes.
    let takes = matches!(
        tensor.dtype(),
        DType::F16 | DType::F32 | DType::F64 | DType::I8 | DType::I16 | DType::I32 | DType::I64
    ) || matches!(tensor.dtype(), DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool);
    let size = tensor.dtype().size_bytes();
    if !takes || tensor.len() < 2 || tensor.bytes().len() != tensor.len().checked_mul(size)? {
        return None;
    }
    let bytes = tensor.bytes();
    let (first, rest) = bytes.split_at_checked(size)?;
    // Each element equals the one before it.
    let same = rest == bytes.get(..bytes.len() - size)?;
    same.then(|| Tensor::from_raw(tensor.dtype(), &[1], first.to_vec()))
}

/// Bytes of the result of a `ConstantOfShape` node whose shape is known; `None` for other nodes.
pub(super) fn result_bytes(graph: &Graph, id: NodeId) -> Option<u64> {
    let (_, shape) = known(graph, id)?;
    let dtype = graph.node(id).outputs.first()?.fact.dtype();
    shape.iter().try_fold(dtype.size_bytes() as u64, |bytes, &dim| bytes.checked_mul(dim as u64))
}

/// The result of a `ConstantOfShape` node whose shape is known.
pub(super) fn result(graph: &Graph, id: NodeId) -> Option<Tensor> {
    let (value, shape) = known(graph, id)?;
    let bytes = usize::try_from(result_bytes(graph, id)?).ok()?;
    let element = value.bytes();
    let all = element.repeat(bytes.checked_div(element.len())?);
    Tensor::from_bytes(value.dtype(), &shape, Bytes::from(all)).ok()
}

fn known(graph: &Graph, id: NodeId) -> Option<(&Tensor, Vec<usize>)> {
    let node = graph.node(id);
    let Op::ConstantOfShape(op) = &node.op else { return None };
    element(&Tensor::from_raw(op.value.dtype(), &[2], op.value.bytes().repeat(2)))?;
    Some((&op.value, node.outputs.first()?.fact.ty.static_shape()?))
}

/// Bytes of everything in a graph that may be stored or computed; of nested graphs too.
pub(super) fn candidates(graph: &Graph, found: &mut Vec<u64>) {
    for id in graph.node_ids() {
        match &graph.node(id).op {
            Op::Constant(tensor) => {
                found.extend(element(tensor).map(|_| tensor.bytes().len() as u64));
            }
            op => {
                found.extend(result_bytes(graph, id));
                op.regions().into_iter().for_each(|(_, region)| candidates(region, found));
            }
        }
    }
}

/// A node that computes a constant: of this element, of the shape that an initializer says.
pub(super) fn node(shape: String, output: &str, element: &Tensor) -> NodeProto {
    NodeProto {
        input: vec![shape],
        output: vec![output.to_owned()],
        op_type: "ConstantOfShape".to_owned(),
        attribute: vec![AttributeProto {
            name: "value".to_owned(),
            t: Some(Box::new(tensor_proto("", element))),
            r#type: kind::TENSOR,
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_found_by_its_bits() {
        let repeated = element(&Tensor::from_vec(&[2, 2], vec![0.5f32; 4]));
        assert_eq!(repeated, Some(Tensor::from_vec(&[1], vec![0.5f32])));
        assert_eq!(element(&Tensor::from_vec(&[3], vec![0.0f32, -0.0, 0.0])), None);
        assert_eq!(element(&Tensor::from_vec(&[1], vec![0.5f32])), None);
        assert_eq!(element(&Tensor::from_vec(&[0], Vec::<f32>::new())), None);
        let bits = element(&Tensor::from_bools(&[2], &[true, true]));
        assert_eq!(bits, Some(Tensor::from_bools(&[1], &[true])));
    }
}
