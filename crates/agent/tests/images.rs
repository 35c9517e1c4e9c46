//! Images from a registry and from archives, into a real containerd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{
    Machine, exit,
    images::{busybox, busybox_in_all_compressions, busybox_with_data, write_saved},
    read,
    registry::Registry,
    run,
};
use longshore_agent::{
    image::{Credentials, ImageRef, ImportError, Progress, PullError, PullPolicy},
    runtime::{Config, ContainerSpec, ContainerdRuntime, Runtime, Status},
};

async fn pull(runtime: &ContainerdRuntime, name: &str) -> Result<longshore_agent::image::Image, PullError> {
    runtime.ensure_image(&name.parse().unwrap(), PullPolicy::Default, None, None).await
}

#[tokio::test]
async fn a_pulled_image_runs_and_is_pulled_once() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let image = busybox_with_data("once", 3 << 20);
    registry.push("team/app:1", &image);
    let runtime = Arc::new(machine.runtime().await);
    let name: ImageRef = registry.name("team/app:1").parse().unwrap();
    let pulls = (0..50).map(|_| {
        let (runtime, name) = (Arc::clone(&runtime), name.clone());
        tokio::spawn(async move { runtime.ensure_image(&name, PullPolicy::Default, None, None).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        let pulled = pull.await.unwrap().unwrap();
        assert_eq!((&pulled.reference, &pulled.digest), (&name, &image.index));
        assert_eq!(pulled.config.cmd.as_deref(), Some(["sh".to_owned()].as_slice()));
    }
    for digest in image.blobs.keys() {
        assert_eq!(
            registry.count(&format!("GET /v2/team/app/blobs/{digest}")),
            usize::from(*digest != image.index && *digest != image.manifest),
            "{digest}"
        );
    }
    assert_eq!(registry.count("HEAD /v2/team/app/manifests/1"), 1);

    let pulled = runtime.ensure_image(&name, PullPolicy::PreferCached, None, None).await.unwrap();
    let mut events = runtime.events();
    run(&runtime, &machine.spec(&pulled, "app", "ls /data; cat /srv/page")).await;
    let state = exit(&runtime, &mut events, "app").await;
    assert!(matches!(state.status, Status::Exited { code: 0, .. }), "{state:?}");
    runtime.delete("app").await.unwrap();
    assert_eq!(read(&machine.log("app")), "/data\nhello\n");

    // A new agent knows it too, and a second instance shares the bytes.
    let again = machine.runtime().await;
    assert_eq!(pull(&again, &name.to_string()).await.unwrap().chain_id, pulled.chain_id);
    let second = common::instance(&machine, 1).await;
    let shared = pull(&second, &name.to_string()).await.unwrap();
    assert_eq!(shared.chain_id, pulled.chain_id);
    for layer in &image.layers {
        assert_eq!(registry.count(&format!("GET /v2/team/app/blobs/{layer}")), 1, "{layer}");
    }
}

#[tokio::test]
async fn layers_come_in_every_compression_and_on_every_snapshotter() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    registry.push("app:1", &busybox_in_all_compressions());
    for (instance, snapshotter) in ["overlayfs", "native"].into_iter().enumerate() {
        let config = machine.containerd().config(instance, BTreeMap::new());
        let config = Config { snapshotter: snapshotter.into(), ..config };
        let runtime = ContainerdRuntime::connect(config).await.unwrap();
        let mut events = runtime.events();
        let image = pull(&runtime, &registry.name("app:1")).await.unwrap();
        let spec = machine.spec(&image, snapshotter, "cat /plain /zstd; id -G");
        run(&runtime, &ContainerSpec { user: Some("web".into()), ..spec }).await;
        let state = exit(&runtime, &mut events, snapshotter).await;
        assert!(matches!(state.status, Status::Exited { code: 0, .. }), "{state:?}");
        runtime.clear().await.unwrap();
        assert_eq!(read(&machine.log(snapshotter)), "pz34 9\n", "{snapshotter}");
    }
}

#[tokio::test]
async fn images_share_their_layers() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let (first, second) = (busybox_with_data("a", 1000), busybox_with_data("b", 1000));
    assert_eq!(first.layers[0], second.layers[0]);
    registry.push("a:1", &first);
    registry.push("b:1", &second);
    let runtime = machine.runtime().await;
    let (a, b) = (registry.name("a:1"), registry.name("b:1"));
    let (a, b) = tokio::join!(pull(&runtime, &a), pull(&runtime, &b));
    assert_ne!(a.unwrap().chain_id, b.unwrap().chain_id);
    assert_eq!(registry.count(&first.layers[0]), 1);

    let third = busybox_with_data("c", 1 << 20);
    let names: Vec<String> = (0..8).map(|i| format!("c:{i}")).collect();
    for name in &names {
        registry.push(name, &third);
    }
    let pulls = names.iter().map(|name| {
        let name = registry.name(name);
        let runtime = &runtime;
        async move { pull(runtime, &name).await.unwrap().digest }
    });
    for digest in futures::future::join_all(pulls).await {
        assert_eq!(digest, third.index);
    }
    assert_eq!(registry.count(&third.layers[1]), 1);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let image = busybox_with_data("resume", 4 << 20);
    registry.push("big:1", &image);
    registry.break_after(&image.layers[1], &[1 << 20, 700_000, 100]);
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let progress: Progress = Arc::new(move |progress| {
        assert!(progress.bytes <= progress.total_bytes, "{progress:?}");
        counter.fetch_max(progress.bytes, Ordering::Relaxed);
    });
    let name = registry.name("big:1").parse().unwrap();
    let runtime = machine.runtime().await;
    runtime.ensure_image(&name, PullPolicy::Default, None, Some(progress)).await.unwrap();
    assert_eq!(registry.count(&image.layers[1]), 4);
    let total: usize = image.layers.iter().map(|layer| image.blobs[layer].1.len()).sum();
    assert_eq!(seen.load(Ordering::Relaxed), total as u64, "each byte is counted once");
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_resumed_too() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let image = busybox_with_data("whole", 2 << 20);
    registry.push("big:1", &image);
    registry.ignore_ranges();
    registry.break_after(&image.layers[1], &[1 << 20]);
    pull(&machine.runtime().await, &registry.name("big:1")).await.unwrap();
}

#[tokio::test]
async fn a_later_pull_goes_on_from_a_failed_one() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let image = busybox_with_data("later", 4 << 20);
    registry.push("big:1", &image);
    registry.break_after(&image.layers[1], &[3 << 20, 0, 0, 0, 0]);
    let error = pull(&machine.runtime().await, &registry.name("big:1")).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    registry.break_after(&image.layers[1], &[]);
    pull(&machine.runtime().await, &registry.name("big:1")).await.unwrap();
    let size = image.blobs[&image.layers[1]].1.len();
    let served = registry.served(&image.layers[1]);
    assert!(served < size + (1 << 20), "{served} bytes went out for {size}");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (machine, registry, elsewhere) = (Machine::start().await, Registry::start(), Registry::start());
    let image = busybox();
    registry.push("app:1", &image);
    elsewhere.push("app:1", &image);
    registry.require_basic("ann:s3cret");
    registry.redirect_blobs(&elsewhere);
    let credentials = Credentials { username: "ann".into(), password: "s3cret".into() };
    let name = registry.name("app:1").parse().unwrap();
    let runtime = machine.runtime().await;
    runtime.ensure_image(&name, PullPolicy::Default, Some(&credentials), None).await.unwrap();
    assert_eq!((elsewhere.count("blobs"), elsewhere.authorized()), (2, 0));
    assert!(registry.authorized() > 2);
}

#[tokio::test]
async fn a_registry_without_head_serves_too() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let (image, other) = (busybox(), busybox_with_data("other", 10));
    registry.push("app:1", &image);
    registry.push("app:2", &other);
    registry.refuse_head();
    let runtime = machine.runtime().await;
    assert_eq!(pull(&runtime, &registry.name("app:1")).await.unwrap().digest, image.index);
    let by_digest = registry.name(&format!("app@{}", other.index));
    assert_eq!(pull(&runtime, &by_digest).await.unwrap().digest, other.index);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_do_not_stay() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let image = busybox_with_data("wrong", 2 << 20);
    registry.push("app:1", &image);
    registry.corrupt(&image.layers[1]);
    let runtime = machine.runtime().await;
    for _ in 0..2 {
        let error = pull(&runtime, &registry.name("app:1")).await.unwrap_err();
        assert!(
            matches!(&error, PullError::DigestMismatch { expected, .. } if *expected == image.layers[1]),
            "{error}"
        );
    }
    assert_eq!(runtime.list_images().await.unwrap(), []);
    registry.push("app:1", &image);
    pull(&runtime, &registry.name("app:1")).await.unwrap();

    for document in [&image.manifest, &image.config, &image.index] {
        let registry = Registry::start();
        registry.push("app:1", &image);
        registry.corrupt(document);
        let fresh = common::instance(&machine, 1).await;
        let error = pull(&fresh, &registry.name("app:1")).await.unwrap_err();
        assert!(matches!(error, PullError::DigestMismatch { .. }), "{error}");
    }
}

#[tokio::test]
async fn private_registries_want_credentials() {
    let machine = Machine::start().await;
    let runtime = machine.runtime().await;
    let image = busybox();
    let token = Registry::start();
    token.require_token("ann:s3cret");
    let basic = Registry::start();
    basic.require_basic("ann:s3cret");
    for registry in [&token, &basic] {
        registry.push("app:1", &image);
        let name: ImageRef = registry.name("app:1").parse().unwrap();
        let attempt = async |credentials: Option<(&str, &str)>| {
            let credentials = credentials.map(|(username, password)| Credentials {
                username: username.into(),
                password: password.into(),
            });
            runtime.ensure_image(&name, PullPolicy::Default, credentials.as_ref(), None).await
        };
        for wrong in [None, Some(("ann", "guess"))] {
            let error = attempt(wrong).await.unwrap_err();
            assert!(matches!(error, PullError::Denied { .. }), "{error}");
        }
        attempt(Some(("ann", "s3cret"))).await.unwrap();
    }
    assert_eq!(token.count("GET /token"), 3, "a token is kept");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let runtime = machine.runtime().await;
    let error = pull(&runtime, &registry.name("nope:1")).await.unwrap_err();
    assert!(matches!(&error, PullError::NotFound { reference } if reference.repository == "nope"), "{error}");
    let error = pull(&runtime, "127.0.0.1:1/app").await.unwrap_err();
    assert!(
        matches!(&error, PullError::Unreachable { message, .. } if message.contains("refused")),
        "{error}"
    );
    let name = "127.0.0.1:1/app".parse().unwrap();
    let error = runtime.ensure_image(&name, PullPolicy::Never, None, None).await.unwrap_err();
    assert!(matches!(error, PullError::NotHere(_)), "{error}");
}

#[tokio::test]
async fn policies_say_when_the_registry_is_asked() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    let (old, new) = (busybox(), busybox_with_data("new", 10));
    registry.push("app:1", &old);
    let runtime = machine.runtime().await;
    let name: ImageRef = registry.name("app:1").parse().unwrap();
    let digest =
        async |policy| runtime.ensure_image(&name, policy, None, None).await.map(|image| image.digest);
    assert_eq!(digest(PullPolicy::Default).await.unwrap(), old.index);
    registry.push("app:1", &new);
    assert_eq!(digest(PullPolicy::PreferCached).await.unwrap(), old.index);
    assert_eq!(digest(PullPolicy::Never).await.unwrap(), old.index);
    assert_eq!(digest(PullPolicy::Default).await.unwrap(), new.index);
    registry.remove_tag("app:1");
    assert_eq!(digest(PullPolicy::Default).await.unwrap(), new.index);
    assert!(matches!(digest(PullPolicy::Always).await, Err(PullError::NotFound { .. })));

    let by_digest: ImageRef = registry.name(&format!("app@{}", old.index)).parse().unwrap();
    let image = runtime.ensure_image(&by_digest, PullPolicy::Default, None, None).await.unwrap();
    assert_eq!(image.digest, old.index);
}

#[tokio::test]
async fn a_mirror_serves_for_its_host() {
    let (machine, registry) = (Machine::start().await, Registry::start());
    registry.push("library/nginx:alpine", &busybox());
    let base = format!("http://{}", registry.address);
    // The first mirror is down, and the host itself does not exist.
    let hosts = BTreeMap::from([
        ("docker.io".to_owned(), vec!["http://127.0.0.1:1".to_owned(), base.clone()]),
        ("127.0.0.1:2".to_owned(), vec![format!("{base}/")]),
    ]);
    let runtime = machine.runtime_with(hosts).await;
    let image = pull(&runtime, "nginx:alpine").await.unwrap();
    assert_eq!(image.reference.to_string(), "docker.io/library/nginx:alpine");
    assert_eq!(runtime.list_images().await.unwrap(), [image.reference]);
    let error = pull(&runtime, "127.0.0.1:2/nope").await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { .. }), "an answer counts more than a silence: {error}");
}

#[tokio::test]
async fn archives_are_imported() {
    let machine = Machine::start().await;
    let runtime = machine.runtime().await;
    let mut events = runtime.events();
    let path = machine.dir.path().join("image.tar");
    busybox_with_data("import", 1 << 20).write_layout(&path);
    assert!(matches!(runtime.import(&path, None).await, Err(ImportError::NoName)));
    let tag: ImageRef = "app:7".parse().unwrap();
    assert_eq!(runtime.import(&path, Some(&tag)).await.unwrap().as_slice(), std::slice::from_ref(&tag));
    write_saved(&path, &["saved:1", "saved:2"]);
    let names = runtime.import(&path, None).await.unwrap();
    assert_eq!(names, ["saved:1", "saved:2"].map(|name| name.parse().unwrap()));
    for (i, name) in [&tag, &names[0], &names[1]].into_iter().enumerate() {
        let image = runtime.ensure_image(name, PullPolicy::PreferCached, None, None).await;
        let id = format!("c{i}");
        run(&runtime, &machine.spec(&image.unwrap(), &id, "exit 4")).await;
        let state = exit(&runtime, &mut events, &id).await;
        assert!(matches!(state.status, Status::Exited { code: 4, .. }), "{state:?}");
    }
}

#[tokio::test]
async fn broken_archives_are_refused() {
    let machine = Machine::start().await;
    let runtime = machine.runtime().await;
    let tag: ImageRef = "app".parse().unwrap();
    let path = machine.dir.path().join("image.tar");
    assert!(matches!(runtime.import(&path, Some(&tag)).await, Err(ImportError::Read(_))));
    for bytes in [&b""[..], b"no tar at all", b"\x1f\x8b\x08", &[0; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        let error = runtime.import(&path, Some(&tag)).await.unwrap_err();
        assert!(matches!(error, ImportError::Format(_)), "{error}");
    }
    busybox().write_layout(&path);
    let whole = std::fs::read(&path).unwrap();
    // A byte of a layer is wrong.
    let mut wrong = whole.clone();
    let position = whole.windows(2).position(|window| window == [0x1f, 0x8b]).unwrap() + 5000;
    wrong[position] ^= 0xff;
    std::fs::write(&path, wrong).unwrap();
    let error = runtime.import(&path, Some(&tag)).await.unwrap_err();
    assert!(matches!(error, ImportError::Image(PullError::DigestMismatch { .. })), "{error}");
    assert_eq!(runtime.list_images().await.unwrap(), []);
}
