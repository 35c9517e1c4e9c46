//! The OCI runtime specification of a container.
