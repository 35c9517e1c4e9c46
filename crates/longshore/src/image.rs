//! `longshore image`: what tasks run.

use crate::Outcome;
use crate::admin::{self, Ask};
use crate::config::ImageCommand;
use crate::data_dir::DataDir;

pub async fn run(command: ImageCommand) -> Outcome {
    match command {
        ImageCommand::Load { file, tag, data_dir } => {
            let data_dir = DataDir::existing(&data_dir)?;
            let file = file.canonicalize().map_err(|error| format!("open {}: {error}", file.display()))?;
            let ask = Ask::LoadImage { file, tag };
            let names = admin::ask(&data_dir.admin_socket(), &ask, |said| eprintln!("{said}")).await?;
            let names = names.ok_or_else(|| {
                format!("no server runs on {}: start it with `longshore up`", data_dir.path().display())
            })?;
            for name in names {
                println!("{name}");
            }
            Ok(())
        }
    }
}
