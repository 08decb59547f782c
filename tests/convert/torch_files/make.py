"""Writes the small files that test_torch_pickle.py reads; needs PyTorch.

  python tests/convert/torch_files/make.py

They were written once with PyTorch 2.13. `contents` says what is in them.
"""

import pathlib

import torch

HERE = pathlib.Path(__file__).parent


def contents():
  base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
  shared = torch.arange(10, dtype=torch.float32)
  return {
    'float32': base / 8,
    'transposed': (base + 100).permute(2, 0, 1),
    'sliced': (base + 200)[:, 1:, ::2],
    'expanded': torch.tensor([[1.5], [2.5]]).expand(2, 3),
    'shared_a': shared[:6],
    'shared_b': shared[4:],
    'parameter': torch.nn.Parameter(torch.tensor([0.25, -0.25])),
    'scalar': torch.tensor(7, dtype=torch.int64),
    'empty': torch.zeros(0, 3),
    'float64': torch.tensor([1 / 3], dtype=torch.float64),
    'float16': torch.tensor([0.5, -1024.0], dtype=torch.float16),
    'bfloat16': torch.tensor([3.140625, -(2.0**100)], dtype=torch.bfloat16),
    'int8': torch.tensor([-128, 127], dtype=torch.int8),
    'uint8': torch.tensor([0, 255], dtype=torch.uint8),
    'int16': torch.tensor([-30000], dtype=torch.int16),
    'int32': torch.tensor([-(2**31)], dtype=torch.int32),
    'int64': torch.tensor([2**60 + 1], dtype=torch.int64),
    'bool': torch.tensor([True, False, True]),
    'complex64': torch.tensor([1 - 2j]),
  }


def main():
  torch.save(contents(), HERE / 'zip.pth')
  torch.save(
    contents(), HERE / 'legacy.pth', _use_new_zipfile_serialization=False
  )
  model = torch.nn.DataParallel(torch.nn.Linear(3, 2))
  torch.nn.init.constant_(model.module.weight, 0.5)
  torch.nn.init.constant_(model.module.bias, -1.0)
  optimizer = torch.optim.Adam(model.parameters())
  model(torch.ones(1, 3)).sum().backward()
  optimizer.step()
  run = {
    'model': model.state_dict(),
    'optimizer': optimizer.state_dict(),
    'epoch': 3,
    'size': torch.Size([2, 3]),
  }
  torch.save(run, HERE / 'training.pth')
  torch.save(model.module, HERE / 'whole_module.pth')
  torch.save(
    {'uint16': torch.tensor([65535], dtype=torch.uint16)}, HERE / 'uint16.pth'
  )


if __name__ == '__main__':
  main()
