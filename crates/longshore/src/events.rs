//! `longshore events`: what has changed and changes, for people and for programs.

use crate::Outcome;
use crate::admin::{self, Ask};
use crate::config::{EventsArgs, Output};
use crate::data_dir::DataDir;
use serde_json::Value;
use std::io::Write;

pub async fn run(args: EventsArgs) -> Outcome {
    let data_dir = DataDir::existing(&args.data_dir)?;
    let print = |event: &str| {
        let line = match args.output {
            Output::Json => event.to_owned(),
            Output::Text => text(&serde_json::from_str(event).unwrap_or_default()),
        };
        // Whoever reads may have gone, as `head` does: the next question to the server ends then.
        let mut out = std::io::stdout();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    };
    let told = admin::ask(&data_dir.admin_socket(), &Ask::Events { follow: args.follow }, print).await?;
    told.map(drop).ok_or_else(|| {
        format!("no server runs on {}: start it with `longshore up`", data_dir.path().display()).into()
    })
}

/// `2026-01-31T12:00:00.250Z task default/0123… web:1 RUNNING`, and what is wanted where that differs.
fn text(event: &Value) -> String {
    let detail = &event["detail"];
    let word = |name: &str| detail[name].as_str().unwrap_or_default();
    let resource = |arn: &str| arn.split_once('/').map(|(_, name)| name.to_owned()).unwrap_or_default();
    let at = if word("updatedAt").is_empty() { word("createdAt") } else { word("updatedAt") };
    let mut words = vec![at.to_owned()];
    if detail["taskArn"].is_string() {
        words.extend(["task".to_owned(), resource(word("taskArn")), resource(word("taskDefinitionArn"))]);
        words.push(word("lastStatus").to_owned());
        if word("desiredStatus") != word("lastStatus") {
            words.push(format!("to be {}", word("desiredStatus")));
        }
        if !word("stoppedReason").is_empty() {
            words.push(format!("for {}: {}", word("stopCode"), word("stoppedReason")));
        }
    } else if detail["eventName"].is_string() {
        let service = event["resources"][0].as_str().map(resource).unwrap_or_default();
        words.extend(["service".to_owned(), service, word("eventName").to_owned()]);
        words.extend(
            [word("deploymentId"), word("reason")]
                .map(str::to_owned)
                .into_iter()
                .filter(|word| !word.is_empty()),
        );
    } else {
        words.extend(["container-instance".to_owned(), resource(word("containerInstanceArn"))]);
        words.push(word("status").to_owned());
        let connected = detail["agentConnected"].as_bool() == Some(true);
        words.push(if connected { "connected" } else { "disconnected" }.to_owned());
    }
    words.join(" ")
}
