//! What registries and archives say about an image. Invariant: a [`Descriptor`] that was read here has a digest that can be
//! verified and a size that fits, so that the rest of the code never doubts it.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{ImageConfig, reference::is_digest};

/// More than registries accept for a manifest.
pub(super) const DOCUMENT_LIMIT: u64 = 8 << 20;

pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub os: String,
    pub architecture: String,
}

#[derive(Clone, Debug)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// An image's configuration: how to run it, and the digests of its unpacked layers.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub run: ImageConfig,
    pub diff_ids: Vec<String>,
}

/// Why a document cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub String);

impl Document {
    /// Told apart by content, as not all registries give the media type.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Either {
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let either: Either = json("manifest", bytes)?;
        let document = match either {
            Either { manifests: Some(manifests), .. } => Self::Index(manifests),
            Either { config: Some(config), layers: Some(layers), .. } => {
                Self::Manifest(Manifest { config, layers })
            }
            _ => return Err(Malformed("neither an index nor a manifest (schema 1 is not supported)".into())),
        };
        let sound = match &document {
            Self::Index(manifests) => manifests.iter().all(Descriptor::is_sound),
            Self::Manifest(manifest) => {
                manifest.layers.iter().chain([&manifest.config]).all(Descriptor::is_sound)
            }
        };
        if sound { Ok(document) } else { Err(Malformed("a digest or a size in it is not valid".into())) }
    }
}

impl Descriptor {
    /// Of a document that is at hand.
    pub fn of(bytes: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Typed {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let typed: Typed = serde_json::from_slice(bytes).unwrap_or_default();
        let by_content = if typed.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
        Self {
            media_type: typed.media_type.unwrap_or_else(|| by_content.into()),
            digest: digest(bytes),
            size: bytes.len() as u64,
            ..Self::default()
        }
    }

    fn is_sound(&self) -> bool {
        is_digest(&self.digest) && i64::try_from(self.size).is_ok()
    }
}

impl Config {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Whole {
            config: Option<ImageConfig>,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Vec<String>,
        }
        let whole: Whole = json("configuration", bytes)?;
        if !whole.rootfs.diff_ids.iter().all(|id| is_digest(id)) {
            return Err(Malformed("the configuration names a layer by something that is no digest".into()));
        }
        Ok(Self { run: whole.config.unwrap_or_default(), diff_ids: whole.rootfs.diff_ids })
    }

    /// The names of the snapshots: each says what is below it too.
    pub fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        for diff_id in &self.diff_ids {
            let id = match chain.last() {
                Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
                None => diff_id.clone(),
            };
            chain.push(id);
        }
        chain
    }
}

/// The manifest for this machine. One that does not say its platform is taken when there is no other.
pub(super) fn select(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |d: &&Descriptor| {
        d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture())
    };
    let only = match manifests {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    };
    manifests.iter().find(fits).or(only)
}

/// As Go and so all registries call it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| Malformed(format!("the {what} cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: Option<(&str, &str)>) -> Descriptor {
        let platform =
            platform.map(|(os, architecture)| Platform { os: os.into(), architecture: architecture.into() });
        Descriptor { platform, ..Descriptor::of(b"{}") }
    }

    #[test]
    fn the_machines_platform_is_selected() {
        let ours = descriptor(Some(("linux", architecture())));
        let other = descriptor(Some(("windows", architecture())));
        let attestation = descriptor(Some(("unknown", "unknown")));
        assert_eq!(select(&[other.clone(), attestation.clone(), ours.clone()]), Some(&ours));
        assert_eq!(select(&[other, attestation.clone()]), None);
        assert_eq!(select(&[attestation]), None);
        assert_eq!(select(&[descriptor(None)]), Some(&descriptor(None)));
    }

    #[test]
    fn chain_ids_name_all_that_is_below() {
        let (a, b) = (digest(b"a"), digest(b"b"));
        let config = Config { run: ImageConfig::default(), diff_ids: vec![a.clone(), b.clone()] };
        assert_eq!(config.chain_ids(), [a.clone(), digest(format!("{a} {b}").as_bytes())]);
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        let manifest = |digest: &str| format!(r#"{{"config":{{"digest":"{digest}","size":1}},"layers":[]}}"#);
        assert!(Document::parse(manifest(&digest(b"x")).as_bytes()).is_ok());
        assert!(Document::parse(manifest("sha256:../../etc").as_bytes()).is_err());
        assert!(Document::parse(manifest("sha512:00").as_bytes()).is_err());
        assert!(Document::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#).is_err());
        assert!(Config::parse(br#"{"rootfs":{"diff_ids":["nope"]}}"#).is_err());
    }
}
