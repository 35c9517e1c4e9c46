//! `longshore token create`: lets one agent in.

use crate::Outcome;
use crate::admin::{self, Ask};
use crate::config::{Output, TokenCommand};
use crate::data_dir::DataDir;

pub async fn run(command: TokenCommand) -> Outcome {
    let TokenCommand::Create { cluster, launch_type, region, ttl, output, data_dir } = command;
    let data_dir = DataDir::existing(&data_dir)?;
    let ask = Ask::CreateToken { cluster, launch_type, region, millis: ttl.0 };
    let made = admin::ask(&data_dir.admin_socket(), &ask, |_| {}).await?;
    let made = made.ok_or_else(|| {
        format!("no control plane runs on {}: start it with `longshore control`", data_dir.path().display())
    })?;
    for token in made {
        match output {
            Output::Text => println!("{token}"),
            Output::Json => println!("{}", serde_json::json!({ "token": token })),
        }
    }
    Ok(())
}
