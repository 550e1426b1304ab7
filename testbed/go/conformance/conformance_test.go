// Package conformance is the Gateway API's own conformance suite as one program, with profiles of ours beside its own; what it may be
// told is the suite's flags.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"

	"atoll.dev/testbed/conformance/experimental"
	"atoll.dev/testbed/conformance/serviceimport"
)

func TestConformance(t *testing.T) {
	tests.ConformanceTests = append(tests.ConformanceTests, experimental.Tests...)
	tests.ConformanceTests = append(tests.ConformanceTests, serviceimport.Tests...)
	options := conformance.DefaultOptions(t)
	options.ManifestFS = append(options.ManifestFS, experimental.Manifests, serviceimport.Manifests)
	conformance.RunConformanceWithOptions(t, options)
}
