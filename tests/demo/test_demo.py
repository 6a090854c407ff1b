"""The demo source: what its captions say is true of the audio, and what it writes never depends on luck."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonarc.contracts.dataset import split_of
from sonarc.contracts.errors import SourceError
from sonarc.contracts.presets import load
from sonarc.demo import captions as phrasing
from sonarc.demo import source
from sonarc.demo.plan import ScoreClip, key_name, plan_scores, tempo_of
from sonarc.demo.recorded import Recording
from sonarc.demo.render import render_clip
from sonarc.demo.scores import parse_scores, score_ids
from sonarc.demo.source import write_demo
from sonarc.demo.vocabulary import describe

SAMPLES = 65_536
RATE = 44_100


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SONARC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def clips(_own_cache: None) -> list[ScoreClip]:
    return plan_scores(40, SAMPLES, 3)


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    made = []
    for stem in ("drum_tom_hi_hard", "elec_ping", "loop_amen"):
        path = tmp_path / f"{stem}.flac"
        noise = np.random.default_rng(len(stem)).uniform(-0.5, 0.5, 5000)
        soundfile.write(path, noise, RATE, format="FLAC")
        what = describe(stem)
        assert what is not None
        made.append(Recording(path, what.captions, what.concept, what.group, "a", "u"))
    return made


def test_more_clips_extend_fewer(clips: list[ScoreClip]) -> None:
    assert plan_scores(11, SAMPLES, 3) == clips[:11]
    assert plan_scores(11, SAMPLES, 4) != clips[:11]


def test_no_two_clips_are_alike(clips: list[ScoreClip]) -> None:
    assert len({(clip.instrument, clip.bpm, clip.room, clip.sounds) for clip in clips}) == len(clips)
    assert len({clip.id for clip in clips}) == len(clips)


def test_audio_does_not_depend_on_what_was_rendered_before(clips: list[ScoreClip]) -> None:
    alone = render_clip(clips[5])
    render_clip(clips[6])
    assert np.array_equal(render_clip(clips[5]), alone)


def test_audio_starts_at_once_and_neither_clips_nor_falls_silent(clips: list[ScoreClip]) -> None:
    for clip in clips[::6]:
        audio_SA = render_clip(clip) / 32768
        assert audio_SA.shape == (SAMPLES, 2)
        assert 0.75 < np.abs(audio_SA).max() < 0.81
        assert np.abs(audio_SA[:2205]).max() > 0.02
        blocks_KB = audio_SA.mean(1)[:60_000].reshape(-1, 3000)
        assert np.mean(np.sqrt((blocks_KB**2).mean(1)) < 1e-3) < 0.2


def test_pitches_sound_as_planned(clips: list[ScoreClip]) -> None:
    """Harmonics of the planned notes, and not of their neighbours a semitone off, carry the energy."""
    tunes = [clip for clip in clips if clip.parts == 1 and clip.instrument not in ("marimba", "music box")]
    for clip in tunes[::4]:
        note = max(clip.sounds, key=lambda sound: min(sound.held, SAMPLES - sound.start))
        audio_S = render_clip(clip)[note.start : min(note.start + note.held, SAMPLES), 0].astype(float)
        windowed_S = audio_S * np.hanning(len(audio_S))
        power_F = np.abs(np.fft.rfft(windowed_S, 1 << 17)) ** 2
        hertz_F = np.fft.rfftfreq(1 << 17, 1 / RATE)

        def energy(pitch: float, power_F=power_F, hertz_F=hertz_F) -> float:
            f0 = 440 * 2 ** ((pitch - 69) / 12)
            near = [np.abs(hertz_F / (f0 * k) - 1) < 0.015 for k in range(1, 5)]
            return float(sum(power_F[band].sum() for band in near))

        assert energy(note.pitch) > 3 * max(energy(note.pitch - 1), energy(note.pitch + 1)), clip.instrument


def test_tempo_is_the_spacing_of_the_beats(clips: list[ScoreClip]) -> None:
    for clip in clips:
        on_beat = [sound.start * clip.bpm / (60 * RATE) for sound in clip.sounds if sound.velocity == 100]
        assert on_beat[0] == 0 and len(set(on_beat)) > 1
        assert all(abs(beat - round(beat)) < 1e-3 for beat in on_beat)


def test_tempo_is_stated_only_where_four_beats_fit(clips: list[ScoreClip]) -> None:
    assert tempo_of(80, 2.97) == "" and tempo_of(84, 2.97) == "slow" and tempo_of(144, 2.97) == "fast"
    for clip in clips:
        stated = SAMPLES / RATE * clip.bpm / 60 >= 4
        text = " ".join(phrasing.captions(clip))
        assert ("tempo" in phrasing.concept(clip)) == stated
        assert stated or not any(word in text for word in ("bpm", "slow", "moderate", "fast", "tempo"))


def test_every_stated_fact_is_the_clips_own(clips: list[ScoreClip]) -> None:
    for clip in clips:
        sentences = phrasing.captions(clip)
        assert 3 <= len(set(sentences)) == len(sentences) <= 5
        mean = np.mean([sound.pitch for sound in clip.sounds])
        assert clip.register == ("low" if mean < 57 else "high" if mean >= 72 else "middle")
        for sentence in sentences:
            assert any(word in sentence for word in (clip.instrument, "nylon-string guitar"))
            assert f" {clip.key}" in sentence or not any(m in sentence for m in ("major", "minor"))
            other = {"hall": ("dry", "close"), "dry": ("hall", "reverb of")}[clip.room]
            assert not any(word in sentence for word in other)


def test_keys_are_named_and_transposed_exactly(clips: list[ScoreClip]) -> None:
    assert key_name(10, "major") == "B flat major" and key_name(1, "minor") == "C sharp minor"
    scores = {score.id: score for score in parse_scores([clip.score for clip in clips]) if score}
    for clip in clips:
        score = scores[clip.score]
        sounding = {sound.pitch % 12 for sound in clip.sounds}
        written = {note.pitch % 12 for note in score.notes}
        moved = (clip.tonic - score.tonic) % 12
        assert sounding <= {(pitch + moved) % 12 for pitch in written}


def test_a_score_is_refused_when_it_does_not_end_on_its_tonic() -> None:
    accepted = [score for score in parse_scores(score_ids()[:12]) if score is not None]
    assert len(accepted) >= 4
    for score in accepted:
        bass = [note for note in score.notes if note.part == score.parts - 1]
        assert max(bass, key=lambda note: note.onset).pitch % 12 == score.tonic


def test_enough_candidates_for_ten_thousand_clips() -> None:
    ids = score_ids()
    assert len(set(ids)) == len(ids) > 10_000 / 8 / 0.6


def test_a_folder_is_written_whole_and_kept(
    tmp_path: Path, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "locate_recordings", lambda: recordings)
    out = tmp_path / "out"
    report = write_demo(out, clips=8, samples=SAMPLES, seed=3)
    assert report.rows == {"recorded": 2, "scores": 6, "damaged": 5} and report.clips == 8
    rows = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert {row["path"] for row in rows} == {
        path.relative_to(out).as_posix() for path in (out / "audio").rglob("*") if path.is_file()
    }
    first = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    (out / rows[2]["path"]).write_bytes(b"cut short")
    again = write_demo(out, clips=8, samples=SAMPLES, seed=3)
    assert again.kept == 7
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert [path for path in first if after.pop(path, None) != first[path]] == []
    assert list(after) == []

    longer = write_demo(out, clips=10, samples=SAMPLES, seed=3)
    assert longer.kept == 8 and longer.rows["scores"] == 7


def test_damaged_files_are_damaged_each_in_its_way(
    tmp_path: Path, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "locate_recordings", lambda: recordings)
    write_demo(tmp_path / "out", clips=3, samples=SAMPLES, sources=("recorded",), damaged=5)
    time.sleep(1.1)  # some formats hold the time of day in seconds
    write_demo(tmp_path / "later", clips=3, samples=SAMPLES, sources=("recorded",), damaged=5)
    for path in (tmp_path / "out/audio/damaged").iterdir():
        assert path.read_bytes() == (tmp_path / "later/audio/damaged" / path.name).read_bytes(), path.name
    faults = set()
    for path in (tmp_path / "out/audio/damaged").iterdir():
        try:
            audio, _ = soundfile.read(path)
        except soundfile.LibsndfileError:
            faults.add("empty" if path.stat().st_size == 0 else "unreadable")
        else:
            nan, silent = np.isnan(audio).any(), not np.abs(audio).any()
            faults.add("nan" if nan else "silent" if silent else "cut")
    assert faults >= {"empty", "unreadable", "nan", "silent"}


def test_a_missing_source_is_a_notice_and_none_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[Recording]:
        raise SourceError("npm is not installed.", "Install npm.")

    monkeypatch.setattr(source, "locate_recordings", missing)
    report = write_demo(tmp_path / "one", clips=2, samples=SAMPLES)
    assert report.rows["scores"] == 2 and "npm is not installed" in report.notices[0]
    with pytest.raises(SourceError, match="No demo source"):
        write_demo(tmp_path / "none", clips=2, samples=SAMPLES, sources=("recorded",))
    assert not (tmp_path / "none").exists()


def test_the_smallest_preset_has_clips_in_every_split_without_recordings() -> None:
    data, samples = load("ci").data, load("ci").audio.samples
    planned = plan_scores(data.demo.clips, samples, data.demo.seed)
    held = Counter(split_of(clip.score, data.train_fraction, data.valid_fraction) for clip in planned)
    assert min(held[split] for split in ("train", "valid", "test")) >= 8


def test_enough_clips_are_truly_stereo(clips: list[ScoreClip]) -> None:
    sides = []
    for clip in clips[::4]:
        left, right = render_clip(clip).astype(float).T
        sides.append(np.std(left - right) > 0.02 * np.std(left + right))
    assert np.mean(sides) >= 0.3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("elec_blip", "elec_blip2"),
        ("drum_tom_hi_hard", "drum_tom_hi_soft"),
        ("loop_mehackit1", "loop_mehackit2"),
        ("loop_amen", "loop_amen_full"),
        ("tabla_te1", "tabla_te_m"),
    ],
)
def test_near_copies_share_a_group(one: str, other: str) -> None:
    first, second = describe(one), describe(other)
    assert first and second and first.group == second.group


def test_names_become_sentences() -> None:
    soft, kick = describe("drum_cymbal_soft"), describe("bd_808")
    assert soft and "a soft cymbal" in soft.captions and soft.concept["category"] == "drum kit"
    assert kick and "an 808 kick drum" in kick.captions
    assert describe("unheard_of") is None
    for stem in ("misc_crow", "loop_tabla", "vinyl_hiss", "hat_gnu", "ambi_piano", "guit_em9"):
        what = describe(stem)
        assert what and 3 <= len(set(what.captions)) == len(what.captions) <= 5
