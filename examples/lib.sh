# What the examples share: steps that are told, and a clean-up that always runs. Sourced by their
# `run` scripts.
#
# They use ctr and snapctl on PATH, and the containerd that CONTAINERD_ADDRESS
# names (ctr's default without it), or one that they start themselves (see node).
# Containers are called example-*, and are removed at the end, as are the checkpoints
# that the example took.
# shellcheck shell=bash
set -euo pipefail

runtime=io.containerd.snap.v2
# Each container with its node; checkpoints of the host's store.
containers=() checkpoints=()
declare -A daemons=()
# Processes beside the containers, and those that start some.
helpers=() starts=()

# step TEXT says what comes next.
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# fail TEXT ends the example.
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# start ID IMAGE ARG... runs a container in the background. OPTIONS are ctr's own.
OPTIONS=()
start() {
	local id=example-$1
	containers+=("${node:-host} $id")
	shift
	timeout -k 1 60 ctr run -d --runtime "$runtime" "${OPTIONS[@]}" "${@:1:1}" "$id" "${@:2}" </dev/null
}

# node NAME [NETNS] makes a containerd with directories, a store and images of its own,
# in a network namespace of that name if one is given, and turns to it.
node() {
	local dir=$scratch/$1
	mkdir "$dir"
	cat >"$dir/config.toml" <<-EOF
		version = 3
		root = "$dir/root"
		state = "$dir/state"
		disabled_plugins = ["io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
		[grpc]
		address = "$dir/sock"
		[ttrpc]
		address = "$dir/sock.ttrpc"
		[plugins."io.containerd.shim.v1.manager"]
		socket_dir = "$dir/s"
	EOF
	printf 'root = "%s/store"\n[capture]\nmin_interval = "1s"\n' "$dir" >"$dir/snap.toml"
	printf '%s' "${2:-}" >"$dir/netns"
	# Without --local, ctr may end before it has written all that containerd has sent.
	[ -f "$scratch/image.tar" ] || timeout -k 1 60 ctr images export --local "$scratch/image.tar" "$image" >"$dir/log"
	on "$1"
	power_on
	timeout -k 1 60 ctr images import "$scratch/image.tar" >>"$dir/log"
}

# on NAME turns to a node: what follows happens there. There is no way back to the host's.
on() {
	node=$scratch/$1
	export CONTAINERD_ADDRESS=$node/sock CONTAINERD_SNAP_CONFIG=$node/snap.toml CONTAINERD_NAMESPACE=$namespace
}
node='' namespace=example-$$

# power_on starts the node's containerd. It knows nothing of ours but PATH.
power_on() {
	local enter=() ns
	ns=$(cat "$node/netns")
	[ -z "$ns" ] || enter=(nsenter "--net=/run/netns/$ns")
	"${enter[@]}" containerd --config "$node/config.toml" >>"$node/log" 2>&1 </dev/null &
	daemons[$node]=$!
	until_it timeout -k 1 5 ctr version
}

# power_off ends the node's containerd as a power cut would, and with it the given processes.
power_off() {
	kill -KILL "${daemons[$node]}" "$@"
	wait "${daemons[$node]}" 2>/dev/null || true
	unset "daemons[$node]"
}

# lan ADDRESS makes a network of its own: a namespace, called $lan, with a bridge that has the address.
lan() {
	ip netns add "$lan"
	netns+=("$lan")
	ip -n "$lan" link add br0 type bridge
	ip -n "$lan" address add "$1/24" dev br0
	ip -n "$lan" link set lo up
	ip -n "$lan" link set br0 up
}

# plug NAME ADDRESS [MAC] makes a network namespace $lan-NAME with an address, and one for its hardware, on the
# bridge. A container joins it as a pod's would, by --with-ns.
plug() {
	local name=$lan-$1
	ip netns add "$name"
	netns+=("$name")
	ip -n "$lan" link add "v$1" type veth peer name eth0 ${3:+address "$3"} netns "$name"
	ip -n "$lan" link set "v$1" master br0 up
	ip -n "$name" address add "$2/24" dev eth0
	ip -n "$name" link set lo up
	ip -n "$name" link set eth0 up
}
lan=example-$$ netns=()

# inside ID COMMAND... runs a command in a container.
inside() {
	local id=example-$1
	shift
	timeout -k 1 60 ctr task exec --exec-id "x$RANDOM$RANDOM" "$id" "$@" </dev/null
}

# until_it COMMAND... repeats a command until it succeeds, for half a minute.
until_it() {
	local n
	for n in {1..300}; do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	fail "$* did not succeed (tried $n times)"
}

# capture ID NAME ARG... captures a container under a name.
capture() {
	[ -n "$node" ] || checkpoints+=("$2")
	snapctl create "example-$1" --name "$2" "${@:3}"
}

# restored ID checks that a container was restored, and says how long it took.
restored() {
	snapctl explain "example-$1" >"$scratch/explain"
	grep -Eq '^ *outcome +restore$' "$scratch/explain" || { cat "$scratch/explain"; fail "example-$1 was not restored"; }
	cat "$scratch/explain"
}

# end ID ends a container and removes it.
end() {
	timeout -k 1 30 ctr task kill -s SIGKILL "$1" || true
	timeout -k 1 30 ctr task delete --force "$1" || true
	timeout -k 1 30 ctr container delete "$1" || true
}

finish() {
	local at id name mount
	trap '' INT TERM
	# What they begin to make is made, and can be removed.
	for id in "${starts[@]}"; do wait "$id" || true; done
	for id in "${helpers[@]}"; do kill "$id" 2>/dev/null || true; done
	for name in "${checkpoints[@]}"; do snapctl rm "$name" >/dev/null 2>&1 || true; done
	for id in "${containers[@]}"; do
		at=${id% *}
		[ "$at" = host ] || on "${at##*/}"
		end "${id#* }" >/dev/null 2>&1
	done
	for at in "${!daemons[@]}"; do
		kill "${daemons[$at]}" && wait "${daemons[$at]}" || true
	done 2>/dev/null
	for name in "${netns[@]}"; do ip netns delete "$name" 2>/dev/null || true; done
	awk -v below="$scratch/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
		while read -r mount; do umount -l "$mount"; done
	# What containerd and runtimes keep of a namespace.
	rmdir /sys/fs/cgroup{,/*}/"$namespace" /run/containerd/*/"$namespace" 2>/dev/null || true
	rm -rf "$scratch"
}
scratch=$(mktemp -d "/tmp/example.$$.XXX") # paths of sockets below it must be short
trap finish EXIT
# With a trap of its own a signal waits for the end of the command that runs.
trap 'exit 130' INT
trap 'exit 143' TERM
