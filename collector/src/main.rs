//! The binary `deeptrace-collector`.

fn main() {}
