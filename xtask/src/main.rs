//! Sets up, demonstrates, tests, benchmarks and checks the repository.

fn main() {}
