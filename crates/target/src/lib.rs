//! Accelerator profiles: what is known of the machine that code is made for.

#![forbid(unsafe_code)]

mod profile;

pub use profile::{Arch, Profile, TargetError};
