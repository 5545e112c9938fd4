//! Types of values as files declare them.

use crate::dtype;
use crate::wire::{
    Dimension, DimensionValue, ElementType, MapType, TensorShapeProto, TensorType, TypeProto, TypeValue,
    ValueInfoProto,
};
use rabot_ir::{Dim, Form, Graph, Op, ValueType};
use std::collections::HashSet;
use std::sync::Arc;

/// The symbols that mean the same in every value of a model.
///
/// A dim that is only equal to an input's if the model is run with sizes that fit is none of them: a reader of the file
/// may rely on what types say, and need not refuse what rabot refuses.
pub(super) struct Symbols(HashSet<Arc<str>>);

impl Symbols {
    /// The symbols of a model's inputs.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut symbols = HashSet::new();
        for &input in graph.inputs() {
            let output = &graph.node(input).outputs[0];
            for (axis, dim) in output.fact.shape().iter().enumerate() {
                match dim.as_symbol() {
                    Some(symbol) if !is_anonymous(&output.name, axis, symbol) => {
                        symbols.insert(Arc::from(symbol));
                    }
                    _ => {}
                }
            }
        }
        forget_assumed(graph, &mut symbols);
        Symbols(symbols)
    }

    /// The type of a graph's input, and its name.
    pub(super) fn input(&self, name: &str, ty: &ValueType) -> ValueInfoProto {
        let dim = |axis: usize, dim: &Dim| match dim.as_symbol() {
            Some(symbol) if is_anonymous(name, axis, symbol) => None,
            _ => Some(DimensionValue::DimParam(dim.to_string())),
        };
        info(name, type_proto(ty, &dim))
    }

    /// The type of any other value, and its name.
    pub(super) fn value(&self, name: &str, ty: &ValueType) -> ValueInfoProto {
        let dim = |_: usize, dim: &Dim| {
            let symbol = dim.as_symbol().filter(|symbol| self.0.contains(*symbol))?;
            Some(DimensionValue::DimParam(symbol.to_owned()))
        };
        info(name, type_proto(ty, &dim))
    }
}

/// True if the importer made the symbol up, for a dim that the file does not name.
fn is_anonymous(input: &str, axis: usize, symbol: &str) -> bool {
    symbol == format!("{input}.dim{axis}")
}

fn forget_assumed(graph: &Graph, symbols: &mut HashSet<Arc<str>>) {
    for id in graph.node_ids() {
        let node = graph.node(id);
        for dim in node.equal.iter().flat_map(|(a, b)| [a, b]) {
            dim.for_each_symbol(&mut |symbol| {
                symbols.remove(symbol);
            });
        }
        if matches!(node.op, Op::If(_) | Op::Loop(_) | Op::Scan(_)) {
            node.op.regions().into_iter().for_each(|(_, region)| forget_assumed(region, symbols));
        }
    }
}

fn info(name: &str, ty: TypeProto) -> ValueInfoProto {
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty), ..ValueInfoProto::default() }
}

/// What stands for a dim that is no number.
type OpenDim<'a> = dyn Fn(usize, &Dim) -> Option<DimensionValue> + 'a;

/// A type of which nothing is known of dims that are no numbers.
pub(super) fn plain_type(ty: &ValueType) -> TypeProto {
    type_proto(ty, &|_, _| None)
}

fn type_proto(ty: &ValueType, open: &OpenDim<'_>) -> TypeProto {
    let element = |inner: &ValueType| Box::new(ElementType { elem_type: Some(Box::new(plain_type(inner))) });
    let tensor = |shape| TypeValue::TensorType(TensorType { elem_type: dtype::code(ty.dtype), shape });
    let value = match &ty.form {
        Form::Tensor => tensor(Some(shape(&ty.shape, open))),
        Form::Unranked => tensor(None),
        Form::Sequence(inner) => TypeValue::SequenceType(element(inner)),
        Form::Optional(inner) => TypeValue::OptionalType(element(inner)),
        Form::Map(key, inner) => TypeValue::MapType(Box::new(MapType {
            key_type: dtype::code(*key),
            value_type: Some(Box::new(plain_type(inner))),
        })),
    };
    TypeProto { value: Some(value), ..TypeProto::default() }
}

fn shape(dims: &[Dim], open: &OpenDim<'_>) -> TensorShapeProto {
    let dim = |(axis, dim): (usize, &Dim)| {
        let value = match dim.as_const() {
            Some(size) => Some(DimensionValue::DimValue(size)),
            None => open(axis, dim),
        };
        Dimension { value, ..Dimension::default() }
    };
    TensorShapeProto { dim: dims.iter().enumerate().map(dim).collect() }
}
