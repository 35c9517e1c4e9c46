//! Lists of certificates. Follows
//! <https://docs.aws.amazon.com/acm/latest/APIReference/API_ListCertificates.html>.

use super::certificate::{status, users};
use super::invalid;
use crate::api::Call;
use longshore_acm as acm;
use longshore_engine::View;
use longshore_model::Timestamp;
use longshore_model::certificate::Certificate;
use longshore_wire::Fault;
use std::cmp::Reverse;
use std::sync::Arc;

/// What is listed where the request says nothing of key types.
const USUAL_KEYS: [acm::KeyAlgorithm; 2] = [acm::KeyAlgorithm::Rsa1024, acm::KeyAlgorithm::Rsa2048];
const MOST: usize = 1000;

pub async fn list(
    call: Call,
    request: acm::ListCertificatesRequest,
) -> Result<acm::ListCertificatesResponse, Fault> {
    let acm::ListCertificatesRequest {
        certificate_statuses,
        includes,
        max_items,
        next_token,
        sort_by,
        sort_order,
    } = request;
    if sort_by.is_some() != sort_order.is_some() {
        return Err(invalid("SortBy and SortOrder must be specified together."));
    }
    let (view, now) = (call.context.view(), call.context.now());
    let statuses = certificate_statuses.unwrap_or_default();
    let filters = includes.unwrap_or_default();
    let wanted = |certificate: &&Arc<Certificate>| {
        (statuses.is_empty() || statuses.contains(&status(certificate, now))) && passes(&filters, certificate)
    };
    let mut found: Vec<_> = view.certificates.of(call.scope()).filter(wanted).collect();
    match sort_order {
        None => {}
        Some(acm::SortOrder::Ascending) => found.sort_by_key(|found| (found.created_at, found.id.clone())),
        Some(acm::SortOrder::Descending) => {
            found.sort_by_key(|found| Reverse((found.created_at, found.id.clone())));
        }
    }
    let start = match &next_token {
        None => 0,
        // What the last page ended with may be deleted meanwhile, and then the list is asked for anew.
        Some(last) => found.iter().position(|found| found.id == *last).map(|at| at + 1).ok_or_else(|| {
            Fault::from(acm::Error::InvalidArgsException("The NextToken is not valid.".to_owned()))
        })?,
    };
    let size = max_items.and_then(|size| usize::try_from(size).ok()).unwrap_or(MOST);
    let page: Vec<_> = found.iter().skip(start).take(size).collect();
    let more = start + page.len() < found.len();
    let next_token = page.last().filter(|_| more).map(|last| last.id.clone());
    let summaries = page.into_iter().map(|found| summary(&view, found, now)).collect();
    Ok(acm::ListCertificatesResponse { certificate_summary_list: Some(summaries), next_token })
}

fn passes(filters: &acm::Filters, certificate: &Certificate) -> bool {
    let acm::Filters { export_option, extended_key_usage, key_types, key_usage, managed_by } = filters;
    let details = &certificate.details;
    let keys = key_types.as_deref().filter(|keys| !keys.is_empty()).unwrap_or(&USUAL_KEYS);
    let has_usage = |usage: &acm::KeyUsageName| details.key_usages.iter().any(|name| name == usage.as_str());
    let has_extended = |usage: &acm::ExtendedKeyUsageName| {
        details.extended_key_usages.iter().any(|(name, _)| name == usage.as_str())
    };
    keys.iter().any(|key| key.as_str() == details.key_algorithm)
        && key_usage.iter().flatten().all(has_usage)
        && extended_key_usage.iter().flatten().all(has_extended)
        && managed_by.is_none()
        && export_option.is_none_or(|option| option == acm::CertificateExport::Disabled)
}

fn summary(view: &View, certificate: &Certificate, now: Timestamp) -> acm::CertificateSummary {
    let details = &certificate.details;
    let time = |at: Timestamp| Some(longshore_wire::Timestamp(at.millis()));
    let extended = details.extended_key_usages.iter().filter_map(|(name, _)| name.parse().ok());
    acm::CertificateSummary {
        certificate_arn: Some(certificate.arn()),
        created_at: time(certificate.created_at),
        domain_name: Some(details.domain_name.clone()),
        exported: Some(false),
        extended_key_usages: Some(extended.collect()),
        has_additional_subject_alternative_names: Some(false),
        imported_at: time(certificate.imported_at),
        in_use: Some(!users(view, certificate).is_empty()),
        key_algorithm: details.key_algorithm.parse().ok(),
        key_usages: Some(details.key_usages.iter().filter_map(|name| name.parse().ok()).collect()),
        not_after: time(details.not_after),
        not_before: time(details.not_before),
        renewal_eligibility: Some(acm::RenewalEligibility::Ineligible),
        status: Some(status(certificate, now)),
        subject_alternative_name_summaries: Some(details.names.clone()),
        r#type: Some(acm::CertificateType::Imported),
        ..acm::CertificateSummary::default()
    }
}
