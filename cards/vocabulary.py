"""The words that the two hubs accept, and which word of one is which word of the other. Pure data.

MindSpore Hub's are those of its own checker (mindspore/hub, ``mindspore_hub/_utils/check.py`` and
``valid_dataset.py``); ``train_datasets.txt`` beside this file is the list of the latter, a name a line.
``licenses.txt`` holds the identifiers that Hugging Face's server takes, as it lists them when it refuses one (2026).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

REQUIRED = (
    "backbone-name",
    "module-type",
    "fine-tunable",
    "model-version",
    "author",
    "update-time",
    "repo-link",
    "user-id",
    "used-for",
    "mindspore-version",
    "license",
    "summary",
)
ASSET_REQUIRED = ("file-format", "asset-link", "asset-sha256")
MODULE_TYPES = ("gnn", "rl", "audio", "cv", "cvtmodel", "nlp", "recommend", "cross", "hpc", "mm", "other")
FILE_FORMATS = ("air", "ckpt", "onnx", "mindir", "mslite")
USED_FOR = ("inference", "extract-feature", "transfer-learning")
BACKENDS = ("cpu", "gpu", "ascend")
COLON_ALLOWED = frozenset({"repo-link", "asset", "evaluation"})

# What the cards in Chinese call the fields (mshub_res/assets/*/*/*_cn.md).
CHINESE_FIELDS: dict[str, str] = {
    "模型名称": "model-name",
    "骨干网络": "backbone-name",
    "模块类型": "module-type",
    "可微调": "fine-tunable",
    "输入形状": "input-shape",
    "模型版本": "model-version",
    "训练数据集": "train-dataset",
    "评估": "evaluation",
    "精度": "accuracy",
    "准确率": "accuracy",
    "作者": "author",
    "更新时间": "update-time",
    "代码仓链接": "repo-link",
    "用户ID": "user-id",
    "用途": "used-for",
    "训练后端": "train-backend",
    "推理后端": "infer-backend",
    "MindSpore版本": "mindspore-version",
    "资产": "asset",
    "许可证": "license",
    "摘要": "summary",
}

# MindSpore Hub's word → Hugging Face's identifier.
LICENSE_IDS: dict[str, str] = {
    "Apache2.0": "apache-2.0",
    "Apache 2.0": "apache-2.0",
    "Apache-2.0": "apache-2.0",
    "apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-3-Clause": "bsd-3-clause",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
}
HUB_LICENSES: dict[str, str] = {
    "apache-2.0": "Apache2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
}
HUGGING_FACE_DATASETS: dict[str, str] = {
    "ImageNet2012": "imagenet-1k",
    "imagenet2012": "imagenet-1k",
    "imagenet": "imagenet-1k",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "mnist": "mnist",
}
HUB_DATASETS: dict[str, str] = {
    "imagenet-1k": "ImageNet2012",
    "ILSVRC/imagenet-1k": "ImageNet2012",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "mnist": "mnist",
}
TASK_OF_MODULE_TYPE: dict[str, str] = {
    "cv": "image-classification",
    "cv-classification": "image-classification",
    "cv-object_detection": "object-detection",
    "cv-semantic_segmentation": "image-segmentation",
}
MODULE_TYPE_OF_TASK: dict[str, str] = {
    "image-classification": "cv-classification",
    "image-feature-extraction": "cv",
    "object-detection": "cv-object_detection",
    "image-segmentation": "cv-semantic_segmentation",
}
PIPELINE_TAGS = frozenset(MODULE_TYPE_OF_TASK)

# Where the sources named in the variant table can be looked up.
SOURCE_LINKS: dict[str, str] = {
    "timm results/results-imagenet.csv": (
        "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
    ),
    "facebookresearch/xcit README (linear probe)": "https://github.com/facebookresearch/xcit",
    "MindSpore Hub card, metadata (2025)": (
        "https://github.com/mindspore-ai/hub/blob/master/mshub_res/assets/mindspore/2.5/"
        "xcit_tiny_12_p16_224_imagenet2012.md"
    ),
    "MindSpore Hub card, performance table (2025)": (
        "https://github.com/mindspore-ai/hub/blob/master/mshub_res/assets/mindspore/2.5/"
        "xcit_tiny_12_p16_224_imagenet2012.md"
    ),
    "MindCV README (2022, an earlier checkpoint)": "https://github.com/mindspore-lab/mindcv/tree/main/configs/xcit",
}


@cache
def train_datasets() -> frozenset[str]:
    """Return every ``train-dataset`` that MindSpore Hub's checker knows."""
    return _lines("train_datasets.txt")


@cache
def hugging_face_licenses() -> frozenset[str]:
    """Return every licence identifier that Hugging Face takes."""
    return _lines("licenses.txt")


def _lines(name: str) -> frozenset[str]:
    return frozenset(resources.files("cards").joinpath(name).read_text(encoding="utf-8").splitlines())


# Fields of Hugging Face's cards that this program keeps and has no use for (huggingface_hub, ``ModelCardData``; the
# Hub's documentation of model cards).
OTHER_FIELDS = frozenset(
    (
        "base_model_relation",
        "co2_eq_emissions",
        "eval_results",
        "extra_gated_button_content",
        "extra_gated_description",
        "extra_gated_fields",
        "extra_gated_heading",
        "extra_gated_prompt",
        "inference",
        "license_link",
        "license_name",
        "model_name",
        "new_version",
        "thumbnail",
        "widget",
    )
)
