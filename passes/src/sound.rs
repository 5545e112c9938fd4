//! Every rule alone: its patterns are made into graphs with random shapes, dtypes, attributes and values, and what the
//! interpreter gives before and after must agree as the rule declares.
//!
//! A rule that holds for all values gets NaN, infinities, zeros of both signs, denormal and large numbers. One that
//! holds for finite values gets finite ones only, and is off under `strict`. What the random graphs miss of a rule, the
//! graphs that are written down for it or for the golden files add.

mod tests;
