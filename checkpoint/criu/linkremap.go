package criu

import (
	"fmt"
	"strconv"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// LinkRemap is a file in use that had lost the name by which it was opened, and has another.
type LinkRemap struct {
	// Path is the name that it had lost.
	Path string
	// Name is the one that CRIU gave it for the time of the dump: a restore needs it.
	Name string
	// External is as in OpenFile.
	External string
	// PID is a process that uses it, by its number in the container, and Link the file's
	// place below that process's directory in /proc.
	PID  int
	Link string
}

// LinkRemaps lists such files in the images in dir, which were dumped with Config.LinkRemap.
func LinkRemaps(dir string) ([]LinkRemap, error) {
	remaps, err := readRemaps(dir)
	if err != nil {
		return nil, err
	}
	linked := map[uint64]bool{}
	for id, r := range remaps {
		if r.kind == remapLinked {
			linked[id] = true
		}
	}
	if len(linked) == 0 {
		return nil, nil
	}
	files, err := OpenFiles(dir)
	if err != nil {
		return nil, err
	}
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	users, err := readUsers(dir)
	if err != nil {
		return nil, err
	}
	var links []LinkRemap
	for _, f := range files {
		if !linked[f.id] {
			continue
		}
		l := users[f.id]
		l.Path, l.Name, l.External = f.Path, names[remaps[f.id].by], f.External
		if l.Name == "" || l.Link == "" {
			return nil, image.Unusable("remap-fpath.img", fmt.Errorf("nothing tells of the file behind %s", f.Path))
		}
		links = append(links, l)
	}
	return links, nil
}

// readNames returns the paths of regular files by their number.
func readNames(dir string) (map[uint64]string, error) {
	files, err := messages(dir, "files.img")
	if err != nil {
		return nil, err
	}
	names := map[uint64]string{}
	for _, file := range files {
		reg, err := parseRegular(file)
		if err != nil {
			return nil, image.Unusable("files.img", err)
		}
		names[reg.Number(regID)] = string(reg.Text(regName))
	}
	return names, nil
}

// readUsers returns for each file, by its number, one process and where that has it.
func readUsers(dir string) (map[uint64]LinkRemap, error) {
	users := map[uint64]LinkRemap{}
	err := eachArea(dir, func(pid int, area image.Message) {
		link := fmt.Sprintf("map_files/%x-%x", area.Number(areaStart), area.Number(areaEnd))
		users[area.Number(areaFile)] = LinkRemap{PID: pid, Link: link}
	})
	if err != nil {
		return nil, err
	}
	tasks, err := tree(dir)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		if err := addDescriptors(users, dir, t.pid); err != nil {
			return nil, err
		}
	}
	return users, nil
}

// addDescriptors adds what a process has open.
func addDescriptors(users map[uint64]LinkRemap, dir string, pid int) error {
	name := "ids-" + strconv.Itoa(pid) + ".img"
	ids, err := optional(dir, name)
	if err != nil || ids == nil { // a zombie
		return err
	}
	table, err := filesID(ids[0])
	if err != nil {
		return image.Unusable(name, err)
	}
	name = fmt.Sprintf("fdinfo-%d.img", table)
	fds, err := optional(dir, name)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		users[fd.Number(fdFile)] = LinkRemap{PID: pid, Link: "fd/" + strconv.FormatUint(fd.Number(fdNumber), 10)}
	}
	return nil
}
