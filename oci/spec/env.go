package spec

import (
	"net/netip"
	"strings"
)

// Environment variables that belong to the new container and not to what was
// booted, and are therefore no part of the fingerprint:
//
//   - HOSTNAME, which CRI sets to the pod's name.
//   - What the kubelet sets for each service X of the namespace, and for
//     "kubernetes" always: X_SERVICE_HOST, X_SERVICE_PORT, X_SERVICE_PORT_NAME,
//     X_PORT, X_PORT_n_TCP, X_PORT_n_TCP_PROTO, X_PORT_n_TCP_PORT and
//     X_PORT_n_TCP_ADDR, with UDP or SCTP for TCP. They change whenever any
//     service is created or deleted, so that with them no template would
//     outlive the next deployment. Only complete services count:
//     X_SERVICE_HOST must be an IP address and X_SERVICE_PORT must be set.
//     APP_PORT or DB_SERVICE_HOST=db.example.com, set by a user, are what
//     they look like: configuration.
//
// Other variables below KUBERNETES_ are not ignored: KUBERNETES_NAMESPACE, say,
// is set by users, and a clone that believed another namespace's would be wrong.
const envHostname = "HOSTNAME"

const (
	serviceHost = "_SERVICE_HOST"
	servicePort = "_SERVICE_PORT"
)

// environment is what of a process's environment is baked into it: by name, the
// value, or ok == false for an entry without "=". As in libcontainer, the last
// entry of a name wins and an empty HOME counts as none.
func environment(env []string) map[string]value {
	all := make(map[string]value, len(env))
	for _, kv := range env {
		name, v, ok := strings.Cut(kv, "=")
		all[name] = value{v, ok}
	}
	if home := all["HOME"]; home.ok && home.s == "" {
		delete(all, "HOME")
	}
	known := services(all)
	kept := make(map[string]value, len(all))
	for name, v := range all {
		if name != envHostname && !ofService(name, known) {
			kept[name] = v
		}
	}
	return kept
}

// value is an environment variable's value; ok is false where it has none.
type value struct {
	s  string
	ok bool
}

// services returns the prefixes X of the services that the environment tells of.
func services(env map[string]value) map[string]bool {
	found := map[string]bool{}
	for name, v := range env {
		x, ok := strings.CutSuffix(name, serviceHost)
		if !ok || x == "" {
			continue
		}
		if _, err := netip.ParseAddr(v.s); err != nil {
			continue
		}
		if _, ok := env[x+servicePort]; ok {
			found[x] = true
		}
	}
	return found
}

// ofService says that the kubelet set the variable for one of the services. It
// tries every underscore as the end of the service's name, because both the name
// and what follows may hold more of them.
func ofService(name string, services map[string]bool) bool {
	if len(services) == 0 {
		return false
	}
	for i := range len(name) {
		if name[i] == '_' && services[name[:i]] && serviceSuffix(name[i:]) {
			return true
		}
	}
	return false
}

// serviceSuffix says that s is what follows a service's name in a variable.
func serviceSuffix(s string) bool {
	switch {
	case s == serviceHost, s == servicePort, s == "_PORT":
		return true
	case strings.HasPrefix(s, servicePort+"_"):
		return true
	}
	link, ok := strings.CutPrefix(s, "_PORT_")
	if !ok {
		return false
	}
	number, protocol, ok := strings.Cut(link, "_")
	if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
		return false
	}
	protocol, detail, _ := strings.Cut(protocol, "_")
	switch protocol {
	case "TCP", "UDP", "SCTP":
	default:
		return false
	}
	switch detail {
	case "", "PROTO", "PORT", "ADDR":
		return true
	}
	return false
}
