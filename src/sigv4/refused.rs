//! Why a signature does not count, in the wording that SDKs and people know (REST specification 7.7).

/// A signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("Missing Authentication Token")]
    Unsigned,
    /// A part of it is missing or cannot be read; the text says which.
    #[error("{0}")]
    Incomplete(String),
    /// It is whole and not the right one, or not at the right time; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// Nobody has this access key, or its session token is another.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The access key's time is over.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
}

/// The wording of a signature that is not the one calculated, without what would help to find out why.
pub(super) const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. \
     Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

impl Refused {
    pub(super) fn mismatch() -> Self {
        Self::Invalid(MISMATCH.to_owned())
    }
}
