//! Attributes of listeners. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ListenerAttribute.html>.

use super::super::reference;
use super::{Attribute, NONE, Values, all, changed};
use crate::api::Call;
use longshore_elbv2 as elb;
use longshore_model::elb::{Listener, Protocol};
use longshore_wire::Fault;

const OF_TCP: [Attribute; 1] =
    [Attribute::new("tcp.idle_timeout.seconds", "350", Values::Number(60, 6000), NONE)];

const OF_HTTP: [Attribute; 11] = [
    Attribute::new("routing.http.response.server.enabled", "true", Values::Switch, NONE),
    response("routing.http.response.strict_transport_security.header_value"),
    response("routing.http.response.access_control_allow_origin.header_value"),
    response("routing.http.response.access_control_allow_methods.header_value"),
    response("routing.http.response.access_control_allow_headers.header_value"),
    response("routing.http.response.access_control_allow_credentials.header_value"),
    response("routing.http.response.access_control_expose_headers.header_value"),
    response("routing.http.response.access_control_max_age.header_value"),
    response("routing.http.response.content_security_policy.header_value"),
    response("routing.http.response.x_content_type_options.header_value"),
    response("routing.http.response.x_frame_options.header_value"),
];

/// A header that answers are given.
const fn response(name: &'static str) -> Attribute {
    Attribute::new(name, "", Values::Text, NONE)
}

const OF_HTTPS: [Attribute; 8] = [
    request(
        "routing.http.request.x_amzn_mtls_clientcert_serial_number.header_name",
        "X-Amzn-Mtls-Clientcert-Serial-Number",
    ),
    request(
        "routing.http.request.x_amzn_mtls_clientcert_issuer.header_name",
        "X-Amzn-Mtls-Clientcert-Issuer",
    ),
    request(
        "routing.http.request.x_amzn_mtls_clientcert_subject.header_name",
        "X-Amzn-Mtls-Clientcert-Subject",
    ),
    request(
        "routing.http.request.x_amzn_mtls_clientcert_validity.header_name",
        "X-Amzn-Mtls-Clientcert-Validity",
    ),
    request("routing.http.request.x_amzn_mtls_clientcert_leaf.header_name", "X-Amzn-Mtls-Clientcert-Leaf"),
    request("routing.http.request.x_amzn_mtls_clientcert.header_name", "X-Amzn-Mtls-Clientcert"),
    request("routing.http.request.x_amzn_tls_version.header_name", "X-Amzn-Tls-Version"),
    request("routing.http.request.x_amzn_tls_cipher_suite.header_name", "X-Amzn-Tls-Cipher-Suite"),
];

/// The name of a header that requests are given.
const fn request(name: &'static str, header: &'static str) -> Attribute {
    Attribute::new(name, header, Values::Text, NONE)
}

fn of(listener: &Listener) -> Vec<Attribute> {
    match listener.protocol {
        Protocol::Http => OF_HTTP.into(),
        Protocol::Https => OF_HTTP.into_iter().chain(OF_HTTPS).collect(),
        Protocol::Tcp => OF_TCP.into(),
        Protocol::Udp | Protocol::TcpUdp | Protocol::Tls => Vec::new(),
    }
}

fn render(listener: &Listener) -> Vec<elb::ListenerAttribute> {
    let all = all(&of(listener), &listener.attributes).collect::<Vec<_>>();
    let one = |(key, value)| elb::ListenerAttribute { key: Some(key), value: Some(value) };
    all.into_iter().map(one).collect()
}

pub async fn describe(
    call: Call,
    request: elb::DescribeListenerAttributesInput,
) -> Result<elb::DescribeListenerAttributesOutput, Fault> {
    let elb::DescribeListenerAttributesInput { listener_arn: arn } = request;
    let view = call.context.view();
    let (_, listener) = reference::listener(&view, call.scope(), &arn)?;
    Ok(elb::DescribeListenerAttributesOutput { attributes: Some(render(listener)) })
}

pub async fn modify(
    call: Call,
    request: elb::ModifyListenerAttributesInput,
) -> Result<elb::ModifyListenerAttributesOutput, Fault> {
    let elb::ModifyListenerAttributesInput { attributes, listener_arn: arn } = request;
    let given = attributes.into_iter().map(|elb::ListenerAttribute { key, value }| (key, value));
    let given: Vec<_> = given.collect();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (_, present) = reference::listener(&snapshot.view, call.scope(), &arn)?;
        let set = changed("Listener", &of(present), &present.attributes, given.iter().cloned())?;
        let next = Listener { attributes: set, ..(**present).clone() };
        if next != **present {
            transaction.update(&next);
        }
        Ok(render(&next))
    });
    Ok(elb::ModifyListenerAttributesOutput { attributes: Some(commit.await?) })
}
