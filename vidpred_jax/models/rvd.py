"""RVD's networks: the mean of the next frame, the contexts, the denoiser.

Two recurrent networks observe the frames x^0..x^t. The mean network predicts
the mean mu of x^{t+1}; the context network gives a context at each resolution.
The denoiser (`models/denoiser.py`) estimates the noise from the noisy residual
y_n, the step n and the contexts. Frames and means are in [-1, 1], clips are
[B, T, H, W, C]. The recurrent state, `State`, is an argument and a result. All
frames of a clip are one call, and the part of a cell that does not depend on
its state is computed for all of them together.

Yang, Srivastava and Mandt, "Diffusion Probabilistic Modeling for Video
Generation", 2022, appendix A. The defaults are the widths of table 3 for 128
pixels; `WIDTHS_64` are those for 64. Where the paper is silent this follows the
published code: the mean is clipped to [-1, 1], and the recurrent cell comes
after the block of its level.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.models.denoiser import Conv, Denoiser, ResBlock
from vidpred_jax.ops import conv

# Of table 3, for 64 pixels.
WIDTHS_64 = {'dim': 48, 'mults': (1, 2, 4, 8), 'mean_mults': (1, 2, 2, 4)}


class State(NamedTuple):
  """The state of the recurrent networks.

  Attributes:
    context: hidden features of the context network, one [B, H', W', C'] for
      each level.
    mean: of the mean network; () without one.
  """

  context: tuple[jax.Array, ...]
  mean: tuple[jax.Array, ...]


class ConvGRU(nn.Module):
  """A convolutional gated recurrent unit.

    reset, update = sigmoid(gates * [x, h])
    h <- (1 - update) h + update tanh(candidate * [x, reset h])

  Attributes:
    inputs: channels of x.
    features: channels of h.
  """

  inputs: int
  features: int

  def setup(self):
    """Declares the two convolutions."""
    total = self.inputs + self.features
    self.gates = Conv(total, 2 * self.features)
    self.candidate = Conv(total, self.features)

  def __call__(self, x, state):
    """Runs the cell over all frames.

    Args:
      x: [B, T, H, W, inputs].
      state: h before the first, [B, H, W, features].

    Returns:
      h after each frame, [B, T, H, W, features], and after the last.
    """
    kernels = [self.gates.kernel, self.candidate.kernel]
    kernel = jnp.concatenate([k[:, :, : self.inputs] for k in kernels], -1)
    bias = jnp.concatenate([self.gates.bias, self.candidate.bias])
    of_x = conv.conv(_rows(x), kernel, padding=1)
    of_x = conv.bias_add(of_x, bias).reshape(*x.shape[:-1], -1)
    of_gates, of_candidate = (k[:, :, self.inputs :] for k in kernels)

    def step(h, of_x):
      gates, candidate = jnp.split(of_x, [2 * self.features], -1)
      gates = jax.nn.sigmoid(gates + conv.conv(h, of_gates, padding=1))
      reset, update = jnp.split(gates, 2, -1)
      candidate += conv.conv(reset * h, of_candidate, padding=1)
      h = h + update * (jnp.tanh(candidate) - h)
      return h, h

    if x.shape[1] == 1:
      state, _ = step(state, of_x[:, 0])
      return state[:, None], state
    # Unrolled: in a loop XLA's CPU takes a slow path for the gradients of
    # convolutions, which made a training step four times as long (2026-11).
    of_x = jnp.moveaxis(of_x, 1, 0)
    state, states = jax.lax.scan(step, state, of_x, unroll=True)
    return jnp.moveaxis(states, 0, 1), state


def _rows(x):
  """[B, T, ...] to [B * T, ...]."""
  return x.reshape(-1, *x.shape[2:])


class EncoderLevel(nn.Module):
  """A level of a recurrent network: block, recurrent cell, downsampling.

  Attributes:
    inputs: input channels.
    features: output channels.
    down: whether it ends with a convolution of stride 2.
  """

  inputs: int
  features: int
  down: bool

  def setup(self):
    """Declares the layers."""
    self.block = ResBlock(self.inputs, self.features)
    self.cell = ConvGRU(self.features, self.features)
    if self.down:
      self.shrink = Conv(self.features, self.features)

  def __call__(self, x, state):
    """The level's features, the new state, and the next level's input."""
    out = self.block(_rows(x)).reshape(*x.shape[:-1], self.features)
    out, state = self.cell(out, state)
    following = None
    if self.down:
      following = self.shrink(_rows(out), stride=2)
      following = following.reshape(*x.shape[:2], *following.shape[1:])
    return out, state, following


class RecurrentEncoder(nn.Module):
  """The context network: recurrent levels, each at half the height and width.

  Attributes:
    channels: of the frames.
    widths: features of the levels.
    remat: as of `denoiser.Denoiser`.
  """

  channels: int
  widths: tuple[int, ...]
  remat: bool = False

  def setup(self):
    """Declares the levels."""
    inputs = (self.channels, *self.widths[:-1])
    last = len(self.widths) - 1
    level = nn.remat(EncoderLevel) if self.remat else EncoderLevel
    self.level = [
      level(a, b, down=i < last)
      for i, (a, b) in enumerate(zip(inputs, self.widths))
    ]

  def __call__(self, x, states):
    """Features of all levels after each frame, and the new states.

    Args:
      x: [B, T, H, W, channels].
      states: one [B, H', W', width] for each level.

    Returns:
      A list of [B, T, H', W', width], and a tuple like `states`.
    """
    features, new = [], []
    for level, state in zip(self.level, states):
      out, state, x = level(x, state)
      features.append(out)
      new.append(state)
    return features, tuple(new)


class UpBlock(nn.Module):
  """A decoder level of the mean network: a block, then upsampling by 2.

  Attributes:
    inputs: input channels.
    features: output channels.
  """

  inputs: int
  features: int

  def setup(self):
    """Declares the layers."""
    self.block = ResBlock(self.inputs, self.features)
    self.grow = Conv(self.features, self.features, size=4)

  def __call__(self, x):
    """[B, H, W, inputs] to [B, 2 H, 2 W, features]."""
    return self.grow(self.block(x))


class MeanNet(nn.Module):
  """The mean network: predicts the next frame, mu_phi (figure 6, transform).

  Attributes:
    channels: of the frames.
    widths: features of the levels.
    remat: as of `denoiser.Denoiser`.
  """

  channels: int
  widths: tuple[int, ...]
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    self.memory = RecurrentEncoder(self.channels, self.widths, self.remat)
    ups = list(zip(self.widths[1:], self.widths[:-1]))[::-1]
    up = nn.remat(UpBlock) if self.remat else UpBlock
    self.up = [up(a * (1 if i == 0 else 2), b) for i, (a, b) in enumerate(ups)]
    self.readout = Conv(self.widths[0], self.channels)

  def __call__(self, x, states, since: int = 0):
    """The means after frames `since`, `since + 1`, ..., and the new states.

    Args:
      x: [B, T, H, W, channels].
      states: as for `RecurrentEncoder`.
      since: frames before this one only update the states.

    Returns:
      [B, T - since, H, W, channels] in [-1, 1], float32, and the states.
    """
    features, states = self.memory(x, states)
    kept = [_rows(level[:, since:]) for level in features]
    out = kept.pop()
    for i, rise in enumerate(self.up):
      out = rise(out if i == 0 else jnp.concatenate([out, kept.pop()], -1))
    mean = self.readout(out).astype(jnp.float32)
    mean = mean.reshape(x.shape[0], -1, *mean.shape[1:])
    return jnp.clip(mean, -1, 1), states


class RVD(nn.Module):
  """The three networks.

  Attributes:
    channels: of a frame, C.
    dim: channels at full resolution, a multiple of 8.
    mults: width of each level of the denoiser and of the contexts, in units of
      `dim`; two or more, the first is 1. Each level has half the height and
      width.
    mean_mults: widths of the mean network's levels, likewise. None: there is no
      mean network, and the mean is 0 (the ablation VD of section 3.6).
    dtype: of the computation. Parameters, statistics, steps and results are
      float32.
    remat: as of `denoiser.Denoiser`, of all three networks.
  """

  channels: int = 1
  dim: int = 64
  mults: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
  mean_mults: tuple[int, ...] | None = (1, 2, 3, 4)
  dtype: Any = jnp.float32
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    widths, remat = self._widths(self.mults), self.remat
    self.context_net = RecurrentEncoder(self.channels, widths, remat)
    self.denoiser = Denoiser(self.channels, self.dim, widths, remat)
    if self.mean_mults is not None:
      widths = self._widths(self.mean_mults)
      self.mean_net = MeanNet(self.channels, widths, remat)

  def _widths(self, mults):
    return tuple(self.dim * m for m in mults)

  @nn.nowrap
  def multiple(self) -> int:
    """H and W must be divisible by this."""
    return 2 ** (max(len(self.mults), len(self.mean_mults or ())) - 1)

  @nn.nowrap
  def initial_state(self, batch: int, height: int, width: int) -> State:
    """The recurrent state before the first frame: zeros."""

    def zeros(mults):
      return tuple(
        jnp.zeros((batch, height >> i, width >> i, c), self.dtype)
        for i, c in enumerate(self._widths(mults))
      )

    return State(zeros(self.mults), zeros(self.mean_mults or ()))

  def observe(self, frames, state: State, since: int = 0):
    """Updates the recurrent networks by frames.

    Args:
      frames: [B, T, H, W, C] in [-1, 1], which follow those observed before.
      state: from `initial_state` or from the previous call.
      since: the first frame after which contexts and means are returned.

    Returns:
      Contexts, for each level [B, T - since, H', W', C']; the means of the
      frames that follow, [B, T - since, H, W, C] in [-1, 1]; the new state.
    """
    x = frames.astype(self.dtype)
    contexts, remembered = self.context_net(x, state.context)
    contexts = [c[:, since:] for c in contexts]
    if self.mean_mults is None:
      mean = jnp.zeros_like(frames[:, since:], jnp.float32)
      return contexts, mean, State(remembered, ())
    mean, states = self.mean_net(x, state.mean, since)
    return contexts, mean, State(remembered, states)

  def prepare(self, contexts):
    """Precomputes what `denoise` needs of contexts [B, H', W', C']."""
    return self.denoiser.prepare(contexts)

  def denoise(self, noisy, n, prepared):
    """The denoiser's estimate.

    Args:
      noisy: y_n, [B, H, W, C].
      n: the step, int32 scalar or [B].
      prepared: from `prepare`.

    Returns:
      [B, H, W, C] float32: of the noise, if it was trained for that.
    """
    n = jnp.reshape(n, (-1,))
    return self.denoiser(noisy.astype(self.dtype), n, prepared)

  def embed(self, n):
    """The embedding of steps, int32 [B] to [B, dim]."""
    return self.denoiser.embed(n)

  def __call__(self, frames, noisy, n):
    """The estimate for the frame after a clip.

    Args:
      frames: [B, T, H, W, C] in [-1, 1].
      noisy: [B, H, W, C].
      n: int32 scalar or [B].

    Returns:
      The estimate and the mean, both [B, H, W, C].
    """
    batch, count, height, width, _ = frames.shape
    state = self.initial_state(batch, height, width)
    contexts, mean, _ = self.observe(frames, state, count - 1)
    prepared = self.prepare([c[:, 0] for c in contexts])
    return self.denoise(noisy, n, prepared), mean[:, 0]
