package serviceimport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// ready is the longest that pods of members may take.
const ready = 180 * time.Second

// What each member holds beside the echo server of them all.
var held = map[string][]string{
	"east": {"echo", "streams", "web"},
	"west": {"echo", "streams"},
	"far":  {"echo", "far"},
}

var once sync.Once

// prepare fills the members, for the first test that asks: `ATOLL_MEMBERS` names their kubeconfigs.
func prepare(t *testing.T, s *suite.ConformanceTestSuite) {
	t.Helper()
	once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), ready)
		defer cancel()
		// By the certificate's name: it is what the suite's own TLS backends show.
		secret := &corev1.Secret{}
		name := types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: "tls-passthrough-checks-certificate"}
		require.NoError(t, s.Client.Get(ctx, name, secret))
		members := map[string]client.Client{}
		for _, said := range strings.Split(os.Getenv("ATOLL_MEMBERS"), ",") {
			member, kubeconfig, found := strings.Cut(said, "=")
			require.True(t, found, "ATOLL_MEMBERS should name members and their kubeconfigs: east=PATH,west=PATH,far=PATH")
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			require.NoError(t, err)
			members[member], err = client.New(config, client.Options{})
			require.NoError(t, err)
			tlog.Logf(t, "Filling member %s", member)
			for _, manifest := range held[member] {
				require.NoError(t, apply(ctx, members[member], manifest, member), "member %s, %s", member, manifest)
			}
			copied := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secret.Name, Namespace: secret.Namespace}, Type: secret.Type, Data: secret.Data}
			require.NoError(t, client.IgnoreAlreadyExists(members[member].Create(ctx, copied)))
		}
		for member, api := range members {
			require.NoError(t, until(ctx, func() error { return available(ctx, api) }), "pods of member %s", member)
		}
	})
}

// apply sends a manifest to a member, its name in it; kinds that its agent still brings are waited for.
func apply(ctx context.Context, api client.Client, manifest, member string) error {
	written, err := Manifests.ReadFile("manifests/member-" + manifest + ".yaml")
	if err != nil {
		return err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(bytes.ReplaceAll(written, []byte("MEMBER"), []byte(member))), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		owned := client.FieldOwner("conformance")
		send := func() error {
			return api.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), owned, client.ForceOwnership)
		}
		if err := until(ctx, send); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

// available says whether every Deployment of the tests has its pods.
func available(ctx context.Context, api client.Client) error {
	all := &appsv1.DeploymentList{}
	if err := api.List(ctx, all, client.HasLabels{"conformance"}); err != nil {
		return err
	}
	for _, one := range all.Items {
		if one.Status.AvailableReplicas < *one.Spec.Replicas || one.Status.ObservedGeneration < one.Generation {
			return fmt.Errorf("%s/%s: %d of %d pods", one.Namespace, one.Name, one.Status.AvailableReplicas, *one.Spec.Replicas)
		}
	}
	if len(all.Items) == 0 {
		return errors.New("there is no Deployment")
	}
	return nil
}

func until(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// moved puts a member into a cluster set, as its administrator would.
func moved(ctx context.Context, hub client.Client, member, set string) error {
	cluster := &unstructured.Unstructured{}
	cluster.SetAPIVersion("atoll.dev/v1alpha1")
	cluster.SetKind("Cluster")
	cluster.SetName(member)
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"clusterSet":%q}}`, set))
	return hub.Patch(ctx, cluster, patch)
}
