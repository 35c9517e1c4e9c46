//! Imported certificates. Follows
//! <https://docs.aws.amazon.com/acm/latest/APIReference/API_ImportCertificate.html>.

use super::{details, invalid, named, tag};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_acm as acm;
use longshore_engine::View;
use longshore_model::certificate::Certificate;
use longshore_model::elb::LoadBalancer;
use longshore_model::id::IdSource;
use longshore_model::{Record, Timestamp};
use longshore_wire::Fault;
use std::collections::BTreeSet;

/// In a region.
const MOST: usize = 2500;

pub async fn import(
    call: Call,
    request: acm::ImportCertificateRequest,
) -> Result<acm::ImportCertificateResponse, Fault> {
    let acm::ImportCertificateRequest { certificate, certificate_arn, certificate_chain, private_key, tags } =
        request;
    let now = call.context.now();
    let chain = certificate_chain.filter(|chain| !chain.is_empty());
    let details = details::read(&certificate, chain.as_deref(), &private_key, now)?;
    if certificate_arn.is_some() && tags.as_ref().is_some_and(|tags| !tags.is_empty()) {
        return Err(invalid("Tagging is not permitted on re-import."));
    }
    let made = Certificate {
        scope: call.scope().clone(),
        id: RandomIds.uuid().to_string(),
        body: text(certificate)?,
        chain: chain.map(text).transpose()?,
        private_key: text(private_key)?,
        details,
        tags: tag::of_new(tags.unwrap_or_default())?,
        created_at: now,
        imported_at: now,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let Some(arn) = &certificate_arn else {
            if view.certificates.of(call.scope()).nth(MOST - 1).is_some() {
                let message = format!("You have reached the maximum number of certificates: {MOST}.");
                return Err(acm::Error::LimitExceededException(message).into());
            }
            transaction.create(&made);
            return Ok(made.arn());
        };
        let present = named(view, call.scope(), arn)?;
        transaction.update(&Certificate {
            id: present.id.clone(),
            tags: present.tags.clone(),
            created_at: present.created_at,
            ..made.clone()
        });
        Ok(present.arn())
    });
    Ok(acm::ImportCertificateResponse { certificate_arn: Some(commit.await?) })
}

/// PEM is ASCII.
fn text(pem: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(pem).map_err(|_| invalid("The certificate and its key must be PEM-encoded."))
}

pub async fn get(
    call: Call,
    request: acm::GetCertificateRequest,
) -> Result<acm::GetCertificateResponse, Fault> {
    let acm::GetCertificateRequest { certificate_arn: arn } = request;
    let view = call.context.view();
    let found = named(&view, call.scope(), &arn)?;
    Ok(acm::GetCertificateResponse {
        certificate: Some(found.body.clone()),
        certificate_chain: found.chain.clone(),
    })
}

pub async fn delete(call: Call, request: acm::DeleteCertificateRequest) -> Result<(), Fault> {
    let acm::DeleteCertificateRequest { certificate_arn: arn } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = named(view, call.scope(), &arn)?;
        if !users(view, present).is_empty() {
            let account = &call.scope().account;
            let message = format!("Certificate {arn} in account {account} is in use.");
            return Err(acm::Error::ResourceInUseException(message).into());
        }
        transaction.delete(present.key());
        Ok(())
    });
    commit.await
}

/// The ARNs of the load balancers that have a certificate.
pub fn users(view: &View, certificate: &Certificate) -> Vec<String> {
    let arn = certificate.arn();
    let listeners = view.listeners.of(&certificate.scope).filter(|l| l.certificates.contains(&arn));
    let keys: BTreeSet<_> = listeners.filter_map(|listener| listener.load_balancer_key()).collect();
    keys.iter()
        .filter_map(|key| view.load_balancers.get(key))
        .map(|lb: &std::sync::Arc<LoadBalancer>| lb.arn())
        .collect()
}

pub async fn describe(
    call: Call,
    request: acm::DescribeCertificateRequest,
) -> Result<acm::DescribeCertificateResponse, Fault> {
    let acm::DescribeCertificateRequest { certificate_arn: arn } = request;
    let view = call.context.view();
    let found = named(&view, call.scope(), &arn)?;
    let details = &found.details;
    let time = |at: Timestamp| Some(longshore_wire::Timestamp(at.millis()));
    let usage = |name: &String| acm::KeyUsage { name: name.parse().ok() };
    let extended = |(name, id): &(String, String)| acm::ExtendedKeyUsage {
        name: name.parse().ok(),
        oid: Some(id.clone()),
    };
    let certificate = acm::CertificateDetail {
        certificate_arn: Some(found.arn()),
        created_at: time(found.created_at),
        domain_name: Some(details.domain_name.clone()),
        extended_key_usages: Some(details.extended_key_usages.iter().map(extended).collect()),
        imported_at: time(found.imported_at),
        in_use_by: Some(users(&view, found)),
        issuer: Some(details.issuer.clone()),
        key_algorithm: details.key_algorithm.parse().ok(),
        key_usages: Some(details.key_usages.iter().map(usage).collect()),
        not_after: time(details.not_after),
        not_before: time(details.not_before),
        options: Some(acm::CertificateOptions {
            certificate_transparency_logging_preference: Some(
                acm::CertificateTransparencyLoggingPreference::Disabled,
            ),
            export: None,
        }),
        renewal_eligibility: Some(acm::RenewalEligibility::Ineligible),
        serial: Some(details.serial.clone()),
        signature_algorithm: Some(details.signature_algorithm.clone()),
        status: Some(status(found, call.context.now())),
        subject: Some(details.subject.clone()),
        subject_alternative_names: Some(details.names.clone()),
        r#type: Some(acm::CertificateType::Imported),
        ..acm::CertificateDetail::default()
    };
    Ok(acm::DescribeCertificateResponse { certificate: Some(certificate) })
}

pub fn status(certificate: &Certificate, now: Timestamp) -> acm::CertificateStatus {
    match now > certificate.details.not_after {
        true => acm::CertificateStatus::Expired,
        false => acm::CertificateStatus::Issued,
    }
}
