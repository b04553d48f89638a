//! Parses the command line and sets the exit code; nothing else.

fn main() -> std::process::ExitCode {
    trove_guestagent::cli::main()
}
