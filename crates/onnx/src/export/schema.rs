//! What each version of each operator takes. `schemas.txt` says so; `schemas.py` writes it and explains its form.

use crate::dtype;
use rabot_ir::{Attr, Form, ValueType};
use std::collections::HashMap;

/// Versions of operators by domain and name.
pub(super) struct Schemas(HashMap<(&'static str, &'static str), Vec<Version>>);

/// An operator from one operator set of its domain on.
pub(super) struct Version {
    pub(super) since: i64,
    pub(super) deprecated: bool,
    pub(super) inputs: Vec<Parameter>,
    pub(super) outputs: Vec<Parameter>,
    pub(super) attrs: Vec<Attribute>,
}

/// An input or output.
pub(super) struct Parameter {
    /// Parameters of one variable have one type.
    pub(super) variable: &'static str,
    /// The bits of the codes of dtypes; bit 0 for what is no tensor.
    mask: u32,
    pub(super) mark: Mark,
}

/// How often a parameter is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Once,
    AtMostOnce,
    Repeated,
    /// Repeated with types that may differ.
    RepeatedFreely,
}

/// An attribute.
pub(super) struct Attribute {
    pub(super) name: &'static str,
    /// A letter, as `schemas.py` lists them.
    pub(super) kind: u8,
    pub(super) required: bool,
    default: &'static str,
}

impl Parameter {
    /// True if a value of this type may be given.
    pub(super) fn takes(&self, ty: &ValueType) -> bool {
        let code = match ty.form {
            Form::Tensor | Form::Unranked => dtype::code(ty.dtype),
            Form::Sequence(_) | Form::Optional(_) | Form::Map(..) => 0,
        };
        self.mask >> code & 1 == 1
    }

    /// True if it may be given any number of times.
    pub(super) fn is_repeated(&self) -> bool {
        matches!(self.mark, Mark::Repeated | Mark::RepeatedFreely)
    }
}

impl Attribute {
    /// What the attribute is where it is not given, if that is a value.
    pub(super) fn default(&self) -> Option<Attr> {
        let text = Some(self.default).filter(|text| !text.is_empty())?;
        let list = || text.split(';');
        match self.kind {
            b'i' => text.parse().ok().map(Attr::Int),
            b'f' => text.parse().ok().map(Attr::Float),
            b's' => Some(Attr::Str(text.to_owned())),
            b'I' => list().map(|one| one.parse().ok()).collect::<Option<_>>().map(Attr::Ints),
            b'F' => list().map(|one| one.parse().ok()).collect::<Option<_>>().map(Attr::Floats),
            b'S' => Some(Attr::Strs(list().map(str::to_owned).collect())),
            _ => None,
        }
    }
}

impl Schemas {
    /// All schemas.
    pub(super) fn new() -> Self {
        let mut schemas: HashMap<_, Vec<Version>> = HashMap::new();
        for (key, version) in include_str!("schemas.txt").lines().filter_map(row) {
            schemas.entry(key).or_default().push(version);
        }
        Schemas(schemas)
    }

    /// All versions of an operator, the oldest first; none if it is not known.
    pub(super) fn versions<'a>(&'a self, domain: &'a str, op: &'a str) -> &'a [Version] {
        self.0.get(&(domain, op)).map_or(&[], Vec::as_slice)
    }

    /// The version of an operator that holds in an operator set.
    pub(super) fn find<'a>(&'a self, domain: &'a str, op: &'a str, opset: i64) -> Option<&'a Version> {
        self.versions(domain, op).iter().rev().find(|version| version.since <= opset)
    }

    /// True if operators of this domain are known.
    pub(super) fn has_domain(&self, domain: &str) -> bool {
        self.0.keys().any(|key| key.0 == domain)
    }

    /// The newest operator set of a domain in which something changed.
    pub(super) fn newest(&self, domain: &str) -> i64 {
        let versions = self.0.iter().filter(|(key, _)| key.0 == domain).flat_map(|(_, versions)| versions);
        versions.map(|version| version.since).max().unwrap_or(1)
    }
}

/// One line of the table; `None` where it is not in its form.
fn row(line: &'static str) -> Option<((&'static str, &'static str), Version)> {
    let fields: Vec<&'static str> = line.split(' ').collect();
    let [domain, op, since, deprecated, inputs, outputs, attrs] = fields[..] else { return None };
    let list = |text: &'static str| text.split(',').filter(|part| *part != "-");
    let version = Version {
        since: since.parse().ok()?,
        deprecated: deprecated == "deprecated",
        inputs: list(inputs).map(parameter).collect::<Option<_>>()?,
        outputs: list(outputs).map(parameter).collect::<Option<_>>()?,
        attrs: list(attrs).map(attribute).collect::<Option<_>>()?,
    };
    Some(((if domain == "-" { "" } else { domain }, op), version))
}

fn parameter(text: &'static str) -> Option<Parameter> {
    let (variable, rest) = text.split_once('.')?;
    let digits = rest.trim_end_matches(['?', '*', '%']);
    let mark = match rest.get(digits.len()..)? {
        "" => Mark::Once,
        "?" => Mark::AtMostOnce,
        "*" => Mark::Repeated,
        "%" => Mark::RepeatedFreely,
        _ => return None,
    };
    Some(Parameter { variable, mask: u32::from_str_radix(digits, 16).ok()?, mark })
}

fn attribute(text: &'static str) -> Option<Attribute> {
    let (name, rest) = text.split_once(':')?;
    let (kind, default) = rest.split_once(':')?;
    let required = default == "!";
    let default = if required { "" } else { default };
    Some(Attribute { name, kind: *kind.as_bytes().first()?, required, default })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_tensor::DType;

    #[test]
    fn every_line_is_read() {
        let bad: Vec<&str> = include_str!("schemas.txt").lines().filter(|line| row(line).is_none()).collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert!(Schemas::new().0.len() > 200);
    }

    #[test]
    fn versions_hold_until_the_next() {
        let schemas = Schemas::new();
        let since = |opset| schemas.find("", "Clip", opset).map(|version| version.since);
        assert_eq!((since(5), since(10), since(12), since(28)), (Some(1), Some(6), Some(12), Some(13)));
        assert_eq!(schemas.find("", "Gelu", 19).map(|version| version.since), None);
        let clip = schemas.find("", "Clip", 10).unwrap();
        assert_eq!(clip.attrs[1].default(), Some(Attr::Float(f32::MIN)));
        assert!(clip.inputs[0].takes(&ValueType::unranked(DType::F16)));
        assert!(!clip.inputs[0].takes(&ValueType::unranked(DType::I32)));
    }

    #[test]
    fn operator_sets_are_those_of_the_importer() {
        assert_eq!(Schemas::new().newest(""), crate::NEWEST_OPSET);
    }
}
