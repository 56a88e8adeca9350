"""Writes the small models under tests/vectors/models: a random one of every family, and stories260K, which is trained.

Hugging Face folders are saved by transformers itself, so that config.json is what it writes (llama2 and linear get
the keys of transformers 4 and older instead, which most published models still have). GGUF files are as llama.cpp's
converter would make them. Sizes are odd on purpose: ratios of heads 1, 2, 3, 4, 5, widths that no tile divides, rows
that are not whole 32-bit words.
"""

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

import gguf_file
from decoder import Decoder

VECTORS = Path(__file__).parents[1] / "vectors"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

COMMON = dict(num_hidden_layers=2, bos_token_id=1, eos_token_id=2, max_position_embeddings=128)
MODELS = {
    # family: (class, stored as, config)
    "llama2": (
        "Llama",
        "F16",
        dict(
            hidden_size=48,
            intermediate_size=72,
            vocab_size=96,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        ),
    ),
    "llama3": (
        "Llama",
        "BF16",
        dict(
            hidden_size=48,
            intermediate_size=72,
            vocab_size=130,
            num_attention_heads=6,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
            # wavelengths 6.3 (kept), 63 (on the ramp), 628 and 6283 (divided)
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=10000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=128,
            ),
        ),
    ),
    "linear": (
        "Llama",
        "F32",
        dict(
            hidden_size=40,
            intermediate_size=56,
            vocab_size=101,
            num_attention_heads=5,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
        ),
    ),
    "mistral": (
        "Mistral",
        "BF16",
        dict(
            hidden_size=40,
            intermediate_size=72,
            vocab_size=100,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=16,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            sliding_window=None,
        ),
    ),
    "qwen2": (
        "Qwen2",
        "F16",
        dict(
            hidden_size=42,
            intermediate_size=73,
            vocab_size=97,
            num_attention_heads=3,
            num_key_value_heads=1,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
    ),
    "qwen3": (
        "Qwen3",
        "BF16",
        dict(
            hidden_size=40,
            intermediate_size=72,
            vocab_size=120,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
    ),
}
# Blocks of 32 weights need rows of whole blocks.
QUANT = dict(
    num_hidden_layers=1,
    hidden_size=64,
    intermediate_size=96,
    vocab_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
QUANT_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
OLD_KEYS = {
    "llama2": None,
    "linear": {"type": "linear", "factor": 4.0},
}  # rope_scaling as transformers 4 and older wrote it


def random_weight(name, shape, generator):
    """Sizes at which every part of the model matters to the logits, so that a mistake in any shows."""
    w = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1 + 0.2 * w
    if name.endswith("bias"):
        return 0.3 * w
    if "embed_tokens" in name:
        return 0.5 * w
    return 1.2 * w / shape[-1] ** 0.5


def make_random(family, config, dtype, seed):
    kind = getattr(transformers, f"{family}Config")(**{**COMMON, **config})
    model = getattr(transformers, f"{family}ForCausalLM")(kind).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            p.copy_(random_weight(name, p.shape, generator).to(dtype))
    return model


def use_old_keys(folder, rope_scaling):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"], config["rope_scaling"] = rope["rope_theta"], rope_scaling
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.35.0"
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def largest_difference(folder):
    """Of the decoder written out by hand from transformers reading the same folder, both in float32, over the largest
    logit."""
    ids = list(range(3, 3 + 40))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        want = model.eval()(input_ids=torch.tensor([ids])).logits[0]
        got = Decoder.load(folder, torch.float32).logits(ids)
    return float((want - got).abs().max() / want.abs().max())


def make_family(name, out, seed):
    family, stored, config = MODELS[name]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model = make_random(family, config, DTYPES[stored], seed)
    model.save_pretrained(folder, max_shard_size="40KB" if name == "mistral" else "1GB")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    if name in OLD_KEYS:
        use_old_keys(folder, OLD_KEYS[name])
    difference = largest_difference(folder)
    print(
        f"{name}: {sum(f.stat().st_size for f in folder.iterdir())} bytes, "
        f"decoder against transformers {difference:.1e}"
    )
    assert difference < 1e-5
    config, weights = json.loads((folder / "config.json").read_text()), {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(file))
    if name in ("llama3", "linear", "qwen2", "qwen3"):  # what a GGUF of the family has of its own
        gguf_file.write(out / f"{name}.gguf", config, weights, stored, name)


def make_quantised(out, seed):
    model = make_random("Llama", QUANT, torch.float32, seed)
    config = json.loads(model.config.to_json_string(use_diff=False))
    for kind in QUANT_TYPES:
        gguf_file.write(out / f"quant-{kind.lower()}.gguf", config, model.state_dict(), kind, f"quant-{kind}")


# ---- stories260K: llama2.c's version 0 of a file, float32, q and k rows in the order of neighbouring pairs ----


def read_llama2c(path):
    data = Path(path).read_bytes()
    d, ffn, layers, heads, kv_heads, vocab, positions = struct.unpack_from("<7i", data)
    assert vocab > 0, "a negative number means that the head is not tied"
    config = dict(
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        hidden_size=d,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        max_position_embeddings=positions,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
    )
    flat, at = np.frombuffer(data, "<f4", offset=28), 0

    def take(*shape):
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return flat[at - count : at].reshape(shape)

    kv = d // heads * kv_heads
    weights = {"model.embed_tokens.weight": take(vocab, d)}
    for name, shape in (
        ("input_layernorm", (d,)),
        ("self_attn.q_proj", (d, d)),
        ("self_attn.k_proj", (kv, d)),
        ("self_attn.v_proj", (kv, d)),
        ("self_attn.o_proj", (d, d)),
        ("post_attention_layernorm", (d,)),
        ("mlp.gate_proj", (ffn, d)),
        ("mlp.down_proj", (d, ffn)),
        ("mlp.up_proj", (ffn, d)),
    ):
        for layer, w in enumerate(take(layers, *shape)):
            key = f"model.layers.{layer}.{name}.weight"
            n = gguf_file.heads_of(key, config)
            weights[key] = gguf_file.unpermute(w, n) if n else w
    weights["model.norm.weight"] = take(d)
    return config, {k: torch.from_numpy(w.copy()) for k, w in weights.items()}


def read_llama2c_tokens(path, count):
    """[(text, score, type)] with SentencePiece's spelling of spaces; types as in tokenizer.ggml.token_type."""
    data, at, tokens = Path(path).read_bytes(), 4, []
    for i in range(count):
        score, length = struct.unpack_from("<fi", data, at)
        text = data[at + 8 : at + 8 + length].decode("utf-8")
        at += 8 + length
        if i < 3:
            tokens.append((("<unk>", "<s>", "</s>")[i], 0.0, (2, 3, 3)[i]))
        elif 3 <= i < 259:
            assert text == f"<0x{i - 3:02X}>", text
            tokens.append((text, score, 6))
        else:
            tokens.append((text.replace(" ", "\u2581"), score, 1))
    return tokens


def text_of(tokens, ids):
    out = b""
    for i in ids:
        text, _, kind = tokens[i]
        out += bytes([int(text[3:5], 16)]) if kind == 6 else b"" if kind == 3 else text.replace("\u2581", " ").encode()
    return out.decode().lstrip(" ")


def make_stories(source, out, count=220):
    config, weights = read_llama2c(source / "stories260K.bin")
    tokens = read_llama2c_tokens(source / "tok512.bin", config["vocab_size"])

    def add_tokenizer(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([t[0] for t in tokens])
        writer.add_token_scores([t[1] for t in tokens])
        writer.add_token_types([t[2] for t in tokens])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)

    stored = gguf_file.write(out / "stories260K.gguf", config, weights, "F16", "stories260K", add_tokenizer)
    whole, _ = Decoder(config, weights, torch.float64).greedy([1], count)
    ids, gap = Decoder(config, stored, torch.float64).greedy([1], count)
    text = text_of(tokens, ids)
    assert ids == whole, "16-bit weights change the story"
    published = (source / "stories260K.md").read_text().split("-t 0.0\n", 1)[1]
    assert published.startswith(text), text
    shutil.copyfile(source / "LICENSE.llama2.c", out / "stories260K.LICENSE")
    folder = VECTORS / "stories260K"
    folder.mkdir(exist_ok=True)
    (folder / "expected.json").write_text(
        json.dumps(
            {
                "model": "models/stories260K.gguf",
                "prompt_ids": [1],
                "greedy_ids": ids,
                "text": text,
                "smallest_gap": gap,
            }
        )
        + "\n"
    )
    print(
        f"stories260K: {(out / 'stories260K.gguf').stat().st_size} bytes, "
        f"the text is the published one, smallest gap {gap:.1e}"
    )


def main():
    transformers.utils.logging.disable_progress_bar()
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument(
        "--stories",
        type=Path,
        help="folder with llama2.c's stories260K.bin, tok512.bin, licence; left alone without it",
    )
    ap.add_argument("--out", type=Path, default=VECTORS / "models")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(MODELS):
        make_family(name, args.out, seed)
    make_quantised(args.out, 100)
    if args.stories:
        make_stories(args.stories, args.out)


if __name__ == "__main__":
    main()
