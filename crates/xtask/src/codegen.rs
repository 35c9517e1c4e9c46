//! Writes the crates under `crates/shapes` from botocore's API models.
//! Invariant: the same models give the same bytes, and no pattern is written that `regex` cannot compile.

mod model;
mod names;
mod pattern;
mod render;
mod schemas;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use model::Model;

/// One generated crate. `operations` is the served part of the model; an empty list means all of it.
struct Service {
    name: &'static str,
    /// How the service words broken constraints: a path of `longshore_wire::Violations`.
    violations: &'static str,
    operations: &'static [&'static str],
}

const SERVICES: &[Service] = &[
    Service {
        name: "acm",
        violations: "Listed(\"ValidationException\")",
        operations: &[
            "AddTagsToCertificate",
            "DeleteCertificate",
            "DescribeCertificate",
            "GetCertificate",
            "ImportCertificate",
            "ListCertificates",
            "ListTagsForCertificate",
            "RemoveTagsFromCertificate",
        ],
    },
    Service {
        name: "autoscaling",
        violations: "Listed(\"ValidationError\")",
        operations: &[
            "CreateAutoScalingGroup",
            "CreateOrUpdateTags",
            "DeleteAutoScalingGroup",
            "DeleteTags",
            "DescribeAutoScalingGroups",
            "DescribeAutoScalingInstances",
            "DescribeScalingActivities",
            "DescribeTags",
            "SetDesiredCapacity",
            "SetInstanceProtection",
            "TerminateInstanceInAutoScalingGroup",
            "UpdateAutoScalingGroup",
        ],
    },
    Service {
        name: "cloudwatch",
        violations: "Listed(\"ValidationError\")",
        operations: &[
            "DeleteAlarms",
            "DescribeAlarmHistory",
            "DescribeAlarms",
            "DescribeAlarmsForMetric",
            "DisableAlarmActions",
            "EnableAlarmActions",
            "GetMetricData",
            "GetMetricStatistics",
            "ListMetrics",
            "ListTagsForResource",
            "PutMetricAlarm",
            "PutMetricData",
            "SetAlarmState",
            "TagResource",
            "UntagResource",
        ],
    },
    Service {
        name: "codedeploy",
        violations: "Listed(\"ValidationException\")",
        operations: &[
            "BatchGetDeploymentTargets",
            "ContinueDeployment",
            "CreateApplication",
            "CreateDeployment",
            "CreateDeploymentConfig",
            "CreateDeploymentGroup",
            "DeleteApplication",
            "DeleteDeploymentConfig",
            "DeleteDeploymentGroup",
            "GetApplication",
            "GetDeployment",
            "GetDeploymentConfig",
            "GetDeploymentGroup",
            "GetDeploymentTarget",
            "ListApplications",
            "ListDeploymentConfigs",
            "ListDeploymentGroups",
            "ListDeploymentTargets",
            "ListDeployments",
            "ListTagsForResource",
            "StopDeployment",
            "TagResource",
            "UntagResource",
            "UpdateApplication",
            "UpdateDeploymentGroup",
        ],
    },
    Service {
        name: "ec2",
        violations: "Ec2",
        operations: &[
            "AssociateRouteTable",
            "AttachInternetGateway",
            "AuthorizeSecurityGroupEgress",
            "AuthorizeSecurityGroupIngress",
            "CreateInternetGateway",
            "CreateLaunchTemplate",
            "CreateLaunchTemplateVersion",
            "CreateRoute",
            "CreateRouteTable",
            "CreateSecurityGroup",
            "CreateSubnet",
            "CreateTags",
            "CreateVpc",
            "DeleteInternetGateway",
            "DeleteLaunchTemplate",
            "DeleteRoute",
            "DeleteRouteTable",
            "DeleteSecurityGroup",
            "DeleteSubnet",
            "DeleteTags",
            "DeleteVpc",
            "DescribeAvailabilityZones",
            "DescribeImages",
            "DescribeInstanceStatus",
            "DescribeInstances",
            "DescribeInternetGateways",
            "DescribeLaunchTemplateVersions",
            "DescribeLaunchTemplates",
            "DescribeNetworkAcls",
            "DescribeNetworkInterfaces",
            "DescribeRegions",
            "DescribeRouteTables",
            "DescribeSecurityGroupRules",
            "DescribeSecurityGroups",
            "DescribeSubnets",
            "DescribeVpcAttribute",
            "DescribeVpcs",
            "DetachInternetGateway",
            "DisassociateRouteTable",
            "ModifyLaunchTemplate",
            "ModifySecurityGroupRules",
            "ModifySubnetAttribute",
            "ModifyVpcAttribute",
            "ReplaceRoute",
            "ReplaceRouteTableAssociation",
            "RevokeSecurityGroupEgress",
            "RevokeSecurityGroupIngress",
            "RunInstances",
            "TerminateInstances",
            "UpdateSecurityGroupRuleDescriptionsEgress",
            "UpdateSecurityGroupRuleDescriptionsIngress",
        ],
    },
    Service { name: "ecs", violations: "Listed(\"InvalidParameterException\")", operations: &[] },
    Service {
        name: "elbv2",
        violations: "Listed(\"ValidationError\")",
        operations: &[
            "AddListenerCertificates",
            "AddTags",
            "CreateListener",
            "CreateLoadBalancer",
            "CreateRule",
            "CreateTargetGroup",
            "DeleteListener",
            "DeleteLoadBalancer",
            "DeleteRule",
            "DeleteTargetGroup",
            "DeregisterTargets",
            "DescribeCapacityReservation",
            "DescribeListenerAttributes",
            "DescribeListenerCertificates",
            "DescribeListeners",
            "DescribeLoadBalancerAttributes",
            "DescribeLoadBalancers",
            "DescribeRules",
            "DescribeSSLPolicies",
            "DescribeTags",
            "DescribeTargetGroupAttributes",
            "DescribeTargetGroups",
            "DescribeTargetHealth",
            "ModifyListener",
            "ModifyListenerAttributes",
            "ModifyLoadBalancerAttributes",
            "ModifyRule",
            "ModifyTargetGroup",
            "ModifyTargetGroupAttributes",
            "RegisterTargets",
            "RemoveListenerCertificates",
            "RemoveTags",
            "SetIpAddressType",
            "SetRulePriorities",
            "SetSecurityGroups",
            "SetSubnets",
        ],
    },
    Service {
        name: "logs",
        violations: "Listed(\"InvalidParameterException\")",
        operations: &[
            "CreateLogGroup",
            "CreateLogStream",
            "DeleteLogGroup",
            "DeleteLogStream",
            "DeleteRetentionPolicy",
            "DescribeLogGroups",
            "DescribeLogStreams",
            "FilterLogEvents",
            "GetLogEvents",
            "ListTagsForResource",
            "ListTagsLogGroup",
            "PutLogEvents",
            "PutRetentionPolicy",
            "TagLogGroup",
            "TagResource",
            "UntagLogGroup",
            "UntagResource",
        ],
    },
    Service {
        name: "secretsmanager",
        violations: "Listed(\"ValidationException\")",
        operations: &[
            "CreateSecret",
            "DeleteSecret",
            "DescribeSecret",
            "GetResourcePolicy",
            "GetSecretValue",
            "ListSecretVersionIds",
            "ListSecrets",
            "PutSecretValue",
            "RestoreSecret",
            "TagResource",
            "UntagResource",
            "UpdateSecret",
            "UpdateSecretVersionStage",
        ],
    },
    Service {
        name: "ssm",
        violations: "Listed(\"ValidationException\")",
        operations: &[
            "AddTagsToResource",
            "DeleteParameter",
            "DeleteParameters",
            "DescribeParameters",
            "GetParameter",
            "GetParameterHistory",
            "GetParameters",
            "GetParametersByPath",
            "LabelParameterVersion",
            "ListTagsForResource",
            "PutParameter",
            "RemoveTagsFromResource",
        ],
    },
    Service {
        name: "servicediscovery",
        violations: "Listed(\"InvalidInput\")",
        operations: &[
            "CreateHttpNamespace",
            "CreatePrivateDnsNamespace",
            "CreateService",
            "DeleteNamespace",
            "DeleteService",
            "DeregisterInstance",
            "DiscoverInstances",
            "GetInstance",
            "GetInstancesHealthStatus",
            "GetNamespace",
            "GetOperation",
            "GetService",
            "ListInstances",
            "ListNamespaces",
            "ListOperations",
            "ListServices",
            "ListTagsForResource",
            "RegisterInstance",
            "TagResource",
            "UntagResource",
            "UpdateHttpNamespace",
            "UpdateInstanceCustomHealthStatus",
            "UpdatePrivateDnsNamespace",
            "UpdateService",
        ],
    },
    Service {
        name: "sts",
        violations: "Listed(\"ValidationError\")",
        operations: &["AssumeRole", "GetCallerIdentity"],
    },
];

pub fn run(arguments: &[String]) -> Result<(), String> {
    let mut check = false;
    let mut models = None;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--check" => check = true,
            "--botocore" => models = Some(arguments.next().ok_or("--botocore needs a directory")?.into()),
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    let models: PathBuf = match models {
        Some(directory) => directory,
        None => botocore_data()?,
    };
    let mut different = Vec::new();
    for service in SERVICES {
        let model = Model::load(&models, service.name)?;
        for (path, text) in generate(service, &model).map_err(|what| format!("{}: {what}", service.name))? {
            let path = shapes().join(service.name).join("src").join(path);
            if fs::read_to_string(&path).is_ok_and(|old| old == text) {
                continue;
            }
            if !check {
                fs::write(&path, text).map_err(|error| format!("write {}: {error}", path.display()))?;
            }
            different.push(path.display().to_string());
        }
    }
    match (check, different.is_empty()) {
        (true, false) => Err(format!("differs from what the models give:\n{}", different.join("\n"))),
        _ => {
            different.iter().for_each(|path| println!("wrote {path}"));
            Ok(())
        }
    }
}

fn generate(service: &Service, model: &Model) -> Result<Vec<(&'static str, String)>, String> {
    let served = served(service, model)?;
    let plan = model.plan(&served)?;
    Ok(vec![
        ("lib.rs", render::library(model, !plan.errors.is_empty())),
        ("types.rs", render::types(&plan)?),
        ("schemas.rs", schemas::schemas(&plan)?),
        ("operations.rs", render::operations(&plan)),
        ("service.rs", render::service(service, &plan)),
    ]
    .into_iter()
    .chain((!plan.errors.is_empty()).then(|| ("errors.rs", render::errors(&plan))))
    .collect())
}

fn served<'a>(service: &Service, model: &'a Model) -> Result<Vec<&'a str>, String> {
    if service.operations.is_empty() {
        return Ok(model.operations.keys().map(String::as_str).collect());
    }
    let find = |name: &&str| {
        let found = model.operations.get_key_value(*name).map(|(name, _)| name.as_str());
        found.ok_or_else(|| format!("the model has no operation {name}"))
    };
    let mut served = service.operations.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    served.sort_unstable();
    Ok(served)
}

fn botocore_data() -> Result<PathBuf, String> {
    let script = "import os, botocore; print(os.path.join(os.path.dirname(botocore.__file__), 'data'))";
    let output = Command::new("python3")
        .args(["-c", script])
        .output()
        .map_err(|error| format!("run python3: {error}"))?;
    if !output.status.success() {
        return Err("python3 has no botocore; install it, or give its data directory with --botocore".into());
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn shapes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shapes")
}
