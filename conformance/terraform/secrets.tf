# A secret with a value, and a parameter of each type.
variable "word" { default = "one" }
resource "aws_secretsmanager_secret" "db" {
  name                    = var.name
  description             = "The password of the database"
  recovery_window_in_days = 0
  tags                    = { team = "red" }
}
resource "aws_secretsmanager_secret_version" "db" {
  secret_id     = aws_secretsmanager_secret.db.id
  secret_string = jsonencode({ password = var.word })
}
resource "aws_ssm_parameter" "plain" {
  name        = "/${var.name}/host"
  description = "Where the database is"
  type        = "String"
  value       = "${var.word}.example"
  tags        = { team = "red" }
}
resource "aws_ssm_parameter" "secure" {
  name  = "/${var.name}/password"
  type  = "SecureString"
  value = var.word
}
