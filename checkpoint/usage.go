package checkpoint

// Usage is what checkpoints take together: a page file that several of them share counts
// once. The zero value is that of none.
type Usage struct {
	bytes int64
	// files counts, by their digest, the checkpoints that have a page file.
	files map[string]int
}

// Bytes is what all of them take.
func (u *Usage) Bytes() int64 { return u.bytes }

// Add enters a checkpoint and returns how much more room it takes.
func (u *Usage) Add(c *Checkpoint) int64 {
	if u.files == nil {
		u.files = map[string]int{}
	}
	n := c.Diff.Bytes
	for _, f := range c.Files {
		if f.Sparse {
			if u.files[f.SHA256]++; u.files[f.SHA256] > 1 {
				continue
			}
		}
		n += f.Bytes()
	}
	u.bytes += n
	return n
}

// Remove takes a checkpoint out that was entered, and returns how much room that frees.
func (u *Usage) Remove(c *Checkpoint) int64 {
	n := c.Diff.Bytes
	for _, f := range c.Files {
		if f.Sparse {
			if u.files[f.SHA256]--; u.files[f.SHA256] > 0 {
				continue
			}
		}
		n += f.Bytes()
	}
	u.bytes -= n
	return n
}
