"""Runs the built program over every case under tests/vectors and compares it with what float64 said. One table; exit
status 1 on a miss.

What is asked (a figure is the worst of its case): logits     largest difference over the largest logit       < 1e-4
(q8_0 ... files are compared on their own weights) gradients  norm of the difference over the norm, per tensor < 1e-3
of the first optimizer step losses     relative, of each of twenty steps                < 1e-4   (1e-3 for mosl and
mosld on SmolLM2, whose router margins are so small that float32 may choose another expert) balance    the same for
aux_loss and grad_norm              < 1e-3 greedy     64 tokens, the same

Small models have no near choices (make_vectors.py searches for that), so no miss is bad luck. SmolLM2 is compared
when its GGUF is named; --truth also computes its gradients in float64 here and compares them whole, not only by their
norms (minutes).
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

import smollm2_adapters

VECTORS = Path(__file__).parents[1] / "vectors"
GREEDY_STOPS = (0, 2)  # SmolLM2's end tokens: mosld generate stops there


class Table:
    def __init__(self):
        self.rows, self.missed = [], 0

    def add(self, case, what, figure, limit):
        """figure: smaller is better; NaN is a miss."""
        ok = figure < limit
        self.missed += not ok
        self.rows.append((case, what, figure, limit, ok))
        print(f"{case:16} {what:22} {figure:10.2e}  < {limit:.0e}  {'ok' if ok else 'MISS'}", flush=True)

    def fail(self, case, what, why):
        self.missed += 1
        self.rows.append((case, what, math.nan, 0, False))
        print(f"{case:16} {what:22} FAILED: {why}", flush=True)


class Program:
    def __init__(self, args, work):
        self.path, self.work, self.device, self.count = args.mosld, work, args.device, 0

    def run(self, *arguments):
        """Standard output. RuntimeError with the end of its words when the exit status is not 0."""
        command = [self.path, *map(str, arguments), "--device", self.device]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
        if done.returncode:
            words = (done.stderr.strip() or done.stdout.strip())[-400:]
            raise RuntimeError(f"exit status {done.returncode}: {words}\n    {' '.join(command)}")
        return done.stdout

    def logits(self, model, tokens, adapter=None):
        out = self.work / "logits.safetensors"
        extra = ["--adapter", adapter] if adapter else []
        self.run("logits", "--model", model, "--tokens", ",".join(map(str, tokens)), "--out", out, *extra)
        return load_file(out)["logits"]

    def train(self, model, folder, rows, o):
        """(metrics lines, gradients, final adapter's tensors)"""
        self.count += 1
        out = self.work / f"run-{self.count}"
        gradients = self.work / "gradients.safetensors"
        masks = folder / "masks.safetensors"
        arguments = ["--task", f"t={rows}", "--init-adapter", folder / "adapter"]
        arguments += ["--dropout-mask", masks] if masks.exists() else []
        arguments += ["--per-device-train-batch-size", o["batch"], "--gradient-accumulation-steps", o["accumulate"]]
        arguments += [
            "--max-steps",
            o["steps"],
            "--learning-rate",
            o["learning_rate"],
            "--lr-scheduler-type",
            "constant",
        ]
        arguments += ["--weight-decay", o["weight_decay"], "--max-grad-norm", o["max_grad_norm"]]
        arguments += ["--train-sampling-strategy", "sequential", "--dump-gradients", gradients, "--out", out]
        self.run("train", "--model", model, *arguments)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "grad_norm" in line]
        return steps, load_file(gradients), load_file(out / "adapter_model.safetensors")


def norm(x):
    return float((x.astype("f8") ** 2).sum()) ** 0.5


def relative(difference, size, whole):
    """Of one tensor; `whole`: norm of all tensors together. Some gradients are 0 in truth: B of an expert that no
    token chose, or in q_proj of one that only a first token chose (it attends to itself alone, so its query does not
    matter). The latter is a difference of equal numbers, which rounding makes 1e-9 of the whole: so 1e-7 of it is let
    pass at a limit of 1e-3.
    """
    return difference / size if size else difference / (1e-4 * whole)


def logits_error(got, want):
    """Infinite when the shapes differ."""
    if got.shape != want.shape:
        return math.inf
    return float(abs(got.astype("f8") - want).max() / abs(want).max())


def tensors_error(got, want):
    """The worst of all tensors; infinite when one is missing, superfluous or of another shape."""
    if set(got) != set(want) or any(got[k].shape != w.shape for k, w in want.items()):
        return math.inf
    whole = math.hypot(*(norm(w) for w in want.values()))
    return max(relative(norm(got[k].astype("f8") - w), norm(w), whole) for k, w in want.items())


def series_error(steps, key, want):
    got = [s.get(key) for s in steps]
    if len(got) != len(want) or any(g is None for g in got):
        return math.inf
    return max(abs(g - w) / abs(w) for g, w in zip(got, want))


def compare_steps(table, case, steps, expected, limit):
    table.add(case, "losses of 20 steps", series_error(steps, "loss", expected["loss"]), limit)
    table.add(case, "gradient norms", series_error(steps, "grad_norm", expected["grad_norm"]), max(limit, 1e-3))
    if any(expected["aux_loss"]):
        table.add(case, "balance losses", series_error(steps, "aux_loss", expected["aux_loss"]), max(limit, 1e-3))
    else:  # no router, or one that leaves no expert out
        table.add(case, "balance losses are 0", max(abs(s.get("aux_loss", 0.0)) for s in steps), 1e-30)


def small_case(table, program, folder):
    case, expected = folder.name, json.loads((folder / "expected.json").read_text())
    model, want = VECTORS / expected["model"], load_file(folder / "logits.safetensors")
    got = program.logits(model, expected["tokens"])
    table.add(case, "logits", logits_error(got, want["base"]), 1e-4)
    got = program.logits(model, expected["tokens"], folder / "adapter")
    table.add(case, "logits with adapter", logits_error(got, want["adapter"]), 1e-4)
    steps, gradients, final = program.train(model, folder, folder / "train.jsonl", expected["options"])
    table.add(case, "gradients", tensors_error(gradients, load_file(folder / "gradients.safetensors")), 1e-3)
    compare_steps(table, case, steps, expected, 1e-4)
    if (folder / "final.safetensors").exists():
        table.add(case, "final adapter", tensors_error(final, load_file(folder / "final.safetensors")), 1e-3)


def gguf_files(table, program):
    """The same small models as GGUF files: other names, permuted rows, rope_freqs, quantised blocks."""
    for name in ("llama3", "linear", "qwen2", "qwen3"):
        folder = VECTORS / f"{name}-lora"
        tokens = json.loads((folder / "expected.json").read_text())["tokens"]
        got = program.logits(VECTORS / "models" / f"{name}.gguf", tokens)
        table.add(f"{name}.gguf", "logits", logits_error(got, load_file(folder / "logits.safetensors")["base"]), 1e-4)
    tokens = json.loads((VECTORS / "quant" / "expected.json").read_text())["tokens"]
    for kind, want in load_file(VECTORS / "quant" / "logits.safetensors").items():
        got = program.logits(VECTORS / "models" / f"quant-{kind}.gguf", tokens)
        table.add(f"quant-{kind}.gguf", "logits", logits_error(got, want), 1e-4)


def greedy_misses(program, model, prompt, want):
    """How many of the tokens differ, from the first that does on. Ours go on after an end token, mosld's do not."""
    count = next((i for i, t in enumerate(want) if t in GREEDY_STOPS), len(want))
    got = program.run(
        "generate", "--model", model, "--prompt", prompt, "--max-new-tokens", len(want), "--temperature", 0, "--json"
    )
    got = [t for t in json.loads(got)["tokens"] if t not in GREEDY_STOPS]
    same = next((i for i, (g, w) in enumerate(zip(got, want[:count])) if g != w), min(len(got), count))
    return max(count, len(got)) - same


def stories(table, program):
    expected = json.loads((VECTORS / "stories260K" / "expected.json").read_text())
    out = program.run(
        "generate", "--model", VECTORS / expected["model"], "--prompt", "", "--max-new-tokens",
        len(expected["greedy_ids"]), "--temperature", 0, "--json",
    )  # fmt: skip
    same = json.loads(out)["tokens"] == expected["greedy_ids"]
    table.add("stories260K", "greedy text", 0.0 if same else 1.0, 0.5)


def smollm2_prompts(table, program, model, expected):
    tensors = load_file(VECTORS / "smollm2" / "logits.safetensors")
    for i, prompt in enumerate(expected["prompts"]):
        got = program.logits(model, prompt["ids"])[-4:]
        picked = got[:, tensors["indices"]].astype("f8")
        worst = abs(picked - tensors[f"prompt{i}"]).max() / max(prompt["largest"])
        table.add("smollm2", f"logits, prompt {i}", float(worst), 1e-4)
        table.add("smollm2", f"argmax, prompt {i}", float((got.argmax(1) != prompt["argmax"]).sum()), 0.5)
        table.add(
            "smollm2", f"greedy, prompt {i}", greedy_misses(program, model, prompt["text"], prompt["greedy"]), 0.5
        )


def true_gradients(gguf_path, folder, rows, o):
    """Of the first step, in float64."""
    import torch

    import adapters
    import gguf_file
    from decoder import Decoder, optimizer_step

    model = Decoder(*gguf_file.read(str(gguf_path)), torch.float64)
    adapter, records = adapters.load(folder, torch.float64, True), adapters.read_records(rows)
    for t in adapter.tensors.values():
        t.requires_grad_(True)
    records = records[: o["batch"] * o["accumulate"]]
    optimizer_step(model, adapter, [records[i : i + o["batch"]] for i in range(0, len(records), o["batch"])])
    return {name: t.grad.numpy() for name, t in adapter.tensors.items()}


def smollm2_training(table, program, model, expected, truth):
    rows = VECTORS / "smollm2" / "train.jsonl"
    for method, want in expected["training"].items():
        case, folder = f"smollm2-{method}", program.work / method
        smollm2_adapters.write(folder, method, want["seed"])
        steps, gradients, _ = program.train(model, folder, rows, expected["options"])
        whole = math.hypot(*want["gradient_norms"].values())
        errors = [relative(abs(norm(gradients[k]) - n), n, whole) for k, n in want["gradient_norms"].items()]
        table.add(case, "norms of gradients", max(errors), 1e-3)
        if truth:
            error = tensors_error(gradients, true_gradients(model, folder, rows, expected["options"]))
            table.add(case, "gradients", error, 1e-3)
        compare_steps(table, case, steps, want, 1e-4 if method == "lora" else 1e-3)


def attempt(table, case, what, function, *arguments):
    try:
        function(table, *arguments)
    except (RuntimeError, OSError, KeyError, ValueError, ArithmeticError, subprocess.TimeoutExpired) as e:
        table.fail(case, what, f"{type(e).__name__}: {e}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--mosld", required=True, help="the built program")
    ap.add_argument("--device", default="host", help="as mosld's --device: host, llvmpipe, ...")
    ap.add_argument("--model-smollm2", type=Path, metavar="GGUF", help="SmolLM2-135M-Instruct.Q4_1.gguf")
    ap.add_argument("--truth", action="store_true", help="SmolLM2's gradients in float64 here and now")
    ap.add_argument("--only", default="", help="cases whose name has this in it")
    ap.add_argument("--keep", type=Path, help="work folder to keep; otherwise a temporary one")
    args = ap.parse_args()
    args.mosld = os.path.abspath(args.mosld)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="mosld-compare-") as temporary:
        work = args.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        run_all(table, Program(args, work), args)
    print(f"{len(table.rows)} figures on {args.device}, {table.missed} missed")
    sys.exit(1 if table.missed or not table.rows else 0)


def run_all(table, program, args):
    for folder in sorted(VECTORS.glob("*-*/expected.json")):
        if args.only in folder.parent.name:
            attempt(table, folder.parent.name, "", small_case, program, folder.parent)
    if args.only in "gguf":
        attempt(table, "gguf", "", gguf_files, program)
    if args.only in "stories260K":
        attempt(table, "stories260K", "", stories, program)
    if args.model_smollm2 and "smollm2".startswith(args.only):
        expected = json.loads((VECTORS / "smollm2" / "expected.json").read_text())
        attempt(table, "smollm2", "prompts", smollm2_prompts, program, args.model_smollm2, expected)
        attempt(table, "smollm2", "training", smollm2_training, program, args.model_smollm2, expected, args.truth)


if __name__ == "__main__":
    main()
