"""The proof that MindSpore's network and PyTorch's compute the same: :func:`verify_weights` on weights of one's own.

``rule`` says how far an output may be, ``networks`` runs both, ``result`` tells what came out.
"""

from xcit_hub.parity.networks import (
    compare,
    first_departure,
    proof_size,
    random_images,
    random_weights,
    require_timm,
    torch_network,
    verify_random,
    verify_weights,
)
from xcit_hub.parity.result import FORMAT, Departure, ParityResult, tells_of_the_same_proof, verdict
from xcit_hub.parity.rule import (
    FLOOR,
    GRADIENT_FLOOR,
    LARGEST_FACTOR,
    PYTORCH_RUNS,
    RMS_FACTOR,
    UNIT_ROUNDOFF,
    Check,
    Distance,
    Reference,
    failed_checks,
)

__all__ = [
    "FLOOR",
    "FORMAT",
    "GRADIENT_FLOOR",
    "LARGEST_FACTOR",
    "PYTORCH_RUNS",
    "RMS_FACTOR",
    "UNIT_ROUNDOFF",
    "Check",
    "Departure",
    "Distance",
    "ParityResult",
    "Reference",
    "compare",
    "failed_checks",
    "first_departure",
    "proof_size",
    "random_images",
    "random_weights",
    "require_timm",
    "tells_of_the_same_proof",
    "torch_network",
    "verdict",
    "verify_random",
    "verify_weights",
]
