"""A synthetic checkpoint with the documented keys and shapes of Stable Audio Open Small, at any size.

Written from the published layout, not from our code: what both say is what the tests compare.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, DEPTH, HEADS, COND, LATENT, CHANNELS = 64, 2, 2, 512, 4, 8
MULTIPLES, STRIDES = [1, 2, 4, 8, 16], [2, 4, 4, 8, 8]


def model_config() -> dict[str, Any]:
    """`model_config.json` as published, but for its sizes and its training section."""
    coder = {"channels": CHANNELS, "c_mults": MULTIPLES, "strides": STRIDES, "use_snake": True}
    return {
        "model_type": "diffusion_cond",
        "sample_size": 524288,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "config": {
                    "encoder": {"type": "oobleck", "config": {"in_channels": 2, "latent_dim": 2 * LATENT, **coder}},
                    "decoder": {
                        "type": "oobleck",
                        "config": {"out_channels": 2, "latent_dim": LATENT, "final_tanh": False, **coder},
                    },
                    "bottleneck": {"type": "vae"},
                    "latent_dim": LATENT,
                    "downsampling_ratio": 2048,
                    "io_channels": 2,
                },
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-small", "max_length": 64}},
                    {"id": "seconds_total", "type": "number", "config": {"min_val": 0, "max_val": 256}},
                ],
                "cond_dim": COND,
            },
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_total"],
                "global_cond_ids": ["seconds_total"],
                "diffusion_objective": "rf_denoiser",
                "type": "dit",
                "config": {
                    "io_channels": LATENT,
                    "embed_dim": WIDTH,
                    "depth": DEPTH,
                    "num_heads": HEADS,
                    "cond_token_dim": COND,
                    "global_cond_dim": COND,
                    "transformer_type": "continuous_transformer",
                    "attn_kwargs": {"qk_norm": "ln"},
                },
            },
            "io_channels": LATENT,
        },
        "training": {"use_ema": True},
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Every published key and its shape."""
    found: dict[str, tuple[int, ...]] = {}
    model = "model.model."
    found |= {f"{model}timestep_features.weight": (128, 1)}
    found |= {f"{model}to_timestep_embed.0.weight": (WIDTH, 256), f"{model}to_timestep_embed.0.bias": (WIDTH,)}
    found |= {f"{model}to_timestep_embed.2.weight": (WIDTH, WIDTH), f"{model}to_timestep_embed.2.bias": (WIDTH,)}
    for name in ("to_cond_embed", "to_global_embed"):
        found |= {f"{model}{name}.0.weight": (WIDTH, COND), f"{model}{name}.2.weight": (WIDTH, WIDTH)}
    for name in ("preprocess_conv", "postprocess_conv"):
        found[f"{model}{name}.weight"] = (LATENT, LATENT, 1)
    found[f"{model}transformer.project_in.weight"] = (WIDTH, LATENT)
    found[f"{model}transformer.project_out.weight"] = (LATENT, WIDTH)
    head = WIDTH // HEADS
    found[f"{model}transformer.rotary_pos_emb.inv_freq"] = (max(head // 2, 32) // 2,)
    for layer in range(DEPTH):
        block = f"{model}transformer.layers.{layer}."
        for norm in ("pre_norm", "cross_attend_norm", "ff_norm"):
            found |= {f"{block}{norm}.gamma": (WIDTH,), f"{block}{norm}.beta": (WIDTH,)}
        found |= {f"{block}self_attn.to_qkv.weight": (3 * WIDTH, WIDTH)}
        found |= {
            f"{block}cross_attn.to_q.weight": (WIDTH, WIDTH),
            f"{block}cross_attn.to_kv.weight": (2 * WIDTH, WIDTH),
        }
        for attention in ("self_attn", "cross_attn"):
            found[f"{block}{attention}.to_out.weight"] = (WIDTH, WIDTH)
            for norm in ("q_norm", "k_norm"):
                found |= {f"{block}{attention}.{norm}.weight": (head,), f"{block}{attention}.{norm}.bias": (head,)}
        found |= {f"{block}ff.ff.0.proj.weight": (8 * WIDTH, WIDTH), f"{block}ff.ff.0.proj.bias": (8 * WIDTH,)}
        found |= {f"{block}ff.ff.2.weight": (WIDTH, 4 * WIDTH), f"{block}ff.ff.2.bias": (WIDTH,)}
    number = "conditioner.conditioners.seconds_total.embedder.embedding."
    found |= {f"{number}0.weights": (128,), f"{number}1.weight": (COND, 257), f"{number}1.bias": (COND,)}
    return found | _coder_shapes("encoder") | _coder_shapes("decoder")


def _coder_shapes(side: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    widths = [CHANNELS * multiple for multiple in (1, *MULTIPLES)]

    def conv(path: str, out: int, into: int, kernel: int, *, bias: bool = True, transposed: bool = False) -> None:
        shape = (into, out, kernel) if transposed else (out, into, kernel)
        found[f"{path}.weight_g"] = (shape[0], 1, 1)
        found[f"{path}.weight_v"] = shape
        if bias:
            found[f"{path}.bias"] = (out,)

    def snake(path: str, width: int) -> None:
        found.update({f"{path}.alpha": (width,), f"{path}.beta": (width,)})

    def residual(path: str, width: int) -> None:
        snake(f"{path}.layers.0", width)
        conv(f"{path}.layers.1", width, width, 7)
        snake(f"{path}.layers.2", width)
        conv(f"{path}.layers.3", width, width, 1)

    root, stages = f"pretransform.model.{side}.layers", len(STRIDES)
    if side == "encoder":
        conv(f"{root}.0", widths[0], 2, 7)
        for i, stride in enumerate(STRIDES):
            block = f"{root}.{i + 1}"
            for unit in range(3):
                residual(f"{block}.layers.{unit}", widths[i])
            snake(f"{block}.layers.3", widths[i])
            conv(f"{block}.layers.4", widths[i + 1], widths[i], 2 * stride)
        snake(f"{root}.{stages + 1}", widths[-1])
        conv(f"{root}.{stages + 2}", 2 * LATENT, widths[-1], 3)
    else:
        conv(f"{root}.0", widths[-1], LATENT, 7)
        for place, i in enumerate(reversed(range(stages))):
            block = f"{root}.{place + 1}"
            snake(f"{block}.layers.0", widths[i + 1])
            conv(f"{block}.layers.1", widths[i], widths[i + 1], 2 * STRIDES[i], transposed=True)
            for unit in range(3):
                residual(f"{block}.layers.{unit + 2}", widths[i])
        snake(f"{root}.{stages + 1}", widths[0])
        conv(f"{root}.{stages + 2}", 2, widths[0], 7, bias=False)
    return found


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of those shapes; zero where the published ones are zero."""
    rng = torch.Generator().manual_seed(seed)
    made = {name: 0.05 * torch.randn(shape, generator=rng) for name, shape in shapes().items()}
    return {name: torch.zeros_like(t) if "norm.beta" in name else t for name, t in made.items()}


def write(folder: Path, *, ckpt: bool = False, **changes: Tensor | None) -> tuple[Path, Path]:
    """`model_config.json` and the weights; `changes` replace tensors by name, or remove them (None)."""
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = folder / "model_config.json", folder / ("model.ckpt" if ckpt else "model.safetensors")
    config.write_text(json.dumps(model_config()), encoding="utf-8")
    made: dict[str, Tensor] = tensors()
    for name, tensor in changes.items():
        if tensor is None:
            del made[name]
        else:
            made[name] = tensor
    if ckpt:
        torch.save({"state_dict": made, "epoch": 3}, weights)
    else:
        save_file(made, weights)
    return config, weights
