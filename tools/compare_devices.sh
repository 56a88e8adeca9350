#!/bin/sh
# tools/compare_devices.sh - three small training steps on the host and on another device, side by side.
#
#     sh tools/compare_devices.sh MOSLD MODEL WORK_FOLDER DEVICE [METHOD]
#
# Prints both losses of each step and exits with 1 where they differ by more than 1e-3 of the loss.
set -eu
[ $# -ge 4 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
mosld=$1 model=$2 work=$3 device=$4 method=${5:-mosld}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

losses() { # DEVICE: trains and prints a loss a line
    "$mosld" train --model "$model" --device "$1" --method "$method" --task "arc-easy=$root/data/arc-easy" --out "$work/compare-$1" \
        --overwrite-output-dir --per-device-train-batch-size 1 --max-length 32 --max-steps 3 --learning-rate 1e-3 \
        --lr-scheduler-type constant --seed 1 2>"$work/compare-$1.log" || { cat "$work/compare-$1.log" >&2; exit 1; }
    sed 's/.*"loss":\([^,]*\),.*/\1/' "$work/compare-$1/metrics.jsonl"
}

mkdir -p "$work"
losses host >"$work/compare-host.txt"
losses "$device" >"$work/compare-$device.txt"
paste "$work/compare-host.txt" "$work/compare-$device.txt" | awk -v device="$device" '
    { d = $1 - $2; if (d < 0) d = -d; off = d / $1; if (off > worst) worst = off
      printf "step %d  loss on host %.6f  on %s %.6f  difference %.1e\n", NR, $1, device, $2, off }
    END { if (NR != 3 || worst > 1e-3) { print "the devices do not agree"; exit 1 } print "the losses agree" }'
