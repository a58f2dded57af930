"""What the fields of timm's ``config.json`` are to this package: which change nothing, and which have to be what."""

from __future__ import annotations

_WHERE = "where the weights come from; they are read from beside this file"
_CARD = "for the card"
_TEST = "timm uses it only where the test size is asked for"
_CARRIED = "follows from the architecture"
_TRAINING = "acts in training only; give it to load or create_model"
_OTHER_PROGRAMS = "transformers' own bookkeeping"

# What timm's ``pretrained_cfg`` calls the parts of every XCiT.
FIRST_CONV = "patch_embed.proj.0.0"
CLASSIFIER = "head"

# Fields that change nothing here, each with its reason. Those of ``pretrained_cfg`` stand at the root of a flat file.
UNUSED_PRETRAINED: dict[str, str] = {
    "url": _WHERE,
    "file": _WHERE,
    "hf_hub_id": _WHERE,
    "source": _WHERE,
    "architecture": "the root's says it",
    "tag": _WHERE,
    "test_input_size": _TEST,
    "test_crop_pct": _TEST,
    "min_input_size": "a bound that timm does not check for XCiT",
    "pool_size": "XCiT has no pooling window",
    "test_pool_size": "XCiT has no pooling window",
    "first_conv": _CARRIED,
    "classifier": _CARRIED,
    "num_features": _CARRIED,
    "label_descriptions": "longer words for the label names, which are used",
    "license": _CARD,
    "description": _CARD,
    "origin_url": _CARD,
    "paper_name": _CARD,
    "paper_ids": _CARD,
    "notes": _CARD,
}
UNUSED_ROOT: dict[str, str] = {
    "num_features": _CARRIED,
    "label_descriptions": UNUSED_PRETRAINED["label_descriptions"],
    "architectures": _OTHER_PROGRAMS,
    "model_type": _OTHER_PROGRAMS,
    "transformers_version": _OTHER_PROGRAMS,
    "torch_dtype": _OTHER_PROGRAMS,
    "dtype": _OTHER_PROGRAMS,
    "initializer_range": _OTHER_PROGRAMS,
    "do_pooling": _OTHER_PROGRAMS,
    "_name_or_path": _OTHER_PROGRAMS,
}
UNUSED_ARGUMENTS: dict[str, str] = {
    "drop_rate": _TRAINING,
    "pos_drop_rate": _TRAINING,
    "proj_drop_rate": _TRAINING,
    "attn_drop_rate": _TRAINING,
    "drop_path_rate": _TRAINING,
}

# ``model_args`` that say what the network's shape is → the field of Architecture.
DIMENSIONS = {
    "patch_size": "patch_size",
    "embed_dim": "embed_dim",
    "depth": "depth",
    "num_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "cls_attn_layers": "cls_attn_layers",
}
# ``model_args`` that must have one value here → that value and what another one would be.
FIXED: dict[str, tuple[object, str]] = {
    "qkv_bias": (True, "XCiT without these biases is not supported"),
    "act_layer": (None, "a file cannot name a class"),
    "norm_layer": (None, "a file cannot name a class"),
    "device": (None, "choose the device in MindSpore's context"),
    "dtype": (None, "give load dtype= instead"),
}
