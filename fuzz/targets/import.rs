#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rabot_fuzz::import(data));
