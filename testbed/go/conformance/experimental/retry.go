package experimental

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"atoll.dev/testbed/conformance/ask"
)

// Each request has a name of its own: by it the backend counts attempts.
func attempts(t *testing.T, s *confsuite.ConformanceTestSuite, at, path, query string, status func(int) bool) {
	t.Helper()
	ask.Eventually(t, s, path+"?"+query, func() error {
		for range s.TimeoutConfig.RequiredConsecutiveSuccesses {
			path := fmt.Sprintf("%s?uuid=%s&%s", path, uuid.NewString(), query)
			answer, err := ask.HTTP(t.Context(), at, ask.Request{Path: path})
			if err == nil && !status(answer.Status) {
				err = fmt.Errorf("answered by %d", answer.Status)
			}
			if err != nil {
				return errors.Join(errors.New(path), err)
			}
		}
		return nil
	})
}

func ok(status int) bool     { return status == 200 }
func failed(status int) bool { return status >= 500 }
func late(status int) bool   { return status == 504 }

var retryConnectionError = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteRetryConnectionError",
	Description: "A request whose connection to the backend breaks is sent again, as often as the rule's retry says",
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute, features.SupportHTTPRouteRetryConnectionError},
	Manifests:   []string{"experimental/retry-connection-error.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, "retry-connection-error")
		// Without a code to answer by, the backend resets the connection.
		attempts(t, s, at, "/retry/connection", "succeedAfter=2", ok)
		attempts(t, s, at, "/retry/connection", "succeedAfter=4", failed)
	},
}

var retryBackendTimeout = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteRetryBackendTimeout",
	Description: "A request to which a backend says nothing within backendRequest is sent again, as often as the rule's retry says",
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute, features.SupportHTTPRouteRetryBackendTimeout},
	Manifests:   []string{"experimental/retry-backend-timeout.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, "retry-backend-timeout")
		// The first is answered after 1.4 s, later ones at once; the backend works on one at a time.
		attempts(t, s, at, "/retry/late", "succeedAfter=1&responseCode=500&delayRetry=1400ms", ok)
		attempts(t, s, at, "/retry/once", "succeedAfter=1&responseCode=500&delayRetry=1400ms", late)
	},
}
