"""Writes the adapters that SmolLM2 is compared with into a work folder: DIR/lora, DIR/mosl, DIR/mosld, each with
adapter/ and (mosld) masks.safetensors. They are 2 to 8 MB and follow from a seed, so they are not checked in. Needs
numpy and safetensors only.

numpy's RandomState is used because its stream is frozen: the same numbers on any version and machine.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

VECTORS = Path(__file__).parents[1] / "vectors"
METHODS = ("lora", "mosl", "mosld")
LAYERS, HIDDEN, WIDTH = 30, 576, {"q_proj": 576, "v_proj": 192}
R, ALPHA, EXPERTS, TOP_K, DROPOUT = 8, 16, 8, 2, 0.1


def config_of(method):
    config = {"peft_type": "LORA" if method == "lora" else "MOSLD", "task_type": "CAUSAL_LM"}
    config.update(base_model_name_or_path="SmolLM2-135M-Instruct", r=R, lora_alpha=ALPHA, lora_dropout=0.0)
    config.update(target_modules=list(WIDTH), bias="none", fan_in_fan_out=False, inference_mode=True)
    config.update(init_lora_weights=True, modules_to_save=None, use_rslora=False)
    if method != "lora":
        drops = method == "mosld"
        config.update(method=method, num_experts=EXPERTS, top_k=TOP_K, dropout=DROPOUT if drops else 0.0)
        config.update(dropout_on="A" if drops else "none", router_aux_loss_coef=0.01)
    return config


def draw(method, seed):
    """(tensors, masks or None): float32 and u8 by name. Router rows are long enough to spread the logits."""
    rng = np.random.RandomState(seed)
    tensors, masks = {}, {}

    def normal(std, *shape):
        return (std * rng.standard_normal(shape)).astype(np.float32)

    for layer in range(LAYERS):
        for linear, width in WIDTH.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{linear}."
            tensors[f"{key}lora_A.weight"] = normal(HIDDEN**-0.5, R, HIDDEN)
            masks[f"{key}lora_A.weight"] = (rng.random_sample((R, HIDDEN)) >= DROPOUT).astype(np.uint8)
            if method == "lora":
                tensors[f"{key}lora_B.weight"] = normal(0.02, width, R)
                continue
            for e in range(EXPERTS):
                tensors[f"{key}lora_B.{e}.weight"] = normal(0.02, width, R)
            tensors[f"{key}lora_router.weight"] = normal(0.1, EXPERTS, HIDDEN)
    return tensors, masks if method == "mosld" else None


def write(folder, method, seed):
    tensors, masks = draw(method, seed)
    (folder / "adapter").mkdir(parents=True, exist_ok=True)
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config_of(method), indent=2) + "\n")
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    if masks:
        save_file(masks, folder / "masks.safetensors")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=Path, help="work folder")
    args = ap.parse_args()
    expected = json.loads((VECTORS / "smollm2" / "expected.json").read_text())
    for method in METHODS:
        write(args.out / method, method, expected["training"][method]["seed"])


if __name__ == "__main__":
    main()
