// A processor of Envoy's protocol, in the types that Envoy itself is built with (go-control-plane).
//
// It tells the backend what it saw (x-seen, x-attributes), writes bodies of requests in capitals, marks answers (x-processed, x-metadata) and
// refuses whoever asks for /refused. Where bodies come and go on their own it answers nothing before it has all of one.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	modes "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	proc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	kinds "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
)

type processor struct {
	proc.UnimplementedExternalProcessorServer
}

func set(name, value string) *proc.HeaderMutation {
	header := &core.HeaderValue{Key: name, RawValue: []byte(value)}
	return &proc.HeaderMutation{SetHeaders: []*core.HeaderValueOption{{Header: header}}}
}

func (processor) Process(stream proc.ExternalProcessor_ProcessServer) error {
	exchange := exchange{}
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, answer := range exchange.answers(request) {
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
	}
}

// exchange is a request and its answer.
type exchange struct {
	// Whose bodies come and go on their own.
	request, response bool
	// What is said of headers once the body is there, and the body so far.
	headers *proc.ProcessingResponse
	body    []byte
}

func (e *exchange) answers(request *proc.ProcessingRequest) []*proc.ProcessingResponse {
	if config := request.GetProtocolConfig(); config != nil {
		e.request = config.GetRequestBodyMode() == modes.ProcessingMode_FULL_DUPLEX_STREAMED
		e.response = config.GetResponseBodyMode() == modes.ProcessingMode_FULL_DUPLEX_STREAMED
	}
	said := answer(request)
	switch {
	case said.GetImmediateResponse() != nil:
	case e.request && request.GetRequestHeaders() != nil && !request.GetRequestHeaders().EndOfStream,
		e.response && request.GetResponseHeaders() != nil && !request.GetResponseHeaders().EndOfStream:
		e.headers, e.body = said, nil
		return nil
	case e.request && request.GetRequestBody() != nil:
		return e.take(bytes.ToUpper(request.GetRequestBody().Body), request.GetRequestBody().EndOfStream, func(common *proc.CommonResponse) *proc.ProcessingResponse {
			return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_RequestBody{RequestBody: &proc.BodyResponse{Response: common}}}
		})
	case e.response && request.GetResponseBody() != nil:
		return e.take(request.GetResponseBody().Body, request.GetResponseBody().EndOfStream, func(common *proc.CommonResponse) *proc.ProcessingResponse {
			return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_ResponseBody{ResponseBody: &proc.BodyResponse{Response: common}}}
		})
	}
	return []*proc.ProcessingResponse{said}
}

// take keeps a piece; once it is the last all is said, the body in two pieces.
func (e *exchange) take(piece []byte, last bool, part func(*proc.CommonResponse) *proc.ProcessingResponse) []*proc.ProcessingResponse {
	e.body = append(e.body, piece...)
	if !last {
		return nil
	}
	streamed := func(body []byte, end bool) *proc.ProcessingResponse {
		streamed := &proc.StreamedBodyResponse{Body: body, EndOfStream: end}
		return part(&proc.CommonResponse{BodyMutation: &proc.BodyMutation{Mutation: &proc.BodyMutation_StreamedResponse{StreamedResponse: streamed}}})
	}
	half := len(e.body) / 2
	return []*proc.ProcessingResponse{e.headers, streamed(e.body[:half], false), streamed(e.body[half:], true)}
}

// attribute is one of those that it was told.
func attribute(request *proc.ProcessingRequest, name string) string {
	value := request.GetAttributes()["envoy.filters.http.ext_proc"].GetFields()[name]
	if number := value.GetNumberValue(); number != 0 {
		return fmt.Sprint(number)
	}
	return value.GetStringValue()
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
		mutation := set("x-seen", line)
		attributes := attribute(request, "request.path") + " " + attribute(request, "source.address")
		mutation.SetHeaders = append(mutation.SetHeaders, set("x-attributes", attributes).SetHeaders...)
		metadata, _ := structpb.NewStruct(map[string]any{"shop": map[string]any{"cart": "full"}})
		return &proc.ProcessingResponse{DynamicMetadata: metadata, Response: &proc.ProcessingResponse_RequestHeaders{
			RequestHeaders: &proc.HeadersResponse{Response: &proc.CommonResponse{HeaderMutation: mutation}},
		}}
	case *proc.ProcessingRequest_RequestBody:
		return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_RequestBody{
			RequestBody: &proc.BodyResponse{Response: capitals(said.RequestBody)},
		}}
	case *proc.ProcessingRequest_ResponseHeaders:
		cart := request.GetMetadataContext().GetFilterMetadata()["shop"].GetFields()["cart"].GetStringValue()
		mutation := set("x-processed", "yes")
		mutation.SetHeaders = append(mutation.SetHeaders, set("x-metadata", cart).SetHeaders...)
		mutation.SetHeaders = append(mutation.SetHeaders, set("x-code", attribute(request, "response.code")).SetHeaders...)
		return &proc.ProcessingResponse{Response: &proc.ProcessingResponse_ResponseHeaders{
			ResponseHeaders: &proc.HeadersResponse{Response: &proc.CommonResponse{HeaderMutation: mutation}},
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
