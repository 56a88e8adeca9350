#!/bin/sh
# tests/windows.sh - what mosld.exe does where there is no Vulkan, under Wine. `sh tools/cross.sh windows --test` runs it.
#
#     sh tests/windows.sh MOSLD.EXE MODEL.gguf
set -eu
program=$1
model=$2
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
WINEDEBUG=-all
WINEPREFIX=$work/wine
export WINEDEBUG WINEPREFIX
wine=$(command -v wine64 || command -v /usr/lib/wine/wine64 || command -v wine)
failed=0

# check NAME STATUS PATTERN ARGUMENT...: the exit status, and a line of what it prints.
check() {
    name=$1 wanted=$2 pattern=$3
    shift 3
    status=0
    "$wine" "$program" "$@" >"$work/out" 2>&1 </dev/null || status=$?
    if [ $status -eq "$wanted" ] && grep -qE "$pattern" "$work/out"; then
        echo "passed  $name"
    else
        echo "FAILED  $name: status $status, wanted $wanted and a line like '$pattern':"
        head -n 10 "$work/out"
        failed=1
    fi
}

check help 0 'usage: mosld' --help
check 'devices without a loader' 0 'host' devices
check 'a wrong option' 2 'no-such-option' generate --no-such-option
check 'a missing file' 3 'missing.gguf' inspect "$work/missing.gguf"
check inspect 0 'smollm2|llama' inspect "$model"
check tokenize 0 '^[0-9 ]*19556' tokenize --model "$model" --text 'Hello world'
check 'a non-ASCII path' 0 '^[0-9 ]*19556' tokenize --model "$model" --file "$(printf 'Hello' >"$work/tëxt.txt"; echo "$work/tëxt.txt")"
check 'generate on the host' 0 'Paris' generate --model "$model" --device host --prompt 'The capital of France is' --max-new-tokens 3
check 'two steps of training' 0 '' train --model "$model" --device host --task "t=$here/data/arc-easy/train.jsonl" --max-steps 2 \
    --per-device-train-batch-size 1 --out "$work/run"
check 'the adapter that it wrote' 0 'mosld' inspect "$work/run"
exit $failed
