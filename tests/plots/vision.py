"""What eyes with a colour deficiency see: Machado, Oliveira, Fernandes 2009, severity 1, on linear sRGB."""

from __future__ import annotations

import numpy as np

VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(channels: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB channels in [0, 1]."""
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def seen_as(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Return an sRGB image, (..., 3) in [0, 1], as a kind of eye sees it."""
    light = np.clip(linear(pixels) @ np.array(VISION[kind]).T, 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
