#!/bin/sh
# tools/lavapipe26.sh - runs a program with Mesa 26.1's CPU driver (lavapipe), the only one that executes cooperative matrices without a GPU.
#
#     sh tools/lavapipe26.sh build/mosld devices
#     MOSLD_TEST_VARIANT=coop CK_FORK=no sh tools/lavapipe26.sh build/tests/test_matmul
#
# The driver is Debian 13's (trixie-backports) and wants a newer C library than Debian 12 has. So it, its validation layer and all that they
# need are unpacked into $WORK/drivers/lavapipe-26 (300 MB), and the program is started by the dynamic linker of that folder. Nothing is
# installed.
set -eu
. "$(dirname -- "$0")/setup.sh"
. "$(dirname -- "$0")/drivers.sh"
[ $# -gt 0 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }

FOLDER=$WORK/drivers/lavapipe-26
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg

fetch() {
    command -v apt-get >/dev/null || die "SKIPPED: lavapipe-26 comes as Debian packages, and this system has no apt-get"
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | sed -n 's/ bookworm$//p' | sort -u | head -n 1)
    [ -n "$mirror" ] || die "SKIPPED: apt on this machine has no source with Debian's bookworm"
    APT=$WORK/drivers/apt-trixie # apt_private of drivers.sh works on this
    rm -rf "$APT" "$FOLDER" "$FOLDER.part"
    mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial" "$FOLDER.part"
    : >"$APT/status"
    for suite in trixie trixie-backports; do
        printf 'deb %s%s %s main\n' "$([ ! -f $KEYS ] || echo "[signed-by=$KEYS] ")" "$mirror" "$suite"
    done >"$APT/sources.list"
    echo "Fetching lavapipe-26 and what it needs into $FOLDER" >&2
    apt_private -o APT::Update::Error-Mode=any update >"$APT/log" 2>&1 || die "SKIPPED: the package list of trixie cannot be fetched: $(tail -n 1 "$APT/log")"
    apt_private -o APT::Install-Recommends=false -y --download-only -t trixie-backports install mesa-vulkan-drivers >"$APT/log" 2>&1 ||
        die "SKIPPED: mesa-vulkan-drivers of trixie-backports cannot be downloaded: $(tail -n 1 "$APT/log")"
    (cd "$APT/cache/archives" && apt_private download vulkan-validationlayers) >>"$APT/log" 2>&1 || die "SKIPPED: no validation layer: $(tail -n 1 "$APT/log")"
    for package in "$APT"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$FOLDER.part"
        case $package in */mesa-vulkan-drivers_*) dpkg-deb -f "$package" Version >"$FOLDER.part/version" ;; esac
    done
    rm -rf "$APT"
    mv "$FOLDER.part" "$FOLDER"
}

[ -d "$FOLDER" ] || fetch
LIBRARIES=$FOLDER/usr/lib/x86_64-linux-gnu
VK_DRIVER_FILES=$FOLDER/icd.json
printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.4.0"}}\n' "$LIBRARIES/libvulkan_lvp.so" >"$VK_DRIVER_FILES"
VK_ICD_FILENAMES=$VK_DRIVER_FILES
VK_LAYER_PATH=$FOLDER/usr/share/vulkan/explicit_layer.d
MOSLD_TEST_DEVICE=llvmpipe
export VK_DRIVER_FILES VK_ICD_FILENAMES VK_LAYER_PATH MOSLD_TEST_DEVICE
exec "$FOLDER/usr/lib64/ld-linux-x86-64.so.2" --library-path "$LIBRARIES:/usr/lib/x86_64-linux-gnu" "$@"
