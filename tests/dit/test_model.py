"""The DiT: shapes, masking, the feature tap, the published layout."""

from __future__ import annotations

import pytest
import torch

from sonarc.contracts.config import DiTConfig
from sonarc.contracts.errors import ModelInputError
from sonarc.contracts.presets import saos
from sonarc.dit import PUBLISHED_PREFIXES, Conditioning, DiT, concatenate_conditioning
from sonarc.text import TextStates

TINY = {
    "adaln": DiTConfig(latent_channels=4, width=32, depth=3, heads=2, patch=2, cond_width=16),
    "prepend": DiTConfig(latent_channels=4, width=32, depth=3, heads=2, patch=1, cond_width=24, global_cond="prepend"),
}
TEXT_WIDTH = 24


@pytest.fixture(params=sorted(TINY))
def model(request: pytest.FixtureRequest) -> DiT:
    """A model whose zero-initialised weights have been moved, so that every part matters."""
    torch.manual_seed(0)
    model = DiT(TINY[request.param], TEXT_WIDTH).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def conditioning(batch: int, tokens: int = 6) -> Conditioning:
    generator = torch.Generator().manual_seed(batch)
    mask_BL = torch.arange(tokens) < torch.randint(1, tokens + 1, (batch, 1), generator=generator)
    states_BLE = torch.randn(batch, tokens, TEXT_WIDTH, generator=generator) * mask_BL[..., None]
    return Conditioning(TextStates(states_BLE, mask_BL), torch.rand(batch, generator=generator) * 10)


def inputs(model: DiT, batch: int = 3, frames: int = 12) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(7)
    x_BCT = torch.randn(batch, model.config.latent_channels, frames, generator=generator)
    return x_BCT, torch.rand(batch, generator=generator), conditioning(batch)


@torch.no_grad()
def test_a_fresh_model_says_zero(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    fresh = DiT(model.config, TEXT_WIDTH)
    assert fresh(x_BCT, t_B, cond).abs().max() == 0
    assert model(x_BCT, t_B, cond).shape == x_BCT.shape
    assert model(x_BCT, t_B, cond).abs().max() > 0


@torch.no_grad()
def test_padding_never_reaches_true_frames(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    mask_BT = torch.arange(12) < torch.tensor([[12], [8], [2]])
    clean = model(x_BCT, t_B, cond, mask_BT=mask_BT)
    other = torch.where(mask_BT[:, None], x_BCT, 100.0)
    changed = model(other, t_B, cond, mask_BT=mask_BT)
    where = mask_BT[:, None].expand_as(x_BCT)
    assert torch.equal(clean[where], changed[where])
    # A clip generated at just its own length is the same clip.
    short = model(x_BCT[1:2, :, :8], t_B[1:2], cond[1:2])
    assert torch.allclose(clean[1:2, :, :8], short, atol=1e-5)


@torch.no_grad()
def test_text_duration_and_noise_level_all_matter(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    plain = model(x_BCT, t_B, cond)
    assert not torch.allclose(plain, model(x_BCT, t_B * 0.5, cond), atol=1e-4)
    assert not torch.allclose(plain, model(x_BCT, t_B, Conditioning(cond.text, cond.seconds_B * 3)), atol=1e-4)
    assert not torch.allclose(plain, model(x_BCT, t_B, cond.null()), atol=1e-4)


@torch.no_grad()
def test_features_are_the_states_of_the_truncated_forward_pass(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    tokens = 12 // model.config.patch
    assert model.features(x_BCT, t_B, cond, depth=2).shape == (3, tokens, 32)
    states: list[torch.Tensor] = []
    handle = model.transformer.layers[1].register_forward_hook(lambda _m, _i, out: states.append(out))
    model(x_BCT, t_B, cond)
    handle.remove()
    assert torch.equal(model.features(x_BCT, t_B, cond, depth=2), states[0][:, -tokens:])
    for depth in (0, 4):
        with pytest.raises(ModelInputError, match=f"{depth} blocks"):
            model.features(x_BCT, t_B, cond, depth=depth)


def test_recomputing_activations_changes_no_gradient(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    model(x_BCT, t_B, cond).square().mean().backward()
    plain = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.recompute = True
    model(x_BCT, t_B, cond).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.allclose(parameter.grad, plain[name], atol=1e-6), name


@torch.no_grad()
def test_a_batch_is_its_clips(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    parts = [model(x_BCT[i : i + 1], t_B[i : i + 1], cond[i : i + 1]) for i in range(3)]
    assert torch.allclose(model(x_BCT, t_B, cond), torch.cat(parts), atol=1e-5)
    rebuilt = concatenate_conditioning([cond[i : i + 1] for i in range(3)])
    assert torch.equal(rebuilt.text.tokens_BLE, cond.text.tokens_BLE)


def test_what_does_not_fit_is_refused(model: DiT) -> None:
    x_BCT, t_B, cond = inputs(model)
    with pytest.raises(ModelInputError, match="channels"):
        model(x_BCT[:, :3], t_B, cond)
    with pytest.raises(ModelInputError, match="frames"):
        model(x_BCT[:, :, :0], t_B, cond)
    with pytest.raises(ModelInputError, match="noise levels"):
        model(x_BCT, t_B[:2], cond)
    with pytest.raises(ModelInputError, match="prompts"):
        model(x_BCT, t_B, cond[:2])
    with pytest.raises(ModelInputError, match="mask"):
        model(x_BCT, t_B, cond, mask_BT=torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(ModelInputError, match="wide"):
        narrow = TextStates(cond.text.tokens_BLE[..., :8], cond.text.mask_BL)
        model(x_BCT, t_B, Conditioning(narrow, cond.seconds_B))


def test_frames_beyond_a_patch_are_refused() -> None:
    model = DiT(TINY["adaln"], TEXT_WIDTH)
    with pytest.raises(ModelInputError, match="multiple of 2"):
        model(torch.zeros(1, 4, 7), torch.zeros(1), conditioning(1))


def published_name(name: str) -> str:
    prefix = next(prefix for prefix in PUBLISHED_PREFIXES if name.startswith(prefix))
    return PUBLISHED_PREFIXES[prefix] + name.removeprefix(prefix)


def test_the_published_model_fits_key_for_key() -> None:
    """Stable Audio Open Small: 340,879,488 parameters, the documented keys and shapes."""
    with torch.device("meta"):
        model = DiT(saos().dit, 768)
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {
        "model.model.timestep_features.weight": (128, 1),
        "model.model.to_timestep_embed.0.weight": (1024, 256),
        "model.model.to_timestep_embed.0.bias": (1024,),
        "model.model.to_timestep_embed.2.weight": (1024, 1024),
        "model.model.to_timestep_embed.2.bias": (1024,),
        "model.model.to_cond_embed.0.weight": (1024, 768),
        "model.model.to_cond_embed.2.weight": (1024, 1024),
        "model.model.to_global_embed.0.weight": (1024, 768),
        "model.model.to_global_embed.2.weight": (1024, 1024),
        "model.model.preprocess_conv.weight": (64, 64, 1),
        "model.model.postprocess_conv.weight": (64, 64, 1),
        "model.model.transformer.project_in.weight": (1024, 64),
        "model.model.transformer.project_out.weight": (64, 1024),
        "model.model.transformer.rotary_pos_emb.inv_freq": (32,),
        "conditioner.conditioners.seconds_total.embedder.embedding.0.weights": (128,),
        "conditioner.conditioners.seconds_total.embedder.embedding.1.weight": (768, 257),
        "conditioner.conditioners.seconds_total.embedder.embedding.1.bias": (768,),
    }
    for layer in range(16):
        at = f"model.model.transformer.layers.{layer}"
        for norm in ("pre_norm", "cross_attend_norm", "ff_norm"):
            expected |= {f"{at}.{norm}.gamma": (1024,), f"{at}.{norm}.beta": (1024,)}
        for attention in ("self_attn", "cross_attn"):
            expected[f"{at}.{attention}.to_out.weight"] = (1024, 1024)
            for norm in ("q_norm", "k_norm"):
                expected |= {f"{at}.{attention}.{norm}.{part}": (128,) for part in ("weight", "bias")}
        expected |= {
            f"{at}.self_attn.to_qkv.weight": (3072, 1024),
            f"{at}.cross_attn.to_q.weight": (1024, 1024),
            f"{at}.cross_attn.to_kv.weight": (2048, 1024),
            f"{at}.ff.ff.0.proj.weight": (8192, 1024),
            f"{at}.ff.ff.0.proj.bias": (8192,),
            f"{at}.ff.ff.2.weight": (1024, 4096),
            f"{at}.ff.ff.2.bias": (1024,),
        }
    assert shapes == expected
    counted = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("conditioners."))
    assert counted == 340_879_488
