"""Which names a pickle may ask for: those of plain data. All else is code, and is refused."""

from __future__ import annotations

# Classes whose objects are tables, by their own names; what they are told afterwards (their attributes) is theirs, too.
TABLES = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.Counter",
        "argparse.Namespace",
        "types.SimpleNamespace",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.nodes.AnyNode",
        "omegaconf.nodes.IntegerNode",
        "omegaconf.nodes.FloatNode",
        "omegaconf.nodes.StringNode",
        "omegaconf.nodes.BooleanNode",
        "yacs.config.CfgNode",
        "fvcore.common.config.CfgNode",
        "easydict.EasyDict",
        "addict.addict.Dict",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.config.ConfigDict",
        "mmengine.config.config.Config",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "vissl.utils.hydra_config.AttrDict",
    }
)
# Classes and functions whose results are single values without a part in any network.
_VALUES = frozenset(
    {
        "builtins.set",
        "builtins.frozenset",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.slice",
        "builtins.range",
        "builtins.list",
        "builtins.dict",
        "builtins.tuple",
        "builtins.int",
        "builtins.float",
        "builtins.bool",
        "builtins.str",
        "builtins.getattr",  # of the tables above alone: mmengine's histories list their own methods
        "_codecs.encode",
        "collections.deque",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        "decimal.Decimal",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "numpy.dtype",
        "numpy.ndarray",
        "torch.Size",
        "torch.device",
        "torch.serialization._get_layout",
        "torch.torch_version.TorchVersion",
        "torch.Generator",
        "typing.Any",
    }
)
_VALUE_PREFIXES = (
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
    "numpy.dtypes.",
    "torch._utils._rebuild_",
    "torch.per_",
)
# What makes a tensor, or stands around one, and of how many arguments. A tensor is never told its state afterwards.
TENSOR_ARGUMENTS = {
    "torch._utils._rebuild_tensor": (4,),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_tensor_v3": (7, 8),
    "torch._utils._rebuild_parameter": (3,),
    "torch._utils._rebuild_parameter_with_state": (4,),
    "torch.nn.parameter.Parameter": (1, 2),
    "torch._tensor._rebuild_from_type_v2": (4,),
    "torch.Tensor": (),  # named as a type, never called
}
# Python 2's names, which pickles of protocol 2 still use.
RENAMED = {
    "__builtin__.long": "builtins.int",
    "__builtin__.unicode": "builtins.str",
    "__builtin__.xrange": "builtins.range",
}
RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_DTYPE_STEMS = frozenset(
    {"float", "bfloat", "uint", "int", "bool", "complex", "quint", "qint", "double", "half", "long"}
)


def is_data(text: str) -> bool:
    """Whether a name is that of a class or function that makes plain data."""
    return (
        text in TABLES
        or text in _VALUES
        or text in TENSOR_ARGUMENTS
        or text.startswith(_VALUE_PREFIXES)
        or is_storage(text)
        or is_dtype(text)
    )


def is_storage(text: str) -> bool:
    """Whether a name is that of one of PyTorch's storages."""
    return text.startswith("torch.") and text.endswith("Storage") and text.count(".") <= 2


def is_dtype(text: str) -> bool:
    """Whether a name is that of one of PyTorch's dtypes."""
    root, _, name = text.rpartition(".")
    return root == "torch" and name.rstrip("0123456789_emfnuz").rstrip("0123456789") in _DTYPE_STEMS
