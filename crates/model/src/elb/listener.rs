//! What a load balancer listens to, and what it does with what comes. Invariant: a port has one listener.

use super::{Attributes, LoadBalancer, arn};
use crate::change::Key;
use crate::id::stable_hash;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use crate::vpc::Cidr;
use serde::{Deserialize, Serialize};

/// A port of a load balancer; the key says the port, so that each has one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub scope: Scope,
    /// The load balancer's [`LoadBalancer::path`], such as `app/web/50dc6c495c0c9188`.
    pub load_balancer: String,
    /// 16 hexadecimal digits.
    pub id: String,
    pub protocol: Protocol,
    pub port: u16,
    /// ARNs; the first one is the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Of HTTPS and TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_policy: Option<String>,
    /// What is done with what no rule matches.
    pub default_actions: Vec<Action>,
    /// What the user gave as the actions' `Order`, one for each; empty where nothing was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_orders: Vec<u32>,
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Protocol {
    Http,
    Https,
    Tcp,
    Udp,
    TcpUdp,
    Tls,
}

/// A rule of a listener besides its default, under the listener's id and its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRule {
    pub scope: Scope,
    /// The load balancer's path, as in [`Listener`].
    pub load_balancer: String,
    /// The id of its listener.
    pub listener: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// From 1 to 50,000; the lowest that matches is followed.
    pub priority: u32,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    pub actions: Vec<Action>,
    /// As in [`Listener`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_orders: Vec<u32>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

/// What is done with a request. Exactly one of a list's actions ends it, and it is the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Forward {
        groups: Vec<ForwardGroup>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stickiness: Option<Stickiness>,
    },
    Redirect(Redirect),
    FixedResponse(FixedResponse),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardGroup {
    /// The target group's name; the group is in the listener's scope.
    pub target_group: String,
    /// From 0 to 999.
    pub weight: u32,
}

/// For how long a client stays with the group that it was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stickiness {
    pub enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// Each part may name those of the request: `#{protocol}`, `#{host}`, `#{port}`, `#{path}`, `#{query}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    pub protocol: String,
    pub host: String,
    pub port: String,
    pub path: String,
    pub query: String,
    /// 301 or 302.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedResponse {
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What a request must be like; one of the values is enough. `*` stands for any text and `?` for any letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    HostHeader(Vec<String>),
    PathPattern(Vec<String>),
    HttpHeader { name: String, values: Vec<String> },
    HttpRequestMethod(Vec<String>),
    QueryString(Vec<Pair>),
    SourceIp(Vec<Cidr>),
}

/// A part of a query string; without a key, the value may be a key too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub value: String,
}

impl Listener {
    pub fn key_of(scope: &Scope, load_balancer: &str, port: u16) -> Key {
        Key::new(format!("{}{port:05}", Self::prefix_of(scope, load_balancer)))
    }

    /// What the keys of a load balancer's listeners begin with.
    pub fn prefix_of(scope: &Scope, load_balancer: &str) -> String {
        format!("{}/{}/{load_balancer}/", Self::TABLE, scope.path())
    }

    pub fn arn(&self) -> String {
        arn(&self.scope, format_args!("listener/{}/{}", self.load_balancer, self.id))
    }

    /// The ARN of the rule that its default actions are shown as.
    pub fn default_rule_arn(&self) -> String {
        let (load_balancer, id) = (&self.load_balancer, &self.id);
        let rule = stable_hash(self.arn().bytes());
        arn(&self.scope, format_args!("listener-rule/{load_balancer}/{id}/{rule:016x}"))
    }

    /// The key of its load balancer; `None` for a path that is none.
    pub fn load_balancer_key(&self) -> Option<Key> {
        let name = self.load_balancer.split('/').nth(1)?;
        Some(LoadBalancer::key_of(&self.scope, name))
    }
}

impl Record for Listener {
    const TABLE: &'static str = "listener";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.load_balancer, self.port)
    }
}

impl ListenerRule {
    pub fn key_of(scope: &Scope, load_balancer: &str, listener: &str, id: &str) -> Key {
        Key::new(format!("{}{id}", Self::prefix_of(scope, load_balancer, listener)))
    }

    /// What the keys of a listener's rules begin with.
    pub fn prefix_of(scope: &Scope, load_balancer: &str, listener: &str) -> String {
        format!("{}/{}/{load_balancer}/{listener}/", Self::TABLE, scope.path())
    }

    pub fn arn(&self) -> String {
        let (load_balancer, listener) = (&self.load_balancer, &self.listener);
        arn(&self.scope, format_args!("listener-rule/{load_balancer}/{listener}/{}", self.id))
    }
}

impl Record for ListenerRule {
    const TABLE: &'static str = "listener-rule";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.load_balancer, &self.listener, &self.id)
    }
}
