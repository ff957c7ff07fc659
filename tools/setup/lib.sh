# Shared by the scripts of this directory, which source it. A step that is done
# leaves a stamp, a small file that holds what it was made from; the step is
# skipped as long as that is unchanged.
#
# TOOLS is the directory below which everything is installed.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TOOLS=${TOOLS:-$repo/.tools}
GO=${GO:-go}
mkdir -p "$TOOLS/bin" "$TOOLS/stamps"
TOOLS=$(cd "$TOOLS" && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# lock_tools keeps a second set-up of the same directory waiting until this
# process and its children have ended.
lock_tools() {
	exec 9>"$TOOLS/.lock"
	flock 9
}

# is_done STEP KEY says whether STEP was completed from the inputs KEY.
is_done() { [ -f "$TOOLS/stamps/$1" ] && [ "$(<"$TOOLS/stamps/$1")" = "$2" ]; }

# mark_done STEP KEY is written by rename, so that an interrupted set-up leaves
# either no stamp or a true one.
mark_done() {
	printf '%s\n' "$2" >"$TOOLS/stamps/$1.new"
	mv "$TOOLS/stamps/$1.new" "$TOOLS/stamps/$1"
}

# criu_version PROGRAM prints its version as major*100 + minor, 0 if it does not run.
criu_version() {
	"$1" --version 2>/dev/null |
		awk '/^Version:/ { split($2, v, "."); n = v[1] * 100 + v[2] } END { print n + 0 }'
}
