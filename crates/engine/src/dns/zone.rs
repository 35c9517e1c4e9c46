//! The names of a private namespace: its services', and those of instances that SRV records lead to.

use super::{Data, Kind, Known, MOST, NAME_SERVER, Question, Record, TTL, load_balancer, soa};
use crate::view::View;
use longshore_model::discovery::{
    DiscoveryInstance, DiscoveryService, Namespace, NamespaceKind, RecordType, RoutingPolicy, attribute,
};
use longshore_model::vpc::Vpc;
use std::sync::Arc;

/// `None` for a name that is in no namespace of the VPCs.
pub fn look_up(view: &View, vpcs: &[Arc<Vpc>], question: &Question, chance: u64) -> Option<Known> {
    let (namespace, name) = find(view, vpcs, &question.name)?;
    let zone = Zone { view, namespace, question };
    Some(match name {
        "" => zone.apex(),
        name => {
            zone.service(name, chance).or_else(|| zone.instance(name)).unwrap_or_else(|| zone.absent(name))
        }
    })
}

/// The namespace with the longest name that a name ends in, and what is before that.
fn find<'v, 'n>(view: &'v View, vpcs: &[Arc<Vpc>], name: &'n str) -> Option<(&'v Arc<Namespace>, &'n str)> {
    let dots = name.match_indices('.').map(|(at, _)| (at, at + 1));
    std::iter::once((0, 0)).chain(dots).find_map(|(end, start)| {
        let zone = name.get(start..)?.to_ascii_lowercase();
        let namespace = vpcs.iter().find_map(|vpc| view.zone(&vpc.id, &zone))?;
        Some((namespace, name.get(..end)?))
    })
}

struct Zone<'a> {
    view: &'a View,
    namespace: &'a Namespace,
    question: &'a Question,
}

impl Zone<'_> {
    fn soa(&self) -> Record {
        let ttl = match self.namespace.kind {
            NamespaceKind::DnsPrivate { soa_ttl, .. } => soa_ttl,
            NamespaceKind::Http => 0,
        };
        soa(&self.namespace.name, ttl)
    }

    fn record(&self, ttl: u32, data: Data) -> Record {
        Record { name: self.question.name.clone(), ttl, data }
    }

    fn asks_for(&self, kind: Kind) -> bool {
        self.question.kind == kind || self.question.kind == Kind::Any
    }

    fn apex(&self) -> Known {
        let mut answers = Vec::new();
        if self.asks_for(Kind::Soa) {
            answers.push(self.soa());
        }
        if self.asks_for(Kind::Ns) {
            answers.push(self.record(TTL, Data::Ns(NAME_SERVER.to_owned())));
        }
        Known::of(answers, self.soa())
    }

    /// A service has a name as long as it has instances.
    fn service(&self, name: &str, chance: u64) -> Option<Known> {
        let service = self.named(name)?;
        let dns = service.dns.as_ref()?;
        let instances: Vec<_> = self.view.discovery_instances_of(&service.scope, &service.id).collect();
        if instances.is_empty() {
            return None;
        }
        let most = match dns.routing {
            RoutingPolicy::Multivalue => MOST,
            RoutingPolicy::Weighted => 1,
        };
        let mut known = Known { exists: true, ..Known::default() };
        for instance in choose(instances, most, chance) {
            self.tell(service, instance, &mut known);
        }
        if known.answers.is_empty() {
            known.authority.push(self.soa());
        }
        Some(known)
    }

    /// The service that DNS knows by a name.
    fn named(&self, name: &str) -> Option<&Arc<DiscoveryService>> {
        let mut named = self.view.discovery_services_named(&self.namespace.id, name);
        named.find(|service| service.dns.is_some())
    }

    /// Adds what is asked for of an instance.
    fn tell(&self, service: &DiscoveryService, instance: &DiscoveryInstance, known: &mut Known) {
        if let Some(alias) = instance.attribute(attribute::ALIAS) {
            let balancer = load_balancer(self.view, alias).filter(|_| self.asks_for(Kind::A));
            let addresses = balancer.iter().flat_map(|balancer| balancer.addresses());
            known.answers.extend(addresses.map(|address| self.record(TTL, Data::A(address))));
            return;
        }
        for record in service.dns.iter().flat_map(|dns| &dns.records) {
            let ttl = record.ttl;
            match record.kind {
                RecordType::A if self.asks_for(Kind::A) => {
                    known.answers.extend(instance.ipv4().map(|address| self.record(ttl, Data::A(address))));
                }
                RecordType::Aaaa if self.asks_for(Kind::Aaaa) => {
                    let address = instance.ipv6();
                    known.answers.extend(address.map(|address| self.record(ttl, Data::Aaaa(address))));
                }
                RecordType::Srv if self.asks_for(Kind::Srv) => {
                    let Some(port) = instance.port() else { continue };
                    let target = format!("{}.{}.{}", instance.id, service.name, self.namespace.name);
                    known.additional.extend(addresses(&target, ttl, instance));
                    known.answers.push(self.record(ttl, Data::Srv { port, target }));
                }
                // A CNAME stands for whatever is asked of its name.
                RecordType::Cname => {
                    let Some(target) = instance.attribute(attribute::CNAME) else { continue };
                    let target = target.strip_suffix('.').unwrap_or(target).to_owned();
                    known.answers.push(self.record(ttl, Data::Cname(target.clone())));
                    if !self.asks_for(Kind::Cname) {
                        known.next = Some(target);
                    }
                }
                RecordType::A | RecordType::Aaaa | RecordType::Srv => {}
            }
        }
    }

    /// An instance of a service with SRV records has a name of its own.
    fn instance(&self, name: &str) -> Option<Known> {
        let (service, instance) = name.match_indices('.').find_map(|(at, _)| {
            let (id, service) = (name.get(..at)?, name.get(at + 1..)?);
            let service = self.named(service).filter(|service| service.record(RecordType::Srv).is_some())?;
            let key = DiscoveryInstance::key_of(&service.scope, &service.id, id);
            let exact = self.view.discovery_instances.get(&key);
            let mut all = self.view.discovery_instances_of(&service.scope, &service.id);
            let instance = exact.or_else(|| all.find(|other| other.id.eq_ignore_ascii_case(id)))?;
            Some((service, instance))
        })?;
        let ttl = service.record(RecordType::Srv).map_or(TTL, |record| record.ttl);
        let answers = addresses(&self.question.name, ttl, instance).filter(|record| match record.data {
            Data::A(_) => self.asks_for(Kind::A),
            Data::Aaaa(_) => self.asks_for(Kind::Aaaa),
            _ => false,
        });
        Some(Known::of(answers.collect(), self.soa()))
    }

    /// A name between the namespace and a service, such as `_tcp` of `_web._tcp`, exists without records.
    fn absent(&self, name: &str) -> Known {
        let end = format!(".{}", name.to_ascii_lowercase());
        let mut services = self.view.discovery_services_of(&self.namespace.id);
        let is_between = services.any(|service| {
            service.dns.is_some()
                && service.name.to_ascii_lowercase().ends_with(&end)
                && self.view.discovery_instances_of(&service.scope, &service.id).next().is_some()
        });
        if is_between { Known::of(Vec::new(), self.soa()) } else { Known::absent(self.soa()) }
    }
}

fn addresses<'a>(
    name: &'a str,
    ttl: u32,
    instance: &DiscoveryInstance,
) -> impl Iterator<Item = Record> + use<'a> {
    let found = [instance.ipv4().map(Data::A), instance.ipv6().map(Data::Aaaa)];
    found.into_iter().flatten().map(move |data| Record { name: name.to_owned(), ttl, data })
}

/// Some of the healthy ones, or of all where none is healthy, in an order by chance.
fn choose(
    instances: Vec<&Arc<DiscoveryInstance>>,
    most: usize,
    mut chance: u64,
) -> Vec<&Arc<DiscoveryInstance>> {
    let healthy: Vec<_> = instances.iter().copied().filter(|instance| instance.is_healthy()).collect();
    let mut left = if healthy.is_empty() { instances } else { healthy };
    let count = most.min(left.len());
    for place in 0..count {
        // Splitmix: one number gives as many as are needed.
        chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (chance ^ (chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let rest = (left.len() - place) as u64;
        left.swap(place, place + ((mixed ^ (mixed >> 31)) % rest) as usize);
    }
    left.truncate(count);
    left
}
