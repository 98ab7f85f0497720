//! The driver without coverage, as a test: every target gets its share of a minute. See `fuzz::driver`.

fn main() -> std::process::ExitCode {
    fuzz::driver::main()
}
