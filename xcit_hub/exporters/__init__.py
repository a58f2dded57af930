"""A network (never an id) as a file that another runtime reads, and the proof of that file."""

import os

# Who imports protobuf first chooses its implementation for the process, and MindSpore's generated code runs with this
# one alone: after a plain `import onnx`, `import mindspore` fails.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

# onnxruntime 1.32 tells its makers over the network what it runs, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
