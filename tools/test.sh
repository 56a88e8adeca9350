#!/bin/sh
# tools/test.sh - installs what the tests need, builds, runs all of them. Says what it installs; can be run again.
#
#     sh tools/test.sh [--no-model] [ctest options]       --no-model: without the tests that need SmolLM2 (a download of 93 MB)
#     sh tools/test.sh --driver NAME [ctest options]      only those that use Vulkan, on one driver (tools/drivers.sh has their names)
#     sh tools/test.sh --tools                            only those that run under capture tools, which are installed too
#     sh tools/test.sh --all-drivers [ctest options]      the same on each of them, with a table at the end
#     sh tools/test.sh --clamps [ctest options]           the same on the system's driver as it is and with each clamp of MOSLD_CAPS that
#                                                         stands for a kind of device; behind --driver NAME or --all-drivers: on those
#     sh tools/test.sh --ci [ctest options]               everything, and then a part of the table: some clamps on the system's driver
#
# Under a clamp, and of --ci's on other drivers, an op is tested in the variant that is taken and in the plainest one (MOSLD_TEST_VARIANTS=chosen); a driver as it
# is, in all. The table is in build/drivers.md, and grows as it is made.
set -eu
. "$(dirname -- "$0")/setup.sh"
. "$(dirname -- "$0")/drivers.sh"

CLAMPS="minimal -fp16-storage -fp16-arithmetic -int8 -subgroup subgroup=4 subgroup=8 subgroup=16 subgroup=32 subgroup=64 -integer-dot
-push-descriptor -buffer-address -timestamps -mapped -unified shared=16384 invocations=128 buffers=4 push=128 range=33554432 memory=536870912"
CI_DRIVERS=
CI_CLAMPS="minimal -subgroup range=33554432 memory=536870912"
# Test programs that a clamp cannot change: they ask the compiler, capture tools or files, or clamp by themselves.
NOT_CLAMPED='^test_(capture_tools|kernels|kernels_mix|plan|pass_plan|devices|vulkan_runtime|profile|trace)$'

# Debian 13's validation layer, which comes with lavapipe-26, does not report two of the barriers that it leaves out, those between submissions.
NOT_LAUNCHED='^test_barriers$'

# add_row BEGINNING PASSED FAILED SKIPPED SINCE
add_row() { printf '%s %s | %s | %s | %s s |\n' "$1" "$2" "$3" "$4" $(($(date +%s) - $5)) >>"$TABLE"; }

# test_launched ROW: the test programs of ops, each behind $LAUNCHER, for a driver that a program has to be started specially for. Programs that
# start mosld itself are left out.
test_launched() {
    begin=$(date +%s)
    passed=0
    failed_here=0
    for source in $(grep -lE 'tests/support/(op_test|attention_case)\.h|vk_test\.h' "$ROOT"/tests/test_*.c | xargs grep -L 'tests/support/program\.h'); do
        program=$(basename "$source" .c)
        printf '%s' "$program" | grep -qE "$NOT_CLAMPED|$NOT_LAUNCHED" && continue
        test_log=$BUILD/test-launched-$program.log
        if timeout 1800 $LAUNCHER "$BUILD/tests/$program" >"$test_log" 2>&1; then
            passed=$((passed + 1))
        else
            failed_here=$((failed_here + 1))
            tail -n 5 "$test_log"
        fi
        tail -n 1 "$test_log"
    done
    add_row "$1" "$passed" "$failed_here" 0 "$begin"
    [ "$failed_here" -eq 0 ]
}

# test_vulkan NAME PACKAGE [ctest options]: the Vulkan tests as the environment says, and a row of $TABLE. Fails when a test does.
test_vulkan() {
    log=$BUILD/test-$1.log
    row=$(printf '| %s | %s | %s |' "$1" "$2" "${MOSLD_CAPS:-}")
    shift 2
    if [ -n "${LAUNCHER:-}" ]; then
        test_launched "$row"
        return
    fi
    begin=$(date +%s)
    status=0
    # Alone, a program that tests all variants uses all processors; of one that tests few, most of the time is its own.
    at_once=1
    leave_out='^$'
    if [ "${MOSLD_TEST_VARIANTS:-all}" = chosen ]; then at_once=$(jobs) leave_out=$NOT_CLAMPED; fi
    ctest --test-dir "$BUILD" --output-on-failure --no-tests=error -j "$at_once" -L vulkan -E "$leave_out" --output-log "$log" "$@" || status=$?
    count() { grep -cE "^ *[0-9]+/[0-9]+ Test .*($1)" "$log" || true; }
    if grep -q '^Total Test time' "$log"; then
        add_row "$row" "$(count ' Passed ')" "$(count '\*\*\*(Failed|Timeout|Exception|Not Run)')" "$(count '\*\*\*Skipped')" "$begin"
    else
        printf '%s broken off | | | |\n' "$row" >>"$TABLE"
    fi
    return $status
}

# test_clamp CLAMP NAME PACKAGE [ctest options]: test_vulkan with it. In a subshell: the next one finds the environment as it was.
test_clamp() (
    MOSLD_CAPS=$1
    MOSLD_TEST_VARIANTS=${MOSLD_TEST_VARIANTS:-chosen}
    export MOSLD_CAPS MOSLD_TEST_VARIANTS
    shift
    case $MOSLD_CAPS in
    subgroup=*) # llvmpipe's subgroups are as wide as its vectors; what it compiled for one width is not kept for another
        LP_NATIVE_VECTOR_WIDTH=$((32 * ${MOSLD_CAPS#subgroup=}))
        MESA_SHADER_CACHE_DIR=$BUILD/mesa-$LP_NATIVE_VECTOR_WIDTH
        [ "$LP_NATIVE_VECTOR_WIDTH" -gt 512 ] || export LP_NATIVE_VECTOR_WIDTH MESA_SHADER_CACHE_DIR
        if ! ${LAUNCHER:-} "$BUILD/mosld" devices 2>/dev/null | grep -q "${DEVICE:-vulkan,}"; then
            say "$1 does not offer MOSLD_CAPS=$MOSLD_CAPS"
            printf '| %s | %s | %s | | | not offered | |\n' "$1" "$2" "$MOSLD_CAPS" >>"$TABLE"
            return 0
        fi
        ;;
    esac
    say "$1 with MOSLD_CAPS=$MOSLD_CAPS"
    test_vulkan "$@"
)

# test_clamps NAME PACKAGE [ctest options]: as the driver is, unless $clamps_alone is yes, and with each of $clamps.
test_clamps() {
    failed=0
    [ $clamps_alone = yes ] || test_vulkan "$@" || failed=1
    for clamp in $clamps; do test_clamp "$clamp" "$@" || failed=1; done
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
    if ! ${LAUNCHER:-} "$BUILD/mosld" devices | tee "$log" | grep "$DEVICE"; then
        cat "$log"
        die "the driver is there and its libraries too, but mosld sees no $DEVICE"
    fi
    test_clamps "$name" "$DRIVER_VERSION" "$@"
)

# table_begin; table_end
table_begin() {
    TABLE=$BUILD/drivers.md
    printf '| driver | package | MOSLD_CAPS | passed | failed | skipped | took |\n|---|---|---|---|---|---|---|\n' >"$TABLE"
}
table_end() {
    say "The Vulkan tests under the validation layer"
    cat "$TABLE"
}
system_driver() { dpkg-query -W -f '${Package} ${Version}' mesa-vulkan-drivers 2>/dev/null || true; }

with_model=yes
drivers=
clamps=
clamps_alone=no
ci=no
case ${1:-} in
--help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
--no-model) with_model=no; shift ;;
--driver) drivers=${2:?--driver needs a name: $DRIVERS}; driver_define "$drivers"; shift 2 ;;
--all-drivers) drivers=$DRIVERS; shift ;;
--ci) ci=yes; shift ;;
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
    table_begin
    status=0
    for driver in $drivers; do test_driver "$driver" "$@" || status=1; done
    [ -n "$drivers" ] || test_clamps system "$(system_driver)" "$@" || status=1
    table_end
    exit $status
fi

say "Testing"
# One test at a time where there are few processors: each uses all of them.
status=0
ctest --test-dir "$BUILD" --output-on-failure -j 1 "$@" || status=$?
[ $ci = yes ] || exit $status

table_begin
clamps=$CI_CLAMPS
clamps_alone=yes
test_clamps system "$(system_driver)" "$@" || status=1
clamps=
clamps_alone=no
MOSLD_TEST_VARIANTS=chosen
export MOSLD_TEST_VARIANTS
for driver in $CI_DRIVERS; do test_driver "$driver" "$@" || status=1; done
table_end
exit $status
