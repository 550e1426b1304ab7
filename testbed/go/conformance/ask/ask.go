// Package ask is what tests of ours ask a Gateway by, where the suite's own tools don't show what is looked at: bodies, cookies, who answered.
package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/utils/roundtripper"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// Request is one request; what is empty is a GET of "/" without a body.
type Request struct {
	Method, Host, Path, Body string
	Headers                  map[string]string
}

// Answer is what came back, and what the echo server behind says of the request that reached it.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	Echo   roundtripper.CapturedRequest
}

// Connections are not kept: each request is chosen for anew.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       10 * time.Second,
}

// HTTP sends one request to a Gateway at host:port.
func HTTP(ctx context.Context, at string, request Request) (*Answer, error) {
	if request.Method == "" {
		request.Method = http.MethodGet
	}
	url := "http://" + at + "/" + strings.TrimPrefix(request.Path, "/")
	asked, err := http.NewRequestWithContext(ctx, request.Method, url, bytes.NewBufferString(request.Body))
	if err != nil {
		return nil, err
	}
	asked.Host = request.Host
	for name, value := range request.Headers {
		asked.Header.Set(name, value)
	}
	answered, err := client.Do(asked)
	if err != nil {
		return nil, err
	}
	defer answered.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answered.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	answer := &Answer{Status: answered.StatusCode, Header: answered.Header, Body: string(body)}
	if answer.Status == http.StatusOK {
		if err := json.Unmarshal(body, &answer.Echo); err != nil {
			return nil, fmt.Errorf("the answer is not the echo server's: %w", err)
		}
	}
	return answer, nil
}

// Status fails unless the request is answered by the status.
func Status(ctx context.Context, at string, request Request, status int) (*Answer, error) {
	answer, err := HTTP(ctx, at, request)
	if err == nil && answer.Status != status {
		err = fmt.Errorf("%s %s%s: answered by %d, not %d: %s", request.Method, request.Host, request.Path, answer.Status, status, answer.Body)
	}
	return answer, err
}

// Deployment is the name that stands before the two hashes of a pod's.
func Deployment(pod string) string {
	parts := strings.Split(pod, "-")
	if len(parts) < 3 {
		return pod
	}
	return strings.Join(parts[:len(parts)-2], "-")
}

// Eventually tries until it holds, as long as the suite gives things to settle.
func Eventually(t *testing.T, suite *suite.ConformanceTestSuite, what string, try func() error) {
	t.Helper()
	end := time.Now().Add(suite.TimeoutConfig.MaxTimeToConsistency)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, suite.TimeoutConfig.MaxTimeToConsistency, err)
		}
		tlog.Logf(t, "%s: not yet: %v", what, err)
		time.Sleep(250 * time.Millisecond)
	}
}

// Reaches waits until those who answer are exactly the Deployments named, and each of them does.
func Reaches(t *testing.T, suite *suite.ConformanceTestSuite, what string, pod func() (string, error), wanted ...string) {
	t.Helper()
	slices.Sort(wanted)
	Eventually(t, suite, what, func() error {
		found := map[string]int{}
		for range 40 {
			name, err := pod()
			if err != nil {
				return err
			}
			found[Deployment(name)]++
		}
		names := []string{}
		for name := range found {
			names = append(names, name)
		}
		slices.Sort(names)
		if !slices.Equal(names, wanted) {
			return fmt.Errorf("answered by %v, not by all of %v alone", found, wanted)
		}
		return nil
	})
}
