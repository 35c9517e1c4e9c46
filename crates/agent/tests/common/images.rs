//! Images made on the fly, from Debian's static busybox.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image as a registry holds it.
pub struct TestImage {
    /// Digest → (media type, bytes); documents too.
    pub blobs: BTreeMap<String, (String, Vec<u8>)>,
    pub layers: Vec<String>,
    pub config: String,
    pub manifest: String,
    pub index: String,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn busybox() -> TestImage {
    image(&[base_layer()], json!({ "Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"] }))
}

/// Two layers, the second of `size` bytes that do not compress.
pub fn busybox_with_data(name: &str, size: usize) -> TestImage {
    let mut seed = Sha256::digest(name.as_bytes());
    let mut data = Vec::with_capacity(size + 32);
    while data.len() < size {
        data.extend_from_slice(&seed);
        seed = Sha256::digest(seed);
    }
    data.truncate(size);
    let data_layer = tar(|archive| file(archive, "data", 0o644, &data));
    image(&[base_layer(), data_layer], json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] }))
}

/// Each layer in another of the forms that registries hold.
pub fn busybox_in_all_compressions() -> TestImage {
    let plain = tar(|archive| file(archive, "plain", 0o644, b"p"));
    let zstd = tar(|archive| file(archive, "zstd", 0o644, b"z"));
    let layer = |form: &str, bytes: Vec<u8>| (format!("application/vnd.oci.image.layer.v1.tar{form}"), bytes);
    let layers = [
        (base_layer(), layer("+gzip", gzip(&base_layer()))),
        (plain.clone(), layer("", plain)),
        (zstd.clone(), layer("+zstd", zstd::encode_all(zstd.as_slice(), 3).unwrap())),
    ];
    assemble(layers.to_vec(), json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] }))
}

/// Layers are given as tar files; they are gzipped on the way.
pub fn image(layers: &[Vec<u8>], config: Value) -> TestImage {
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned();
    let packed = layers.iter().map(|layer| (layer.clone(), (media_type.clone(), gzip(layer))));
    assemble(packed.collect(), config)
}

/// A tar file, then its media type and bytes as a registry holds them.
type Layer = (Vec<u8>, (String, Vec<u8>));

fn assemble(layers: Vec<Layer>, config: Value) -> TestImage {
    let mut blobs = BTreeMap::new();
    let mut add = |media_type: &str, bytes: Vec<u8>| {
        let (digest, size) = (digest(&bytes), bytes.len());
        blobs.insert(digest.clone(), (media_type.to_owned(), bytes));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let diff_ids: Vec<String> = layers.iter().map(|(plain, _)| digest(plain)).collect();
    let layers: Vec<Value> =
        layers.into_iter().map(|(_, (media_type, packed))| add(&media_type, packed)).collect();
    let whole = json!({
        "architecture": architecture(), "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = add("application/vnd.oci.image.config.v1+json", whole.to_string().into());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let document = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let mut manifest = add(media_type, document.to_string().into());
    manifest["platform"] = json!({ "os": "linux", "architecture": architecture() });
    let mut foreign = manifest.clone();
    foreign["platform"] = json!({ "os": "plan9", "architecture": architecture() });
    foreign["digest"] = json!(digest(b"never fetched"));
    let media_type = "application/vnd.oci.image.index.v1+json";
    let document = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [foreign, manifest] });
    let index = add(media_type, document.to_string().into());
    let digest_of = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    TestImage {
        layers: layers.iter().map(digest_of).collect(),
        config: digest_of(&config),
        manifest: digest_of(&manifest),
        index: digest_of(&index),
        blobs,
    }
}

impl TestImage {
    /// As an OCI layout.
    pub fn write_layout(&self, path: &Path) {
        let (media_type, bytes) = &self.blobs[&self.index];
        let root = json!({ "mediaType": media_type, "digest": self.index, "size": bytes.len() });
        let bytes = tar(|archive| {
            file(archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
            for (digest, (_, bytes)) in &self.blobs {
                file(archive, &format!("blobs/{}", digest.replace(':', "/")), 0o644, bytes);
            }
            let index = json!({ "schemaVersion": 2, "manifests": [root] });
            file(archive, "index.json", 0o644, index.to_string().as_bytes());
        });
        std::fs::write(path, bytes).unwrap();
    }
}

/// As `docker save` wrote it before version 25, with an equal layer linked.
pub fn write_saved(path: &Path, names: &[&str]) {
    let layer = base_layer();
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer), digest(&layer)] },
    });
    let config = config.to_string();
    let bytes = tar(|archive| {
        file(archive, "first/layer.tar", 0o644, &layer);
        link(archive, "second/layer.tar", "../first/layer.tar");
        file(archive, "config.json", 0o644, config.as_bytes());
        let manifest = json!([{ "Config": "config.json", "RepoTags": names, "Layers": ["first/layer.tar", "second/layer.tar"] }]);
        file(archive, "manifest.json", 0o644, manifest.to_string().as_bytes());
    });
    std::fs::write(path, bytes).unwrap();
}

fn base_layer() -> Vec<u8> {
    const APPLETS: [&str; 17] = [
        "cat", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mount", "pwd", "sh", "sleep",
        "tail", "touch", "true", "unshare",
    ];
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    let busybox = busybox.expect("busybox-static is installed");
    tar(|archive| {
        file(archive, "bin/busybox", 0o755, &busybox);
        for applet in APPLETS {
            link(archive, &format!("bin/{applet}"), "busybox");
        }
        file(archive, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n");
        file(archive, "etc/group", 0o644, b"root:x:0:\nwww:x:34:\nlog:x:9:web\n");
        file(archive, "srv/page", 0o644, b"hello\n");
    })
}

fn tar(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    fill(&mut archive);
    archive.into_inner().unwrap()
}

fn file(archive: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn link(archive: &mut tar::Builder<Vec<u8>>, name: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    archive.append_link(&mut header, name, target).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new("gzip").args(["-1nc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_owned();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
