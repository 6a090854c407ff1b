"""What may come before ARC, and beside it: the ODE warm-up and the alignment loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from arc_toy import FRAMES, TEXT, ToyEncoder, pretrain_toy, toy_arc, toy_dit_config, toy_latents
from torch import Tensor

from sonarc.arc import ArcData, ArcTrainer
from sonarc.arc.alignment import ClapAlignment
from sonarc.arc.warmup import follow, warmup_step
from sonarc.checkpoint import load_checkpoint, save_checkpoint
from sonarc.contracts.config import ArcConfig, OdeWarmupConfig, TextConfig
from sonarc.contracts.errors import ConfigError, ModelInputError
from sonarc.dit import Conditioning, DiT
from sonarc.samplers import logsnr_schedule
from sonarc.text import load_text_encoder

ODE = OdeWarmupConfig(steps=6, sampling_steps=4, cfg=2.0, refresh=3)


@pytest.fixture
def base() -> DiT:
    torch.manual_seed(0)
    model = DiT(toy_dit_config(), TEXT)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False).eval()


def one_step(trainer: ArcTrainer, data: ArcData, step: int) -> dict[str, float]:
    (batch_d, draws_d), (batch_g, draws_g) = data(step, "discriminator"), data(step, "generator")
    return trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))


def test_a_trajectory_starts_at_noise_and_its_last_point_nearly_is_its_end(base: DiT) -> None:
    batch, draws = ArcData(toy_latents(32), ToyEncoder(), toy_arc(batch=8), patch=1)(0, "generator")
    found = follow(base, batch, draws.noise_BCT, OdeWarmupConfig(steps=1, sampling_steps=40, cfg=2.0))
    assert torch.equal(found.x_NBCT[0], draws.noise_BCT)
    assert torch.equal(found.t_N, logsnr_schedule(40)[:-1])
    assert (found.x_NBCT[-1] - found.end_BCT).norm() < (found.x_NBCT[0] - found.end_BCT).norm()


def test_a_generator_that_points_at_the_end_has_no_loss(base: DiT) -> None:
    batch, draws = ArcData(toy_latents(32), ToyEncoder(), toy_arc(batch=8), patch=1)(0, "generator")
    found = follow(base, batch, draws.noise_BCT, ODE)
    point_B = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])

    class Oracle(torch.nn.Module):
        def forward(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor) -> Tensor:
            return (x_BCT - found.end_BCT) / t_B[:, None, None]

    assert warmup_step(Oracle(), batch, found, point_B).loss < 1e-9
    assert warmup_step(base, batch, found, point_B).loss > 1e-3


def test_the_warm_up_teaches_the_generator_alone_where_trajectories_end() -> None:
    latents = toy_latents(256)
    teacher = pretrain_toy(latents, 300)
    config = toy_arc(
        steps=80, ode_warmup={"steps": 60, "sampling_steps": 8, "cfg": 1.5, "refresh": 4}, lr_generator=1e-3
    )
    trainer, data = ArcTrainer(teacher, config), ArcData(latents, ToyEncoder(), config, patch=1)
    before = {name: value.clone() for name, value in trainer.discriminator.state_dict().items()}
    losses = [one_step(trainer, data, step)["loss_ode"] for step in range(60)]
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])
    assert all(torch.equal(value, before[name]) for name, value in trainer.discriminator.state_dict().items())
    after = one_step(trainer, data, 60)
    assert "loss_ode" not in after
    assert "loss_d" in after


def test_trajectories_are_made_anew_every_few_steps_only(base: DiT) -> None:
    config = toy_arc(batch=4, steps=9, ode_warmup=ODE.model_dump())
    trainer, data = ArcTrainer(base, config), ArcData(toy_latents(32), ToyEncoder(), config, patch=1)
    seen = []
    for step in range(6):
        one_step(trainer, data, step)
        assert trainer._trajectories is not None
        seen.append(trainer._trajectories[1].end_BCT)
    assert all(seen[i] is seen[0] for i in (1, 2)) and all(seen[i] is seen[3] for i in (4, 5))
    assert not torch.equal(seen[0], seen[3])


def test_a_training_resumed_amid_the_warm_up_goes_on_exactly(base: DiT, tmp_path: Path) -> None:
    config = toy_arc(batch=4, steps=9, generator_delay=0, ode_warmup=ODE.model_dump())
    data, straight = ArcData(toy_latents(32), ToyEncoder(), config, patch=1), ArcTrainer(base, config)
    for step in range(4):  # the second batch of trajectories has served one step
        one_step(straight, data, step)
    uri, _ = save_checkpoint(
        tmp_path.as_uri(), kind="generator", step=4, attempt=1, position=32, config={}, config_sha256="x",
        model=straight.ema.state_dict(), state=straight.state(),
    )  # fmt: skip
    resumed, saved = ArcTrainer(base, config), load_checkpoint(uri)
    resumed.load(saved.model, saved.state)
    for step in range(4, 8):
        assert one_step(straight, data, step) == one_step(resumed, data, step)
    for name, value in straight.ema.state_dict().items():
        assert torch.equal(value, resumed.ema.state_dict()[name])


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ode_warmup\.steps 7 exceeds steps 5"):
        ArcConfig(steps=5, ode_warmup=OdeWarmupConfig(steps=7))


def test_the_alignment_loss_falls_with_the_latents_alone() -> None:
    encoder = load_text_encoder(TextConfig())
    alignment = ClapAlignment.load("codec-v3", "clap-v1", encoder)
    cond = Conditioning(encoder(["a loud bass drum hit", "a flute plays in C major"]), torch.tensor([0.7, 0.7]))
    mask_BT = torch.ones(2, 32, dtype=torch.bool)
    mask_BT[0, 24:] = False
    z_BCT = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    optimizer, losses = torch.optim.Adam([z_BCT], lr=0.1), []
    for _ in range(8):
        loss = alignment(z_BCT, cond, mask_BT)
        optimizer.zero_grad()
        loss.backward()
        assert z_BCT.grad is not None
        assert z_BCT.grad[0, :, 24:].abs().max() == 0  # what lies beyond the end is silence, whatever the latents say
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    assert isinstance(alignment.codec, torch.nn.Module)
    assert all(parameter.grad is None for parameter in alignment.codec.parameters())


def test_a_clap_of_another_text_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clap-v1.*minilm.*toy"):
        ClapAlignment.load("codec-v3", "clap-v1", ToyEncoder())


def test_the_alignment_reaches_the_generator(base: DiT) -> None:
    config = toy_arc(batch=4, generator_delay=0, clap_weight=0.5)
    seen: list[torch.Size] = []

    def quiet(clean_BCT: Tensor, cond: Conditioning, mask_BT: Tensor) -> Tensor:
        seen.append(clean_BCT.shape)
        return clean_BCT.square().mean()

    data = ArcData(toy_latents(32), ToyEncoder(), config, patch=1)
    metrics = one_step(ArcTrainer(base, config, alignment=quiet), data, 0)
    assert seen == [torch.Size((4, 4, FRAMES))]
    assert metrics["loss_clap"] > 0
    with pytest.raises(ModelInputError, match=r"clap_weight is 0\.5"):
        ArcTrainer(base, config)
