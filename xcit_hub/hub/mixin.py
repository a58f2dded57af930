"""The network as a ``huggingface_hub.ModelHubMixin``: ``from_pretrained``, ``save_pretrained``, ``push_to_hub``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelHubMixin
from mindspore.nn.utils import no_init_parameters

from xcit_hub import models
from xcit_hub.hub import config as descriptions
from xcit_hub.hub.config import ModelConfig
from xcit_hub.variants import dialect

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class XCiT(
    models.XCiT,
    ModelHubMixin,
    library_name="xcit-hub",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=["mindspore", "xcit"],
    paper_url="https://arxiv.org/abs/2106.09681",
):
    """An XCiT that knows where it came from: what :func:`xcit_hub.load` returns.

    Attributes:
        config: architecture, dialect, preprocessing, labels and provenance.
    """

    config: ModelConfig

    @classmethod
    def of_config(cls, config: ModelConfig, arrays: Mapping[str, NDArray[np.generic]]) -> XCiT:
        """Build the network that ``config`` describes and fill it, strictly; it is in eval mode.

        Raises:
            WeightsError: a tensor is missing, unexpected or of another shape.
        """
        with no_init_parameters():
            network = cls(
                config.shape,
                dialect(config.dialect),
                num_classes=config.num_classes,
                in_chans=config.in_chans,
                global_pool=config.global_pool,
            )
        models.load_weights(network, arrays)
        network.config = config
        network.set_train(False)
        return network

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> XCiT:
        """Load by id or from a folder that :meth:`save_pretrained` wrote; the same as :func:`xcit_hub.load`."""
        from xcit_hub.hub.load import load

        return load(
            str(pretrained_model_name_or_path),
            revision,
            cache_dir=cache_dir,
            offline=local_files_only,
            token=token,
            force_download=force_download,
            **model_kwargs,
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        from xcit_hub.hub.publish import write_weights

        write_weights(save_directory, self.arrays(), self.description())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what :meth:`save_pretrained` writes in one commit; return the commit's address."""
        from xcit_hub.hub.stores.hugging_face import without_xet_where_unknown

        with without_xet_where_unknown(repo_id, token=options.get("token")):
            return str(super().push_to_hub(repo_id, **options))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return every parameter and buffer as float32 arrays, by MindCV's names."""
        return {name: value.float().asnumpy() for name, value in self.parameters_dict().items()}

    def description(self) -> ModelConfig:
        """Return ``config`` as the network is now: its classifier and pooling may have been replaced."""
        known: ModelConfig | None = getattr(self, "config", None)
        if known is None:
            known = descriptions.of_architecture(self.architecture, self.dialect.name)
        return replace(
            known,
            num_classes=self.num_classes,
            in_chans=self.in_chans,
            global_pool=self.global_pool,
            labels=known.labels if len(known.labels) == self.num_classes else (),
        )
