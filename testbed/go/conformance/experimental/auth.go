package experimental

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"atoll.dev/testbed/conformance/ask"
)

func credentials(word string, more ...string) map[string]string {
	shown := map[string]string{"Authorization": word}
	for at := 0; at+1 < len(more); at += 2 {
		shown[more[at]] = more[at+1]
	}
	return shown
}

// same fails unless header `name` of what reached the backend is `wanted`; empty: it is not there.
func same(answer *ask.Answer, name, wanted string) error {
	if found := strings.Join(answer.Echo.Headers[name], ","); found != wanted {
		return said("header "+name+" at the backend", found, wanted)
	}
	return nil
}

var authHTTP = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteExternalAuthHTTP",
	Description: "A server of HTTP says who passes: by 200, with headers for the backend; any other answer is the client's. Rules without the filter ask nobody",
	Features:    []features.FeatureName{authFeature, authHTTPFeature},
	Manifests:   []string{"experimental/auth-http.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		judge := serve(t, s)
		at := accepted(t, s, "auth-http")
		ask.Eventually(t, s, "who is known passes", func() error {
			request := ask.Request{Path: "/auth/cart?item=7", Headers: credentials("good", "X-Tenant", "a", "X-Private", "1")}
			answer, err := ask.Status(t.Context(), at, request, 200)
			if err != nil {
				return err
			}
			asked, _ := judge.last()
			err = errors.Join(same(answer, "X-User", user), same(answer, "X-Internal", ""), same(answer, "X-Private", "1"))
			if asked.URL.Path != "/check/auth/cart" {
				err = errors.Join(err, said("the path that was judged", asked.URL.Path, "/check/auth/cart"))
			}
			if asked.Header.Get("X-Tenant") != "a" || asked.Header.Get("X-Private") != "" {
				err = errors.Join(err, said("headers that were judged", asked.Header, "X-Tenant without X-Private"))
			}
			return err
		})
		for _, word := range []string{"bad", ""} {
			ask.Eventually(t, s, "who is unknown does not", func() error {
				answer, err := ask.Status(t.Context(), at, ask.Request{Path: "/auth/cart", Headers: credentials(word)}, 403)
				if err == nil && (answer.Body != "who are you?" || answer.Header.Get("X-Why") != "unknown") {
					err = said("the answer", answer, "the server's own")
				}
				return err
			})
		}
		ask.Eventually(t, s, "the rule without the filter", func() error {
			answer, err := ask.Status(t.Context(), at, ask.Request{Path: "/open"}, 200)
			if err != nil {
				return err
			}
			return same(answer, "X-User", "")
		})
	},
}

var authGRPC = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteExternalAuthGRPC",
	Description: "A server of Envoy's ext_authz says who passes, what the backend is told and what others are answered",
	Features:    []features.FeatureName{authFeature, authGRPCFeature},
	Manifests:   []string{"experimental/auth-grpc.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		serve(t, s)
		at := accepted(t, s, "auth-grpc")
		ask.Eventually(t, s, "who is known passes", func() error {
			answer, err := ask.Status(t.Context(), at, ask.Request{Path: "/auth-grpc?item=7", Headers: credentials("good")}, 200)
			if err != nil {
				return err
			}
			return errors.Join(same(answer, "X-User", user), same(answer, "X-Path", "/auth-grpc?item=7"))
		})
		ask.Eventually(t, s, "who is unknown does not", func() error {
			answer, err := ask.Status(t.Context(), at, ask.Request{Path: "/auth-grpc", Headers: credentials("bad")}, 402)
			if err == nil && (answer.Body != "pay first" || answer.Header.Get("X-Why") != "unknown") {
				err = said("the answer", answer, "the server's own")
			}
			return err
		})
	},
}

var authBody = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteExternalAuthForwardBody",
	Description: "Bodies up to maxSize are judged, too, and still reach the backend; longer ones are refused by 4xx; with maxSize 0 none is sent along",
	Features:    []features.FeatureName{authFeature, authHTTPFeature, authBodyFeature},
	Manifests:   []string{"experimental/auth-body.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		judge := serve(t, s)
		at := accepted(t, s, "auth-body")
		post := func(path, body string) ask.Request {
			return ask.Request{Method: "POST", Path: path, Body: body, Headers: credentials("good")}
		}
		for path, wanted := range map[string]string{"/body": "0123456789", "/nobody": ""} {
			ask.Eventually(t, s, path, func() error {
				answer, err := ask.Status(t.Context(), at, post(path, "0123456789"), 200)
				if err != nil {
					return err
				}
				err = same(answer, "Content-Length", "10")
				if _, body := judge.last(); body != wanted {
					err = errors.Join(err, said("the body that was judged", body, wanted))
				}
				return err
			})
		}
		ask.Eventually(t, s, "a longer body", func() error {
			answer, err := ask.HTTP(t.Context(), at, post("/body", strings.Repeat("x", 65)))
			if err == nil && (answer.Status < 400 || answer.Status > 499) {
				err = said("the answer", answer.Status, "4xx")
			}
			return err
		})
	},
}

var authClosed = confsuite.ConformanceTest{
	ShortName:   "HTTPRouteExternalAuthFailsClosed",
	Description: "Where nobody can judge nobody passes: the server does not exist, or does not answer",
	Features:    []features.FeatureName{authFeature, authHTTPFeature},
	Manifests:   []string{"experimental/auth-closed.yaml"},
	Test: func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		kubernetes.HTTPRouteMustHaveCondition(t, s.Client, s.TimeoutConfig, types.NamespacedName{Name: "auth-nobody", Namespace: ns}, gateway,
			metav1.Condition{
				Type: string(gatewayv1.RouteConditionResolvedRefs), Status: metav1.ConditionFalse, Reason: string(gatewayv1.RouteReasonBackendNotFound),
			})
		at := accepted(t, s, "auth-silent")
		for _, path := range []string{"/auth-nobody", "/auth-silent"} {
			ask.Eventually(t, s, path, func() error {
				answer, err := ask.HTTP(t.Context(), at, ask.Request{Path: path, Headers: credentials("good")})
				if err == nil && answer.Status < 400 {
					err = said("the answer", answer.Status, "a refusal")
				}
				if err == nil && answer.Status == 404 {
					err = errors.New("no route yet")
				}
				return err
			})
		}
	},
}
