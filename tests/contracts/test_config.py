from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sonarc.contracts.config import Section, SonarcConfig, parse
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.presets import PRESETS, load


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads_and_survives_json(preset: str, tmp_path: Path) -> None:
    config = load(preset)
    assert config.preset == preset
    place = tmp_path / "tree.json"
    place.write_text(config.model_dump_json(), encoding="utf-8")
    assert load(str(place)) == config
    assert load(str(place)).sha256() == config.sha256()


def test_clip_lengths_are_the_published_ones() -> None:
    seconds = {name: round(load(name).audio.seconds, 2) for name in PRESETS}
    assert seconds == {"ci": 1.49, "laptop": 2.97, "saos": 11.89}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("arc.stepz=3", "arc.stepz"),
        ("nowhere.steps=3", "nowhere.steps"),
        ("arc.steps.more=3", "arc.steps.more"),
        ("arc.steps=0", "arc.steps"),
        ("arc.steps=many", "many"),
        ("arc.steps", "section.field=value"),
        ("=3", "section.field=value"),
        ("arc.lr_generator=NaN", "arc.lr_generator"),
        ("arc.lr_generator=1e400", "arc.lr_generator"),
        ("audio.sample_rate=48000", "48000"),
        ("audio.samples=65537", "audio.samples"),
        ("dit.heads=3", "256"),
        ("arc.discriminator_depth=9", "discriminator_depth 9"),
        ("data.train_fraction=0.95", "above 1"),
        ("serve.port=70000", "serve.port"),
        ('data.sources=[{"name":"A b","uri":"x"}]', "data.sources.0.name"),
    ],
)
def test_a_bad_override_is_named(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("laptop", [override])
    assert says in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_overrides_are_json_or_text_and_the_last_one_wins() -> None:
    config = load("ci", ["arc.steps=7", "arc.steps=9", "registry.model=drums", "evaluate.generator=[2,1]"])
    assert (config.arc.steps, config.registry.model, config.evaluate.generator) == (9, "drums", (2, 1))


def test_unknown_keys_are_refused_at_every_depth() -> None:
    tree = load("ci").model_dump(mode="json")
    for path in ((), ("arc",), ("arc", "head"), ("pretrain", "noise"), ("data", "demo")):
        changed = json.loads(json.dumps(tree))
        node = changed
        for part in path:
            node = node[part]
        node["unheard"] = 1
        with pytest.raises(ConfigError, match="unheard"):
            parse(changed)


def test_an_unknown_preset_a_missing_file_and_broken_json_are_explained(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    for name in ("huge", str(tmp_path / "missing.json"), str(tmp_path / "broken.json")):
        with pytest.raises(ConfigError) as caught:
            load(name)
        assert name in caught.value.message


def test_the_tree_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("ci").arc.steps = 3


@given(steps=st.integers(2, 10**6), seed=st.integers(0, 2**31))
def test_the_hash_names_the_values_not_how_they_were_given(steps: int, seed: int) -> None:
    config = load("ci", [f"arc.steps={steps}", f"arc.seed={seed}"])
    assert config.sha256() == load("ci", [f"arc.seed={seed}", f"arc.steps={steps}"]).sha256()
    assert config.sha256() == SonarcConfig.model_validate_json(config.model_dump_json()).sha256()
    assert config.sha256() != load("ci", [f"arc.steps={steps + 1}", f"arc.seed={seed}"]).sha256()


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _sections(field.annotation)


def test_settings_are_documented() -> None:
    obvious = {"betas", "weight_decay", "seed", "noise", "lr_generator", "lr_discriminator", "grad_clip", "loss"}
    obvious |= {"adversarial_weight", "checkpoint_every", "head"}
    for section in _sections(SonarcConfig):
        for name, field in section.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
            assert field.description or nested or name in obvious, f"{section.__name__}.{name} has no description"
