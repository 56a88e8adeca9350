#!/bin/sh
# tools/results.sh - the table of docs/results.md: SmolLM2-135M-Instruct on three tasks before and after training, by method and seed.
#
#     sh tools/results.sh MOSLD MODEL WORK_FOLDER [STEPS [SEEDS [METHODS]]]        sh tools/results.sh build/mosld MODEL work 40 "1 2 3" "lora mosld"
#
# Whole validation splits of both ARC tasks; the first 100 rows of gsm8k's. About four minutes a run on two processor cores.
set -eu
[ $# -ge 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
mosld=$1 model=$2 work=$3/results steps=${4:-40} seeds=${5:-1 2 3} methods=${6:-lora mosld}
data=$(CDPATH='' cd -- "$(dirname -- "$0")/../data" && pwd)
mkdir -p "$work"

score() { # NAME [options]: scores into $work/NAME-*.json
    name=$1; shift
    "$mosld" eval --model "$model" --device host --task "arc-easy=$data/arc-easy" --task "arc-challenge=$data/arc-challenge" \
        --out "$work/$name-arc.json" "$@" --json >"$work/$name-arc.summary.json" 2>/dev/null
    "$mosld" eval --model "$model" --device host --task "gsm8k=$data/gsm8k" --limit 100 --out "$work/$name-gsm8k.json" "$@" >/dev/null 2>&1
}

[ -s "$work/before-gsm8k.json" ] || score before
for method in $methods; do
    for seed in $seeds; do
        name=$method-$seed
        [ -s "$work/$name-gsm8k.json" ] && continue
        "$mosld" train --model "$model" --device host --method "$method" --seed "$seed" --task "arc-easy=$data/arc-easy" \
            --task "arc-challenge=$data/arc-challenge" --task "gsm8k=$data/gsm8k:0.03" --out "$work/$name" --overwrite-output-dir \
            --per-device-train-batch-size 16 --max-steps "$steps" --learning-rate 2e-3 --lr-scheduler-type cosine --warmup-steps 8 2>"$work/$name.log"
        score "$name" --adapter "$work/$name" --against "$work/before-arc.json"
    done
done

python3 - "$work" "$methods" "$seeds" <<'PY'
import json, sys
work, methods, seeds = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
def row(name, label):
    arc = {t["name"]: t for t in json.load(open(f"{work}/{name}-arc.json"))["tasks"]}
    gsm = json.load(open(f"{work}/{name}-gsm8k.json"))["tasks"][0]
    cells = [label]
    for t in ("arc-easy", "arc-challenge"):
        a = arc[t]
        cells += [f"{a['acc']:.3f} ± {a['acc_stderr']:.3f}", f"{a['acc_norm']:.3f} ± {a['acc_norm_stderr']:.3f}",
                  f"+{a['gained']} −{a['lost']}" if "gained" in a else "", f"{a['loss']:.3f}"]
    print("| " + " | ".join(cells + [f"{gsm['loss']:.3f}"]) + " |")
print("| | arc-easy acc | acc_norm | gained, lost | loss | arc-challenge acc | acc_norm | gained, lost | loss | gsm8k loss |")
print("|---|" + "---|" * 9)
row("before", "before")
for m in methods:
    for s in seeds:
        row(f"{m}-{s}", f"{m}, seed {s}")
PY
