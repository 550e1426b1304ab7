//! The part of a certificate verifier that is the same in all of them: that the peer holds the key of the certificate that it shows.
//!
//! In: where the verifier has its provider. Out: the three methods of rustls's verifier traits that judge signatures, by the algorithms of
//! that provider. A macro, since a trait's methods can be given to it in no other way; whom to believe is each verifier's own to say.

/// The methods of [`rustls::client::danger::ServerCertVerifier`] and [`rustls::server::danger::ClientCertVerifier`] that judge signatures;
/// `$provider` is the field with the [`rustls::crypto::CryptoProvider`].
#[macro_export]
macro_rules! judge_signatures {
    ($provider:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signed: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            ::rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signed: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            ::rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            self.$provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
