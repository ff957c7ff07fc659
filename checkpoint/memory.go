package checkpoint

// MemoryMode says how memory comes back when a task is restored.
type MemoryMode string

// The modes. A checkpoint's images are in the form of one of the last two.
const (
	// MemoryAuto maps where the checkpoint says that it is safe, and copies otherwise.
	MemoryAuto MemoryMode = "auto"
	// MemoryCopy has CRIU copy all pages.
	MemoryCopy MemoryMode = "copy"
	// MemoryLazy has a pager of CRIU's deliver the pages while the program runs.
	MemoryLazy MemoryMode = "lazy"
	// MemoryMapped maps the checkpoint's page file, copy-on-write.
	MemoryMapped MemoryMode = "mapped"
)

// Memory says in which form a checkpoint's images hold the memory, and why.
type Memory struct {
	// Form is MemoryCopy or MemoryMapped; empty counts as MemoryCopy.
	Form MemoryMode `json:"form,omitempty"`
	// Safe says that no program of the tree is known, or suspected, to tell mapped memory from
	// anonymous memory.
	Safe bool `json:"safe,omitempty"`
	// Reason is one sentence for people, without a full stop: why the memory is mapped
	// or not.
	Reason string `json:"reason,omitempty"`
	// Base is the digest of the checkpoint whose page files the images go on mapping, because
	// the captured task was a restore of it; empty for none. It need not exist any more.
	Base string `json:"base,omitempty"`
}
