"""Names of objects that training files hold in addition to weights."""

# Kinds of objects that programs keep beside weights. None of them is made.
OTHERS = {
  module: names.split()
  for module, names in {
    'builtins': 'set frozenset slice range complex bytearray object list tuple '
    'dict int float str bool bytes',
    'argparse': 'Namespace',
    'types': 'SimpleNamespace',
    'collections': 'deque UserDict UserList ChainMap',
    'copyreg': '_reconstructor',
    'datetime': 'datetime date time timedelta timezone',
    'zoneinfo': 'ZoneInfo ZoneInfo._unpickle',
    'decimal': 'Decimal',
    'fractions': 'Fraction',
    'uuid': 'UUID SafeUUID',
    'pathlib': 'Path PurePath PosixPath PurePosixPath WindowsPath '
    'PureWindowsPath',
    'pathlib._local': 'Path PurePath PosixPath PurePosixPath WindowsPath '
    'PureWindowsPath',
    'torch': 'device Generator',
    'torch.torch_version': 'TorchVersion',
    'omegaconf.dictconfig': 'DictConfig',
    'omegaconf.listconfig': 'ListConfig',
    'omegaconf.base': 'ContainerMetadata Metadata',
    'omegaconf.nodes': 'AnyNode IntegerNode FloatNode BooleanNode StringNode '
    'PathNode BytesNode EnumNode',
    'typing': 'Any',
    'easydict': 'EasyDict',
    'yacs.config': 'CfgNode',
    'addict.addict': 'Dict',
    'ml_collections.config_dict.config_dict': 'ConfigDict FrozenConfigDict',
    'mmengine.config.config': 'ConfigDict Config',
    'pytorch_lightning.utilities.parsing': 'AttributeDict',
    'lightning.pytorch.utilities.parsing': 'AttributeDict',
    'lightning_fabric.utilities.data': 'AttributeDict',
    'lightning.fabric.utilities.data': 'AttributeDict',
  }.items()
}
# Before protocol 3 modules have the names of Python 2.
OLD = {'builtins': '__builtin__', 'copyreg': 'copy_reg'}
OTHERS['__builtin__'] = ['xrange', 'long', 'unicode']
