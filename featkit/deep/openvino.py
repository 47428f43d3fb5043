"""The same network by OpenVINO, an extra: on the processor it takes down to half of torch's time.

pip install 'featkit[fast]'
"""

from __future__ import annotations

import importlib.util
import threading
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from featkit.deep.features import Extractor
from featkit.errors import DependencyError
from featkit.images import Pixels

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


class Compiled:
    """What an Extractor gives, compiled for batches of `pictures`, which up to `jobs` threads ask for at once.

    Raises DependencyError where the extra is not installed.
    """

    def __init__(
        self, extractor: Extractor, dtype: torch.dtype, size: tuple[int, int], pictures: int, jobs: int
    ) -> None:
        """size: (width, height) of the pictures."""
        if not is_installed():
            raise DependencyError("OpenVINO is an extra that is not installed", hint="pip install 'featkit[fast]'")
        import openvino

        self.shapes = extractor.shapes
        self.depends_on = extractor.layers  # what is given is not fused with what comes after it
        self._shape = pictures, size[1], size[0], 3
        example = torch.zeros(2, *self._shape[1:], dtype=torch.uint8)
        with warnings.catch_warnings():  # of the tracer, about sizes that do not change here
            warnings.simplefilter("ignore")
            model = openvino.convert_model(extractor.graph(), example_input=example)
        model.reshape(list(self._shape))
        # Its own default where a processor declares bfloat16 is bfloat16, whether it works or not.
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[dtype],
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": jobs,
            "INFERENCE_NUM_THREADS": jobs,
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._requests = threading.local()

    def __call__(self, pictures: Pixels) -> list[npt.NDArray[np.float32]]:
        """As of an Extractor, for at most as many pictures as it was compiled for."""
        batch = pictures
        if len(pictures) < self._shape[0]:
            batch = np.zeros(self._shape, np.uint8)
            batch[: len(pictures)] = pictures
        found = self._request().infer([batch])
        return [np.array(found[index][: len(pictures)], np.float32) for index in range(len(self.shapes))]

    def _request(self) -> Any:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        return self._requests.own
