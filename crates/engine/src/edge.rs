//! What an edge is told: the records that traffic depends on, as they are. Invariant: a record of these tables is told of
//! by its key alone, so that a later telling makes an earlier one good.

use crate::view::{Table, View};
use longshore_model::certificate::Certificate;
use longshore_model::change::Key;
use longshore_model::discovery::{DiscoveryInstance, DiscoveryService, Namespace};
use longshore_model::elb::{Listener, ListenerRule, LoadBalancer, Target, TargetGroup};
use longshore_model::link::edge::Row;
use longshore_model::record::{Record, encode};
use longshore_model::vpc::{NetworkInterface, Subnet, Vpc};

/// Everything that edges need.
pub fn everything(view: &View) -> Vec<Row> {
    let mut rows = Vec::new();
    add(&mut rows, &view.certificates);
    add(&mut rows, &view.load_balancers);
    add(&mut rows, &view.listeners);
    add(&mut rows, &view.listener_rules);
    add(&mut rows, &view.target_groups);
    add(&mut rows, &view.targets);
    add(&mut rows, &view.vpcs);
    add(&mut rows, &view.subnets);
    add(&mut rows, &view.network_interfaces);
    add(&mut rows, &view.namespaces);
    add(&mut rows, &view.discovery_services);
    add(&mut rows, &view.discovery_instances);
    rows
}

/// A record as it is now; `None` for one that edges do not need.
pub fn row(view: &View, key: &Key) -> Option<Row> {
    let value = match key.table() {
        Certificate::TABLE => text_of(&view.certificates, key),
        LoadBalancer::TABLE => text_of(&view.load_balancers, key),
        Listener::TABLE => text_of(&view.listeners, key),
        ListenerRule::TABLE => text_of(&view.listener_rules, key),
        TargetGroup::TABLE => text_of(&view.target_groups, key),
        Target::TABLE => text_of(&view.targets, key),
        Vpc::TABLE => text_of(&view.vpcs, key),
        Subnet::TABLE => text_of(&view.subnets, key),
        NetworkInterface::TABLE => text_of(&view.network_interfaces, key),
        Namespace::TABLE => text_of(&view.namespaces, key),
        DiscoveryService::TABLE => text_of(&view.discovery_services, key),
        DiscoveryInstance::TABLE => text_of(&view.discovery_instances, key),
        _ => return None,
    };
    Some(Row { key: key.clone(), value })
}

fn add<R: Record>(rows: &mut Vec<Row>, table: &Table<R>) {
    rows.extend(table.iter().map(|record| Row { key: record.key(), value: Some(text(&**record)) }));
}

fn text_of<R: Record>(table: &Table<R>, key: &Key) -> Option<String> {
    table.get(key).map(|record| text(&**record))
}

fn text<R: Record>(record: &R) -> String {
    // JSON is UTF-8.
    String::from_utf8(encode(record)).unwrap_or_default()
}
