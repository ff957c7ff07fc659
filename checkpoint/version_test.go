package checkpoint

import "testing"

func TestFormatCRIU(t *testing.T) {
	for v, want := range map[int]string{
		-1: "none", 0: "none", 31701: "3.17.1", 40000: "4.0", 40101: "4.1.1", 40200: "4.2", 40201: "4.2.1", 101112: "10.11.12",
	} {
		if got := FormatCRIU(v); got != want {
			t.Errorf("FormatCRIU(%d) = %q, want %q", v, got, want)
		}
	}
}
