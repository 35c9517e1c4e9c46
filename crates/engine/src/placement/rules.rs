//! What an instance must have to take a task. Invariant: what is asked first is what AWS asks first, resources before
//! constraints, so that the reason that users read is AWS's.

use super::{Request, address, ports, zone_of};
use crate::query::Expression;
use crate::view::{GroupKey, Sorting, View, expression};
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, Status};
use longshore_model::placement::PlacementConstraint;
use longshore_model::resources::Kind;
use std::sync::Arc;

/// Why a task found no place; rendered as the `reason` of a RunTask failure. Later ones are closer to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// There is no such instance in the cluster.
    Missing,
    /// The instance was deregistered.
    Inactive,
    /// The instance gives its tasks away.
    Draining,
    /// No instance with a connected agent offers the capacity.
    Agent,
    /// None runs the task's CPU architecture.
    Attribute,
    Cpu,
    Memory,
    /// A port of the instance that the task needs is taken.
    Ports,
    /// None of the subnets is in the instance's availability zone.
    Location,
    /// The subnets have no free address.
    NetworkInterface,
    DistinctInstance,
    MemberOf,
}

impl Reason {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "MISSING",
            Self::Inactive => "INACTIVE",
            Self::Draining => "DRAINING",
            Self::Agent => "AGENT",
            Self::Attribute => "ATTRIBUTE",
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
            Self::Ports => "RESOURCE:PORTS",
            Self::Location => "LOCATION",
            Self::NetworkInterface => "RESOURCE:ENI",
            Self::DistinctInstance => "DistinctInstance placement constraint unsatisfied.",
            Self::MemberOf => "MemberOf placement constraint unsatisfied.",
        }
    }

    pub fn detail(self) -> &'static str {
        match self {
            Self::Missing => "The cluster has no such container instance.",
            Self::Inactive => "The container instance is deregistered.",
            Self::Draining => "The container instance is draining, and takes no new tasks.",
            Self::Agent => "No instance that could run the task has a connected agent.",
            Self::Attribute => "No instance that could run the task has its CPU architecture.",
            Self::Cpu => "No instance that could run the task has enough CPU units left.",
            Self::Memory => "No instance that could run the task has enough memory left.",
            Self::Ports => "Every instance is already using a port required by your task.",
            Self::Location => "None of the subnets is in the availability zone of an instance with room.",
            Self::NetworkInterface => "The subnets have no free addresses.",
            Self::DistinctInstance => "A task of the same group is on every instance with room.",
            Self::MemberOf => "No instance with room meets the expression of a memberOf constraint.",
        }
    }
}

/// The constraints of a request and of its definition, ready to be asked.
pub struct Rules {
    pub distinct: bool,
    /// `None` is an expression that nobody understands, which no instance meets.
    member_of: Vec<Option<Arc<Expression>>>,
    /// Where the view files the instances as the request asks for them; `None` for the usual shelf.
    pub sorting: Option<Sorting>,
    pub group: GroupKey,
}

impl Rules {
    pub fn of(view: &View, request: &Request) -> Self {
        let constraints = || request.constraints.iter().chain(&request.definition.placement_constraints);
        let read = |text| match view.capacity().expression(text) {
            Some(known) => Some(Arc::clone(known)),
            None => Expression::parse(text).ok().map(Arc::new),
        };
        let texts: Vec<&str> = constraints().filter_map(expression).collect();
        let member_of: Vec<_> = texts.iter().map(|text| read(text)).collect();
        let lasts = |known: &Option<Arc<Expression>>| known.as_ref().is_some_and(|e| !e.asks_of_tasks());
        let lasting = texts.iter().zip(&member_of).filter(|(_, known)| lasts(known)).map(|(text, _)| *text);
        Self {
            distinct: constraints().any(|constraint| *constraint == PlacementConstraint::DistinctInstance),
            sorting: Sorting::of(&request.strategies, lasting),
            member_of,
            group: (Cluster::key_of(&request.scope, &request.cluster), request.group.as_str().into()),
        }
    }

    /// Asks first what is cheap to know.
    pub fn allow(&self, view: &View, request: &Request, instance: &ContainerInstance) -> bool {
        let case = Case { rules: self, view, request, instance };
        case.availability().is_none()
            && case.architecture().is_none()
            && case.resources().is_none()
            && case.distinct_instance().is_none()
            && case.member_of().is_none()
            && case.location().is_none()
            && case.addresses().is_none()
            && case.ports().is_none()
    }

    /// All that keeps an instance from taking the task, in the order in which it is asked; asked as it is read.
    pub fn refusals<'a>(
        &'a self,
        view: &'a View,
        request: &'a Request,
        instance: &'a ContainerInstance,
    ) -> impl Iterator<Item = Reason> + 'a {
        let case = Case { rules: self, view, request, instance };
        QUESTIONS.iter().filter_map(move |question| question(&case))
    }
}

struct Case<'a> {
    rules: &'a Rules,
    view: &'a View,
    request: &'a Request,
    instance: &'a ContainerInstance,
}

type Question = fn(&Case<'_>) -> Option<Reason>;

const QUESTIONS: [Question; 8] = [
    |case| case.availability(),
    |case| case.architecture(),
    |case| case.resources(),
    |case| case.ports(),
    |case| case.location(),
    |case| case.addresses(),
    |case| case.distinct_instance(),
    |case| case.member_of(),
];

impl Case<'_> {
    fn availability(&self) -> Option<Reason> {
        if !self.instance.agent_connected {
            return Some(Reason::Agent);
        }
        let draining = self.instance.membership().is_some_and(|member| member.status == Status::Draining);
        draining.then_some(Reason::Draining)
    }

    /// A definition that names no architecture runs wherever there is capacity.
    fn architecture(&self) -> Option<Reason> {
        let wanted = self.request.definition.cpu_architecture?;
        (wanted != self.instance.cpu_architecture).then_some(Reason::Attribute)
    }

    fn resources(&self) -> Option<Reason> {
        let left = self.instance.resources.minus(self.view.used_on(self.instance.id));
        match left.lacks(self.request.size)? {
            Kind::Cpu => Some(Reason::Cpu),
            Kind::Memory => Some(Reason::Memory),
        }
    }

    fn ports(&self) -> Option<Reason> {
        let chosen = ports::choose(self.view, self.instance, &self.request.definition);
        chosen.is_none().then_some(Reason::Ports)
    }

    fn location(&self) -> Option<Reason> {
        let (zone, network) = (zone_of(self.instance)?, self.request.network.as_ref()?);
        let near = network.subnets.iter().any(|subnet| subnet.availability_zone == zone);
        (!near).then_some(Reason::Location)
    }

    fn addresses(&self) -> Option<Reason> {
        let network = self.request.network.as_ref()?;
        let has_room = address::has_room(self.view, network, zone_of(self.instance));
        (!has_room).then_some(Reason::NetworkInterface)
    }

    fn distinct_instance(&self) -> Option<Reason> {
        if !self.rules.distinct {
            return None;
        }
        let group = self.view.capacity().group(&self.rules.group)?;
        (group.on(self.instance.id) > 0).then_some(Reason::DistinctInstance)
    }

    fn member_of(&self) -> Option<Reason> {
        let meets = |expression: &Option<Arc<Expression>>| {
            expression.as_ref().is_some_and(|expression| expression.is_true_of(self.view, self.instance))
        };
        (!self.rules.member_of.iter().all(meets)).then_some(Reason::MemberOf)
    }
}
