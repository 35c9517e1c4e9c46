//! Makes listeners, groups and checks be what the records say.
//!
//! Invariant: what stays the same in the records stays the same here: sockets, connections and the course of checks.

use crate::dns::Resolvers;
use crate::forwards;
use crate::group::Group;
use crate::http::{Course, ForwardedFor, Route, Routes};
use crate::listening::{Door, Listening};
use crate::peer::Peer;
use crate::{Config, Refused};
use crate::{http, probe, stream, tls};
use arc_swap::ArcSwap;
use longshore_engine::{View, dns};
use longshore_model::Record;
use longshore_model::certificate::Certificate;
use longshore_model::change::{Change, Key, View as _};
use longshore_model::elb::{
    Action, Forward, HealthCheck, Listener, ListenerRule, LoadBalancer, Protocol, Target, TargetGroup,
};
use longshore_model::link::edge::{Row, TargetReport, TargetSeen};
use longshore_model::vpc::{NetworkInterface, Subnet, Vpc};
use rustls::ServerConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// The records that load balancers do what they do by.
const BALANCING: [&str; 5] =
    [LoadBalancer::TABLE, Listener::TABLE, ListenerRule::TABLE, TargetGroup::TABLE, Target::TABLE];
/// Reports that may wait to be sent; checks wait when there are more.
const REPORTS: usize = 1024;
/// Seconds without `idle_timeout.timeout_seconds`.
const IDLE: u64 = 60;
/// Seconds without `client_keep_alive.seconds`.
const KEEP_ALIVE: u64 = 3600;

pub struct Traffic {
    config: Config,
    view: View,
    groups: BTreeMap<Key, Arc<Group>>,
    peers: BTreeMap<Key, Arc<Peer>>,
    doors: BTreeMap<(Ipv4Addr, u16), Listening>,
    /// Whether a listener could not have one.
    lacks_sockets: bool,
    probes: BTreeMap<Key, Probe>,
    forwards: Vec<Forward>,
    resolvers: Resolvers,
    /// Where they are.
    resolvers_at: BTreeSet<Ipv4Addr>,
    /// The addresses that the machine could not have, as was said.
    refused: Refused,
    /// Targets that are waited for to have no request.
    draining: BTreeMap<Key, AbortHandle>,
    reports: mpsc::Sender<TargetReport>,
    seen: mpsc::Receiver<TargetReport>,
}

struct Probe {
    peer: Arc<Peer>,
    check: HealthCheck,
    own: Ipv4Addr,
    task: AbortHandle,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Traffic {
    pub fn new(config: Config) -> Self {
        let (reports, seen) = mpsc::channel(REPORTS);
        Self {
            config,
            view: View::default(),
            groups: BTreeMap::new(),
            peers: BTreeMap::new(),
            doors: BTreeMap::new(),
            lacks_sockets: false,
            probes: BTreeMap::new(),
            forwards: Vec::new(),
            resolvers: Resolvers::default(),
            resolvers_at: BTreeSet::new(),
            refused: Refused::new(),
            draining: BTreeMap::new(),
            reports,
            seen,
        }
    }

    /// What was seen of targets since it was last asked for.
    pub async fn seen(&mut self) -> Vec<TargetReport> {
        let mut reports = Vec::new();
        self.seen.recv_many(&mut reports, REPORTS).await;
        reports
    }

    /// Takes in everything anew.
    pub async fn restart(&mut self, rows: Vec<Row>) {
        self.view = View::default();
        self.apply(rows);
        self.resolvers.change(&self.view);
        self.follow_listeners().await;
        self.follow_groups(|_| true);
        self.follow_forwards().await;
    }

    /// Takes in records that have changed.
    pub async fn change(&mut self, rows: Vec<Row>) {
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        let mut concerned: BTreeSet<Key> = keys.iter().filter_map(|key| self.group_of(key)).collect();
        self.apply(rows);
        self.follow_names(&keys).await;
        if !keys.iter().any(|key| BALANCING.contains(&key.table())) {
            return;
        }
        concerned.extend(keys.iter().filter_map(|key| self.group_of(key)));
        let listens = [LoadBalancer::TABLE, Listener::TABLE, ListenerRule::TABLE, Certificate::TABLE];
        if keys.iter().any(|key| listens.contains(&key.table())) {
            self.follow_listeners().await;
            // Which groups are in use may be others now.
            self.follow_groups(|_| true);
        } else {
            self.follow_groups(|group| concerned.contains(group));
        }
        self.follow_forwards().await;
    }

    fn apply(&mut self, rows: Vec<Row>) {
        for row in rows {
            if let Err(error) = self.view.apply(&Change::from(row)) {
                tracing::error!(error = &error as &dyn std::error::Error, "a record is passed over");
            }
        }
    }

    /// The key of the group that a record is, or is of.
    fn group_of(&self, key: &Key) -> Option<Key> {
        match key.table() {
            TargetGroup::TABLE => Some(key.clone()),
            Target::TABLE => {
                let target = self.view.targets.get(key)?;
                let mut groups = self.view.target_groups.of(&target.scope);
                groups.find(|group| group.id == target.target_group).map(|group| group.key())
            }
            _ => None,
        }
    }

    /// Answers from what has changed of names, where there are resolvers now.
    async fn follow_names(&mut self, changed: &[Key]) {
        self.resolvers.change(&self.view);
        let places = [Vpc::TABLE, Subnet::TABLE, NetworkInterface::TABLE];
        let may_move = changed.iter().any(|key| places.contains(&key.table()));
        if may_move && dns::resolvers(&self.view) != self.resolvers_at {
            self.follow_addresses().await;
        }
    }

    /// Tries again what the machine refused.
    pub async fn try_again(&mut self) {
        if self.lacks_sockets {
            self.follow_listeners().await;
        } else if !self.refused.is_empty() || self.resolvers.lacks_sockets() {
            self.follow_addresses().await;
        }
    }

    /// Has the machine answer at the addresses of load balancers and of resolvers.
    async fn follow_addresses(&mut self) {
        let balancers = self.view.load_balancers.iter().flat_map(|balancer| balancer.addresses());
        self.resolvers_at = dns::resolvers(&self.view);
        let addresses = balancers.chain(self.resolvers_at.iter().copied()).collect();
        let refused: Refused = self.config.machine.hold(&addresses).await.into_iter().collect();
        for (address, error) in refused.iter().filter(|(address, _)| !self.refused.contains_key(address)) {
            tracing::error!(%address, error, "a load balancer or a VPC's resolver has no address");
        }
        self.refused = refused;
        self.resolvers.listen(&self.resolvers_at, &self.refused).await;
    }

    /// Opens and closes sockets, and changes what is done with requests.
    async fn follow_listeners(&mut self) {
        let balancers: Vec<Arc<LoadBalancer>> = self.view.load_balancers.iter().cloned().collect();
        self.follow_addresses().await;
        let mut wanted = BTreeSet::new();
        self.lacks_sockets = false;
        for balancer in &balancers {
            let listeners =
                self.view.listeners.under(&Listener::prefix_of(&balancer.scope, &balancer.path()));
            for listener in listeners.cloned().collect::<Vec<_>>() {
                let Some(door) = self.door(balancer, &listener) else { continue };
                for address in balancer.addresses() {
                    wanted.insert((address, listener.port));
                    self.open((address, listener.port), door.clone());
                }
            }
        }
        self.doors.retain(|place, _| wanted.contains(place));
    }

    /// Has the kernel pass on what network load balancers want now.
    async fn follow_forwards(&mut self) {
        let wanted = forwards::wanted(&self.view);
        if wanted == self.forwards {
            return;
        }
        match self.config.machine.forward(&wanted).await {
            Ok(()) => self.forwards = wanted,
            Err(error) => tracing::error!(error, "the traffic of network load balancers is not passed on"),
        }
    }

    /// What the connections of a listener meet; `None` where the kernel passes them on, and where it cannot speak TLS.
    fn door(&mut self, balancer: &LoadBalancer, listener: &Listener) -> Option<Door> {
        let clock = Arc::clone(&self.config.clock);
        let tls = match listener.protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::TcpUdp => return None,
            Protocol::Http => None,
            Protocol::Https | Protocol::Tls => Some(self.tls(balancer, listener)?),
        };
        if let (Protocol::Tls, Some(tls)) = (listener.protocol, &tls) {
            let key = forwards::group_of(&self.view, listener)?.key();
            let route = stream::Route { tls: Arc::clone(tls), group: self.group(key) };
            return Some(Door::Stream(Arc::new(stream::Door { route: ArcSwap::from_pointee(route), clock })));
        }
        let routes = ArcSwap::from_pointee(self.routes(balancer, listener, tls));
        Some(Door::Http(Arc::new(http::Door { routes, clock, turn: AtomicU64::new(0) })))
    }

    fn open(&mut self, place: (Ipv4Addr, u16), door: Door) {
        if self.doors.get(&place).is_some_and(|open| open.change(&door)) {
            return;
        }
        self.doors.remove(&place);
        match Listening::open(place.0, place.1, door) {
            Ok(listening) => drop(self.doors.insert(place, listening)),
            Err(error) => {
                let (error, (address, port)) = (&error as &dyn std::error::Error, place);
                tracing::error!(error, %address, port, "a listener has no socket");
                self.lacks_sockets = true;
            }
        }
    }

    fn tls(&self, balancer: &LoadBalancer, listener: &Listener) -> Option<Arc<ServerConfig>> {
        let find = |arn: &String| {
            let id = arn.rsplit('/').next().unwrap_or_default();
            self.view.certificates.get(&Certificate::key_of(&listener.scope, id)).cloned()
        };
        let certificates: Vec<Arc<Certificate>> = listener.certificates.iter().filter_map(find).collect();
        let http2 = balancer.attribute("routing.http2.enabled") != Some("false");
        let http2 = http2 && listener.protocol == Protocol::Https;
        match tls::config(&certificates, listener.ssl_policy.as_deref(), http2) {
            Ok(config) => Some(config),
            Err(error) => {
                let (error, listener) = (&error as &dyn std::error::Error, listener.arn());
                tracing::error!(error, listener, "a listener cannot speak TLS");
                None
            }
        }
    }

    fn routes(
        &mut self,
        balancer: &LoadBalancer,
        listener: &Listener,
        tls: Option<Arc<ServerConfig>>,
    ) -> Routes {
        let prefix = ListenerRule::prefix_of(&listener.scope, &listener.load_balancer, &listener.id);
        let mut rules: Vec<Arc<ListenerRule>> = self.view.listener_rules.under(&prefix).cloned().collect();
        rules.sort_by_key(|rule| rule.priority);
        let idle = balancer.attribute("idle_timeout.timeout_seconds").and_then(|text| text.parse().ok());
        let forwarded_for = match balancer.attribute("routing.http.xff_header_processing.mode") {
            Some("preserve") => ForwardedFor::Preserve,
            Some("remove") => ForwardedFor::Remove,
            _ => ForwardedFor::Append,
        };
        let is_on = |name: &str| balancer.attribute(name) == Some("true");
        let keep_alive = balancer.attribute("client_keep_alive.seconds").and_then(|text| text.parse().ok());
        Routes {
            port: listener.port,
            keep_alive: Duration::from_secs(keep_alive.unwrap_or(KEEP_ALIVE)),
            drop_invalid: is_on("routing.http.drop_invalid_header_fields.enabled"),
            preserve_host: is_on("routing.http.preserve_host_header.enabled"),
            protocol: if tls.is_some() { "https" } else { "http" },
            tls,
            idle: Duration::from_secs(idle.unwrap_or(IDLE)),
            forwarded_for,
            rules: rules
                .iter()
                .map(|rule| Route {
                    conditions: rule.conditions.clone(),
                    course: self.course(listener, &rule.actions),
                })
                .collect(),
            default: self.course(listener, &listener.default_actions),
        }
    }

    fn course(&mut self, listener: &Listener, actions: &[Action]) -> Course {
        match actions.last() {
            Some(Action::Forward { groups, stickiness }) => Course::Forward {
                kept_for: stickiness
                    .as_ref()
                    .filter(|kept| kept.enabled)
                    .map(|kept| kept.seconds.unwrap_or(3600)),
                weights: groups.clone(),
                groups: groups
                    .iter()
                    .map(|group| self.group(TargetGroup::key_of(&listener.scope, &group.target_group)))
                    .collect(),
            },
            Some(Action::Redirect(redirect)) => Course::Redirect(redirect.clone()),
            Some(Action::FixedResponse(response)) => Course::Fixed(response.clone()),
            None => Course::Nowhere,
        }
    }

    fn group(&mut self, key: Key) -> Arc<Group> {
        Arc::clone(self.groups.entry(key).or_default())
    }

    /// Brings the groups up to date that changes concern, and the checks of their targets.
    fn follow_groups(&mut self, is_concerned: impl Fn(&Key) -> bool) {
        let now = (self.config.clock)();
        let sources = self.sources();
        let records: Vec<Arc<TargetGroup>> = self.view.target_groups.iter().cloned().collect();
        self.groups
            .retain(|key, group| self.view.target_groups.get(key).is_some() || Arc::strong_count(group) > 1);
        for record in records.iter().filter(|record| is_concerned(&record.key())) {
            let prefix = Target::prefix_of(&record.scope, &record.id);
            let targets: Vec<Arc<Target>> = self.view.targets.under(&prefix).cloned().collect();
            let own = sources.get(&record.key()).copied();
            let peers: Vec<_> =
                targets.iter().map(|target| (Arc::clone(target), self.peer(record, target))).collect();
            self.group(record.key()).change(record, &peers, now);
            for (target, peer) in &peers {
                self.check(record, target, peer, own);
                self.drain(record, target, peer);
            }
        }
        let view = &self.view;
        let is_gone = |key: &Key| view.targets.get(key).is_none();
        self.probes.retain(|key, _| !is_gone(key));
        self.draining.retain(|key, waiting| {
            let stays = !is_gone(key);
            if !stays {
                waiting.abort();
            }
            stays
        });
        self.peers.retain(|key, peer| {
            let stays = !is_gone(key);
            if !stays {
                peer.leave();
            }
            stays
        });
    }

    /// The groups that listeners send to, each with an address of a load balancer that does.
    fn sources(&self) -> BTreeMap<Key, Ipv4Addr> {
        let mut sources = BTreeMap::new();
        let rules =
            self.view.listener_rules.iter().map(|rule| (&rule.scope, &rule.load_balancer, &rule.actions));
        let defaults = self
            .view
            .listeners
            .iter()
            .map(|listener| (&listener.scope, &listener.load_balancer, &listener.default_actions));
        for (scope, load_balancer, actions) in rules.chain(defaults) {
            let name = load_balancer.split('/').nth(1).unwrap_or_default();
            let balancer = self.view.load_balancers.get(&LoadBalancer::key_of(scope, name));
            let Some(own) = balancer.and_then(|balancer| balancer.addresses().next()) else { continue };
            for action in actions {
                let Action::Forward { groups, .. } = action else { continue };
                for group in groups {
                    sources.entry(TargetGroup::key_of(scope, &group.target_group)).or_insert(own);
                }
            }
        }
        sources
    }

    /// The target as it is registered now; one that was registered anew is another.
    fn peer(&mut self, group: &TargetGroup, target: &Target) -> Arc<Peer> {
        let key = target.key();
        match self.peers.get(&key).filter(|peer| peer.registered_at == target.registered_at) {
            Some(peer) => Arc::clone(peer),
            None => {
                let peer = Arc::new(Peer::new(key.clone(), group, target));
                if let Some(before) = self.peers.insert(key, Arc::clone(&peer)) {
                    before.leave();
                }
                peer
            }
        }
    }

    /// Checks what is sent to, as long as that is so.
    fn check(&mut self, record: &TargetGroup, target: &Target, peer: &Arc<Peer>, own: Option<Ipv4Addr>) {
        let key = target.key();
        let wanted = own.filter(|_| record.health_check.enabled && target.deregistered_at.is_none());
        let Some(own) = wanted else {
            self.probes.remove(&key);
            return;
        };
        let same = |probe: &&Probe| {
            Arc::ptr_eq(&probe.peer, peer) && probe.check == record.health_check && probe.own == own
        };
        if self.probes.get(&key).filter(same).is_some() {
            return;
        }
        let check = record.health_check.clone();
        let (reports, recorded) = (self.reports.clone(), target.health.clone());
        let task = tokio::spawn(probe::run(Arc::clone(peer), check.clone(), own, recorded, reports));
        let probe = Probe { peer: Arc::clone(peer), check, own, task: task.abort_handle() };
        self.probes.insert(key, probe);
    }

    /// Has it reported when a target that is deregistered has no request any more.
    fn drain(&mut self, record: &TargetGroup, target: &Target, peer: &Arc<Peer>) {
        let key = target.key();
        // What the kernel passes on is not counted here, and has the whole of the group's delay to end.
        if target.deregistered_at.is_none() || !record.protocol.is_application() {
            if let Some(waiting) = self.draining.remove(&key) {
                waiting.abort();
            }
            return;
        }
        if self.draining.contains_key(&key) {
            return;
        }
        let (peer, reports) = (Arc::clone(peer), self.reports.clone());
        let waiting = tokio::spawn(async move {
            peer.until_quiet().await;
            let seen = TargetSeen::Drained;
            let report = TargetReport { target: peer.key.clone(), registered_at: peer.registered_at, seen };
            // Nobody wants to know when the edge ends.
            let _ = reports.send(report).await;
        });
        self.draining.insert(key, waiting.abort_handle());
    }
}
