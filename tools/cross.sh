#!/bin/sh
# tools/cross.sh - mosld for other systems, from Debian 12 on x86-64. What it needs of them is fetched into $WORK/cross; nothing but
# compilers is installed.
#
#     sh tools/cross.sh arm64 [--test [ctest options]]    arm64 Linux into build-arm64; --test: the tests under qemu-user
#     sh tools/cross.sh windows [--test]                  mosld.exe into build-windows; --test: what runs under Wine without Vulkan
#
# Under qemu-user the tests compute at a twentieth of the speed, and Vulkan is arm64 Mesa's CPU driver: take a part of them
# (--test -R 'test_matmul|test_gate').
set -eu
. "$(dirname -- "$0")/setup.sh"
. "$(dirname -- "$0")/drivers.sh"

cross_arm64() {
    need make cmake pkg-config glslang-tools spirv-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross mmdebstrap ${TEST:+qemu-user}
    system=$WORK/cross/arm64
    if [ ! -d "$system" ]; then
        say "Unpacking Debian's arm64 libraries into $system (400 MB)"
        mkdir -p "$WORK/cross"
        packages=$(echo $BUILD_PACKAGES $TEST_PACKAGES | tr ' ' '\n' | grep -vE '^(gcc|make|cmake|pkg-config|glslang-tools|spirv-tools)$' | paste -sd, -)
        rm -rf "$system.part"
        mmdebstrap --quiet --variant=extract --architectures=arm64 "--include=$packages" bookworm "$system.part" "$(archive)" >"$WORK/cross/arm64.log" 2>&1 ||
            { tail -n 5 "$WORK/cross/arm64.log"; die "the arm64 system cannot be unpacked (all of it: $WORK/cross/arm64.log)"; }
        mv "$system.part" "$system"
    fi
    BUILD=$ROOT/build-arm64
    build -DCMAKE_TOOLCHAIN_FILE="$ROOT/cmake/arm64-linux.cmake" -DSYSROOT="$system" -DMOSLD_WERROR=ON
    [ -n "$TEST" ] || return 0
    say "Testing under $(command -v qemu-aarch64)"
    ctest --test-dir "$BUILD" --output-on-failure -j 1 "$@"
}

# archive: the mirror of bookworm that apt on this machine uses.
archive() { apt_sources | sed -n 's/^deb .* \(http[^ ]*\) bookworm main$/\1/p; s/^deb \(http[^ ]*\) bookworm main$/\1/p' | head -n 1; }

# windows_library NAME [cmake options]: a Debian source package, built with CMake for Windows and installed into $LIBRARIES.
windows_library() {
    name=$1
    shift
    say "Building $name for Windows"
    { cmake -S "$SOURCES/$name" -B "$SOURCES/build-$name" -DCMAKE_TOOLCHAIN_FILE="$ROOT/cmake/windows-x64.cmake" -DLIBRARIES="$LIBRARIES" \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$LIBRARIES" -DBUILD_SHARED_LIBS=OFF "$@" &&
        cmake --build "$SOURCES/build-$name" -j "$(jobs)" --target install; } >"$SOURCES/$name.log" 2>&1 || { tail -n 5 "$SOURCES/$name.log"; die "$name cannot be built: $SOURCES/$name.log"; }
}

windows_openblas() {
    say "Building OpenBLAS for Windows (some ten minutes)"
    windows_make() {
        make -s -C "$SOURCES/openblas" -j "$(jobs)" CC=x86_64-w64-mingw32-gcc HOSTCC=gcc TARGET=PRESCOTT DYNAMIC_ARCH=1 DYNAMIC_LIST="HASWELL SKYLAKEX" BUILD_SINGLE=1 USE_THREAD=0 USE_LOCKING=1 \
            NOFORTRAN=1 NO_LAPACK=1 NO_LAPACKE=1 NO_SHARED=1 CROSS=1 CROSS_SUFFIX=x86_64-w64-mingw32- PREFIX="$LIBRARIES" "$@"
    }
    { windows_make libs && windows_make install; } >"$SOURCES/openblas.log" 2>&1 || { tail -n 5 "$SOURCES/openblas.log"; die "OpenBLAS cannot be built: $SOURCES/openblas.log"; }
}

SOURCE_PACKAGES="cjson pcre2 utf8proc openblas"
# shellcheck disable=SC2086
source_packages() { apt_private update && apt_private source --download-only $SOURCE_PACKAGES; }

# The libraries that mosld is linked with, from Debian's source packages: $LIBRARIES.
windows_libraries() {
    LIBRARIES=$WORK/cross/windows
    [ ! -f "$LIBRARIES/done" ] || return 0
    SOURCES=$WORK/cross/sources
    rm -rf "$SOURCES" "$LIBRARIES"
    mkdir -p "$SOURCES" "$LIBRARIES/include"
    apt_prepare windows
    sed -i 's/^deb /deb-src /' "$APT/sources.list"
    # A mirror may have the security archive's lists without its sources: then the release's serve.
    (cd "$SOURCES" && { source_packages || { sed -i '/ bookworm main$/!d' "$APT/sources.list" && source_packages; }; }) >"$SOURCES/fetch.log" 2>&1 ||
        { tail -n 3 "$SOURCES/fetch.log"; die "the source packages cannot be fetched"; }
    for name in $SOURCE_PACKAGES; do
        dpkg-source --no-check -x "$SOURCES/$name"_*.dsc "$SOURCES/$name" >>"$SOURCES/fetch.log" 2>&1 || die "$name cannot be unpacked"
    done
    cp -r /usr/include/vulkan /usr/include/vk_video /usr/include/volk.h /usr/include/volk.c "$LIBRARIES/include"
    windows_library cjson -DENABLE_CJSON_TEST=OFF
    windows_library utf8proc
    windows_library pcre2 -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF
    windows_openblas
    touch "$LIBRARIES/done"
}

cross_windows() {
    need make cmake pkg-config glslang-tools spirv-tools dpkg-dev gcc-mingw-w64-x86-64 libvulkan-dev libvulkan-volk-dev gcc libc6-dev ${TEST:+wine64}
    windows_libraries
    BUILD=$ROOT/build-windows
    build -DCMAKE_TOOLCHAIN_FILE="$ROOT/cmake/windows-x64.cmake" -DLIBRARIES="$LIBRARIES" -DBUILD_TESTING=OFF -DMOSLD_WERROR=ON
    [ -n "$TEST" ] || return 0
    fetch_model
    say "Running it under Wine"
    sh "$ROOT/tests/windows.sh" "$BUILD/mosld.exe" "$MODEL"
}

system=${1:-}
[ $# -eq 0 ] || shift
TEST=
if [ "${1:-}" = --test ]; then TEST=yes; shift; fi
case $system in
arm64) cross_arm64 "$@" ;;
windows) cross_windows ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0"; [ "$system" = --help ] || exit 2 ;;
esac
