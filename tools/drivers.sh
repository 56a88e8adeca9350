#!/bin/sh
# shellcheck disable=SC2016,SC2034 # single quotes hold apt's variables; DRIVER_VERSION is for test.sh
# tools/drivers.sh - Vulkan drivers that compute on the CPU, side by side, each in a folder of its own; nothing is installed.
#
#     eval "$(sh tools/drivers.sh NAME)"      fetch it and choose it in this shell; then for instance: build/mosld devices
#     sh tools/test.sh --driver NAME          run the Vulkan tests on it
#
# NAME: lavapipe-22   Mesa 22.3.6, of Debian 12
#       lavapipe-25   Mesa 25.0.7, of Debian 12's backports
#       lavapipe-26   Mesa 26.1, of Debian 13's backports, with its C library: programs are started by tools/lavapipe26.sh. It has cooperative matrices
#       swiftshader   Google's, of Debian's package chromium-common: no 8-bit or 16-bit types, 256 invocations, subgroups of 4
#
# Other scripts read it with `.` behind setup.sh and call driver_use. The packages come from the mirror that apt on this machine
# uses, through an apt state of their own, so that neither root nor a change to the machine is needed.
# They are unpacked into $WORK/drivers/NAME, and taken from there the next time.

DRIVERS="lavapipe-22 lavapipe-25 swiftshader lavapipe-26"

# driver_define NAME: sets PACKAGES (package/suite), MEMBERS (what is unpacked of them), LIBRARY (the driver) and DEVICE (part of its name).
driver_define() {
    PACKAGES=
    MEMBERS='./usr/lib/*/libvulkan_lvp.so ./usr/lib/*/libdrm*'
    LIBRARY='usr/lib/*/libvulkan_lvp.so'
    DEVICE=llvmpipe
    case $1 in
    lavapipe-22) PACKAGES="mesa-vulkan-drivers/bookworm" ;;
    # Newer than the system's libdrm, which it then shadows.
    lavapipe-25) PACKAGES="mesa-vulkan-drivers/bookworm-backports libdrm2/bookworm-backports libdrm-amdgpu1/bookworm-backports" ;;
    swiftshader)
        PACKAGES="chromium-common"
        MEMBERS='./usr/lib/chromium/libvk_swiftshader.so'
        LIBRARY='usr/lib/chromium/libvk_swiftshader.so'
        DEVICE=SwiftShader
        ;;
    lavapipe-26) PACKAGES="mesa-vulkan-drivers/trixie-backports" ;; # by tools/lavapipe26.sh
    # Compilers of GPUs: nothing runs on them, see tools/gpu_compilers.sh.
    mesa-25)
        PACKAGES="mesa-vulkan-drivers/bookworm-backports libdrm2/bookworm-backports libdrm-amdgpu1/bookworm-backports"
        MEMBERS='./usr/lib/*/libvulkan_radeon.so ./usr/lib/*/libvulkan_intel.so ./usr/lib/*/libdrm*'
        LIBRARY='usr/lib/*/libvulkan_radeon.so'
        DEVICE=RADV
        ;;
    *) die "no driver is named $1; there are: $DRIVERS" ;;
    esac
}

# driver_skip NAME WHY: says that a driver cannot be had, and fails.
driver_skip() {
    echo "SKIPPED: the driver $1: $2" >&2
    return 1
}

# apt_private ARGUMENT...: apt-get on lists and a cache of its own, with the system's proxies and keys.
apt_private() {
    apt-get -qq -o Dir::Etc::sourcelist="$APT/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$APT" \
        -o Dir::State::lists="$APT/lists" -o Dir::State::status="$APT/status" -o Dir::Cache="$APT/cache" \
        -o APT::Default-Release= -o APT::Sandbox::User= -o Debug::NoLocking=1 "$@"
}

# apt_sources: the archive's suites as lines for sources.list, from where the system's own apt has bookworm. Backports are in the
# same place; the security archive is another, and only where the system uses it.
apt_sources() {
    option=
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -f $keys ] || option="[signed-by=$keys] "
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' | sort -u |
        while read -r uri codename component; do
            case $codename/$component in
            bookworm/main) printf 'deb %s%s %s main\n' "$option" "$uri" bookworm "$option" "$uri" bookworm-backports ;;
            bookworm-security/main) printf 'deb %s%s %s main\n' "$option" "$uri" bookworm-security ;;
            esac
        done
}

# apt_prepare NAME: the private state, once for all drivers.
apt_prepare() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || driver_skip "$1" "it comes as a Debian package, and this system has no apt-get" || return
    [ "$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null)" = bookworm ] ||
        driver_skip "$1" "it is built for Debian 12 (bookworm), which this system is not" || return
    APT=$WORK/drivers/apt
    mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial"
    : >"$APT/status"
    apt_sources >"$APT/sources.list"
    [ -s "$APT/sources.list" ] || driver_skip "$1" "apt on this machine has no source with Debian's bookworm main" || return
    apt_private -o APT::Update::Error-Mode=any update >"$APT/log" 2>&1 || driver_skip "$1" "its package list cannot be fetched: $(tail -n 1 "$APT/log")"
}

# driver_fetch NAME: downloads and unpacks into $WORK/drivers/NAME, unless it is there. Interrupted, it leaves nothing that counts.
driver_fetch() {
    folder=$WORK/drivers/$1
    [ -f "$folder/packages" ] && return 0
    apt_prepare "$1" || return
    echo "Fetching $1: $PACKAGES into $folder" >&2
    rm -rf "$folder" "$folder.part"
    mkdir -p "$folder.part"
    # shellcheck disable=SC2086
    (cd "$folder.part" && apt_private download $PACKAGES) >"$APT/log" 2>&1 ||
        driver_skip "$1" "$PACKAGES cannot be downloaded: $(tail -n 1 "$APT/log")" || return
    for package in "$folder.part"/*.deb; do
        # A package holds some of the members; that the driver is among them is seen below.
        # shellcheck disable=SC2086
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$folder.part" --wildcards $MEMBERS 2>/dev/null || true
        dpkg-deb -W --showformat='${Package} ${Version}\n' "$package" >>"$folder.part/packages"
        rm "$package"
    done
    # shellcheck disable=SC2086
    ls "$folder.part"/$LIBRARY >/dev/null 2>&1 || driver_skip "$1" "$PACKAGES has no $LIBRARY" || return
    mv "$folder.part" "$folder"
}

# driver_use NAME: fetches it and exports what makes the Vulkan loader and the tests take it and no other. Sets DRIVER_VERSION.
# Fails, after having said why, where it cannot be had here. LAUNCHER, where it is not empty, has to start each program.
driver_use() {
    driver_define "$1"
    LAUNCHER=
    if [ "$1" = lavapipe-26 ]; then
        LAUNCHER="sh $ROOT/tools/lavapipe26.sh"
        $LAUNCHER /bin/true >/dev/null || driver_skip "$1" "tools/lavapipe26.sh cannot start a program" || return
        DRIVER_VERSION="mesa-vulkan-drivers $(cat "$WORK/drivers/lavapipe-26/version" 2>/dev/null)"
        return 0
    fi
    driver_fetch "$1" || return
    # shellcheck disable=SC2086
    library=$(ls "$WORK/drivers/$1"/$LIBRARY)
    DRIVER_VERSION=$(grep -E '^(mesa-vulkan-drivers|chromium-common) ' "$WORK/drivers/$1/packages")
    LD_LIBRARY_PATH=$(dirname "$library")
    missing=$(LD_LIBRARY_PATH=$LD_LIBRARY_PATH ldd "$library" | sed -n 's/ => not found.*//p' | tr -d '\t' | tr '\n' ' ')
    [ -z "$missing" ] || driver_skip "$1" "it needs libraries that are not here (installing mesa-vulkan-drivers brings them): $missing" || return
    # Written anew each time: it holds the absolute path, and the project may have been moved.
    VK_DRIVER_FILES=$WORK/drivers/$1/icd.json
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' "$library" >"$VK_DRIVER_FILES"
    VK_ICD_FILENAMES=$VK_DRIVER_FILES # loaders before 1.3.207 know this name only
    MOSLD_TEST_DEVICE=$DEVICE
    export LD_LIBRARY_PATH VK_DRIVER_FILES VK_ICD_FILENAMES MOSLD_TEST_DEVICE
}

if [ "$(basename -- "$0")" = drivers.sh ]; then
    set -eu
    . "$(dirname -- "$0")/setup.sh"
    if [ $# -ne 1 ] || [ "$1" = --help ]; then sed -n '5,11s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
    driver_use "$1"
    [ -z "$LAUNCHER" ] || die "$1 cannot be chosen in a shell. Start programs by: sh tools/lavapipe26.sh PROGRAM"
    for name in LD_LIBRARY_PATH VK_DRIVER_FILES VK_ICD_FILENAMES MOSLD_TEST_DEVICE; do
        eval "printf \"export %s='%s'\n\" $name \"\$$name\""
    done
fi
