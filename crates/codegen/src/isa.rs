//! From profiles to Cranelift's targets.

use crate::clif::context::CodeTarget;
use crate::error::CodegenError;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use rabot_target::{Arch, Profile};
use target_lexicon::{
    Architecture, BinaryFormat, Environment, OperatingSystem, Riscv64Architecture, Triple, Vendor,
};

/// Extensions of x86-64 and the switches that Cranelift has for them.
const X86_FLAGS: [(&str, &str); 18] = [
    ("sse3", "has_sse3"),
    ("ssse3", "has_ssse3"),
    ("sse4.1", "has_sse41"),
    ("sse4.2", "has_sse42"),
    ("popcnt", "has_popcnt"),
    ("avx", "has_avx"),
    ("avx2", "has_avx2"),
    ("fma", "has_fma"),
    ("bmi1", "has_bmi1"),
    ("bmi2", "has_bmi2"),
    ("lzcnt", "has_lzcnt"),
    ("avxvnni", "has_avx_vnni"),
    ("avx512f", "has_avx512f"),
    ("avx512dq", "has_avx512dq"),
    ("avx512vl", "has_avx512vl"),
    ("avx512vbmi", "has_avx512vbmi"),
    ("avx512bitalg", "has_avx512bitalg"),
    ("avx512vnni", "has_avx512vnni"),
];

/// Extensions of x86-64 that leaves use.
const WIDE_FEATURES: [&str; 6] = ["avx512f", "avx512bw", "avx512dq", "avx512vl", "bmi2", "fma"];

/// Extensions that are part of every RV64GC machine.
const RISCV_FLAGS: [&str; 7] = ["has_m", "has_a", "has_f", "has_d", "has_zca", "has_zicsr", "has_zifencei"];

/// The Cranelift target of a profile. `pic`: for an object file, not for this process.
///
/// **Errors**: Cranelift has no back end for it, or not this one's switches.
pub fn target_isa(profile: &Profile, pic: bool) -> Result<OwnedTargetIsa, CodegenError> {
    let error = |reason: String| CodegenError::Target { profile: profile.name.clone(), reason };
    let mut shared = settings::builder();
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", "speed"),
        ("enable_verifier", verify),
        ("enable_probestack", "false"),
        ("is_pic", if pic { "true" } else { "false" }),
        ("unwind_info", if pic { "true" } else { "false" }),
    ] {
        shared.set(name, value).map_err(|e| error(e.to_string()))?;
    }
    let mut builder = isa::lookup(triple(profile.arch)).map_err(|e| error(e.to_string()))?;
    let enabled: Vec<&str> = match profile.arch {
        Arch::X86_64 => {
            X86_FLAGS.iter().filter(|(name, _)| profile.has(name)).map(|(_, flag)| *flag).collect()
        }
        Arch::Riscv64 => RISCV_FLAGS.to_vec(),
        Arch::Aarch64 => Vec::new(),
    };
    for flag in enabled {
        builder.enable(flag).map_err(|e| error(format!("{flag}: {e}")))?;
    }
    builder.finish(settings::Flags::new(shared)).map_err(|e| error(e.to_string()))
}

fn triple(arch: Arch) -> Triple {
    Triple {
        architecture: match arch {
            Arch::X86_64 => Architecture::X86_64,
            Arch::Aarch64 => Architecture::Aarch64(target_lexicon::Aarch64Architecture::Aarch64),
            Arch::Riscv64 => Architecture::Riscv64(Riscv64Architecture::Riscv64gc),
        },
        vendor: Vendor::Unknown,
        operating_system: OperatingSystem::Linux,
        environment: Environment::Gnu,
        binary_format: BinaryFormat::Elf,
    }
}

/// What the kernel builders must know of a target.
pub fn code_target(profile: &Profile, isa: &OwnedTargetIsa) -> CodeTarget {
    let has_all = |features: &[&str]| features.iter().all(|feature| profile.has(feature));
    let wide = profile.arch == Arch::X86_64 && has_all(&WIDE_FEATURES);
    CodeTarget {
        fma: profile.fma,
        vectors: profile.vector_bits >= 128,
        wide,
        tiles: wide && has_all(&["amx-tile", "amx-bf16"]),
        pointer: isa.pointer_type(),
        call_conv: isa.default_call_conv(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_a_target() {
        for name in Profile::built_in_names().into_iter().chain(["host"]) {
            let profile = Profile::by_name(name).unwrap();
            let isa = target_isa(&profile, true).unwrap();
            let flags: Vec<String> = isa.isa_flags().iter().map(|flag| flag.to_string()).collect();
            if profile.arch == Arch::X86_64 {
                assert_eq!(flags.contains(&"has_fma=1".to_owned()), profile.fma, "{flags:?}");
                assert_eq!(flags.contains(&"has_avx=1".to_owned()), profile.has("avx"), "{flags:?}");
            }
        }
    }
}
