package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJSONIsDocumented holds that docs/json.md names each field of the golden documents.
func TestJSONIsDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	golden, err := filepath.Glob("../*/testdata/*.json")
	if err != nil || len(golden) < 15 {
		t.Fatalf("found %d golden documents, %v", len(golden), err)
	}
	for _, file := range golden {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, field := range fields(v, nil) {
			if !strings.Contains(doc, "`"+field+"`") && !strings.Contains(doc, "."+field+"`") {
				t.Errorf("docs/json.md lacks the field %q of %s", field, filepath.Base(file))
			}
		}
	}
}

// fields collects the names of a document's fields; those of a fingerprint are data.
func fields(v any, into []string) []string {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			into = append(into, name)
			if name != "fingerprint" {
				into = fields(value, into)
			}
		}
	case []any:
		for _, e := range v {
			into = fields(e, into)
		}
	}
	return into
}
