//! `longshore interrupt`: takes a Spot task's capacity away, as AWS does when others need it.

use crate::Outcome;
use crate::admin::{self, Ask};
use crate::config::{InterruptArgs, Output};
use crate::data_dir::DataDir;

pub async fn run(args: InterruptArgs) -> Outcome {
    let data_dir = DataDir::existing(&args.data_dir)?;
    let ask = Ask::Interrupt { arn: args.arn.clone() };
    let done = admin::ask(&data_dir.admin_socket(), &ask, |said| eprintln!("{said}")).await?;
    if done.is_none() {
        let path = data_dir.path().display();
        return Err(format!("no server runs on {path}: start it with `longshore up`").into());
    }
    match args.output {
        Output::Text => println!("{} is told to stop", args.arn),
        Output::Json => {
            println!("{}", serde_json::json!({ "arn": args.arn, "stopCode": "SpotInterruption" }))
        }
    }
    Ok(())
}
