package spec

import (
	"errors"
	"reflect"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestParseDefaults(t *testing.T) {
	want := DefaultSettings()
	if got, err := ParseDefaults(nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("none: %+v, %v", got, err)
	}
	want.Restore = Required
	if got, err := ParseDefaults(map[string]string{"restore": "Required"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []map[string]string{{"restore": ""}, {"checkpoint": "web"}, {"resume-key": "k"}, {"restore.a": "Never"}, {"": ""}} {
		if got, err := ParseDefaults(bad); !errors.Is(err, checkpoint.ErrInvalid) || !reflect.DeepEqual(got, DefaultSettings()) {
			t.Errorf("%v: %+v, %v", bad, got, err)
		}
	}
}
