// An echo backend: answers HTTP/1.1, HTTP/2 without TLS, gRPC, TCP and UDP with its cluster, its pod and what it received.
//
//	HTTP  :80 and :8080   any method and path; ?status=503 answers so, ?delay=200ms waits first, ?size=1000 pads the body
//	gRPC  :9090           /atoll.testbed.Echo/Say and /Chat (both ways, a message each), google.protobuf.StringValue in and out
//	TCP   :9000           a line in, a line out, until the client closes; UDP :9000 a packet in, a packet out
//
// The cluster is the variable CLUSTER, which the testbed's container runtime gives to every container; the pod is the host name.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const bodyBytesMax = 1 << 20

// Reply is what every protocol answers; fields that a protocol has no word for stay out.
type Reply struct {
	Cluster   string              `json:"cluster"`
	Pod       string              `json:"pod"`
	Namespace string              `json:"namespace,omitempty"`
	Version   string              `json:"version,omitempty"`
	Protocol  string              `json:"proto"`
	Remote    string              `json:"remote"`
	Method    string              `json:"method,omitempty"`
	Host      string              `json:"host,omitempty"`
	Path      string              `json:"path,omitempty"`
	Headers   map[string][]string `json:"headers,omitempty"`
	Received  string              `json:"received"`
	Padding   string              `json:"padding,omitempty"`
}

var self = func() Reply {
	pod, _ := os.Hostname()
	namespace, _ := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	return Reply{
		Cluster:   os.Getenv("CLUSTER"),
		Pod:       cmp.Or(os.Getenv("POD"), pod),
		Namespace: strings.TrimSpace(string(namespace)),
		Version:   os.Getenv("VERSION"),
	}
}()

func reply(protocol, remote, received string) Reply {
	answer := self
	answer.Protocol, answer.Remote, answer.Received = protocol, remote, received
	return answer
}

func (r Reply) line() string {
	text, _ := json.Marshal(r)
	return string(text)
}

func main() {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	failed := make(chan error, 8)
	for _, port := range strings.Split(cmp.Or(os.Getenv("HTTP_PORTS"), "80,8080"), ",") {
		go func() { failed <- serveHTTP(":" + port) }()
	}
	go func() { failed <- serveGRPC(":9090") }()
	go func() { failed <- serveTCP(":9000") }()
	go func() { failed <- serveUDP(":9000") }()
	select {
	case err := <-failed:
		log.Fatal(err)
	case <-stop.Done():
		// Endpoints go out of everybody's tables while the last requests are still answered.
		if grace, err := time.ParseDuration(os.Getenv("GRACE")); err == nil {
			time.Sleep(grace)
		}
	}
}

func serveHTTP(address string) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(answerHTTP), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

func answerHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, bodyBytesMax))
	query := r.URL.Query()
	if delay, err := time.ParseDuration(query.Get("delay")); err == nil {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
	}
	answer := reply(r.Proto, r.RemoteAddr, string(body))
	answer.Method, answer.Host, answer.Path, answer.Headers = r.Method, r.Host, r.URL.RequestURI(), r.Header
	if size, err := strconv.Atoi(query.Get("size")); err == nil && size > 0 && size <= 64<<20 {
		answer.Padding = strings.Repeat("x", size)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Cluster", self.Cluster)
	w.Header().Set("X-Pod", self.Pod)
	if status, err := strconv.Atoi(query.Get("status")); err == nil && status >= 200 && status <= 599 {
		w.WriteHeader(status)
	}
	fmt.Fprintln(w, answer.line())
}

type echo struct{}

func (echo) answer(ctx context.Context, method, said string) *wrapperspb.StringValue {
	answer := reply("gRPC", "", said)
	answer.Method = method
	if headers, ok := metadata.FromIncomingContext(ctx); ok {
		answer.Headers = headers
	}
	return wrapperspb.String(answer.line())
}

func say(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	said := new(wrapperspb.StringValue)
	if err := decode(said); err != nil {
		return nil, err
	}
	return srv.(echo).answer(ctx, "Say", said.Value), nil
}

func chat(srv any, stream grpc.ServerStream) error {
	for {
		said := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(said); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(srv.(echo).answer(stream.Context(), "Chat", said.Value)); err != nil {
			return err
		}
	}
}

func serveGRPC(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "atoll.testbed.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Say", Handler: say}},
		Streams:     []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true}},
	}, echo{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server.Serve(listener)
}

func serveTCP(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			lines := bufio.NewScanner(connection)
			lines.Buffer(make([]byte, 4096), bodyBytesMax)
			for lines.Scan() {
				fmt.Fprintln(connection, reply("TCP", connection.RemoteAddr().String(), lines.Text()).line())
			}
		}()
	}
}

func serveUDP(address string) error {
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	packet := make([]byte, 65535)
	for {
		size, from, err := socket.ReadFrom(packet)
		if err != nil {
			return err
		}
		_, _ = socket.WriteTo([]byte(reply("UDP", from.String(), strings.TrimRight(string(packet[:size]), "\n")).line()), from)
	}
}
