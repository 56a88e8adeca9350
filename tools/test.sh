#!/bin/sh
# tools/test.sh - installs what the tests need, builds, runs all of them. Says what it installs; can be run again.
#
#     sh tools/test.sh [--no-model] [ctest options]       --no-model: without the tests that need SmolLM2 (a download of 93 MB)
set -eu
. "$(dirname -- "$0")/setup.sh"

with_model=yes
if [ "${1:-}" = --help ]; then sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0; fi
if [ "${1:-}" = --no-model ]; then with_model=no; shift; fi

# shellcheck disable=SC2086
need $BUILD_PACKAGES $TEST_PACKAGES
if [ $with_model = yes ]; then
    fetch_model
    MOSLD_TEST_SMOLLM2=$MODEL
    export MOSLD_TEST_SMOLLM2
fi
build -DMOSLD_WERROR=ON

say "Testing"
# One test at a time where there are few processors: each uses all of them.
ctest --test-dir "$BUILD" --output-on-failure -j 1 "$@"
