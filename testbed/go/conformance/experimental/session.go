package experimental

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
	"sigs.k8s.io/gateway-api/conformance/utils/grpc"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/weight"
	"sigs.k8s.io/gateway-api/pkg/features"

	"atoll.dev/testbed/conformance/ask"
)

// GEP-1619: "Verify by checking pod identity across N requests (N>=50)".
const requests = 50

// begin begins a session: its cookie, and the pod that it is with.
func begin(t *testing.T, at, path string) (*http.Cookie, string, error) {
	answer, err := ask.Status(t.Context(), at, ask.Request{Path: path}, 200)
	if err != nil {
		return nil, "", err
	}
	cookies := (&http.Response{Header: answer.Header}).Cookies()
	if len(cookies) != 1 {
		return nil, "", fmt.Errorf("%s: %d cookies were set, not one", path, len(cookies))
	}
	return cookies[0], answer.Echo.Pod, nil
}

// stays fails unless everybody who shows the cookie comes to the pod.
func stays(t *testing.T, at, path string, cookie *http.Cookie, pod string) error {
	for range requests {
		shown := map[string]string{"Cookie": cookie.Name + "=" + cookie.Value}
		answer, err := ask.Status(t.Context(), at, ask.Request{Path: path, Headers: shown}, 200)
		if err != nil {
			return err
		}
		if answer.Echo.Pod != pod {
			return fmt.Errorf("%s: a session with %s came to %s", path, pod, answer.Echo.Pod)
		}
	}
	return nil
}

// persists begins a session and looks whether it stays.
func persists(t *testing.T, s *confsuite.ConformanceTestSuite, at, path string, look func(*http.Cookie) error) {
	t.Helper()
	ask.Eventually(t, s, path, func() error {
		cookie, pod, err := begin(t, at, path)
		if err != nil {
			return err
		}
		return errors.Join(look(cookie), stays(t, at, path, cookie, pod))
	})
}

// ofSession says whether a cookie ends with the browser's session.
func ofSession(cookie *http.Cookie) error {
	if cookie.MaxAge != 0 || cookie.RawExpires != "" {
		return fmt.Errorf("a cookie of the session says when it ends: %s", cookie.Raw)
	}
	return nil
}

var session = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteSessionPersistence",
	Description: "A client that shows the cookie that it was given comes to the same pod; others are spread",
	Features:    []features.FeatureName{sessionFeature},
	Manifests:   []string{"experimental/session.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, "session")
		persists(t, s, at, "/session", ofSession)
		pods := map[string]bool{}
		ask.Eventually(t, s, "clients without a cookie come to several pods", func() error {
			_, pod, err := begin(t, at, "/session")
			pods[pod] = err == nil
			if len(pods) < 2 {
				err = errors.Join(err, fmt.Errorf("only %v", pods))
			}
			return err
		})
	},
}

var sessionScope = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteSessionPersistenceScope",
	Description: "Each rule has sessions of its own, also where two lead to the same backend",
	Features:    []features.FeatureName{sessionFeature},
	Manifests:   []string{"experimental/session-scope.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, "session-scope")
		ask.Eventually(t, s, "two sessions", func() error {
			first, firstPod, err := begin(t, at, "/session-a")
			if err != nil {
				return err
			}
			second, secondPod, err := begin(t, at, "/session-b")
			if err != nil {
				return err
			}
			return errors.Join(stays(t, at, "/session-a", first, firstPod), stays(t, at, "/session-b", second, secondPod))
		})
	},
}

var sessionPermanent = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteSessionPersistencePermanent",
	Description: "A permanent cookie says that it ends with the session's absoluteTimeout",
	Features:    []features.FeatureName{sessionFeature, permanentFeature},
	Manifests:   []string{"experimental/session-permanent.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, "session-permanent")
		persists(t, s, at, "/session-permanent", func(cookie *http.Cookie) error {
			left := time.Duration(cookie.MaxAge) * time.Second
			if cookie.MaxAge == 0 {
				left = time.Until(cookie.Expires)
			}
			if left < 290*time.Second || left > 301*time.Second {
				return fmt.Errorf("it lives %s, not 5 minutes: %s", left, cookie.Raw)
			}
			return nil
		})
	},
}

var sessionWeights = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteSessionPersistenceWeights",
	Description: "Sessions begin as the weights say, and stay whatever they say",
	Features:    []features.FeatureName{sessionFeature},
	Manifests:   []string{"experimental/session-weights.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := accepted(t, s, "session-weights")
		sender := weight.NewFunctionBasedSender(func() (string, error) {
			_, pod, err := begin(t, at, "/session-weights")
			return pod, err
		})
		ask.Eventually(t, s, "70 to 30", func() error {
			return weight.TestWeightedDistribution(sender, map[string]float64{"infra-backend-v1": 0.7, "infra-backend-v2": 0.3})
		})
		for _, backend := range []string{"infra-backend-v1", "infra-backend-v2"} {
			ask.Eventually(t, s, "a session with "+backend, func() error {
				cookie, pod, err := begin(t, at, "/session-weights")
				if err == nil && ask.Deployment(pod) != backend {
					err = fmt.Errorf("it began with %s", pod)
				}
				if err != nil {
					return err
				}
				return stays(t, at, "/session-weights", cookie, pod)
			})
		}
	},
}

// grpcStays begins a session by gRPC and looks whether it stays; `shown` makes of the first answer's head what the client shows.
func grpcStays(t *testing.T, s *confsuite.ConformanceTestSuite, route, host string, shown func(grpc.Response) (map[string]string, error)) {
	t.Helper()
	name := types.NamespacedName{Name: route, Namespace: ns}
	at := kubernetes.GatewayAndRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName,
		kubernetes.NewGatewayRef(gateway), &gatewayv1.GRPCRoute{}, true, name)
	call := func(metadata map[string]string) (*grpc.Response, string, error) {
		client := &grpc.DefaultClient{}
		defer client.Close()
		expected := grpc.ExpectedResponse{
			EchoRequest: &pb.EchoRequest{}, RequestMetadata: &grpc.RequestMetadata{Authority: host, Metadata: metadata},
		}
		answer, err := client.SendRPC(t, at, expected, s.TimeoutConfig.RequestTimeout)
		if err == nil && answer.Code != codes.OK {
			err = fmt.Errorf("answered by %s", answer.Code)
		}
		return answer, answer.Response.GetAssertions().GetContext().GetPod(), err
	}
	ask.Eventually(t, s, route, func() error {
		first, pod, err := call(nil)
		if err != nil {
			return err
		}
		metadata, err := shown(*first)
		if err != nil {
			return err
		}
		for range requests {
			_, other, err := call(metadata)
			if err != nil {
				return err
			}
			if other != pod {
				return fmt.Errorf("a session with %s came to %s", pod, other)
			}
		}
		return nil
	})
}

var grpcSession = confsuite.ConformanceTest{
	ShortName:   "GRPCRouteSessionPersistence",
	Description: "A gRPC client that shows the cookie that it was given comes to the same pod",
	Features:    []features.FeatureName{grpcFeature},
	Manifests:   []string{"experimental/session-grpc.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		grpcStays(t, s, "session-grpc-cookie", "cookie.session", func(first grpc.Response) (map[string]string, error) {
			said := first.Headers.Get("set-cookie")
			if len(said) != 1 {
				return nil, fmt.Errorf("%d cookies were set, not one", len(said))
			}
			cookie, err := http.ParseSetCookie(said[0])
			if err != nil {
				return nil, err
			}
			return map[string]string{"cookie": cookie.Name + "=" + cookie.Value}, ofSession(cookie)
		})
	},
}

var grpcHeader = confsuite.ConformanceTest{
	ShortName:   "GRPCRouteSessionPersistenceHeader",
	Description: "A gRPC client that shows the header that it was given comes to the same pod",
	Features:    []features.FeatureName{grpcFeature, grpcHeaderFeature},
	Manifests:   []string{"experimental/session-grpc.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		grpcStays(t, s, "session-grpc-header", "header.session", func(first grpc.Response) (map[string]string, error) {
			said := first.Headers.Get("x-session")
			if len(said) != 1 {
				return nil, fmt.Errorf("%d headers x-session were set, not one", len(said))
			}
			return map[string]string{"x-session": said[0]}, nil
		})
	},
}
