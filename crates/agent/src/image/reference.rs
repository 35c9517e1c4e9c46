//! Names of images. Invariant: an [`ImageRef`] is complete: it always has a registry host, a repository, and a tag
//! or a digest, so that two spellings of one image are equal.

use std::{fmt, str::FromStr};

/// `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Host with an optional port.
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`; it wins over the tag.
    pub digest: Option<String>,
}

impl ImageRef {
    /// What a registry's manifest endpoint is asked for.
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Plain HTTP is spoken to loopback, where nobody is in between.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl Default for ImageRef {
    fn default() -> Self {
        Self {
            host: DOCKER.into(),
            repository: "library/scratch".into(),
            tag: Some("latest".into()),
            digest: None,
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: `{0}`")]
pub struct InvalidReference(pub String);

const DOCKER: &str = "docker.io";

impl FromStr for ImageRef {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).ok_or_else(|| InvalidReference(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<ImageRef> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if text.len() > 1024 || digest.is_some_and(|d| !is_digest(d)) {
        return None;
    }
    let (host, path) = split_host(name);
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    let repository = match host {
        DOCKER if !repository.contains('/') => format!("library/{repository}"),
        _ => repository.to_owned(),
    };
    if !is_host(host) || !is_repository(&repository) || tag.is_some_and(|t| !is_tag(t)) {
        return None;
    }
    let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
    Some(ImageRef { host: host.into(), repository, tag: tag.map(Into::into), digest: digest.map(Into::into) })
}

/// The first part is a host only if it looks like one: `a/b` is on docker.io, `a.b/c` and `localhost/c` are not.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            (if host == "index.docker.io" { DOCKER } else { host }, path)
        }
        _ => (DOCKER, name),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        });
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let labels = !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    labels && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|n| n > 0)
}

fn is_repository(repository: &str) -> bool {
    repository.len() <= 255 && repository.split('/').all(is_component)
}

/// Lower case words, joined by one dot, one or two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    ends_in_words
        && bytes
            .split(|b| word(*b))
            .all(|join| matches!(join, b"" | b"." | b"_" | b"__") || join.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Whether `text` is a digest we can verify.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = if host.starts_with('[') {
        host.trim_start_matches('[').split(']').next().unwrap_or_default()
    } else {
        host.split(':').next().unwrap_or_default()
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let parsed = text.parse::<ImageRef>();
        assert_eq!(parsed.as_ref().map(ToString::to_string), Ok(expected.to_owned()), "{text}");
        assert_eq!(parsed, expected.parse::<ImageRef>(), "{text} again");
    }

    #[test]
    fn short_names_are_completed() {
        check("nginx", "docker.io/library/nginx:latest");
        check("nginx:1.27-alpine", "docker.io/library/nginx:1.27-alpine");
        check("grafana/loki", "docker.io/grafana/loki:latest");
        check("docker.io/nginx", "docker.io/library/nginx:latest");
        check("index.docker.io/a/b:c", "docker.io/a/b:c");
    }

    #[test]
    fn hosts_and_ports_are_told_from_paths_and_tags() {
        check("localhost/a", "localhost/a:latest");
        check("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        check(
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1",
        );
    }

    #[test]
    fn a_digest_replaces_the_default_tag() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        check(&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}"));
        check(&format!("nginx:1@{digest}"), &format!("docker.io/library/nginx:1@{digest}"));
        assert_eq!(format!("nginx:1@{digest}").parse::<ImageRef>().unwrap().version(), digest);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for wrong in [
            "",
            "Nginx",
            "a b",
            "a:",
            "a::b",
            "a/",
            "/a",
            "a//b",
            "a@sha256:12",
            "a.b:x/c",
            "-a.b/c",
            "a___b",
            "a:-b",
            "a/.b",
        ] {
            assert_eq!(wrong.parse::<ImageRef>(), Err(InvalidReference(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn loopback_is_seen_by_address() {
        for (host, expected) in [
            ("localhost:5000", true),
            ("127.0.0.2", true),
            ("[::1]:80", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
