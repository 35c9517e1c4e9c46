//! Where the traffic of a VPC goes: route tables and internet gateways.

use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::vpc::Cidr;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub scope: Scope,
    pub id: String,
    pub vpc: String,
    /// Its association with all subnets that have none of their own, of the VPC's main table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    /// Beside the one into the VPC itself, which every table has.
    pub routes: Vec<Route>,
    pub associations: Vec<Association>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Cidr,
    /// The id of an internet gateway.
    pub gateway: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    pub id: String,
    pub subnet: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    pub scope: Scope,
    pub id: String,
    /// The VPC that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

impl RouteTable {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for RouteTable {
    const TABLE: &'static str = "route-table";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

impl InternetGateway {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for InternetGateway {
    const TABLE: &'static str = "internet-gateway";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}
