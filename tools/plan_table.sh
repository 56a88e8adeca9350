#!/bin/sh
# tools/plan_table.sh [MOSLD] - the tables of docs/memory.md: what training takes, by model, type of the weights and length, computed by
# `mosld train --plan` from config.json files alone, which this script writes from the models' public shapes. Nothing is downloaded.
#
# DEVICE (default: host) is whose limits are planned with. On a Vulkan device logits take at most 32 MiB instead of 96 to 128, so a GPU takes up to that much less.
set -eu
mosld=${1:-build/mosld}
device=${DEVICE:-host}
adapter="--method mosld --num-experts 8 --r 8 --target-modules q_proj,v_proj"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# name, model_type, vocabulary, hidden, intermediate, layers, heads, key/value heads, head size, tied
shapes="Qwen3-0.6B qwen3 151936 1024 3072 28 16 8 128 true
Llama-3.2-1B llama 128256 2048 8192 16 32 8 64 true
SmolLM2-1.7B llama 49152 2048 8192 24 32 32 64 true
Llama-3.2-3B llama 128256 3072 8192 28 24 8 128 true
Qwen3-4B qwen3 151936 2560 9728 36 32 8 128 true
Llama-3.1-8B llama 128256 4096 14336 32 32 8 128 false"

write_config() {
    case $2 in qwen3) class=Qwen3ForCausalLM ;; *) class=LlamaForCausalLM ;; esac
    cat > "$folder/$1.json" << END
{"architectures": ["$class"], "model_type": "$2", "hidden_act": "silu", "vocab_size": $3, "hidden_size": $4, "intermediate_size": $5,
 "num_hidden_layers": $6, "num_attention_heads": $7, "num_key_value_heads": $8, "head_dim": $9, "max_position_embeddings": 32768,
 "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": ${10}, "torch_dtype": "bfloat16"}
END
}

# A plan that does not fit this machine is a plan all the same.
gib() {
    "$mosld" train --plan --json --device "$device" --model "$folder/$1.json" --weights "$2" --max-length "$3" --per-device-train-batch-size 1 \
        --gradient-checkpointing="$4" $adapter 2> /dev/null | sed -n 's/.*"total_bytes":\([0-9.e+]*\).*/\1/p' | awk '{printf "%.1f", $1 / 1073741824}'
}

echo "$shapes" | while read -r shape; do
    # shellcheck disable=SC2086
    write_config $shape
done
echo "| GiB | f16, 512 tokens | q8_0 | q4_0 | f16, 2048 tokens | q8_0 | q4_0 |"
echo "|---|---|---|---|---|---|---|"
echo "$shapes" | while read -r name rest; do
    printf '| %s |' "$name"
    for length in 512 2048; do
        for weights in f16 q8_0 q4_0; do
            printf ' %s / %s |' "$(gib "$name" "$weights" "$length" false)" "$(gib "$name" "$weights" "$length" true)"
        done
    done
    printf '\n'
done
