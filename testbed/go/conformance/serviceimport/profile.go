// Package serviceimport holds the tests of profile GATEWAY-SERVICEIMPORT: routes whose backends are ServiceImports (GEP-1748), services
// that other clusters of the Gateway's cluster set export.
//
// The members are real clusters: each has pods, Services and ServiceExports of its own, and an agent that tells the hub of them. `east`
// and `west` are of the hub's default set, `far` is of another.
package serviceimport

import (
	"embed"

	"k8s.io/apimachinery/pkg/util/sets"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// Feature is the one that every test here needs: enabled by the profile, for the API has no name for it.
const Feature features.FeatureName = "ServiceImport"

// Tests are in the order in which they run; the last one changes who is a member of the set.
var Tests []confsuite.ConformanceTest

// Manifests are found by the suite under "manifests/".
//
//go:embed manifests
var Manifests embed.FS

// Backends are what the tests are about: none of them is one of the suite's, whose features all name Gateway.
func init() {
	confsuite.RegisterConformanceProfile(confsuite.ConformanceProfile{
		Name:         "GATEWAY-SERVICEIMPORT",
		CoreFeatures: sets.New(Feature, features.SupportHTTPRoute, features.SupportReferenceGrant),
		ExtendedFeatures: sets.New(features.SupportGRPCRoute, features.SupportTLSRoute, features.SupportTCPRoute,
			features.SupportUDPRoute, features.SupportBackendTLSPolicy),
	})
	Tests = []confsuite.ConformanceTest{
		setWide, staysLocal, granted, notGranted, unknown, weights, grpcRoute, tlsRoute, tcpRoute, udpRoute, backendTLS, foreignSet, leaving,
	}
}
