"""The networks, written from the papers' descriptions, layer by layer."""

import math

import torch
import torch.nn.functional as F
from torch import nn

SCALES = (4, 4, 4, 2, 2, 2, 1, 1, 1)
WIDTHS = (160, 160, 160, 80, 80, 80, 44, 44, 44)

# ----------------------------------------------------------------------- DMVFN


def _conv(inputs, outputs, stride=1):
  return nn.Sequential(
    nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs)
  )


def enlarge(x, factor):
  return F.interpolate(
    x, scale_factor=factor, mode='bilinear', align_corners=False
  )


class Block(nn.Module):
  """A multi-scale voxel flow block."""

  def __init__(self, width, scale):
    super().__init__()
    self.scale = scale
    self.down = nn.Sequential(
      _conv(17, width // 2, 2), _conv(width // 2, width, 2)
    )
    self.motion = nn.Sequential(*(_conv(width, width) for _ in range(3)))
    self.squeeze = _conv(width, width // 4)
    self.detail = nn.Sequential(_conv(17, 8, 2), _conv(8, 8))
    self.head = nn.ConvTranspose2d(width // 4 + 8, 5, 4, 2, 1)

  def forward(self, x, flow):
    """The increments of flow and mask."""
    scale = self.scale
    fine = torch.cat((x, flow), 1)
    if scale > 1:
      x, flow = enlarge(x, 1 / scale), enlarge(flow, 1 / scale) / scale
    y = self.down(torch.cat((x, flow), 1))
    y = enlarge(self.squeeze(self.motion(y) + y), 2 * scale)
    out = self.head(torch.cat((y, self.detail(fine)), 1))
    return out[:, :4], out[:, 4:]


def warp(image, flow):
  """Backward warping by a flow in pixels, clamped at the border."""
  height, width = image.shape[2:]
  y, x = torch.meshgrid(
    torch.arange(height), torch.arange(width), indexing='ij'
  )
  x = 2 * (x + flow[:, 0]) / (width - 1) - 1
  y = 2 * (y + flow[:, 1]) / (height - 1) - 1
  return F.grid_sample(
    image, torch.stack((x, y), -1), padding_mode='border', align_corners=True
  )


class DMVFN(nn.Module):
  """Blocks, nine as published, and a router."""

  def __init__(self, widths=WIDTHS, scales=SCALES):
    super().__init__()
    self.blocks = nn.ModuleList(map(Block, widths, scales))
    self.router = nn.Sequential(
      nn.Conv2d(6, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)
    )
    self.logits = nn.Linear(32, len(widths))

  def probabilities(self, pair):
    """Of each block, budgeted."""
    score = torch.sigmoid(self.logits(self.router(pair).mean((2, 3))))
    budget = 0.5 * len(self.blocks)
    return (budget * score / score.sum(1, keepdim=True)).clamp(0, 1)

  def forward(self, pair, used):
    """The prediction with the first `used` blocks, the others skipped."""
    self.probabilities(pair)
    older, newer = pair[:, :3], pair[:, 3:]
    warped = older, newer
    voxel = pair.new_zeros(len(pair), 5, *pair.shape[2:])
    for block in self.blocks[:used]:
      flow, mask = voxel[:, :4], voxel[:, 4:]
      voxel = voxel + torch.cat(
        block(torch.cat((pair, *warped, mask), 1), flow), 1
      )
      warped = warp(older, voxel[:, :2]), warp(newer, voxel[:, 2:4])
    return _blend(*warped, voxel)

  def loss(self, pair, truth):
    """Deep supervision by the Laplacian pyramid, routes drawn."""
    chances = self.probabilities(pair)
    gates = chances + (torch.bernoulli(chances) - chances).detach()
    older, newer = pair[:, :3], pair[:, 3:]
    warped, total = (older, newer), 0.0
    voxel = pair.new_zeros(len(pair), 5, *pair.shape[2:])
    for i, block in enumerate(self.blocks):
      flow, mask = voxel[:, :4], voxel[:, 4:]
      change = torch.cat(block(torch.cat((pair, *warped, mask), 1), flow), 1)
      now = voxel + change
      voxel = voxel + change * gates[:, i].view(-1, 1, 1, 1)
      warped = warp(older, voxel[:, :2]), warp(newer, voxel[:, 2:4])
      if i < len(self.blocks) - 1:
        seen = warp(older, now[:, :2]), warp(newer, now[:, 2:4])
        frame = _blend(*seen, now)
      else:
        frame = _blend(*warped, voxel)
      weight = 0.8 ** (len(self.blocks) - 1 - i)
      total = total + weight * laplacian(frame, truth)
    return total


def _blend(older, newer, voxel):
  weight = torch.sigmoid(voxel[:, 4:])
  return (older * weight + newer * (1 - weight)).clamp(0, 1)


def laplacian(pred, truth, levels=5):
  """Mean absolute difference of Laplacian pyramids, summed over levels."""
  row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
  kernel = torch.outer(row, row).expand(3, 1, 5, 5)

  def blur(x):
    return F.conv2d(F.pad(x, (2, 2, 2, 2), 'reflect'), kernel, groups=3)

  total, x = 0.0, pred - truth  # the pyramid is linear
  for _ in range(levels):
    small = blur(x)[:, :, ::2, ::2]
    spread = torch.zeros_like(x)
    spread[:, :, ::2, ::2] = small
    total = total + (x - 4 * blur(spread)).abs().mean()
    x = small
  return total


# ----------------------------------------------------------------------- SimVP


class Unit(nn.Module):
  """Convolution, group norm, SiLU; smaller, larger or the same size."""

  def __init__(self, inputs, outputs, stride=1, up=False):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs * (4 if up else 1), 3, stride, 1)
    self.shuffle = nn.PixelShuffle(2) if up else nn.Identity()
    self.norm = nn.GroupNorm(2, outputs)

  def forward(self, x):
    """The layers in their order."""
    return F.silu(self.norm(self.shuffle(self.conv(x))))


class Attention(nn.Module):
  """Gated spatiotemporal attention."""

  def __init__(self, width):
    super().__init__()
    self.first, self.last = (nn.Conv2d(width, width, 1) for _ in range(2))
    self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
    self.far = nn.Conv2d(width, width, 7, padding=9, dilation=3, groups=width)
    self.gate = nn.Conv2d(width, 2 * width, 1)

  def forward(self, x):
    """The layers in their order."""
    y = self.gate(self.far(self.near(F.gelu(self.first(x)))))
    value, gate = y.chunk(2, 1)
    return self.last(value * torch.sigmoid(gate)) + x


class GSTA(nn.Module):
  """A block of the translator."""

  def __init__(self, width, ratio=8):
    super().__init__()
    self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
    self.scales = nn.ParameterList(
      nn.Parameter(1e-2 * torch.ones(width, 1, 1)) for _ in range(2)
    )
    self.attention = Attention(width)
    wide = ratio * width
    self.mlp = nn.Sequential(
      nn.Conv2d(width, wide, 1),
      nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
      nn.GELU(),
      nn.Conv2d(wide, width, 1),
    )

  def forward(self, x):
    """The layers in their order."""
    x = x + self.scales[0] * self.attention(self.norms[0](x))
    return x + self.scales[1] * self.mlp(self.norms[1](x))


class SimVP(nn.Module):
  """SimVPv2-S for ten frames of one channel."""

  def __init__(self, frames=10, hid_s=64, hid_t=512, blocks=8):
    super().__init__()
    self.encoder = nn.ModuleList(
      [
        Unit(1, hid_s),
        Unit(hid_s, hid_s, 2),
        Unit(hid_s, hid_s),
        Unit(hid_s, hid_s, 2),
      ]
    )
    self.decoder = nn.ModuleList(
      [
        Unit(hid_s, hid_s, up=True),
        Unit(hid_s, hid_s),
        Unit(hid_s, hid_s, up=True),
        Unit(hid_s, hid_s),
      ]
    )
    ends = (
      nn.Conv2d(frames * hid_s, hid_t, 1),
      nn.Conv2d(hid_t, frames * hid_s, 1),
    )
    self.translator = nn.Sequential(
      GSTA(frames * hid_s),
      ends[0],
      *(GSTA(hid_t) for _ in range(blocks - 1)),
      ends[1],
    )
    self.readout = nn.Conv2d(hid_s, 1, 1)

  def forward(self, video):
    """As many frames as are seen."""
    batch, frames, _, height, width = video.shape
    x = skip = self.encoder[0](video.flatten(0, 1))
    for unit in self.encoder[1:]:
      x = unit(x)
    y = x.reshape(batch, -1, *x.shape[2:])
    x = self.translator(y).reshape(x.shape)
    for unit in self.decoder[:-1]:
      x = unit(x)
    x = self.readout(self.decoder[-1](x + skip))
    return x.reshape(batch, frames, 1, height, width)


# ------------------------------------------------------------------------- RVD

WIDTHS_OF = {64: (48, (1, 2, 4, 8)), 128: (64, (1, 1, 2, 2, 4, 4))}


class Residual(nn.Module):
  """Two convolutions with group norm, and a shortcut."""

  def __init__(self, inputs, outputs, time=0):
    super().__init__()
    self.first, self.second = (
      nn.Sequential(
        nn.Conv2d(n, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.LeakyReLU(0.2),
      )
      for n in (inputs, outputs)
    )
    self.time = nn.Linear(time, outputs) if time else None
    same = inputs == outputs
    self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

  def forward(self, x, step=None):
    """The layers in their order."""
    y = self.first(x)
    if step is not None:
      y = y + self.time(F.leaky_relu(step, 0.2))[:, :, None, None]
    return self.second(y) + self.shortcut(x)


class LinearAttention(nn.Module):
  """Attention over pixels that is linear in their number, with a norm."""

  def __init__(self, width, heads=4, size=16):
    super().__init__()
    self.heads = heads
    self.scale = nn.Parameter(torch.ones(1, width, 1, 1))
    self.shift = nn.Parameter(torch.zeros(1, width, 1, 1))
    self.qkv = nn.Conv2d(width, 3 * heads * size, 1, bias=False)
    self.out = nn.Conv2d(heads * size, width, 1)

  def forward(self, x):
    """The layers in their order."""
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    y = (x - mean) / (variance + 1e-5).sqrt() * self.scale + self.shift
    qkv = self.qkv(y).unflatten(1, (3, self.heads, -1)).flatten(4)
    q, k, v = qkv.unbind(1)
    context = k.softmax(-1) @ v.transpose(-1, -2)
    y = context.transpose(-1, -2) @ (q * q.shape[2] ** -0.5)
    return x + self.out(y.flatten(1, 2).unflatten(2, x.shape[2:]))


class Denoiser(nn.Module):
  """The noise network of RVD, for three channels."""

  def __init__(self, dim, mults):
    super().__init__()
    widths = [dim * m for m in mults]
    self.dim = dim
    self.time = nn.Sequential(
      nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
    )
    self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
    pairs = list(zip([3, *widths[:-1]], widths))
    for i, (a, b) in enumerate(pairs):
      parts = [Residual(a, b, dim), Residual(2 * b, b, dim), LinearAttention(b)]
      if i < len(pairs) - 1:
        parts.append(nn.Conv2d(b, b, 3, 2, 1))
      self.downs.append(nn.ModuleList(parts))
    deep = widths[-1]
    self.middle = nn.ModuleList(
      (Residual(deep, deep, dim), LinearAttention(deep))
    )
    self.middle.append(Residual(deep, deep, dim))
    for a, b in reversed(pairs[1:]):
      parts = [Residual(2 * b, a, dim), Residual(a, a, dim), LinearAttention(a)]
      parts.append(nn.ConvTranspose2d(a, a, 4, 2, 1))
      self.ups.append(nn.ModuleList(parts))
    self.last = nn.Sequential(
      nn.Conv2d(dim, dim, 3, padding=1),
      nn.GroupNorm(8, dim),
      nn.LeakyReLU(0.2),
      nn.Conv2d(dim, 3, 1),
    )

  def forward(self, x, step, contexts):
    """The estimated noise."""
    half = self.dim // 2
    rates = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half))
    phase = step[:, None] * rates
    step = self.time(torch.cat((phase.sin(), phase.cos()), 1))
    kept = []
    for (first, second, attention, *down), seen in zip(self.downs, contexts):
      x = attention(second(torch.cat((first(x, step), seen), 1), step))
      kept.append(x)
      x = down[0](x) if down else x
    x = self.middle[2](self.middle[1](self.middle[0](x, step)), step)
    for first, second, attention, up in self.ups:
      x = first(torch.cat((x, kept.pop()), 1), step)
      x = up(attention(second(x, step)))
    return self.last(x)


# --------------------------------------------------------------------- APR-VFI


def splat(image, flow):
  """Forward warping along a flow in pixels; the mean of what meets."""
  height, width = image.shape[2:]
  y, x = torch.meshgrid(
    torch.arange(height), torch.arange(width), indexing='ij'
  )
  x, y = x + flow[:, 0], y + flow[:, 1]
  left, top = x.floor(), y.floor()
  values = torch.cat((image, torch.ones_like(image[:, :1])), 1).flatten(2)
  total = torch.zeros_like(values)
  for row in (top, top + 1):
    for column in (left, left + 1):
      share = (1 - (x - column).abs()) * (1 - (y - row).abs())
      share[(row < 0) | (row >= height) | (column < 0) | (column >= width)] = 0
      at = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
      at = at.long().flatten(1)[:, None].expand_as(total)
      total.scatter_add_(2, at, values * share.flatten(1)[:, None])
  weight = total[:, -1:]
  mean = total[:, :-1] / weight.where(weight != 0, 1)
  return mean.unflatten(2, (height, width))


def cost_volume(first, second, radius=4):
  """Mean products with the window around every pixel, row by row."""
  height, width = first.shape[2:]
  wide = F.pad(second, (radius,) * 4)
  return torch.stack(
    [
      (first * wide[:, :, i : i + height, j : j + width]).mean(1)
      for i in range(2 * radius + 1)
      for j in range(2 * radius + 1)
    ],
    1,
  )


def _leaky(inputs, outputs, size=3, stride=1):
  return nn.Sequential(
    nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.LeakyReLU(0.1)
  )


class BiFlowNet(nn.Module):
  """The flows between two frames, both ways."""

  def __init__(self):
    super().__init__()
    self.encoder = nn.Sequential(
      _leaky(3, 24, stride=2),
      *(_leaky(24, 24) for _ in range(2)),
      _leaky(24, 48, stride=2),
      *(_leaky(48, 48) for _ in range(5)),
    )
    self.estimator = nn.Sequential(
      _leaky(245, 160, 1),
      *(_leaky(a, b) for a, b in ((160, 128), (128, 112), (112, 96), (96, 64))),
    )
    self.flow = nn.Conv2d(64, 4, 3, padding=1)

  def forward(self, first, second, levels):
    """The flows, sides divisible by 2^(levels + 1)."""
    batch, _, height, width = first.shape
    size = height >> levels + 1, width >> levels + 1
    flow, feature = first.new_zeros(batch, 4, *size), None
    for level in reversed(range(levels)):
      frames = first, second
      if level:
        frames = [enlarge(x, 0.5**level) for x in frames]
      if feature is None:
        feature = first.new_zeros(batch, 64, *size)
      else:
        flow, feature = 2 * enlarge(flow, 2), enlarge(feature, 2)
        half = 0.5 * enlarge(flow, 4)
        frames = map(splat, frames, (half[:, :2], half[:, 2:]))
      first_seen, second_seen = map(self.encoder, frames)
      cost = F.leaky_relu(cost_volume(first_seen, second_seen), 0.1)
      feature = self.estimator(
        torch.cat((cost, first_seen, second_seen, feature, flow), 1)
      )
      flow = self.flow(feature)
    return enlarge(flow, 4)
