"""Adapters go both ways between a built mosld and the others, and mean the same there. Every line is one comparison of logits (largest
difference over the largest logit, limit 1e-4, f16 files 2e-3, q8_0 3e-2 as measured for the base weights alone); exit status 1 on a miss.

    PEFT loads what mosld trained (lora; mosld with one expert) and exported; mosld loads what PEFT saved: rank and alpha patterns, a
    regular expression as target_modules, layers_to_transform, exclude_modules, rank-stabilised scaling
    Transformers loads the merged model; tools/mosld_transformers.py runs mixtures; the gguf package reads the GGUF forms
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

VECTORS = Path(__file__).parents[1] / "vectors"
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
TOKENS = [1, 7, 30, 9, 64, 2, 11, 5]
missed = 0


def line(what, got, want, limit=1e-4):
    global missed
    off = float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())
    ok = off < limit
    missed += not ok
    print(f"{'ok  ' if ok else 'MISS'} {off:9.2e} < {limit:g}  {what}", flush=True)


class Engine:
    def __init__(self, program, work):
        self.program, self.work = program, work

    def run(self, *words, status=0):
        done = subprocess.run([self.program, *map(str, words)], cwd=self.work, capture_output=True, text=True)
        assert done.returncode == status, f"{words}: status {done.returncode}: {done.stderr}"
        return done.stderr

    def logits(self, model, adapter=None):
        out = self.work / "logits.safetensors"
        more = ["--adapter", adapter] if adapter else []
        ids = " ".join(map(str, TOKENS))
        self.run("logits", "--model", model, "--device", "host", "--tokens", ids, "--out", out, *more)
        return load_file(out)["logits"]

    def train(self, model, out, *words):
        rows = self.work / "rows.jsonl"
        rows.write_text("\n".join(json.dumps({"input_ids": [1, 5 + i, 9, 3, 17 + i]}) for i in range(8)) + "\n")
        self.run("train", "--model", model, "--device", "host", "--task", f"t={rows}", "--out", out, "--max-steps", 4,
                 "--learning-rate", "0.05", "--per-device-train-batch-size", 4, *words)


def transformers_model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def torch_logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([TOKENS])).logits[0].double().numpy()


def with_peft(folder, adapter):
    from peft import PeftModel

    return torch_logits(PeftModel.from_pretrained(transformers_model(folder), str(adapter)).eval())


def mosld_to_peft(engine, family):
    model = VECTORS / "models" / family
    base = engine.logits(model)
    for name, words in {
        "lora": ["--method", "lora", "--r", 4, "--target-modules", "all-linear"],
        "lora, rslora": ["--method", "lora", "--r", 4, "--use-rslora"],
        "mosld with one expert": ["--method", "mosld", "--num-experts", 1, "--top-k", 1, "--dropout", 0],
    }.items():
        out = engine.work / f"{family}-{name.replace(' ', '-').replace(',', '')}"
        engine.train(model, out, *words)
        want = engine.logits(model, out)
        assert np.abs(want - base).max() > 1e-2 * np.abs(base).max(), "the adapter does nothing"
        line(f"{family}: {name}, trained by mosld, in PEFT", with_peft(model, out), want)


def peft_to_mosld(engine, family):
    from peft import LoraConfig, get_peft_model

    model = VECTORS / "models" / family
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    cases = {
        "patterns": dict(target_modules=every, rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 7, r".*\.0\..*up_proj": 3},
                         alpha_pattern={"k_proj": 3, r"layers\.1\.self_attn\..*": 5}),
        "patterns, rslora": dict(target_modules=every, rank_pattern={"v_proj": 6}, use_rslora=True),
        "regular expression": dict(target_modules=r".*\.[01]\.(self_attn\.[qv]_proj|mlp\.up_proj)"),
        "full names": dict(target_modules=["model.layers.0.self_attn.q_proj", "layers.1.mlp.gate_proj", "o_proj"]),
        "layers_to_transform": dict(target_modules=["q_proj", "down_proj"], layers_to_transform=[1]),
        "exclude_modules": dict(target_modules="all-linear", exclude_modules=r".*\.0\.mlp\..*"),
    }
    for name, options in cases.items():
        torch.manual_seed(3)
        peft = get_peft_model(transformers_model(model), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **options)).eval()
        for key, value in peft.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(value, std=0.1)
        want = torch_logits(peft)
        out = engine.work / f"peft-{family}-{name.replace(' ', '-').replace(',', '')}"
        peft.save_pretrained(out)
        line(f"{family}: PEFT's {name}, in mosld", engine.logits(model, out), want)
        back = engine.work / "back"
        engine.run("export", "--adapter", out, "--to", "peft", "--out", back, "--overwrite")
        line(f"{family}: PEFT's {name}, exported again, in PEFT", with_peft(model, back), want)
        engine.run("export", "--adapter", out, "--model", model, "--to", "merged", "--out", engine.work / "merged", "--overwrite",
                   "--dtype", "f32")
        line(f"{family}: PEFT's {name}, merged, in Transformers", torch_logits(transformers_model(engine.work / "merged")), want)


def transformers(engine, family):
    """tools/mosld_transformers.py: forward, the gradients of one step against the engine's, and back to a file."""
    import mosld_transformers

    model = VECTORS / "models" / family
    for method in ("lora", "mosl", "mosld"):
        folder = VECTORS / f"{family}-{method}/adapter"
        want = engine.logits(model, folder)
        loaded = mosld_transformers.load_adapter(transformers_model(model), folder, trainable=True).eval()
        line(f"{family}: {method}, in Transformers by mosld_transformers.py", torch_logits(loaded), want)
        mosld_transformers.save_adapter(loaded, folder, engine.work / "again")
        line(f"{family}: {method}, written by it, in mosld", engine.logits(model, engine.work / "again"), want, 1e-9)
        rows, given = engine.work / "one.jsonl", engine.work / "gradients.safetensors"
        rows.write_text(json.dumps({"input_ids": TOKENS}) + "\n")
        engine.run("train", "--model", model, "--device", "host", "--task", f"t={rows}", "--init-adapter", engine.work / "again", "--out",
                   engine.work / f"g-{family}-{method}", "--max-steps", 1, "--dump-gradients", given, "--per-device-train-batch-size", 1,
                   "--gradient-accumulation-steps", 1, *NO_DROPOUT[method](engine))
        config = json.loads((folder / "adapter_config.json").read_text())
        ids = torch.tensor([TOKENS])
        loss = loaded(input_ids=ids, labels=ids).loss
        (loss + config.get("router_aux_loss_coef", 0) * mosld_transformers.balance_loss(loaded)).backward()
        engine_gradients, names = load_file(given), {}
        for name, module in loaded.named_modules():
            if isinstance(module, mosld_transformers.MixtureLinear):
                names[f"{mosld_transformers.PREFIX}{name}.lora_A.weight"] = module.lora_A
                if module.has_router:
                    names[f"{mosld_transformers.PREFIX}{name}.lora_router.weight"] = module.lora_router
                    names[f"{mosld_transformers.PREFIX}{name}.lora_B.0.weight"] = module.lora_B[0]
        largest = {n: float(np.abs(engine_gradients[n]).max()) for n in names}
        floor = 1e-3 * max(largest.values())  # a gradient that all but vanishes is rounding alone
        worst = max(float(np.abs(p.grad.numpy() - engine_gradients[n]).max()) / max(largest[n], floor) for n, p in names.items())
        line(f"{family}: {method}, gradients of a step, {len(names)} tensors", [1 + worst], np.array([1.0]), 1e-3)


def without_dropout(engine):
    """The engine draws masks of its own, so the comparison is made without: the copy's setting says 0."""
    path = engine.work / "again/adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dropout": 0.0}))
    return []


NO_DROPOUT = {"lora": lambda engine: [], "mosl": without_dropout, "mosld": without_dropout}


def gguf_tensors(path):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    return reader, {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}


def to_gguf(engine, family):
    """The LoRA file is held to what llama.cpp does with it: W + alpha / r lora_b lora_a, in the order of the model's own GGUF rows."""
    model, adapter = VECTORS / "models" / f"{family}.gguf", VECTORS / f"{family}-lora/adapter"
    want = engine.logits(model, adapter)
    out, merged = engine.work / f"{family}.lora.gguf", engine.work / f"{family}.merged.gguf"
    engine.run("export", "--adapter", adapter, "--model", model, "--to", "gguf", "--out", out, "--overwrite")
    engine.run("export", "--adapter", adapter, "--model", model, "--to", "merged", "--out", merged, "--dtype", "f32", "--overwrite")
    line(f"{family}.gguf: merged into GGUF, in mosld", engine.logits(merged), want)
    (_, base), (reader, lora), (_, sums) = gguf_tensors(model), gguf_tensors(out), gguf_tensors(merged)
    text = {key: reader.fields[key].contents() for key in ("general.type", "adapter.type", "general.architecture")}
    assert text["general.type"] == "adapter" and text["adapter.type"] == "lora", text
    alpha, worst, names = reader.fields["adapter.lora.alpha"].contents(), 0.0, [n for n in lora if n.endswith(".lora_a")]
    assert len(lora) == 2 * len(names) and names
    for name in names:
        a, b, weight = lora[name], lora[name[:-1] + "b"], name[: -len(".lora_a")]
        worst = max(worst, np.abs(base[weight] + alpha / a.shape[0] * b @ a - sums[weight]).max() / np.abs(sums[weight]).max())
    line(f"{family}: llama.cpp's LoRA file ({text['general.architecture']}) on the base file's rows, {len(names)} modules", [worst + 1], np.array([1.0]))
    for dtype, limit in ("f16", 2e-3), ("q8_0", 3e-2):
        engine.run("export", "--adapter", adapter, "--model", model, "--to", "merged", "--out", merged, "--dtype", dtype, "--overwrite")
        line(f"{family}.gguf: merged as {dtype}, in mosld", engine.logits(merged), want, limit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mosld", required=True)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        engine = Engine(str(Path(options.mosld).resolve()), Path(work))
        for family in ("llama2", "qwen3"):
            for step in (mosld_to_peft, peft_to_mosld, transformers):
                if options.only in step.__name__:
                    step(engine, family)
        for family in ("llama3", "qwen2", "qwen3"):
            if options.only in to_gguf.__name__:
                to_gguf(engine, family)
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
