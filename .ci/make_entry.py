"""Write a timm-style safetensors file and a folder hub with it: what the wheel is then tried on."""

import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

import xcit_hub

folder = Path(sys.argv[1])
torch.manual_seed(0)
save_file(timm.create_model("xcit_nano_12_p16_224").state_dict(), folder / "timm.safetensors")
xcit_hub.publish(folder / "timm.safetensors", "ci/nano", to=str(folder / "hub"))
