"""What the names of the recorded files mean: a phrase for each, its category, and its near relations.

The files are named `category_description` by their curators. `_PHRASES` says in English what such a name
says and no more: where the description is only a maker's tag ("hat_gnu"), the phrase is the category's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Description:
    """Captions for one recorded file, the facts behind them, and its group."""

    captions: tuple[str, ...]
    concept: dict[str, Any]
    group: str


@dataclass(frozen=True)
class _Category:
    """A family of files: its name, the phrase for one whose name says no more, and its shape in `_SHAPES`."""

    name: str
    default: str
    shape: str


# Phrasings by kind of sound: {p} is the phrase, {a} the phrase with its article.
_SHAPES = {
    "hit": ("{a}", "a single {p}", "the sound of {a}", "{p}, one shot", "percussion sample: {p}"),
    "note": ("{a}", "the sound of {a}", "{p}, a single sound", "one-shot sample: {p}"),
    "texture": ("{a}", "the sound of {a}", "{p}, ambient texture", "an atmospheric background: {p}"),
    "loop": ("{a}", "a repeating {p}", "{p}, a loop", "music loop: {p}", "the sound of {a}"),
    "effect": ("{a}", "the sound of {a}", "{p}, sound effect", "sound effect: {p}"),
}

_CATEGORIES = {
    "ambi": _Category("ambience", "ambient sound", "texture"),
    "arovane": _Category("electronic beat", "electronic beat", "loop"),
    "bass": _Category("synth bass", "synth bass note", "note"),
    "bd": _Category("bass drum", "bass drum hit", "hit"),
    "drum": _Category("drum kit", "drum hit", "hit"),
    "elec": _Category("electronic percussion", "electronic sound", "hit"),
    "glitch": _Category("glitch", "glitchy electronic sound", "note"),
    "guit": _Category("guitar", "guitar sound", "note"),
    "hat": _Category("hi-hat", "hi-hat hit", "hit"),
    "loop": _Category("loop", "rhythmic loop", "loop"),
    "mehackit": _Category("electronic effect", "electronic sound", "effect"),
    "misc": _Category("sound effect", "sound effect", "effect"),
    "perc": _Category("percussion", "percussion sound", "hit"),
    "ride": _Category("ride cymbal", "ride cymbal hit", "hit"),
    "sn": _Category("snare drum", "snare drum hit", "hit"),
    "tabla": _Category("tabla", "tabla stroke", "hit"),
    "tbd": _Category("electronic music", "electronic sound", "note"),
    "vinyl": _Category("vinyl record", "vinyl record sound", "effect"),
}

# Where the name says more than the category: the phrase, and a shape where it is not the category's.
_PHRASES: dict[str, str | tuple[str, str]] = {
    "ambi_choir": "soft choir chord",
    "ambi_dark_woosh": "dark woosh",
    "ambi_drone": "low drone",
    "ambi_glass_hum": "humming glass",
    "ambi_glass_rub": "glass rubbed with a finger",
    "ambi_haunted_hum": "haunted humming",
    "ambi_lunar_land": "spacey lunar landscape",
    "ambi_piano": "atmospheric piano",
    "ambi_sauna": "sauna ambience",
    "ambi_soft_buzz": "soft buzz",
    "ambi_swoosh": "airy swoosh",
    "bass_dnb_f": "drum and bass synth bass note on F",
    "bass_drop_c": "dropping synth bass note on C",
    "bass_hard_c": "hard synth bass note on C",
    "bass_hit_c": "short synth bass hit on C",
    "bass_thick_c": "thick synth bass note on C",
    "bass_trance_c": "trance synth bass note on C",
    "bass_voxy_c": "voice-like synth bass note on C",
    "bass_voxy_hit_c": "short voice-like synth bass hit on C",
    "bass_woodsy_c": "woody synth bass note on C",
    "bd_808": "808 kick drum",
    "bd_boom": "booming bass drum",
    "bd_chip": "chiptune bass drum",
    "bd_fat": "fat bass drum",
    "bd_haus": "house music kick drum",
    "bd_jazz": "jazz bass drum",
    "bd_klub": "club kick drum",
    "bd_pure": "pure bass drum",
    "bd_tek": "techno kick drum",
    "drum_bass_hard": "hard bass drum hit",
    "drum_bass_soft": "soft bass drum hit",
    "drum_cowbell": "cowbell",
    "drum_cymbal_closed": "closed hi-hat cymbal",
    "drum_cymbal_hard": "hard cymbal crash",
    "drum_cymbal_open": "open hi-hat cymbal",
    "drum_cymbal_pedal": "hi-hat cymbal closed with the pedal",
    "drum_cymbal_soft": "soft cymbal",
    "drum_heavy_kick": "heavy kick drum",
    "drum_roll": ("drum roll", "effect"),
    "drum_snare_hard": "hard snare drum hit",
    "drum_snare_soft": "soft snare drum hit",
    "drum_splash_hard": "hard splash cymbal",
    "drum_splash_soft": "soft splash cymbal",
    "drum_tom_hi_hard": "high tom-tom hit hard",
    "drum_tom_hi_soft": "high tom-tom hit softly",
    "drum_tom_lo_hard": "low tom-tom hit hard",
    "drum_tom_lo_soft": "low tom-tom hit softly",
    "drum_tom_mid_hard": "middle tom-tom hit hard",
    "drum_tom_mid_soft": "middle tom-tom hit softly",
    "elec_beep": "electronic beep",
    "elec_bell": "electronic bell",
    "elec_blip": "electronic blip",
    "elec_blip2": "electronic blip",
    "elec_blup": "electronic blup",
    "elec_bong": "electronic bong",
    "elec_chime": "electronic chime",
    "elec_cymbal": "electronic cymbal",
    "elec_filt_snare": "filtered electronic snare drum",
    "elec_flip": "electronic flip",
    "elec_fuzz_tom": "fuzzy electronic tom-tom",
    "elec_hi_snare": "high electronic snare drum",
    "elec_hollow_kick": "hollow electronic kick drum",
    "elec_lo_snare": "low electronic snare drum",
    "elec_mid_snare": "middle electronic snare drum",
    "elec_ping": "electronic ping",
    "elec_plip": "electronic plip",
    "elec_pop": "electronic pop",
    "elec_snare": "electronic snare drum",
    "elec_soft_kick": "soft electronic kick drum",
    "elec_tick": "electronic tick",
    "elec_triangle": "electronic triangle",
    "elec_twang": "electronic twang",
    "elec_twip": "electronic twip",
    "elec_wood": "electronic wood block",
    "glitch_bass_g": "glitchy bass sound on G",
    "glitch_perc": "glitchy percussion sound",
    "glitch_robot": "glitchy robot sound",
    "guit_e_fifths": "electric guitar playing fifths",
    "guit_e_slide": "electric guitar slide",
    "guit_em9": "guitar chord, E minor ninth",
    "guit_harmonics": "guitar playing harmonics",
    "hat_metal": "metallic hi-hat hit",
    "hat_noiz": "noisy hi-hat hit",
    "hat_raw": "raw hi-hat hit",
    "hat_snap": "snappy hi-hat hit",
    "hat_tap": "tapped hi-hat",
    "hat_zap": "zapping hi-hat hit",
    "loop_3d_printer": "3D printer at work",
    "loop_amen": "amen break drum loop",
    "loop_amen_full": "full amen break drum loop",
    "loop_breakbeat": "breakbeat drum loop",
    "loop_drone_g_97": "drone loop on G",
    "loop_electric": "electric loop",
    "loop_industrial": "industrial beat loop",
    "loop_perc": "percussion loop",
    "loop_tabla": "tabla drumming loop",
    "loop_weirdo": "weird electronic loop",
    "mehackit_phone": "electronic phone sound",
    "mehackit_robot": "robot sound",
    "misc_burp": "burp",
    "misc_cineboom": "cinematic boom",
    "misc_crow": "crow cawing",
    "perc_bell": ("ringing bell", "note"),
    "perc_door": ("door", "effect"),
    "perc_impact": "percussive impact",
    "perc_snap": "finger snap",
    "perc_swash": ("swash of percussion", "effect"),
    "perc_swoosh": ("percussive swoosh", "effect"),
    "perc_till": ("cash register till", "effect"),
    "sn_dub": "dub snare drum hit",
    "sn_generic": "plain snare drum hit",
    "tabla_dhec": "tabla stroke, dhec",
    "tabla_ghe": "bass tabla stroke, ghe",
    "tabla_ke": "muted tabla stroke, ke",
    "tabla_na": "tabla stroke, na",
    "tabla_na_o": "open tabla stroke, na",
    "tabla_na_s": "short tabla stroke, na",
    "tabla_re": "tabla stroke, re",
    "tabla_tas": "tabla stroke, tas",
    "tabla_te": "tabla stroke, te",
    "tabla_te_m": "muted tabla stroke, te",
    "tabla_te_ne": "tabla stroke, te ne",
    "tabla_tun": "resonant tabla stroke, tun",
    "tbd_fxbed_loop": ("bed of electronic effects", "texture"),
    "tbd_highkey_c4": "high electronic keyboard note on C",
    "tbd_pad": ("synth pad", "texture"),
    "tbd_perc_blip": ("electronic percussion blip", "hit"),
    "tbd_perc_hat": ("electronic hi-hat", "hit"),
    "tbd_perc_tap": ("electronic percussion tap", "hit"),
    "tbd_voctone": ("voice-like synth tone", "note"),
    "vinyl_backspin": "vinyl record spun backwards",
    "vinyl_hiss": ("vinyl record hiss", "texture"),
    "vinyl_rewind": "vinyl record rewinding",
    "vinyl_scratch": "scratch of a vinyl record",
}

# Different names for takes of one thing; numbers and loudness are dropped from every name anyway.
_SAME_GROUP = {
    "loop_amen_full": "loop_amen",
    "bass_voxy_hit_c": "bass_voxy_c",
    "tabla_na_o": "tabla_na",
    "tabla_na_s": "tabla_na",
    "tabla_te_m": "tabla_te",
    "tabla_te_ne": "tabla_te",
    "bd_808": "bd_808",
    "sn_zome": "zome",
    "bd_zome": "zome",
    "sn_dolf": "zome",
}


def describe(stem: str) -> Description | None:
    """Describe a recorded file by its name without ending; None where the category is not known."""
    prefix = stem.split("_", 1)[0]
    category = _CATEGORIES.get(prefix)
    if category is None:
        return None
    numberless = re.sub(r"_?\d+$", "", stem)
    found = _PHRASES.get(stem) or _PHRASES.get(numberless) or category.default
    phrase, shape = found if isinstance(found, tuple) else (found, category.shape)
    captions = [template.format(a=_a(phrase), p=phrase) for template in _SHAPES[shape]]
    if category.name not in phrase:
        captions[-1] = f"{category.name}: {phrase}"
    concept = {"kind": "recorded", "category": category.name, "name": phrase}
    return Description(tuple(captions), concept, f"recorded/{_group(stem, numberless)}")


def _group(stem: str, numberless: str) -> str:
    if stem in _SAME_GROUP:
        return _SAME_GROUP[stem]
    if stem.startswith("arovane_beat"):
        return "arovane_beat"
    return re.sub(r"_(hard|soft)$", "", numberless)


def _a(phrase: str) -> str:
    if re.match(r"(humming|haunted humming|vinyl record hiss|glass|sauna|atmospheric)", phrase):
        return phrase
    vowel = phrase[0] in "aeiou" or phrase.startswith("808")
    return f"{'an' if vowel else 'a'} {phrase}"
