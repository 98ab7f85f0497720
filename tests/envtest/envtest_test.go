// A suite as people write it for their controllers, on controller-runtime's envtest: it starts the etcd and the
// kube-apiserver that KUBEBUILDER_ASSETS has, installs CRDs, adds users, and runs a reconciler. Called by the end-to-end
// tests with links to our binary; upstream's own programs pass it as well.
package envtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var pebbles = schema.GroupVersionKind{Group: "shore.example.com", Version: "v1", Kind: "Pebble"}

// patience is for slow machines; what is waited for comes in milliseconds.
const patience = 20 * time.Second

// longestStop: envtest kills what has not ended by itself after 20 s, and nothing of ours waits at all.
const longestStop = 5 * time.Second

func TestSuiteStartsStopsAndStartsAgain(t *testing.T) {
	var before *envtest.Environment
	for round := range 2 {
		env := environment(before)
		began := time.Now()
		config, err := env.Start()
		if err != nil {
			t.Fatalf("round %d does not start: %v", round, err)
		}
		t.Logf("round %d: started in %v", round, time.Since(began))
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) { suite(t, env, config) })
		began = time.Now()
		if err := env.Stop(); err != nil {
			t.Fatalf("round %d does not stop: %v", round, err)
		}
		took := time.Since(began)
		t.Logf("round %d: stopped in %v", round, took)
		if took > longestStop {
			t.Errorf("round %d: it took %v to stop", round, took)
		}
		before = env
	}
}

// environment is what a suite has in its TestMain; on the ports of the one before, which are free once that has stopped.
func environment(before *envtest.Environment) *envtest.Environment {
	env := &envtest.Environment{CRDDirectoryPaths: []string{"crds"}, ErrorIfCRDPathMissing: true}
	server := env.ControlPlane.GetAPIServer()
	server.Configure().
		Append("advertise-address", "127.0.0.1").
		Append("disable-admission-plugins", "MutatingAdmissionWebhook")
	if before != nil {
		server.SecureServing.ListenAddr = before.ControlPlane.GetAPIServer().SecureServing.ListenAddr
		env.ControlPlane.Etcd = &envtest.Etcd{URL: before.ControlPlane.Etcd.URL}
	}
	return env
}

func suite(t *testing.T, env *envtest.Environment, config *rest.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	admin, err := client.NewWithWatch(config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the store is new", func(t *testing.T) { isNew(t, ctx, admin) })
	t.Run("definitions are served", func(t *testing.T) { definitions(t, ctx, admin) })
	t.Run("a user may what is granted", func(t *testing.T) { users(t, ctx, env, admin) })
	t.Run("a reconciler reconciles", func(t *testing.T) { reconciles(t, ctx, admin) })
	t.Run("kubectl is there", func(t *testing.T) { kubectl(t, env) })
}

func pebble(name string, grams int64) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"grams": grams}}}
	object.SetGroupVersionKind(pebbles)
	object.SetNamespace("default")
	object.SetName(name)
	return object
}

// isNew: what the round before made is gone with it.
func isNew(t *testing.T, ctx context.Context, admin client.Client) {
	var left corev1.ConfigMapList
	if err := admin.List(ctx, &left, client.InNamespace("default"), client.HasLabels{"pebble"}); err != nil {
		t.Fatal(err)
	}
	if len(left.Items) != 0 {
		t.Errorf("%d ConfigMaps are left", len(left.Items))
	}
}

func definitions(t *testing.T, ctx context.Context, admin client.Client) {
	if err := admin.Create(ctx, pebble("light", 0)); !apierrors.IsInvalid(err) {
		t.Errorf("a pebble of 0 grams: %v", err)
	}
	made := pebble("plain", 5)
	if err := admin.Create(ctx, made); err != nil {
		t.Fatal(err)
	}
	if colour, _, _ := unstructured.NestedString(made.Object, "spec", "colour"); colour != "grey" {
		t.Errorf("the default is missing: %v", made.Object)
	}
	tide := &unstructured.Unstructured{Object: map[string]any{"metres": "2"}}
	tide.SetGroupVersionKind(schema.GroupVersionKind{Group: pebbles.Group, Version: "v1", Kind: "Tide"})
	tide.SetName("high")
	if err := admin.Create(ctx, tide); err != nil {
		t.Error(err)
	}
	if err := admin.Delete(ctx, made); err != nil {
		t.Error(err)
	}
}

func users(t *testing.T, ctx context.Context, env *envtest.Environment, admin client.Client) {
	user, err := env.AddUser(envtest.User{Name: "ann", Groups: []string{"collectors"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ann, err := client.New(user.Config(), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	err = ann.Create(ctx, pebble("hers", 7))
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "ann" cannot create resource "pebbles"`) {
		t.Errorf("before it is granted: %v", err)
	}
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "collector"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{pebbles.Group}, Resources: []string{"pebbles"}, Verbs: []string{"*"}}},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "collectors"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "collector"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "collectors"}},
	}
	for _, object := range []client.Object{role, binding} {
		if err := admin.Create(ctx, object); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "what was granted", func() error { return ann.Create(ctx, pebble("hers", 7)) })
	if err := ann.Delete(ctx, pebble("hers", 7)); err != nil {
		t.Error(err)
	}
}

// labels is a reconciler: each Pebble has a ConfigMap of its own that says its weight, and the status names it.
type labels struct{ client client.Client }

func (l *labels) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	stone := pebble("", 1)
	if err := l.client.Get(ctx, request.NamespacedName, stone); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	grams, _, err := unstructured.NestedInt64(stone.Object, "spec", "grams")
	if err != nil {
		return reconcile.Result{}, err
	}
	yes := true
	label := &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: request.Namespace, Name: request.Name, Labels: map[string]string{"pebble": request.Name},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: pebbles.GroupVersion().String(), Kind: pebbles.Kind, Name: request.Name,
				UID: stone.GetUID(), Controller: &yes,
			}},
		},
		Data: map[string]string{"grams": fmt.Sprint(grams)},
	}
	//nolint:staticcheck // The patch type works with every release of controller-runtime.
	err = l.client.Patch(ctx, label, client.Apply, client.FieldOwner("labels"), client.ForceOwnership)
	if err != nil {
		return reconcile.Result{}, err
	}
	before := stone.DeepCopy()
	if err := unstructured.SetNestedField(stone.Object, label.Name, "status", "label"); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, l.client.Status().Patch(ctx, stone, client.MergeFrom(before))
}

func reconciles(t *testing.T, ctx context.Context, admin client.WithWatch) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(pebbles)
	watch, err := admin.Watch(ctx, list, client.InNamespace("default"))
	if err != nil {
		t.Fatal(err)
	}
	failures := make(chan error, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range watch.ResultChan() {
			stone, ok := event.Object.(client.Object)
			if !ok {
				continue
			}
			request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(stone)}
			if _, err := (&labels{admin}).Reconcile(ctx, request); err != nil && ctx.Err() == nil {
				failures <- err
			}
		}
	}()
	for n := range 5 {
		if err := admin.Create(ctx, pebble(fmt.Sprintf("p%d", n), int64(n)+1)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 5 {
		says(t, ctx, admin, fmt.Sprintf("p%d", n), fmt.Sprint(n+1))
	}
	heavier := pebble("p0", 9)
	if err := admin.Get(ctx, client.ObjectKeyFromObject(heavier), heavier); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(heavier.Object, int64(90), "spec", "grams"); err != nil {
		t.Fatal(err)
	}
	if err := admin.Update(ctx, heavier); err != nil {
		t.Fatal(err)
	}
	says(t, ctx, admin, "p0", "90")
	watch.Stop()
	cancel()
	<-done
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

// says: the ConfigMap of a Pebble and its status are as the reconciler makes them.
func says(t *testing.T, ctx context.Context, admin client.Client, name, grams string) {
	t.Helper()
	eventually(t, name, func() error {
		var label corev1.ConfigMap
		if err := admin.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, &label); err != nil {
			return err
		}
		stone := pebble(name, 1)
		if err := admin.Get(ctx, client.ObjectKeyFromObject(stone), stone); err != nil {
			return err
		}
		told, _, _ := unstructured.NestedString(stone.Object, "status", "label")
		if label.Data["grams"] != grams || told != name || !metav1.IsControlledBy(&label, stone) {
			return fmt.Errorf("%v and %v", label, stone.Object)
		}
		return nil
	})
}

// kubectl: where the folder has one, users have it at hand.
func kubectl(t *testing.T, env *envtest.Environment) {
	if _, err := os.Stat(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")); err != nil {
		t.Skip("KUBEBUILDER_ASSETS has no kubectl")
	}
	user, err := env.AddUser(envtest.User{Name: "root", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubectl, err := user.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := kubectl.Run("get", "crd", "-o", "name")
	if err != nil {
		t.Fatalf("%v: %v", err, stderr)
	}
	said, err := io.ReadAll(stdout)
	if err != nil || !strings.Contains(string(said), "pebbles.shore.example.com") {
		t.Errorf("kubectl says %q", said)
	}
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
