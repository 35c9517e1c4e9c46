//! `longshore why`: what the records say of a task, cause by cause.

use crate::Outcome;
use crate::admin::{self, Ask};
use crate::config::{Output, WhyArgs};
use crate::data_dir::DataDir;

pub async fn run(args: WhyArgs) -> Outcome {
    let data_dir = DataDir::existing(&args.data_dir)?;
    let ask = Ask::Why { arn: args.arn.clone(), cluster: args.cluster.clone() };
    let causes = admin::ask(&data_dir.admin_socket(), &ask, |said| eprintln!("{said}")).await?;
    let causes = causes.ok_or_else(|| {
        format!("no server runs on {}: start it with `longshore up`", data_dir.path().display())
    })?;
    match args.output {
        Output::Text => causes.iter().enumerate().for_each(|(n, cause)| println!("{}. {cause}", n + 1)),
        Output::Json => println!("{}", serde_json::json!({ "arn": args.arn, "causes": causes })),
    }
    Ok(())
}
