//! `longshore env`: the export lines for a shell.

use crate::config::EnvArgs;
use crate::data_dir::DataDir;
use crate::{Outcome, credentials};

pub fn run(args: EnvArgs) -> Outcome {
    let data_dir = DataDir::existing(&args.data_dir)?;
    let running = data_dir.running()?.ok_or_else(|| {
        format!("no server was started on {} yet: run `longshore up` first", data_dir.path().display())
    })?;
    let credentials = credentials::of(&data_dir)?;
    let host = if running.listen.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        running.listen.ip().to_string()
    };
    let host = if running.listen.is_ipv6() && !running.listen.ip().is_unspecified() {
        format!("[{host}]")
    } else {
        host
    };
    println!("export AWS_ENDPOINT_URL=http://{host}:{}", running.listen.port());
    println!("export AWS_REGION={}", args.region);
    println!("export AWS_DEFAULT_REGION={}", args.region);
    println!("export AWS_ACCESS_KEY_ID={}", credentials.access_key_id);
    println!("export AWS_SECRET_ACCESS_KEY={}", credentials.secret_access_key);
    println!("export AWS_DISABLE_HOST_PREFIX_INJECTION=true");
    Ok(())
}
