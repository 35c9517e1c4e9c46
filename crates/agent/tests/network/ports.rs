//! Ports of an instance that lead into its tasks, in the network mode `bridge`.

use super::machine::{At, nft, on_a_machine, run};
use super::{MACHINE, OUTSIDE, PORT, ROUTER, attach, config, eni, internet, tcp};
use longshore_agent::network::{Config, Instance, Network, down};
use longshore_model::task::HostPort;
use longshore_model::task_definition::Protocol;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

#[test]
fn ports_of_the_machine_lead_into_its_tasks() {
    on_a_machine("ports::ports_of_the_machine_lead_into_its_tasks", async |directory| {
        let outside = internet(&directory);
        let config = config(&directory, "a", Instance::Host);
        let network = Network::open(config.clone()).await.unwrap();
        let vpc = eni("172.31.0.5");
        let in_vpc = attach(&network, "vpc", &vpc).await;
        let at_a = publish(&network, "a", &[tcp(8000, PORT), udp(8001, 53)]).await;
        let at_b = publish(&network, "b", &[tcp(8002, PORT)]).await;
        for at in [&at_a, &at_b, &in_vpc, &outside, &At::Machine] {
            at.serve(PORT);
        }
        at_a.run(|| echo(53));
        let (own_a, own_b) = (address(&network, "a").await, address(&network, "b").await);
        let gateway = At::Machine.reaches(own_a, PORT);

        for port in [8000, 8002] {
            assert_eq!(At::Machine.reaches(Ipv4Addr::LOCALHOST, port), gateway, "by the machine's loopback");
            for own in [ROUTER, MACHINE] {
                assert_eq!(in_vpc.reaches(own, port), vpc.address, "a task of the VPC");
                assert_eq!(at_a.reaches(own, port), gateway, "a task of its kind, and itself");
                At::Machine.reaches(own, port);
            }
            assert_eq!(outside.reaches(MACHINE, port), OUTSIDE, "another host, seen as it is");
        }
        assert_eq!(at_a.reaches(own_b, PORT), own_a, "its kind, by address");
        assert_eq!(at_a.reaches(OUTSIDE, PORT), MACHINE, "outside, and masqueraded");
        assert_ne!(at_a.reaches(vpc.address, PORT), own_a, "a task of the VPC, as the machine");
        assert!(outside.connect(MACHINE, 8003).is_err(), "a port that nobody published");
        assert!(at_a.connect(Ipv4Addr::LOCALHOST, 8002).is_err(), "a task's loopback is its own");
        for (from, to) in [(&At::Machine, Ipv4Addr::LOCALHOST), (&outside, MACHINE), (&in_vpc, MACHINE)] {
            from.run(move || asks(to, 8001));
        }

        // A new process goes on, and takes away what a killed one had left.
        let mut open = outside.connect(MACHINE, 8000).unwrap();
        drop(network);
        let table = format!("longshore_{}_ports", config.server);
        nft(&format!("add element inet {table} tcp_ports {{ 9999 : 100.127.255.7 . 80 }}"));
        let network = Network::open(config.clone()).await.unwrap();
        open.works("still");
        assert_eq!(outside.reaches(MACHINE, 8000), OUTSIDE);
        assert!(!run("nft list ruleset").contains("9999"));
        publish(&network, "a", &[tcp(8000, PORT), udp(8001, 53)]).await;
        assert_eq!(address(&network, "a").await, own_a);
        open.works("and after that");

        network.detach("a").await.unwrap();
        for (from, to) in [(&At::Machine, Ipv4Addr::LOCALHOST), (&outside, MACHINE), (&in_vpc, MACHINE)] {
            assert!(from.connect(to, 8000).is_err());
            assert_eq!(from.reaches(to, 8002), from.reaches(to, 8002), "the other one is not disturbed");
        }
        assert!(!run("ip route").contains(&own_a.to_string()));
        network.gc(&BTreeSet::new()).await.unwrap();
        assert!(!run(&format!("nft list table inet {table}")).contains("elements"));
    });
}

#[test]
fn instances_have_ports_of_their_own() {
    on_a_machine("ports::instances_have_ports_of_their_own", async |directory| {
        let open = |n| Network::open(config(&directory, "a", Instance::Namespaced(n)));
        let (first, second) = tokio::join!(open(0), open(1));
        let (first, second) = (first.unwrap(), second.unwrap());
        let at_first = publish(&first, "a", &[tcp(80, PORT), udp(81, 53)]).await;
        let at_second = publish(&second, "b", &[tcp(80, PORT)]).await;
        let vpc = eni("172.31.0.5");
        let in_vpc = attach(&second, "vpc", &vpc).await;
        for at in [&at_first, &at_second, &in_vpc] {
            at.serve(PORT);
        }
        at_first.run(|| echo(53));
        let (to_first, to_second) = (first.instance_address().unwrap(), second.instance_address().unwrap());
        let inside = At::namespace(first.instance_namespace().unwrap());

        assert_eq!(At::Machine.reaches(to_first, 80), first.machine_address().unwrap());
        assert_eq!(At::Machine.reaches(to_second, 80), second.machine_address().unwrap());
        assert_eq!(in_vpc.reaches(to_first, 80), vpc.address);
        in_vpc.reaches(to_second, 80);
        assert_eq!(at_second.reaches(to_first, 80), to_second, "seen as its instance");
        assert_eq!(at_first.reaches(vpc.address, PORT), to_first, "seen as its instance");
        at_first.reaches(to_first, 80);
        inside.reaches(to_first, 80);
        inside.reaches(to_second, 80);
        At::Machine.run(move || asks(to_first, 81));
        assert!(
            At::Machine.connect(Ipv4Addr::LOCALHOST, 80).is_err(),
            "the machine's ports are not the instances'"
        );

        first.detach("a").await.unwrap();
        assert!(At::Machine.connect(to_first, 80).is_err());
        assert_eq!(At::Machine.reaches(to_second, 80), second.machine_address().unwrap());
    });
}

#[test]
fn a_port_changes_hands_many_times() {
    on_a_machine("ports::a_port_changes_hands_many_times", async |directory| {
        let network =
            Network::open(Config { warm: 0, ..config(&directory, "a", Instance::Host) }).await.unwrap();
        // The rules come with the first such task and stay.
        publish(&network, "first", &[]).await;
        network.detach("first").await.unwrap();
        let traces = || [run("ip route"), run("nft list ruleset")];
        let before = traces();
        let mut last = None;
        for n in 0..50 {
            let task = format!("task-{n}");
            let at = publish(&network, &task, &[tcp(8000, PORT), udp(8000, PORT)]).await;
            at.serve(PORT);
            At::Machine.reaches(Ipv4Addr::LOCALHOST, 8000);
            if n % 2 == 0 {
                // The next one comes before this one is gone.
                last = Some(task);
                continue;
            }
            network.detach(&last.take().unwrap()).await.unwrap();
            At::Machine.reaches(Ipv4Addr::LOCALHOST, 8000);
            network.detach(&task).await.unwrap();
            assert!(At::Machine.connect(Ipv4Addr::LOCALHOST, 8000).is_err());
        }
        assert_eq!(traces(), before, "nothing is left");
    });
}

#[test]
fn bridge_tasks_are_reached_by_their_ports_alone() {
    on_a_machine("ports::bridge_tasks_are_reached_by_their_ports_alone", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Host)).await.unwrap();
        let a = At::namespace(&network.bridge("a", &[tcp(9001, PORT)]).await.unwrap().path);
        let b = At::namespace(&network.bridge("b", &[]).await.unwrap().path);
        let vpc = attach(&network, "vpc", &eni("172.31.0.5")).await;
        a.serve(PORT);
        let private =
            network.list().await.into_iter().find(|task| task.task == "a").unwrap().address.unwrap();
        vpc.reaches(ROUTER, 9001);
        b.reaches(private, PORT);
        At::Machine.reaches(private, PORT);
        assert!(
            vpc.connect(private, PORT).is_err(),
            "a task of the VPC, by an address that is none of its own"
        );
        let taken = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9004)).unwrap();
        let refused = network.bridge("c", &[tcp(9004, PORT)]).await.unwrap_err();
        assert_eq!(refused.to_string(), "Bind for 0.0.0.0:9004 failed: port is already allocated");
        drop(taken);
        network.bridge("c", &[tcp(9004, PORT)]).await.unwrap();
    });
}

/// A client that keeps one port for everything it sends, as resolvers and games do: to the kernel that is one flow.
#[test]
fn datagrams_follow_a_port_to_its_next_task() {
    on_a_machine("ports::datagrams_follow_a_port_to_its_next_task", async |directory| {
        let ports = [udp(8001, 53)];
        for instance in [Instance::Host, Instance::Namespaced(0)] {
            let config = config(&directory, "a", instance);
            let network = Network::open(config.clone()).await.unwrap();
            let to = network.instance_address().unwrap_or(Ipv4Addr::LOCALHOST);
            let client = client(to, 8001);
            let other = client_of_another_port(&network, to).await;
            publish(&network, "a", &ports).await.run(|| echo(53));
            assert_eq!(answer(&client), Some(5));

            // The next one comes before the first is gone, and after.
            publish(&network, "b", &ports).await.run(|| echo(53));
            network.detach("a").await.unwrap();
            assert_eq!(answer(&client), Some(5), "{instance:?}: taken over");
            network.detach("b").await.unwrap();
            assert_eq!(answer(&client), None, "nobody is there");
            publish(&network, "c", &ports).await.run(|| echo(53));
            assert_eq!(answer(&client), Some(5), "{instance:?}: after a time without anybody");
            assert_eq!(answer(&other), Some(5), "another flow goes on");
            drop(network);
            down(&config).await.unwrap();
        }
    });
}

async fn client_of_another_port(network: &Network, to: Ipv4Addr) -> UdpSocket {
    publish(network, "other", &[udp(8002, 53)]).await.run(|| echo(53));
    let client = client(to, 8002);
    assert_eq!(answer(&client), Some(5));
    client
}

#[test]
fn an_instances_loopback_leads_into_its_tasks_alone() {
    on_a_machine("ports::an_instances_loopback_leads_into_its_tasks_alone", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Namespaced(0))).await.unwrap();
        let inside = At::namespace(network.instance_namespace().unwrap());
        let own = network.instance_address().unwrap();
        let task = publish(&network, "a", &[tcp(8000, PORT), udp(8001, 53)]).await;
        task.serve(PORT);
        task.run(|| echo(53));
        assert_eq!(inside.reaches(Ipv4Addr::LOCALHOST, 8000), own);
        assert_eq!(inside.reaches(Ipv4Addr::new(127, 4, 5, 6), 8000), own);
        inside.run(|| asks(Ipv4Addr::LOCALHOST, 8001));
        let other = publish(&network, "b", &[]).await;
        assert!(other.connect(Ipv4Addr::LOCALHOST, 8000).is_err(), "a task's loopback is its own");
        network.detach("a").await.unwrap();
        assert!(inside.connect(Ipv4Addr::LOCALHOST, 8000).is_err());
    });
}

#[test]
fn a_port_is_taken_where_the_instance_is() {
    on_a_machine("ports::a_port_is_taken_where_the_instance_is", async |directory| {
        let network = Network::open(config(&directory, "a", Instance::Namespaced(0))).await.unwrap();
        let inside = At::namespace(network.instance_namespace().unwrap());
        let on_the_machine = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap();
        network.bridge("a", &[udp(9000, 53)]).await.unwrap();
        drop(on_the_machine);
        let taken = inside.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9001)).unwrap());
        let refused = network.bridge("b", &[udp(9001, 53)]).await.unwrap_err();
        assert_eq!(refused.to_string(), "Bind for 0.0.0.0:9001 failed: port is already allocated");
        drop(taken);
        network.bridge("b", &[udp(9001, 53)]).await.unwrap();
    });
}

async fn publish(network: &Network, task: &str, ports: &[HostPort]) -> At {
    At::namespace(&network.bridge(task, ports).await.unwrap().path)
}

fn udp(host_port: u16, container_port: u16) -> HostPort {
    HostPort { protocol: Protocol::Udp, ..tcp(host_port, container_port) }
}

async fn address(network: &Network, task: &str) -> Ipv4Addr {
    network.list().await.into_iter().find(|t| t.task == task).unwrap().address.unwrap()
}

/// Answers datagrams with what they say.
fn echo(port: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..n], from).unwrap();
        }
    });
}

#[track_caller]
fn asks(to: Ipv4Addr, port: u16) {
    assert_eq!(answer(&client(to, port)), Some(5));
}

fn client(to: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect((to, port)).unwrap();
    socket
}

/// The length of what comes back; `None` where nobody is.
fn answer(client: &UdpSocket) -> Option<usize> {
    client.send(b"hello").ok()?;
    client.recv(&mut [0; 8]).ok()
}
