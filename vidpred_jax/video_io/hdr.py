"""Tone mapping: high dynamic range (PQ, HLG; BT.2020) to the standard range.

The reference white of high dynamic range, 203 cd/m^2 (BT.2408), becomes nearly
white. Light below three quarters of it is unchanged. Brighter light is
compressed towards white, equally for all three colours, so that hues are kept.
Colours outside BT.709 are clipped.

References:
  ITU-R BT.2100 (PQ, HLG), BT.2408 (reference white), BT.1886 (the display).
"""

import functools

import numpy as np

# FFmpeg's numbers of the transfer curves.
CURVES = {16: 'pq', 18: 'hlg'}
NUMBERS = {name: number for number, name in CURVES.items()}
_WHITE = 203.0  # cd/m^2
_KNEE = 0.75  # of white
_TO_709 = np.array(
  [
    [1.6605, -0.5876, -0.0728],
    [-0.1246, 1.1329, -0.0083],
    [-0.0182, -0.1006, 1.1187],
  ],
  np.float32,
)
_BITS = 12  # of the tables


def light(code: np.ndarray, curve: str) -> np.ndarray:
  """Linear light: for PQ of a display in cd/m^2, for HLG of the scene, 0 to 1.

  Args:
    code: code values in [0, 1].
    curve: 'pq' or 'hlg'.
  """
  if curve == 'pq':
    power = code ** (32 / 2523)
    ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return 10_000 * ratio ** (16384 / 2610)
  a, b, c = 0.17883277, 0.28466892, 0.55991073
  return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def to_standard(frame: np.ndarray, curve: str) -> np.ndarray:
  """Maps a frame to BT.709 colours and the standard range.

  Args:
    frame: uint16 [H, W, 3], RGB code values times 65535.
    curve: 'pq' or 'hlg'.

  Returns:
    uint8 [H, W, 3].
  """
  linear = _table(curve)[frame >> (16 - _BITS)]
  if curve == 'hlg':  # to a display of 1000 cd/m^2, whose gamma is 1.2
    scene = linear @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    bright = np.maximum(scene, 1e-6) ** np.float32(0.2)
    linear = linear * (np.float32(1000 / _WHITE) * bright)[..., None]
  linear = np.maximum(linear @ _TO_709.T, 0)
  most = linear.max(-1, keepdims=True)
  over = np.maximum(most - _KNEE, 0) / (1 - _KNEE)
  bent = np.minimum(most, _KNEE) + (1 - _KNEE) * over / (1 + over)
  linear *= bent / np.maximum(most, 1e-6)
  # The square root spreads the dark values of the table.
  places = np.sqrt(np.minimum(linear, 1)) * ((1 << _BITS) - 1)
  return _shown()[np.rint(places).astype(np.uint16)]


@functools.cache
def _table(curve: str) -> np.ndarray:
  code = (np.arange(1 << _BITS) + 0.5) / (1 << _BITS)
  scale = 1 / _WHITE if curve == 'pq' else 1.0
  return (light(code, curve) * scale).astype(np.float32)


@functools.cache
def _shown() -> np.ndarray:
  """Code values for a display of gamma 2.4, from the square root of light."""
  root = np.arange(1 << _BITS) / ((1 << _BITS) - 1)
  return np.rint(255 * root ** (2 / 2.4)).astype(np.uint8)
