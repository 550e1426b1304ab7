//! What the GatewayClass says of us, by the conformance suite's names. A feature stands here once its tests pass.

/// In their order.
const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteSessionPersistence",
    "GRPCRouteSessionPersistenceHeader",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteExternalAuth",
    "HTTPRouteExternalAuthForwardBody",
    "HTTPRouteExternalAuthGRPC",
    "HTTPRouteExternalAuthHTTP",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "HTTPRouteSessionPersistence",
    "HTTPRouteSessionPersistenceCookieLifetimeTypePermanent",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// Those that need fields of the experimental channel.
const EXPERIMENTAL: &[&str] = &[
    "GRPCRouteSessionPersistence",
    "GRPCRouteSessionPersistenceHeader",
    "HTTPRouteExternalAuth",
    "HTTPRouteExternalAuthForwardBody",
    "HTTPRouteExternalAuthGRPC",
    "HTTPRouteExternalAuthHTTP",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSessionPersistence",
    "HTTPRouteSessionPersistenceCookieLifetimeTypePermanent",
];

/// What is supported; `standard`: with the fields of the standard channel alone.
pub(super) fn supported(standard: bool) -> impl Iterator<Item = &'static str> {
    FEATURES.iter().copied().filter(move |name| !(standard && EXPERIMENTAL.contains(name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a report does not list because it goes without saying, or because no profile has it.
    const UNLISTED: &[&str] = &["GRPCRouteNamedRouteRule", "Gateway", "HTTPRoute", "ReferenceGrant"];

    #[test]
    fn the_committed_report_is_of_these_features_and_nothing_failed() {
        let report = include_str!("../../../testbed/conformance/gateway.yaml");
        let mut listed = BTreeSet::new();
        let mut within = false;
        for line in report.lines() {
            match line.trim_start().strip_prefix("- ") {
                Some(name) if within => drop(listed.insert(name)),
                _ => within = line.trim() == "supportedFeatures:",
            }
        }
        let ours = FEATURES.iter().copied().filter(|name| !UNLISTED.contains(name));
        assert_eq!(listed, ours.collect::<BTreeSet<_>>());
        for line in report.lines().filter(|l| l.contains("Failed:") || l.contains("Skipped:")) {
            assert!(line.ends_with(": 0"), "{line}");
        }
        assert!(!report.contains("unsupportedFeatures"), "nothing is left out");
        for profile in ["HTTP", "GRPC", "TLS", "TCP", "UDP", "EXPERIMENTAL", "SERVICEIMPORT"] {
            assert!(report.contains(&format!("name: GATEWAY-{profile}")), "{profile}");
        }
    }
}
