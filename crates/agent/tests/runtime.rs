//! Containers in a real containerd. Needs root, containerd, runc and busybox-static.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{Machine, exit, read, run, until};
use longshore_agent::{
    image::PullPolicy,
    runtime::{
        BindMount, ContainerSpec, ContainerdRuntime, CreateError, Error, Event, ExecEnd, ExecSpec, Limits,
        Runtime, Signal, StartError, Status,
        supervisor::{self, Containerd},
    },
};

#[tokio::test]
async fn exit_codes_and_output_are_kept() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    for (id, script, code) in [("zero", "echo out; echo err >&2", 0), ("three", "exit 3", 3)] {
        run(&runtime, &machine.spec(&image, id, script)).await;
        let state = exit(&runtime, &mut events, id).await;
        let Status::Exited { code: got, exited_at, started_at, oom } = state.status else {
            panic!("{state:?}")
        };
        assert_eq!((got, oom), (code, false), "{id}");
        assert!(started_at.is_some_and(|at| at.since(exited_at) < 60_000));
    }
    runtime.delete("zero").await.unwrap();
    // Two streams have no order between them.
    let log = read(&machine.log("zero"));
    assert_eq!(log.lines().collect::<std::collections::BTreeSet<_>>(), ["err", "out"].into());
    let left: Vec<String> = runtime.list().await.unwrap().into_iter().map(|state| state.id).collect();
    assert_eq!(left, ["three"]);
}

#[tokio::test]
async fn output_comes_whole_when_its_streams_do_not_end_together() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let scripts = [
        ("out", "echo err >&2; exec 2>&-; sleep 0.5; echo out"),
        ("err", "echo out; exec >&-; sleep 0.5; echo err >&2"),
    ];
    for (id, script) in scripts {
        run(&runtime, &machine.spec(&image, id, script)).await;
        exit(&runtime, &mut events, id).await;
        runtime.delete(id).await.unwrap();
        let log = read(&machine.log(id));
        assert_eq!(log.lines().collect::<std::collections::BTreeSet<_>>(), ["err", "out"].into(), "{id}");
    }
}

#[tokio::test]
async fn a_container_gets_what_its_specification_says() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let hosts = machine.dir.path().join("hosts");
    std::fs::write(&hosts, "10.0.0.1 db\n").unwrap();
    let script = "id -u; id -G; pwd; echo $FROM $HOME; hostname; cat /etc/hosts; \
                  touch /etc/hosts 2>/dev/null || echo read-only; mount -t tmpfs x /mnt 2>/dev/null || echo confined; \
                  grep -c . /proc/sysrq-trigger 2>/dev/null || true; cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
                  2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let spec = ContainerSpec {
        labels: BTreeMap::from([("task".into(), "t-1".into())]),
        user: Some("web".into()),
        working_directory: Some("/srv".into()),
        env: vec!["FROM=task".into()],
        hostname: Some("web-1".into()),
        limits: Limits { memory: Some(64 << 20), cpu_shares: Some(512), ..Limits::default() },
        mounts: vec![BindMount { source: hosts, target: "/etc/hosts".into(), readonly: true }],
        ..machine.spec(&image, "spec", script)
    };
    run(&runtime, &spec).await;
    let state = exit(&runtime, &mut events, "spec").await;
    assert_eq!(state.labels, spec.labels);
    runtime.delete("spec").await.unwrap();
    let expected = "33\n34 9\n/srv\ntask /srv\nweb-1\n10.0.0.1 db\nread-only\nconfined\n67108864\n";
    assert_eq!(read(&machine.log("spec")), expected);
}

#[tokio::test]
async fn a_container_is_confined_unless_it_is_privileged() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    // A user namespace needs no capability: only the filter of system calls stands before it.
    let script = "exec 2>/dev/null; unshare -U true && echo namespace; mount -t tmpfs x /srv && echo mount; \
                  S=/proc/sys/vm/swappiness; V=$(cat $S); echo $V >$S && echo sysctl; touch /file && echo file; true";
    for (id, privileged, expected) in
        [("confined", false, ""), ("privileged", true, "namespace\nmount\nsysctl\n")]
    {
        let spec = machine.spec(&image, id, script);
        run(&runtime, &ContainerSpec { privileged, readonly_rootfs: true, ..spec }).await;
        exit(&runtime, &mut events, id).await;
        runtime.delete(id).await.unwrap();
        assert_eq!(read(&machine.log(id)), expected);
    }
}

#[tokio::test]
async fn a_kill_for_memory_is_told_from_others_even_by_a_new_agent() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let limits = Limits { memory: Some(16 << 20), ..Limits::default() };
    run(&runtime, &ContainerSpec { limits, ..machine.spec(&image, "greedy", "tail /dev/zero") }).await;
    run(&runtime, &machine.spec(&image, "killed", "sleep 1000")).await;
    runtime.signal("killed", Signal::KILL).await.unwrap();
    exit(&runtime, &mut events, "killed").await;
    exit(&runtime, &mut events, "greedy").await;
    drop(runtime);

    let runtime = machine.runtime().await;
    let ends = runtime.list().await.unwrap().into_iter().map(|state| match state.status {
        Status::Exited { code, oom, .. } => (state.id, code, oom),
        other => panic!("{} is {other:?}", state.id),
    });
    let ends: std::collections::BTreeSet<_> = ends.collect();
    assert_eq!(ends, [("greedy".into(), 137, true), ("killed".into(), 137, false)].into());
}

#[tokio::test]
async fn what_cannot_run_says_why_and_leaves_nothing() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let attempt = |id: &str, change: fn(&mut ContainerSpec)| {
        let mut spec = machine.spec(&image, id, "true");
        change(&mut spec);
        let runtime = &runtime;
        async move { runtime.create(&spec).await.unwrap_err() }
    };
    let error = attempt("command", |spec| spec.command = Some(vec!["nope".into()])).await;
    let words = r#"exec: "nope": executable file not found in $PATH"#;
    assert!(matches!(&error, CreateError::Command(message) if message.contains(words)), "{error:?}");

    let error = attempt("user", |spec| spec.user = Some("nobody".into())).await;
    assert!(matches!(&error, CreateError::UnknownUser(name) if name == "nobody"), "{error:?}");

    let error = attempt("image", |spec| spec.image.chain_id = format!("sha256:{}", "0".repeat(64))).await;
    assert!(matches!(error, CreateError::ImageGone(_)), "{error:?}");

    let error = attempt("../id", |_| {}).await;
    assert!(matches!(error, CreateError::Invalid(_)), "{error:?}");

    assert_eq!(runtime.list().await.unwrap(), []);
    let error = runtime.start("command").await.unwrap_err();
    assert!(matches!(error, StartError::Runtime(Error::NotFound(_))), "{error:?}");
    // Nothing of the failures is in the way of the same id.
    run(&runtime, &machine.spec(&image, "command", "true")).await;
}

#[tokio::test]
async fn containers_are_stopped_replaced_and_removed() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let spec =
        machine.spec(&image, "web", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done");
    run(&runtime, &spec).await;
    until("the container is up", async || read(&machine.log("web")).contains("up")).await;
    runtime.signal("web", Signal::TERM).await.unwrap();
    let state = exit(&runtime, &mut events, "web").await;
    assert!(matches!(state.status, Status::Exited { code: 7, oom: false, .. }), "{state:?}");
    // To an ended one a signal is nothing; to a missing one it is an error.
    runtime.signal("web", Signal::TERM).await.unwrap();
    assert!(matches!(runtime.signal("other", Signal::TERM).await, Err(Error::NotFound(_))));

    // The id again: the old container makes way.
    runtime.create(&spec).await.unwrap();
    assert_eq!(runtime.inspect("web").await.unwrap().unwrap().status, Status::Created);
    runtime.start("web").await.unwrap();
    assert!(matches!(runtime.inspect("web").await.unwrap().unwrap().status, Status::Running { .. }));
    for _ in 0..2 {
        runtime.delete("web").await.unwrap();
        assert_eq!(runtime.inspect("web").await.unwrap(), None);
    }
    runtime.create(&spec).await.unwrap();
    runtime.delete("web").await.unwrap();
    assert_eq!(runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_new_agent_finds_what_ran_and_what_ended_meanwhile() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let gate = machine.dir.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let waiting = ContainerSpec {
        labels: BTreeMap::from([("container".into(), "app".into())]),
        mounts: vec![BindMount { source: gate.clone(), target: "/gate".into(), readonly: true }],
        ..machine.spec(&image, "ends", "while [ ! -e /gate/open ]; do sleep 0.01; done; exit 5")
    };
    run(&runtime, &waiting).await;
    run(&runtime, &machine.spec(&image, "stays", "sleep 1000")).await;
    let before = runtime.inspect("stays").await.unwrap().unwrap();
    drop(runtime);
    std::fs::write(gate.join("open"), "").unwrap();

    let runtime = machine.runtime().await;
    let mut events = runtime.events();
    let ended = exit(&runtime, &mut events, "ends").await;
    assert!(matches!(ended.status, Status::Exited { code: 5, started_at: Some(_), .. }), "{ended:?}");
    assert_eq!(ended.labels, waiting.labels);
    assert_eq!(runtime.inspect("stays").await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn containers_survive_a_killed_containerd() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let gate = machine.dir.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let waiting = ContainerSpec {
        mounts: vec![BindMount { source: gate.clone(), target: "/gate".into(), readonly: true }],
        ..machine.spec(&image, "ends", "while [ ! -e /gate/open ]; do sleep 0.01; done; exit 6")
    };
    run(&runtime, &waiting).await;
    run(&runtime, &machine.spec(&image, "stays", "sleep 1000")).await;
    let pid = runtime.inspect("stays").await.unwrap().unwrap().pid;
    let mut events = runtime.events();

    let first = machine.containerd().pid().unwrap();
    kill(first);
    std::fs::write(gate.join("open"), "").unwrap();
    until("containerd is started again", async || machine.containerd().pid() != Some(first)).await;
    while events.recv().await.unwrap() != Event::Restarted {}

    let ended = exit(&runtime, &mut events, "ends").await;
    assert!(matches!(ended.status, Status::Exited { code: 6, .. }), "{ended:?}");
    let stays = runtime.inspect("stays").await.unwrap().unwrap();
    assert!(matches!(stays.status, Status::Running { .. }) && stays.pid == pid, "{stays:?}");
    run(&runtime, &machine.spec(&image, "new", "true")).await;
    exit(&runtime, &mut events, "new").await;
}

/// containerd is killed while it creates a container, then again: whatever it left has the container's id.
#[tokio::test]
async fn what_a_killed_containerd_left_makes_way_for_the_same_id() {
    let mut machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let config = machine.containerd().config(0, BTreeMap::new());
    let bundles = config.containerd_state.join("io.containerd.runtime.v2.task").join(&config.namespace);
    // Only the directory.
    std::fs::create_dir_all(bundles.join("made")).unwrap();
    run(&runtime, &machine.spec(&image, "made", "sleep 1000")).await;
    runtime.delete("made").await.unwrap();

    let socket_of = |bundle: &std::path::Path| read(&bundle.join("address")).replace("unix://", "");

    // All of it, as of a containerd that did not write down its shim before it was killed.
    let spec = machine.spec(&image, "runs", "sleep 1000");
    run(&runtime, &spec).await;
    let pid = runtime.inspect("runs").await.unwrap().unwrap().pid;
    let shim = parent_of(pid);
    let processes_of =
        |cgroups: &longshore_agent::cgroup::Cgroups| cgroups.usage(&spec.cgroup).unwrap().processes;
    drop(runtime);
    machine.containerd.take().unwrap().stop().await.unwrap();
    std::fs::rename(bundles.join("runs"), bundles.join(".runs")).unwrap();
    machine.containerd = Some(common::start(&machine).await);
    std::fs::rename(bundles.join(".runs"), bundles.join("runs")).unwrap();
    let runtime = machine.runtime().await;
    assert_eq!(runtime.inspect("runs").await.unwrap().unwrap().status, Status::Lost);
    assert!(is_alive(pid) && is_alive(shim), "the test needs what is left over");
    run(&runtime, &spec).await;
    assert!(!is_alive(pid) && !is_alive(shim));
    let new = runtime.inspect("runs").await.unwrap().unwrap();
    assert!(matches!(new.status, Status::Running { .. }) && is_alive(new.pid), "{new:?}");
    let cgroups = machine.cgroups();
    until("none of the old processes is left", async || processes_of(&cgroups) == 1).await;

    // And when it is not wanted again.
    let socket = socket_of(&bundles.join("runs"));
    assert!(std::path::Path::new(&socket).exists());
    drop(runtime);
    machine.containerd.take().unwrap().stop().await.unwrap();
    std::fs::rename(bundles.join("runs"), bundles.join(".runs")).unwrap();
    machine.containerd = Some(common::start(&machine).await);
    std::fs::rename(bundles.join(".runs"), bundles.join("runs")).unwrap();
    machine.runtime().await.delete("runs").await.unwrap();
    assert!(!is_alive(new.pid));
    let left = common::traces(&config.namespace);
    assert!(!left.iter().any(|trace| trace.contains("runs")), "{left:?}");
    assert!(!bundles.join("runs").exists() && !std::path::Path::new(&socket).exists());
}

/// A start that is cut off, by a kill of containerd, ends the process that waits for it.
#[tokio::test]
async fn a_container_that_was_never_started_is_told_from_one_that_ended() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let config = machine.containerd().config(0, BTreeMap::new());
    let pid = runtime.create(&machine.spec(&image, "waits", "true")).await.unwrap().pid;
    // Whoever starts it writes this down before.
    std::fs::write(config.state_dir.join(&config.namespace).join("waits.started"), "1700000000000").unwrap();
    kill(pid);
    let state = exit(&runtime, &mut events, "waits").await;
    assert!(matches!(state.status, Status::Exited { started_at: None, .. }), "{state:?}");
    run(&runtime, &machine.spec(&image, "ran", "exit 1")).await;
    let state = exit(&runtime, &mut events, "ran").await;
    assert!(matches!(state.status, Status::Exited { code: 1, started_at: Some(_), .. }), "{state:?}");
}

#[tokio::test]
async fn a_snapshot_of_which_a_killed_containerd_has_no_record_makes_way() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let snapshotter = format!("io.containerd.snapshotter.v1.{}", machine.containerd().snapshotter());
    let snapshots = machine.dir.path().join("containerd/root").join(snapshotter).join("snapshots");
    let numbers = std::fs::read_dir(&snapshots).unwrap().flatten();
    let last = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max().unwrap();
    for number in 1..=3 {
        let unrecorded = snapshots.join((last + number).to_string());
        std::fs::create_dir_all(unrecorded.join("fs")).unwrap();
        std::fs::write(unrecorded.join("fs/stranger"), "").unwrap();
    }
    let specs: Vec<_> =
        (0..4).map(|n| machine.spec(&image, &format!("c{n}"), "test ! -e /stranger")).collect();
    futures::future::join_all(specs.iter().map(|spec| run(&runtime, spec))).await;
    let mut events = runtime.events();
    for spec in &specs {
        let ended = exit(&runtime, &mut events, &spec.id).await;
        assert!(matches!(ended.status, Status::Exited { code: 0, .. }), "{ended:?}");
    }
}

#[tokio::test]
async fn a_running_containerd_is_adopted() {
    let mut machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    run(&runtime, &machine.spec(&image, "stays", "sleep 1000")).await;
    let pid = machine.containerd().pid();
    // A killed server runs no destructor of ours that matters: dropping leaves containerd running.
    drop((runtime, machine.containerd.take()));
    // One more, as of a server that was killed just after it had started it, waits for the first one's database.
    let config = machine.dir.path().canonicalize().unwrap().join("containerd/config.toml");
    let mut waits = std::process::Command::new("containerd").arg("--config").arg(config).spawn().unwrap();
    until("it is containerd", async || read(&proc_file(waits.id(), "cmdline")).starts_with("containerd"))
        .await;
    machine.containerd = Some(common::start(&machine).await);
    assert_eq!(machine.containerd().pid(), pid);
    assert!(!is_alive(waits.id()), "it was stopped");
    // Whoever saw it end first has taken its status.
    let _ = waits.wait();

    // Stopped in order and started again, the container is still the same.
    machine.containerd.take().unwrap().stop().await.unwrap();
    machine.containerd = Some(common::start(&machine).await);
    assert_ne!(machine.containerd().pid(), pid);
    let state = machine.runtime().await.inspect("stays").await.unwrap().unwrap();
    assert!(matches!(state.status, Status::Running { .. }), "{state:?}");
}

#[tokio::test]
async fn a_container_whose_shim_died_is_lost_and_can_be_removed() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    run(&runtime, &machine.spec(&image, "gone", "sleep 1000")).await;
    let pid = runtime.inspect("gone").await.unwrap().unwrap().pid;
    kill(parent_of(pid));
    until("containerd gives the task up", async || {
        runtime.inspect("gone").await.is_ok_and(|state| state.is_some_and(|s| s.status == Status::Lost))
    })
    .await;
    assert_eq!(runtime.list().await.unwrap()[0].status, Status::Lost);
    until("its process is gone", async || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()).await;
    runtime.delete("gone").await.unwrap();
    assert_eq!(runtime.list().await.unwrap(), []);
    run(&runtime, &machine.spec(&image, "gone", "true")).await;
}

#[tokio::test]
async fn a_containerd_of_somebody_else_is_used_and_left_running() {
    let machine = Machine::start().await;
    let (_, image) = machine.with_busybox().await;
    let guest_dir = tempfile::tempdir().unwrap();
    let missing = guest_dir.path().join("no.sock");
    assert!(matches!(
        Containerd::external(guest_dir.path(), &missing).await,
        Err(supervisor::Error::NoAnswer { .. })
    ));
    let guest = Containerd::external(guest_dir.path(), machine.containerd().address()).await.unwrap();
    assert_eq!(guest.pid(), None);
    let runtime = ContainerdRuntime::connect(guest.config(0, BTreeMap::new())).await.unwrap();
    let archive = machine.dir.path().join("busybox.tar");
    let names = runtime.import(&archive, Some(&image.reference)).await.unwrap();
    let image = runtime.ensure_image(&names[0], PullPolicy::Never, None, None).await.unwrap();
    let cgroup = format!("/longshore-{}/task/guest", guest.hash());
    run(&runtime, &ContainerSpec { cgroup, ..machine.spec(&image, "guest", "sleep 1000") }).await;
    drop(runtime);
    let hash = guest.hash().to_owned();
    guest.down().await.unwrap();
    assert_eq!(common::traces(&hash), Vec::<String>::new());
    assert_eq!(machine.runtime().await.list_images().await.unwrap().len(), 1);
}

#[tokio::test]
async fn instances_do_not_see_each_other() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    run(&runtime, &machine.spec(&image, "first", "sleep 1000")).await;
    let second = common::instance(&machine, 1).await;
    assert_eq!(second.list().await.unwrap(), []);
    assert_eq!(second.list_images().await.unwrap(), []);
    second.clear().await.unwrap();
    assert_eq!(runtime.list().await.unwrap().len(), 1);
    runtime.clear().await.unwrap();
    assert_eq!(runtime.list().await.unwrap(), []);
    assert_eq!(runtime.list_images().await.unwrap().len(), 1);
}

#[tokio::test]
async fn down_leaves_nothing_on_the_machine() {
    let mut machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let hash = machine.containerd().hash().to_owned();
    let cgroups = machine.cgroups();
    cgroups.create_task("task", Default::default()).unwrap();
    let of_an_instance = longshore_agent::cgroup::Cgroups::detect(&format!("/longshore-{hash}-1")).unwrap();
    of_an_instance.create_task("task", Default::default()).unwrap();
    let state_dir = machine.containerd().state_dir().to_owned();
    run(&runtime, &machine.spec(&image, "runs", "sleep 1000")).await;
    runtime.create(&machine.spec(&image, "waits", "true")).await.unwrap();
    assert!(common::traces(&hash).len() > 3, "{:?}", common::traces(&hash));
    drop(runtime);
    machine.containerd.take().unwrap().down().await.unwrap();
    assert_eq!(common::traces(&hash), Vec::<String>::new());
    assert_eq!(cgroups.tasks(), Vec::<String>::new());
    assert!(!state_dir.exists());
}

#[tokio::test]
async fn the_tasks_cgroup_caps_its_containers_together() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let cgroups = machine.cgroups();
    let limits = longshore_agent::cgroup::TaskLimits {
        cpu_units: Some(256),
        cpu_shares: None,
        memory: Some(24 << 20),
    };
    cgroups.create_task("task", limits).unwrap();
    cgroups.create_task("task", limits).unwrap();
    run(&runtime, &machine.spec(&image, "quiet", "sleep 1000")).await;
    let usage = cgroups.usage(&cgroups.task_path("task")).unwrap();
    assert!(usage.memory > 0 && usage.memory_limit == Some(24 << 20), "{usage:?}");
    // The container itself has no limit: the task's is what ends it.
    run(&runtime, &machine.spec(&image, "greedy", "tail /dev/zero")).await;
    let state = exit(&runtime, &mut events, "greedy").await;
    assert!(matches!(state.status, Status::Exited { code: 137, oom: true, .. }), "{state:?}");
    assert!(matches!(runtime.inspect("quiet").await.unwrap().unwrap().status, Status::Running { .. }));
    runtime.clear().await.unwrap();
    cgroups.remove_task("task").await.unwrap();
    assert_eq!(cgroups.tasks(), Vec::<String>::new());
}

#[tokio::test]
async fn an_exec_is_part_of_its_container() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let spec = ContainerSpec {
        user: Some("web".into()),
        env: vec!["A=task".into(), "B=task".into()],
        hostname: Some("web-1".into()),
        working_directory: Some("/srv".into()),
        ..machine.spec(&image, "web", "echo $$ >/tmp/first 2>/dev/null; sleep 1000")
    };
    run(&runtime, &spec).await;
    let script = "id -u; pwd; echo $A $B; hostname; exit 3";
    let end =
        runtime.exec("web", ExecSpec { env: vec!["B=exec".into()], ..shell(script) }, LONG).await.unwrap();
    let expected = "33\n/srv\ntask exec\nweb-1\n";
    assert_eq!(end, ExecEnd { exit_code: 3, timed_out: false, output: expected.into() });

    let spec = ExecSpec { user: Some("0:0".into()), cwd: Some("/".into()), ..shell("id -u; pwd") };
    assert_eq!(runtime.exec("web", spec, LONG).await.unwrap().output, "0\n/\n");
    let end = runtime.exec("web", shell("echo to the other stream >&2"), LONG).await.unwrap();
    assert_eq!(end.output, "to the other stream\n");
    // Of much output the end is kept.
    let end = runtime.exec("web", shell("seq 100000"), LONG).await.unwrap();
    assert!(end.exit_code == 0 && end.output.len() == 4096 && end.output.ends_with("\n100000\n"), "{end:?}");

    let end = runtime.exec("web", ExecSpec { args: vec!["nope".into()], ..ExecSpec::default() }, LONG).await;
    assert_eq!(end.unwrap().exit_code, 127);
    assert!(matches!(runtime.exec("other", shell("true"), LONG).await, Err(Error::NotFound(_))));
    assert_eq!(execs(&machine), Vec::<String>::new());
}

#[tokio::test]
async fn execs_run_side_by_side_and_end_in_time() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    run(&runtime, &machine.spec(&image, "web", "sleep 1000")).await;
    let scripts: Vec<String> = (0..8).map(|n| format!("echo {n}; exit {n}")).collect();
    let ends = scripts.iter().map(|script| runtime.exec("web", shell(script), LONG));
    for (n, end) in (0..).zip(futures::future::join_all(ends).await) {
        assert_eq!(end.unwrap(), ExecEnd { exit_code: n, timed_out: false, output: format!("{n}\n") });
    }

    // What it started dies with it.
    let late = shell("echo up; sleep 4321 & sleep 4321; true");
    let end = runtime.exec("web", late, Duration::from_millis(300)).await.unwrap();
    assert!(end.timed_out && end.exit_code == 137, "{end:?}");
    let end = runtime.exec("web", shell("ps -o args | grep '[s]leep 4321'"), LONG).await.unwrap();
    assert_eq!((end.exit_code, end.output.as_str()), (1, ""));
    assert_eq!(execs(&machine), Vec::<String>::new());
}

#[tokio::test]
async fn an_exec_ends_with_its_container() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    run(&runtime, &machine.spec(&image, "web", "sleep 1000")).await;
    let exec = runtime.exec("web", shell("touch /up; sleep 1000"), LONG);
    let kill = async {
        let up = async || runtime.exec("web", shell("test -e /up"), LONG).await.unwrap().exit_code == 0;
        until("the exec runs", up).await;
        runtime.signal("web", Signal::KILL).await.unwrap();
        exit(&runtime, &mut events, "web").await;
    };
    let (end, ()) = tokio::join!(exec, kill);
    // Killed with its container, whichever of the two ends is seen first.
    let killed = matches!(&end, Ok(ExecEnd { exit_code: 137, timed_out: false, .. }));
    assert!(killed || matches!(end, Err(Error::NotFound(_))), "{end:?}");
    assert!(matches!(runtime.exec("web", shell("true"), LONG).await, Err(Error::NotFound(_))));
    runtime.delete("web").await.unwrap();
    until("nothing is left of it", async || execs(&machine).is_empty()).await;
}

#[tokio::test]
async fn an_exec_outlives_neither_containerd_nor_its_agent() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    run(&runtime, &machine.spec(&image, "web", "sleep 1000")).await;
    let alive = async || {
        runtime.exec("web", shell("ps -o args | grep -q '[s]leep 4321'"), LONG).await.unwrap().exit_code == 0
    };

    let first = machine.containerd().pid().unwrap();
    let exec = runtime.exec("web", shell("sleep 4321; true"), LONG);
    let restart = async {
        until("the exec runs", alive).await;
        kill(first);
    };
    let (end, ()) = tokio::join!(exec, restart);
    assert!(matches!(end, Err(Error::Unavailable { .. })), "{end:?}");
    until("containerd is started again", async || machine.containerd().pid() != Some(first)).await;
    until("the exec is ended", async || execs(&machine).is_empty()).await;
    assert!(!alive().await);

    // An agent that is killed: its threads stop wherever they are.
    let config = machine.containerd().config(0, BTreeMap::new());
    let agent = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    agent.spawn(async move {
        let runtime = ContainerdRuntime::connect(config).await.unwrap();
        runtime.exec("web", shell("sleep 4321; true"), LONG).await
    });
    until("the exec runs", alive).await;
    agent.shutdown_background();
    assert!(alive().await);
    let next = machine.runtime().await;
    until("the exec is ended", async || execs(&machine).is_empty()).await;
    assert!(!alive().await);
    drop(next);
}

#[tokio::test]
async fn a_container_starts_again_with_its_files_and_its_log() {
    let machine = Machine::start().await;
    let (runtime, image) = machine.with_busybox().await;
    let mut events = runtime.events();
    let script = "echo run >>/runs; wc -l </runs; test $(wc -l </runs) -lt 3 && exit 4; exit 5";
    run(&runtime, &machine.spec(&image, "job", script)).await;
    for code in [4, 4, 5] {
        let state = exit(&runtime, &mut events, "job").await;
        assert!(
            matches!(state.status, Status::Exited { code: c, started_at: Some(_), .. } if c == code),
            "{state:?}"
        );
        if code == 4 {
            runtime.restart("job", Some(&machine.log("job"))).await.unwrap();
        }
    }
    runtime.delete("job").await.unwrap();
    assert_eq!(read(&machine.log("job")), "1\n2\n3\n");
    let error = runtime.restart("job", None).await.unwrap_err();
    assert!(matches!(error, StartError::Runtime(Error::NotFound(_))), "{error:?}");
}

/// Longer than any process here takes.
const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str) -> ExecSpec {
    ExecSpec { args: ["sh", "-c", script].map(Into::into).to_vec(), ..ExecSpec::default() }
}

/// The execs that are not deleted yet.
fn execs(machine: &Machine) -> Vec<String> {
    let directory = machine.containerd().config(0, BTreeMap::new());
    let directory = directory.state_dir.join(directory.namespace).join("exec");
    let names =
        std::fs::read_dir(directory).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into());
    names.collect()
}

/// A zombie is not.
fn is_alive(pid: u32) -> bool {
    proc_file(pid, "exe").exists()
}

fn proc_file(pid: u32, name: &str) -> std::path::PathBuf {
    format!("/proc/{pid}/{name}").into()
}

fn parent_of(pid: u32) -> u32 {
    let status = read(std::path::Path::new(&format!("/proc/{pid}/status")));
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
