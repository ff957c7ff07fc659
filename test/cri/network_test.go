package cri

// The networks of the handlers. All is in the test's network namespace.
const (
	bridge = `{
  "cniVersion": "1.0.0", "name": "bridge",
  "plugins": [
    {"type": "bridge", "bridge": "pods0", "isGateway": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}`
	ptp = `{
  "cniVersion": "1.0.0", "name": "ptp",
  "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.78.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}`
)
