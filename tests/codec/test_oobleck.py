"""diffusers' AutoencoderOobleck behind the same interface."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch

from sonarc.codec import Codec, load_codec, save_codec
from sonarc.codec.config import OobleckCodecConfig
from sonarc.codec.oobleck import OobleckCodec
from sonarc.contracts.errors import ModelInputError

pytest.importorskip("diffusers")

TINY = OobleckCodecConfig(latent_channels=4, encoder_width=8, decoder_width=8, multiples=(1, 2), strides=(2, 4))


def test_shapes_and_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = OobleckCodec(TINY).eval()
    assert isinstance(codec, Codec)
    assert codec.hop == 8
    z_BCT = codec.encode(torch.randn(2, 2, 801))
    assert z_BCT.shape == (2, 4, codec.frames(801)) == (2, 4, 101)
    assert codec.decode(z_BCT).shape == (2, 2, 808)
    assert save_codec(codec, str(tmp_path)) == load_codec(str(tmp_path)).sha256 == codec.sha256


def test_the_published_shape_is_the_default() -> None:
    config = OobleckCodecConfig()
    assert (config.latent_channels, config.sample_rate, math.prod(config.strides)) == (64, 44_100, 2048)


def test_nothing_is_said_of_what_users_cannot_change() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OobleckCodec(TINY)


def test_wrong_shapes_are_refused_by_name() -> None:
    codec = OobleckCodec(TINY).eval()
    with pytest.raises(ModelInputError, match=r"\(1, 1, 80\)"):
        codec.encode(torch.zeros(1, 1, 80))
    with pytest.raises(ModelInputError, match=r"\(1, 5, 3\)"):
        codec.decode(torch.zeros(1, 5, 3))


@torch.inference_mode()
def test_a_sample_depends_on_no_frame_beyond_the_codecs_reach() -> None:
    torch.manual_seed(0)
    codec = OobleckCodec(TINY).eval()
    z_BCT = torch.randn(1, 4, 80)
    cut = 30
    whole_BAS = codec.decode(z_BCT)
    for kept, same in ((cut + codec.reach, True), (cut + 2, False)):
        part_BAS = codec.decode(z_BCT[..., :kept])[..., : cut * codec.hop]
        error = float((part_BAS - whole_BAS[..., : cut * codec.hop]).norm() / whole_BAS.norm())
        assert (error < 1e-5) is same, (kept, error)
