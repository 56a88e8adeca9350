#!/bin/sh
# tools/test.sh - installs what the tests need, builds, runs all of them. Says what it installs; can be run again.
#
#     sh tools/test.sh [--no-model] [ctest options]       --no-model: without the tests that need SmolLM2 (a download of 93 MB)
#     sh tools/test.sh --driver NAME [ctest options]      only those that use Vulkan, on one driver (tools/drivers.sh has their names)
#     sh tools/test.sh --all-drivers [ctest options]      the same on each of them, with a table at the end
set -eu
. "$(dirname -- "$0")/setup.sh"
. "$(dirname -- "$0")/drivers.sh"

# test_driver NAME [ctest options]: the Vulkan tests on it, and a row of $TABLE. Fails when a test does; a driver that cannot be had
# here is skipped aloud, and that is no failure. In a subshell: the next driver finds the environment as it was.
test_driver() (
    name=$1
    shift
    if ! driver_use "$name"; then
        printf '| %s | | | | skipped | |\n' "$name" >>"$TABLE"
        return 0
    fi
    say "The driver $name: $DRIVER_VERSION${MOSLD_CAPS:+, with MOSLD_CAPS=$MOSLD_CAPS}"
    log=$BUILD/test-$name.log
    if ! "$BUILD/mosld" devices | tee "$log" | grep "$DEVICE"; then
        cat "$log"
        die "the driver is there and its libraries too, but mosld sees no $DEVICE"
    fi
    begin=$(date +%s)
    status=0
    ctest --test-dir "$BUILD" --output-on-failure --no-tests=error -j 1 -L vulkan --output-log "$log" "$@" || status=$?
    row() { grep -cE "^ *[0-9]+/[0-9]+ Test .*($1)" "$log" || true; }
    if grep -q '^Total Test time' "$log"; then
        printf '| %s | %s | %s | %s | %s | %s s |\n' "$name" "$DRIVER_VERSION" "$(row ' Passed ')" \
            "$(row '\*\*\*(Failed|Timeout|Exception|Not Run)')" "$(row '\*\*\*Skipped')" $(($(date +%s) - begin)) >>"$TABLE"
    else
        printf '| %s | %s | broken off | | | |\n' "$name" "$DRIVER_VERSION" >>"$TABLE"
    fi
    return $status
)

with_model=yes
drivers=
case ${1:-} in
--help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
--no-model) with_model=no; shift ;;
--driver) drivers=${2:?--driver needs a name: $DRIVERS}; driver_define "$drivers"; shift 2 ;;
--all-drivers) drivers=$DRIVERS; shift ;;
esac
[ -z "$drivers" ] || with_model=no # no Vulkan test needs it

# shellcheck disable=SC2086
need $BUILD_PACKAGES $TEST_PACKAGES
if [ $with_model = yes ]; then
    fetch_model
    MOSLD_TEST_SMOLLM2=$MODEL
    export MOSLD_TEST_SMOLLM2
fi
build -DMOSLD_WERROR=ON

if [ -n "$drivers" ]; then
    TABLE=$BUILD/drivers.md
    printf '| driver | package | passed | failed | skipped | took |\n|---|---|---|---|---|---|\n' >"$TABLE"
    status=0
    for driver in $drivers; do test_driver "$driver" "$@" || status=1; done
    say "The Vulkan tests under the validation layer${MOSLD_CAPS:+, with MOSLD_CAPS=$MOSLD_CAPS}"
    cat "$TABLE"
    exit $status
fi

say "Testing"
# One test at a time where there are few processors: each uses all of them.
ctest --test-dir "$BUILD" --output-on-failure -j 1 "$@"
