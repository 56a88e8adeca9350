#!/usr/bin/env python3
"""Perplexity of a GGUF file of the llama architecture: mosld against PyTorch in float32 on the weights that the gguf package dequantises.

    python3 tests/parity/perplexity.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --mosld build/mosld --text FILE [--context 512] [--weights q8_0]

Windows do not overlap; of each, every token but the first is foreseen from those before it: as `mosld perplexity` does. Token ids are mosld's own.
"""
import argparse
import json
import math
import subprocess

import torch

import gguf_file
from decoder import inverse_frequencies, rms_norm, rotate


def forward(config, w, ids):
    """Logits [T, V] in float32, the plain decoder."""
    d, heads, kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    D, T, eps = d // heads, len(ids), config["rms_norm_eps"]
    angle = torch.outer(torch.arange(T, dtype=torch.float64), inverse_frequencies(config, torch.float64)).float()
    h = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        def p(name):
            return w[f"model.layers.{layer}.{name}.weight"]
        x = rms_norm(h, p("input_layernorm"), eps)
        q, k, v = (torch.nn.functional.linear(x, p(f"self_attn.{n}_proj")).view(T, -1, D).transpose(0, 1) for n in "qkv")
        q, k = rotate(q, angle), rotate(k, angle)
        k, v = k.repeat_interleave(heads // kv, 0), v.repeat_interleave(heads // kv, 0)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + torch.nn.functional.linear(o.transpose(0, 1).reshape(T, -1), p("self_attn.o_proj"))
        x = rms_norm(h, p("post_attention_layernorm"), eps)
        gate, up = (torch.nn.functional.linear(x, p(f"mlp.{n}_proj")) for n in ("gate", "up"))
        h = h + torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, p("mlp.down_proj"))
    head = w["model.embed_tokens.weight"] if config["tie_word_embeddings"] else w["lm_head.weight"]
    return torch.nn.functional.linear(rms_norm(h, w["model.norm.weight"], eps), head)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--mosld", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--weights", default="file")
    parser.add_argument("--device", default="host")
    args = parser.parse_args()
    run = lambda *a: json.loads(subprocess.run([args.mosld, *a, "--model", args.gguf, "--json"], check=True, capture_output=True, text=True).stdout)
    got = run("perplexity", "--text", args.text, "--context", str(args.context), "--device", args.device, "--weights", args.weights)
    ids = run("tokenize", "--file", args.text)["ids"]
    config, weights = gguf_file.read(args.gguf)
    loss, count = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(ids), args.context):
            window = torch.tensor(ids[first:first + args.context])
            if len(window) > 1:
                logits = forward(config, weights, window)[:-1]
                loss += torch.nn.functional.cross_entropy(logits.double(), window[1:], reduction="sum").item()
                count += len(window) - 1
    want = math.exp(loss / count)
    print(f"tokens {count} (mosld {got['tokens']})   PyTorch {want:.6f}   mosld {got['perplexity']:.6f}   off by {100 * (got['perplexity'] / want - 1):+.5f} %")


if __name__ == "__main__":
    main()
