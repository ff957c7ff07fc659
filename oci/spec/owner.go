package spec

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Owner is the identity that a container's resume points belong to, within the
// whole node: a container that is to go on from one must have the same.
//
// With a key of the user's it is that key. Otherwise, in Kubernetes, it is the
// pod's namespace and name and the container's name, which a pod that replaces a
// crashed one (of a StatefulSet, say) has again; elsewhere the container's ID. Each
// holds within a containerd namespace, and a key of Kubernetes also within the
// namespace of the pod: a user's annotation must not reach another's memory.
func Owner(namespace, id, key string, s *specs.Spec) string {
	a := s.Annotations
	container, pod, podNamespace := a[criContainerName], a[criPodName], a[criPodNamespace]
	inPod := container != "" && pod != "" && podNamespace != ""
	parts := []string{namespace, "container", id}
	switch {
	case key != "" && podNamespace != "":
		parts = []string{namespace, "pods", podNamespace, "key", key}
	case key != "":
		parts = []string{namespace, "key", key}
	case inPod:
		parts = []string{namespace, "pods", podNamespace, "container", pod, container}
	}
	// Only a key may hold a slash, and it comes last: no two owners read alike.
	return strings.Join(parts, "/")
}
