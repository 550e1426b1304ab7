// A processor of Envoy's protocol, in the types that Envoy itself is built with (go-control-plane).
//
// It tells the backend what it saw (x-seen), writes bodies in capitals, marks answers (x-processed) and refuses whoever asks for /refused.
package main

import (
	"bytes"
	"flag"
	"io"
	"log"
	"net"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	kinds "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
)

type processor struct {
	proc.UnimplementedExternalProcessorServer
}

func set(name, value string) *proc.HeaderMutation {
	header := &core.HeaderValue{Key: name, RawValue: []byte(value)}
	return &proc.HeaderMutation{SetHeaders: []*core.HeaderValueOption{{Header: header}}}
}

func (processor) Process(stream proc.ExternalProcessor_ProcessServer) error {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(answer(request)); err != nil {
			return err
		}
	}
}

func answer(request *proc.ProcessingRequest) *proc.ProcessingResponse {
	switch said := request.Request.(type) {
	case *proc.ProcessingRequest_RequestHeaders:
		seen := map[string]string{}
		for _, header := range said.RequestHeaders.GetHeaders().GetHeaders() {
			seen[header.Key] = string(header.RawValue)
		}
		if seen[":path"] == "/refused" {
			return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_ImmediateResponse{
				ImmediateResponse: &proc.ImmediateResponse{
					Status:  &kinds.HttpStatus{Code: kinds.StatusCode_PaymentRequired},
					Headers: set("x-processed", "refused"), Body: []byte("pay first"),
				},
			}}
		}
		line := seen[":method"] + " " + seen[":scheme"] + " " + seen[":authority"] + " " + seen[":path"]
		return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_RequestHeaders{
			RequestHeaders: &proc.HeadersResponse{Response: &proc.CommonResponse{HeaderMutation: set("x-seen", line)}},
		}}
	case *proc.ProcessingRequest_RequestBody:
		return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_RequestBody{
			RequestBody: &proc.BodyResponse{Response: capitals(said.RequestBody)},
		}}
	case *proc.ProcessingRequest_ResponseHeaders:
		return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_ResponseHeaders{
			ResponseHeaders: &proc.HeadersResponse{Response: &proc.CommonResponse{HeaderMutation: set("x-processed", "yes")}},
		}}
	case *proc.ProcessingRequest_ResponseBody:
		return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_ResponseBody{
			ResponseBody: &proc.BodyResponse{Response: &proc.CommonResponse{}},
		}}
	}
	return &proc.ProcessingResponse{}
}

func capitals(said *proc.HttpBody) *proc.CommonResponse {
	body := &proc.BodyMutation_Body{Body: bytes.ToUpper(said.Body)}
	return &proc.CommonResponse{BodyMutation: &proc.BodyMutation{Mutation: body}}
}

func main() {
	listen := flag.String("listen", "", "host:port")
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	proc.RegisterExternalProcessorServer(server, processor{})
	log.Fatal(server.Serve(listener))
}
