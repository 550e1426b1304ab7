//! What can be wrong with a certificate or its key.
//!
//! In: the part that is wrong, and how. Out: words that name it.

/// What can be wrong with an identity. None is cured by a retry.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A PEM block or certificate that doesn't parse.
    #[error("{0} does not parse: {1}")]
    Malformed(&'static str, String),
    /// Nothing of this kind in the PEM.
    #[error("no {0} found in the PEM text")]
    Missing(&'static str),
    /// No, or more than one, URI of ours in the leaf.
    #[error("certificate names no single atoll role, but `{0}`")]
    NoRole(String),
    /// The key does not belong to the certificate, or is of a kind that can't sign.
    #[error("key can't be used with the certificate: {0}")]
    Key(String),
}
