"""Sounds made by code, for examples: a plucked melody, and an organ that breathes."""

import numpy as np
from scipy import signal

RATE = 22050  # samples a second


def plucked_melody(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    """A melody on a plucked string, four notes a second: float32 [S], full scale is 1.

    Source: Karplus & Strong 1983: noise that runs round in a delay line and is smoothed each time.
    """
    random = np.random.default_rng(seed)
    scale = 220.0 * 2.0 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12.0)
    notes = np.clip(np.cumsum(random.integers(-2, 3, int(4 * seconds))) + 3, 0, len(scale) - 1)
    samples = np.zeros(int(RATE * seconds))
    for index, note in enumerate(notes):
        start = int(index * RATE / 4)
        tone = _string(scale[note], min(len(samples) - start, int(1.2 * RATE)), random)
        samples[start : start + len(tone)] += tone
    return _levelled(samples)


def _string(frequency, length, random):
    delay = round(RATE / frequency - 0.5)
    excitation = np.zeros(length)
    burst = random.uniform(-1.0, 1.0, delay)
    burst = (burst - burst.mean())[:length]  # no hum of frequency 0
    excitation[: len(burst)] = burst
    loop = np.zeros(delay + 2)
    loop[0], loop[delay], loop[delay + 1] = 1.0, -0.4985, -0.4985
    return signal.lfilter([1.0], loop, excitation)


def organ(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    """Long chords of an organ, a little unsteady, with air in the pipes: float32 [S], full scale is 1."""
    random = np.random.default_rng(seed)
    time = np.arange(int(RATE * seconds)) / RATE
    chords = [(0, 4, 7, 12), (-3, 0, 4, 9), (5, 9, 12, 17), (-5, 2, 7, 11)]
    samples = np.zeros(len(time))
    for index in range(int(np.ceil(seconds / 1.5))):
        swell = np.clip(np.minimum(time - 1.5 * index, 1.5 * index + 1.9 - time) / 0.4, 0.0, 1.0)
        for half_tones in chords[index % len(chords)]:
            pitch = 220.0 * 2.0 ** (half_tones / 12.0)
            turn = 2 * np.pi * pitch * time + 0.9 * np.sin(2 * np.pi * random.uniform(4.5, 6.0) * time)
            for harmonic, loud in ((1, 1.0), (2, 0.7), (3, 0.45), (4, 0.5), (6, 0.25), (8, 0.3)):
                samples += swell * loud * np.sin(harmonic * turn + random.uniform(0, 2 * np.pi))
    air = signal.sosfilt(
        signal.butter(2, (300, 3000), "band", fs=RATE, output="sos"), random.normal(size=len(time))
    )
    return _levelled(samples + 0.6 * air)


def _levelled(samples):
    fade = np.minimum(1.0, np.minimum(np.arange(len(samples)), np.arange(len(samples))[::-1]) / (0.02 * RATE))
    samples = samples * fade
    return (0.7 * samples / np.abs(samples).max()).astype(np.float32)
