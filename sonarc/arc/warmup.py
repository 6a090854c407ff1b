"""ODE warm-up: before ARC, the generator regresses the end points of the frozen base's guided trajectories.

Source: the ODE warm-up of stable-audio-tools' ARC training, and Stable Audio 3, arXiv 2605.17991.
Shapes: B clips, C latent channels, T latent frames, N points of a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sonarc.arc.steps import ArcBatch, StepLoss
from sonarc.contracts.config import OdeWarmupConfig
from sonarc.flow import clean_estimate, velocity_loss
from sonarc.samplers import dpmpp_2m, logsnr_schedule, with_cfg
from sonarc.training import autocast


@dataclass(frozen=True)
class Trajectories:
    """Where a teacher went.

    Attributes:
        x_NBCT: latents before each of its steps.
        t_N: their noise levels.
        end_BCT: where it arrived.
    """

    x_NBCT: Tensor
    t_N: Tensor
    end_BCT: Tensor

    def part(self, items: slice) -> Trajectories:
        """Those of some of the clips."""
        return Trajectories(self.x_NBCT[:, items], self.t_N, self.end_BCT[items])

    @classmethod
    def joined(cls, parts: Sequence[Trajectories]) -> Trajectories:
        """The parts as one again."""
        x_NBCT = torch.cat([part.x_NBCT for part in parts], dim=1)
        return cls(x_NBCT, parts[0].t_N, torch.cat([part.end_BCT for part in parts]))


@torch.no_grad()
def follow(teacher: nn.Module, batch: ArcBatch, noise_BCT: Tensor, config: OdeWarmupConfig) -> Trajectories:
    """The teacher's trajectories from pure noise: DPM-Solver++(2M) with guidance, on the generator's own levels.

    Args:
        teacher: the frozen base.
        batch: whose prompts and lengths are asked for; its latents are not read.
        noise_BCT: the starts.
        config: steps and guidance.
    """
    velocity = with_cfg(teacher, batch.real.cond, config.cfg, mask_BT=batch.real.mask_BT)
    points: list[Tensor] = []

    def watched(x_BCT: Tensor, t_B: Tensor) -> Tensor:
        points.append(x_BCT)
        with autocast(x_BCT.device):
            return velocity(x_BCT, t_B).float()

    t_N = logsnr_schedule(config.sampling_steps).to(noise_BCT.device)
    end_BCT = dpmpp_2m(watched, noise_BCT, t_N)
    return Trajectories(torch.stack(points), t_N[:-1], end_BCT)


def warmup_step(
    generator: nn.Module, batch: ArcBatch, found: Trajectories, point_B: Tensor, *, frames: Tensor | None = None
) -> StepLoss:
    """`‖x̂0(x_t) - x_end‖²` over true frames, from one point of each clip's trajectory.

    Args:
        generator: the network that learns.
        batch: the batch the trajectories were made for.
        found: the trajectories.
        point_B: which of its N points each clip starts from.
        frames: see `velocity_loss`.
    """
    x_BCT = found.x_NBCT[point_B, torch.arange(len(point_B), device=point_B.device)]
    t_B = found.t_N[point_B]
    with autocast(x_BCT.device):
        v_BCT = generator(x_BCT, t_B, batch.real.cond, mask_BT=batch.real.mask_BT)
    clean_BCT = clean_estimate(x_BCT, t_B, v_BCT.float())
    loss = velocity_loss(clean_BCT, found.end_BCT, batch.real.mask_BT, frames=frames)
    return StepLoss(loss, {"loss_ode": loss.detach()}, clean_BCT.detach())
