"""music as a person runs it: the made sounds, sounds of files, and silence."""

import json

import numpy as np
import soundfile

from tfcnn import images


def test_the_made_melody_in_the_sound_of_the_made_organ(run_app, tmp_path):
    done = run_app("music", "--seconds=1", "--steps=4", "--filters=16", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert entry["files"] == ["melody_styled.png", "melody_styled.wav", "melody.wav", "organ.wav"]
    assert entry["picture"] == "melody_styled.png" and entry["sound"] == "melody_styled.wav"
    assert images.read(tmp_path / entry["picture"]).ndim == 3
    samples, rate = soundfile.read(tmp_path / entry["sound"])
    assert rate == entry["rate"] == 22050 and len(samples) == 22050 and np.abs(samples).max() > 0.05
    assert [e["step"] for e in entry["history"]] == [1, 2, 3, 4]
    assert set(entry["history"][0]) == {"step", "value", "style filters", "match filters"}
    assert entry["final"]["value"] < entry["history"][0]["value"]


def test_silence_is_refused_and_the_others_dream(run_app, tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(24000) / 16000)
    soundfile.write(tmp_path / "tone.wav", tone, 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(24000), 16000)
    sounds = f"--content={tmp_path / 'silent.wav'},{tmp_path / 'tone.wav'}"
    out = tmp_path / "out"
    done = run_app("music", sounds, "--method=dream", "--steps=3", "--filters=16", f"--output_dir={out}")
    assert done.returncode == 1, done.stderr
    report = json.loads((out / "results.json").read_text())
    assert [file["file"] for file in report["refused"]] == [str(tmp_path / "silent.wav")]
    assert "silence" in done.stderr.strip().splitlines()[-1] or "silence" in report["refused"][0]["why"]
    (entry,) = report["images"]
    assert entry["file"] == str(tmp_path / "tone.wav") and entry["method"] == "dream"
    assert entry["final"]["value"] > entry["history"][0]["value"]
    silent = run_app("music", f"--style={tmp_path / 'silent.wav'}", f"--output_dir={tmp_path / 'none'}")
    assert silent.returncode == 2 and "silence" in silent.stderr and not (tmp_path / "none").exists()
