# A private namespace with a service that the tasks of one on Fargate are registered in.
variable "subnets" { type = list(string) }
variable "vpc" {}
variable "ttl" { default = 10 }
variable "team" { default = "red" }
resource "aws_service_discovery_private_dns_namespace" "main" {
  name        = "${var.name}.internal"
  description = "of ${var.team}"
  vpc         = var.vpc
  tags        = { team = var.team }
}
resource "aws_service_discovery_http_namespace" "main" {
  name = var.name
}
resource "aws_service_discovery_service" "api" {
  name = "api"
  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.main.id
    routing_policy = "MULTIVALUE"
    dns_records {
      ttl  = var.ttl
      type = "A"
    }
  }
  health_check_custom_config {
    failure_threshold = 1
  }
  tags = { team = var.team }
}
resource "aws_service_discovery_instance" "db" {
  service_id  = aws_service_discovery_service.db.id
  instance_id = "db"
  attributes = {
    AWS_INSTANCE_IPV4 = "192.0.2.1"
    AWS_INSTANCE_PORT = "5432"
    role              = "primary"
  }
}
resource "aws_service_discovery_service" "db" {
  name         = "db"
  namespace_id = aws_service_discovery_http_namespace.main.id
}
resource "aws_ecs_cluster" "main" {
  name = var.name
}
resource "aws_ecs_task_definition" "api" {
  family                   = var.name
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = 256
  memory                   = 512
  container_definitions = jsonencode([{
    name      = "api"
    image     = "busybox:latest"
    essential = true
    command   = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
  }])
}
resource "aws_ecs_service" "api" {
  name                  = "api"
  cluster               = aws_ecs_cluster.main.id
  task_definition       = aws_ecs_task_definition.api.arn
  desired_count         = 2
  launch_type           = "FARGATE"
  wait_for_steady_state = true
  network_configuration {
    subnets = var.subnets
  }
  service_registries {
    registry_arn = aws_service_discovery_service.api.arn
  }
}
