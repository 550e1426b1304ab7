package serviceimport

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
	"sigs.k8s.io/gateway-api/conformance/echo-basic/tcpserver"
	"sigs.k8s.io/gateway-api/conformance/echo-basic/udpechoserver"
	"sigs.k8s.io/gateway-api/conformance/utils/grpc"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/pkg/features"

	"atoll.dev/testbed/conformance/ask"
)

// named is a name among the tests' own.
func named(name string) types.NamespacedName {
	return types.NamespacedName{Name: name, Namespace: ns}
}

var grpcRoute = test("GRPC",
	"A GRPCRoute reaches a ServiceImport's pods in every cluster of the set",
	"grpc", []features.FeatureName{features.SupportGRPCRoute}, func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := kubernetes.GatewayAndRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName,
			kubernetes.NewGatewayRef(gateway), &gatewayv1.GRPCRoute{}, true, named("import-grpc"))
		ask.Reaches(t, s, "si-grpc", func() (string, error) {
			client := &grpc.DefaultClient{}
			defer client.Close()
			expected := grpc.ExpectedResponse{EchoRequest: &pb.EchoRequest{}, RequestMetadata: &grpc.RequestMetadata{Authority: "grpc.import"}}
			answer, err := client.SendRPC(t, at, expected, s.TimeoutConfig.RequestTimeout)
			if err == nil && answer.Code != codes.OK {
				err = fmt.Errorf("answered by %s", answer.Code)
			}
			return answer.Response.GetAssertions().GetContext().GetPod(), err
		}, "east-grpc", "west-grpc")
	})

var tlsRoute = test("TLS",
	"A TLSRoute passes TLS on to a ServiceImport's pods, which end it",
	"tls", []features.FeatureName{features.SupportTLSRoute}, func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at, _ := kubernetes.GatewayAndTLSRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName,
			kubernetes.NewGatewayRef(named("import-streams"), "tls"), named("import-tls-route"))
		authority, err := kubernetes.GetConfigMapData(s.Client, s.TimeoutConfig, named("tls-checks-ca-certificate"))
		require.NoError(t, err)
		trusted := x509.NewCertPool()
		require.True(t, trusted.AppendCertsFromPEM([]byte(authority["ca.crt"])))
		dialer := &tls.Dialer{Config: &tls.Config{ServerName: "abc.example.com", RootCAs: trusted, MinVersion: tls.VersionTLS12}}
		ask.Reaches(t, s, "si-tcp by TLS", func() (string, error) { return secret(t.Context(), dialer, at) }, "east-tcp", "west-tcp")
	})

var tcpRoute = test("TCP",
	"A TCPRoute reaches a ServiceImport's pods in every cluster of the set",
	"tcp", []features.FeatureName{features.SupportTCPRoute}, func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := kubernetes.GatewayAndTCPRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName,
			kubernetes.NewGatewayRef(named("import-streams"), "tcp"), named("import-tcp"))
		ask.Reaches(t, s, "si-tcp", func() (string, error) {
			return tcp.EchoSendOnce(t.Context(), at, s.TimeoutConfig.RequestTimeout)
		}, "east-tcp", "west-tcp")
	})

var udpRoute = test("UDP",
	"A UDPRoute reaches a ServiceImport's pods in every cluster of the set",
	"udp", []features.FeatureName{features.SupportUDPRoute}, func(t *testing.T, s *confsuite.ConformanceTestSuite) {
		at := kubernetes.GatewayAndUDPRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName,
			kubernetes.NewGatewayRef(named("import-streams"), "udp"), named("import-udp"))
		ask.Reaches(t, s, "si-udp", func() (string, error) { return packet(t.Context(), at) }, "east-udp", "west-udp")
	})

// secret speaks TLS with whoever is behind a Gateway, and says which pod it is and that it ended it.
func secret(ctx context.Context, dialer *tls.Dialer, at string) (string, error) {
	connection, err := dialer.DialContext(ctx, "tcp", at)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := connection.Write([]byte("TEST\n")); err != nil {
		return "", err
	}
	reader := bufio.NewReader(connection)
	if welcome, err := reader.ReadString('\n'); err != nil || welcome != tcpserver.WelcomeMessage {
		return "", fmt.Errorf("it began with %q: %w", welcome, err)
	}
	line, err := reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	said := tcpserver.TCPAssertions{}
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		return "", err
	}
	if name := said.TLSAssertion.ServerName; name != "abc.example.com" {
		return "", fmt.Errorf("the pod saw the name %q", name)
	}
	return said.Pod, nil
}

// packet sends one from a port of its own, and says which pod answered.
func packet(ctx context.Context, at string) (string, error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "udp", at)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := connection.Write([]byte("who is there\n")); err != nil {
		return "", err
	}
	answer := make([]byte, 4096)
	read, err := connection.Read(answer)
	if err != nil {
		return "", err
	}
	var said udpechoserver.EchoResponse
	err = json.Unmarshal(answer[:read], &said)
	return said.Pod, err
}
