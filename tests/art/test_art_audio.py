"""Sound to a spectrogram and back, its style, its dreams, and sounds that are none."""

import io

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tfcnn.art import audio, sounds
from tfcnn.errors import InputError

SECONDS = 1.0


@pytest.fixture(scope="module")
def melody():
    return sounds.plucked_melody(SECONDS)


@pytest.fixture(scope="module")
def organ():
    return sounds.organ(SECONDS)


@pytest.fixture(scope="module")
def net():
    return audio.random_net(32)


def wav(samples, rate, **how):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", **how)
    return buffer.getvalue()


def test_a_tone_lies_in_its_bin(melody):
    tone = np.sin(2 * np.pi * 1000 * np.arange(audio.RATE) / audio.RATE).astype(np.float32)
    picture = audio.spectrogram(tone)
    assert picture.shape[:2] == (1, 1) and picture.shape[3] == audio.WINDOW // 2 + 1
    middle = picture[0, 0, picture.shape[2] // 2]
    assert np.argmax(middle) == round(1000 * audio.WINDOW / audio.RATE)
    assert middle.max() == pytest.approx(np.log1p(audio.WINDOW / 4), abs=0.2)  # half the window's sum
    assert np.all(np.isfinite(audio.spectrogram(melody)))


def test_transform_and_inverse_give_the_sound_back(melody):
    spectrum = audio._stft(audio._padded(melody))
    back = audio._inverse(spectrum).numpy()[audio.WINDOW : audio.WINDOW + len(melody)]
    np.testing.assert_allclose(back, melody, atol=1e-4)


def test_griffin_lim_comes_nearer_with_each_round(organ):
    picture = audio.spectrogram(organ)
    noise = np.random.default_rng(0).normal(0, 0.1, len(organ)).astype(np.float32)

    def distance(rounds):
        found = audio.spectrogram(audio.sound(picture, noise, rounds))
        return np.linalg.norm(np.expm1(found) - np.expm1(picture)) / np.linalg.norm(np.expm1(picture))

    few, many = distance(1), distance(60)
    assert many < 0.7 * few and len(audio.sound(picture, noise, 1)) == len(organ)


def test_the_net_is_the_sources_formula(net):
    (kernel,) = net.get_weights()
    assert kernel.shape == (1, 11, 1025, 32)
    assert kernel.std() == pytest.approx(np.sqrt(2) * np.sqrt(2 / ((1025 + 32) * 11)), rel=0.01)
    assert net(np.zeros((1, 1, 40, 1025), np.float32))["filters"].shape == (1, 1, 30, 32)


def test_style_comes_in_and_content_stays(net, melody, organ):
    content, style = audio.spectrogram(melody), audio.spectrogram(organ)
    result = audio.transfer(net, content, style, 15, content_weight=1.0)
    assert result.final["style filters"][0] < 0.3 * result.terms["style filters"][0, 0]
    texture = audio.transfer(net, content, style, 15, content_weight=0.0)
    assert list(texture.final) == ["style filters"]
    features = [net(each)["filters"] for each in (content, result.image, texture.image)]
    near, far = (tf.reduce_mean((each - features[0]) ** 2).numpy() for each in features[1:])
    assert near < far
    assert result.image.min() >= 0 and [e["step"] for e in result.history()][-1] <= 15


def test_dreams_rise_and_a_guide_leads(net, melody, organ):
    content, guide = audio.spectrogram(melody), audio.spectrogram(organ)
    for given in (None, guide):
        result = audio.dream(net, content, given, 10)
        assert result.final_entry()["value"] > 1.2 * result.history()[0]["value"]
        assert 0 <= result.image.min() and result.image.max() <= max(content.max(), guide.max()) + 1e-5


def test_sounds_of_any_rate_and_channels_are_read():
    time = np.arange(48000) / 48000
    stereo = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros(48000)], axis=1)
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        samples = audio.read(wav(stereo, 48000, subtype=subtype))
        assert len(samples) == audio.RATE and samples.dtype == np.float32
        assert np.abs(samples[2000:-2000]).max() == pytest.approx(0.5, abs=0.02)
    assert len(audio.read(wav(stereo, 48000), seconds=0.6)) == pytest.approx(0.6 * audio.RATE, abs=2)


def test_what_is_no_sound_is_refused_in_one_line(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 30000)
    broken = noise.copy()
    broken[5] = np.nan
    files = {
        "silent.wav": (wav(np.zeros(30000), 22050), "silence"),
        "short.wav": (wav(noise[:2000], 22050), "at least 0.5 s"),
        "none.wav": (b"this is no sound", "no sound file"),
        "empty.wav": (b"", "no sound file"),
        "nan.wav": (wav(broken, 22050, subtype="FLOAT"), "not numbers"),
    }
    for name, (data, why) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.*{why}") as error:
            audio.read(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="gone.wav"):
        audio.read(tmp_path / "gone.wav")


def test_a_loud_sound_is_made_softer_as_a_whole(melody):
    samples, rate = soundfile.read(io.BytesIO(audio.encode(melody * 10)))
    assert rate == audio.RATE and np.abs(samples).max() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(samples, melody)[0, 1] > 0.999


def test_made_sounds_are_heard_and_have_no_hum():
    for make in (sounds.plucked_melody, sounds.organ):
        samples = make(1.5)
        assert samples.dtype == np.float32 and len(samples) == int(1.5 * sounds.RATE)
        assert np.abs(samples).max() == pytest.approx(0.7, abs=1e-3) and abs(samples.mean()) < 0.01
        np.testing.assert_array_equal(samples, make(1.5))
        audio.require_sound(samples, "made")
