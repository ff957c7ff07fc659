package spec

import (
	"maps"
	"slices"
	"testing"
)

func TestEnvironment(t *testing.T) {
	redis := []string{
		"REDIS_SERVICE_HOST=10.0.0.1", "REDIS_SERVICE_PORT=6379", "REDIS_SERVICE_PORT_SENTINEL=1", "REDIS_PORT=tcp://10.0.0.1:6379",
		"REDIS_PORT_6379_TCP=tcp://10.0.0.1:6379", "REDIS_PORT_6379_TCP_PROTO=tcp", "REDIS_PORT_6379_TCP_PORT=6379", "REDIS_PORT_6379_TCP_ADDR=10.0.0.1",
		"REDIS_PORT_53_UDP=udp://10.0.0.1:53", "REDIS_PORT_53_UDP_PROTO=udp", "REDIS_PORT_9_SCTP_ADDR=10.0.0.1",
	}
	for name, test := range map[string]struct {
		env  []string
		kept []string
	}{
		"nothing":            {nil, nil},
		"plain":              {[]string{"A=1", "B="}, []string{"A", "B"}},
		"hostname":           {[]string{"HOSTNAME=web", "A=1"}, []string{"A"}},
		"empty home":         {[]string{"HOME=/root", "HOME="}, nil},
		"home":               {[]string{"HOME=", "HOME=/root"}, []string{"HOME"}},
		"home without value": {[]string{"HOME"}, []string{"HOME"}},
		"a service":          {redis, nil},
		"a service by IPv6":  {[]string{"R_SERVICE_HOST=fd00::1", "R_SERVICE_PORT=1", "R_PORT=tcp://[fd00::1]:1"}, nil},
		"no host":            {redis[1:], []string{"REDIS_PORT", "REDIS_PORT_53_UDP", "REDIS_PORT_53_UDP_PROTO", "REDIS_PORT_6379_TCP", "REDIS_PORT_6379_TCP_ADDR", "REDIS_PORT_6379_TCP_PORT", "REDIS_PORT_6379_TCP_PROTO", "REDIS_PORT_9_SCTP_ADDR", "REDIS_SERVICE_PORT", "REDIS_SERVICE_PORT_SENTINEL"}},
		"host is a name":     {[]string{"DB_SERVICE_HOST=db.example.com", "DB_SERVICE_PORT=5432", "DB_PORT=5432"}, []string{"DB_PORT", "DB_SERVICE_HOST", "DB_SERVICE_PORT"}},
		"host without port":  {[]string{"DB_SERVICE_HOST=10.0.0.1", "DB_PORT=5432"}, []string{"DB_PORT", "DB_SERVICE_HOST"}},
		"of no service":      {append(slices.Clone(redis), "REDIS_URL=x", "APP_PORT=1", "REDIS_PORT_=1", "REDIS_PORT_A_TCP=1", "REDIS_PORT_1_TLS=1", "REDIS_PORT_1_TCP_X=1", "REDIS_PORT_1=1"), []string{"APP_PORT", "REDIS_PORT_", "REDIS_PORT_1", "REDIS_PORT_1_TCP_X", "REDIS_PORT_1_TLS", "REDIS_PORT_A_TCP", "REDIS_URL"}},
		"names within names": {[]string{"A_SERVICE_HOST=10.0.0.1", "A_SERVICE_PORT=1", "A_SERVICE_PORT_WEB_PORT=1", "A_PORT_SERVICE_HOST=10.0.0.2", "A_PORT_SERVICE_PORT=2", "A_PORT_PORT_2_TCP=x"}, nil},
		"nameless service":   {[]string{"_SERVICE_HOST=10.0.0.1", "_SERVICE_PORT=1"}, []string{"_SERVICE_HOST", "_SERVICE_PORT"}},
		"set by users":       {[]string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_PORT_443_TCP_ADDR=x", "KUBERNETES_NAMESPACE=shop"}, []string{"KUBERNETES_NAMESPACE"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := slices.Sorted(maps.Keys(environment(test.env))); !slices.Equal(got, test.kept) {
				t.Errorf("kept %q, want %q", got, test.kept)
			}
		})
	}
	if got := environment([]string{"A=1", "A=2=3"})["A"]; got != (value{"2=3", true}) {
		t.Errorf("the last entry is %+v", got)
	}
}
