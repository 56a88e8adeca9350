"""GGUF files: small models written as llama.cpp's converter writes them, and SmolLM2's read back into Hugging Face's
names."""

import gguf
import numpy as np
import torch

from decoder import head_dim

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
ARCH = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # by model_type


def gguf_name(name):
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def permute(w, heads):
    """Rows of q and k from Hugging Face's order (halves of a head are pairs) to GGUF's llama order (neighbours are
    pairs)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def heads_of(name, config):
    """How many heads the rows of a permuted tensor make, or None for one that is not permuted."""
    if ARCH[config["model_type"]] != "llama":
        return None
    if ".q_proj." in name or ".attn_q." in name:
        return config["num_attention_heads"]
    if ".k_proj." in name or ".attn_k." in name:
        return config["num_key_value_heads"]
    return None


def rope_divisors(config):
    """GGUF has Llama 3's rope scaling as the tensor rope_freqs.weight: each frequency is divided by its entry."""
    from decoder import inverse_frequencies

    plain = {k: v for k, v in config.items() if k not in ("rope_parameters", "rope_scaling")}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    plain["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    return (
        (inverse_frequencies(plain, torch.float64) / inverse_frequencies(config, torch.float64))
        .numpy()
        .astype(np.float32)
    )


def add_metadata(writer, config):
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_vocab_size(config["vocab_size"])
    if writer.arch == "llama":
        writer.add_rope_dimension_count(head_dim(config))
    if head_dim(config) * config["num_attention_heads"] != config["hidden_size"]:
        writer.add_key_length(head_dim(config))
        writer.add_value_length(head_dim(config))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_divisors(config))


def add_tensor(writer, name, w, kind):
    """One-dimensional tensors stay F32, as llama.cpp keeps them. Returns what a reader gets back."""
    w = np.ascontiguousarray(w.astype(np.float32))
    kind = gguf.GGMLQuantizationType.F32 if w.ndim == 1 else kind
    data = gguf.quants.quantize(w, kind)
    if kind == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(name, data.view(np.float16) if data.dtype == np.uint8 else data)
    elif kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, w)
    else:
        writer.add_tensor(name, data, raw_dtype=kind)
    return gguf.quants.dequantize(data, kind).reshape(w.shape)


def write(path, config, weights, kind, name, add_tokenizer=None):
    """weights: Hugging Face's names. Returns the weights as a reader gets them, rows in Hugging Face's order."""
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(path), ARCH[config["model_type"]])
    writer.add_name(name)
    add_metadata(writer, config)
    if add_tokenizer:
        add_tokenizer(writer)
    back = {}
    for hf_name, w in weights.items():
        heads, w = heads_of(hf_name, config), w.float().numpy()
        got = add_tensor(writer, gguf_name(hf_name), permute(w, heads) if heads else w, kind)
        back[hf_name] = torch.from_numpy((unpermute(got, heads) if heads else got).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return back


def read_config(fields):
    """config.json's keys of a GGUF of the llama architecture without rope scaling, which is what SmolLM2 is."""

    def get(key):
        return fields[f"llama.{key}"].contents()

    assert fields["general.architecture"].contents() == "llama" and "llama.rope.scaling.type" not in fields
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": get("rope.freq_base"),
        "max_position_embeddings": get("context_length"),
        "vocab_size": get("vocab_size"),
    }


def read(path):
    """(config, weights in float32 with Hugging Face's names and order of rows) of a GGUF of the llama architecture."""
    reader = gguf.GGUFReader(path)
    config, weights = read_config(reader.fields), {}
    names = {v: k for k, v in NAMES.items()}
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        heads = heads_of(t.name, config)
        if t.name in TOP.values():
            name = next(k for k, v in TOP.items() if v == t.name)
        else:
            _, layer, module, kind = t.name.split(".")
            name = f"model.layers.{layer}.{names[module]}.{kind}"
        weights[name] = torch.from_numpy((unpermute(w, heads) if heads else w).copy())
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    return config, weights
