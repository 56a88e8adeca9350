"""Adapters with every tensor away from zero, and their files: as mosld and (for lora) PEFT write them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from decoder import PREFIX, Adapter, module_name

OPTIONS = dict(learning_rate=5e-3, weight_decay=0.01, max_grad_norm=1.0, steps=20, batch=2, accumulate=2)


def experts_of(config, layer, layers):
    """`num_experts` is a number, or a list spread evenly over the layers."""
    experts = config["num_experts"]
    return experts[layer * len(experts) // layers] if isinstance(experts, list) else experts


def make_config(method, targets, base, r, alpha, num_experts=None, top_k=None, dropout=0.1, aux=0.01):
    config = {
        "peft_type": "LORA" if method == "lora" else "MOSLD",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": list(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
    }
    if method != "lora":
        config.update(
            method=method,
            num_experts=num_experts,
            top_k=top_k,
            dropout=dropout if method == "mosld" else 0.0,
            dropout_on="A" if method == "mosld" else "none",
            router_aux_loss_coef=aux,
        )
    return config


def draw(config, weights, layers, seed, b_std=0.1):
    """{name: float32 tensor}. Router logits get a standard deviation of about 3, so that few choices are close ones."""
    g, r, out = torch.Generator().manual_seed(seed), config["r"], {}
    for layer in range(layers):
        for linear in config["target_modules"]:
            d_out, d_in = weights[f"{module_name(layer, linear)}.weight"].shape
            key = f"{PREFIX}{module_name(layer, linear)}."
            out[f"{key}lora_A.weight"] = torch.randn(r, d_in, generator=g) / d_in**0.5
            if config["peft_type"] == "LORA":
                out[f"{key}lora_B.weight"] = b_std * torch.randn(d_out, r, generator=g)
                continue
            experts = experts_of(config, layer, layers)
            for e in range(experts):
                out[f"{key}lora_B.{e}.weight"] = b_std * torch.randn(d_out, r, generator=g)
            small_input = linear in ("o_proj", "down_proj")  # what reaches these has not been through a norm
            out[f"{key}lora_router.weight"] = (
                (6 if small_input else 3) * torch.randn(experts, d_in, generator=g) / d_in**0.5
            )
    return out


def draw_masks(config, tensors, seed):
    """{lora_A name: u8 [r, d_in]}, each element kept with probability 1 - dropout; None where nothing drops."""
    if not config.get("dropout"):
        return None
    g = torch.Generator().manual_seed(seed)
    return {
        name: (torch.rand(t.shape, generator=g) >= config["dropout"]).to(torch.uint8)
        for name, t in tensors.items()
        if name.endswith("lora_A.weight")
    }


def save(tensors, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write(folder, config, tensors, masks=None):
    """adapter/ and, where given, masks.safetensors under `folder`."""
    folder = Path(folder)
    save({k: v.float() for k, v in tensors.items()}, folder / "adapter" / "adapter_model.safetensors")
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    if masks:
        save(masks, folder / "masks.safetensors")


def load(folder, dtype, with_masks):
    folder = Path(folder)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    tensors = {k: v.to(dtype) for k, v in load_file(folder / "adapter" / "adapter_model.safetensors").items()}
    file = folder / "masks.safetensors"
    return Adapter(config, tensors, load_file(file) if with_masks and file.exists() else None)


def read_records(path):
    """Rows of input_ids and labels; a row without labels learns all its tokens."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{"input_ids": r["input_ids"], "labels": r.get("labels", r["input_ids"])} for r in rows]
