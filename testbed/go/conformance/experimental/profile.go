// Package experimental holds tests for what the experimental channel has and the suite has no test for: two features of retries, which
// count for profile GATEWAY-HTTP, and sessionPersistence (GEP-1619) and the filter ExternalAuth (GEP-1494), in a profile of their own.
package experimental

import (
	"embed"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// The names by which the API's types and GEP-1619 know features that package features lacks.
const (
	authFeature       features.FeatureName = "HTTPRouteExternalAuth"
	authBodyFeature   features.FeatureName = "HTTPRouteExternalAuthForwardBody"
	authGRPCFeature   features.FeatureName = "HTTPRouteExternalAuthGRPC"
	authHTTPFeature   features.FeatureName = "HTTPRouteExternalAuthHTTP"
	sessionFeature    features.FeatureName = "HTTPRouteSessionPersistence"
	permanentFeature  features.FeatureName = "HTTPRouteSessionPersistenceCookieLifetimeTypePermanent"
	grpcFeature       features.FeatureName = "GRPCRouteSessionPersistence"
	grpcHeaderFeature features.FeatureName = "GRPCRouteSessionPersistenceHeader"
)

const ns = confsuite.InfrastructureNamespace

var gateway = types.NamespacedName{Name: "same-namespace", Namespace: ns}

// Tests are in the order in which they run.
var Tests = []confsuite.ConformanceTest{
	retryConnectionError, retryBackendTimeout,
	session, sessionScope, sessionPermanent, sessionWeights, grpcSession, grpcHeader,
	authHTTP, authGRPC, authBody, authClosed,
}

// Manifests are found by the suite under "experimental/".
//
//go:embed experimental
var Manifests embed.FS

func init() {
	confsuite.RegisterConformanceProfile(confsuite.ConformanceProfile{
		Name:         "GATEWAY-EXPERIMENTAL",
		CoreFeatures: sets.New[features.FeatureName](),
		ExtendedFeatures: sets.New(authFeature, authBodyFeature, authGRPCFeature, authHTTPFeature, sessionFeature, permanentFeature,
			grpcFeature, grpcHeaderFeature),
	})
}

// accepted waits until Gateway and route are well, and says where the Gateway is.
func accepted(t *testing.T, s *confsuite.ConformanceTestSuite, route string) string {
	t.Helper()
	name := types.NamespacedName{Name: route, Namespace: ns}
	at := kubernetes.GatewayAndHTTPRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName, kubernetes.NewGatewayRef(gateway), name)
	kubernetes.HTTPRouteMustHaveResolvedRefsConditionsTrue(t, s.Client, s.TimeoutConfig, name, gateway)
	return at
}
