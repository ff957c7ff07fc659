package libct

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer"
)

// field is a field of libcontainer's container for which libcontainer has no other way. What
// is done with it has a contract test each, which a new version has to pass.
func field[T any](c *libcontainer.Container, name string) (*T, error) {
	f := reflect.ValueOf(c).Elem().FieldByName(name)
	if !f.IsValid() || f.Type() != reflect.TypeFor[T]() {
		return nil, fmt.Errorf("libcontainer's container has no %s of type %s", name, reflect.TypeFor[T]())
	}
	return (*T)(unsafe.Pointer(f.UnsafeAddr())), nil
}

// knowCRIU tells c which version CRIU has. Else it starts a CRIU to ask, at each restore and
// in the pause of each capture. Version 0 is unknown, and leaves it at that.
func knowCRIU(c *libcontainer.Container, version int) error {
	v, err := field[int](c, "criuVersion")
	if err == nil {
		*v = version
	}
	return err
}
