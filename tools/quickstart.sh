#!/bin/sh
# tools/quickstart.sh - from nothing to a fine-tuned model: installs what building and running need, builds, fetches SmolLM2-135M-Instruct,
# evaluates it, trains a mixture of LoRA experts (MoSLD) on three tasks, evaluates again, and lets both answer.
#
#     sh tools/quickstart.sh [--model PATH] [--device NAME] [--steps N]
#
#   --model PATH    a Hugging Face directory or a .gguf file instead
#   --device NAME   a device that `mosld devices` lists; otherwise the best GPU, or the host's processor where there is none
#   --steps N       training steps instead of 40
# It can be run again: what is there already is kept, the run folder is made anew.
set -eu
. "$(dirname -- "$0")/setup.sh"

MODEL='' DEVICE=auto STEPS=40 LIMIT=50
while [ $# -gt 0 ]; do
    case $1 in
    --model) [ $# -gt 1 ] || die "--model needs a path"; MODEL=$2; shift 2 ;;
    --device) [ $# -gt 1 ] || die "--device needs a name"; DEVICE=$2; shift 2 ;;
    --steps) [ $# -gt 1 ] || die "--steps needs a number"; STEPS=$2; shift 2 ;;
    --help | -h) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "there is no option $1; --help lists them" ;;
    esac
done

started=$(date +%s)
# shellcheck disable=SC2086
need $BUILD_PACKAGES mesa-vulkan-drivers
[ -n "$MODEL" ] || fetch_model
build -DBUILD_TESTING=OFF
mosld=$BUILD/mosld
run=$WORK/quickstart
data=$ROOT/data
tasks="--task arc-easy=$data/arc-easy --task arc-challenge=$data/arc-challenge"
mkdir -p "$WORK"
rm -rf "$run"

say "Devices"
"$mosld" devices

say "Before: scores of the model as it is (gsm8k: loss of its first $LIMIT rows)"
# shellcheck disable=SC2086
"$mosld" eval --model "$MODEL" --device "$DEVICE" $tasks --out "$WORK/before.json"
"$mosld" eval --model "$MODEL" --device "$DEVICE" --task "gsm8k=$data/gsm8k" --limit $LIMIT

say "Training"
"$mosld" train --model "$MODEL" --device "$DEVICE" --method mosld --num-experts 8 --top-k 2 --r 8 \
    --task "arc-easy=$data/arc-easy" --task "arc-challenge=$data/arc-challenge" --task "gsm8k=$data/gsm8k:0.03" --out "$run" \
    --per-device-train-batch-size 16 --max-steps "$STEPS" --learning-rate 2e-3 --lr-scheduler-type cosine --warmup-steps 8

say "After"
# shellcheck disable=SC2086
"$mosld" eval --model "$MODEL" --adapter "$run" --device "$DEVICE" $tasks --against "$WORK/before.json"
"$mosld" eval --model "$MODEL" --adapter "$run" --device "$DEVICE" --task "gsm8k=$data/gsm8k" --limit $LIMIT

say "What the two say"
question="Question: What gas do plants take in from the air?
Answer:"
printf '%s\n\n-- the model as it is:\n' "$question"
"$mosld" generate --model "$MODEL" --device "$DEVICE" --prompt "$question" --max-new-tokens 16 2>/dev/null
printf '\n-- with the adapter:\n'
"$mosld" generate --model "$MODEL" --adapter "$run" --device "$DEVICE" --prompt "$question" --max-new-tokens 16 2>/dev/null

# Where no GPU is there, three steps through Vulkan on Mesa's CPU driver show that both devices compute the same.
if "$mosld" devices --json | grep -q llvmpipe && ! "$mosld" devices --json | grep -Eq '"class":[[:space:]]*"(discrete|integrated|virtual)"'; then
    say "Three small steps on the host and through Vulkan on Mesa's CPU driver"
    sh "$ROOT/tools/compare_devices.sh" "$mosld" "$MODEL" "$WORK" llvmpipe
fi

say "Done in $(($(date +%s) - started)) s. The adapter is in $run. To talk to it:"
printf '  %s generate --model %s --adapter %s --chat\n' "$mosld" "$MODEL" "$run"
