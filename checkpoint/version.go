package checkpoint

import "fmt"

// FormatCRIU writes a CRIU version as in HostFacts.CRIU the way CRIU does: 40201
// is "4.2.1", 40200 is "4.2". No version, 0, is "none".
func FormatCRIU(v int) string {
	if v <= 0 {
		return "none"
	}
	major, minor, patch := v/10000, v/100%100, v%100
	if patch == 0 {
		return fmt.Sprintf("%d.%d", major, minor)
	}
	return fmt.Sprintf("%d.%d.%d", major, minor, patch)
}
