"""Names of objects that training files hold in addition to weights."""

# Kinds of objects that programs keep beside weights. None of them is made.
OTHERS = {
  module: names.split()
  for module, names in {
    'builtins': 'set frozenset slice range complex bytearray object list tuple '
    'dict int float str bool bytes type getattr Ellipsis NotImplemented',
    'argparse': 'Namespace',
    'types': 'SimpleNamespace',
    'functools': 'partial',
    'operator': 'itemgetter attrgetter',
    'itertools': 'count cycle repeat chain',
    're': '_compile',
    'array': 'array _array_reconstructor',
    'random': 'Random',
    'logging': 'getLogger',
    'time': 'struct_time',
    'os': 'stat_result',
    'collections': 'deque UserDict UserList UserString ChainMap',
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
    'torch': 'device Generator strided sparse_coo contiguous_format '
    'channels_last channels_last_3d preserve_format per_tensor_affine '
    'per_channel_affine',
    'torch.serialization': '_get_layout',
    'numpy': 'matrix record recarray bool_ bool int8 int16 int32 int64 uint8 '
    'uint16 uint32 uint64 float16 float32 float64 longdouble complex64 '
    'complex128 str_ bytes_ void object_ datetime64 timedelta64',
    'numpy.matrixlib.defmatrix': 'matrix',
    'numpy.rec': 'recarray record',
    'numpy.ma': 'MaskedArray',
    'numpy.ma.core': '_mareconstruct MaskedArray',
    'numpy.random': 'RandomState Generator',
    'numpy.random._pickle': '__generator_ctor __randomstate_ctor '
    '__bit_generator_ctor',
    'numpy.random._mt19937': 'MT19937',
    'numpy.random._pcg64': 'PCG64 PCG64DXSM',
    'numpy.random._philox': 'Philox',
    'numpy.random._sfc64': 'SFC64',
    'numpy.random.bit_generator': 'SeedSequence __pyx_unpickle_SeedSequence',
    'pandas._libs.tslibs.timestamps': '_unpickle_timestamp',
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
OTHERS['UserDict'] = ['IterableUserDict', 'UserDict']
OTHERS['UserList'], OTHERS['UserString'] = ['UserList'], ['UserString']
