//! The parser: statements, nodes and blocks.

use super::cursor::Cursor;
use super::error::{ParseError, ParseErrorKind};
use super::lexer::Token;
use super::{BlobStore, NoBlobs};
use crate::ops::{If, Loop, Op, Scan};
use crate::{Attrs, Fact, Graph, NodeId, OpError, Value, ValueType};
use std::collections::HashMap;
use std::sync::Arc;

/// Deepest nesting of blocks; the parser recurses into them.
const MAX_BLOCK_DEPTH: usize = 32;

/// Most inputs of a nested graph that are not captured.
const MAX_OWN_INPUTS: usize = 1 << 16;

type Result<T> = std::result::Result<T, ParseError>;

/// A graph and where its nodes stand in the text.
#[derive(Debug, Clone)]
pub struct Module {
    /// The graph.
    pub graph: Graph,
    /// Nodes of the outermost graph by their number in the text.
    pub nodes: HashMap<u32, NodeId>,
    /// Line of each node of the outermost graph, from 1.
    pub lines: HashMap<NodeId, usize>,
    /// Lines of the `output` statements, from 1.
    pub output_lines: Vec<usize>,
}

/// Reads a graph. Constants that are blobs need [`parse_module`] and a store.
///
/// **Errors**: the text is not well-formed, an op refuses what it gets, or a declared type is not the
/// inferred one.
pub fn parse(text: &str) -> Result<Graph> {
    parse_module(text, &NoBlobs).map(|module| module.graph)
}

/// Reads the type of a value, such as `sequence(f32[2,_])`.
///
/// **Errors**: the text is not well-formed.
pub fn parse_type(text: &str) -> Result<ValueType> {
    let mut cursor = Cursor::new(text, &NoBlobs)?;
    let ty = cursor.ty()?;
    match cursor.token {
        Token::End => Ok(ty),
        _ => cursor.expected("the end of the type"),
    }
}

/// As [`parse`], with a store for the contents of large constants, and with positions in the text.
pub fn parse_module(text: &str, blobs: &dyn BlobStore) -> Result<Module> {
    let mut cursor = Cursor::new(text, blobs)?;
    cursor.expect_word("model")?;
    let name = cursor.text("the name of the model")?;
    let block = Block::parse(&mut cursor, &name, None, 0)?;
    let Block { graph, nodes, lines, output_lines, .. } = block;
    Ok(Module { graph, nodes, lines, output_lines })
}

/// What may follow the types of a node.
#[derive(Default)]
struct Annotations {
    name: Option<String>,
    values: Option<Vec<String>>,
    sources: Option<Vec<String>>,
    group: Option<u32>,
}

impl Annotations {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self> {
        let mut found = Annotations::default();
        if matches!(cursor.token, Token::Text(_)) {
            found.name = Some(cursor.text("a name")?);
        }
        if cursor.eat_word("values")? {
            cursor.expect('=')?;
            found.values = Some(cursor.texts()?);
        }
        if cursor.eat_word("sources")? {
            cursor.expect('=')?;
            found.sources = Some(cursor.texts()?);
        }
        if cursor.eat_word("group")? {
            cursor.expect('=')?;
            found.group = Some(cursor.unsigned("the number of a group")?);
        }
        Ok(found)
    }
}

/// The text of a node, before its operator is made.
struct NodeText {
    number: u32,
    start: usize,
    outputs: usize,
}

/// A graph in the making.
struct Block<'g> {
    graph: Graph,
    nodes: HashMap<u32, NodeId>,
    lines: HashMap<NodeId, usize>,
    output_lines: Vec<usize>,
    /// In a branch: what is captured, for the inputs in order.
    captured: Option<&'g [Option<Fact>]>,
    depth: usize,
}

impl<'g> Block<'g> {
    fn parse(
        cursor: &mut Cursor<'_>,
        name: &str,
        captured: Option<&'g [Option<Fact>]>,
        depth: usize,
    ) -> Result<Self> {
        if depth > MAX_BLOCK_DEPTH {
            return Err(cursor.limit("nested blocks", MAX_BLOCK_DEPTH));
        }
        let mut block = Block {
            graph: Graph::new(name),
            nodes: HashMap::new(),
            lines: HashMap::new(),
            output_lines: Vec::new(),
            captured,
            depth,
        };
        loop {
            match cursor.token {
                Token::End if depth == 0 => return Ok(block),
                Token::Punct('}') if depth > 0 => return Ok(block),
                Token::Word("input") => block.input(cursor)?,
                Token::Word("inputs") => block.input_order(cursor)?,
                Token::Word("output") => block.output(cursor)?,
                Token::Value(_) => block.node(cursor)?,
                _ => return cursor.expected("`input`, `output` or a value such as `%0`"),
            }
        }
    }

    /// `input %0 "x" : f32[n]`.
    fn input(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        cursor.expect_word("input")?;
        let start = cursor.start;
        let number = cursor.value_number()?;
        let name = cursor.text("the name of the input")?;
        let type_start = cursor.start;
        cursor.expect(':')?;
        let ty = cursor.ty()?;
        // What is known of a captured value, its contents say, is known inside the branch.
        let captured = self.captured.and_then(|c| c.get(self.graph.inputs().len())).cloned().flatten();
        let fact = captured.unwrap_or_else(|| Fact::of(ty.clone()));
        self.check_types(cursor, type_start, &[ty], std::slice::from_ref(&fact))?;
        let value = self.graph.add_input(&name, fact);
        let annotations = Annotations::parse(cursor)?;
        self.finish(cursor, number, start, value.node, annotations)
    }

    /// `inputs(%1, %0)`: the order, where it is not that of the statements.
    fn input_order(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let start = cursor.start;
        cursor.expect_word("inputs")?;
        cursor.expect('(')?;
        let order = cursor.list(')', |cursor| self.operand(cursor))?;
        let order: Vec<NodeId> = order.into_iter().map(|v| v.node).collect();
        let expected = self.graph.inputs().len();
        let mut sorted = order.clone();
        sorted.sort();
        let mut known = self.graph.inputs().to_vec();
        known.sort();
        if sorted != known {
            return Err(cursor.error(start, ParseErrorKind::InputOrder { expected }));
        }
        self.graph.set_input_order(order);
        Ok(())
    }

    /// `output "y" = %3#1`.
    fn output(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let start = cursor.start;
        cursor.expect_word("output")?;
        let name = cursor.text("the name of the output")?;
        cursor.expect('=')?;
        let value = self.operand(cursor)?;
        self.graph.add_output(&name, value);
        self.output_lines.push(cursor.line(start));
        Ok(())
    }

    /// `%3` or `%3#1`.
    fn operand(&self, cursor: &mut Cursor<'_>) -> Result<Value> {
        let start = cursor.start;
        let number = cursor.value_number()?;
        let slot: u32 = if cursor.eat('#')? { cursor.unsigned("the number of an output")? } else { 0 };
        let node = self.nodes.get(&number).copied();
        let known = node.filter(|&id| (slot as usize) < self.graph.node(id).outputs.len());
        let undefined = || {
            let text = if slot == 0 { format!("%{number}") } else { format!("%{number}#{slot}") };
            cursor.error(start, ParseErrorKind::Undefined(text))
        };
        known.map(|node| Value { node, slot }).ok_or_else(undefined)
    }

    /// `%3:2 = Op(%0, _) {attrs} : types "name" …`, a constant or a conditional.
    fn node(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let start = cursor.start;
        let number = cursor.value_number()?;
        let outputs = if cursor.eat(':')? { cursor.unsigned("the number of outputs")? } else { 1 };
        cursor.expect('=')?;
        let text = NodeText { number, start, outputs };
        let op_start = cursor.start;
        let op = cursor.word("the name of an op")?;
        if op == "Constant" {
            return self.constant(cursor, &text);
        }
        cursor.expect('(')?;
        let inputs = cursor.list(')', |cursor| {
            if cursor.eat_word("_")? { Ok(None) } else { self.operand(cursor).map(Some) }
        })?;
        let attrs = if cursor.eat('{')? { cursor.attrs()? } else { Attrs::new() };
        let type_start = cursor.start;
        let types = cursor.types()?;
        let mut annotations = Annotations::parse(cursor)?;
        let refused = |cursor: &Cursor<'_>, error| {
            cursor.error(op_start, ParseErrorKind::Attributes { op: op.to_owned(), error })
        };
        let op = match op {
            "If" => self.conditional(cursor, &inputs)?,
            "Loop" => {
                let carried = count_attr(&attrs, "carried").map_err(|error| refused(cursor, error))?;
                let body = self.region(cursor, "body", &inputs, 2 + carried, 2 + carried)?;
                Op::Loop(Box::new(Loop { body, carried }))
            }
            "Scan" => {
                let mut scan = Scan::from_attrs(&attrs).map_err(|error| refused(cursor, error))?;
                let own = scan.states + scan.inputs.len();
                scan.body = self.region(cursor, "body", &inputs, own, own)?;
                Op::Scan(Box::new(scan))
            }
            op => match Op::from_attrs(op, &attrs) {
                Some(Ok(op)) => op,
                Some(Err(error)) => return Err(refused(cursor, error)),
                None => return Err(cursor.error(op_start, ParseErrorKind::UnknownOp(op.to_owned()))),
            },
        };
        // A node that has a name stands for the source node of that name unless the text says otherwise.
        let implied = annotations.name.iter().cloned().collect();
        let sources: Vec<String> = annotations.sources.take().unwrap_or(implied);
        let name = annotations.name.take().unwrap_or_else(|| default_name(number));
        let sources = sources.into_iter().map(Arc::from).collect();
        let id = self
            .graph
            .add_node(op, inputs, &name, sources)
            .map_err(|error| cursor.error(op_start, error.into()))?;
        let facts: Vec<Fact> = self.graph.node(id).outputs.iter().map(|o| o.fact.clone()).collect();
        if facts.len() != text.outputs {
            let kind = ParseErrorKind::OutputCount { declared: text.outputs, actual: facts.len() };
            return Err(cursor.error(start, kind));
        }
        if let Some(types) = types {
            self.check_types(cursor, type_start, &types, &facts)?;
        }
        self.finish(cursor, number, start, id, annotations)
    }

    /// `Constant [1, 2] : i64[2]`, after the word.
    fn constant(&mut self, cursor: &mut Cursor<'_>, text: &NodeText) -> Result<()> {
        let literal_start = cursor.start;
        let literal = cursor.literal()?;
        cursor.expect(':')?;
        let ty = cursor.ty()?;
        let tensor = cursor.tensor(&ty, literal, literal_start)?;
        if text.outputs != 1 {
            let kind = ParseErrorKind::OutputCount { declared: text.outputs, actual: 1 };
            return Err(cursor.error(text.start, kind));
        }
        let mut annotations = Annotations::parse(cursor)?;
        let name = annotations.name.take().unwrap_or_else(|| default_name(text.number));
        let value = self.graph.add_constant(&name, tensor);
        self.finish(cursor, text.number, text.start, value.node, annotations)
    }

    /// `then "a" { … } else "b" { … }`.
    fn conditional(&self, cursor: &mut Cursor<'_>, inputs: &[Option<Value>]) -> Result<Op> {
        let then_branch = self.region(cursor, "then", inputs, 1, 0)?;
        let else_branch = self.region(cursor, "else", inputs, 1, 0)?;
        Ok(Op::If(Box::new(If { then_branch, else_branch })))
    }

    /// `body "a" { … }`: a nested graph with `own` inputs before those captured, which are the operands from `first` on.
    fn region(
        &self,
        cursor: &mut Cursor<'_>,
        word: &str,
        inputs: &[Option<Value>],
        first: usize,
        own: usize,
    ) -> Result<Graph> {
        let own = std::iter::repeat_n(None, own.min(MAX_OWN_INPUTS));
        let captured = inputs.iter().skip(first).map(|i| i.map(|v| self.graph.fact(v).clone()));
        let captured: Vec<Option<Fact>> = own.chain(captured).collect();
        cursor.expect_word(word)?;
        let name = cursor.text("the name of the nested graph")?;
        cursor.expect('{')?;
        let block = Block::parse(cursor, &name, Some(&captured), self.depth + 1)?;
        cursor.expect('}')?;
        Ok(block.graph)
    }

    fn check_types(
        &self,
        cursor: &Cursor<'_>,
        start: usize,
        declared: &[ValueType],
        inferred: &[Fact],
    ) -> Result<()> {
        if declared.len() == inferred.len() && declared.iter().zip(inferred).all(|(a, b)| *a == b.ty) {
            return Ok(());
        }
        let join = |types: &mut dyn Iterator<Item = String>| types.collect::<Vec<_>>().join(", ");
        let declared = join(&mut declared.iter().map(ToString::to_string));
        let inferred = join(&mut inferred.iter().map(|f| f.ty.to_string()));
        Err(cursor.error(start, ParseErrorKind::Type { declared, inferred }))
    }

    /// Enters a node under its number and writes down its annotations.
    fn finish(
        &mut self,
        cursor: &mut Cursor<'_>,
        number: u32,
        start: usize,
        id: NodeId,
        annotations: Annotations,
    ) -> Result<()> {
        if self.nodes.insert(number, id).is_some() {
            return Err(cursor.error(start, ParseErrorKind::Redefined(number)));
        }
        self.lines.insert(id, cursor.line(start));
        let outputs = self.graph.node(id).outputs.len();
        if let Some(values) = &annotations.values
            && values.len() != outputs
        {
            let kind = ParseErrorKind::OutputCount { declared: values.len(), actual: outputs };
            return Err(cursor.error(start, kind));
        }
        self.graph.annotate(id, |node| {
            if let Some(sources) = annotations.sources {
                *node.sources = sources.into_iter().map(Arc::from).collect();
            }
            *node.group = annotations.group;
            for (output, name) in node.outputs.iter_mut().zip(annotations.values.into_iter().flatten()) {
                output.name = name.into();
            }
        });
        Ok(())
    }
}

/// An attribute that counts something.
fn count_attr(attrs: &Attrs, name: &str) -> std::result::Result<usize, OpError> {
    let count = attrs.required_int(name)?;
    usize::try_from(count).ok().filter(|&count| count <= MAX_OWN_INPUTS).ok_or_else(|| OpError::Attribute {
        name: name.to_owned(),
        value: count.to_string(),
        reason: format!("expected 0 to {MAX_OWN_INPUTS}"),
    })
}

/// Name of a node for which the text gives none.
pub(super) fn default_name(number: u32) -> String {
    format!("v{number}")
}
