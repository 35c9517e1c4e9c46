//! The one binary: flags, configuration and wiring. Invariant: nothing is decided here.

mod admin;
mod agent;
mod api;
mod config;
mod control;
mod credentials;
mod data_dir;
mod down;
mod ecs_config;
mod env;
mod events;
mod fleet;
mod image;
mod instance;
mod interrupt;
mod listen;
mod machine;
mod remote;
mod server;
mod token;
mod traffic;
mod up;
mod why;

use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Amazon ECS that you own: real containers behind the AWS APIs.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane and agents on this machine, until SIGTERM; containers outlive it.
    Up(Box<config::UpArgs>),
    /// Run a control plane alone: the APIs and the decisions, for agents on other machines.
    Control(Box<config::ControlArgs>),
    /// Run this machine as a container instance of a control plane elsewhere; containers outlive it.
    Agent(Box<config::AgentArgs>),
    /// Tokens by which agents join.
    Token {
        #[command(subcommand)]
        command: config::TokenCommand,
    },
    /// Stop all tasks and remove containers, networks, mounts and rules; the data directory stays.
    Down(config::DownArgs),
    /// Print the export lines that point the aws CLI and the SDKs at the server.
    Env(config::EnvArgs),
    /// Say why a task is where it is, cause by cause.
    Why(config::WhyArgs),
    /// Take a Spot task's capacity away, as AWS does when others need it: it is told by SIGTERM, and its service replaces it.
    Interrupt(config::InterruptArgs),
    /// Print the state changes of tasks and container instances, as EventBridge passes them on.
    Events(config::EventsArgs),
    /// Images that tasks run.
    Image {
        #[command(subcommand)]
        command: config::ImageCommand,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("longshore: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::run(*args).await,
            Command::Control(args) => control::run(*args).await,
            Command::Agent(args) => agent::run(*args).await,
            Command::Token { command } => token::run(command).await,
            Command::Down(args) => down::run(args).await,
            Command::Env(args) => env::run(args),
            Command::Why(args) => why::run(args).await,
            Command::Interrupt(args) => interrupt::run(args).await,
            Command::Events(args) => events::run(args).await,
            Command::Image { command } => image::run(command).await,
        }
    });
    // Tasks that still wait for something must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Logs go to standard error; `LONGSHORE_LOG` chooses what, as in `debug` or `longshore_agent=debug,info`.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LONGSHORE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fjall=warn,lsm_tree=warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
