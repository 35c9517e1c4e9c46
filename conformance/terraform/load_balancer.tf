# An application and a network load balancer: groups with checks and stickiness, a listener with rules of every kind, targets.
variable "subnets" { type = list(string) }
variable "vpc" {}
variable "target" {}
variable "weight" { default = 90 }
variable "idle" { default = 60 }
variable "path" { default = "/" }
resource "aws_lb" "app" {
  name               = var.name
  load_balancer_type = "application"
  internal           = true
  subnets            = var.subnets
  idle_timeout       = var.idle
  tags               = { Env = "test" }
}
resource "aws_lb" "net" {
  name               = "n${var.name}"
  load_balancer_type = "network"
  internal           = true
  subnet_mapping {
    subnet_id            = var.subnets[0]
    private_ipv4_address = var.target
  }
}
resource "aws_lb_target_group" "blue" {
  name                 = "b${var.name}"
  protocol             = "HTTP"
  port                 = 80
  vpc_id               = var.vpc
  target_type          = "ip"
  deregistration_delay = 0
  slow_start           = 30
  health_check {
    path     = var.path
    interval = 30
    matcher  = "200-299"
  }
  stickiness {
    type            = "lb_cookie"
    cookie_duration = 600
  }
}
resource "aws_lb_target_group" "green" {
  name        = "g${var.name}"
  protocol    = "HTTP"
  port        = 80
  vpc_id      = var.vpc
  target_type = "ip"
}
resource "aws_lb_target_group" "tcp" {
  name               = "t${var.name}"
  protocol           = "TCP"
  port               = 5432
  vpc_id             = var.vpc
  target_type        = "ip"
  preserve_client_ip = true
}
resource "aws_lb_target_group_attachment" "outside" {
  target_group_arn  = aws_lb_target_group.blue.arn
  target_id         = "10.99.1.2"
  port              = 8080
  availability_zone = "all"
}
resource "aws_lb_listener" "app" {
  load_balancer_arn = aws_lb.app.arn
  port              = 80
  protocol          = "HTTP"
  tags              = { Env = "test" }
  default_action {
    type = "forward"
    forward {
      target_group {
        arn    = aws_lb_target_group.blue.arn
        weight = var.weight
      }
      target_group {
        arn    = aws_lb_target_group.green.arn
        weight = 100 - var.weight
      }
      stickiness {
        enabled  = true
        duration = 600
      }
    }
  }
}
resource "aws_lb_listener" "net" {
  load_balancer_arn = aws_lb.net.arn
  port              = 5432
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.tcp.arn
  }
}
resource "aws_lb_listener_rule" "green" {
  listener_arn = aws_lb_listener.app.arn
  priority     = 10
  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.green.arn
  }
  condition {
    path_pattern { values = ["/green/*"] }
  }
  condition {
    host_header { values = ["*.example.com"] }
  }
  condition {
    http_header {
      http_header_name = "X-Color"
      values           = ["green"]
    }
  }
}
# Without a priority the provider takes the next above those that are there.
resource "aws_lb_listener_rule" "redirect" {
  depends_on   = [aws_lb_listener_rule.green, aws_lb_listener_rule.fixed]
  listener_arn = aws_lb_listener.app.arn
  action {
    type = "redirect"
    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
  condition {
    query_string {
      key   = "secure"
      value = "1"
    }
  }
  condition {
    source_ip { values = ["10.0.0.0/8"] }
  }
}
resource "aws_lb_listener_rule" "fixed" {
  listener_arn = aws_lb_listener.app.arn
  priority     = 30
  tags         = { Env = "test" }
  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      message_body = "no"
      status_code  = "405"
    }
  }
  condition {
    http_request_method { values = ["DELETE", "PUT"] }
  }
}
