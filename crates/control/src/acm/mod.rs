//! AWS Certificate Manager: certificates that users import.

mod certificate;
mod details;
mod list;
mod tag;

use crate::api::Routes;
use longshore_acm as acm;
use longshore_acm::operations as op;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::certificate::Certificate;
use longshore_wire::Fault;
use std::sync::Arc;

pub fn routes() -> Routes {
    Routes::new(&acm::SERVICE)
        .on::<op::ImportCertificate, _, _, _>(certificate::import)
        .on::<op::DescribeCertificate, _, _, _>(certificate::describe)
        .on::<op::GetCertificate, _, _, _>(certificate::get)
        .on::<op::DeleteCertificate, _, _, _>(certificate::delete)
        .on::<op::ListCertificates, _, _, _>(list::list)
        .on::<op::AddTagsToCertificate, _, _, _>(tag::add)
        .on::<op::RemoveTagsFromCertificate, _, _, _>(tag::remove)
        .on::<op::ListTagsForCertificate, _, _, _>(tag::list)
}

/// The certificate of an ARN.
pub fn find<'a>(view: &'a View, scope: &Scope, arn: &str) -> Option<&'a Arc<Certificate>> {
    let resource = Arn::parse(arn).filter(|arn| arn.service == "acm")?.resource;
    let found = view.certificates.get(&Certificate::key_of(scope, resource.strip_prefix("certificate/")?))?;
    (found.arn() == arn).then_some(found)
}

fn named<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<&'a Arc<Certificate>, Fault> {
    let missing = || {
        let account = &scope.account;
        let message = format!("Could not find certificate {arn} in account {account}.");
        Fault::from(acm::Error::ResourceNotFoundException(message))
    };
    find(view, scope, arn).ok_or_else(missing)
}

/// What the service answers to values that are wrong by themselves.
fn invalid(message: impl Into<String>) -> Fault {
    acm::Error::ValidationException(message.into()).into()
}
