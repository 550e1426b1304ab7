//! Certificate checks: the chain to the hub's CA, the role expected, and the revocation list.
//!
//! In: a peer's chain. Out: accepted or the reason why not. Host names play no part: who a peer is stands in its URI,
//! and only the hub's CA (never web PKI) can say so. Source: reliability threat "hub address hijack".

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError, RootCertStore};

use crate::error::IdentityError;
use crate::identity::ca_pin;
use crate::material::Material;
use crate::revoke::Revocations;
use crate::role::{Peer, Role};

/// Whom a client means to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The hub, and nobody else.
    Hub,
    /// A data plane replica (of this name, if one is given) or the hub.
    Site(Option<String>),
}

impl Expect {
    fn admits(&self, role: &Role) -> bool {
        match (self, role) {
            (_, Role::Hub) | (Self::Site(None), Role::Site(_)) => true,
            (Self::Site(Some(want)), Role::Site(name)) => want == name,
            (_, Role::Cluster(_) | Role::Names(_)) | (Self::Hub, Role::Site(_)) => false,
        }
    }
}

/// Accepts a peer by what its certificate says, for both directions.
pub(crate) struct Verifier {
    pub(crate) material: Arc<ArcSwap<Material>>,
    pub(crate) revocations: Revocations,
    pub(crate) provider: Arc<CryptoProvider>,
    /// For clients: the role of the server. For servers anybody of our hub may come; what they may do is decided later.
    pub(crate) expect: Option<Expect>,
    pub(crate) client_cert_required: bool,
}

impl Verifier {
    fn admit(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = Peer::from_der(leaf).map_err(refuse)?;
        let own = self.material.load();
        if peer.hub != own.identity.bearer().hub {
            return Err(refuse(IdentityError::NoRole(peer.role.uri(&peer.hub))));
        }
        if self.revocations.has(&peer.serial) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        if let Some(expect) = &self.expect
            && !expect.admits(&peer.role)
        {
            return Err(Error::General(format!("expected {expect:?}, but the server is {}", peer.role)));
        }
        Ok(())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expect", &self.expect).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(end_entity, &self.material.load().roots, intermediates, now, &self.provider)?;
        self.admit(end_entity).map(|()| ServerCertVerified::assertion())
    }

    crate::judge_signatures!(provider);
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_cert_required
    }

    /// None: the CA may be swapped, and a client of ours has one certificate only.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifier = Arc::clone(&self.material.load().clients);
        verifier.verify_client_cert(end_entity, intermediates, now)?;
        self.admit(end_entity).map(|()| ClientCertVerified::assertion())
    }

    crate::judge_signatures!(provider);
}

/// Accepts the hub whose CA has the pinned hash: what a joining agent knows before it has an identity.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) pin: [u8; 32],
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|cert| ca_pin(cert) == self.pin)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        verify_chain(end_entity, &roots, intermediates, now, &self.provider)?;
        match Peer::from_der(end_entity).map_err(refuse)?.role {
            Role::Hub => Ok(ServerCertVerified::assertion()),
            other => Err(Error::General(format!("expected the hub, but the server is {other}"))),
        }
    }

    crate::judge_signatures!(provider);
}

fn verify_chain(
    leaf: &CertificateDer<'_>,
    roots: &RootCertStore,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider.signature_verification_algorithms.all;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
}

fn refuse(error: IdentityError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
