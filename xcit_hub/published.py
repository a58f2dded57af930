"""Figures and file names as publishers print them. Pure data; :mod:`xcit_hub.variants` makes its rows of it.

Each table is under its source, as it was read in November 2026.
"""

from __future__ import annotations

# ---- github.com/huggingface/pytorch-image-models, results/results-imagenet.csv ----
# name without "xcit_": top-1, top-5 of timm's results file.
TIMM: dict[str, tuple[float, float]] = {
    "nano_12_p16_224.fb_in1k": (69.982, 89.780),
    "nano_12_p16_224.fb_dist_in1k": (72.318, 90.826),
    "nano_12_p16_384.fb_dist_in1k": (75.460, 92.672),
    "tiny_12_p16_224.fb_in1k": (77.122, 93.728),
    "tiny_12_p16_224.fb_dist_in1k": (78.572, 94.210),
    "tiny_12_p16_384.fb_dist_in1k": (80.954, 95.430),
    "tiny_24_p16_224.fb_in1k": (79.474, 94.878),
    "tiny_24_p16_224.fb_dist_in1k": (80.462, 95.202),
    "tiny_24_p16_384.fb_dist_in1k": (82.580, 96.254),
    "small_12_p16_224.fb_in1k": (81.982, 95.814),
    "small_12_p16_224.fb_dist_in1k": (83.354, 96.420),
    "small_12_p16_384.fb_dist_in1k": (84.734, 97.136),
    "small_24_p16_224.fb_in1k": (82.588, 95.996),
    "small_24_p16_224.fb_dist_in1k": (83.880, 96.734),
    "small_24_p16_384.fb_dist_in1k": (85.102, 97.318),
    "medium_24_p16_224.fb_in1k": (82.630, 95.978),
    "medium_24_p16_224.fb_dist_in1k": (84.292, 96.936),
    "medium_24_p16_384.fb_dist_in1k": (85.434, 97.408),
    "large_24_p16_224.fb_in1k": (82.886, 95.880),
    "large_24_p16_224.fb_dist_in1k": (84.936, 97.128),
    "large_24_p16_384.fb_dist_in1k": (85.778, 97.530),
    "nano_12_p8_224.fb_in1k": (73.900, 92.154),
    "nano_12_p8_224.fb_dist_in1k": (76.330, 93.070),
    "nano_12_p8_384.fb_dist_in1k": (77.810, 94.036),
    "tiny_12_p8_224.fb_in1k": (79.710, 95.058),
    "tiny_12_p8_224.fb_dist_in1k": (81.214, 95.614),
    "tiny_12_p8_384.fb_dist_in1k": (82.394, 96.222),
    "tiny_24_p8_224.fb_in1k": (81.888, 95.978),
    "tiny_24_p8_224.fb_dist_in1k": (82.578, 96.186),
    "tiny_24_p8_384.fb_dist_in1k": (83.784, 96.716),
    "small_12_p8_224.fb_in1k": (83.354, 96.472),
    "small_12_p8_224.fb_dist_in1k": (84.252, 96.874),
    "small_12_p8_384.fb_dist_in1k": (85.068, 97.264),
    "small_24_p8_224.fb_in1k": (83.854, 96.636),
    "small_24_p8_224.fb_dist_in1k": (84.878, 97.200),
    "small_24_p8_384.fb_dist_in1k": (85.580, 97.572),
    "medium_24_p8_224.fb_in1k": (83.744, 96.394),
    "medium_24_p8_224.fb_dist_in1k": (85.078, 97.274),
    "medium_24_p8_384.fb_dist_in1k": (85.842, 97.602),
    "large_24_p8_224.fb_in1k": (84.380, 96.664),
    "large_24_p8_224.fb_dist_in1k": (85.396, 97.418),
    "large_24_p8_384.fb_dist_in1k": (86.024, 97.690),
}

# ---- github.com/facebookresearch/xcit, README.md, and facebookresearch/dino, README.md ----
# architecture without "xcit_", the file's stem, top-1 of a linear classifier on frozen features.
DINO: tuple[tuple[str, str, float], ...] = (
    ("small_12_p16_224", "xcit_small_12_cp16_dino", 77.8),
    ("small_12_p8_224", "xcit_small_12_cp8_dino", 79.2),
    ("medium_24_p16_224", "xcit_medium_24_cp16_dino", 78.8),
    ("medium_24_p8_224", "xcit_medium_24_cp8_dino", 80.3),
)

# ---- github.com/facebookresearch/xcit, detection/README.md and semantic_segmentation/README.md ----
# architecture without "xcit_": box and mask AP of Mask R-CNN on COCO; mIoU of Semantic FPN and of UperNet on ADE20K.
DENSE: dict[str, tuple[tuple[float, float], float, float]] = {
    "tiny_12_p16": ((42.7, 38.5), 38.1, 41.5),
    "tiny_12_p8": ((44.5, 40.3), 39.9, 43.5),
    "small_12_p16": ((45.3, 40.8), 43.9, 45.9),
    "small_12_p8": ((47.0, 42.3), 44.2, 46.6),
    "small_24_p16": ((46.5, 41.8), 44.6, 46.9),
    "small_24_p8": ((48.1, 43.0), 47.1, 48.1),
    "medium_24_p16": ((46.7, 42.0), 45.9, 47.6),
    "medium_24_p8": ((48.5, 43.7), 46.9, 48.4),
}

# ---- github.com/RobustBench/robustbench, README.md ----
# size: letter of the file's name; of ImageNet, CIFAR-10, CIFAR-100: clean top-1, top-1 under AutoAttack.
ROBUST: dict[str, tuple[tuple[float, float], ...]] = {
    "small": ((72.34, 41.78), (90.06, 56.14), (67.34, 32.19)),
    "medium": ((74.04, 45.24), (91.30, 57.27), (69.21, 34.21)),
    "large": ((73.76, 47.60), (91.73, 57.58), (70.76, 35.08)),
}

# ---- github.com/dedeswim/vits-robustness-torch, README.md ----
# name, file on Google Drive, data, classes, perturbation: clean top-1, top-1 under AutoAttack. What RobustBench has
# republished (Linf 4/255 on ImageNet, 8/255 on CIFAR) is in the table above.
LIGHT_RECIPE: tuple[tuple[str, str, str, int, str, float, float], ...] = (
    ("small_12_p16_224.linf8_imagenet", "1lFcXruv6lUz9XqxvXTzyA_7YLprPZq2q", "ImageNet", 1000, "8/255", 63.46, 25.00),
    ("medium_12_p16_224.linf8_imagenet", "1Nw86jzlXLEGbFQZtd39i0Mampwh2ZAFv", "ImageNet", 1000, "8/255", 67.80, 26.58),
    ("large_12_p16_224.linf8_imagenet", "1UPDBDkirsxUGBEDrznJrTZ0JR173nMlv", "ImageNet", 1000, "8/255", 69.24, 28.74),
    (
        "small_12_p16_224.linf8_flowers",
        "1XHCbdj5vXUybofNmNd5a2LGQeVxITCpE",
        "Oxford Flowers",
        102,
        "8/255",
        82.86,
        47.91,
    ),
    (
        "small_12_p16_224.linf8_caltech101",
        "1l_wdzgXI5lE6RVOtZvIzaPOMfoL6a1GJ",
        "Caltech101",
        102,
        "8/255",
        87.59,
        61.74,
    ),
)

# ---- github.com/open-mmlab/mmpretrain, configs/xcit/metafile.yml ----
# name without "xcit_": the end of the file's name, a date and the first digits of its SHA-256; top-1, top-5.
MMPRETRAIN: dict[str, tuple[str, float, float]] = {
    "large_24_p16_224.mm_dist_in1k": ("20230214-4fea599c", 84.61, 97.07),
    "large_24_p16_224.mm_in1k": ("20230214-d29d2529", 82.97, 95.86),
    "large_24_p16_384.mm_dist_in1k": ("20230214-bd515a34", 85.78, 97.60),
    "medium_24_p16_224.mm_dist_in1k": ("20230213-aca5cd0c", 84.15, 96.82),
    "medium_24_p16_224.mm_in1k": ("20230213-ad0aa92e", 82.56, 95.82),
    "medium_24_p16_384.mm_dist_in1k": ("20230214-6c23a201", 85.47, 97.49),
    "nano_12_p16_224.mm_dist_in1k": ("20230213-fb247f7b", 72.36, 91.02),
    "nano_12_p16_224.mm_in1k": ("20230213-ed776c38", 70.35, 89.98),
    "nano_12_p16_384.mm_dist_in1k": ("20230213-712db4d4", 74.93, 92.42),
    "small_12_p16_224.mm_dist_in1k": ("20230213-c95bbae1", 83.12, 96.41),
    "small_12_p16_224.mm_in1k": ("20230213-d36779d2", 81.87, 95.77),
    "small_12_p16_384.mm_dist_in1k": ("20230213-ba36c982", 84.74, 97.19),
    "small_24_p16_224.mm_dist_in1k": ("20230213-130d7262", 83.70, 96.61),
    "small_24_p16_224.mm_in1k": ("20230213-40febe38", 82.38, 95.93),
    "small_24_p16_384.mm_dist_in1k": ("20230213-28fa2d0e", 85.10, 97.32),
    "tiny_12_p16_224.mm_dist_in1k": ("20230213-d5fde0a3", 78.70, 94.12),
    "tiny_12_p16_224.mm_in1k": ("20230213-82c547ca", 77.21, 93.62),
    "tiny_12_p16_384.mm_dist_in1k": ("20230213-00a20023", 80.58, 95.38),
    "tiny_24_p16_224.mm_dist_in1k": ("20230213-b472e80a", 80.51, 95.17),
    "tiny_24_p16_224.mm_in1k": ("20230213-366c1cd0", 79.47, 94.85),
    "tiny_24_p16_384.mm_dist_in1k": ("20230213-20e13917", 82.43, 96.20),
    "large_24_p8_224.mm_dist_in1k": ("20230214-8c092b34", 85.14, 97.32),
    "large_24_p8_224.mm_in1k": ("20230214-08f2f664", 84.23, 96.58),
    "large_24_p8_384.mm_dist_in1k": ("20230214-9f718b1a", 86.13, 97.75),
    "medium_24_p8_224.mm_dist_in1k": ("20230214-625c953b", 85.00, 97.16),
    "medium_24_p8_224.mm_in1k": ("20230214-c362850b", 83.61, 96.23),
    "medium_24_p8_384.mm_dist_in1k": ("20230214-5db925e0", 85.87, 97.61),
    "nano_12_p8_224.mm_dist_in1k": ("20230213-2f87d2b3", 76.17, 93.08),
    "nano_12_p8_224.mm_in1k": ("20230213-3370c293", 73.80, 92.08),
    "nano_12_p8_384.mm_dist_in1k": ("20230213-09d925ef", 77.69, 94.09),
    "small_12_p8_224.mm_dist_in1k": ("20230213-71886580", 83.97, 96.81),
    "small_12_p8_224.mm_in1k": ("20230213-9e364ce3", 83.21, 96.41),
    "small_12_p8_384.mm_dist_in1k": ("20230214-9f2178bc", 85.12, 97.31),
    "small_24_p8_224.mm_dist_in1k": ("20230213-f2773c78", 84.68, 97.07),
    "small_24_p8_224.mm_in1k": ("20230213-280ebcc7", 83.62, 96.51),
    "small_24_p8_384.mm_dist_in1k": ("20230214-57298eca", 85.57, 97.60),
    "tiny_12_p8_224.mm_dist_in1k": ("20230213-f3f9b44f", 81.26, 95.46),
    "tiny_12_p8_224.mm_in1k": ("20230213-8b02f8f5", 79.75, 94.88),
    "tiny_12_p8_384.mm_dist_in1k": ("20230213-a072174a", 82.46, 96.22),
    "tiny_24_p8_224.mm_dist_in1k": ("20230213-ad9c44b0", 82.62, 96.16),
    "tiny_24_p8_224.mm_in1k": ("20230213-4b9ba392", 81.70, 95.90),
    "tiny_24_p8_384.mm_dist_in1k": ("20230213-30d5e5ec", 83.77, 96.72),
}
