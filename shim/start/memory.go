package start

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/mapped"
	"github.com/containerd-snap/snap/checkpoint/mapped/rule"
	"github.com/containerd-snap/snap/shim/inherit"
)

// stage makes the directory for the images of this restore alone.
func (p *plan) stage(s *Starter) (err error) {
	if p.staged == nil {
		p.staged, err = s.Store.NewDraft()
	}
	return err
}

// prepareMemory opens the page files that are to be mapped, or brings images in the
// mapped form to the copy form; and starts a pager if one is to deliver them.
func (i *Init) prepareMemory(ctx context.Context) error {
	p := i.plan
	if p.entry == nil {
		return nil
	}
	if p.entry.Checkpoint.Memory.Form == checkpoint.MemoryMapped {
		pages, err := mapped.OpenFiles(p.images)
		if err != nil {
			return err
		}
		if p.memory == checkpoint.MemoryMapped {
			i.pages = pages
			return i.lendPages()
		}
		defer mapped.CloseFiles(pages)
		if err := i.copyForm(ctx, pages); err != nil {
			return err
		}
	}
	if p.memory == checkpoint.MemoryLazy {
		i.startPager(ctx)
	}
	return nil
}

// copyForm makes images in the copy form for this restore alone.
func (i *Init) copyForm(ctx context.Context, pages []mapped.Source) error {
	p := i.plan
	if err := p.stage(i.starter); err != nil {
		return err
	}
	dir := filepath.Join(filepath.Dir(p.staged.ImagesDir()), "copy")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := mapped.Flatten(ctx, dir, p.images, pages); err != nil {
		return err
	}
	p.images = dir
	i.rec.phase("copy form")
	return nil
}

// lendPages tells CRIU's configuration under which descriptors CRIU finds the page
// files, and names them as a dump of the restored task will.
func (i *Init) lendPages() error {
	for n := range i.pages {
		s := &i.pages[n]
		f, err := inherit.Raise(s.File)
		if err != nil {
			return err
		}
		s.File = f
		i.plan.criu.InheritFD = append(i.plan.criu.InheritFD, criu.InheritFD{FD: int(f.Fd()), Key: s.Name})
		e, err := externalFile(f)
		if err != nil {
			return err
		}
		s.Name = e.Key()
		i.external = append(i.external, e)
	}
	return nil
}

// externalFile is how a dump refers to f, a file outside of the container.
func externalFile(f *os.File) (criu.ExternalFile, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return criu.ExternalFile{}, fmt.Errorf("look at page file: %w", err)
	}
	var x unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &x); err != nil {
		return criu.ExternalFile{}, fmt.Errorf("look at page file: %w", err)
	}
	return criu.ExternalFile{MountID: x.Mnt_id, Inode: st.Ino}, nil
}

// pageFiles are the files that CRIU inherits.
func (i *Init) pageFiles() []*os.File {
	var files []*os.File
	for _, s := range i.pages {
		files = append(files, s.File)
	}
	return files
}

// closeMemory ends what gives the task its memory. Precondition: nothing of it runs.
func (i *Init) closeMemory() error {
	mapped.CloseFiles(i.pages)
	i.pages, i.external = nil, nil
	i.pager.Stop()
	i.pager = nil
	return nil
}

// unmapImages makes the images of a dump whole: of memory that maps page files, CRIU
// writes what was changed only.
func (i *Init) unmapImages(ctx context.Context, dir string) error {
	if len(i.pages) == 0 {
		return nil
	}
	return mapped.Rewrite(dir, func(dst string) error { return mapped.Flatten(ctx, dst, dir, i.pages) })
}

// keepPages leaves the images of a dump with the page files that the task maps, and returns
// their keys; none where there are none, or where that cannot be: then the images are whole.
func (i *Init) keepPages(ctx context.Context, dir string) (keys []string, err error) {
	if len(i.pages) == 0 {
		return nil, nil
	}
	err = mapped.Rewrite(dir, func(dst string) (err error) {
		keys, err = mapped.Keep(ctx, dst, dir, i.pages)
		return err
	})
	if err == nil || errors.Is(err, mapped.ErrRewrite) || ctx.Err() != nil {
		return keys, err
	}
	// As when the task's checkpoint was removed meanwhile.
	log.G(ctx).WithError(err).WithField("id", i.req.ID).Info("the checkpoint holds all memory, and not what was written alone")
	return nil, i.unmapImages(ctx, dir)
}

// collectCode notes, in the pause of a capture, what the processes run, if the rule will
// be asked for it. Of a resume point the memory is copied unless somebody asks for more: it
// is for the rare start after a crash, where being right matters more than being quick.
func (i *Init) collectCode(l *live, f *frozen, kind checkpoint.Kind) error {
	switch m := i.settings.Memory; {
	case m == checkpoint.MemoryCopy, m == checkpoint.MemoryLazy, m == checkpoint.MemoryAuto && kind == checkpoint.ResumePoint:
		return nil
	}
	pids, err := l.c.PIDs()
	if err != nil {
		return err
	}
	f.code = rule.Collect(pids)
	return nil
}

// shapeMemory gives the images of a capture the form in which they are restored, and returns
// the files that came with the task's own checkpoint. What keeps them from the mapped form
// is no reason to have no checkpoint.
func (i *Init) shapeMemory(ctx context.Context, dir string, code *rule.Tree) (checkpoint.Memory, []checkpoint.File, error) {
	m := checkpoint.Memory{Form: checkpoint.MemoryCopy, Reason: "memory=copy or lazy was asked for at the capture, or it is a resume point"}
	if code == nil {
		return m, nil, i.unmapImages(ctx, dir)
	}
	v := code.Judge(ctx)
	if err := ctx.Err(); err != nil {
		return m, nil, err
	}
	m.Safe, m.Reason = v.Safe, v.Reason
	if !v.Safe && i.settings.Memory != checkpoint.MemoryMapped {
		return m, nil, i.unmapImages(ctx, dir)
	}
	keys, err := i.keepPages(ctx, dir)
	if err != nil {
		return m, nil, err
	}
	shared := i.sharedFiles(keys)
	if len(keys) > 0 {
		m.Form, m.Base = checkpoint.MemoryMapped, i.plan.entry.Digest
	}
	err = mapped.Rewrite(dir, func(dst string) error {
		_, err := mapped.Convert(ctx, dst, dir)
		return err
	})
	switch {
	case err == nil:
		m.Form = checkpoint.MemoryMapped
	case errors.Is(err, mapped.ErrNothing):
		if len(keys) == 0 {
			m.Reason = mapped.ErrNothing.Error()
		}
	case errors.Is(err, mapped.ErrRewrite) || ctx.Err() != nil:
		return m, nil, err
	default:
		log.G(ctx).WithError(err).WithField("id", i.req.ID).Warn("the checkpoint's memory stays as CRIU wrote it")
		m.Reason = err.Error()
	}
	return m, shared, nil
}

// sharedFiles are the page files with these keys as the manifest of the task's checkpoint has
// them: nothing of them is read again.
func (i *Init) sharedFiles(keys []string) []checkpoint.File {
	var files []checkpoint.File
	for _, key := range keys {
		name := mapped.FileName(key)
		for _, f := range i.plan.entry.Checkpoint.Files {
			if f.Path == name {
				f.Shared = true
				files = append(files, f)
			}
		}
	}
	return files
}
