#!/bin/sh
# tools/test.sh - installs what the tests need, builds, runs all of them. Says what it installs; can be run again.
#
#     sh tools/test.sh [--no-model] [ctest options]       --no-model: without the tests that need SmolLM2 (a download of 93 MB)
#     sh tools/test.sh --driver NAME [ctest options]      only those that use Vulkan, on one driver (tools/drivers.sh has their names)
#     sh tools/test.sh --tools                            only those that run under capture tools, which are installed too
#     sh tools/test.sh --all-drivers [ctest options]      the same on each of them, with a table at the end
#     sh tools/test.sh --clamps [ctest options]           the same on the system's driver as it is and with each clamp of MOSLD_CAPS that
#                                                         stands for a kind of device; behind --driver NAME or --all-drivers: on those
set -eu
. "$(dirname -- "$0")/setup.sh"
. "$(dirname -- "$0")/drivers.sh"

CLAMPS="minimal -fp16-storage -fp16-arithmetic -int8 -subgroup -integer-dot -push-descriptor -buffer-address -timestamps shared=16384
invocations=128 buffers=4 push=128 range=33554432 memory=536870912"

# test_vulkan NAME PACKAGE [ctest options]: the Vulkan tests as the environment says, and a row of $TABLE. Fails when a test does.
test_vulkan() {
    log=$BUILD/test-$1.log
    row=$(printf '| %s | %s | %s |' "$1" "$2" "${MOSLD_CAPS:-}")
    shift 2
    begin=$(date +%s)
    status=0
    ctest --test-dir "$BUILD" --output-on-failure --no-tests=error -j 1 -L vulkan --output-log "$log" "$@" || status=$?
    count() { grep -cE "^ *[0-9]+/[0-9]+ Test .*($1)" "$log" || true; }
    if grep -q '^Total Test time' "$log"; then
        printf '%s %s | %s | %s | %s s |\n' "$row" "$(count ' Passed ')" "$(count '\*\*\*(Failed|Timeout|Exception|Not Run)')" \
            "$(count '\*\*\*Skipped')" $(($(date +%s) - begin)) >>"$TABLE"
    else
        printf '%s broken off | | | |\n' "$row" >>"$TABLE"
    fi
    return $status
}

# test_clamps NAME PACKAGE [ctest options]: as the driver is, and, with --clamps, with each clamp.
test_clamps() {
    failed=0
    test_vulkan "$@" || failed=1
    for clamp in $clamps; do
        say "$1 with MOSLD_CAPS=$clamp"
        MOSLD_CAPS=$clamp
        export MOSLD_CAPS
        test_vulkan "$@" || failed=1
    done
    return $failed
}

# test_driver NAME [ctest options]: test_clamps on it. A driver that cannot be had here is skipped aloud, and that is no failure. In a
# subshell: the next driver finds the environment as it was.
test_driver() (
    name=$1
    shift
    if ! driver_use "$name"; then
        printf '| %s | | | | | skipped | |\n' "$name" >>"$TABLE"
        return 0
    fi
    say "The driver $name: $DRIVER_VERSION${MOSLD_CAPS:+, with MOSLD_CAPS=$MOSLD_CAPS}"
    log=$BUILD/test-$name.log
    if ! "$BUILD/mosld" devices | tee "$log" | grep "$DEVICE"; then
        cat "$log"
        die "the driver is there and its libraries too, but mosld sees no $DEVICE"
    fi
    test_clamps "$name" "$DRIVER_VERSION" "$@"
)

with_model=yes
drivers=
clamps=
case ${1:-} in
--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
--no-model) with_model=no; shift ;;
--driver) drivers=${2:?--driver needs a name: $DRIVERS}; driver_define "$drivers"; shift 2 ;;
--all-drivers) drivers=$DRIVERS; shift ;;
--tools)
    # shellcheck disable=SC2086
    need $BUILD_PACKAGES $TEST_PACKAGES $TOOL_PACKAGES
    MOSLD_PERFETTO=$(sh "$ROOT/tools/perfetto.sh" --page)
    export MOSLD_PERFETTO
    build -DMOSLD_WERROR=ON
    exec ctest --test-dir "$BUILD" --output-on-failure -R 'test_capture_tools|test_trace_processor'
    ;;
esac
if [ "${1:-}" = --clamps ]; then clamps=$CLAMPS; shift; fi
[ -z "$drivers$clamps" ] || with_model=no # no Vulkan test needs it

# shellcheck disable=SC2086
need $BUILD_PACKAGES $TEST_PACKAGES
if [ $with_model = yes ]; then
    fetch_model
    MOSLD_TEST_SMOLLM2=$MODEL
    export MOSLD_TEST_SMOLLM2
fi
build -DMOSLD_WERROR=ON

if [ -n "$drivers$clamps" ]; then
    TABLE=$BUILD/drivers.md
    printf '| driver | package | MOSLD_CAPS | passed | failed | skipped | took |\n|---|---|---|---|---|---|---|\n' >"$TABLE"
    status=0
    for driver in $drivers; do test_driver "$driver" "$@" || status=1; done
    [ -n "$drivers" ] || test_clamps system "$(dpkg-query -W -f '${Package} ${Version}' mesa-vulkan-drivers 2>/dev/null || true)" "$@" || status=1
    say "The Vulkan tests under the validation layer"
    cat "$TABLE"
    exit $status
fi

say "Testing"
# One test at a time where there are few processors: each uses all of them.
ctest --test-dir "$BUILD" --output-on-failure -j 1 "$@"
