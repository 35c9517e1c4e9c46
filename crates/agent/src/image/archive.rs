//! Archives of images: an OCI layout or what `docker save` writes, as a tar file. Invariant: layers are streamed from where
//! they lie in the file; only manifests and configurations are held in memory.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::{
    ImageRef, ImportError, PullError,
    manifest::{Config, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, Document, digest},
    reference::is_digest,
    store::{ByteStream, Source},
};

pub(super) struct Archive {
    path: PathBuf,
    /// Digest → where its bytes lie in the file.
    blobs: HashMap<String, Extent>,
    /// Manifests that the archive does not contain but implies.
    made: HashMap<String, Bytes>,
    /// What it holds, with the names it gives.
    images: Vec<(Descriptor, Vec<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    length: u64,
}

impl Archive {
    pub async fn open(path: &Path) -> Result<Self, ImportError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || read(path)).await;
        opened.unwrap_or_else(|error| Err(ImportError::Format(error.to_string())))
    }

    /// What to import, and under which names.
    pub fn images(&self, tag: Option<&ImageRef>) -> Result<Vec<(Descriptor, Vec<ImageRef>)>, ImportError> {
        if let Some(tag) = tag {
            return match self.images.as_slice() {
                [(root, _)] => Ok(vec![(root.clone(), vec![tag.clone()])]),
                several => Err(ImportError::Format(format!(
                    "it holds {} images, but one tag is given",
                    several.len()
                ))),
            };
        }
        let named = self.images.iter().map(|(root, names)| {
            let names: Vec<ImageRef> = names.iter().filter_map(|name| name.parse().ok()).collect();
            if names.is_empty() { Err(ImportError::NoName) } else { Ok((root.clone(), names)) }
        });
        named.collect()
    }
}

#[async_trait::async_trait]
impl Source for Archive {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, PullError> {
        if let Some(bytes) = self.made.get(&descriptor.digest) {
            return Ok(bytes.clone());
        }
        super::store::collect(self.blob(descriptor, 0).await?, DOCUMENT_LIMIT).await
    }

    async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<ByteStream, PullError> {
        let missing =
            |message: String| PullError::Registry { host: self.path.display().to_string(), message };
        let extent = self
            .blobs
            .get(&descriptor.digest)
            .ok_or_else(|| missing(format!("the archive lacks {}", descriptor.digest)))?;
        let open = async {
            let mut file = tokio::fs::File::open(&self.path).await?;
            file.seek(SeekFrom::Start(extent.offset + offset)).await?;
            io::Result::Ok(file.take(extent.length.saturating_sub(offset)))
        };
        let file = open.await.map_err(|error| missing(error.to_string()))?;
        let host = self.path.display().to_string();
        let chunks = stream::try_unfold(file, |mut file| async move {
            let mut chunk = BytesMut::with_capacity(256 << 10);
            let count = file.read_buf(&mut chunk).await?;
            io::Result::Ok((count > 0).then(|| (chunk.freeze(), file)))
        });
        let named =
            move |error: io::Error| PullError::Registry { host: host.clone(), message: error.to_string() };
        Ok(chunks.map(move |chunk| chunk.map_err(&named)).boxed())
    }
}

fn read(path: PathBuf) -> Result<Archive, ImportError> {
    let mut file = File::open(&path)?;
    let entries = entries(&mut file)?;
    let mut archive = Archive { path, blobs: HashMap::new(), made: HashMap::new(), images: Vec::new() };
    for (name, extent) in &entries {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            archive.blobs.insert(format!("sha256:{hex}"), *extent);
        }
    }
    // docker writes both since version 25; its names are only in the older one's file.
    let saved = entries.get("manifest.json").map(|extent| document(&mut file, *extent)).transpose()?;
    match entries.get("index.json") {
        Some(extent) => {
            let index = document(&mut file, *extent)?;
            read_layout(&mut archive, &index, saved.as_deref())?;
        }
        None => match saved {
            Some(saved) => read_saved(&mut archive, &mut file, &entries, &saved)?,
            None => return Err(ImportError::Format("it has neither index.json nor manifest.json".into())),
        },
    }
    Ok(archive)
}

type Entries = HashMap<String, Extent>;

/// Where every file lies. Links are resolved to what they point at, as `docker save` links equal layers.
fn entries(file: &mut File) -> Result<Entries, ImportError> {
    let mut magic = [0; 4];
    let count = file.read(&mut magic)?;
    if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(ImportError::Format("it is compressed: decompress it first".into()));
    }
    file.rewind()?;
    let (mut entries, mut links) = (Entries::new(), Vec::new());
    if count == 0 {
        return Ok(entries);
    }
    let mut archive = tar::Archive::new(&*file);
    for entry in archive.entries_with_seek().map_err(not_tar)? {
        let entry = entry.map_err(not_tar)?;
        let name = normal(&entry.path().map_err(not_tar)?, None);
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let extent = Extent { offset: entry.raw_file_position(), length: entry.size() };
                entries.insert(name, extent);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name().map_err(not_tar)? {
                    let base = Path::new(&name).parent().filter(|_| entry.header().entry_type().is_symlink());
                    links.push((name.clone(), normal(&target, base)));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(extent) = entries.get(&target).copied() {
            entries.insert(name, extent);
        }
    }
    Ok(entries)
}

fn not_tar(error: io::Error) -> ImportError {
    ImportError::Format(error.to_string())
}

/// `./a/../b` is `b`.
fn normal(path: &Path, base: Option<&Path>) -> String {
    use std::path::Component;
    let mut parts: Vec<String> = Vec::new();
    for component in base.into_iter().flat_map(Path::components).chain(path.components()) {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

fn document(file: &mut File, extent: Extent) -> Result<Vec<u8>, ImportError> {
    if extent.length > DOCUMENT_LIMIT {
        return Err(ImportError::Format("a manifest in it is too large".into()));
    }
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = Vec::new();
    file.take(extent.length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_layout(archive: &mut Archive, index: &[u8], saved: Option<&[u8]>) -> Result<(), ImportError> {
    const FULL_NAME: &str = "io.containerd.image.name";
    const NAME: &str = "org.opencontainers.image.ref.name";
    let manifests = match Document::parse(index) {
        Ok(Document::Index(manifests)) => manifests,
        Ok(Document::Manifest(_)) => return Err(ImportError::Format("index.json is no index".into())),
        Err(error) => return Err(ImportError::Format(error.0)),
    };
    for root in manifests {
        let full = root.annotations.get(FULL_NAME).cloned();
        // Many tools write a bare tag here, which names nothing.
        let name = || root.annotations.get(NAME).filter(|name| name.contains([':', '/'])).cloned();
        archive.images.push((root.clone(), full.or_else(name).into_iter().collect()));
    }
    if let ([(_, names)], Some(saved)) = (archive.images.as_mut_slice(), saved)
        && names.is_empty()
        && let [only] = saved_images(saved)?.as_slice()
    {
        names.extend(only.repo_tags.iter().flatten().cloned());
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn saved_images(bytes: &[u8]) -> Result<Vec<Saved>, ImportError> {
    serde_json::from_slice(bytes).map_err(|error| ImportError::Format(format!("manifest.json: {error}")))
}

/// Such an archive has no manifests in the registry's sense: they are made here.
fn read_saved(
    archive: &mut Archive,
    file: &mut File,
    entries: &Entries,
    saved: &[u8],
) -> Result<(), ImportError> {
    let lacks = |name: &str| ImportError::Format(format!("it lacks {name}"));
    let find = |name: &str| entries.get(&normal(Path::new(name), None)).copied().ok_or_else(|| lacks(name));
    for image in saved_images(saved)? {
        let config_extent = find(&image.config)?;
        let config_bytes = document(file, config_extent)?;
        let config = Config::parse(&config_bytes).map_err(|error| ImportError::Format(error.0))?;
        let config_digest = digest(&config_bytes);
        archive.blobs.insert(config_digest.clone(), config_extent);
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(&config.diff_ids) {
            let extent = find(name)?;
            let (media_type, digest) = layer(file, extent, diff_id)?;
            archive.blobs.insert(digest.clone(), extent);
            layers.push(json!({ "mediaType": media_type, "digest": digest, "size": extent.length }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": config_digest, "size": config_bytes.len(),
            },
            "layers": layers,
        });
        let bytes = Bytes::from(manifest.to_string());
        let root = Descriptor::of(&bytes);
        archive.made.insert(root.digest.clone(), bytes);
        archive.images.push((root, image.repo_tags.unwrap_or_default()));
    }
    Ok(())
}

/// A layer is not compressed as a rule, so that its digest is its diff id, which containerd verifies.
fn layer(file: &mut File, extent: Extent, diff_id: &str) -> Result<(&'static str, String), ImportError> {
    let mut magic = [0; 2];
    file.seek(SeekFrom::Start(extent.offset))?;
    let count = file.take(2).read(&mut magic)?;
    if count < 2 || magic != [0x1f, 0x8b] {
        debug_assert!(is_digest(diff_id), "Config::parse has checked it");
        return Ok(("application/vnd.docker.image.rootfs.diff.tar", diff_id.to_owned()));
    }
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut hasher = Sha256::new();
    io::copy(&mut (&mut *file).take(extent.length), &mut hasher)?;
    let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
    Ok(("application/vnd.docker.image.rootfs.diff.tar.gzip", digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_an_archive_stay_in_it() {
        assert_eq!(normal(Path::new("./a/../b/c"), None), "b/c");
        assert_eq!(normal(Path::new("../../../etc/passwd"), None), "etc/passwd");
        assert_eq!(normal(Path::new("../x/layer.tar"), Some(Path::new("y"))), "x/layer.tar");
    }
}
