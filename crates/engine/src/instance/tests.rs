//! Instances are launched where there is room for all of them, and give back what they had.

use super::*;
use crate::testing::{Count, apply, scope, view};
use longshore_model::Version;

fn spec() -> LaunchSpec {
    LaunchSpec {
        image: Some("ami-1".to_owned()),
        instance_type: Some("t3.micro".to_owned()),
        ..LaunchSpec::default()
    }
}

/// Launches so many in the first subnet, perhaps at an address.
fn check(view: &mut View, count: u32, address: Option<Ipv4Addr>) -> Result<Vec<Instance>, Shortage> {
    let subnet = view.subnets.iter().next().cloned().unwrap();
    let launch = Launch {
        subnet: &subnet,
        settings: settings(&spec(), None).unwrap(),
        security_groups: security_groups(view, &spec(), &subnet),
        tags: Tags::default(),
        reservation: "r-1".to_owned(),
        first: 0,
        count,
        address,
        client_token: None,
        group: None,
    };
    let mut transaction = Transaction::at(Version(0));
    let ids = &mut Count(1000 * (1 + view.instances.len() as u128));
    let launched = super::launch(view, &launch, Timestamp(5), ids, &mut transaction);
    match launched {
        Ok(_) => apply(view, transaction),
        Err(_) => assert!(transaction.is_empty(), "all or none"),
    }
    launched
}

#[test]
fn each_instance_has_a_number_and_an_address_of_its_own() {
    let mut view = view(&[]);
    let launched = check(&mut view, 3, None).unwrap();
    let addresses: BTreeSet<_> = launched.iter().map(|instance| instance.address).collect();
    assert_eq!(addresses.len(), 3);
    assert_eq!(launched.iter().map(|instance| instance.number).collect::<Vec<_>>(), [128, 129, 130]);
    assert_eq!(launched[0].security_groups.len(), 1, "the VPC's default group");
    let (subnet, wanted) = (launched[0].subnet.clone(), "172.31.0.77".parse().unwrap());
    assert_eq!(view.addresses_used(&subnet), 3);
    assert_eq!(check(&mut view, 1, Some(wanted)).unwrap()[0].address, wanted);
    assert_eq!(check(&mut view, 1, Some(wanted)).unwrap_err(), Shortage::Addresses);
    assert_eq!(check(&mut view, 1, Some("10.0.0.1".parse().unwrap())).unwrap_err(), Shortage::Addresses);
    assert_eq!(check(&mut view, 200, None).unwrap_err(), Shortage::Numbers);
}

#[test]
fn what_a_terminated_instance_had_is_free_again() {
    let mut view = view(&[]);
    let first = check(&mut view, 1, None).unwrap().remove(0);
    let mut transaction = Transaction::at(Version(0));
    let why = Reason { code: "x".to_owned(), message: "x".to_owned() };
    let ending = terminate(&view, &first, why.clone(), Timestamp(6), &mut transaction).unwrap();
    assert!(terminate(&view, &ending, why, Timestamp(7), &mut transaction).is_none(), "only once");
    apply(&mut view, transaction);
    assert_eq!(check(&mut view, 1, None).unwrap()[0].number, 129, "its number is taken until it is gone");
    let mut transaction = Transaction::at(Version(0));
    terminated(&view, &ending, Timestamp(8), &mut transaction);
    apply(&mut view, transaction);
    assert_eq!(view.addresses_used(&first.subnet), 1);
    assert_eq!(check(&mut view, 1, Some(first.address)).unwrap()[0].number, 128);
    let member = container_instance::Membership {
        scope: scope(),
        cluster: "default".to_owned(),
        launch_type: longshore_model::task::LaunchType::Ec2,
        ec2_instance_id: Some(first.id.clone()),
        launched: true,
        capacity_provider: None,
        status: container_instance::Status::Active,
    };
    assert!(!exists(&view, &member), "its agent may not register again");
}

#[test]
fn a_specification_needs_an_image_and_a_type_that_is_known() {
    assert_eq!(settings(&LaunchSpec::default(), None), Err(Unfit::NoImage));
    let unknown = LaunchSpec { instance_type: Some("p4d.24xlarge".to_owned()), ..spec() };
    assert_eq!(settings(&unknown, None), Err(Unfit::Type("p4d.24xlarge".to_owned())));
    let own = LaunchSpec { instance_type: Some("m5.large".to_owned()), ..LaunchSpec::default() };
    let merged = own.or(&spec());
    assert_eq!((merged.image.as_deref(), merged.instance_type.as_deref()), (Some("ami-1"), Some("m5.large")));
}
