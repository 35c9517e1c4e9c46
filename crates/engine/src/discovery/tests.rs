//! What is registered while tasks come and go: what is checked is what others would find.

use super::*;
use crate::testing::{self, Count, apply, instance, request, scope};
use longshore_model::discovery::{DnsConfig, DnsRecord, RoutingPolicy};
use longshore_model::service::{Service, ServiceRegistry};
use longshore_model::task::{Container, HostPort, Stop, StopCode};
use longshore_model::task_definition::{HealthCheck, Protocol};
use longshore_model::{Record, Tags, Timestamp, Version};
use proptest::prelude::*;

struct World {
    view: View,
}

fn discovery_service(kind: RecordType) -> DiscoveryService {
    let records = vec![DnsRecord { kind, ttl: 60 }];
    DiscoveryService {
        scope: scope(),
        id: "srv-1".to_owned(),
        name: "api".to_owned(),
        namespace: "ns-1".to_owned(),
        dns: Some(DnsConfig { routing: RoutingPolicy::Multivalue, records }),
        custom_health: true,
        description: None,
        creator_request_id: None,
        tags: Tags::default(),
        created_at: Timestamp(1),
        revision: 1,
    }
}

impl World {
    fn new(kind: RecordType, container: Option<(&str, u16)>) -> Self {
        let mut world = Self { view: testing::view(&[instance(1, 102_400, 409_600)]) };
        let found = discovery_service(kind);
        let container = container.map(|(name, port)| (name.to_owned(), port));
        let mut service = testing::service();
        service.deployments[0].registries = vec![ServiceRegistry { arn: found.arn(), container, port: None }];
        world.commit(|_, transaction| {
            transaction.create(&found);
            transaction.create(&service);
        });
        world
    }

    fn commit(&mut self, decide: impl FnOnce(&View, &mut Transaction)) {
        let mut transaction = Transaction::at(Version(0));
        decide(&self.view, &mut transaction);
        revise(&self.view, &mut transaction);
        let keys: Vec<_> = transaction.writes().iter().map(|write| write.key().clone()).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "a record is written once");
        apply(&mut self.view, transaction);
    }

    fn service(&self) -> Arc<Service> {
        self.view.services.iter().next().cloned().unwrap()
    }

    /// Tasks of the service's deployment, PROVISIONING.
    fn place(&mut self, count: u32) -> Vec<Key> {
        let service = self.service();
        let mut request = request(&self.view, count);
        request.group = service.group();
        request.started_by = Some(service.deployments[0].id.clone());
        let placed = crate::placement::place(&self.view, &request, Timestamp(10), &mut Count(77));
        self.commit(|view, transaction| crate::placement::write(view, &placed, transaction));
        placed.tasks.iter().map(|(task, _)| task.key()).collect()
    }

    /// Writes a task anew, as every change of one is written.
    fn change(&mut self, task: &Key, change: impl Fn(&mut Task)) {
        self.commit(|view, transaction| {
            let mut next = (**view.tasks.get(task).unwrap()).clone();
            change(&mut next);
            lifecycle::write(view, &next, transaction);
        });
    }

    fn run(&mut self, task: &Key) {
        self.change(task, |task| task.last_status = LastStatus::Running);
    }

    fn stop(&mut self, task: &Key) {
        let why = || Stop { code: StopCode::UserInitiated, reason: String::new() };
        self.commit(|view, transaction| {
            if let Some(next) = lifecycle::stop(view.tasks.get(task).unwrap(), why(), Timestamp(20)) {
                lifecycle::write(view, &next, transaction);
            }
        });
    }

    fn registered(&self) -> Vec<&Arc<DiscoveryInstance>> {
        self.view.discovery_instances_of(&scope(), "srv-1").collect()
    }

    fn revision(&self) -> u64 {
        self.view.discovery_services.iter().next().unwrap().revision
    }
}

#[test]
fn a_task_is_registered_as_long_as_it_runs() {
    let mut world = World::new(RecordType::A, None);
    let tasks = world.place(2);
    assert!(world.registered().is_empty());
    world.run(&tasks[0]);
    assert_eq!(world.revision(), 2);
    let [one] = world.registered()[..] else { panic!() };
    let task = world.view.tasks.get(&tasks[0]).unwrap();
    assert_eq!(
        (one.id.clone(), one.ipv4()),
        (task.id.to_string(), Some(task.network.as_ref().unwrap().address))
    );
    assert_eq!(one.attribute("ECS_SERVICE_NAME"), Some("web"));
    assert_eq!(one.attribute("ECS_CLUSTER_NAME"), Some("default"));
    assert_eq!(one.attribute(attribute::INITIAL_HEALTH), Some("HEALTHY"));
    assert_eq!(one.attribute(attribute::PORT), None);
    world.run(&tasks[1]);
    world.run(&tasks[1]);
    assert_eq!((world.registered().len(), world.revision()), (2, 3));
    world.stop(&tasks[0]);
    assert_eq!((world.registered().len(), world.revision()), (1, 4));
    world.change(&tasks[0], |task| task.last_status = LastStatus::Stopped);
    assert_eq!((world.registered().len(), world.revision()), (1, 4));
}

#[test]
fn what_somebody_registered_under_a_tasks_id_stays_theirs() {
    let mut world = World::new(RecordType::A, None);
    let tasks = world.place(1);
    let id = world.view.tasks.get(&tasks[0]).unwrap().id.to_string();
    let theirs = DiscoveryInstance {
        scope: scope(),
        service: "srv-1".to_owned(),
        id,
        attributes: BTreeMap::new(),
        health: None,
        task: None,
        creator_request_id: None,
        operation: None,
        registered_at: Timestamp(1),
    };
    world.commit(|_, transaction| transaction.create(&theirs));
    world.run(&tasks[0]);
    world.stop(&tasks[0]);
    assert_eq!(**world.registered()[0], theirs);
}

#[test]
fn health_follows_the_containers_where_they_are_checked() {
    let mut world = World::new(RecordType::A, None);
    let mut definition = testing::definition();
    definition.containers[0].health_check = Some(HealthCheck {
        command: vec!["CMD".to_owned(), "true".to_owned()],
        interval: 30,
        timeout: 5,
        retries: 3,
        start_period: None,
    });
    world.commit(|_, transaction| transaction.update(&definition));
    let tasks = world.place(1);
    world.run(&tasks[0]);
    let health = |world: &World| world.registered()[0].health;
    assert_eq!(health(&world), Some(HealthStatus::Unhealthy));
    for (of_container, expected) in [
        (Health::Healthy, HealthStatus::Healthy),
        (Health::Unhealthy, HealthStatus::Unhealthy),
        (Health::Healthy, HealthStatus::Healthy),
    ] {
        world.change(&tasks[0], |task| task.containers[0].health = of_container);
        assert_eq!(health(&world), Some(expected));
    }
    assert_eq!(world.revision(), 2, "health does not count");
    assert_eq!(world.registered()[0].attribute(attribute::INITIAL_HEALTH), Some("UNHEALTHY"));
}

#[test]
fn tasks_without_an_address_are_found_at_their_instances() {
    let mut world = World::new(RecordType::Srv, Some(("app", 8080)));
    let mut on = instance(1, 102_400, 409_600);
    on.attributes.insert(ADDRESS.to_owned(), "10.250.0.6".to_owned());
    let mut definition = testing::definition();
    definition.network_mode = Some(NetworkMode::Bridge);
    world.commit(|_, transaction| {
        transaction.update(&on);
        transaction.update(&definition);
    });
    let tasks = world.place(1);
    let port = |container: &str, host_port| HostPort {
        container: container.to_owned(),
        container_port: 8080,
        host_port,
        protocol: Protocol::Tcp,
    };
    world.change(&tasks[0], |task| {
        task.network = None;
        task.host_ports = vec![port("side", 32_768), port("app", 32_769)];
        task.last_status = LastStatus::Running;
    });
    let [one] = world.registered()[..] else { panic!() };
    assert_eq!(one.attribute(attribute::IPV4), Some("10.250.0.6"));
    assert_eq!(one.port(), Some(32_769));
}

#[derive(Clone, Debug)]
enum Step {
    Run(usize),
    Stop(usize),
    End(usize),
    /// All tasks that run are stopped by one commit.
    StopAll,
    Deregister(usize),
    Health(usize, Health),
}

fn step() -> impl Strategy<Value = Step> {
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy), Just(Health::Unknown)];
    prop_oneof![
        (0usize..6).prop_map(Step::Run),
        (0usize..6).prop_map(Step::Stop),
        (0usize..6).prop_map(Step::End),
        Just(Step::StopAll),
        (0usize..6).prop_map(Step::Deregister),
        (0usize..6, health).prop_map(|(task, health)| Step::Health(task, health)),
    ]
}

proptest! {
    /// After every commit exactly the tasks that run and are to go on are registered, but for one that was deregistered
    /// by hand and has not changed since; and the revision has moved if and only if they are others now.
    #[test]
    fn exactly_what_runs_is_registered(steps in prop::collection::vec(step(), 0..40)) {
        let mut world = World::new(RecordType::A, None);
        let tasks = world.place(6);
        let mut left_out = BTreeSet::new();
        for step in steps {
            let ids = |world: &World| world.registered().iter().map(|one| one.id.clone()).collect::<Vec<_>>();
            let (before, revision) = (ids(&world), world.revision());
            match step {
                Step::Run(at) => world.change(&tasks[at], |task| {
                    task.last_status = task.last_status.max(LastStatus::Running);
                }),
                Step::Stop(at) => world.stop(&tasks[at]),
                Step::End(at) => world.change(&tasks[at], |task| {
                    task.desired_status = DesiredStatus::Stopped;
                    task.last_status = LastStatus::Stopped;
                }),
                Step::StopAll => world.commit(|view, transaction| {
                    let why = Stop { code: StopCode::UserInitiated, reason: String::new() };
                    for task in view.tasks.iter() {
                        if let Some(next) = lifecycle::stop(task, why.clone(), Timestamp(20)) {
                            lifecycle::write(view, &next, transaction);
                        }
                    }
                }),
                Step::Deregister(at) => world.commit(|view, transaction| {
                    let mut of_task = view.discovery_instances_of_task(&tasks[at]);
                    of_task.by_ref().for_each(|one| transaction.delete(one.key()));
                }),
                Step::Health(at, health) => world.change(&tasks[at], |task| {
                    let set = |container: &mut Container| container.health = health;
                    task.containers.iter_mut().for_each(set);
                }),
            }
            match step {
                Step::Deregister(at) => drop(left_out.insert(at)),
                Step::Run(at) | Step::Health(at, _) => drop(left_out.remove(&at)),
                Step::Stop(_) | Step::End(_) | Step::StopAll => {}
            }
            let runs = |task: &Task| {
                task.desired_status == DesiredStatus::Running && task.last_status == LastStatus::Running
            };
            let expected: BTreeSet<String> = (0..tasks.len())
                .filter(|at| !left_out.contains(at))
                .filter_map(|at| world.view.tasks.get(&tasks[at]))
                .filter(|task| runs(task))
                .map(|task| task.id.to_string())
                .collect();
            let after = ids(&world);
            prop_assert_eq!(after.iter().cloned().collect::<BTreeSet<_>>(), expected);
            prop_assert_eq!(world.revision() > revision, before != after);
        }
    }
}
