#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| trove_guestagent::rpc::fuzzing::method_args(data));
