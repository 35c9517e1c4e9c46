# A launch template, an Auto Scaling group of it, and a capacity provider of a cluster.
variable "subnets" { type = list(string) }
variable "target" { default = 100 }
variable "team" { default = "red" }
resource "aws_ecs_cluster" "main" {
  name = var.name
}
resource "aws_launch_template" "main" {
  name          = var.name
  image_id      = "ami-0c55b159cbfafe1f0"
  instance_type = "t3.micro"
  user_data     = base64encode("#!/bin/bash\necho ECS_CLUSTER=${var.name} >> /etc/ecs/ecs.config\n")
  iam_instance_profile {
    name = "ecsInstanceRole"
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size = 30
      encrypted   = true
    }
  }
  metadata_options {
    http_tokens   = "required"
    http_endpoint = "enabled"
  }
  tag_specifications {
    resource_type = "instance"
    tags          = { team = var.team }
  }
  tags = { team = var.team }
}
resource "aws_autoscaling_group" "main" {
  name                  = var.name
  min_size              = 0
  max_size              = 3
  force_delete          = true
  desired_capacity      = 1
  vpc_zone_identifier   = var.subnets
  protect_from_scale_in = true
  launch_template {
    id      = aws_launch_template.main.id
    version = "$Latest"
  }
  tag {
    key                 = "AmazonECSManaged"
    value               = ""
    propagate_at_launch = true
  }
  lifecycle {
    ignore_changes = [desired_capacity]
  }
}
resource "aws_ecs_capacity_provider" "main" {
  name = var.name
  auto_scaling_group_provider {
    auto_scaling_group_arn         = aws_autoscaling_group.main.arn
    managed_termination_protection = "ENABLED"
    managed_scaling {
      status                    = "ENABLED"
      target_capacity           = var.target
      minimum_scaling_step_size = 1
      maximum_scaling_step_size = 2
    }
  }
  tags = { team = var.team }
}
resource "aws_ecs_cluster_capacity_providers" "main" {
  cluster_name       = aws_ecs_cluster.main.name
  capacity_providers = [aws_ecs_capacity_provider.main.name]
  default_capacity_provider_strategy {
    capacity_provider = aws_ecs_capacity_provider.main.name
    weight            = 1
  }
}
