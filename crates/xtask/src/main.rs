//! The repository's own chores: `codegen` writes the shapes, `layers` and `tidy` check what the compiler cannot.
//! Invariant: only `codegen` (without `--check`) writes to the tree; every chore ends non-zero with what is wrong.

mod codegen;
mod layers;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <codegen [--check] [--botocore DIR] | layers | tidy>";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((chore, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = match chore.as_str() {
        "codegen" => codegen::run(rest),
        "layers" => layers::run(rest),
        "tidy" => tidy::run(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{chore}: {what}");
            ExitCode::FAILURE
        }
    }
}
