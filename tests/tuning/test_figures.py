"""The pictures of a search."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import numpy as np
import pytest

from sonarc.contracts.config import Objective
from sonarc.contracts.tuning import LossWeights, Trial, TunedWeights
from sonarc.tuning.figures import study_figures

SPACE = {"contrastive_weight": (0.25, 4.0), "penalty_weight": (0.0, 1.0)}


def searched(objectives: Sequence[Objective], measured: int = 8) -> TunedWeights:
    """A search in which the contrastive weight alone matters, with a trial that failed and one that was stopped."""
    random = np.random.default_rng(0)
    trials = []
    for number in range(measured + 2):
        contrastive, penalty = 2 ** random.uniform(-2, 2), random.uniform(0, 1)
        sound = number < measured
        trials.append(
            Trial(
                number=number,
                weights=LossWeights(contrastive_weight=contrastive, penalty_weight=penalty),
                frechet=abs(float(np.log(contrastive))) if sound else None,
                adherence=contrastive / 10 if sound else None,
                diversity=1 / contrastive if sound and "diversity" in objectives else None,
                rungs={5: 3.0},
                stopped=number == measured,
            )
        )
    return TunedWeights(
        weights=trials[0].weights, chosen=0, trials=tuple(trials), objectives=tuple(objectives), space=SPACE
    )


@pytest.mark.parametrize(
    ("objectives", "names"),
    [
        (("frechet",), ["history", "importance", "parallel"]),
        (("frechet", "adherence"), ["history", "importance", "parallel", "pareto"]),
        (("frechet", "adherence", "diversity"), ["history", "importance", "parallel", "pareto"]),
    ],
)
def test_a_search_is_drawn(objectives: tuple[Objective, ...], names: list[str]) -> None:
    pictures = study_figures(searched(objectives))
    assert [picture.name for picture in pictures] == names
    for picture in pictures:
        assert ElementTree.fromstring(picture.svg).tag.endswith("svg")
        links = re.findall(r'href="([^"]*)"', picture.svg)
        assert all(link.startswith(("#", "data:image/png;")) for link in links), "it loads nothing"


def test_the_same_search_gives_the_same_pictures() -> None:
    assert study_figures(searched(("frechet",))) == study_figures(searched(("frechet",)))


def test_what_few_trials_cannot_show_is_left_out() -> None:
    assert [picture.name for picture in study_figures(searched(("frechet",), measured=1))] == ["history"]
    assert study_figures(searched(("frechet",), measured=0)) == []
