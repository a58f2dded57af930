"""Checkpoints of XCiT from one family and file format into another, each result proven beside PyTorch's network.

``convert.convert`` is the one conversion: ``xcit_hub.convert``, ``xcit-hub convert`` and the doors
(``python -m converters.timm2ms`` and its siblings) call it. ``xcit_hub.checkpoints`` reads and writes the files.
"""

from pathlib import Path

from xcit_hub import deprecated

deprecated.install()

# Modules that have moved and still run under their old names for one release. Not in this folder: when a door is run
# as a file, its modules come before the standard library's.
__path__.append(str(Path(__file__).with_name("former")))
