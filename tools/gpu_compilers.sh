#!/bin/sh
# tools/gpu_compilers.sh - what the compilers of real GPUs make of mosld's kernels, on a machine without any of them.
#
#     sh tools/gpu_compilers.sh [--shims]            a table a family: mosld kernels
#     sh tools/gpu_compilers.sh [--shims] --check    compare with tests/kernels/baseline.tsv: spills, and what became slower
#     sh tools/gpu_compilers.sh [--shims] --update   write that file and the tables of docs/kernels.md anew
#     sh tools/gpu_compilers.sh --run FAMILY COMMAND ...    a command that sees one family and nothing else; fetches nothing
#
# Families of AMD: polaris10 vega10 renoir navi21 navi31 phoenix (gfx1103) gfx1151 gfx1200. Mesa's RADV compiles for them without a
# device; it comes as a Debian package that is unpacked into work/drivers/mesa-25. With --shims also skl tgl dg2 mtl lnl bmg (Intel),
# a630 a660 a740 a750 (Adreno), gp104 tu102 ga102 (NVIDIA): libraries that pretend to be the kernel's driver are built from Mesa's
# source, with Adreno's driver, which takes 10 to 20 minutes on two cores, once; NVIDIA's is unpacked from Debian 13 with its C library.
# What cannot be had is skipped aloud. Nothing is installed but what building Mesa needs, and that is said before.
set -eu
. "$(dirname -- "$0")/setup.sh"
. "$(dirname -- "$0")/drivers.sh"

AMD="polaris10 vega10 renoir navi21 navi31 phoenix gfx1151 gfx1200"
SHIMMED="skl tgl dg2 mtl lnl bmg a630 a660 a740 a750 gp104 tu102 ga102"
MESA=25.0.7
SHIMS=$WORK/drivers/shims
TRIXIE=$WORK/drivers/trixie
BASELINE=$ROOT/tests/kernels/baseline.tsv

# ---- one family ----

# there FILE: ends the script with 77, which CTest takes for skipped, when the file is not there.
there() {
    [ -e "$1" ] && return 0
    echo "SKIPPED: $family: $1 is not there; sh tools/gpu_compilers.sh${2:+ $2} fetches it" >&2
    exit 77
}

# use_driver LIBRARY: the Vulkan loader takes this driver alone.
use_driver() {
    there "$1" "${2:-}"
    icd=$WORK/drivers/icd-$(basename "$1" .so).json
    [ -s "$icd" ] && grep -q "\"$1\"" "$icd" || {
        printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' "$1" >"$icd.$$"
        mv "$icd.$$" "$icd"
    }
    export VK_DRIVER_FILES="$icd" VK_ICD_FILENAMES="$icd" MESA_SHADER_CACHE_DISABLE=true
}

# run_on FAMILY COMMAND ARGUMENT...: in its place.
run_on() {
    family=$1
    shift
    library=$(ls "$WORK"/drivers/mesa-25/usr/lib/*/libvulkan_radeon.so 2>/dev/null || echo "$WORK/drivers/mesa-25")
    packaged=$(dirname "$library")
    case " $AMD " in *" $family "*)
        use_driver "$library"
        export LD_LIBRARY_PATH="$packaged" RADV_FORCE_FAMILY="$family"
        exec "$@"
        ;;
    esac
    case $family in
    skl | tgl | dg2 | mtl | lnl | bmg)
        use_driver "$packaged/libvulkan_intel.so"
        there "$SHIMS/libintel_noop_drm_shim.so" --shims
        export LD_LIBRARY_PATH="$packaged" INTEL_STUB_GPU_PLATFORM="$family"
        exec env LD_PRELOAD="$SHIMS/libintel_noop_drm_shim.so" "$@"
        ;;
    a630 | a660 | a740 | a750)
        use_driver "$SHIMS/libvulkan_freedreno.so" --shims
        there "$SHIMS/libfreedreno_noop_drm_shim.so" --shims
        export FD_GPU_ID="${family#a}"
        exec env LD_PRELOAD="$SHIMS/libfreedreno_noop_drm_shim.so" "$@"
        ;;
    gp104) NOUVEAU_CHIPSET=134 ;;
    tu102) NOUVEAU_CHIPSET=162 ;;
    ga102) NOUVEAU_CHIPSET=172 ;;
    *) die "there is no family $family; there are: $AMD $SHIMMED" ;;
    esac
    libraries=$TRIXIE/usr/lib/x86_64-linux-gnu # with a C library of its own, hence its own loader of programs too
    use_driver "$libraries/libvulkan_nouveau.so" --shims
    there "$SHIMS/libnouveau_noop_drm_shim.so" --shims
    export NOUVEAU_CHIPSET NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1
    program=$(command -v "$1")
    shift
    exec "$TRIXIE/usr/lib64/ld-linux-x86-64.so.2" --preload "$SHIMS/libnouveau_noop_drm_shim.so" \
        --library-path "$libraries:/usr/lib/x86_64-linux-gnu" "$program" "$@"
}

if [ "${1:-}" = --run ]; then
    [ $# -ge 3 ] || die "--run FAMILY COMMAND ..., with a family of: $AMD $SHIMMED"
    shift
    run_on "$@"
fi

# ---- fetching and building ----

# trixie_sources: Debian 13 as lines for sources.list, from the mirror that has bookworm here.
trixie_sources() {
    apt_sources | sed -n 's/ bookworm main$/ trixie main/p' | head -n 1
}

# mesa_source: $SHIMS/source. Of the suite whose source package has this version; apt checks its sum and its signature.
mesa_source() {
    [ -f "$SHIMS/source/meson.build" ] && return 0
    echo "Fetching the source of Mesa $MESA (46 MB) into $SHIMS" >&2
    trixie_sources | sed 's/^deb /deb-src /' >"$APT/sources.list"
    apt_private update >"$APT/log" 2>&1 && (cd "$SHIMS" && apt_private source --download-only mesa) >>"$APT/log" 2>&1 ||
        [ -f "$SHIMS/mesa_$MESA.orig.tar.xz" ] || driver_skip shims "Mesa's source cannot be fetched: $(tail -n 1 "$APT/log")" || return
    [ -f "$SHIMS/mesa_$MESA.orig.tar.xz" ] || driver_skip shims "Debian 13 no longer has Mesa $MESA" || return
    mkdir -p "$SHIMS/source.part"
    tar -x -f "$SHIMS/mesa_$MESA.orig.tar.xz" -C "$SHIMS/source.part" --strip-components 1
    mv "$SHIMS/source.part" "$SHIMS/source"
}

# mesa_build: the shims, and Adreno's driver, which Debian builds for arm64 alone. Mesa's compiler for OpenCL C is looked for by its
# build and never run for these targets, so that a program that fails stands in for it.
mesa_build() {
    need gcc g++ ninja-build bison flex pkg-config zlib1g-dev libdrm-dev libexpat1-dev python3 python3-venv python3-setuptools
    [ -x "$SHIMS/venv/bin/meson" ] || {
        python3 -m venv "$SHIMS/venv"
        "$SHIMS/venv/bin/pip" -q install meson mako pyyaml packaging
    }
    mkdir -p "$SHIMS/bin"
    for program in mesa_clc vtn_bindgen vtn_bindgen2; do
        printf '#!/bin/sh\nexit 1\n' >"$SHIMS/bin/$program"
        chmod +x "$SHIMS/bin/$program"
    done
    PATH=$SHIMS/venv/bin:$SHIMS/bin:$PATH
    off="-Dintel-rt=disabled -Dllvm=disabled -Dglx=disabled -Degl=disabled -Dgbm=disabled -Dgles1=disabled -Dgles2=disabled -Dvalgrind=disabled
        -Dlibunwind=disabled -Dzstd=disabled -Dxmlconfig=disabled -Dshader-cache=disabled -Dgallium-va=disabled -Dgallium-vdpau=disabled"
    # shellcheck disable=SC2086
    [ -f "$SHIMS/build/build.ninja" ] || meson setup "$SHIMS/build" "$SHIMS/source" --wrap-mode=nodownload -Dbuildtype=release -Dmesa-clc=system -Dplatforms= -Dvideo-codecs= \
        -Dopengl=false -Dtools=drm-shim,intel -Dvulkan-drivers=intel,freedreno -Dfreedreno-kmds=msm -Dgallium-drivers=nouveau $off >"$SHIMS/log" 2>&1 ||
        driver_skip shims "Mesa's build cannot be configured: $(tail -n 3 "$SHIMS/log" | tr '\n' ' ')" || return
    set -- src/intel/tools/libintel_noop_drm_shim.so src/freedreno/drm-shim/libfreedreno_noop_drm_shim.so \
        src/nouveau/drm-shim/libnouveau_noop_drm_shim.so src/freedreno/vulkan/libvulkan_freedreno.so
    echo "Building Mesa's shims and Adreno's driver in $SHIMS/build" >&2
    nice ninja -j "$(jobs)" -C "$SHIMS/build" "$@" >"$SHIMS/log" 2>&1 || driver_skip shims "Mesa does not build: $SHIMS/log" || return
    for library; do cp "$SHIMS/build/$library" "$SHIMS/"; done
}

# trixie_fetch: NVIDIA's driver (it is written in Rust, newer than Debian 12's) with the libraries that it was built for.
trixie_fetch() {
    [ -f "$TRIXIE/usr/lib/x86_64-linux-gnu/libvulkan_nouveau.so" ] && return 0
    echo "Fetching NVK of Debian 13 with all that it needs (180 MB) into $TRIXIE" >&2
    trixie_sources >"$APT/sources.list"
    apt_private update >"$APT/log" 2>&1 && apt_private install -y --no-install-recommends --download-only mesa-vulkan-drivers libvulkan1 \
        >>"$APT/log" 2>&1 || driver_skip NVK "it cannot be fetched: $(tail -n 1 "$APT/log")" || return
    rm -rf "$TRIXIE.part"
    mkdir -p "$TRIXIE.part/usr/lib" "$TRIXIE.part/usr/lib64" "$TRIXIE.part/usr/bin" "$TRIXIE.part/usr/sbin"
    for folder in lib lib64 bin sbin; do ln -s "usr/$folder" "$TRIXIE.part/$folder"; done
    for package in "$APT"/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$TRIXIE.part" --keep-directory-symlink; done
    rm "$APT"/cache/archives/*.deb
    mv "$TRIXIE.part" "$TRIXIE"
}

# ---- the command ----

families=$AMD
if [ "${1:-}" = --shims ]; then
    families="$AMD $SHIMMED"
    shift
fi
case ${1:-} in
'' | --check | --update) ;;
*) sed -n '2,15s/^# \{0,1\}//p' "$0"; [ "$1" = --help ]; exit ;;
esac

driver_define mesa-25
driver_fetch mesa-25 || families=
if [ "$families" != "$AMD" ] && [ -n "$families" ]; then
    mkdir -p "$SHIMS"
    apt_prepare shims && { [ -f "$SHIMS/libvulkan_freedreno.so" ] || { mesa_source && mesa_build; }; } || true
    trixie_fetch || true
fi
[ -x "$BUILD/mosld" ] || build

case ${1:-} in
'')
    for family in $families; do
        say "$family"
        sh "$0" --run "$family" "$BUILD/mosld" kernels --compile-only --mix 2>/dev/null || echo "SKIPPED: $family" >&2
    done
    ;;
--check) MOSLD_TEST_FAMILIES=$families "$BUILD/tests/test_gpu_compilers" ;;
--update)
    MOSLD_TEST_FAMILIES=$families MOSLD_TEST_UPDATE=1 "$BUILD/tests/test_gpu_compilers"
    sh "$ROOT/tools/kernels_table.sh" "$BASELINE" >"$BUILD/kernels.md"
    awk -v table="$BUILD/kernels.md" '/^<!-- tables end/ { on = 0 } !on { print } /^<!-- tables begin/ { on = 1; while ((getline line < table) > 0) print line }' \
        "$ROOT/docs/kernels.md" >"$BUILD/kernels.new"
    mv "$BUILD/kernels.new" "$ROOT/docs/kernels.md"
    ;;
esac
