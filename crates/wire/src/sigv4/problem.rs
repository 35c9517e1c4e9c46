//! What can be wrong with a signature, in the words and codes of each protocol.

use crate::{Fault, Protocol};

pub(super) const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. \
    Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("{0}")]
    Incomplete(String),
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    #[error("{0}")]
    Mismatch(String),
    /// Signed too long ago, or in the future.
    #[error("{0}")]
    Expired(String),
}

impl Problem {
    pub fn fault(&self, protocol: Protocol) -> Fault {
        match protocol {
            Protocol::Json10 | Protocol::Json11 => self.json(),
            Protocol::Query => self.query(),
            Protocol::Ec2 => self.ec2(),
        }
    }

    fn json(&self) -> Fault {
        let code = match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey => "UnrecognizedClientException",
            Self::Mismatch(_) | Self::Expired(_) => "InvalidSignatureException",
        };
        Fault::sender(code, self.to_string())
    }

    fn query(&self) -> Fault {
        let (code, status) = match self {
            Self::Missing => return missing(),
            Self::Incomplete(_) => ("IncompleteSignature", 400),
            Self::UnknownKey => ("InvalidClientTokenId", 403),
            Self::Mismatch(_) | Self::Expired(_) => ("SignatureDoesNotMatch", 403),
        };
        Fault::sender(code, self.to_string()).with_status(status)
    }

    fn ec2(&self) -> Fault {
        match self {
            Self::Missing => missing(),
            Self::Incomplete(what) => Fault::sender("IncompleteSignature", what.clone()),
            Self::UnknownKey | Self::Mismatch(_) => {
                let message = "AWS was not able to validate the provided access credentials";
                Fault::sender("AuthFailure", message).with_status(401)
            }
            Self::Expired(_) => Fault::sender("RequestExpired", "Request has expired."),
        }
    }
}

fn missing() -> Fault {
    Fault::sender("MissingAuthenticationToken", "Request is missing Authentication Token").with_status(403)
}
