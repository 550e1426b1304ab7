package serviceimport

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/weight"
	"sigs.k8s.io/gateway-api/pkg/features"

	"atoll.dev/testbed/conformance/ask"
)

const ns = confsuite.InfrastructureNamespace

var gateway = types.NamespacedName{Name: "same-namespace", Namespace: ns}

func test(name, what, manifest string, needs []features.FeatureName, run func(*testing.T, *confsuite.ConformanceTestSuite)) confsuite.ConformanceTest {
	return confsuite.ConformanceTest{
		ShortName:   "ServiceImport" + name,
		Description: what,
		Features:    append([]features.FeatureName{Feature}, needs...),
		Manifests:   []string{"manifests/" + manifest + ".yaml"},
		Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
			prepare(t, s)
			run(t, s)
		},
	}
}

// http are the features of a test whose routes are HTTPRoutes.
func http(more ...features.FeatureName) []features.FeatureName {
	return append([]features.FeatureName{features.SupportHTTPRoute}, more...)
}

// accepted waits until Gateway and route are well, and says where the Gateway is.
func accepted(t *testing.T, s *confsuite.ConformanceTestSuite, gateway types.NamespacedName, route string) string {
	t.Helper()
	name := types.NamespacedName{Name: route, Namespace: ns}
	at := kubernetes.GatewayAndHTTPRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName, kubernetes.NewGatewayRef(gateway), name)
	kubernetes.HTTPRouteMustHaveResolvedRefsConditionsTrue(t, s.Client, s.TimeoutConfig, name, gateway)
	return at
}

// unresolved waits until the route says for which reason its backend leads nowhere.
func unresolved(t *testing.T, s *confsuite.ConformanceTestSuite, gateway types.NamespacedName, route string, reason gatewayv1.RouteConditionReason) string {
	t.Helper()
	name := types.NamespacedName{Name: route, Namespace: ns}
	kubernetes.HTTPRouteMustHaveCondition(t, s.Client, s.TimeoutConfig, name, gateway, metav1.Condition{
		Type: string(gatewayv1.RouteConditionResolvedRefs), Status: metav1.ConditionFalse, Reason: string(reason),
	})
	return kubernetes.GatewayAndHTTPRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName, kubernetes.NewGatewayRef(gateway), name)
}

// pods asks a path again and again, and says who answered.
func pods(t *testing.T, at, path string) func() (string, error) {
	return func() (string, error) {
		answer, err := ask.Status(t.Context(), at, ask.Request{Path: path}, 200)
		if err != nil {
			return "", err
		}
		return answer.Echo.Pod, nil
	}
}

// refused waits until a path is answered by a status, whoever is asked.
func refused(t *testing.T, s *confsuite.ConformanceTestSuite, at, path string, status int) {
	t.Helper()
	ask.Eventually(t, s, path, func() error {
		for range 5 {
			if _, err := ask.Status(t.Context(), at, ask.Request{Path: path}, status); err != nil {
				return err
			}
		}
		return nil
	})
}

var setWide = test("SetWideEndpoints",
	"A ServiceImport reaches the pods of every cluster of the set that exports the service, and none of other sets",
	"set-wide", http(), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, gateway, "import-set-wide")
		ask.Reaches(t, s, "si-echo", pods(t, at, "/set-wide"), "east-echo", "west-echo")
	})

var staysLocal = test("ServiceStaysLocal",
	"A Service of the same name as a ServiceImport is that Service of the Gateway's own cluster: nobody else's pods are reached by it",
	"stays-local", http(), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, gateway, "import-stays-local")
		ask.Reaches(t, s, "Service si-echo", pods(t, at, "/local/service"), "infra-backend-v1")
		ask.Reaches(t, s, "ServiceImport si-echo", pods(t, at, "/local/import"), "east-echo", "west-echo")
	})

var granted = test("CrossNamespaceGranted",
	"A ServiceImport of another namespace is reached where a ReferenceGrant there permits ServiceImports",
	"granted", http(features.SupportReferenceGrant), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, gateway, "import-granted")
		ask.Reaches(t, s, "si-web", pods(t, at, "/granted"), "east-web")
	})

var notGranted = test("CrossNamespaceNotGranted",
	"A ServiceImport of another namespace is not reached where no ReferenceGrant there permits it; one for Services doesn't",
	"not-granted", http(features.SupportReferenceGrant), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := unresolved(t, s, gateway, "import-not-granted", gatewayv1.RouteReasonRefNotPermitted)
		refused(t, s, at, "/not-granted", 500)
	})

var unknown = test("Unknown",
	"A ServiceImport that nobody exports is BackendNotFound, and its requests get 500; other rules of the route are served",
	"unknown", http(), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := unresolved(t, s, gateway, "import-unknown", gatewayv1.RouteReasonBackendNotFound)
		refused(t, s, at, "/unknown/nobody", 500)
		refused(t, s, at, "/unknown/port", 500)
		ask.Reaches(t, s, "the rule beside it", pods(t, at, "/unknown/known"), "east-echo", "west-echo")
	})

var weights = test("Weights",
	"Weights between ServiceImports and Services count, whichever clusters are behind; weight 0 gets nothing",
	"weights", http(), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, gateway, "import-weights")
		asks := pods(t, at, "/weights")
		ask.Reaches(t, s, "both backends", asks, "east-echo", "west-echo", "infra-backend-v2")
		// Whichever member it was: what is weighed is the import.
		sender := weight.NewFunctionBasedSender(func() (string, error) {
			pod, err := asks()
			if strings.HasPrefix(pod, "east-echo-") || strings.HasPrefix(pod, "west-echo-") {
				pod = "import-0-0"
			}
			return pod, err
		})
		ask.Eventually(t, s, "70 to 30", func() error {
			return weight.TestWeightedDistribution(sender, map[string]float64{"import": 0.7, "infra-backend-v2": 0.3, "east-grpc": 0, "west-grpc": 0})
		})
	})

var backendTLS = test("BackendTLSPolicy",
	"A BackendTLSPolicy of a ServiceImport makes the Gateway speak TLS to pods of other clusters, and refuse those whose certificate is not as it says",
	"backend-tls", http(features.SupportBackendTLSPolicy), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, gateway, "import-backend-tls")
		for policy, reason := range map[string]gatewayv1.PolicyConditionReason{"import-tls": gatewayv1.PolicyReasonAccepted, "import-tls-mismatch": gatewayv1.PolicyReasonAccepted} {
			name := types.NamespacedName{Name: policy, Namespace: ns}
			kubernetes.BackendTLSPolicyMustHaveCondition(t, s.Client, s.TimeoutConfig, name, gateway, metav1.Condition{
				Type: string(gatewayv1.PolicyConditionAccepted), Status: metav1.ConditionTrue, Reason: string(reason),
			})
		}
		ask.Reaches(t, s, "si-secure", func() (string, error) {
			answer, err := ask.Status(t.Context(), at, ask.Request{Path: "/secure"}, 200)
			if err != nil {
				return "", err
			}
			if answer.Echo.TLS.ServerName != "abc.example.com" {
				return "", fmt.Errorf("asked by TLS for `%s`", answer.Echo.TLS.ServerName)
			}
			return answer.Echo.Pod, nil
		}, "east-echo", "west-echo")
		ask.Eventually(t, s, "the name is another", func() error {
			answer, err := ask.HTTP(t.Context(), at, ask.Request{Path: "/mismatch"})
			if err == nil && answer.Status < 500 {
				err = fmt.Errorf("answered by %d", answer.Status)
			}
			return err
		})
	})

var foreignSet = test("ForeignSet",
	"A Gateway reaches the exports of its own cluster set alone: its label says which",
	"foreign-set", http(), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		other := types.NamespacedName{Name: "import-far", Namespace: ns}
		at := unresolved(t, s, gateway, "import-foreign", gatewayv1.RouteReasonBackendNotFound)
		refused(t, s, at, "/foreign", 500)
		far := accepted(t, s, other, "import-within")
		ask.Reaches(t, s, "si-far", pods(t, far, "/far"), "far-echo")
		ask.Reaches(t, s, "si-echo, of the other set", pods(t, far, "/echo"), "far-echo")
	})

var leaving = test("ClusterLeaving",
	"The pods of a cluster that leaves the set are reached no more, the others' are; once back they are again",
	"leaving", http(), func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, gateway, "import-leaving")
		asks := pods(t, at, "/leaving")
		ask.Reaches(t, s, "both", asks, "east-echo", "west-echo")
		t.Cleanup(func() { require.NoError(t, moved(context.Background(), s.Client, "west", "prod")) })
		require.NoError(t, moved(t.Context(), s.Client, "west", "elsewhere"))
		ask.Reaches(t, s, "west has left", asks, "east-echo")
		require.NoError(t, moved(t.Context(), s.Client, "west", "prod"))
		ask.Reaches(t, s, "west is back", asks, "east-echo", "west-echo")
	})
