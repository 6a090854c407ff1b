"""AudioCaps' protocol on a folder laid out as published: known answers, and a run that is stopped and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import noise, tone

from sonarc.contracts.errors import SourceError
from sonarc.metrics.audiocaps import RATE, Task, score, tasks_of
from sonarc.metrics.embedders.interface import Audio, Embeddings, Tags
from sonarc.metrics.listening import Ears

SECONDS = 0.5


class Spectrum:
    """Log-energies of eight bands, and two classes: whether it is high or low."""

    name, sha256, width = "spectrum", "s" * 64, 8

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        power = np.square(np.abs(np.fft.rfft(audio_BAS.mean(1))))
        bands = np.array_split(power, self.width, axis=1)
        return np.log(np.stack([band.mean(1) for band in bands], 1) + 1e-3).astype(np.float32)

    def tag(self, audio_BAS: Audio) -> Tags:
        bands = self(audio_BAS)
        low = 1 / (1 + np.exp(bands[:, -1:] - bands[:, :1]))
        return Tags(bands, np.concatenate([low, 1 - low], 1))


class Words:
    """An audio-text model in which hisses and hums point elsewhere."""

    name, sha256, width = "words", "w" * 64, 2

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        bands = Spectrum()(audio_BAS)
        hiss = (bands[:, -1] > bands[:, 0] - 3).astype(np.float32)
        return np.stack([hiss, 1 - hiss], 1)

    def text(self, prompts: Sequence[str]) -> Embeddings:
        hiss = np.array(["hiss" in prompt for prompt in prompts], np.float32)
        return np.stack([hiss, 1 - hiss], 1)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "test").mkdir()
    lines = ["audiocap_id,youtube_id,start_time,caption"]
    for n in range(16):
        sound, name = (noise(1.2, seed=n), "hiss") if n % 2 else (tone(1.2), "hum")
        soundfile.write(tmp_path / f"test/Yclip{n}.wav", sound.T[:, :1], 48_000)
        lines += [f"{10 * n + k},clip{n},30,{word} {name} number {n}" for k, word in enumerate(("a", "one"))]
    lines.append("999,gone,30,a sound that is gone")
    (tmp_path / "test.csv").write_text("\n".join(lines))
    return tmp_path.as_uri()


class Player:
    """Plays what is asked for, or the opposite."""

    def __init__(self, opposite: bool = False, breaks_after: int = 10**9) -> None:
        self.opposite, self.left = opposite, breaks_after
        self.seeds: list[int] = []

    def __call__(self, prompts: Sequence[str], seconds: Sequence[float], seeds: Sequence[int]) -> list[Audio]:
        self.left -= len(prompts)
        if self.left < 0:
            raise KeyboardInterrupt
        self.seeds += seeds
        return [
            (noise(length, seed=seed) if ("hiss" in prompt) != self.opposite else tone(length))
            for prompt, length, seed in zip(prompts, seconds, seeds, strict=True)
        ]


def scored(tasks: list[Task], player: Player, place: Path) -> dict[str, float]:
    ears = Ears([Spectrum()], Words(), round(SECONDS * RATE), RATE)
    name = "opposite" if player.opposite else "faithful"
    found = score(tasks, player, name, SECONDS, 4, 100, ears, place.as_uri(), lambda *_: None)
    assert (found.n, found.n_real, found.comparable) == (32, 16, False)
    assert all(figure.low <= figure.value <= figure.high for figure in found.figures)
    return {figure.name: figure.value for figure in found.figures}


def test_every_caption_is_a_task_of_its_own(folder: str) -> None:
    tasks = tasks_of(folder)
    assert len(tasks) == 32 and tasks[0].caption == "a hum number 0" and tasks[1].uri == tasks[0].uri
    assert not any("gone" in task.caption for task in tasks)


def test_who_plays_what_is_asked_for_scores_better(folder: str, tmp_path: Path) -> None:
    tasks = tasks_of(folder)
    faithful, opposite = scored(tasks, Player(), tmp_path / "kept"), scored(tasks, Player(True), tmp_path / "kept")

    assert faithful["adherence"] > 0.9 > 0.1 > opposite["adherence"]
    assert faithful["kl_spectrum"] < 0.2 * opposite["kl_spectrum"]
    assert faithful["fd_spectrum"] == pytest.approx(
        opposite["fd_spectrum"], rel=0.5
    )  # the sets are alike, the pairs not


def test_a_stopped_run_goes_on_and_comes_to_the_same(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonarc.metrics.audiocaps.TOGETHER", 8)
    tasks, whole = tasks_of(folder), Player()
    straight = scored(tasks, whole, tmp_path / "straight")
    assert whole.seeds == list(range(100, 132))
    with pytest.raises(KeyboardInterrupt):
        scored(tasks, Player(breaks_after=20), tmp_path / "resumed")
    rest = Player()
    assert scored(tasks, rest, tmp_path / "resumed") == straight
    assert rest.seeds == list(range(116, 132))


def test_a_folder_without_the_audio_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("audiocap_id,youtube_id,start_time,caption\n1,a,0,x\n")
    with pytest.raises(SourceError, match="audio of 0 clips"):
        tasks_of(tmp_path.as_uri())
