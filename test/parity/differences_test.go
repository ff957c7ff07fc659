package parity

import (
	"os"
	"strings"
	"testing"
)

// difference is one that we mean to keep.
type difference struct {
	// name is that of its row in docs/differences.md.
	name string
	// stock and ours are what is seen.
	stock, ours string
}

// differences are declared by the scenario and what is seen in it.
var differences = map[string]map[string]difference{
	"exec": {
		"unknown exec: CloseIO":   {"unknown exec", "Unknown, then gone", "NotFound, then gone"},
		"exec stopped: ResizePty": {"resize of an ended exec", "Unknown, then STOPPED", "ok, then STOPPED"},
	},
	"own pids: kill all": {
		"who got a signal": {"kill all", "init got it\ninit got it", "init got it\ninit got it\none got it\ntwo got it"},
	},
	"host's pids: kill all": {
		"who got a signal": {"kill all", "init got it\ninit got it", "init got it\ninit got it\none got it\ntwo got it"},
	},
	"foreign options": {
		"a type that nobody knows": {"foreign options", "Unknown", "InvalidArgument"},
		"a type of something else": {"foreign options", "the shim dies", "InvalidArgument"},
	},
	"a failed exec": {
		"exit": {"exec that never ran", "0", "255"},
	},
	"restore": {
		"a pid when it is created": {"pid of a restore", "false", "true"},
		"loopback is up":           {"loopback of a restore", "false", "true"},
		"metrics":                  {"metrics of a restore", "Unknown", "ok"},
	},
	"bad streams": {
		"a scheme that nobody knows": {"unusable streams", "Unknown", "InvalidArgument"},
		"no such FIFO":               {"unusable streams", "Unknown", "InvalidArgument"},
	},
	"binary that fails": {
		"logger that is not there": {"unusable streams", "Unknown", "InvalidArgument"},
	},
	"binary-v2 that fails": {
		"logger that is not there": {"unusable streams", "Unknown", "InvalidArgument"},
	},
	"no streams": {
		"streams": {"streams that nobody wants", "0 /dev/null\n1 /log/out\n2 /dev/null\nread to the end\n", "0 pipe\n1 /log/out\n2 pipe\nread to the end\n"},
	},
	"second start of an exec": {
		"init's end": {"second start of an exec", "the shim dies", "exit 137"},
	},
}

// classes are what stands for the stock shim's Unknown where the cause is known.
var classes = []struct{ name, call, ours string }{
	{"errors of state", "", "FailedPrecondition"},
	{"a second task", "Create", "AlreadyExists"},
	{"unusable specs", "create", "InvalidArgument"},
	{"unreadable requests", "no JSON", "InvalidArgument"},
	{"unusable specs", "no arguments", "InvalidArgument"},
	{"unusable specs", "no cwd", "InvalidArgument"},
}

// betterClass says whether x and y differ only in that the stock shim does not
// know the class of an error and ours does.
func betterClass(what, x, y string) bool {
	for _, c := range classes {
		if rest, ok := strings.CutPrefix(x, "Unknown"); ok && y == c.ours+rest && strings.Contains(what, c.call) {
			return true
		}
	}
	return false
}

// Each declared difference is told to users.
func TestDifferencesAreTold(t *testing.T) {
	doc, err := os.ReadFile("../../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	told := func(name string) bool { return strings.Contains(string(doc), "\n| "+name+" |") }
	for _, c := range classes {
		if !told(c.name) {
			t.Errorf("docs/differences.md has no row %q", c.name)
		}
	}
	for scenario, all := range differences {
		for what, d := range all {
			if d.stock == d.ours {
				t.Errorf("%s: %s is no difference", scenario, what)
			}
			if !told(d.name) {
				t.Errorf("docs/differences.md has no row %q, for %s: %s", d.name, scenario, what)
			}
		}
	}
}
