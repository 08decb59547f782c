"""The record of a published data set, see `prediction`."""

from typing import NamedTuple


class Count(NamedTuple):
  """The number of clips of a split.

  Attributes:
    clips: the number of protocol windows (test) or sequences (train).
    exact: whether a different number is an error.
    note: what is known about the number.
  """

  clips: int
  exact: bool = True
  note: str = ''


class Protocol(NamedTuple):
  """A data set and its use in the published evaluations.

  Attributes:
    title: its name.
    url: where to get it.
    licence: terms and gates, as far as known.
    layout: the folders that are understood, below `root`.
    size: (H, W) to which frames are resized; None: as on disk.
    resize: how, and on whose word.
    window: frames in a test clip.
    test: which windows are for testing: 'first' or 'middle' one of each
      sequence, 'all', or 'back': from the end of each sequence backwards,
      without overlap (KTH: every 3rd of jogging and running).
    train: which windows are for training: 'all' or 'back' of each sequence,
      'start': one of each sequence with a random start, or 'random': with a
      random step, too.
    counts: split -> the expected number of clips.
    protocol: the context, target and reported frames.
    fit: the function of `resize` that is used for `size`.
    channels: 3, or 1 for grey.
    source: which of `data.SOURCES` reads it.
  """

  title: str
  url: str
  licence: str
  layout: str
  size: tuple[int, int] | None
  resize: str
  window: int
  test: str
  train: str
  counts: dict[str, Count]
  protocol: str
  fit: str = 'linear'
  channels: int = 3
  source: str = 'frames'
