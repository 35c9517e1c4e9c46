//! Settings. A flag wins over its environment variable, which wins over the configuration file.

mod agent;

pub use agent::{Agent, AgentArgs};

use crate::Outcome;
use crate::admin::Purpose;
use clap::{Args, Subcommand, ValueEnum};
use longshore_model::vpc::Cidr;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// As AWS waits with taking instances away.
const SCALE_IN_AFTER: Duration = Duration::from_secs(15 * 60);
/// After which an instance's tasks are given up.
const LOST_AFTER: Duration = Duration::from_secs(60);

pub const DATA_DIR: &str = "/var/lib/longshore";

#[derive(Debug, Default, Args)]
pub struct UpArgs {
    /// A TOML file with these settings as keys: `listen = "127.0.0.1:4566"`.
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where records, logs and images are kept [default: /var/lib/longshore].
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address that the APIs are served on [default: 127.0.0.1:4566].
    #[arg(long, env = "LONGSHORE_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Whether signatures are verified [default: strict].
    #[arg(long, env = "LONGSHORE_AUTH", value_enum)]
    auth: Option<Auth>,
    /// How many container instances this machine shows, each with its own network namespace if more than one
    /// [default: 1].
    #[arg(long, env = "LONGSHORE_INSTANCES", value_name = "N")]
    instances: Option<u16>,
    /// How many container instances of a cluster this machine shows beside that, for tasks of the EC2 launch type
    /// [default: 0].
    #[arg(long, env = "LONGSHORE_CONTAINER_INSTANCES", value_name = "N")]
    container_instances: Option<u16>,
    /// The cluster of those container instances; it is made where it is missing [default: default].
    #[arg(long, env = "LONGSHORE_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// The block of the default VPCs, /16 to /24 [default: 172.31.0.0/16].
    #[arg(long, env = "LONGSHORE_VPC_CIDR", value_name = "CIDR")]
    vpc_cidr: Option<Cidr>,
    /// Where the images of a registry come from: HOST=URL, as in docker.io=http://127.0.0.1:5000. May be repeated.
    #[arg(
        long = "registry-mirror",
        env = "LONGSHORE_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_delimiter = ','
    )]
    registry_mirror: Vec<String>,
    /// The socket of a containerd to use instead of one of our own.
    #[arg(long, env = "LONGSHORE_CONTAINERD", value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// How many times the machine's CPU may be promised to tasks, which keep their caps [default: 32].
    #[arg(long, env = "LONGSHORE_OVERCOMMIT_CPU", value_name = "FACTOR")]
    overcommit_cpu: Option<f64>,
    /// How many times the machine's memory may be promised to tasks, which keep their limits [default: 4].
    #[arg(long, env = "LONGSHORE_OVERCOMMIT_MEMORY", value_name = "FACTOR")]
    overcommit_memory: Option<f64>,
    /// How many hours a stopped task is described [default: 24].
    #[arg(long, env = "LONGSHORE_KEEP_STOPPED_TASKS_HOURS", value_name = "HOURS")]
    keep_stopped_tasks_hours: Option<u32>,
    /// Where agents of other machines join [default: nowhere].
    #[arg(long, env = "LONGSHORE_AGENTS_LISTEN", value_name = "ADDR:PORT")]
    agents_listen: Option<SocketAddr>,
    /// How long an instance may be away before its tasks are given up: 90s, 5m, 1h [default: 60s].
    #[arg(long, env = "LONGSHORE_INSTANCE_LOST_AFTER", value_name = "PERIOD")]
    instance_lost_after: Option<Period>,
    /// How long a service's task without health checks runs before it counts as healthy: 5s, 40s [default: 0s].
    #[arg(long, env = "LONGSHORE_TASK_HEALTHY_AFTER", value_name = "PERIOD")]
    task_healthy_after: Option<Period>,
    /// How long an Auto Scaling group has more instances than its tasks need before managed scaling takes them away:
    /// 5m, 15m [default: 15m].
    #[arg(long, env = "LONGSHORE_SCALE_IN_AFTER", value_name = "PERIOD")]
    scale_in_after: Option<Period>,
    /// Where the functions of lifecycle hooks are called, by Lambda's Invoke: http://HOST:PORT [default: nowhere].
    #[arg(long, env = "LONGSHORE_LAMBDA_ENDPOINT", value_name = "URL")]
    lambda_endpoint: Option<String>,
}

#[derive(Debug, Default, Args)]
pub struct ControlArgs {
    /// A TOML file with these settings as keys.
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where logs, and without etcd records, are kept [default: /var/lib/longshore].
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address that the APIs are served on [default: 127.0.0.1:4566].
    #[arg(long, env = "LONGSHORE_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where agents join [default: 0.0.0.0:4567].
    #[arg(long, env = "LONGSHORE_AGENTS_LISTEN", value_name = "ADDR:PORT")]
    agents_listen: Option<SocketAddr>,
    /// Whether signatures are verified [default: strict].
    #[arg(long, env = "LONGSHORE_AUTH", value_enum)]
    auth: Option<Auth>,
    /// The members of an etcd cluster that keeps the records for all control planes: http://HOST:PORT, separated by
    /// commas [default: a store of this control plane's own].
    #[arg(long, env = "LONGSHORE_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    etcd_endpoints: Vec<String>,
    /// What the names of all records in etcd begin with [default: longshore/].
    #[arg(long, env = "LONGSHORE_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<String>,
    /// The block of the default VPCs, /16 to /24; the same for all control planes [default: 172.31.0.0/16].
    #[arg(long, env = "LONGSHORE_VPC_CIDR", value_name = "CIDR")]
    vpc_cidr: Option<Cidr>,
    /// How many hours a stopped task is described [default: 24].
    #[arg(long, env = "LONGSHORE_KEEP_STOPPED_TASKS_HOURS", value_name = "HOURS")]
    keep_stopped_tasks_hours: Option<u32>,
    /// How long an instance may be away before its tasks are given up: 90s, 5m, 1h [default: 60s].
    #[arg(long, env = "LONGSHORE_INSTANCE_LOST_AFTER", value_name = "PERIOD")]
    instance_lost_after: Option<Period>,
    /// How long a service's task without health checks runs before it counts as healthy: 5s, 40s [default: 0s].
    #[arg(long, env = "LONGSHORE_TASK_HEALTHY_AFTER", value_name = "PERIOD")]
    task_healthy_after: Option<Period>,
    /// How long an Auto Scaling group has more instances than its tasks need before managed scaling takes them away:
    /// 5m, 15m [default: 15m].
    #[arg(long, env = "LONGSHORE_SCALE_IN_AFTER", value_name = "PERIOD")]
    scale_in_after: Option<Period>,
    /// Where the functions of lifecycle hooks are called, by Lambda's Invoke: http://HOST:PORT [default: nowhere].
    #[arg(long, env = "LONGSHORE_LAMBDA_ENDPOINT", value_name = "URL")]
    lambda_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a token that lets one agent in, once.
    Create {
        /// The cluster whose tasks the agent is to run.
        #[arg(long, default_value = "default", value_name = "NAME")]
        cluster: String,
        /// Which tasks it is to run.
        #[arg(long, value_enum, default_value_t)]
        launch_type: Purpose,
        /// The region of the cluster.
        #[arg(long, env = "LONGSHORE_REGION", default_value = "us-east-1")]
        region: String,
        /// How long the token can be used: 30m, 1h, 7d.
        #[arg(long, default_value = "1h")]
        ttl: Period,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        /// The data directory of the control plane.
        #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
    },
}

/// A length of time in milliseconds, written as `90s`, `30m`, `1h` or `7d`.
#[derive(Clone, Copy, Debug)]
pub struct Period(pub i64);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a length of time such as 90s, 30m, 1h or 7d");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u32 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        Ok(Self(i64::from(number) * seconds * 1000))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Every request carries a valid signature of a known access key.
    #[default]
    Strict,
    /// Any signature, or none; only on a loopback address.
    Any,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    /// The data directory that `longshore up` was given.
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct EnvArgs {
    /// The data directory that `longshore up` was given.
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// The region to work in.
    #[arg(long, env = "LONGSHORE_REGION", default_value = "us-east-1")]
    pub region: String,
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The ARN of a task or a service, or of a task definition to see which instances would take a task of it now.
    pub arn: String,
    /// The cluster whose instances are asked about a task definition.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub cluster: String,
    /// How to print the causes.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The data directory that `longshore up` was given.
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct InterruptArgs {
    /// The ARN of a task of the capacity provider FARGATE_SPOT.
    pub arn: String,
    /// How to print what was done.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The data directory that `longshore up` was given.
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what changes from now on, until interrupted.
    #[arg(long, short)]
    pub follow: bool,
    /// How to print them; json is EventBridge's form, one event a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The data directory that `longshore up` was given.
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Output {
    /// Numbered lines, for people.
    #[default]
    Text,
    /// One object, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import an OCI or docker archive on every instance of the running server.
    Load {
        /// The archive, as `docker save` or `podman save` write it.
        file: PathBuf,
        /// The name to give it, as in nginx:alpine; without it, the names in the archive.
        #[arg(long)]
        tag: Option<String>,
        /// The data directory that `longshore up` was given.
        #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
    },
}

/// The settings of `longshore up`, complete and checked.
#[derive(Debug)]
pub struct Up {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub auth: Auth,
    pub instances: u16,
    pub container_instances: u16,
    pub cluster: String,
    pub vpc_cidr: Cidr,
    /// Registry host → base URLs.
    pub mirrors: BTreeMap<String, Vec<String>>,
    pub containerd: Option<PathBuf>,
    pub overcommit_cpu: f64,
    pub overcommit_memory: f64,
    pub keep_stopped_tasks_hours: u32,
    pub agents_listen: Option<SocketAddr>,
    pub instance_lost_after: Duration,
    pub task_healthy_after: Duration,
    pub scale_in_after: Duration,
    pub lambda_endpoint: Option<String>,
}

/// The settings of `longshore control`.
#[derive(Debug)]
pub struct Control {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub agents_listen: SocketAddr,
    pub auth: Auth,
    pub etcd_endpoints: Vec<String>,
    pub etcd_prefix: String,
    pub vpc_cidr: Cidr,
    pub keep_stopped_tasks_hours: u32,
    pub instance_lost_after: Duration,
    pub task_healthy_after: Duration,
    pub scale_in_after: Duration,
    pub lambda_endpoint: Option<String>,
}

/// The configuration file: the same settings by the same names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    auth: Option<Auth>,
    instances: Option<u16>,
    container_instances: Option<u16>,
    cluster: Option<String>,
    vpc_cidr: Option<Cidr>,
    registry_mirrors: Option<BTreeMap<String, Vec<String>>>,
    containerd: Option<PathBuf>,
    overcommit_cpu: Option<f64>,
    overcommit_memory: Option<f64>,
    keep_stopped_tasks_hours: Option<u32>,
    agents_listen: Option<SocketAddr>,
    instance_lost_after: Option<String>,
    task_healthy_after: Option<String>,
    scale_in_after: Option<String>,
    lambda_endpoint: Option<String>,
    etcd_endpoints: Option<Vec<String>>,
    etcd_prefix: Option<String>,
    ecs_config: Option<PathBuf>,
    join: Option<Vec<String>>,
    name: Option<String>,
    availability_zone: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
}

impl File {
    fn mirrors(&mut self, given: &[String]) -> Outcome<BTreeMap<String, Vec<String>>> {
        let mut mirrors = self.registry_mirrors.take().unwrap_or_default();
        for mirror in given {
            let (host, url) = split_mirror(mirror)?;
            mirrors.entry(host).or_default().push(url);
        }
        Ok(mirrors)
    }
}

/// What the command line says, or the file, or `default`.
fn period(given: Option<Period>, file: Option<String>, default: Duration) -> Outcome<Duration> {
    let period =
        given.map_or_else(|| file.map(|text| text.parse::<Period>()).transpose(), |given| Ok(Some(given)))?;
    Ok(period.map_or(default, |period| Duration::from_millis(period.0.unsigned_abs())))
}

/// The URL of a plain HTTP server.
fn endpoint(given: Option<String>) -> Outcome<Option<String>> {
    let Some(url) = given.filter(|url| !url.is_empty()) else { return Ok(None) };
    let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    if authority.is_none_or(|authority| authority.is_empty() || authority.contains(['/', ' ', '@', '?', '#']))
    {
        return Err(format!("--lambda-endpoint must be http://HOST:PORT, and is '{url}'").into());
    }
    Ok(Some(url))
}

fn any_vpc() -> Outcome<Cidr> {
    Ok("172.31.0.0/16".parse()?)
}

impl ControlArgs {
    pub fn complete(self) -> Outcome<Control> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let etcd_endpoints = Some(self.etcd_endpoints).filter(|given| !given.is_empty());
        let control = Control {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            listen: self.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4566))),
            agents_listen: self
                .agents_listen
                .or(file.agents_listen)
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 4567))),
            auth: self.auth.or(file.auth).unwrap_or_default(),
            etcd_endpoints: etcd_endpoints.or(file.etcd_endpoints).unwrap_or_default(),
            etcd_prefix: self.etcd_prefix.or(file.etcd_prefix).unwrap_or_else(|| "longshore/".to_owned()),
            vpc_cidr: self.vpc_cidr.or(file.vpc_cidr).map_or_else(any_vpc, Ok)?,
            keep_stopped_tasks_hours: self
                .keep_stopped_tasks_hours
                .or(file.keep_stopped_tasks_hours)
                .unwrap_or(24),
            instance_lost_after: period(self.instance_lost_after, file.instance_lost_after, LOST_AFTER)?,
            task_healthy_after: period(self.task_healthy_after, file.task_healthy_after, Duration::ZERO)?,
            scale_in_after: period(self.scale_in_after, file.scale_in_after, SCALE_IN_AFTER)?,
            lambda_endpoint: endpoint(self.lambda_endpoint.or(file.lambda_endpoint))?,
        };
        check_auth(control.auth, control.listen)?;
        check_vpc_cidr(control.vpc_cidr)?;
        Ok(control)
    }
}

impl UpArgs {
    pub fn complete(self) -> Outcome<Up> {
        let mut file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let mirrors = file.mirrors(&self.registry_mirror)?;
        let up = Up {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            listen: self.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4566))),
            auth: self.auth.or(file.auth).unwrap_or_default(),
            instances: self.instances.or(file.instances).unwrap_or(1),
            container_instances: self.container_instances.or(file.container_instances).unwrap_or(0),
            cluster: self.cluster.or(file.cluster).unwrap_or_else(|| "default".to_owned()),
            vpc_cidr: self.vpc_cidr.or(file.vpc_cidr).map_or_else(any_vpc, Ok)?,
            mirrors,
            containerd: self.containerd.or(file.containerd),
            overcommit_cpu: self.overcommit_cpu.or(file.overcommit_cpu).unwrap_or(32.0),
            overcommit_memory: self.overcommit_memory.or(file.overcommit_memory).unwrap_or(4.0),
            keep_stopped_tasks_hours: self
                .keep_stopped_tasks_hours
                .or(file.keep_stopped_tasks_hours)
                .unwrap_or(24),
            agents_listen: self.agents_listen.or(file.agents_listen),
            instance_lost_after: period(self.instance_lost_after, file.instance_lost_after, LOST_AFTER)?,
            task_healthy_after: period(self.task_healthy_after, file.task_healthy_after, Duration::ZERO)?,
            scale_in_after: period(self.scale_in_after, file.scale_in_after, SCALE_IN_AFTER)?,
            lambda_endpoint: endpoint(self.lambda_endpoint.or(file.lambda_endpoint))?,
        };
        up.check()?;
        Ok(up)
    }
}

impl Up {
    fn check(&self) -> Outcome {
        check_auth(self.auth, self.listen)?;
        check_vpc_cidr(self.vpc_cidr)?;
        if !(1..=64).contains(&self.instances) {
            return Err(format!("--instances must be between 1 and 64, and is {}", self.instances).into());
        }
        if self.container_instances > 64 {
            return Err(format!(
                "--container-instances must be between 0 and 64, and is {}",
                self.container_instances
            )
            .into());
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(1..=255).contains(&self.cluster.len()) || !self.cluster.bytes().all(is_allowed) {
            return Err(format!(
                "--cluster must be 1 to 255 letters, digits, hyphens and underscores, and is '{}'",
                self.cluster
            )
            .into());
        }
        check_overcommit("cpu", self.overcommit_cpu)?;
        check_overcommit("memory", self.overcommit_memory)
    }
}

fn check_auth(auth: Auth, listen: SocketAddr) -> Outcome {
    if auth == Auth::Any && !listen.ip().is_loopback() {
        return Err(format!(
            "--auth any lets everybody in and is refused on {listen}, which is not a loopback address: listen on \
             127.0.0.1, or leave it out"
        )
        .into());
    }
    Ok(())
}

fn check_vpc_cidr(cidr: Cidr) -> Outcome {
    if !(16..=24).contains(&cidr.prefix()) {
        return Err(format!("--vpc-cidr must be between /16 and /24, and is {cidr}").into());
    }
    Ok(())
}

fn check_overcommit(flag: &str, factor: f64) -> Outcome {
    if !(0.01..=10_000.0).contains(&factor) {
        return Err(format!("--overcommit-{flag} must be between 0.01 and 10000, and is {factor}").into());
    }
    Ok(())
}

fn read(path: &Path) -> Outcome<File> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    Ok(toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn split_mirror(mirror: &str) -> Outcome<(String, String)> {
    match mirror.split_once('=') {
        Some((host, url))
            if !host.is_empty() && (url.starts_with("http://") || url.starts_with("https://")) =>
        {
            Ok((host.to_owned(), url.to_owned()))
        }
        Some(_) | None => {
            Err(format!("--registry-mirror wants HOST=URL with an http or https URL, not '{mirror}'").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(change: impl FnOnce(&mut UpArgs)) -> Outcome<Up> {
        let mut args = UpArgs::default();
        change(&mut args);
        args.complete()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let up = up(|_| {}).unwrap();
        assert_eq!(up.listen.to_string(), "127.0.0.1:4566");
        assert_eq!(up.vpc_cidr.to_string(), "172.31.0.0/16");
        assert_eq!((up.auth, up.instances), (Auth::Strict, 1));
    }

    #[test]
    fn what_is_unsafe_or_senseless_is_refused() {
        let any = |listen: &str| {
            up(|args| {
                args.auth = Some(Auth::Any);
                args.listen = Some(listen.parse().unwrap());
            })
        };
        assert!(any("0.0.0.0:4566").is_err());
        assert!(any("127.0.0.1:4566").is_ok());
        assert!(up(|args| args.vpc_cidr = Some("10.0.0.0/8".parse().unwrap())).is_err());
        assert!(up(|args| args.instances = Some(0)).is_err());
        assert!(up(|args| args.overcommit_cpu = Some(f64::NAN)).is_err());
        assert!(up(|args| args.registry_mirror = vec!["docker.io".to_owned()]).is_err());
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "instances = 3\nlisten = \"127.0.0.1:1\"\n").unwrap();
        let up = up(|args| {
            args.config = Some(file.path().to_owned());
            args.instances = Some(2);
        });
        let up = up.unwrap();
        assert_eq!((up.instances, up.listen.port()), (2, 1));
    }
}
