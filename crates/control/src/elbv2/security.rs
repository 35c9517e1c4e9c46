//! What listeners need to speak TLS. Invariant: a listener has certificates and a policy if, and only if, it speaks TLS.

use super::{invalid, refuse};
use crate::acm;
use crate::pages::page;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::View;
use longshore_engine::elb::ssl_policy::{DEFAULT, POLICIES, SslPolicy};
use longshore_model::Scope;
use longshore_model::certificate::Certificate;
use longshore_model::elb::{Listener, Protocol};
use longshore_wire::Fault;
use std::sync::Arc;

/// What a request says of it.
pub struct Security {
    /// The default one's ARN.
    certificate: Option<String>,
    ssl_policy: Option<String>,
}

pub fn parse(
    certificates: Option<Vec<elb::Certificate>>,
    ssl_policy: Option<String>,
    mutual_authentication: Option<elb::MutualAuthenticationAttributes>,
) -> Result<Security, Fault> {
    check_clients(mutual_authentication.unwrap_or_default())?;
    let mut arns = Vec::new();
    for elb::Certificate { certificate_arn, is_default } in certificates.unwrap_or_default() {
        if is_default.is_some() {
            return Err(invalid("You cannot set the 'IsDefault' attribute of a certificate"));
        }
        arns.push(certificate_arn.unwrap_or_default());
    }
    if arns.len() > 1 {
        return Err(invalid("Exactly one certificate must be specified"));
    }
    Ok(Security {
        certificate: arns.into_iter().next(),
        ssl_policy: ssl_policy.filter(|name| !name.is_empty()),
    })
}

/// Clients are not asked for certificates.
fn check_clients(given: elb::MutualAuthenticationAttributes) -> Result<(), Fault> {
    let elb::MutualAuthenticationAttributes {
        advertise_trust_store_ca_names,
        ignore_client_certificate_expiry,
        mode,
        trust_store_arn,
        trust_store_association_status,
    } = given;
    let mode = mode.unwrap_or_default();
    refuse(&[
        ("A MutualAuthentication.Mode other than off", !matches!(mode.as_str(), "" | "off")),
        (
            "MutualAuthentication.AdvertiseTrustStoreCaNames",
            advertise_trust_store_ca_names == Some(elb::AdvertiseTrustStoreCaNamesEnum::On),
        ),
        ("MutualAuthentication.IgnoreClientCertificateExpiry", ignore_client_certificate_expiry.given()),
        ("MutualAuthentication.TrustStoreArn", trust_store_arn.given()),
        ("MutualAuthentication.TrustStoreAssociationStatus", trust_store_association_status.is_some()),
    ])
}

pub fn no_client_certificates() -> elb::MutualAuthenticationAttributes {
    elb::MutualAuthenticationAttributes {
        mode: Some("off".to_owned()),
        ..elb::MutualAuthenticationAttributes::default()
    }
}

pub fn speaks_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Https | Protocol::Tls)
}

/// Puts what is given over what a listener has; the certificate that it names comes back.
pub fn apply<'a>(
    view: &'a View,
    security: &Security,
    listener: &mut Listener,
) -> Result<Option<&'a Arc<Certificate>>, Fault> {
    let protocol = super::listener::protocol_name(listener.protocol);
    if !speaks_tls(listener.protocol) {
        if security.certificate.is_some() || security.ssl_policy.is_some() {
            return Err(invalid(format!(
                "Certificates and security policies cannot be specified for listeners with the protocol '{protocol}'"
            )));
        }
        listener.certificates.clear();
        listener.ssl_policy = None;
        return Ok(None);
    }
    if let Some(name) = &security.ssl_policy {
        if SslPolicy::find(name).is_none() {
            return Err(
                elb::Error::SSLPolicyNotFoundException(format!("SSL policy '{name}' not found")).into()
            );
        }
        listener.ssl_policy = Some(name.clone());
    }
    listener.ssl_policy.get_or_insert_with(|| DEFAULT.to_owned());
    let Some(arn) = &security.certificate else {
        return match listener.certificates.is_empty() {
            false => Ok(None),
            true => Err(invalid(format!("A certificate must be specified for {protocol} listeners"))),
        };
    };
    let found = certificate(view, &listener.scope, arn)?;
    match listener.certificates.first_mut() {
        Some(default) => default.clone_from(arn),
        None => listener.certificates.push(arn.clone()),
    }
    Ok(Some(found))
}

pub fn certificate<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<&'a Arc<Certificate>, Fault> {
    let missing =
        || elb::Error::CertificateNotFoundException(format!("Certificate '{arn}' not found")).into();
    acm::find(view, scope, arn).ok_or_else(missing)
}

pub async fn describe_policies(
    _: crate::api::Call,
    request: elb::DescribeSSLPoliciesInput,
) -> Result<elb::DescribeSSLPoliciesOutput, Fault> {
    let elb::DescribeSSLPoliciesInput { load_balancer_type, marker, names, page_size } = request;
    let names = names.unwrap_or_default();
    if let Some(missing) = names.iter().find(|name| SslPolicy::find(name).is_none()) {
        return Err(
            elb::Error::SSLPolicyNotFoundException(format!("SSL policy '{missing}' not found")).into()
        );
    }
    let served = load_balancer_type != Some(elb::LoadBalancerTypeEnum::Gateway);
    let wanted = |policy: &&SslPolicy| served && (names.is_empty() || names.iter().any(|n| n == policy.name));
    let found = POLICIES.iter().enumerate().filter(|(_, policy)| wanted(policy));
    let found = found.map(|(at, policy)| (format!("{at:02}"), render(policy)));
    let (policies, next_marker) = page(found, marker.as_deref(), page_size);
    Ok(elb::DescribeSSLPoliciesOutput { next_marker, ssl_policies: Some(policies) })
}

fn render(policy: &SslPolicy) -> elb::SslPolicy {
    let cipher =
        |(name, priority): (&str, i32)| elb::Cipher { name: Some(name.to_owned()), priority: Some(priority) };
    let text = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    elb::SslPolicy {
        ciphers: Some(policy.ciphers().zip(1..).map(cipher).collect()),
        name: Some(policy.name.to_owned()),
        ssl_protocols: text(policy.protocols),
        supported_load_balancer_types: text(&["application", "network"]),
    }
}
