"""A LLaMA-family decoder with MoSLD adapters, written out by hand: what the C program is measured against.

transformers casts to float32 inside its norms, RoPE and loss, so `.double()` there is no truth in double; here
everything runs in the type asked for. One sequence at a time, so that nothing is padded and no mask can be wrong.

Letters: T tokens, d hidden size, H / Hk query and key/value heads, D head size, V vocabulary, r rank, E experts.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
PREFIX = "base_model.model."  # PEFT's, before the module's own name


def module_name(layer, linear):
    return f"model.layers.{layer}.{'self_attn' if linear in ATTENTION else 'mlp'}.{linear}"


@dataclass
class Adapter:
    """`tensors`: by the names of the adapter file. `masks`: {lora_A name: [r, d_in] of 0 and 1}, with `dropout` their
    p."""

    config: dict
    tensors: dict
    masks: dict = None

    @property
    def method(self):
        return self.config.get("method", "lora")

    @property
    def scale(self):
        return self.config["lora_alpha"] / self.config["r"]

    def modules(self, layers):
        return [module_name(n, t) for n in range(layers) for t in self.config["target_modules"]]


class Routing:
    """What the routers of one micro-batch did: for the balance loss, and how near any choice was to being another."""

    def __init__(self):
        self.stats = {}  # module -> [how often each expert was chosen, sum of probabilities, tokens]
        self.margin = math.inf

    def add(self, module, logits, chosen, top_k):
        probs = torch.softmax(logits, -1)
        counts = torch.zeros_like(probs).scatter_(1, chosen, 1.0).sum(0)
        if module in self.stats:
            old = self.stats[module]
            self.stats[module] = [old[0] + counts, old[1] + probs.sum(0), old[2] + len(probs)]
        else:
            self.stats[module] = [counts, probs.sum(0), len(probs)]
        if top_k < logits.shape[1]:
            top = logits.detach().sort(descending=True, dim=1).values
            self.margin = min(self.margin, float((top[:, top_k - 1] - top[:, top_k]).min()))

    def balance(self, top_k):
        """E * sum_e f_e P_e, averaged over modules; f has no gradient. 0 where every expert is always chosen."""
        values = []
        for counts, probs, tokens in self.stats.values():
            experts = len(counts)
            if experts > top_k:
                values.append(experts * ((counts / (tokens * top_k)) * (probs / tokens)).sum())
        return sum(values) / len(values) if values else 0.0


def choose(logits, k):
    """Indices of the k largest of each row; of equals, the lowest index (which torch.topk does not promise)."""
    return torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :k]


def inverse_frequencies(config, dtype):
    """[D / 2]. `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5)."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    inv = theta ** (-torch.arange(0, head_dim(config), 2, dtype=dtype) / head_dim(config))
    if kind == "linear":
        inv = inv / rope["factor"]
    elif kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * inv / (2 * math.pi)  # over the original context
        keep = ((turns - low) / (high - low)).clamp(0, 1)  # 0: divided by the factor, 1: kept
        inv = inv * (keep + (1 - keep) / rope["factor"])
    elif kind != "default":
        raise ValueError(f"rope type {kind}")
    return inv


def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, angle):
    """x [heads, T, D], angle [T, D / 2]; the two halves of a head are the pair (Hugging Face's order of rows)."""
    a, b = x.chunk(2, -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Decoder:
    def __init__(self, config, weights, dtype):
        """`weights`: Hugging Face's names; converted to `dtype`."""
        self.config, self.dtype = config, dtype
        self.weights = {name: w.to(dtype) for name, w in weights.items()}
        self.inv_freq = inverse_frequencies(config, dtype)
        self.layers = config["num_hidden_layers"]

    @classmethod
    def load(cls, folder, dtype):
        folder = Path(folder)
        weights = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights.update(load_file(file))
        return cls(json.loads((folder / "config.json").read_text()), weights, dtype)

    def linear(self, x, layer, name, adapter, routing):
        module = module_name(layer, name)
        y = F.linear(x, self.weights[f"{module}.weight"], self.weights.get(f"{module}.bias"))
        if adapter is None or name not in adapter.config["target_modules"]:
            return y
        t, key = adapter.tensors, f"{PREFIX}{module}."
        a = t[f"{key}lora_A.weight"]
        if adapter.masks is not None:
            a = a * adapter.masks[f"{key}lora_A.weight"].to(self.dtype) / (1 - adapter.config["dropout"])
        u = F.linear(x, a)
        if adapter.method == "lora":
            return y + adapter.scale * F.linear(u, t[f"{key}lora_B.weight"])
        k = adapter.config["top_k"]
        logits = F.linear(x, t[f"{key}lora_router.weight"])
        chosen = choose(logits.detach(), k)
        gates = torch.zeros_like(logits).scatter(1, chosen, torch.softmax(logits.gather(1, chosen), -1))
        routing.add(module, logits, chosen, k)
        b = torch.cat([t[f"{key}lora_B.{e}.weight"] for e in range(logits.shape[1])], 1)  # [d_out, E r]
        z = (gates.unsqueeze(2) * u.unsqueeze(1)).flatten(1)  # [T, E r]: the mixture as one product
        return y + adapter.scale * F.linear(z, b)

    def attention(self, x, layer, adapter, routing):
        c, w, D = self.config, self.weights, head_dim(self.config)
        T, H, Hk = len(x), c["num_attention_heads"], c["num_key_value_heads"]
        q, k, v = (self.linear(x, layer, n, adapter, routing).view(T, -1, D) for n in ATTENTION[:3])
        own = f"model.layers.{layer}.self_attn."
        if f"{own}q_norm.weight" in w:
            q = rms_norm(q, w[f"{own}q_norm.weight"], c["rms_norm_eps"])
            k = rms_norm(k, w[f"{own}k_norm.weight"], c["rms_norm_eps"])
        angle = torch.arange(T, dtype=self.dtype).unsqueeze(1) * self.inv_freq
        q, k, v = rotate(q.transpose(0, 1), angle), rotate(k.transpose(0, 1), angle), v.transpose(0, 1)
        k, v = k.repeat_interleave(H // Hk, 0), v.repeat_interleave(H // Hk, 0)
        scores = q @ k.transpose(1, 2) / math.sqrt(D)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        out = torch.softmax(scores.masked_fill(future, -math.inf), -1) @ v
        return self.linear(out.transpose(0, 1).reshape(T, H * D), layer, "o_proj", adapter, routing)

    def mlp(self, x, layer, adapter, routing):
        gate = self.linear(x, layer, "gate_proj", adapter, routing)
        up = self.linear(x, layer, "up_proj", adapter, routing)
        return self.linear(F.silu(gate) * up, layer, "down_proj", adapter, routing)

    def hidden(self, ids, adapter=None, routing=None):
        """ids: list of T. Returns the last hidden states [T, d], final norm applied."""
        w, eps = self.weights, self.config["rms_norm_eps"]
        routing = routing if routing is not None else Routing()
        x = w["model.embed_tokens.weight"][torch.as_tensor(ids)]
        for n in range(self.layers):
            layer = f"model.layers.{n}."
            x = x + self.attention(rms_norm(x, w[f"{layer}input_layernorm.weight"], eps), n, adapter, routing)
            x = x + self.mlp(rms_norm(x, w[f"{layer}post_attention_layernorm.weight"], eps), n, adapter, routing)
        return rms_norm(x, w["model.norm.weight"], eps)

    def head(self, x):
        tied = self.config.get("tie_word_embeddings", False)
        return F.linear(x, self.weights["model.embed_tokens.weight" if tied else "lm_head.weight"])

    def logits(self, ids, adapter=None, routing=None):
        """[T, V]"""
        return self.head(self.hidden(ids, adapter, routing))

    def loss_sum(self, record, adapter, routing):
        """Summed cross entropy of a record's target tokens, and how many there are. The label at t + 1 is what t
        predicts."""
        labels = torch.as_tensor(record["labels"][1:])
        kept = labels != -100
        x = self.hidden(record["input_ids"], adapter, routing)[:-1][kept]
        return F.cross_entropy(self.head(x), labels[kept], reduction="sum"), int(kept.sum())

    def greedy(self, ids, count):
        """`count` tokens after `ids`, the largest logit each time, and the smallest gap to the second largest.
        Without a cache: slow, but with nothing that could be wrong."""
        ids, gap = list(ids), math.inf
        with torch.no_grad():
            for _ in range(count):
                top = self.head(self.hidden(ids)[-1]).topk(2)
                gap = min(gap, float(top.values[0] - top.values[1]))
                ids.append(int(top.indices[0]))
        return ids[-count:], gap


def optimizer_step(model, adapter, micro_batches):
    """Accumulates the gradients of one step. Returns loss (mean over the step's targets), balance loss (with its
    coefficient) and the smallest router margin."""
    coef = adapter.config.get("router_aux_loss_coef", 0.0) if adapter.method != "lora" else 0.0
    targets = sum(sum(l != -100 for l in r["labels"][1:]) for m in micro_batches for r in m)
    loss, aux, margin = 0.0, 0.0, math.inf
    for micro in micro_batches:
        routing = Routing()
        total = sum(model.loss_sum(record, adapter, routing)[0] for record in micro) / targets
        balance = torch.as_tensor(coef * routing.balance(adapter.config.get("top_k", 1)) / len(micro_batches))
        (total + balance).backward()
        loss, aux, margin = loss + total.item(), aux + balance.item(), min(margin, routing.margin)
    return loss, aux, margin


def train(model, adapter, records, steps, batch, accumulate, learning_rate, weight_decay, max_grad_norm):
    """AdamW at a constant rate over the records in their order, again and again. Returns a dict with what every step
    showed, the gradients of the first step before clipping, and the smallest router margin of all."""
    for t in adapter.tensors.values():
        t.requires_grad_(True)
    params = list(adapter.tensors.values())
    adamw = torch.optim.AdamW(params, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)
    assert len(records) % (batch * accumulate) == 0, "epochs are cut into whole steps"
    out = {"loss": [], "aux_loss": [], "grad_norm": [], "margin": math.inf}
    for step in range(steps):
        rows = [records[(step * batch * accumulate + i) % len(records)] for i in range(batch * accumulate)]
        adamw.zero_grad()
        loss, aux, margin = optimizer_step(model, adapter, [rows[i : i + batch] for i in range(0, len(rows), batch)])
        if step == 0:
            out["gradients"] = {name: t.grad.clone() for name, t in adapter.tensors.items()}
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in params]))
        for p in params:
            p.grad *= min(1.0, max_grad_norm / (float(norm) + 1e-6))
        adamw.step()
        out["loss"].append(loss)
        out["aux_loss"].append(aux)
        out["grad_norm"].append(float(norm))
        out["margin"] = min(out["margin"], margin)
    return out
