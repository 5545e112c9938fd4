//! The ISA levels that can be tested on this machine.

use rabot_target::Profile;

/// Every built-in profile whose code runs here. The others are printed with what is missing.
///
/// **Panics** if a built-in profile cannot be read, or none runs here.
pub fn levels() -> Vec<Profile> {
    let mut levels = Vec::new();
    for name in Profile::built_in_names() {
        let profile = Profile::by_name(name).unwrap_or_else(|error| panic!("{error}"));
        match profile.runs_here() {
            Ok(()) => levels.push(profile),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
    assert!(!levels.is_empty(), "no built-in profile runs on this machine");
    levels
}
