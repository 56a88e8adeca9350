"""Training speed on CPU cores: PyTorch with PEFT's LoRA, PyTorch with MoSLD written as one product, and (--mosld)
mosld itself, in turn.

SmolLM2-135M dequantised from its GGUF to float32; r 8, alpha 16 on q and v; MoSLD with E 8, k 2, dropout 0.1 on A;
AdamW. --batch full: 2 x 256 tokens a step, every token a target. --batch real: 8 rows a step, drawn from gsm8k and arc-easy
alike, prompts bear no loss; PyTorch pads them to the longest of the batch, mosld packs them; padding is not counted as
tokens. Each round runs every contender in a process of its own, pinned to the same cores; what counts is the median of
the steps after the first of each round. Peak memory is the process's largest resident size.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

R, ALPHA, EXPERTS, TOP_K, DROPOUT, AUX = 8, 16, 8, 2, 0.1, 0.01
LENGTH = 256
ROWS = {"full": 2, "real": 8}  # a step
DATA = Path(__file__).parents[2] / "data"


# ---- PyTorch's side: runs in a child process ----


def load_model(path):
    import torch
    import transformers

    import gguf_file

    config, weights = gguf_file.read(path)
    rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    kind = transformers.LlamaConfig(rope_parameters=rope, **{k: v for k, v in config.items() if k != "model_type"})
    model = transformers.LlamaForCausalLM(kind).to(torch.float32)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"]), (missing, unexpected)
    model.tie_weights()
    return model.requires_grad_(False)


def with_lora(model):
    import peft

    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config), lambda: 0.0


def with_mosld(model):
    """Every q and v gets one A, a router and the experts' B side by side: y = x W0^T + s z Bcat^T."""
    import torch
    import torch.nn.functional as F

    balances = []

    class Mixture(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            d_out, d_in = base.weight.shape
            self.base = base
            self.a = torch.nn.Parameter(torch.randn(R, d_in) / d_in**0.5)
            self.b = torch.nn.Parameter(torch.zeros(d_out, EXPERTS * R))
            self.router = torch.nn.Parameter(0.02 * torch.randn(EXPERTS, d_in))

        def forward(self, x):
            a = F.dropout(self.a, DROPOUT)
            ul = F.linear(x, torch.cat([a, self.router]))
            u, logits = ul[..., :R], ul[..., R:]
            top, chosen = logits.topk(TOP_K, -1)
            gates = torch.zeros_like(logits).scatter(-1, chosen, torch.softmax(top, -1))
            share = (gates.detach() > 0).float().flatten(0, -2).mean(0) / TOP_K
            balances.append(EXPERTS * (share * torch.softmax(logits, -1).flatten(0, -2).mean(0)).sum())
            z = (gates.unsqueeze(-1) * u.unsqueeze(-2)).flatten(-2)
            return self.base(x) + ALPHA / R * F.linear(z, self.b)

    for layer in model.model.layers:
        layer.self_attn.q_proj = Mixture(layer.self_attn.q_proj)
        layer.self_attn.v_proj = Mixture(layer.self_attn.v_proj)

    def take_balance():
        value = AUX * torch.stack(balances).mean()
        balances.clear()
        return value

    return model, take_balance


def padded(rows):
    """ids, attention mask and labels of a batch, padded on the right to its longest row."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def stack(key, fill):
        return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])

    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    return stack("input_ids", 0), torch.tensor(mask), stack("labels", -100)


def child(args):
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, balance = (with_lora if args.child == "lora" else with_mosld)(load_model(args.gguf))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    rows, count = read_rows(args.rows), ROWS[args.batch]
    for step in range(args.steps):
        begin = time.perf_counter()
        ids, mask, labels = padded(rows[step * count : step * count + count])
        optimizer.zero_grad()
        # a mask of ones alone is left out, as the model is faster without
        loss = model(input_ids=ids, attention_mask=None if mask.all() else mask, labels=labels).loss
        (loss + balance()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(json.dumps({"seconds": time.perf_counter() - begin, "loss": loss.item()}), flush=True)


# ---- the race ----


def spawn(command, cores, log):
    """Runs a command pinned to `cores`. Returns its peak resident size in bytes; a failure ends the script with its
    output."""
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    env["OMP_NUM_THREADS"] = str(len(cores))
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=env, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}\n{Path(log).read_text()[-2000:]}")
    return usage.ru_maxrss * 1024


def run_torch(method, args, rows, cores, work):
    log = work / "torch.log"
    command = [sys.executable, __file__, "--gguf", args.gguf, "--child", method, "--rows", str(rows), "--batch", args.batch]
    memory = spawn(command + ["--steps", str(args.steps), "--threads", str(args.threads)], cores, log)
    steps = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"seconds"')]
    count, all_rows = ROWS[args.batch], read_rows(rows)
    tokens = [sum(len(row["input_ids"]) for row in all_rows[i * count : i * count + count]) for i in range(args.steps)]
    return [n / s["seconds"] for n, s in zip(tokens, steps, strict=True)], steps[0]["loss"], memory


def run_mosld(method, args, rows, cores, work):
    out = work / f"run-{time.time_ns()}"
    command = [
        args.mosld,
        "train",
        "--model",
        args.gguf,
        "--task",
        f"bench={rows}",
        "--method",
        method,
        "--out",
        str(out),
    ]
    command += [
        "--device",
        args.device,
        "--threads",
        str(args.threads),
        "--max-steps",
        str(args.steps),
        "--per-device-train-batch-size",
        str(ROWS[args.batch]),
    ]
    command += ["--max-length", "1024", "--learning-rate", "1e-3", "--lr-scheduler-type", "constant"]
    command += ["--train-sampling-strategy", "sequential", "--target-modules", "q_proj,v_proj", "--r", str(R)]
    command += ["--lora-alpha", str(ALPHA)]
    if method == "mosld":
        command += ["--num-experts", str(EXPERTS), "--top-k", str(TOP_K), "--dropout", str(DROPOUT)]
    memory = spawn(command, cores, work / "mosld.log")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [m for m in lines if "tokens_per_second" in m]
    return [m["tokens_per_second"] for m in steps], steps[0]["loss"], memory


# ---- rows ----


def full_rows(steps):
    rng = random.Random(0)
    for _ in range(steps * ROWS["full"]):
        ids = [rng.randrange(100, 49000) for _ in range(LENGTH)]
        yield ids, ids


def real_rows(steps, gguf):
    """Rows of gsm8k and arc-easy in a random order, as many of one as of the other, tokenised as mosld does it."""
    from make_tokenizer_vectors import load

    rng, tok = random.Random(0), load(gguf)
    half = steps * ROWS["real"] // 2
    tasks = {name: [json.loads(line) for line in open(DATA / name / "train.jsonl")] for name in ("gsm8k", "arc-easy")}
    texts = [(r["prompt"], r["completion"]) for r in rng.sample(tasks["gsm8k"], half)]
    texts += [
        (f"Question: {r['question']}\nAnswer:", " " + r["choices"][r["answer"]]) for r in rng.sample(tasks["arc-easy"], half)
    ]
    rng.shuffle(texts)
    for prompt, completion in texts:
        p, c = tok.encode(prompt).ids, tok.encode(completion).ids
        yield p + c, [-100] * len(p) + c


def write_rows(args, path):
    with open(path, "w") as f:
        for ids, labels in full_rows(args.steps) if args.batch == "full" else real_rows(args.steps, args.gguf):
            f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")


def read_rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def race(args, work):
    rows, cores = work / "rows.jsonl", sorted(os.sched_getaffinity(0))[: args.threads]
    write_rows(args, rows)
    contenders = [("torch", "lora"), ("torch", "mosld")]
    if args.mosld:
        contenders = [(who, method) for method in ("lora", "mosld") for who in ("torch", "mosld")]
    speeds, memory = {c: [] for c in contenders}, {c: 0 for c in contenders}
    for number in range(args.rounds):
        for who, method in contenders:
            each, loss, peak = (run_torch if who == "torch" else run_mosld)(method, args, rows, cores, work)
            speeds[who, method] += each[1:]
            memory[who, method] = max(memory[who, method], peak)
            print(f"round {number + 1}: {who} {method}: loss {loss:.4f}; " + " ".join(f"{s:.0f}" for s in each), flush=True)
    return speeds, memory


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--gguf", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    ap.add_argument("--mosld", help="the built program; without it PyTorch runs alone")
    ap.add_argument("--batch", choices=tuple(ROWS), default="full", help="random full rows, or real rows of unequal lengths")
    ap.add_argument("--device", default="host", help="mosld's device")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--steps", type=int, default=5, help="a round; the first is a warm-up and not counted")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--child", choices=("lora", "mosld"), help=argparse.SUPPRESS)
    ap.add_argument("--rows", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.child:
        return child(args)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as work:
        speeds, memory = race(args, Path(work))
    if load > 0.5:
        print(
            f"\nThe load was {load:.1f} at the start: others used the cores. PyTorch's threads wait for each other and lose most by"
        )
        print("that, so these ratios say nothing. Run this again on a quiet machine.")
    print(f"\n{'':16} tokens/s, median (lowest to highest)   peak memory")
    for (who, method), s in speeds.items():
        spread = f"{statistics.median(s):.1f} ({min(s):.1f} to {max(s):.1f})"
        print(f"{who:6} {method:8}  {spread:36}   {memory[who, method] / 2**30:.2f} GiB")
    for method in ("lora", "mosld") if args.mosld else ():
        ratio = statistics.median(speeds["mosld", method]) / statistics.median(speeds["torch", method])
        print(f"{method}: mosld runs at {ratio:.2f} times PyTorch's speed")


if __name__ == "__main__":
    main()
