package criu

import (
	"fmt"
	"strconv"
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
			return nil, unusable("remap-fpath.img", fmt.Errorf("nothing tells of the file behind %s", f.Path))
		}
		links = append(links, l)
	}
	return links, nil
}

// readNames returns the paths of regular files by their number.
func readNames(dir string) (map[uint64]string, error) {
	recs, err := records(dir, "files.img")
	if err != nil {
		return nil, err
	}
	names := map[uint64]string{}
	for _, rec := range recs {
		reg, err := parseRegular(rec)
		if err != nil {
			return nil, unusable("files.img", err)
		}
		names[number(reg, regID)] = string(text(reg, regName))
	}
	return names, nil
}

// readUsers returns for each file, by its number, one process and where that has it.
func readUsers(dir string) (map[uint64]LinkRemap, error) {
	users := map[uint64]LinkRemap{}
	err := eachArea(dir, func(pid int, area []field) {
		link := fmt.Sprintf("map_files/%x-%x", number(area, areaStart), number(area, areaEnd))
		users[number(area, areaFile)] = LinkRemap{PID: pid, Link: link}
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
	table, err := parseFilesID(ids[0])
	if err != nil {
		return unusable(name, err)
	}
	name = fmt.Sprintf("fdinfo-%d.img", table)
	recs, err := optional(dir, name)
	if err != nil {
		return err
	}
	for _, rec := range recs {
		fs, err := fields(rec)
		if err != nil {
			return unusable(name, err)
		}
		users[number(fs, fdFile)] = LinkRemap{PID: pid, Link: "fd/" + strconv.FormatUint(number(fs, fdNumber), 10)}
	}
	return nil
}
