"""``mindir.py write FOLDER`` with one MindSpore, ``mindir.py read FOLDER`` with another: a file travels."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from xcit_hub import parity, variants
from xcit_hub.exporters import interface, mindir, runtimes
from xcit_hub.parameters import parameter_shapes

IMAGES = [parity.random_images(batch, 3, 64, 64) for batch in (1, 2, 5)]
DIALECTS = ("paper", "mindcv")

task, folder = sys.argv[1], Path(sys.argv[2])
for dialect in DIALECTS:
    file = folder / f"{dialect}.mindir"
    if task == "write":
        from xcit_hub.models import create_model, load_weights

        short = replace(variants.architecture("xcit_nano_12_p16_224"), name="short", depth=2)
        network = create_model(short, dialect=dialect, num_classes=10, init=False)
        load_weights(network, parity.random_weights(parameter_shapes(short, num_classes=10)))
        mindir.write(network, file, (64, 64), metadata={"xcit_hub.dialect": dialect})
    found = [outputs["output.0"] for outputs in runtimes.run("mindspore", file, IMAGES)]
    told = folder / f"{dialect}.npz"
    if task == "write":
        np.savez(told, *found)
        continue
    with np.load(told) as archive:
        expected = [archive[name] for name in archive.files]
    apart = max(float(np.abs(one - other).max() / other.std()) for one, other in zip(found, expected, strict=True))
    assert apart < 1e-5, f"{dialect}: apart by {apart:.1e} of the deviation"
    assert interface.read(file).shape == (None, 3, 64, 64)
    assert interface.read(file).metadata["xcit_hub.dialect"] == dialect
    print(f"MINDIR of another MindSpore, {dialect}, batches 1, 2 and 5: apart by {apart:.1e} of the deviation")
