package spec

import (
	"strconv"
	"strings"
)

// words are what Describe says of the fields that are one of a kind.
var words = map[string]string{
	FieldImage:             "the image differs",
	fieldArgs:              "args differ",
	fieldCwd:               "the working directory differs",
	fieldUser:              "the user differs",
	fieldGroups:            "the additional groups differ",
	fieldTerminal:          "the terminal setting differs",
	fieldNoNewPrivileges:   "no-new-privileges differs",
	fieldSeccomp:           "the seccomp profile differs",
	fieldApparmor:          "the AppArmor profile differs",
	fieldSelinux:           "the SELinux label differs",
	fieldMountLabel:        "the SELinux label of mounts differs",
	fieldRootReadonly:      "read-only root differs",
	fieldRootfsPropagation: "the propagation of the root differs",
	fieldMaskedPaths:       "masked paths differ",
	fieldReadonlyPaths:     "read-only paths differ",
	fieldPersonality:       "the personality differs",
	fieldScheduler:         "the scheduling differs",
	fieldIOPriority:        "the I/O priority differs",
	fieldMemoryPolicy:      "the memory policy differs",
}

// families are what Describe says of the fields of which there can be several;
// the name takes the place of the asterisk.
var families = []struct{ prefix, words string }{
	{fieldEnv, "env * differs"},
	{fieldMount, "mount * differs"},
	{fieldCapabilities, "* capabilities differ"},
	{fieldRlimit, "rlimit * differs"},
	{fieldNamespace, "the * namespace differs"},
	{fieldTimeOffset, "the offset of the * clock differs"},
	{fieldDevice, "device * differs"},
	{fieldHooks, "the number of * hooks differs"},
	{fieldSysctl, "sysctl * differs"},
}

// Describe says in words that a field of a fingerprint differs: "env FOO
// differs", "args differ". A field that it does not know, as a checkpoint of
// another version may hold, is named as it is.
func Describe(field string) string {
	if w, ok := words[field]; ok {
		return w
	}
	for _, family := range families {
		if name, ok := strings.CutPrefix(field, family.prefix); ok {
			before, after, _ := strings.Cut(family.words, "*")
			return before + readable(name) + after
		}
	}
	return readable(field) + " differs"
}

// readable quotes a name that would not read as one word, or would break a line
// of a log or table: names come from images and manifests.
func readable(name string) string {
	if q := strconv.Quote(name); name == "" || len(q) != len(name)+2 || strings.Contains(name, " ") {
		return q
	}
	return name
}
