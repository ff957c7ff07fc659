# What the examples share: steps that are told, and a clean-up that always runs. Sourced by their
# `run` scripts.
#
# They use ctr and snapctl on PATH, and the containerd that CONTAINERD_ADDRESS
# names (ctr's default without it). Containers are called example-*, and are removed
# at the end, as are the checkpoints that the example took.
# shellcheck shell=bash
set -euo pipefail

runtime=io.containerd.snap.v2
containers=() checkpoints=()

# step TEXT says what comes next.
step() { printf '\n== %s\n' "$*"; }

# fail TEXT ends the example.
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# start ID IMAGE ARG... runs a container in the background. OPTIONS are ctr's own.
OPTIONS=()
start() {
	local id=example-$1
	containers+=("$id")
	shift
	timeout -k 1 60 ctr run -d --runtime "$runtime" "${OPTIONS[@]}" "${@:1:1}" "$id" "${@:2}" </dev/null
}

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
	checkpoints+=("$2")
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
	local id name
	for id in "${containers[@]}"; do end "$id" >/dev/null 2>&1; done
	for name in "${checkpoints[@]}"; do snapctl rm "$name" >/dev/null 2>&1 || true; done
	rm -rf "$scratch"
}
scratch=$(mktemp -d)
trap finish EXIT
