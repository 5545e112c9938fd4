//! The wire structs against `onnx-protobuf`, an independent reader generated from the schema: both must read the
//! same from the same bytes, and each must read what the other writes.

mod zoo;

use bytes::Bytes;
use onnx_protobuf as pb;
use proptest::prelude::*;
use prost::Message;
use protobuf::{EnumOrUnknown, Message as _, MessageField};
use rabot_onnx::wire;

/// As the second reader has it: a scalar that is absent is zero.
trait Same<W> {
    fn same(self) -> W;
}

fn all<P: Same<W>, W>(messages: Vec<P>) -> Vec<W> {
    messages.into_iter().map(Same::same).collect()
}

fn one<P: Same<W>, W>(message: MessageField<P>) -> Option<W> {
    message.into_option().map(Same::same)
}

fn blobs(values: Vec<Vec<u8>>) -> Vec<Bytes> {
    values.into_iter().map(Bytes::from).collect()
}

impl Same<wire::ModelProto> for pb::ModelProto {
    fn same(self) -> wire::ModelProto {
        wire::ModelProto {
            ir_version: self.ir_version,
            producer_name: self.producer_name,
            producer_version: self.producer_version,
            domain: self.domain,
            model_version: self.model_version,
            doc_string: self.doc_string.into(),
            graph: one(self.graph),
            opset_import: all(self.opset_import),
            metadata_props: all(self.metadata_props),
            training_info: all(self.training_info),
            functions: all(self.functions),
            configuration: Vec::new(),
        }
    }
}

impl Same<wire::OperatorSetIdProto> for pb::OperatorSetIdProto {
    fn same(self) -> wire::OperatorSetIdProto {
        wire::OperatorSetIdProto { domain: self.domain, version: self.version }
    }
}

impl Same<wire::StringStringEntryProto> for pb::StringStringEntryProto {
    fn same(self) -> wire::StringStringEntryProto {
        wire::StringStringEntryProto { key: self.key, value: self.value }
    }
}

impl Same<wire::TrainingInfoProto> for pb::TrainingInfoProto {
    fn same(self) -> wire::TrainingInfoProto {
        wire::TrainingInfoProto {
            initialization: one(self.initialization),
            algorithm: one(self.algorithm),
            initialization_binding: all(self.initialization_binding),
            update_binding: all(self.update_binding),
        }
    }
}

impl Same<wire::FunctionProto> for pb::FunctionProto {
    fn same(self) -> wire::FunctionProto {
        wire::FunctionProto {
            name: self.name,
            input: self.input,
            output: self.output,
            attribute: self.attribute,
            node: all(self.node),
            doc_string: self.doc_string.into(),
            opset_import: all(self.opset_import),
            domain: self.domain,
            attribute_proto: all(self.attribute_proto),
            value_info: all(self.value_info),
            overload: self.overload,
            metadata_props: all(self.metadata_props),
        }
    }
}

impl Same<wire::GraphProto> for pb::GraphProto {
    fn same(self) -> wire::GraphProto {
        wire::GraphProto {
            node: all(self.node),
            name: self.name,
            initializer: all(self.initializer),
            doc_string: self.doc_string.into(),
            input: all(self.input),
            output: all(self.output),
            value_info: all(self.value_info),
            quantization_annotation: all(self.quantization_annotation),
            sparse_initializer: all(self.sparse_initializer),
            metadata_props: all(self.metadata_props),
        }
    }
}

impl Same<wire::TensorAnnotation> for pb::TensorAnnotation {
    fn same(self) -> wire::TensorAnnotation {
        wire::TensorAnnotation {
            tensor_name: self.tensor_name,
            quant_parameter_tensor_names: all(self.quant_parameter_tensor_names),
        }
    }
}

impl Same<wire::NodeProto> for pb::NodeProto {
    fn same(self) -> wire::NodeProto {
        wire::NodeProto {
            input: self.input,
            output: self.output,
            name: self.name,
            op_type: self.op_type,
            attribute: all(self.attribute),
            doc_string: self.doc_string.into(),
            domain: self.domain,
            overload: self.overload,
            metadata_props: all(self.metadata_props),
            device_configurations: Vec::new(),
        }
    }
}

impl Same<wire::AttributeProto> for pb::AttributeProto {
    fn same(self) -> wire::AttributeProto {
        wire::AttributeProto {
            name: self.name,
            f: Some(self.f),
            i: Some(self.i),
            s: Some(self.s.into()),
            t: one(self.t).map(Box::new),
            g: one(self.g).map(Box::new),
            floats: self.floats,
            ints: self.ints,
            strings: blobs(self.strings),
            tensors: all(self.tensors),
            graphs: all(self.graphs),
            doc_string: self.doc_string.into(),
            tp: one(self.tp).map(Box::new),
            type_protos: all(self.type_protos),
            r#type: self.type_.value(),
            ref_attr_name: self.ref_attr_name,
            sparse_tensor: one(self.sparse_tensor).map(Box::new),
            sparse_tensors: all(self.sparse_tensors),
        }
    }
}

impl Same<wire::TensorProto> for pb::TensorProto {
    fn same(self) -> wire::TensorProto {
        wire::TensorProto {
            dims: self.dims,
            data_type: self.data_type,
            segment: self.segment.into_option().map(|s| wire::Segment { begin: s.begin, end: s.end }),
            float_data: self.float_data,
            int32_data: self.int32_data,
            string_data: blobs(self.string_data),
            int64_data: self.int64_data,
            name: self.name,
            raw_data: Some(self.raw_data.into()),
            double_data: self.double_data,
            uint64_data: self.uint64_data,
            doc_string: self.doc_string.into(),
            external_data: all(self.external_data),
            data_location: self.data_location.value(),
            metadata_props: all(self.metadata_props),
        }
    }
}

impl Same<wire::SparseTensorProto> for pb::SparseTensorProto {
    fn same(self) -> wire::SparseTensorProto {
        wire::SparseTensorProto { values: one(self.values), indices: one(self.indices), dims: self.dims }
    }
}

impl Same<wire::ValueInfoProto> for pb::ValueInfoProto {
    fn same(self) -> wire::ValueInfoProto {
        wire::ValueInfoProto {
            name: self.name,
            r#type: one(self.type_),
            doc_string: self.doc_string.into(),
            metadata_props: all(self.metadata_props),
        }
    }
}

impl Same<wire::TypeProto> for pb::TypeProto {
    fn same(self) -> wire::TypeProto {
        use pb::type_proto::Value;
        let nested = |elem: MessageField<pb::TypeProto>| {
            Box::new(wire::ElementType { elem_type: one(elem).map(Box::new) })
        };
        let value = self.value.map(|value| match value {
            Value::TensorType(t) => {
                wire::TypeValue::TensorType(wire::TensorType { elem_type: t.elem_type, shape: one(t.shape) })
            }
            Value::SparseTensorType(t) => wire::TypeValue::SparseTensorType(wire::TensorType {
                elem_type: t.elem_type,
                shape: one(t.shape),
            }),
            Value::SequenceType(s) => wire::TypeValue::SequenceType(nested(s.elem_type)),
            Value::OptionalType(o) => wire::TypeValue::OptionalType(nested(o.elem_type)),
            Value::MapType(m) => wire::TypeValue::MapType(Box::new(wire::MapType {
                key_type: m.key_type,
                value_type: one(m.value_type).map(Box::new),
            })),
            other => panic!("the second reader knows another type: {other:?}"),
        });
        wire::TypeProto { value, denotation: self.denotation }
    }
}

impl Same<wire::TensorShapeProto> for pb::TensorShapeProto {
    fn same(self) -> wire::TensorShapeProto {
        use pb::tensor_shape_proto::dimension::Value;
        let dim = |dim: pb::tensor_shape_proto::Dimension| wire::Dimension {
            value: dim.value.map(|value| match value {
                Value::DimValue(size) => wire::DimensionValue::DimValue(size),
                Value::DimParam(name) => wire::DimensionValue::DimParam(name),
                other => panic!("the second reader knows another kind of dim: {other:?}"),
            }),
            denotation: dim.denotation,
        };
        wire::TensorShapeProto { dim: self.dim.into_iter().map(dim).collect() }
    }
}

/// Makes scalars that were not written zero, as the second reader does, and drops what it does not know.
fn normalize(model: &mut wire::ModelProto) {
    model.configuration.clear();
    model.graph.iter_mut().for_each(normalize_graph);
    for info in &mut model.training_info {
        info.initialization.iter_mut().chain(&mut info.algorithm).for_each(normalize_graph);
    }
    for function in &mut model.functions {
        function.node.iter_mut().for_each(normalize_node);
        function.attribute_proto.iter_mut().for_each(normalize_attribute);
    }
}

fn normalize_graph(graph: &mut wire::GraphProto) {
    graph.node.iter_mut().for_each(normalize_node);
    graph.initializer.iter_mut().for_each(normalize_tensor);
    graph.sparse_initializer.iter_mut().for_each(normalize_sparse);
}

fn normalize_node(node: &mut wire::NodeProto) {
    node.device_configurations.clear();
    node.attribute.iter_mut().for_each(normalize_attribute);
}

fn normalize_attribute(attribute: &mut wire::AttributeProto) {
    attribute.f.get_or_insert_default();
    attribute.i.get_or_insert_default();
    attribute.s.get_or_insert_default();
    attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors).for_each(normalize_tensor);
    attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs).for_each(normalize_graph);
    let sparse = attribute.sparse_tensor.as_deref_mut().into_iter().chain(&mut attribute.sparse_tensors);
    sparse.for_each(normalize_sparse);
}

fn normalize_tensor(tensor: &mut wire::TensorProto) {
    tensor.raw_data.get_or_insert_default();
}

fn normalize_sparse(tensor: &mut wire::SparseTensorProto) {
    tensor.values.iter_mut().chain(&mut tensor.indices).for_each(normalize_tensor);
}

/// Fills every field that the second reader knows, at random. (xorshift64: the seed decides all.)
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.next() % (most + 1)
    }

    fn int(&mut self) -> i64 {
        let shift = self.up_to(63);
        (self.next() as i64) >> shift
    }

    fn float(&mut self) -> f32 {
        self.int() as f32
    }

    fn text(&mut self) -> String {
        ["", "x", "batch", "größe", "a/b:0"][self.up_to(4) as usize].to_owned()
    }

    fn blob(&mut self) -> Vec<u8> {
        (0..self.up_to(9)).map(|_| self.next() as u8).collect()
    }

    fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.up_to(2)).map(|_| make(self)).collect()
    }

    fn maybe<T>(&mut self, make: impl Fn(&mut Self) -> T) -> MessageField<T> {
        if self.up_to(1) == 0 { MessageField::none() } else { MessageField::some(make(self)) }
    }

    fn entry(&mut self) -> pb::StringStringEntryProto {
        pb::StringStringEntryProto { key: self.text(), value: self.text(), ..Default::default() }
    }

    fn opset(&mut self) -> pb::OperatorSetIdProto {
        pb::OperatorSetIdProto { domain: self.text(), version: self.int(), ..Default::default() }
    }

    fn tensor(&mut self) -> pb::TensorProto {
        let segment =
            |r: &mut Self| pb::tensor_proto::Segment { begin: r.int(), end: r.int(), ..Default::default() };
        pb::TensorProto {
            dims: self.list(Self::int),
            data_type: self.int() as i32,
            segment: self.maybe(segment),
            float_data: self.list(Self::float),
            int32_data: self.list(|r| r.int() as i32),
            string_data: self.list(Self::blob),
            int64_data: self.list(Self::int),
            name: self.text(),
            doc_string: self.text(),
            raw_data: self.blob(),
            external_data: self.list(Self::entry),
            data_location: EnumOrUnknown::from_i32(self.up_to(2) as i32),
            double_data: self.list(|r| f64::from(r.float())),
            uint64_data: self.list(Self::next),
            metadata_props: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn sparse(&mut self) -> pb::SparseTensorProto {
        pb::SparseTensorProto {
            values: self.maybe(Self::tensor),
            indices: self.maybe(Self::tensor),
            dims: self.list(Self::int),
            ..Default::default()
        }
    }

    fn dim(&mut self) -> pb::tensor_shape_proto::Dimension {
        use pb::tensor_shape_proto::dimension::Value;
        let value = match self.up_to(2) {
            0 => None,
            1 => Some(Value::DimValue(self.int())),
            _ => Some(Value::DimParam(self.text())),
        };
        pb::tensor_shape_proto::Dimension { denotation: self.text(), value, ..Default::default() }
    }

    fn shape(&mut self) -> pb::TensorShapeProto {
        pb::TensorShapeProto { dim: self.list(Self::dim), ..Default::default() }
    }

    fn ty(&mut self, depth: u64) -> pb::TypeProto {
        use pb::type_proto::{Map, Optional, Sequence, SparseTensor, Tensor, Value};
        let kinds = if depth == 0 { 2 } else { 5 };
        let value = match self.up_to(kinds) {
            0 => None,
            1 => Some(Value::TensorType(Tensor {
                elem_type: self.int() as i32,
                shape: self.maybe(Self::shape),
                ..Default::default()
            })),
            2 => Some(Value::SparseTensorType(SparseTensor {
                elem_type: self.int() as i32,
                shape: self.maybe(Self::shape),
                ..Default::default()
            })),
            3 => Some(Value::SequenceType(Sequence {
                elem_type: self.maybe(|r| r.ty(depth - 1)),
                ..Default::default()
            })),
            4 => Some(Value::OptionalType(Optional {
                elem_type: self.maybe(|r| r.ty(depth - 1)),
                ..Default::default()
            })),
            _ => Some(Value::MapType(Map {
                key_type: self.int() as i32,
                value_type: self.maybe(|r| r.ty(depth - 1)),
                ..Default::default()
            })),
        };
        pb::TypeProto { denotation: self.text(), value, ..Default::default() }
    }

    fn value(&mut self) -> pb::ValueInfoProto {
        pb::ValueInfoProto {
            name: self.text(),
            type_: self.maybe(|r| r.ty(2)),
            doc_string: self.text(),
            metadata_props: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn attribute(&mut self, depth: u64) -> pb::AttributeProto {
        let inner = depth.saturating_sub(1);
        let graphs = depth > 0;
        pb::AttributeProto {
            name: self.text(),
            ref_attr_name: self.text(),
            doc_string: self.text(),
            type_: EnumOrUnknown::from_i32(self.up_to(15) as i32),
            f: self.float(),
            i: self.int(),
            s: self.blob(),
            t: self.maybe(Self::tensor),
            g: if graphs { self.maybe(|r| r.graph(inner)) } else { MessageField::none() },
            sparse_tensor: self.maybe(Self::sparse),
            tp: self.maybe(|r| r.ty(1)),
            floats: self.list(Self::float),
            ints: self.list(Self::int),
            strings: self.list(Self::blob),
            tensors: self.list(Self::tensor),
            graphs: if graphs { self.list(|r| r.graph(inner)) } else { Vec::new() },
            sparse_tensors: self.list(Self::sparse),
            type_protos: self.list(|r| r.ty(1)),
            ..Default::default()
        }
    }

    fn node(&mut self, depth: u64) -> pb::NodeProto {
        pb::NodeProto {
            input: self.list(Self::text),
            output: self.list(Self::text),
            name: self.text(),
            op_type: self.text(),
            domain: self.text(),
            overload: self.text(),
            attribute: self.list(|r| r.attribute(depth)),
            doc_string: self.text(),
            metadata_props: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn annotation(&mut self) -> pb::TensorAnnotation {
        pb::TensorAnnotation {
            tensor_name: self.text(),
            quant_parameter_tensor_names: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn graph(&mut self, depth: u64) -> pb::GraphProto {
        pb::GraphProto {
            node: self.list(|r| r.node(depth)),
            name: self.text(),
            initializer: self.list(Self::tensor),
            sparse_initializer: self.list(Self::sparse),
            doc_string: self.text(),
            input: self.list(Self::value),
            output: self.list(Self::value),
            value_info: self.list(Self::value),
            quantization_annotation: self.list(Self::annotation),
            metadata_props: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn training(&mut self) -> pb::TrainingInfoProto {
        pb::TrainingInfoProto {
            initialization: self.maybe(|r| r.graph(0)),
            algorithm: self.maybe(|r| r.graph(0)),
            initialization_binding: self.list(Self::entry),
            update_binding: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn function(&mut self) -> pb::FunctionProto {
        pb::FunctionProto {
            name: self.text(),
            input: self.list(Self::text),
            output: self.list(Self::text),
            attribute: self.list(Self::text),
            attribute_proto: self.list(|r| r.attribute(0)),
            node: self.list(|r| r.node(0)),
            doc_string: self.text(),
            opset_import: self.list(Self::opset),
            domain: self.text(),
            overload: self.text(),
            value_info: self.list(Self::value),
            metadata_props: self.list(Self::entry),
            ..Default::default()
        }
    }

    fn model(&mut self) -> pb::ModelProto {
        pb::ModelProto {
            ir_version: self.int(),
            opset_import: self.list(Self::opset),
            producer_name: self.text(),
            producer_version: self.text(),
            domain: self.text(),
            model_version: self.int(),
            doc_string: self.text(),
            graph: self.maybe(|r| r.graph(1)),
            metadata_props: self.list(Self::entry),
            training_info: self.list(Self::training),
            functions: self.list(Self::function),
            ..Default::default()
        }
    }
}

proptest! {
    #[test]
    fn both_read_and_write_the_same(seed in 1u64..) {
        let theirs = Random(seed).model();
        let written = theirs.write_to_bytes().unwrap();
        let mut ours = wire::ModelProto::decode(Bytes::from(written)).unwrap();
        let back = pb::ModelProto::parse_from_bytes(&ours.encode_to_vec()).unwrap();
        prop_assert_eq!(&back, &theirs);
        normalize(&mut ours);
        prop_assert_eq!(ours, theirs.same());
    }
}

#[test]
fn zoo_models_read_the_same() {
    for (name, path) in zoo::models() {
        let bytes = rabot_mmap::map_file(&path).unwrap();
        let theirs: wire::ModelProto = pb::ModelProto::parse_from_bytes(&bytes).unwrap().same();
        let mut ours = wire::ModelProto::decode(bytes).unwrap();
        normalize(&mut ours);
        // Not `assert_eq!`: a difference would print the weights.
        assert!(ours == theirs, "{name}: the two readers differ");
    }
}
