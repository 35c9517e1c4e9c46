//! Networks of tasks, with real namespaces, packets and rules.

// Clippy spares `#[test]` functions only, and helpers are tests as well.
#![allow(clippy::unwrap_used, clippy::panic)]

mod machine;
mod ports;

use longshore_agent::network::{Config, Eni, Error, Instance, Network, down};
use longshore_model::task::HostPort;
use longshore_model::task_definition::Protocol;
use longshore_model::vpc::{Cidr, MacAddress};
use machine::{At, Before, nft, on_a_machine, run, until};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const PORT: u16 = 8080;
const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);

#[test]
fn a_task_reaches_and_is_reached() {
    on_a_machine("a_task_reaches_and_is_reached", async |directory| {
        let outside = internet(&directory);
        let network = Network::open(config(&directory, "a", Instance::Host)).await.unwrap();
        let (a, b, c) = (eni("172.31.0.5"), eni("172.31.0.6"), eni("172.31.16.4"));
        let at_a = attach(&network, "a", &a).await;
        let at_b = attach(&network, "b", &b).await;
        let at_c = attach(&network, "c", &c).await;
        for at in [&at_a, &at_b, &at_c, &At::Machine, &outside] {
            at.serve(PORT);
        }

        assert_eq!(At::Machine.reaches(a.address, PORT), ROUTER);
        assert_eq!(
            At::Machine.reaches(c.address, PORT),
            Ipv4Addr::new(172, 31, 16, 1),
            "its own subnet's router"
        );
        assert_eq!(at_a.reaches(b.address, PORT), a.address, "a task of its subnet");
        assert_eq!(at_b.reaches(c.address, PORT), b.address, "a task of another subnet");
        assert_eq!(at_a.reaches(a.address, PORT), a.address, "itself");
        assert_eq!(at_a.reaches(ROUTER, PORT), a.address, "the machine, as the subnet's router");
        assert_eq!(at_a.reaches(MACHINE, PORT), a.address, "the machine, by its own address");
        assert_eq!(at_a.reaches(OUTSIDE, PORT), MACHINE, "outside, and masqueraded");
        assert!(at_a.connect(Ipv4Addr::new(172, 31, 0, 77), PORT).is_err(), "an address without a task");
    });
}

#[test]
fn tasks_of_instances_reach_each_other() {
    on_a_machine("tasks_of_instances_reach_each_other", async |directory| {
        let outside = internet(&directory);
        let open = |n| Network::open(config(&directory, "a", Instance::Namespaced(n)));
        let (first, second, third) = tokio::join!(open(0), open(1), open(2));
        let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
        let (a, b, c, d) = (eni("172.31.0.5"), eni("172.31.0.6"), eni("172.31.0.7"), eni("172.31.0.8"));
        let at_a = attach(&first, "a", &a).await;
        let at_b = attach(&second, "b", &b).await;
        let at_c = attach(&third, "c", &c).await;
        let at_d = attach(&first, "d", &d).await;
        for at in [&at_a, &at_b, &at_c, &at_d, &At::Machine, &outside] {
            at.serve(PORT);
        }

        for (from, source) in [(&at_a, &a), (&at_b, &b), (&at_c, &c), (&at_d, &d)] {
            for to in [&a, &b, &c, &d] {
                assert_eq!(from.reaches(to.address, PORT), source.address);
            }
            assert_eq!(from.reaches(ROUTER, PORT), source.address);
            assert_eq!(from.reaches(OUTSIDE, PORT), MACHINE);
            assert_eq!(At::Machine.reaches(source.address, PORT), ROUTER);
        }
        let addresses: BTreeSet<_> = [&first, &second, &third].map(|n| n.instance_address().unwrap()).into();
        assert_eq!(addresses.len(), 3);
        let at_first = At::namespace(first.instance_namespace().unwrap());
        at_first.serve(PORT);
        assert_eq!(
            at_c.reaches(first.instance_address().unwrap(), PORT),
            c.address,
            "another instance itself"
        );
        assert_eq!(at_first.reaches(OUTSIDE, PORT), MACHINE);

        first.detach("a").await.unwrap();
        assert!(At::Machine.connect(a.address, PORT).is_err());
        assert_eq!(at_d.reaches(b.address, PORT), d.address, "others are not disturbed");
        assert!(!run("ip route").contains(&a.address.to_string()));
    });
}

#[test]
fn fifty_tasks_at_once_get_interfaces_of_their_own() {
    on_a_machine("fifty_tasks_at_once_get_interfaces_of_their_own", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Host)).await.unwrap();
        let enis: Vec<Eni> = (0..50).map(|n| eni(&format!("172.31.0.{}", n + 10))).collect();
        let names: Vec<String> = (0..50).map(|n| format!("task-{n}")).collect();
        let attached = names.iter().zip(&enis).map(|(name, eni)| network.attach(name, eni));
        let attached = futures::future::try_join_all(attached).await.unwrap();

        let inodes: BTreeSet<u64> = attached.iter().map(|ns| inode(&ns.path)).collect();
        assert_eq!(inodes.len(), 50);
        for (namespace, eni) in attached.iter().zip(&enis) {
            let at = At::namespace(&namespace.path);
            at.serve(PORT);
            assert_eq!(At::Machine.reaches(eni.address, PORT), ROUTER);
            let shown = at.run(|| run("ip addr show dev eth0"));
            assert!(shown.contains(&format!("link/ether {}", eni.mac)), "{shown}");
            assert!(shown.contains(&format!("inet {}/20", eni.address)), "{shown}");
            assert!(!shown.contains("inet6"), "{shown}");
        }
        let listed: Vec<_> = network.list().await;
        let expected: BTreeSet<_> = names.into_iter().zip(enis.iter().map(|eni| Some(eni.address))).collect();
        assert_eq!(listed.into_iter().map(|t| (t.task, t.address)).collect::<BTreeSet<_>>(), expected);
    });
}

#[test]
fn the_pool_fills_again() {
    on_a_machine("the_pool_fills_again", async |directory| {
        let network =
            Network::open(Config { warm: 3, ..config(&directory, "a", Instance::Host) }).await.unwrap();
        until("three are ready", || network.warm() == 3).await;
        attach(&network, "a", &eni("172.31.0.5")).await;
        attach(&network, "b", &eni("172.31.0.6")).await;
        until("three are ready again", || network.warm() == 3).await;
        drop(network);
        // The warm ones were never anybody's: they go with the process, the tasks stay.
        until("two links are left", || run("ip -o link").matches("@if").count() == 2).await;
    });
}

#[test]
fn a_new_process_adopts_what_is_there() {
    on_a_machine("a_new_process_adopts_what_is_there", async |directory| {
        for instance in [Instance::Host, Instance::Namespaced(1)] {
            let name = format!("{instance:?}");
            let config = config(&directory, &name, instance);
            let network = Network::open(config.clone()).await.unwrap();
            let (a, b) = (eni("172.31.0.5"), eni("172.31.0.6"));
            let at_a = attach(&network, "a", &a).await;
            let at_b = attach(&network, "b", &b).await;
            let isolated = network.isolated("none").await.unwrap();
            at_a.serve(PORT);
            let mut from_machine = At::Machine.connect(a.address, PORT).unwrap();
            let mut from_task = at_b.connect(a.address, PORT).unwrap();
            let before = network.list().await;
            drop(network);
            // A process that was killed between pinning and giving the address.
            let unfinished = before[0].namespace.with_file_name("unfinished");
            std::fs::write(&unfinished, "").unwrap();

            let network = Network::open(config.clone()).await.unwrap();
            assert_eq!(network.list().await, before);
            assert!(!unfinished.exists());
            from_machine.works("still");
            from_task.works("here");
            let (inode_a, inode_none) = (inode(&before[0].namespace), inode(&isolated.path));
            assert_eq!(inode(&network.attach("a", &a).await.unwrap().path), inode_a, "the same namespace");
            assert_eq!(
                inode(&network.isolated("none").await.unwrap().path),
                inode_none,
                "the same namespace"
            );
            from_machine.works("and after that");
            assert_eq!(At::Machine.reaches(a.address, PORT), ROUTER);

            network.gc(&BTreeSet::from(["b".to_owned()])).await.unwrap();
            let left: Vec<_> = network.list().await.into_iter().map(|task| task.task).collect();
            assert_eq!(left, ["b"]);
            assert!(At::Machine.connect(a.address, PORT).is_err());
            assert!(!before[0].namespace.exists() && !isolated.path.exists());
            drop(network);
            down(&config).await.unwrap();
        }
    });
}

#[test]
fn attach_and_detach_can_be_repeated() {
    on_a_machine("attach_and_detach_can_be_repeated", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Host)).await.unwrap();
        let (a, b) = (eni("172.31.0.5"), eni("172.31.0.6"));
        let first = inode(&network.attach("t", &a).await.unwrap().path);
        assert_eq!(inode(&network.attach("t", &a).await.unwrap().path), first);
        let moved = attach(&network, "t", &b).await;
        moved.serve(PORT);
        assert_eq!(At::Machine.reaches(b.address, PORT), ROUTER);
        assert!(!run("ip route").contains("172.31.0.5"));
        network.detach("t").await.unwrap();
        network.detach("t").await.unwrap();
        network.detach("never").await.unwrap();
        assert!(network.list().await.is_empty());
        for bad in ["", "..", "a/b"] {
            assert!(matches!(network.attach(bad, &a).await, Err(Error::TaskId(_))));
            assert!(matches!(network.detach(bad).await, Err(Error::TaskId(_))));
        }
        let again = attach(&network, "t", &a).await;
        again.serve(PORT);
        assert_eq!(At::Machine.reaches(a.address, PORT), ROUTER);
    });
}

#[test]
fn an_attach_that_was_given_up_leaves_no_trace() {
    on_a_machine("an_attach_that_was_given_up_leaves_no_trace", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Namespaced(0))).await.unwrap();
        let a = eni("172.31.0.5");
        // Given up at many different places: the longer ones may also come to their end.
        for patience in 0..40 {
            let patience = std::time::Duration::from_micros(50 * patience);
            let _ = tokio::time::timeout(patience, network.attach("t", &a)).await;
            if patience.as_micros().is_multiple_of(100) {
                network.gc(&BTreeSet::new()).await.unwrap();
                assert!(network.list().await.is_empty());
                assert!(!run("ip route").contains("172.31.0.5"));
            }
        }
        let at = attach(&network, "t", &a).await;
        at.serve(PORT);
        assert_eq!(At::Machine.reaches(a.address, PORT), ROUTER);
        assert_eq!(run("ip route").matches("172.31.0.5").count(), 1);
    });
}

#[test]
fn a_task_sends_from_its_own_address_only() {
    on_a_machine("a_task_sends_from_its_own_address_only", async |directory| {
        for (instance, last) in [(Instance::Host, 5), (Instance::Namespaced(0), 6)] {
            let network = Network::open(config(&directory, "a", instance)).await.unwrap();
            let own = Ipv4Addr::new(172, 31, 0, last);
            let at = attach(&network, &last.to_string(), &eni(&own.to_string())).await;
            let machine = UdpSocket::bind((ROUTER, 0)).unwrap();
            let to = machine.local_addr().unwrap();
            at.run(move || {
                let false_one = Ipv4Addr::new(172, 31, 0, 99);
                run(&format!("ip addr add {false_one}/32 dev eth0"));
                for source in [false_one, own] {
                    UdpSocket::bind((source, 0)).unwrap().send_to(b"x", to).unwrap();
                }
            });
            // Both took the same way, so the first to arrive decides.
            let (_, source) = machine.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(source.ip(), own);
        }
    });
}

#[test]
fn an_isolated_task_has_only_itself() {
    on_a_machine("an_isolated_task_has_only_itself", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Host)).await.unwrap();
        let at = At::namespace(&network.isolated("t").await.unwrap().path);
        at.serve(PORT);
        assert_eq!(at.reaches(Ipv4Addr::LOCALHOST, PORT), Ipv4Addr::LOCALHOST);
        assert!(at.connect(ROUTER, PORT).is_err());
        assert_eq!(at.run(|| run("ip -o link")).lines().count(), 1);
        assert_eq!(network.list().await[0].address, None);
        network.detach("t").await.unwrap();
        assert!(network.list().await.is_empty());
    });
}

#[test]
fn a_vpc_that_overlaps_is_refused() {
    on_a_machine("a_vpc_that_overlaps_is_refused", async |directory| {
        let first = Network::open(config(&directory, "first", Instance::Host)).await.unwrap();
        let second = config(&directory, "second", Instance::Host);
        let said = refusal(Network::open(second.clone()).await);
        let owner = directory.join("first");
        assert!(said.contains(&format!("the Longshore server of {}", owner.display())), "{said}");
        assert!(said.contains("--vpc-cidr"), "{said}");
        let before = run("ip route");
        down(&second).await.unwrap();
        assert_eq!(run("ip route"), before, "the block stays with its owner");

        run("ip link add lan type bridge");
        run("ip addr add 10.250.7.9/24 dev lan");
        run("ip link set lan up");
        run("ip route add 10.251.64.0/20 via 10.250.7.1 dev lan");
        for taken in ["10.250.0.0/16", "10.251.0.0/16"] {
            let said = refusal(Network::open(Config { vpc: cidr(taken), ..second.clone() }).await);
            assert!(said.contains("the interface lan"), "{said}");
        }
        let changed = Config { vpc: cidr("10.252.0.0/16"), ..config(&directory, "first", Instance::Host) };
        drop(first);
        assert!(matches!(Network::open(changed.clone()).await, Err(Error::VpcChanged { .. })));
        down(&changed).await.unwrap();
        assert!(!run("ip route").contains("172.31"));
        Network::open(changed).await.unwrap();
        Network::open(second).await.unwrap();
    });
}

#[test]
fn down_leaves_nothing() {
    on_a_machine("down_leaves_nothing", async |directory| {
        let _outside = internet(&directory);
        nft(DOCKER);
        let before = Before::now();
        for instances in [vec![Instance::Host], vec![Instance::Namespaced(0), Instance::Namespaced(1)]] {
            let server = config(&directory, "a", instances[0]);
            for (n, instance) in (0u8..).zip(&instances) {
                let network = Network::open(config(&directory, "a", *instance)).await.unwrap();
                let eni = eni(&format!("172.31.16.{}", n + 4));
                let at = attach(&network, "a", &eni).await;
                network.isolated("b").await.unwrap();
                network.bridge("c", &[tcp(9001, PORT)]).await.unwrap();
                at.serve(PORT);
                assert_eq!(At::Machine.reaches(eni.address, PORT), Ipv4Addr::new(172, 31, 16, 1));
            }
            assert!(!before.is_again());
            down(&server).await.unwrap();
            assert!(!server.state.exists());
            until("what was is again", || before.is_again()).await;
            down(&server).await.unwrap();
            until("what was is again, a second time", || before.is_again()).await;
        }
    });
}

#[test]
fn two_servers_do_not_disturb_each_other() {
    on_a_machine("two_servers_do_not_disturb_each_other", async |directory| {
        let theirs =
            Config { vpc: cidr("10.250.0.0/16"), ..config(&directory, "b", Instance::Namespaced(0)) };
        let ours = Config { vpc: cidr("10.251.0.0/16"), ..config(&directory, "a", Instance::Namespaced(0)) };
        let (a, b) = tokio::join!(Network::open(ours.clone()), Network::open(theirs.clone()));
        let (network_a, network_b) = (a.unwrap(), b.unwrap());
        let eni_a = Eni { subnet: cidr("10.251.0.0/20"), ..eni("10.251.0.5") };
        let eni_b = Eni { subnet: cidr("10.250.0.0/20"), ..eni("10.250.0.5") };
        let at_a = attach(&network_a, "t", &eni_a).await;
        let at_b = attach(&network_b, "t", &eni_b).await;
        at_a.serve(PORT);
        at_b.serve(PORT);
        let mut to_b = At::Machine.connect(eni_b.address, PORT).unwrap();
        assert_eq!(At::Machine.reaches(eni_a.address, PORT), Ipv4Addr::new(10, 251, 0, 1));
        let dropped = at_a.run(move || {
            let to = (eni_b.address, PORT).into();
            std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(300))
        });
        assert!(dropped.is_err(), "VPCs are apart");

        drop(network_a);
        down(&ours).await.unwrap();
        to_b.works("still here");
        assert_eq!(At::Machine.reaches(eni_b.address, PORT), Ipv4Addr::new(10, 250, 0, 1));
        assert_eq!(network_b.list().await.len(), 1);
        assert!(theirs.state.exists());
        assert!(run("nft list ruleset").contains(&format!("longshore_{}", theirs.server)));
        assert!(!run("nft list ruleset").contains(&ours.server.to_string()));
    });
}

#[test]
fn traffic_passes_where_docker_restricts_it() {
    on_a_machine("traffic_passes_where_docker_restricts_it", async |directory| {
        let outside = internet(&directory);
        nft(DOCKER);
        let network = Network::open(config(&directory, "a", Instance::Host)).await.unwrap();
        let (a, b) = (eni("172.31.0.5"), eni("172.31.0.6"));
        let at_a = attach(&network, "a", &a).await;
        attach(&network, "b", &b).await.serve(PORT);
        outside.serve(PORT);
        assert_eq!(at_a.reaches(b.address, PORT), a.address);
        assert_eq!(at_a.reaches(OUTSIDE, PORT), MACHINE);

        // Docker starts again, and anew.
        run("nft delete table ip filter");
        nft(DOCKER);
        network.refresh().await.unwrap();
        network.refresh().await.unwrap();
        assert_eq!(at_a.reaches(b.address, PORT), a.address);
        let rules = run("nft list chain ip filter DOCKER-USER");
        assert_eq!(rules.matches("accept").count(), 2, "{rules}");
    });
}

/// What Docker leaves on a machine.
const DOCKER: &str = "
    table ip filter {
      chain DOCKER-USER { return; }
      chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
    }";

const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Another host on the machine's network. It knows no way back into the VPC.
fn internet(directory: &Path) -> At {
    let path = directory.join("internet");
    let internet = At::new_namespace(&path);
    run(&format!("ip link add wan type veth peer name wan0 netns {}", path.display()));
    run("ip addr add 198.51.100.1/24 dev wan");
    run("ip link set wan up");
    run("ip route add default via 198.51.100.2");
    internet.run(|| {
        run("ip addr add 198.51.100.2/24 dev wan0");
        run("ip link set wan0 up");
    });
    internet
}

fn config(directory: &Path, server: &str, instance: Instance) -> Config {
    let data_dir = directory.join(server);
    std::fs::create_dir_all(&data_dir).unwrap();
    Config { state: directory.join("state"), ..Config::new(&data_dir, cidr("172.31.0.0/16"), instance) }
}

/// An interface in the /20 that the address is in.
fn eni(address: &str) -> Eni {
    let address: Ipv4Addr = address.parse().unwrap();
    let base = u32::from(address) & 0xffff_f000;
    Eni { address, subnet: Cidr::new(base.into(), 20).unwrap(), mac: MacAddress::of(address) }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

async fn attach(network: &Network, task: &str, eni: &Eni) -> At {
    At::namespace(&network.attach(task, eni).await.unwrap().path)
}

fn tcp(host_port: u16, container_port: u16) -> HostPort {
    HostPort { container: "main".to_owned(), container_port, host_port, protocol: Protocol::Tcp }
}

fn refusal(opened: Result<Network, Error>) -> String {
    match opened {
        Err(error @ Error::Overlap { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("opened"),
    }
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}
