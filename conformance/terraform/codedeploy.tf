# An application, a configuration and a deployment group of a service that is behind a load balancer.
variable "cluster" {}
variable "listener" {}
variable "groups" { type = list(string) }
variable "wait" { default = 5 }
variable "team" { default = "red" }
resource "aws_codedeploy_app" "main" {
  name             = var.name
  compute_platform = "ECS"
  tags             = { team = var.team }
}
resource "aws_codedeploy_deployment_config" "main" {
  deployment_config_name = var.name
  compute_platform       = "ECS"
  traffic_routing_config {
    type = "TimeBasedLinear"
    time_based_linear {
      interval   = 10
      percentage = 20
    }
  }
}
resource "aws_codedeploy_deployment_group" "main" {
  app_name               = aws_codedeploy_app.main.name
  deployment_group_name  = "main"
  deployment_config_name = aws_codedeploy_deployment_config.main.id
  service_role_arn       = "arn:aws:iam::123456789012:role/ecsCodeDeployRole"
  auto_rollback_configuration {
    enabled = true
    events  = ["DEPLOYMENT_FAILURE"]
  }
  blue_green_deployment_config {
    deployment_ready_option {
      action_on_timeout = "CONTINUE_DEPLOYMENT"
    }
    terminate_blue_instances_on_deployment_success {
      action                           = "TERMINATE"
      termination_wait_time_in_minutes = var.wait
    }
  }
  deployment_style {
    deployment_option = "WITH_TRAFFIC_CONTROL"
    deployment_type   = "BLUE_GREEN"
  }
  ecs_service {
    cluster_name = var.cluster
    service_name = "web"
  }
  load_balancer_info {
    target_group_pair_info {
      prod_traffic_route {
        listener_arns = [var.listener]
      }
      target_group { name = var.groups[0] }
      target_group { name = var.groups[1] }
    }
  }
  tags = { team = var.team }
}
