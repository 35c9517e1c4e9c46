terraform {
  required_providers { aws = { source = "hashicorp/aws", version = "5.100.0" } }
}
provider "aws" {
  skip_metadata_api_check = true
}
variable "name" {}
