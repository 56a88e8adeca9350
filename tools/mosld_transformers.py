"""MoSLD adapters in Transformers: load_adapter(model, folder) puts an adapter that mosld trained (MOSLD or plain LORA) into a model of the
LLaMA family, for inference or for training. So nobody who trained with mosld is bound to it.

    model = AutoModelForCausalLM.from_pretrained(base)
    load_adapter(model, "run")                      # or trainable=True
    save_adapter(model, "run", "again")             # what mosld reads

For a module y = x W0^T with one A [r, d_in], experts B_e [d_out, r] and a router Wg [E, d_in]:

    g = softmax(x Wg^T), the top k kept and scaled to sum 1      y += s sum_e g_e (x A^T) B_e^T      s = lora_alpha / r

In training, dropout acts on the weights of A (dropout_on "A") or on the input of A ("input"); balance_loss(model) is to be added to the
loss. Needs torch, transformers and safetensors. Ranks that differ by module are PEFT's business: load such a LoRA with PEFT.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

PREFIX = "base_model.model."


class MixtureLinear(nn.Module):
    def __init__(self, base, config, tensors):
        super().__init__()
        self.base, r = base, config["r"]
        for p in base.parameters():
            p.requires_grad_(False)
        self.scale = config["lora_alpha"] / (r**0.5 if config.get("use_rslora") else r)
        self.lora_A = nn.Parameter(tensors["lora_A.weight"])
        experts = len([name for name in tensors if name.startswith("lora_B.")])
        self.has_router = "lora_router.weight" in tensors
        names = [f"lora_B.{e}.weight" for e in range(experts)] if self.has_router else ["lora_B.weight"]
        self.lora_B = nn.ParameterList(nn.Parameter(tensors[name]) for name in names)
        self.lora_router = nn.Parameter(tensors["lora_router.weight"]) if self.has_router else None
        self.top_k = min(config.get("top_k", 1), experts)
        self.on = config.get("dropout_on", "input")
        self.dropout = config.get("dropout", 0.0) if self.has_router else config.get("lora_dropout", 0.0)
        self.balance = None  # E sum_e f_e P_e of the last forward pass

    def gates(self, x):
        p = F.linear(x, self.lora_router).float().softmax(-1)
        kept, index = p.topk(self.top_k, dim=-1)
        chosen = torch.zeros_like(p).scatter(-1, index, 1.0)
        share = chosen.flatten(0, -2).mean(0) / self.top_k
        self.balance = p.shape[-1] * (share.detach() * p.flatten(0, -2).mean(0)).sum()
        return torch.zeros_like(p).scatter(-1, index, kept / kept.sum(-1, keepdim=True))

    def forward(self, x):
        y, wide = self.base(x), x.to(self.lora_A.dtype)
        drops = self.training and self.dropout > 0
        a = F.dropout(self.lora_A, self.dropout, drops and self.on == "A")
        u = F.linear(F.dropout(wide, self.dropout, drops and self.on == "input"), a)
        if not self.has_router:
            return y + (self.scale * F.linear(u, self.lora_B[0])).to(y.dtype)
        g = self.gates(wide).to(u.dtype)
        z = (g.unsqueeze(-1) * u.unsqueeze(-2)).flatten(-2)  # [..., E r]
        return y + (self.scale * F.linear(z, torch.cat(list(self.lora_B), 1))).to(y.dtype)


def load_adapter(model, folder, trainable=False, dtype=torch.float32):
    """Replaces the adapter's modules in place and returns the model. Every tensor of the file must find its module."""
    folder = Path(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    if config["peft_type"] not in ("LORA", "MOSLD") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ValueError(f"{folder}: {config['peft_type']}, perhaps with patterns: load it with PEFT")
    grouped = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        module, _, rest = name.removeprefix(PREFIX).partition(".lora_")
        grouped.setdefault(module, {})["lora_" + rest] = tensor.to(dtype)
    for p in model.parameters():
        p.requires_grad_(False)
    for module, tensors in grouped.items():
        parent, _, leaf = module.rpartition(".")
        base = model.get_submodule(module)
        mixture = MixtureLinear(base, config, {k: v.to(base.weight.device) for k, v in tensors.items()})
        for p in mixture.parameters():
            p.requires_grad_(trainable and p is not base.weight and p is not base.bias)
        setattr(model.get_submodule(parent), leaf, mixture)
    return model


def balance_loss(model):
    """The mean over routers of the last forward pass, to be multiplied by router_aux_loss_coef; 0 where nothing routes."""
    terms = [m.balance for m in model.modules() if isinstance(m, MixtureLinear) and m.has_router and m.top_k < len(m.lora_B)]
    return torch.stack(terms).mean() if terms else torch.zeros(())


def save_adapter(model, source, folder):
    """Writes the adapter of `model` as mosld reads it, with the settings of the folder that it came from."""
    folder, tensors = Path(folder), {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, m in model.named_modules():
        if isinstance(m, MixtureLinear):
            tensors[f"{PREFIX}{name}.lora_A.weight"] = m.lora_A
            for e, b in enumerate(m.lora_B):
                tensors[f"{PREFIX}{name}.lora_B.{f'{e}.' if m.has_router else ''}weight"] = b
            if m.has_router:
                tensors[f"{PREFIX}{name}.lora_router.weight"] = m.lora_router
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, folder / "adapter_model.safetensors", {"format": "pt"})
    shutil.copy(Path(source) / "adapter_config.json", folder / "adapter_config.json")
