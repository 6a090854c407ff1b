"""The published layouts, each by a folder made like the documented one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from sounds import file_of, tone

from sonarc.contracts.config import Layout, SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.errors import SourceError
from sonarc.data.sources import SourceFile, read_source

SOUND = file_of(tone(0.1))


def lay(folder: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def read(folder: Path, layout: Layout, *subset: str) -> tuple[dict[str, SourceFile], dict[str, Reason]]:
    listing = read_source(SourceConfig(name=layout, uri=str(folder), layout=layout, subset=subset))
    return {file.path: file for file in listing.files}, {r.path: r.reason for r in listing.refused}


def test_audiocaps(tmp_path: Path) -> None:
    head = "audiocap_id,youtube_id,start_time,caption\n"
    lay(
        tmp_path,
        {
            "dataset/train.csv": head + '1,aaa,30,"Rain, then thunder"\n',
            "dataset/test.csv": head + "2,bbb,0,A dog barks\n3,ccc,10,A bell\n4,bbb,0,Barking\n5,gone,1,Gone\n",
            "audio/Yaaa.wav": SOUND,
            "audio/bbb_0.flac": SOUND,
            "audio/ccc.mp3": SOUND,
        },
    )
    files, refused = read(tmp_path, "audiocaps")

    assert files["audio/Yaaa.wav"].captions == ("Rain, then thunder",)
    assert files["audio/bbb_0.flac"].captions == ("A dog barks", "Barking")
    assert files["audio/bbb_0.flac"].group == "audiocaps/bbb"
    assert files["audio/ccc.mp3"].url == "https://www.youtube.com/watch?v=ccc&t=10"
    assert refused == {"gone.wav": Reason.MISSING}
    test_alone, refused = read(tmp_path, "audiocaps", "test")
    assert sorted(test_alone) == ["audio/bbb_0.flac", "audio/ccc.mp3"]
    assert refused["audio/Yaaa.wav"] is Reason.NO_CAPTION


def test_clotho(tmp_path: Path) -> None:
    captions = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    metadata = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    row = (
        'Rain.wav,rain;wet,42,https://freesound.org/s/42,"[0, 9]",J\xf6rg,http://creativecommons.org/licenses/by/3.0/\n'
    )
    lay(
        tmp_path,
        {
            "clotho_captions_development.csv": captions + "Rain.wav,Rain falls.,It rains.,Wet.,Drops.,Water falls.\n",
            "clotho_captions_evaluation.csv": captions + "Rain.wav,Other rain.,b,c,d,e\n",
            "clotho_metadata_development.csv": metadata.encode() + row.encode("latin-1"),
            "development/Rain.wav": SOUND,
            "evaluation/Rain.wav": SOUND,
        },
    )
    files, refused = read(tmp_path, "clotho")

    rain, other = files["development/Rain.wav"], files["evaluation/Rain.wav"]
    assert not refused and len(rain.captions) == 5
    assert (rain.author, rain.licence) == ("Jörg", "http://creativecommons.org/licenses/by/3.0/")
    assert (rain.group, other.group, other.captions[0]) == ("clotho/42", "clotho/Rain.wav", "Other rain.")


def test_fsd50k(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
            '64760,"Electric_guitar,Guitar,Music","/m/1,/m/2",train\n',
            "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Bark,Dog","/m/3"\n',
            "FSD50K.metadata/dev_clips_info_FSD50K.json": json.dumps(
                {
                    "64760": {
                        "title": "riff",
                        "uploader": "ann",
                        "license": "http://creativecommons.org/publicdomain/zero/1.0/",
                    }
                }
            ),
            "FSD50K.dev_audio/64760.wav": SOUND,
            "FSD50K.eval_audio/37199.wav": SOUND,
        },
    )
    files, refused = read(tmp_path, "fsd50k")

    riff, bark = files["FSD50K.dev_audio/64760.wav"], files["FSD50K.eval_audio/37199.wav"]
    assert not refused
    assert (riff.captions, riff.group, riff.author) == (("electric guitar, guitar, music",), "fsd50k/ann", "ann")
    assert json.loads(riff.concept) == {"labels": ["Electric_guitar", "Guitar", "Music"]}
    assert riff.licence.endswith("zero/1.0/")
    assert (bark.group, bark.url) == ("fsd50k/37199", "https://freesound.org/s/37199")


def test_wavcaps(tmp_path: Path) -> None:
    sound = {"id": "7", "caption": "A bird sings.", "author": "bob", "href": "/people/bob/7", "duration": 3.0}
    lay(
        tmp_path,
        {
            "json_files/FreeSound/fsd_final.json": json.dumps({"num_captions_per_audio": 1, "data": [sound, {"x": 1}]}),
            "json_files/SoundBible/sb_final.json": json.dumps({"data": [{"id": "7", "caption": "A horn."}]}),
            "json_files/AudioSet_SL/as_final.json": json.dumps({"data": [{"id": "Yb-_0.wav", "caption": "Speech."}]}),
            "FreeSound_flac/7.flac": SOUND,
            "SoundBible_flac/7.flac": SOUND,
            "AudioSet_SL_flac/Yb-_0.flac": SOUND,
        },
    )
    files, refused = read(tmp_path, "wavcaps")

    assert files["FreeSound_flac/7.flac"].captions == ("A bird sings.",)
    assert files["SoundBible_flac/7.flac"].captions == ("A horn.",)
    assert files["AudioSet_SL_flac/Yb-_0.flac"].group == "wavcaps/AudioSet_SL/Yb-_0"
    assert refused == {"fsd_final.json:1": Reason.BAD_CAPTION}


def test_musiccaps(tmp_path: Path) -> None:
    head = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,"
    head += "is_audioset_eval\n"
    rows = (
        "aaa,30,40,/m/1,\"['low quality', 'sad piano']\",\"A sad piano, alone.\",4,False,True\n"
        "bbb,0,10,/m/1,__import__('os'),A drum.,4,False,True\n"
    )
    lay(tmp_path, {"musiccaps-public.csv": head + rows, "[aaa]-[30-40].wav": SOUND, "bbb.wav": SOUND})
    files, refused = read(tmp_path, "musiccaps")

    assert not refused
    assert files["[aaa]-[30-40].wav"].captions == ("A sad piano, alone.", "low quality, sad piano")
    assert files["bbb.wav"].captions == ("A drum.",)


def test_song_describer(tmp_path: Path) -> None:
    head = "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"
    rows = "1,1085648,Calm guitar,True,0,9,1,48/1085648.mp3,120.0\n2,1085648,Slow,False,0,9,1,48/1085648.mp3,120.0\n"
    lay(tmp_path, {"song_describer.csv": head + rows, "audio/48/1085648.2min.mp3": SOUND})

    whole, _ = read(tmp_path, "song_describer")
    valid, _ = read(tmp_path, "song_describer", "valid")

    assert whole["audio/48/1085648.2min.mp3"].captions == ("Calm guitar", "Slow")
    assert whole["audio/48/1085648.2min.mp3"].group == "song_describer/9"
    assert valid["audio/48/1085648.2min.mp3"].captions == ("Calm guitar",)


def test_a_folder_of_something_else_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no files") as caught:
        read(tmp_path, "audiocaps")
    assert "archives of audiocaps" in str(caught.value.hint)
    lay(tmp_path, {"notes.txt": "nothing"})
    with pytest.raises(SourceError, match=r"has no train\.csv, val\.csv, test\.csv, which audiocaps has"):
        read(tmp_path, "audiocaps")
    lay(tmp_path, {"json_files/fsd_final.json": "{}"})
    with pytest.raises(SourceError, match="no list `data`"):
        read(tmp_path, "wavcaps")


def test_a_subset_that_the_dataset_has_not_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"subset \['dev'\] of clotho"):
        SourceConfig(name="x", uri="x", layout="clotho", subset=("dev",))
    with pytest.raises(ValidationError, match="has no subsets"):
        SourceConfig(name="x", uri="x", layout="musiccaps", subset=("dev",))
