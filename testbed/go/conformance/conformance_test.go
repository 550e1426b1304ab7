// Package conformance is the Gateway API's own conformance suite as one program; what it may be told is the suite's flags.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
