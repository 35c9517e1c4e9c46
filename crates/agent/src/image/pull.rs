//! Brings images to where they can run. Invariant: an image's record appears only when all of it is in containerd, unpacked,
//! and tied together by garbage collection labels; until then a lease holds the parts.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use containerd_client::{
    services::v1::{
        CreateImageRequest, CreateRequest, DeleteRequest, GetImageRequest, Image as Record,
        ListImagesRequest, ListRequest, UpdateImageRequest,
    },
    tonic::Code,
};
use futures::FutureExt;
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{
    Credentials, Image, ImageRef, ImportError, Progress, PullError, PullPolicy, PullProgress,
    archive::Archive,
    flights::{Flights, Gates},
    manifest::{Config, DOCUMENT_LIMIT, Descriptor, Document, Malformed, Manifest, architecture, select},
    registry::{Registries, Repository},
    store::{ByteStream, Labels, Source, Store, collect, verified},
    unpack::{Step, Unpacker, proto},
};
use crate::runtime::{
    Error,
    client::{Client, failed, unless_missing, unless_present},
    lock, now,
};

/// The images of one instance.
pub(crate) struct Images {
    inner: Arc<Inner>,
    pulls: Flights<PullKey, Result<Image, PullError>>,
}

type PullKey = (ImageRef, PullPolicy, Option<Credentials>);

struct Inner {
    client: Client,
    unpacker: Unpacker,
    registries: Arc<Registries>,
    /// By the name of their record. What is known here was whole when it was put here; a creation that finds it gone says so.
    known: Mutex<HashMap<String, Image>>,
    /// By chain id.
    unpacking: Gates,
    /// By the root's digest: two names of one image share a lease, which the first to finish takes away.
    pulling: Gates,
}

/// Of all instances of this process: their content stores share what one of them has.
static DOWNLOADS: LazyLock<Gates> = LazyLock::new(Gates::default);

const PARALLEL_LAYERS: usize = 4;
const LEASE_PREFIX: &str = "longshore-pull-";

impl Images {
    pub fn new(
        client: Client,
        snapshotter: String,
        mirrors: BTreeMap<String, Vec<String>>,
    ) -> Result<Self, Error> {
        let registries = Registries::new(mirrors)
            .map_err(|error| Error::Failed { attempted: "set up TLS", message: error.to_string() })?;
        let inner = Inner {
            unpacker: Unpacker { client: client.clone(), snapshotter },
            client,
            registries: Arc::new(registries),
            known: Mutex::default(),
            unpacking: Gates::default(),
            pulling: Gates::default(),
        };
        Ok(Self { inner: Arc::new(inner), pulls: Flights::default() })
    }

    /// `progress` is that of the first of those who wait for the same pull.
    pub async fn ensure(
        &self,
        reference: &ImageRef,
        policy: PullPolicy,
        credentials: Option<&Credentials>,
        progress: Option<Progress>,
    ) -> Result<Image, PullError> {
        let key = (reference.clone(), policy, credentials.cloned());
        let (inner, reference, credentials) =
            (Arc::clone(&self.inner), reference.clone(), credentials.cloned());
        let work =
            move || async move { inner.ensure(&reference, policy, credentials, progress).await }.boxed();
        self.pulls.join(key, work).await
    }

    pub async fn import(&self, archive: &Path, tag: Option<&ImageRef>) -> Result<Vec<ImageRef>, ImportError> {
        let archive = Archive::open(archive).await?;
        let images = archive.images(tag)?;
        let source: Arc<dyn Source> = Arc::new(archive);
        let mut imported = Vec::new();
        for (root, names) in images {
            let image = self.inner.materialize(&root, None, &source, &names, None).await?;
            for name in names {
                let image = Image { reference: name.clone(), ..image.clone() };
                lock(&self.inner.known).insert(name.to_string(), image);
                imported.push(name);
            }
        }
        Ok(imported)
    }

    /// Makes every image of another namespace of the same containerd runnable here too. The contents are shared.
    pub async fn share(&self, from: &Client) -> Result<(), PullError> {
        let request = ListImagesRequest { filters: Vec::new() };
        let listed =
            from.images().list(request).await.map_err(failed("list the images"))?.into_inner().images;
        let source: Arc<dyn Source> = Arc::new(Neighbour(Store { client: from.clone() }));
        for image in listed {
            let Ok(reference) = image.name.parse::<ImageRef>() else { continue };
            let root = described(image.target.unwrap_or_default());
            self.inner.materialize(&root, None, &source, std::slice::from_ref(&reference), None).await?;
        }
        Ok(())
    }

    pub async fn list(&self) -> Result<Vec<ImageRef>, Error> {
        let request = ListImagesRequest { filters: Vec::new() };
        let answer = self.inner.client.images().list(request).await.map_err(failed("list the images"))?;
        Ok(answer.into_inner().images.iter().filter_map(|image| image.name.parse().ok()).collect())
    }

    /// Its snapshot turned out to be gone.
    pub fn forget(&self, image: &Image) {
        lock(&self.inner.known).retain(|_, known| known.chain_id != image.chain_id);
    }

    /// What failed pulls left, to be resumed. Only while nothing is pulled.
    pub async fn forget_attempts(&self) -> Result<(), Error> {
        let request = ListRequest { filters: Vec::new() };
        let answer = self.inner.client.leases().list(request).await.map_err(failed("list the leases"))?;
        for lease in answer.into_inner().leases.into_iter().filter(|lease| lease.id.starts_with(LEASE_PREFIX))
        {
            delete_lease(&self.inner.client, lease.id, false).await?;
        }
        Ok(())
    }
}

impl Inner {
    async fn ensure(
        &self,
        reference: &ImageRef,
        policy: PullPolicy,
        credentials: Option<Credentials>,
        progress: Option<Progress>,
    ) -> Result<Image, PullError> {
        let ask = match policy {
            PullPolicy::Always => true,
            // A digest never means anything else later.
            PullPolicy::Default => reference.digest.is_none(),
            PullPolicy::PreferCached | PullPolicy::Never => false,
        };
        if !ask && let Some(image) = self.local(reference).await? {
            return Ok(image);
        }
        if policy == PullPolicy::Never {
            return Err(PullError::NotHere(reference.clone()));
        }
        match self.pull(reference, credentials, progress).await {
            Err(error) if policy == PullPolicy::Default && ask => match self.local(reference).await? {
                Some(image) => {
                    tracing::warn!(%reference, %error, "the pull failed: running the image that is here");
                    Ok(image)
                }
                None => Err(error),
            },
            other => other,
        }
    }

    /// The image as it is here, if it is whole.
    async fn local(&self, reference: &ImageRef) -> Result<Option<Image>, PullError> {
        let name = reference.to_string();
        if let Some(image) = lock(&self.known).get(&name) {
            return Ok(Some(image.clone()));
        }
        let target = match self.client.images().get(GetImageRequest { name: name.clone() }).await {
            Ok(answer) => answer.into_inner().image.and_then(|image| image.target).unwrap_or_default(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed("get an image")(status).into()),
        };
        let root = described(target);
        let nowhere: Arc<dyn Source> = Arc::new(Nowhere(reference.clone()));
        match self.materialize(&root, None, &nowhere, std::slice::from_ref(reference), None).await {
            Ok(image) => {
                lock(&self.known).insert(name, image.clone());
                Ok(Some(image))
            }
            Err(PullError::NotHere(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(
        &self,
        reference: &ImageRef,
        credentials: Option<Credentials>,
        progress: Option<Progress>,
    ) -> Result<Image, PullError> {
        let repository: Repository = self.registries.repository(reference, credentials.as_ref());
        let (root, bytes) = repository.resolve().await?;
        let name = reference.to_string();
        let known = lock(&self.known).get(&name).filter(|image| image.digest == root.digest).cloned();
        if let Some(image) = known {
            return Ok(image);
        }
        let source: Arc<dyn Source> = Arc::new(repository);
        let image =
            self.materialize(&root, bytes, &source, std::slice::from_ref(reference), progress).await?;
        lock(&self.known).insert(name, image.clone());
        Ok(image)
    }

    /// Makes the image of `root` runnable under `names`, with what is missing from `source`.
    async fn materialize(
        &self,
        root: &Descriptor,
        bytes: Option<Bytes>,
        source: &Arc<dyn Source>,
        names: &[ImageRef],
        progress: Option<Progress>,
    ) -> Result<Image, PullError> {
        let _turn = self.pulling.enter(&root.digest).await;
        let documents = self.documents(root, bytes, source).await?;
        let chain_ids = documents.config.chain_ids();
        let lease = Lease::take(&self.client, root).await?;
        let store = Store { client: lease.client.clone() };
        // From the inside out, so that every label names what is there.
        let filled = async {
            documents.write_config(&store, &self.unpacker.snapshotter, chain_ids.last()).await?;
            self.layers(&documents, &chain_ids, &lease.client, source, progress).await?;
            documents.write_manifests(&store).await?;
            for name in names {
                self.record(name, &documents.root).await?;
            }
            Ok(())
        };
        match filled.await {
            Ok(()) => lease.release().await,
            // What others need the room for must not wait for a next attempt.
            Err(PullError::DiskFull) => {
                lease.give_back(&documents.manifest.layers).await;
                return Err(PullError::DiskFull);
            }
            Err(error) => return Err(error),
        }
        Ok(Image {
            reference: names.first().cloned().unwrap_or_default(),
            digest: documents.root.digest.clone(),
            chain_id: chain_ids.last().cloned().unwrap_or_default(),
            config: Arc::new(documents.config.run),
        })
    }

    async fn documents(
        &self,
        root: &Descriptor,
        bytes: Option<Bytes>,
        source: &Arc<dyn Source>,
    ) -> Result<Documents, PullError> {
        let store = Store { client: self.client.clone() };
        let malformed =
            |Malformed(message)| PullError::Registry { host: "the image's source".into(), message };
        let root_bytes = match bytes {
            Some(bytes) => verified(root, bytes)?,
            None => manifest(&store, root, source).await?,
        };
        let mut documents = vec![(sized(root, &root_bytes), root_bytes.clone())];
        let parsed = match Document::parse(&root_bytes).map_err(malformed)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(manifests) => {
                let platform = || format!("linux/{}", architecture());
                let selected =
                    select(&manifests).ok_or_else(|| PullError::NoPlatform { platform: platform() })?;
                let bytes = manifest(&store, selected, source).await?;
                documents.push((sized(selected, &bytes), bytes.clone()));
                match Document::parse(&bytes).map_err(malformed)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => return Err(malformed(Malformed("an index in an index".into()))),
                }
            }
        };
        let config_bytes = match store.read(&parsed.config.digest).await? {
            Some(bytes) => bytes,
            None => {
                let stream = source.blob(&parsed.config, 0).await?;
                verified(&parsed.config, collect(stream, DOCUMENT_LIMIT).await?)?
            }
        };
        let config = Config::parse(&config_bytes).map_err(malformed)?;
        if config.diff_ids.len() != parsed.layers.len() || config.diff_ids.is_empty() {
            return Err(malformed(Malformed("its layers are not those of its configuration".into())));
        }
        let root = documents.first().map(|(descriptor, _)| descriptor.clone()).unwrap_or_default();
        Ok(Documents { root, chain: documents, manifest: parsed, config, config_bytes })
    }

    /// Downloads run ahead of the unpacking, which goes from the bottom up.
    async fn layers(
        &self,
        documents: &Documents,
        chain_ids: &[String],
        leased: &Client,
        source: &Arc<dyn Source>,
        progress: Option<Progress>,
    ) -> Result<(), PullError> {
        let mut present = chain_ids.len();
        while present > 0 && !self.unpacker.has(chain_ids.get(present - 1).map_or("", String::as_str)).await?
        {
            present -= 1;
        }
        let missing = documents.manifest.layers.get(present..).unwrap_or_default();
        let counter = Arc::new(Counter::new(missing, progress));
        let slots = Arc::new(Semaphore::new(PARALLEL_LAYERS));
        let mut downloads: Vec<Download> = missing
            .iter()
            .map(|layer| Download::begin(leased, layer, source, Arc::clone(&slots), Arc::clone(&counter)))
            .collect();
        let unpacker = Unpacker { client: leased.clone(), snapshotter: self.unpacker.snapshotter.clone() };
        for (i, download) in downloads.iter_mut().enumerate() {
            download.finish().await?;
            let at = present + i;
            let text = |list: &[String], at: usize| list.get(at).cloned().unwrap_or_default();
            let (diff_id, chain_id) = (text(&documents.config.diff_ids, at), text(chain_ids, at));
            let parent = at.checked_sub(1).map(|below| text(chain_ids, below)).unwrap_or_default();
            let Some(layer) = missing.get(i) else { continue };
            let _turn = self.unpacking.enter(&chain_id).await;
            if !self.unpacker.has(&chain_id).await? {
                unpacker
                    .unpack(&Step { layer, diff_id: &diff_id, chain_id: &chain_id, parent: &parent })
                    .await?;
            }
        }
        Ok(())
    }

    async fn record(&self, name: &ImageRef, root: &Descriptor) -> Result<(), PullError> {
        let image = Some(Record { name: name.to_string(), target: Some(proto(root)), ..Record::default() });
        let mut client = self.client.images();
        match client
            .create(CreateImageRequest { image: image.clone(), ..CreateImageRequest::default() })
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = UpdateImageRequest { image, ..UpdateImageRequest::default() };
                client.update(request).await.map(|_| ()).map_err(|s| failed("update an image")(s).into())
            }
            Err(status) => Err(failed("record an image")(status).into()),
        }
    }
}

/// All that is said about an image, verified.
struct Documents {
    root: Descriptor,
    /// The root, then its manifest when the root is an index.
    chain: Vec<(Descriptor, Bytes)>,
    manifest: Manifest,
    config: Config,
    config_bytes: Bytes,
}

impl Documents {
    async fn write_config(
        &self,
        store: &Store,
        snapshotter: &str,
        top: Option<&String>,
    ) -> Result<(), PullError> {
        let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
        let labels = top.map(|top| (label, top.clone())).into_iter().collect();
        let descriptor = sized(&self.manifest.config, &self.config_bytes);
        store.write(&descriptor, self.config_bytes.clone(), labels).await
    }

    async fn write_manifests(&self, store: &Store) -> Result<(), PullError> {
        let label =
            |name: String, digest: &str| (format!("containerd.io/gc.ref.content.{name}"), digest.to_owned());
        let layers = self.manifest.layers.iter().enumerate();
        let mut labels: Labels = layers.map(|(i, layer)| label(format!("l.{i}"), &layer.digest)).collect();
        labels.extend([label("config".into(), &self.manifest.config.digest)]);
        for (descriptor, bytes) in self.chain.iter().rev() {
            store.write(descriptor, bytes.clone(), labels).await?;
            labels = [label("m.0".into(), &descriptor.digest)].into();
        }
        Ok(())
    }
}

async fn manifest(
    store: &Store,
    descriptor: &Descriptor,
    source: &Arc<dyn Source>,
) -> Result<Bytes, PullError> {
    match store.read(&descriptor.digest).await? {
        Some(bytes) => Ok(bytes),
        None => verified(descriptor, source.manifest(descriptor).await?),
    }
}

/// The digest is what counts; some registries give a size that is not the document's.
fn sized(descriptor: &Descriptor, bytes: &Bytes) -> Descriptor {
    let media_type = match descriptor.media_type.split(';').next().map(str::trim) {
        Some(given) if !given.is_empty() => given.to_owned(),
        _ => Descriptor::of(bytes).media_type,
    };
    Descriptor { media_type, size: bytes.len() as u64, ..descriptor.clone() }
}

/// A layer on its way; dropped, it stops.
struct Download(JoinHandle<Result<(), PullError>>);

impl Download {
    fn begin(
        leased: &Client,
        layer: &Descriptor,
        source: &Arc<dyn Source>,
        slots: Arc<Semaphore>,
        counter: Arc<Counter>,
    ) -> Self {
        let (store, layer, source) = (Store { client: leased.clone() }, layer.clone(), Arc::clone(source));
        Self(tokio::spawn(async move {
            let _slot = slots.acquire_owned().await;
            let _turn = DOWNLOADS.enter(&layer.digest).await;
            store.ingest(&layer, &*source, &|bytes| counter.add(bytes)).await
        }))
    }

    async fn finish(&mut self) -> Result<(), PullError> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(error) => {
                Err(Error::Failed { attempted: "download a layer", message: error.to_string() }.into())
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Counter {
    bytes: AtomicU64,
    total: u64,
    progress: Option<Progress>,
}

impl Counter {
    fn new(layers: &[Descriptor], progress: Option<Progress>) -> Self {
        let total = layers.iter().map(|layer| layer.size).sum();
        Self { bytes: AtomicU64::new(0), total, progress }
    }

    fn add(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = &self.progress {
            progress(PullProgress { bytes, total_bytes: self.total });
        }
    }
}

/// Holds the parts of an image until its record does. A pull that failed or was killed leaves it, so that the next one
/// goes on from what was downloaded; after a day it expires.
struct Lease {
    id: String,
    client: Client,
}

impl Lease {
    async fn take(client: &Client, root: &Descriptor) -> Result<Self, PullError> {
        const A_DAY: i64 = 24 * 3600 * 1000;
        let until = jiff::Timestamp::from_millisecond(now().plus_millis(A_DAY).millis()).unwrap_or_default();
        // One name for all attempts, or each would leave a lease.
        let id = format!("{LEASE_PREFIX}{}", root.digest.trim_start_matches("sha256:"));
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), until.to_string())]);
        let request = CreateRequest { id: id.clone(), labels };
        unless_present(client.leases().create(request).await, "take a lease")?;
        Ok(Self { client: client.leased(&id)?, id })
    }

    async fn release(self) {
        if let Err(error) = delete_lease(&self.client, self.id, false).await {
            tracing::warn!(%error, "a lease stays until it expires");
        }
    }

    /// Removes what was downloaded of these layers and is not part of an image; their disk is free at the return.
    async fn give_back(self, layers: &[Descriptor]) {
        // A layer that another pull goes on with is left to it.
        const PATIENCE: Duration = Duration::from_secs(1);
        let store = Store { client: self.client.clone() };
        for layer in layers {
            if let Ok(_turn) = tokio::time::timeout(PATIENCE, DOWNLOADS.enter(&layer.digest)).await {
                store.abandon(layer).await;
            }
        }
        if let Err(error) = delete_lease(&self.client, self.id, true).await {
            tracing::warn!(%error, "what was pulled onto a full disk stays until its lease expires");
        }
    }
}

/// `sync`: returns when what only the lease held is gone.
async fn delete_lease(client: &Client, id: String, sync: bool) -> Result<(), Error> {
    unless_missing(client.leases().delete(DeleteRequest { id, sync }).await, "delete a lease")
}

/// For an image that should be here whole.
struct Nowhere(ImageRef);

#[async_trait::async_trait]
impl Source for Nowhere {
    async fn manifest(&self, _: &Descriptor) -> Result<Bytes, PullError> {
        Err(PullError::NotHere(self.0.clone()))
    }

    async fn blob(&self, _: &Descriptor, _: u64) -> Result<ByteStream, PullError> {
        Err(PullError::NotHere(self.0.clone()))
    }
}

/// Another namespace of the same containerd.
struct Neighbour(Store);

#[async_trait::async_trait]
impl Source for Neighbour {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, PullError> {
        let missing = || Error::Failed { attempted: "share an image", message: descriptor.digest.clone() };
        self.0.read(&descriptor.digest).await?.ok_or_else(|| missing().into())
    }

    async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<ByteStream, PullError> {
        self.0.stream(descriptor, offset).await
    }
}

/// What containerd says of a content.
fn described(target: containerd_client::types::Descriptor) -> Descriptor {
    Descriptor {
        media_type: target.media_type,
        digest: target.digest,
        size: u64::try_from(target.size).unwrap_or(0),
        ..Descriptor::default()
    }
}
