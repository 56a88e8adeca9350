"""Writes tests/vectors/smollm2: what float64 says about SmolLM2-135M-Instruct on the weights of its GGUF, dequantised.

    train.jsonl          8 short rows logits.safetensors   "indices" I32 [1024] of the vocabulary; "prompt0" ... F32
    [4, 1024]: those logits at the last 4 positions expected.json        prompts (largest |logit| and argmax of those
    positions; greedy tokens and the smallest gap on the way), and for each method the seed of its adapter
    (smollm2_adapters.py), losses of twenty steps, gradient norms of each tensor at the first step, and how far a
    float32 run strays from that

Router margins of a real model fall to 1e-7 somewhere within twenty steps, so float32 may pick another expert than
float64 does; the seed of each adapter is the one of a few whose margin at the first step is largest, which keeps the
first gradients comparable.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

import adapters
import gguf_file
import smollm2_adapters
from bench_torch import load_model
from decoder import Adapter, Decoder, Routing, train
from make_tokenizer_vectors import load as load_tokenizer
from make_vectors import largest_relative, worst_gradient

OUT = Path(__file__).parents[1] / "vectors" / "smollm2"
OPTIONS = dict(learning_rate=3e-4, weight_decay=0.01, max_grad_norm=1.0, steps=20, batch=2, accumulate=2)
PROMPTS = [
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nExplain how rain forms, step by step.<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a small village by the sea, there lived",
    "def fibonacci(n):\n    \"\"\"Returns the n-th Fibonacci number.\"\"\"\n",
]
ROWS = [
    ("Question: What do bees make?\nAnswer:", " honey"),
    ("Question: Which planet do we live on?\nAnswer:", " the Earth"),
    ("Question: A train goes 60 miles in 2 hours. How fast is it?\nAnswer:", " 30 miles an hour"),
    ("Question: Water turns into ice when it is\nAnswer:", " cooled below its freezing point"),
    ("Translate to French: good morning\n", "bonjour"),
    ("Question: What part of a plant takes up water?\nAnswer:", " the roots"),
    ("The opposite of hot is", " cold, and the opposite of up is down."),
    ("Question: Why does the moon shine?\nAnswer:", " It reflects the light of the sun."),
]


def write_rows(tok, path):
    with open(path, "w") as f:
        for prompt, completion in ROWS:
            p, c = tok.encode(prompt).ids, tok.encode(completion).ids
            assert len(p) + len(c) <= 32
            f.write(json.dumps({"input_ids": p + c, "labels": [-100] * len(p) + c}) + "\n")
    return adapters.read_records(path)


def greedy(double, fast, ids, count):
    """The `count` likeliest tokens after `ids` and the smallest gap to the second likeliest. Found by transformers in
    float32 with a cache, which is fast, and confirmed by one pass in float64 over all of them."""
    with torch.no_grad():
        prompt = torch.tensor([ids])  # the mask is given, else the end tokens of a chat are taken for padding
        found = fast.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count, eos_token_id=None
        )
        found = found[0, len(ids) :].tolist()
        top = double.logits((ids + found)[:-1])[-count:].topk(2)
    assert len(found) == count and top.indices[:, 0].tolist() == found
    return found, float((top.values[:, 0] - top.values[:, 1]).min())


def prompts(double, fast, tok, count):
    """Expected values of the prompts and the tensors of logits.safetensors."""
    indices = np.sort(np.random.RandomState(0).choice(double.config["vocab_size"], 1024, replace=False)).astype(
        np.int32
    )
    out, tensors = [], {"indices": torch.from_numpy(indices)}
    for i, text in enumerate(PROMPTS):
        ids = tok.encode(text).ids
        with torch.no_grad():
            logits = double.logits(ids)[-4:]
        found, gap = greedy(double, fast, ids, count)
        tensors[f"prompt{i}"] = logits[:, torch.from_numpy(indices).long()].float()
        out.append(dict(text=text, ids=ids, largest=logits.abs().amax(1).tolist(), argmax=logits.argmax(1).tolist()))
        out[-1].update(greedy=found, greedy_text=tok.decode(found, skip_special_tokens=False), smallest_gap=gap)
        print(f"prompt {i}: smallest gap {gap:.2e}: {out[-1]['greedy_text'][:90]!r}", flush=True)
    return out, tensors


def make_adapter(method, seed, dtype):
    tensors, masks = smollm2_adapters.draw(method, seed)
    masks = {k: torch.from_numpy(v) for k, v in masks.items()} if masks else None
    return Adapter(
        smollm2_adapters.config_of(method), {k: torch.from_numpy(v).to(dtype) for k, v in tensors.items()}, masks
    )


def widest_seed(model, method, records, tries):
    best = (-1.0, None)
    for seed in range(tries):
        adapter, routing = make_adapter(method, seed, model.dtype), Routing()
        with torch.no_grad():
            for record in records:
                model.hidden(record["input_ids"], adapter, routing)
        best = max(best, (routing.margin, seed))
    return best


def run(model, method, seed, records):
    o = OPTIONS
    return train(
        model,
        make_adapter(method, seed, model.dtype),
        records,
        o["steps"],
        o["batch"],
        o["accumulate"],
        o["learning_rate"],
        o["weight_decay"],
        o["max_grad_norm"],
    )


def training(double, single, records, tries):
    out = {}
    for method in smollm2_adapters.METHODS:
        margin, seed = (math.inf, 1) if method == "lora" else widest_seed(single, method, records[:4], tries)
        want, got = run(double, method, seed, records), run(single, method, seed, records)
        out[method] = dict(
            seed=seed,
            first_margin=margin if method != "lora" else None,
            loss=want["loss"],
            aux_loss=want["aux_loss"],
            grad_norm=want["grad_norm"],
            gradient_norms={k: float(g.norm()) for k, g in want["gradients"].items()},
            float32_loss=largest_relative(got["loss"], want["loss"]),
            float32_gradient=worst_gradient(got["gradients"], want["gradients"]),
        )
        strays = f"{out[method]['float32_loss']:.1e}, gradients {out[method]['float32_gradient']:.1e}"
        loss = f"{want['loss'][0]:.4f} to {want['loss'][-1]:.4f}"
        print(f"{method}: seed {seed}, margin {margin:.1e}, loss {loss}; float32 strays by {strays}", flush=True)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--gguf", required=True)
    ap.add_argument("--out", type=Path, default=OUT)
    ap.add_argument("--tries", type=int, default=12, help="seeds looked at for a wide router margin")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tok = load_tokenizer(args.gguf)
    config, weights = gguf_file.read(args.gguf)
    double, single = Decoder(config, weights, torch.float64), Decoder(config, weights, torch.float32)
    records = write_rows(tok, args.out / "train.jsonl")
    expected, tensors = prompts(double, load_model(args.gguf).eval(), tok, 64)
    adapters.save(tensors, args.out / "logits.safetensors")
    expected = {"model": Path(args.gguf).name, "options": OPTIONS, "prompts": expected}
    expected["training"] = training(double, single, records, args.tries)
    (args.out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
