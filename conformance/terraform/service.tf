# A service of two tasks on Fargate, with its cluster, its task definition and an alarm that ends its deployments.
variable "subnets" { type = list(string) }
variable "revision" { default = "one" }
variable "desired" { default = 2 }
resource "aws_ecs_cluster" "main" {
  name = var.name
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}
resource "aws_ecs_cluster_capacity_providers" "main" {
  cluster_name       = aws_ecs_cluster.main.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
  default_capacity_provider_strategy {
    base              = 1
    weight            = 100
    capacity_provider = "FARGATE"
  }
}
resource "aws_ecs_task_definition" "app" {
  family                   = var.name
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = 256
  memory                   = 512
  container_definitions = jsonencode([{
    name      = "app"
    image     = "busybox:latest"
    essential = true
    command   = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done", "${var.name}-${var.revision}"]
  }])
}
resource "aws_ecs_service" "app" {
  name                  = "app"
  cluster               = aws_ecs_cluster.main.id
  task_definition       = aws_ecs_task_definition.app.arn
  desired_count         = var.desired
  launch_type           = "FARGATE"
  wait_for_steady_state = true
  network_configuration {
    subnets          = var.subnets
    assign_public_ip = true
  }
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  alarms {
    enable      = true
    rollback    = true
    alarm_names = [aws_cloudwatch_metric_alarm.errors.alarm_name]
  }
  tags = { team = "red" }
}
resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = var.name
  alarm_description   = "Too many errors"
  namespace           = var.name
  metric_name         = "errors"
  dimensions          = { Service = "app" }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 2
  datapoints_to_alarm = 1
  threshold           = var.desired
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  tags                = { team = "red" }
}
