"""Writes tests/vectors/FAMILY-METHOD: what float64 says about the small models, with every adapter.

    adapter/                adapter to start from, every tensor away from zero
    masks.safetensors       mosld: fixed dropout masks, u8
    train.jsonl             12 rows of input_ids and labels
    logits.safetensors      "base" and "adapter" (without dropout), F32 [T, V], of expected.json's "tokens"
    gradients.safetensors   of the first optimizer step, before clipping
    final.safetensors       adapter after twenty steps, where it is small
    expected.json           losses, balance losses and gradient norms of the twenty steps; smallest router margin

Seeds are searched until no router choice of the twenty steps is nearer than 1e-4 to another one, every tensor has a
gradient, and a run in float32 agrees with float64 far inside of what is asked of the C program: so a miss there is a
fault and not bad luck. Also tests/vectors/quant: logits of the quantised GGUF files.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

import adapters
import gguf_file
from decoder import ATTENTION, MLP, Adapter, Decoder, Routing, train
from make_models import MODELS, QUANT_TYPES, VECTORS

QV, ALL = ("q_proj", "v_proj"), ATTENTION + MLP
CASES = {
    # method: {family: (targets, what differs from num_experts 4, top_k 2)}
    "lora": {
        "llama2": (ALL, {}),
        "llama3": (QV, {}),
        "linear": (ALL, {}),
        "mistral": (QV, {}),
        "qwen2": (ALL, {}),
        "qwen3": (QV, {}),
    },
    "mosl": {
        "llama2": (QV, {"num_experts": 8}),
        "llama3": (ALL, {}),
        "linear": (QV, {"top_k": 4}),
        "mistral": (QV, {"top_k": 1}),
        "qwen2": (QV, {"aux": 0.1}),
        "qwen3": (ALL, {}),
    },
    "mosld": {
        "llama2": (ALL, {}),
        "llama3": (QV, {"num_experts": 8}),
        "linear": (("k_proj", "o_proj", "down_proj"), {}),
        "mistral": (QV, {"aux": 0.1}),
        "qwen2": (ALL, {}),
        "qwen3": (QV, {"num_experts": [4, 8]}),
    },
}
SMALLEST_MARGIN = 1e-4


def make_records(vocab, seed, count=12):
    """Different lengths; prompts without loss; a row of two turns, a row that learns everything (its first label can
    be no target, since nothing predicts it), and one without labels."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        length = [6, 30, 17, 9, 23, 12, 28, 7, 15, 20, 11, 25][i]
        ids = [rng.randrange(vocab) for _ in range(length)]
        prompt = rng.randint(1, length - 3)
        labels = [-100] * prompt + ids[prompt:]
        if i == 1:
            ids[3], ids[4] = 0, vocab - 1
            labels = [-100] * 5 + ids[5:12] + [-100] * 8 + ids[20:]
        if i == 4:
            labels = list(ids)
        rows.append({"input_ids": ids, "labels": labels} if i != 7 else {"input_ids": ids})
    return rows


def options_of(family):
    """Most cases clip at every step; mistral's at some of them."""
    return {**adapters.OPTIONS, **({"max_grad_norm": 1.5} if family == "mistral" else {})}


def run(model, config, tensors, masks, records, o):
    adapter = Adapter(config, {k: v.to(model.dtype).clone() for k, v in tensors.items()}, masks)
    return (
        train(
            model,
            adapter,
            records,
            o["steps"],
            o["batch"],
            o["accumulate"],
            o["learning_rate"],
            o["weight_decay"],
            o["max_grad_norm"],
        ),
        adapter,
    )


def largest_relative(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b))


def worst_gradient(got, want):
    """Of all tensors; one without a gradient (an expert that no token chose) has none either way."""
    return max(float((got[k].double() - w).norm() / w.norm()) for k, w in want.items() if w.any() or got[k].any())


def fit(out, double):
    """Why a seed will not do, or None."""
    norms = [float(g.norm()) for g in out["gradients"].values()]
    if out["margin"] <= SMALLEST_MARGIN:
        return f"margin {out['margin']:.1e}"
    if min(norms) < 1e-5 * max(norms):
        return f"a tensor with gradient {min(norms):.1e}"
    if double is not None and largest_relative(out["loss"], double["loss"]) > 5e-6:
        return "float32 strays"
    if double is not None and largest_relative(out["grad_norm"], double["grad_norm"]) > 5e-5:
        return "float32's gradient norms stray"
    if double is not None and worst_gradient(out["gradients"], double["gradients"]) > 1e-4:
        return "float32's gradients stray"
    return None


def make_case(name, family, method, out):
    targets, extra = CASES[method][family]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = Decoder.load(out / "models" / family, torch.float64)
    single = Decoder.load(out / "models" / family, torch.float32)
    config = adapters.make_config(
        method,
        targets,
        f"models/{family}",
        4,
        8,
        **({"num_experts": 4, "top_k": 2, **extra} if method != "lora" else {}),
    )
    for seed in range(1, 500):
        rows = make_records(model.config["vocab_size"], seed)
        (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        records = adapters.read_records(folder / "train.jsonl")
        tensors = adapters.draw(config, model.weights, model.layers, seed)
        masks = adapters.draw_masks(config, tensors, seed)
        result, final = run(model, config, tensors, masks, records, options_of(family))
        start = Adapter(config, {k: v.double() for k, v in tensors.items()})
        tokens, routing = records[1]["input_ids"][:20], Routing()
        with torch.no_grad():
            logits = {"base": model.logits(tokens).float(), "adapter": model.logits(tokens, start, routing).float()}
        result["margin"] = min(result["margin"], routing.margin)
        if fit(result, None):
            continue
        result32, _ = run(single, config, tensors, masks, records, options_of(family))
        if not fit(result32, result):
            break
    else:
        raise SystemExit(f"{name}: no seed will do")
    adapters.write(folder, config, tensors, masks)
    adapters.save(logits, folder / "logits.safetensors")
    write_expected(folder, family, final, tokens, result, seed)
    loss, norm = result["loss"], result["grad_norm"]
    print(
        f"{name}: seed {seed}, margin {result['margin']:.1e}, loss {loss[0]:.3f} to {loss[-1]:.3f}, "
        f"norm {min(norm):.2f} "
        f"to {max(norm):.2f}; float32: loss {largest_relative(result32['loss'], loss):.1e}, gradients "
        f"{worst_gradient(result32['gradients'], result['gradients']):.1e}; "
        f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())} bytes",
        flush=True,
    )


def write_expected(folder, family, final, tokens, result, seed):
    adapters.save({k: v.float() for k, v in result["gradients"].items()}, folder / "gradients.safetensors")
    if len(final.config["target_modules"]) <= 3:  # to keep the whole small
        adapters.save({k: v.float() for k, v in final.tensors.items()}, folder / "final.safetensors")
    (folder / "expected.json").write_text(
        json.dumps(
            {
                "model": f"models/{family}",
                "seed": seed,
                "options": options_of(family),
                "tokens": tokens,
                "router_margin": result["margin"] if result["margin"] < float("inf") else None,
                "loss": result["loss"],
                "aux_loss": result["aux_loss"],
                "grad_norm": result["grad_norm"],
            },
            indent=1,
        )
        + "\n"
    )


def check_with_peft(folder, model_folder):
    """PEFT reads the LoRA's files as they are and gets the same logits (in float32, so to 1e-5)."""
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32, attn_implementation="eager"
    )
    model = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    expected = json.loads((folder / "expected.json").read_text())
    want = load_file(folder / "logits.safetensors")["adapter"]
    with torch.no_grad():
        got = model(input_ids=torch.tensor([expected["tokens"]])).logits[0]
    difference = float((got - want).abs().max() / want.abs().max())
    print(f"    PEFT differs by {difference:.1e}")
    assert difference < 1e-5


def make_quantised(out):
    tokens, logits = [1, 0, 95, 7, 7, 31, 64, 2, 50, 18, 33], {}
    for kind in QUANT_TYPES:
        config, weights = gguf_file.read(str(out / "models" / f"quant-{kind.lower()}.gguf"))
        logits[kind.lower()] = Decoder(config, weights, torch.float64).logits(tokens).float()
    adapters.save(logits, out / "quant" / "logits.safetensors")
    (out / "quant" / "expected.json").write_text(json.dumps({"tokens": tokens}) + "\n")
    shift = float((logits["q4_0"] - logits["f32"]).norm() / logits["f32"].norm())
    print(f"quant: {list(logits)}; q4_0 is {shift:.2f} away from f32")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, default=VECTORS)
    ap.add_argument("--only", help="cases whose name has this in it")
    args = ap.parse_args()
    torch.set_num_threads(1)  # tiny products: threads only cost
    for method, families in CASES.items():
        for family in MODELS:
            if family in families and (not args.only or args.only in f"{family}-{method}"):
                make_case(f"{family}-{method}", family, method, args.out)
                if method == "lora":
                    check_with_peft(args.out / f"{family}-{method}", args.out / "models" / family)
    if not args.only:
        make_quantised(args.out)


if __name__ == "__main__":
    main()
