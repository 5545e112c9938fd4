//! Constants of which all elements are the same, or all of a row: stored in full, or computed by a `ConstantOfShape` or
//! `Expand` node.
//!
//! A stored one costs bytes, a computed one costs a node.

use crate::data::tensor_proto;
use crate::wire::{AttributeProto, NodeProto, attribute_type as kind};
use bytes::Bytes;
use rabot_ir::{Graph, NodeId, Op};
use rabot_tensor::{DType, Tensor};

/// The first operator set with `ConstantOfShape`.
pub(super) const FIRST_OPSET: i64 = 9;

/// Which constants that repeat an element are stored.
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

/// What a constant is spread from.
pub(super) enum Small {
    /// One element, by `ConstantOfShape`.
    Element(Tensor),
    /// One element for each index of axis 0, by `Expand`.
    Rows(Tensor),
}

/// What a constant can be spread from; `None` if it has more to say.
pub(super) fn small(tensor: &Tensor) -> Option<Small> {
    if let Some(element) = element(tensor) {
        return Some(Small::Element(element));
    }
    let (rows, size) = (*tensor.shape().first()?, tensor.dtype().size_bytes());
    let row_bytes = tensor.bytes().len().checked_div(rows)?;
    if !takes(tensor.dtype())
        || row_bytes <= size
        || tensor.bytes().len() != tensor.len().checked_mul(size)?
    {
        return None;
    }
    let firsts =
        tensor.bytes().chunks_exact(row_bytes).map(|row| same(row, size)).collect::<Option<Vec<_>>>()?;
    let mut shape = vec![1; tensor.rank()];
    *shape.first_mut()? = rows;
    Some(Small::Rows(Tensor::from_raw(tensor.dtype(), &shape, firsts.concat())))
}

/// The element of which a constant consists, if it is one repeated, as a tensor of one element.
fn element(tensor: &Tensor) -> Option<Tensor> {
    let size = tensor.dtype().size_bytes();
    if !takes(tensor.dtype()) || tensor.len() < 2 || tensor.bytes().len() != tensor.len().checked_mul(size)? {
        return None;
    }
    same(tensor.bytes(), size).map(|first| Tensor::from_raw(tensor.dtype(), &[1], first.to_vec()))
}

/// What the first versions of both operators take.
fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::F32 | DType::F64 | DType::I8 | DType::I16 | DType::I32 | DType::I64)
        || matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool)
}

/// The first element of some, if each equals the one before it.
fn same(bytes: &[u8], size: usize) -> Option<&[u8]> {
    let (first, rest) = bytes.split_at_checked(size)?;
    (rest == bytes.get(..bytes.len() - size)?).then_some(first)
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
                found.extend(small(tensor).map(|_| tensor.bytes().len() as u64));
            }
            op => {
                found.extend(result_bytes(graph, id));
                op.regions().into_iter().for_each(|(_, region)| candidates(region, found));
            }
        }
    }
}

/// A node that spreads one element to the shape that an initializer says.
pub(super) fn constant_of_shape(shape: String, output: &str, element: &Tensor) -> NodeProto {
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

/// A node that spreads an initializer to the shape that another says.
pub(super) fn expand(small: String, shape: String, output: &str) -> NodeProto {
    NodeProto {
        input: vec![small, shape],
        output: vec![output.to_owned()],
        op_type: "Expand".to_owned(),
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
        let Some(Small::Rows(rows)) = small(&Tensor::from_vec(&[2, 3], vec![1i64, 1, 1, 4, 4, 4])) else {
            panic!("rows of one element each")
        };
        assert_eq!(rows, Tensor::from_vec(&[2, 1], vec![1i64, 4]));
        assert!(small(&Tensor::from_vec(&[2, 3], vec![1i64, 1, 2, 4, 4, 4])).is_none());
        assert!(small(&Tensor::from_vec(&[3], vec![1i64, 1, 2])).is_none());
        let bits = element(&Tensor::from_bools(&[2], &[true, true]));
        assert_eq!(bits, Some(Tensor::from_bools(&[1], &[true])));
    }
}
