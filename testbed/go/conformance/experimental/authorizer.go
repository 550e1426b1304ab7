package experimental

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	kinds "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// user is whom the authorizers know: by header `authorization`, as `good` or by any other word, who is refused.
const user = "anna"

// judge is an authorization server of both protocols, which the suite itself serves at its node's address.
type judge struct {
	auth.UnimplementedAuthorizationServer

	lock sync.Mutex
	// What the last request to be judged was, and its body.
	asked *http.Request
	body  string
}

func (j *judge) last() (*http.Request, string) {
	j.lock.Lock()
	defer j.lock.Unlock()
	return j.asked, j.body
}

// ServeHTTP judges as GEP-1494 has it: 200 lets pass.
func (j *judge) ServeHTTP(answer http.ResponseWriter, asked *http.Request) {
	body, _ := io.ReadAll(asked.Body)
	j.lock.Lock()
	j.asked, j.body = asked, string(body)
	j.lock.Unlock()
	if asked.Header.Get("Authorization") != "good" {
		answer.Header().Set("X-Why", "unknown")
		answer.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(answer, "who are you?")
		return
	}
	answer.Header().Set("X-User", user)
	answer.Header().Set("X-Internal", "1")
}

// Check judges as Envoy's protocol has it.
func (j *judge) Check(_ context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	asked := request.GetAttributes().GetRequest().GetHttp()
	option := func(name, value string) *core.HeaderValueOption {
		return &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}}
	}
	if asked.GetHeaders()["authorization"] == "good" {
		return &auth.CheckResponse{
			Status: &status.Status{Code: int32(codes.OK)},
			HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
				Headers: []*core.HeaderValueOption{option("x-user", user), option("x-path", asked.GetPath())},
			}},
		}, nil
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &kinds.HttpStatus{Code: kinds.StatusCode_PaymentRequired}, Body: "pay first",
			Headers: []*core.HeaderValueOption{option("x-why", "unknown")},
		}},
	}, nil
}

// serve begins to judge, and makes the Services auth-http and auth-grpc lead there, until the test ends.
func serve(t *testing.T, s *confsuite.ConformanceTestSuite) *judge {
	t.Helper()
	node := os.Getenv("ATOLL_NODE")
	require.NotEmpty(t, node, "ATOLL_NODE should be an address of ours that the Gateway reaches")
	judge := &judge{}
	listen := func() (net.Listener, int32) {
		listener, err := net.Listen("tcp", net.JoinHostPort(node, "0"))
		require.NoError(t, err)
		_, port, err := net.SplitHostPort(listener.Addr().String())
		require.NoError(t, err)
		number, err := strconv.ParseInt(port, 10, 32)
		require.NoError(t, err)
		return listener, int32(number)
	}
	web, at := listen()
	server := &http.Server{Handler: judge}
	go func() { _ = server.Serve(web) }()
	t.Cleanup(func() { _ = server.Close() })
	endpoint(t, s, "auth-http", node, at, nil)
	calls, at := listen()
	procedures := grpc.NewServer()
	auth.RegisterAuthorizationServer(procedures, judge)
	go func() { _ = procedures.Serve(calls) }()
	t.Cleanup(procedures.Stop)
	endpoint(t, s, "auth-grpc", node, at, ptr.To("kubernetes.io/h2c"))
	return judge
}

// endpoint is a Service without a selector, and its one endpoint.
func endpoint(t *testing.T, s *confsuite.ConformanceTestSuite, name, address string, at int32, protocol *string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{discoveryv1.LabelServiceName: name}}
	s.Applier.MustApplyObjectsWithCleanup(t, s.Client, s.TimeoutConfig, []client.Object{
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "auth", Port: 80, AppProtocol: protocol}}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
			Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("auth"), Port: ptr.To(at), Protocol: ptr.To(corev1.ProtocolTCP)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		},
	}, true)
}

// said is an error that names what was looked for in an answer.
func said(what string, found, wanted any) error {
	return fmt.Errorf("%s: %v, not %v", what, found, wanted)
}
