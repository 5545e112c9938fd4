//! What can be wrong with `.rbt` text, and where.

use crate::GraphError;
use crate::ops::OpError;
use std::fmt;

/// Longest part of an offending line that is shown, in characters.
const SHOWN_LINE: usize = 160;

/// `.rbt` text that cannot be read; shows the line it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line.
    pub source_line: String,
    /// What is wrong.
    pub kind: Box<ParseErrorKind>,
}

impl ParseError {
    pub(super) fn at(text: &str, offset: usize, kind: ParseErrorKind) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = 1 + before.bytes().filter(|&b| b == b'\n').count();
        let column = 1 + before.get(line_start..).map_or(0, |l| l.chars().count());
        let rest = text.get(line_start..).unwrap_or_default();
        let source_line = rest.lines().next().unwrap_or_default().to_owned();
        ParseError { line, column, source_line, kind: Box::new(kind) }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A long line is shown from shortly before the place.
        let skipped = if self.column > SHOWN_LINE { self.column - SHOWN_LINE / 2 } else { 0 };
        let shown: String = self.source_line.chars().skip(skipped).take(SHOWN_LINE).collect();
        let caret = " ".repeat(self.column.saturating_sub(1 + skipped));
        write!(f, "{}:{}: {}\n  | {shown}\n  | {caret}^", self.line, self.column, self.kind)
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.kind)
    }
}

/// What is wrong with the text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseErrorKind {
    /// Another token was expected.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What could stand there.
        expected: String,
        /// What does.
        found: String,
    },
    /// A character that starts no token.
    #[error("unexpected character {0:?}")]
    BadCharacter(char),
    /// `%` without a number that fits into 32 bits.
    #[error("`%` must be followed by a number below 2^32")]
    BadValueNumber,
    /// A string does not end on its line.
    #[error("no closing {0} on this line")]
    Unterminated(char),
    /// A backslash with something unknown behind it.
    #[error("unknown escape; known are \\n \\r \\t \\\\ \\\" \\` \\u{{hex}}")]
    BadEscape,
    /// A value that no line above defines.
    #[error("value {0} is not defined above")]
    Undefined(String),
    /// A number that is used twice.
    #[error("value %{0} is already defined")]
    Redefined(u32),
    /// No op of that name.
    #[error("unknown op `{0}`")]
    UnknownOp(String),
    /// The op refuses its attributes.
    #[error("{op}: {error}")]
    Attributes {
        /// Name of the op.
        op: String,
        /// What it said.
        error: OpError,
    },
    /// The op refuses its operands.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The declared types are not those that inference gives.
    #[error("declared {declared}, but inference gives {inferred}")]
    Type {
        /// Types in the text.
        declared: String,
        /// Types that follow from the operands.
        inferred: String,
    },
    /// The number of outputs in the text is not the op's.
    #[error("declares {declared} outputs, but the op has {actual}")]
    OutputCount {
        /// Count in the text.
        declared: usize,
        /// Count that inference gives.
        actual: usize,
    },
    /// An attribute is given twice.
    #[error("attribute `{0}` is given twice")]
    DuplicateAttribute(String),
    /// A number, string or word that is no element of the dtype.
    #[error("{text} is no {dtype}")]
    Element {
        /// The text of the element.
        text: String,
        /// The dtype asked for.
        dtype: String,
    },
    /// A list of elements that does not fill its shape.
    #[error("{ty} has {expected} elements, the list has {actual}")]
    ElementCount {
        /// The declared type.
        ty: String,
        /// Elements of the type.
        expected: usize,
        /// Elements in the list.
        actual: usize,
    },
    /// A constant whose type has symbols or negative dims.
    #[error("a constant needs a type with known dims, got {0}")]
    SymbolicConstant(String),
    /// Bounds of `rand` that are not an interval of the dtype.
    #[error("rand: {0}")]
    Rand(String),
    /// Contents that the store does not have.
    #[error("blob {0:?} is not in the store")]
    BlobMissing(String),
    /// Contents that are not what the text says.
    #[error("blob {hash:?}: {reason}")]
    BlobWrong {
        /// The hash in the text.
        hash: String,
        /// What does not fit.
        reason: String,
    },
    /// The list of inputs does not name each input once.
    #[error("the list must name each of the {expected} inputs once")]
    InputOrder {
        /// Number of inputs.
        expected: usize,
    },
    /// A limit that keeps hostile text from eating memory or stack.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}
