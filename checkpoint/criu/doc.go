// Package criu knows the program CRIU from the outside: where it is and which
// version it has (Find, Binary), what goes into the config file of one call
// (Config), what its logs mean in words (Diagnose), and what its images hold
// (CheckImages, Processes, OpenFiles, Sockets), and how to vary them for
// one restore (Stage, MendTimers, LendSockets).
//
// It is not for running a dump or a restore: that is libcontainer's work, in
// shim/libct. It is imported by the start path, so it uses the standard library
// and protobuf's wire format only, compiles nothing at init and starts no goroutine.
// It has no locks: every function is safe for concurrent use, and the files that
// are written (version cache, config) are renamed into place.
//
// # What a caller must know about CRIU
//
// All of it was tried on Linux 6.18 with CRIU 4.2.1; the options with 4.1.1 too.
//
// CRIU 4.1.1 cannot dump any internet socket, not even a listening one, on a
// kernel since 6.16, which refuses SO_PASSCRED and SO_PASSSEC on them. 4.2 can.
//
// A restore can hang for ever instead of failing: when a pages image is shorter
// than its pagemap says, and when another process holds a flock that the images
// hold. Missing images make it crash, or worse: without fdinfo-N.img it restores
// processes without descriptors and reports success. So CheckImages comes
// first, and every restore needs a deadline.
//
// A restore that is killed leaves what it restored so far: processes that CRIU
// started are not its children for long and do not end with it. One of them that
// reads a short pages image spins, and wrote 16 GB into restore.log in seven
// minutes. Kill the whole cgroup or pid namespace, not only criu.
//
// Do not kill CRIU during a dump: it can kill the program. CRIU runs code inside
// of the processes, and while it does, their registers are not their own. SIGKILL
// in the 8 ms after CRIU began to collect a small process killed the process too
// in 61 of 437 tries, with SIGTRAP or SIGSEGV, also with the freezer of cgroup v1,
// used by CRIU or frozen before. Later the process has CRIU's daemon, which notices that
// its socket closed and gives the registers back: of 47 kills at random
// moments of the dump of a 200 MB process none did harm, and a later dump
// succeeded. So give a dump time, and let its end be CRIU's own. What a killed dump leaves:
//
//   - the freezer's state: FROZEN if CRIU died while it froze, THAWED if it died
//     later, also if the cgroup had been frozen before. Write the state that is wanted.
//   - the network lock, unless it was "skip": the program lives and nobody reaches it.
//   - two small mappings in each process that went on, for its life.
//   - images without inventory.img, and a log that ends in the middle.
//
// A failed restore can leave its dead root process for a moment: a second
// try that comes at once, in the same pid namespace, finds the pid taken.
//
// # Network locks
//
// CRIU locks the network of a tree that it dumps with established connections
// allowed or closed: with iptables (the default) or nftables it drops all packets
// of a network namespace that belongs to the tree, or is declared as external.
// Each method was tried with tcp-close and with tcp-established, a client and a
// server connected in a network namespace, dumps that leave the server running
// and dumps that kill it, restores into the same and into a new namespace:
//
//   - A dump that leaves the task running removes its lock; the connection and
//     new connections work afterwards, with every method, also with "skip".
//   - A dump that ends the task leaves the lock on purpose: "-A CRIU -j DROP" in
//     iptables, a table "inet CRIU-<run id>" in nftables (the id cut to 21 characters). With "skip" nothing
//     is left.
//   - A failed restore into that namespace leaves the lock, and a program that is booted
//     there instead answers nobody. A successful one removes the lock if the
//     namespace was declared as external, and leaves it if it was declared empty.
//   - A restore adds no lock of its own: in a namespace in which no dump was made, a
//     failed restore left nothing, with every method.
//   - The method is recorded in the images at dump (inventory.img). At
//     restore the option is accepted and ignored, with a warning: a checkpoint
//     that is to leave nothing behind must be dumped with "skip".
//
// So "network-lock skip" belongs to tcp-close, where there is nothing to protect:
// the copies of the connections are closed anyway. With tcp-established "skip" would let
// the kernel answer the peer's packets with a reset while no process owns the
// connection: there a lock is needed, nftables for choice, because its leftover is one
// table with a telling name: "CRIU-" and the beginning of the dump's run id.
package criu
