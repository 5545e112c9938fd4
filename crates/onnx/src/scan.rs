//! A walk over the undecoded bytes that says whether decoding them is safe.
//!
//! A field of two bytes can ask for a message of hundreds. The walk adds up what the decoded structs, names and lists
//! will take, and refuses a file that asks for more than a limit, before anything is allocated.

use crate::error::{ImportError, WireProblem};
use crate::limits::Limits;
use crate::wire;
use std::mem::size_of;

/// As prost's own limit.
const MAX_DEPTH: usize = 100;
/// Bytes counted for a number of a list that is not packed: its own, and the room that a growing list keeps.
const LISTED_BYTES: u64 = 16;

#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    TensorType,
    ElementType,
    MapType,
    Shape,
    Function,
    Training,
    Annotation,
    NodeDevice,
    Sharding,
    ShardedDim,
    Device,
    Sequence,
    Map,
    Optional,
    /// A message of a few names whose fields are not looked into; its size in memory.
    Leaf(usize),
    /// Text that is data, which stays where it is; the size of what points to it.
    Data(usize),
    /// A name of a message.
    Name,
    /// Numbers in one piece.
    Packed,
}

impl Kind {
    /// What the length-delimited field `tag` holds, if it is more than plain data.
    fn field(self, tag: u64) -> Option<Kind> {
        const ENTRY: Kind = Kind::Leaf(size_of::<wire::StringStringEntryProto>());
        const TEXT: Kind = Kind::Leaf(size_of::<String>());
        const DATA: Kind = Kind::Data(size_of::<bytes::Bytes>());
        const OPSET: Kind = Kind::Leaf(size_of::<wire::OperatorSetIdProto>());
        Some(match (self, tag) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Model, 8) | (Kind::Function, 9) => OPSET,
            (Kind::Model, 20) => Kind::Training,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Model, 26) => Kind::Device,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Sparse, 1 | 2) | (Kind::Attribute, 5 | 10) => Kind::Tensor,
            (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
            (Kind::Graph, 11..=13) | (Kind::Function, 12) => Kind::ValueInfo,
            (Kind::Graph, 14) => Kind::Annotation,
            (Kind::Training, 1 | 2) | (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
            (Kind::Node, 10) => Kind::NodeDevice,
            (Kind::ValueInfo, 2) | (Kind::Attribute, 14 | 15) => Kind::Type,
            (Kind::ElementType, 1) | (Kind::MapType, 2) => Kind::Type,
            (Kind::Type, 1 | 8) => Kind::TensorType,
            (Kind::Type, 4 | 9) => Kind::ElementType,
            (Kind::Type, 5) => Kind::MapType,
            (Kind::TensorType, 2) => Kind::Shape,
            (Kind::Shape, 1) => Kind::Leaf(size_of::<wire::Dimension>()),
            (Kind::NodeDevice, 2) => Kind::Sharding,
            (Kind::Sharding, 3) => Kind::Leaf(size_of::<wire::IntIntListEntryProto>()),
            (Kind::Sharding, 4) => Kind::ShardedDim,
            (Kind::ShardedDim, 2) => Kind::Leaf(size_of::<wire::SimpleShardedDimProto>()),
            (Kind::Model, 14) | (Kind::Graph | Kind::Tensor, 16) | (Kind::Function, 14) => ENTRY,
            (Kind::Tensor, 13) | (Kind::Node, 9) | (Kind::ValueInfo, 4) => ENTRY,
            (Kind::Training, 3 | 4) | (Kind::Annotation, 2) => ENTRY,
            (Kind::Node, 1 | 2) | (Kind::Function, 4..=6) | (Kind::Device, 3) => TEXT,
            (Kind::Attribute, 9) | (Kind::Tensor, 6) | (Kind::Map, 4) => DATA,
            (Kind::Sequence | Kind::Optional, 3) => Kind::Tensor,
            (Kind::Sequence | Kind::Optional, 4) => Kind::Sparse,
            (Kind::Sequence | Kind::Optional | Kind::Map, 5) => Kind::Sequence,
            (Kind::Sequence | Kind::Optional, 6) => Kind::Map,
            (Kind::Sequence | Kind::Optional, 7) => Kind::Optional,
            (Kind::Model, 2..=4) | (Kind::Function, 1 | 10 | 13) | (Kind::Node, 3 | 4 | 7 | 8) => Kind::Name,
            (Kind::Graph, 2) | (Kind::Attribute, 1 | 21) | (Kind::Tensor, 8) | (Kind::Type, 6) => Kind::Name,
            (Kind::ValueInfo | Kind::Annotation | Kind::NodeDevice | Kind::Sharding, 1) => Kind::Name,
            (Kind::Device, 1) | (Kind::Sequence | Kind::Map | Kind::Optional, 1) => Kind::Name,
            (Kind::Type, 7) => Kind::Leaf(size_of::<wire::OpaqueType>()),
            (Kind::Attribute, 7 | 8) | (Kind::Tensor, 1) | (Kind::Sparse, 3) | (Kind::Sharding, 2) => {
                Kind::Packed
            }
            _ => return None,
        })
    }

    /// True if the messages of the field are walked through too.
    fn has_fields(self) -> bool {
        !matches!(self, Kind::Leaf(_) | Kind::Data(_) | Kind::Name | Kind::Packed)
    }

    /// Size of the decoded struct, without what it points to.
    fn struct_bytes(self) -> usize {
        match self {
            Kind::Model => size_of::<wire::ModelProto>(),
            Kind::Graph => size_of::<wire::GraphProto>(),
            Kind::Node => size_of::<wire::NodeProto>(),
            Kind::Attribute => size_of::<wire::AttributeProto>(),
            Kind::Tensor => size_of::<wire::TensorProto>(),
            Kind::Sparse => size_of::<wire::SparseTensorProto>(),
            Kind::ValueInfo => size_of::<wire::ValueInfoProto>(),
            Kind::Type => size_of::<wire::TypeProto>(),
            Kind::TensorType => size_of::<wire::TensorType>(),
            Kind::ElementType => size_of::<wire::ElementType>(),
            Kind::MapType => size_of::<wire::MapType>(),
            Kind::Shape => size_of::<wire::TensorShapeProto>(),
            Kind::Function => size_of::<wire::FunctionProto>(),
            Kind::Training => size_of::<wire::TrainingInfoProto>(),
            Kind::Annotation => size_of::<wire::TensorAnnotation>(),
            Kind::NodeDevice => size_of::<wire::NodeDeviceConfigurationProto>(),
            Kind::Sharding => size_of::<wire::ShardingSpecProto>(),
            Kind::ShardedDim => size_of::<wire::ShardedDimProto>(),
            Kind::Device => size_of::<wire::DeviceConfigurationProto>(),
            Kind::Sequence => size_of::<wire::SequenceProto>(),
            Kind::Map => size_of::<wire::MapProto>(),
            Kind::Optional => size_of::<wire::OptionalProto>(),
            Kind::Leaf(bytes) | Kind::Data(bytes) => bytes,
            // A part of the struct around it.
            Kind::Name | Kind::Packed => 0,
        }
    }
}

/// Checks the framing of a model's bytes, and what decoding them will take.
///
/// **Errors**: [`ImportError::Wire`] with the position.
pub(crate) fn check(bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    check_as(Kind::Model, bytes, limits)
}

/// As [`check`], for the bytes of a tensor.
///
/// **Errors**: as [`check`].
pub(crate) fn check_tensor(bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    check_as(Kind::Tensor, bytes, limits)
}

/// As [`check`], for the bytes of a sequence.
///
/// **Errors**: as [`check`].
pub(crate) fn check_sequence(bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    check_as(Kind::Sequence, bytes, limits)
}

/// As [`check`], for the bytes of a map.
///
/// **Errors**: as [`check`].
pub(crate) fn check_map(bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    check_as(Kind::Map, bytes, limits)
}

/// As [`check`], for the bytes of an optional value.
///
/// **Errors**: as [`check`].
pub(crate) fn check_optional(bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    check_as(Kind::Optional, bytes, limits)
}

fn check_as(kind: Kind, bytes: &[u8], limits: &Limits) -> Result<(), ImportError> {
    let mut scan = Scan { bytes, at: 0, needed: 0, limits };
    scan.message(kind, bytes.len(), 0)
        .map_err(|problem| ImportError::Wire { offset: scan.at.min(bytes.len()), problem })
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes that the messages so far take once they are decoded.
    needed: u64,
    limits: &'a Limits,
}

impl Scan<'_> {
    fn message(&mut self, kind: Kind, end: usize, depth: usize) -> Result<(), WireProblem> {
        if depth > MAX_DEPTH {
            return Err(WireProblem::Depth);
        }
        while self.at < end {
            let key = self.varint(end)?;
            if key >> 3 == 0 || key > u64::from(u32::MAX) {
                return Err(WireProblem::Field);
            }
            let inner = kind.field(key >> 3);
            let listed = matches!(inner, Some(Kind::Packed));
            match key & 7 {
                0 => {
                    self.varint(end)?;
                    self.count(if listed { LISTED_BYTES } else { 0 })?;
                }
                1 => self.skip(8, end)?,
                5 => {
                    self.skip(4, end)?;
                    self.count(if listed { LISTED_BYTES } else { 0 })?;
                }
                2 => {
                    let length = usize::try_from(self.varint(end)?).map_err(|_| WireProblem::Truncated)?;
                    let start = self.at;
                    self.skip(length, end)?;
                    if let Some(inner) = inner {
                        self.field(inner, start, length)?;
                        if inner.has_fields() {
                            self.at = start;
                            self.message(inner, start + length, depth + 1)?;
                        }
                    }
                }
                _ => return Err(WireProblem::Field),
            }
        }
        Ok(())
    }

    /// Counts what a field of `length` bytes at `start` takes, without the messages in it.
    fn field(&mut self, kind: Kind, start: usize, length: usize) -> Result<(), WireProblem> {
        self.count(kind.struct_bytes() as u64)?;
        match kind {
            Kind::Name | Kind::Leaf(_) => {
                if length > self.limits.name_bytes {
                    return Err(WireProblem::Name(length as u64, self.limits.name_bytes as u64));
                }
                self.count(length as u64)
            }
            Kind::Packed => {
                let bytes = self.bytes.get(start..start + length).unwrap_or_default();
                // The last byte of each number has its top bit clear.
                let numbers = bytes.iter().filter(|&&byte| byte < 0x80).count();
                self.count(numbers as u64 * LISTED_BYTES)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), WireProblem> {
        self.needed = self.needed.saturating_add(bytes);
        match self.needed > self.limits.message_bytes {
            true => Err(WireProblem::Blowup(self.limits.message_bytes)),
            false => Ok(()),
        }
    }

    fn skip(&mut self, length: usize, end: usize) -> Result<(), WireProblem> {
        match self.at.checked_add(length).filter(|&next| next <= end) {
            Some(next) => {
                self.at = next;
                Ok(())
            }
            None => Err(WireProblem::Truncated),
        }
    }

    fn varint(&mut self, end: usize) -> Result<u64, WireProblem> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let at = self.at;
            self.skip(1, end)?;
            let byte = self.bytes.get(at).copied().ok_or(WireProblem::Truncated)?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireProblem::Varint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(bytes: &[u8]) -> Option<(usize, WireProblem)> {
        match check(bytes, &Limits::default()) {
            Ok(()) => None,
            Err(ImportError::Wire { offset, problem }) => Some((offset, problem)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn framing_is_checked() {
        assert_eq!(problem(&[]), None);
        assert_eq!(problem(&[0x08, 0x07]), None);
        assert_eq!(problem(&[0x08]), Some((1, WireProblem::Truncated)));
        assert_eq!(problem(&[0x3a, 5, 0x0a]), Some((2, WireProblem::Truncated)));
        assert_eq!(problem(&[0x0b]), Some((1, WireProblem::Field)));
        assert_eq!(problem(&[0xff; 12]), Some((10, WireProblem::Varint)));
    }

    #[test]
    fn a_file_of_empty_nodes_is_refused() {
        // Each node takes two bytes here and a struct of some hundred once decoded.
        let mut graph = Vec::new();
        for _ in 0..2_000_000 {
            graph.extend_from_slice(&[0x0a, 0x00]);
        }
        let mut model = vec![0x3a];
        prost::encoding::encode_varint(graph.len() as u64, &mut model);
        model.extend(graph);
        assert_eq!(problem(&model).map(|p| p.1), Some(WireProblem::Blowup(128 << 20)));
    }

    #[test]
    fn long_names_and_lists_are_refused() {
        // The model's graph (7), its first node (1): a name (3), or an attribute (5) with a list of integers (8).
        let wrapped = |tags: &[u8], mut bytes: Vec<u8>| {
            for tag in tags.iter().rev() {
                let mut outer = vec![*tag];
                prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
                outer.extend(bytes);
                bytes = outer;
            }
            bytes
        };
        let limit = Limits::default().name_bytes as u64;
        let name = |len: u64| problem(&wrapped(&[0x3a, 0x0a, 0x1a], vec![b'x'; len as usize]));
        assert_eq!(name(limit), None);
        assert_eq!(name(limit + 1).map(|p| p.1), Some(WireProblem::Name(limit + 1, limit)));
        let single = wrapped(&[0x3a, 0x0a, 0x2a], [0x40, 0x01].repeat(9 << 20));
        let packed = wrapped(&[0x3a, 0x0a, 0x2a, 0x42], vec![1; 9 << 20]);
        for list in [single, packed] {
            assert_eq!(problem(&list).map(|p| p.1), Some(WireProblem::Blowup(128 << 20)));
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        // Attribute > graph > node > attribute, innermost first.
        let mut bytes = Vec::new();
        for _ in 0..40 {
            for tag in [0x32u8, 0x2a, 0x0a] {
                let mut outer = vec![tag];
                prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
                outer.extend(bytes);
                bytes = outer;
            }
        }
        let mut model = vec![0x3a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut model);
        model.extend(bytes);
        assert_eq!(problem(&model).map(|p| p.1), Some(WireProblem::Depth));
    }
}
