//! Profiles, built in and detected.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A machine architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86-64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Arch {
    /// Name, as in profiles.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86-64",
            Arch::Aarch64 => "aarch64",
            Arch::Riscv64 => "riscv64",
        }
    }

    /// That of this machine, if it is one of those known.
    pub fn host() -> Option<Arch> {
        if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Arch::Aarch64)
        } else if cfg!(target_arch = "riscv64") {
            Some(Arch::Riscv64)
        } else {
            None
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is known of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name: `host` or that of a built-in profile.
    pub name: String,
    /// Architecture.
    pub arch: Arch,
    /// Instruction set extensions, by the names of Rust's `target_feature`, sorted.
    pub features: Vec<String>,
    /// Width of the widest vectors in bits; 0 if there are none.
    pub vector_bits: u32,
    /// A multiply-add is one instruction and rounds once.
    pub fma: bool,
    /// First-level data cache of a core.
    pub l1_bytes: u64,
    /// Second-level cache of a core.
    pub l2_bytes: u64,
    /// Last-level cache.
    pub l3_bytes: u64,
    /// Cores that may be used.
    pub cores: u32,
    /// Bytes a second that one core reads from memory.
    pub bandwidth_bytes: u64,
    /// Floating-point operations a second of one core in f32, a multiply-add counted as two, with vectors of 128 bits:
    /// that is how wide generated code is.
    pub peak_flops: u64,
}

/// A profile cannot be had, or not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No such profile.
    #[error("unknown target `{name}`; known are host, {}", Profile::built_in_names().join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A profile's text is wrong.
    #[error("profile `{name}`: {message}")]
    Parse {
        /// Name of the profile.
        name: String,
        /// What is wrong, and where.
        message: String,
    },
    /// Code for another architecture.
    #[error("code for `{profile}` needs a machine of architecture {arch}; this one is {host}")]
    Arch {
        /// Name of the profile.
        profile: String,
        /// Architecture of the profile.
        arch: Arch,
        /// Architecture of this machine.
        host: &'static str,
    },
    /// Code for another machine of the same architecture.
    #[error("code for `{profile}` needs {}, which this machine does not have", missing.join(", "))]
    Missing {
        /// Name of the profile.
        profile: String,
        /// What this machine lacks.
        missing: Vec<String>,
    },
    /// Not a machine that code can be made for.
    #[error("no code can be made for the architecture of this machine, {0}")]
    Host(&'static str),
}

const BUILT_IN: [(&str, &str); 6] = [
    ("x86-64-v2", include_str!("../profiles/x86-64-v2.toml")),
    ("x86-64-v3", include_str!("../profiles/x86-64-v3.toml")),
    ("x86-64-v4", include_str!("../profiles/x86-64-v4.toml")),
    ("x86-64-amx", include_str!("../profiles/x86-64-amx.toml")),
    ("aarch64", include_str!("../profiles/aarch64.toml")),
    ("riscv64", include_str!("../profiles/riscv64.toml")),
];

impl Profile {
    /// Names of the built-in profiles; `host` is another.
    pub fn built_in_names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    /// The profile with this name: `host`, or a built-in one.
    ///
    /// **Errors**: there is none.
    pub fn by_name(name: &str) -> Result<Profile, TargetError> {
        if name == "host" {
            return Profile::host();
        }
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Profile::from_toml(name, text),
            None => Err(TargetError::Unknown { name: name.to_owned() }),
        }
    }

    /// Reads a profile. `name` is for the error message only.
    ///
    /// **Errors**: the text is no TOML, or a field is missing or unknown.
    pub fn from_toml(name: &str, text: &str) -> Result<Profile, TargetError> {
        let mut profile: Profile = toml::from_str(text)
            .map_err(|error| TargetError::Parse { name: name.to_owned(), message: error.to_string() })?;
        profile.features.sort();
        Ok(profile)
    }

    /// The profile of this machine.
    ///
    /// **Errors**: no code can be made for its architecture.
    pub fn host() -> Result<Profile, TargetError> {
        let arch = Arch::host().ok_or(TargetError::Host(std::env::consts::ARCH))?;
        let features: Vec<String> = host_features().into_iter().map(str::to_owned).collect();
        let has = |name: &str| features.iter().any(|f| f == name);
        let (vector_bits, fma) = match arch {
            Arch::X86_64 if has("avx512f") => (512, has("fma")),
            Arch::X86_64 if has("avx2") => (256, has("fma")),
            Arch::X86_64 => (128, has("fma")),
            Arch::Aarch64 => (128, true),
            Arch::Riscv64 => (0, true),
        };
        let base = match arch {
            Arch::X86_64 => "x86-64-v3",
            Arch::Aarch64 => "aarch64",
            Arch::Riscv64 => "riscv64",
        };
        // Caches that the system does not tell of are taken to be as in the built-in profile.
        let mut profile = Profile::by_name(base)?;
        profile.name = "host".to_owned();
        profile.features = features;
        profile.vector_bits = vector_bits;
        profile.fma = fma;
        profile.cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        profile.l1_bytes = cache_bytes("1", "Data").unwrap_or(profile.l1_bytes);
        profile.l2_bytes = cache_bytes("2", "Unified").unwrap_or(profile.l2_bytes);
        profile.l3_bytes = cache_bytes("3", "Unified").unwrap_or(profile.l3_bytes);
        Ok(profile)
    }

    /// The same machine without its tile unit. A system grants that to processes that ask for it, which code that is
    /// linked into another program cannot do for it.
    pub fn without_tiles(mut self) -> Profile {
        self.features.retain(|feature| !feature.starts_with("amx-"));
        self
    }

    /// True if the machine has an extension, by the name of Rust's `target_feature`.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }

    /// Lanes of an f32 vector; 1 if there are no vectors.
    pub fn f32_lanes(&self) -> usize {
        (self.vector_bits as usize / 32).max(1)
    }

    /// Checks that code made for this profile runs on this machine.
    ///
    /// **Errors**: what is missing.
    pub fn runs_here(&self) -> Result<(), TargetError> {
        if Arch::host() != Some(self.arch) {
            let (profile, host) = (self.name.clone(), std::env::consts::ARCH);
            return Err(TargetError::Arch { profile, arch: self.arch, host });
        }
        let here = host_features();
        let missing: Vec<String> =
            self.features.iter().filter(|f| !here.contains(&f.as_str())).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(TargetError::Missing { profile: self.name.clone(), missing })
    }
}

/// Size of a cache of the first core, as Linux tells it.
fn cache_bytes(level: &str, kind: &str) -> Option<u64> {
    let read = |index: u32, file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
        std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    let index = (0..8).find(|&i| {
        read(i, "level").is_some_and(|l| l == level) && read(i, "type").is_some_and(|t| t == kind)
    })?;
    let size = read(index, "size")?;
    let (digits, unit) = match size.strip_suffix('K') {
        Some(digits) => (digits, 1024),
        None => (size.strip_suffix('M')?, 1024 * 1024),
    };
    digits.parse::<u64>().ok().map(|n| n * unit)
}

/// Extensions of this machine, sorted.
#[cfg(target_arch = "x86_64")]
fn host_features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => { [$(($name, std::is_x86_feature_detected!($name))),*] };
    }
    let mut all = detected! {
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "movbe"
        "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512vbmi" "avx512bitalg" "avx512vnni"
        "avx512bf16" "avx512fp16" "avxvnni"
    }
    .to_vec();
    let tiles = has_tiles();
    all.extend(["amx-tile", "amx-int8", "amx-bf16"].map(|name| (name, tiles)));
    let mut found: Vec<&str> = all.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect();
    found.sort_unstable();
    found
}

/// True if the tile unit multiplies int8 and bf16, as Linux tells it (Rust's detection of AMX is not stable).
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| {
        ["amx_tile", "amx_int8", "amx_bf16"].iter().all(|f| line.split(' ').any(|w| w == *f))
    })
}

/// Extensions of this machine, sorted.
#[cfg(target_arch = "aarch64")]
fn host_features() -> Vec<&'static str> {
    if std::arch::is_aarch64_feature_detected!("neon") { vec!["neon"] } else { Vec::new() }
}

/// Extensions of this machine, sorted: those that every RV64GC machine has.
#[cfg(target_arch = "riscv64")]
fn host_features() -> Vec<&'static str> {
    vec!["a", "c", "d", "f", "m"]
}

/// Extensions of this machine: nothing is known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn host_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_well_formed() {
        for name in Profile::built_in_names() {
            let profile = Profile::by_name(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(profile.l1_bytes > 0 && profile.l1_bytes <= profile.l2_bytes, "{name}");
            assert!(
                profile.l2_bytes <= profile.l3_bytes
                    && profile.bandwidth_bytes > 0
                    && profile.cores > 0
                    && profile.peak_flops > 0
            );
            let text = toml::to_string(&profile).unwrap();
            assert_eq!(Profile::from_toml(name, &text).unwrap(), profile);
        }
    }

    #[test]
    fn levels_include_each_other() {
        let levels =
            ["x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-amx"].map(|n| Profile::by_name(n).unwrap());
        for pair in levels.windows(2) {
            assert!(pair[0].features.iter().all(|f| pair[1].has(f)), "{} in {}", pair[0].name, pair[1].name);
        }
        assert!(!levels[0].fma && !levels[0].has("avx") && levels[1].fma);
    }

    #[test]
    fn host_runs_here_and_others_say_what_is_missing() {
        let host = Profile::host().unwrap();
        assert_eq!(host.runs_here(), Ok(()));
        let mut other = host.clone();
        other.features.push("time-travel".to_owned());
        let error = other.runs_here().unwrap_err().to_string();
        assert!(error.contains("time-travel"), "{error}");
        let foreign = if host.arch == Arch::Riscv64 { "aarch64" } else { "riscv64" };
        let error = Profile::by_name(foreign).unwrap().runs_here().unwrap_err();
        assert!(matches!(error, TargetError::Arch { .. }));
        assert!(matches!(Profile::by_name("z80"), Err(TargetError::Unknown { .. })));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = format!("{}\nturbo = true\n", BUILT_IN[0].1);
        let error = Profile::from_toml("x", &text).unwrap_err().to_string();
        assert!(error.contains("turbo"), "{error}");
    }
}
