//! Every pass by name, and the standard pipelines.

use crate::{canonicalize, convert, fuse, prune, quantize};
use rabot_rewrite::{PassInfo, Pipeline, PipelineError};

/// Every pass, in the order in which lists show them.
pub const PASSES: &[PassInfo] = &[
    canonicalize::fold::INFO,
    canonicalize::algebra::INFO,
    canonicalize::cse::INFO,
    canonicalize::dce::INFO,
    canonicalize::unroll::INFO,
    fuse::qdq::INFO,
    fuse::reassociate::INFO,
    fuse::fusion::INFO,
    fuse::subpixel::INFO,
    prune::dead::INFO,
    prune::magnitude::INFO,
    quantize::int8::INFO,
    convert::INFO,
    fuse::group::INFO,
    fuse::compact::INFO,
];

/// A pass of a pipeline and why it stands there.
type Line = (&'static str, &'static str);

/// The default pipeline, each pass with its reason.
const DEFAULT: &[Line] = &[
    ("qdq", "first: folding would make f32 of integer weights"),
    ("cse", "what is there twice is folded once"),
    ("fold", "makes weights and shapes constant: every later rule looks at constants"),
    ("unroll", "trip counts are constant now, and every later pass sees what rounds compute"),
    ("cse", "before rules: a value that is computed twice does not match where it is used once"),
    ("algebra", "no-op casts and views stand between the operators that `fuse` looks for"),
    ("fuse", "while batch norms and activations are still whole"),
    ("subpixel", "behind `fuse`, which folds scales into the weights; the views it makes are for `algebra`"),
    ("fold", "constants that fusing left to compute"),
    ("algebra", "identities that fusing made"),
    ("channels", "slices of layers are as far down as they go, and weights are whole"),
    ("cse", "equal constants that fusing made"),
    ("dce", "before grouping: an unused user would keep a value out of a kernel"),
    ("group", "last: every rewrite would break up groups"),
];

/// The pipelines of `-O0` to `-O3`.
const LEVELS: [&[Line]; 4] = [
    // The model as it is: what debugging compares with.
    &[],
    // Clean-up that changes no bit, and kernels: for models that are compiled often and run little.
    &[
        ("cse", "what is there twice is folded once"),
        ("fold", "makes weights and shapes constant, which views and kernels need"),
        ("algebra", "no-op casts and views"),
        ("dce", "before grouping: an unused user would keep a value out of a kernel"),
        ("group", "last: every rewrite would break up groups"),
    ],
    DEFAULT,
    // As -O2, and what moves rounding errors with the values.
    &[
        ("qdq", "first: folding would make f32 of integer weights"),
        ("cse", "what is there twice is folded once"),
        ("fold", "makes weights and shapes constant: every later rule looks at constants"),
        ("unroll", "trip counts are constant now, and every later pass sees what rounds compute"),
        ("cse", "before rules: a value that is computed twice does not match where it is used once"),
        ("algebra", "no-op casts and views stand between the operators that rules look for"),
        ("reassociate", "before `fuse`: it makes the means that norms are recognized by, and fewer weights"),
        ("cse", "a mean that reassociating took anew is one that is there already"),
        ("fuse", "while batch norms and activations are still whole"),
        (
            "subpixel",
            "behind `fuse`, which folds scales into the weights; the views it makes are for `algebra`",
        ),
        ("fold", "constants that fusing left to compute"),
        ("algebra", "identities that fusing made"),
        ("channels", "slices of layers are as far down as they go, and weights are whole"),
        ("cse", "equal constants that fusing made"),
        ("dce", "before grouping: an unused user would keep a value out of a kernel"),
        ("group", "last: every rewrite would break up groups"),
    ],
];

/// The default pipeline as text.
pub const DEFAULT_PIPELINE: &str =
    "qdq,cse,fold,unroll,cse,algebra,fuse,subpixel,fold,algebra,channels,cse,dce,group";

/// The pipeline of an optimization level as text: 0 does nothing, 1 cleans up and groups without changing a bit, 2 is
/// the default, 3 also reorders sums and products. `None` for other levels.
///
/// ```
/// assert_eq!(rabot_passes::level(0).as_deref(), Some(""));
/// assert_eq!(rabot_passes::level(2).as_deref(), Some(rabot_passes::DEFAULT_PIPELINE));
/// ```
pub fn level(number: u8) -> Option<String> {
    let lines = LEVELS.get(usize::from(number))?;
    Some(lines.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","))
}

/// Reads a pipeline over [`PASSES`].
///
/// **Errors**: syntax, an unknown pass or option, or a value the option does not take.
pub fn pipeline(text: &str) -> Result<Pipeline, PipelineError> {
    Pipeline::parse(text, PASSES)
}

/// The passes every model goes through unless told otherwise; the empty pipeline is `-O0`.
pub fn default_pipeline() -> Pipeline {
    let make = |name: &str| PASSES.iter().find(|info| info.name == name);
    let passes = DEFAULT.iter().filter_map(|(name, _)| make(name));
    let defaults = |info: &PassInfo| (info.make)(&rabot_rewrite::Options::new(info.name, info.options)).ok();
    Pipeline::new(passes.filter_map(defaults).collect())
}

/// Passes at the end of the default pipeline that clean up and group.
const CLEAN_UP: usize = 3;

/// The default pipeline as text with other passes, `prune` and `quantize` say, where they belong: behind fusing, so
/// that they see whole layers with the weights that these multiply by, and before the last clean-up and grouping,
/// which then fit what they leave. No text gives the default pipeline.
///
/// ```
/// let text = rabot_passes::default_pipeline_with("prune,quantize");
/// assert_eq!(text, "qdq,cse,fold,unroll,cse,algebra,fuse,subpixel,fold,algebra,channels,prune,quantize,cse,dce,group");
/// ```
pub fn default_pipeline_with(passes: &str) -> String {
    let names: Vec<&str> = DEFAULT.iter().map(|(name, _)| *name).collect();
    let (before, after) = names.split_at(names.len().saturating_sub(CLEAN_UP));
    let middle = Some(passes.trim()).filter(|text| !text.is_empty());
    let all: Vec<&str> = before.iter().copied().chain(middle).chain(after.iter().copied()).collect();
    all.join(",")
}

/// Passes of the default pipeline that make forms for kernels, which files for other programs are better without.
const FOR_KERNELS: [&str; 2] = ["subpixel", "group"];

/// The pipeline for models that are written as files for other programs, as text: that of kernels without their own
/// forms, and what says the same in fewer nodes.
pub fn file_pipeline() -> String {
    let names = DEFAULT.iter().map(|(name, _)| *name).filter(|name| !FOR_KERNELS.contains(name));
    names.chain(["compact", "dce"]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_no_forms_for_kernels() {
        let text = file_pipeline();
        assert_eq!(text, "qdq,cse,fold,unroll,cse,algebra,fuse,fold,algebra,channels,cse,dce,compact,dce");
        assert!(pipeline(&text).is_ok());
    }

    #[test]
    fn other_passes_come_between_fusing_and_cleaning_up() {
        assert_eq!(default_pipeline_with(""), DEFAULT_PIPELINE);
        let text = default_pipeline_with("prune{sparsity=0.25},quantize");
        assert_eq!(pipeline(&text).unwrap().to_string(), text);
        assert!(text.ends_with(",prune{sparsity=0.25},quantize,cse,dce,group"), "{text}");
    }

    #[test]
    fn the_default_pipeline_is_what_its_text_says() {
        assert_eq!(default_pipeline().to_string(), DEFAULT_PIPELINE);
        assert_eq!(pipeline(DEFAULT_PIPELINE).unwrap().to_string(), DEFAULT_PIPELINE);
        assert_eq!(default_pipeline().passes().len(), DEFAULT.len());
    }

    #[test]
    fn levels_are_pipelines() {
        let levels: Vec<String> = (0..=3).map(|number| level(number).unwrap()).collect();
        for text in &levels {
            assert_eq!(pipeline(text).unwrap().to_string(), *text);
        }
        assert_eq!(levels[2], DEFAULT_PIPELINE);
        let bitwise = pipeline(&levels[1]).unwrap();
        assert!(bitwise.passes().iter().all(|pass| pass.exactness() == rabot_rewrite::Exactness::Bitwise));
        assert_eq!(level(4), None);
    }

    #[test]
    fn every_pass_prints_nothing_for_its_defaults() {
        for info in PASSES {
            assert_eq!(pipeline(info.name).unwrap().to_string(), info.name);
            assert_eq!(pipeline(info.name).unwrap().passes()[0].name(), info.name);
        }
    }
}
