# What the demos share; read by each of them. A demo works in a directory of its own that goes away.
# Exit status 77: skipped, the reason is the last line on standard error.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v occlum >/dev/null || PATH="$here/../.venv/bin:$PATH"
command -v occlum >/dev/null || { echo "occlum is not in PATH" >&2; exit 1; }
export PYTHONDONTWRITEBYTECODE=1
# A build machine's choice of kernels for older numeric libraries is no business of the demos.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# need COMMAND PACKAGE: skip the demo if the command is not there.
need() {
    command -v "$1" >/dev/null || [ -e "$1" ] || { echo "skipped: $1 is missing (apt install $2)" >&2; exit 77; }
}

show() {
    echo "\$ $*"
    "$@"
}

# instance: a fresh one, in which the demo goes on.
instance() {
    occlum new instance >/dev/null
    cd instance
}

# requirements FILE: bring Python packages; without an index they can't be had, which is no failure.
requirements() {
    if ! show occlum add /usr/bin/python3 --python "$1" >added 2>&1; then
        cat added >&2
        grep -q "pip can't install" added || exit 1
        echo "skipped: the packages of $(basename "$1") can't be had here" >&2
        exit 77
    fi
    tail -1 added | cut -c1-100
}

build() {
    show occlum build 2>/dev/null
}

# expect TEXT COMMAND...: the command succeeds and prints the text.
expect() {
    wanted=$1
    shift
    echo "\$ $*"
    "$@" >"$work/out" 2>"$work/err" || { status=$?; cat "$work/out" "$work/err"; echo "exit status $status" >&2; exit 1; }
    head -20 "$work/out"
    grep -q -e "$wanted" "$work/out" || { cat "$work/err"; echo "no \"$wanted\" in its output" >&2; exit 1; }
}

# same COMMAND...: the command prints the same here and in the enclave.
same() {
    "$@" >"$work/native" 2>&1 || { echo "$* fails outside of the enclave already" >&2; cat "$work/native" >&2; exit 1; }
    echo "\$ occlum run $*"
    occlum run "$@" >"$work/inside" 2>"$work/err" || { cat "$work/inside" "$work/err" >&2; exit 1; }
    head -20 "$work/inside"
    diff "$work/native" "$work/inside" >&2 || { echo "the enclave gives something else" >&2; exit 1; }
}
