"""featkit: image features from the command line and from Python, classical and deep.

    import featkit
    result = featkit.match("a.jpg", "b.jpg")
    print(result.verdict, result.matrix)
    featkit.stitch(["a.jpg", "b.jpg", "c.jpg"]).save("panorama.jpg")
    featkit.classify("flowers/").model.save("flowers.fk")
    featkit.probe("flowers/", classifier="logreg").result.model.save("flowers.fk")
    featkit.extract(["a.jpg", "b.jpg"], features="hog").values["hog"]

Public names are loaded when they are first used; importing featkit loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featkit.cache import Cache
    from featkit.errors import FeatkitError
    from featkit.extraction.config import ExtractConfig
    from featkit.extraction.formats import read as read_features
    from featkit.extraction.pipeline import extract
    from featkit.images import DecodeOptions
    from featkit.learning.config import ClassifyConfig, ProbeConfig
    from featkit.learning.model import Model, load_model
    from featkit.learning.pipeline import classify
    from featkit.learning.probing import Probed, probe
    from featkit.local.config import MatchConfig
    from featkit.local.features import Features
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches
    from featkit.local.pipeline import match, match_pairs
    from featkit.local.results import MatchResult
    from featkit.local.subjects import Subject
    from featkit.stitching.config import StitchConfig
    from featkit.stitching.panorama import Panorama
    from featkit.stitching.pipeline import Stitched, stitch, stitch_all

__version__ = "0.1.0"

_HOME = {
    "Cache": "featkit.cache",
    "ClassifyConfig": "featkit.learning.config",
    "DecodeOptions": "featkit.images",
    "Estimate": "featkit.local.geometry",
    "ExtractConfig": "featkit.extraction.config",
    "FeatkitError": "featkit.errors",
    "Features": "featkit.local.features",
    "MatchConfig": "featkit.local.config",
    "MatchResult": "featkit.local.results",
    "Matches": "featkit.local.matching",
    "Model": "featkit.learning.model",
    "Panorama": "featkit.stitching.panorama",
    "ProbeConfig": "featkit.learning.config",
    "Probed": "featkit.learning.probing",
    "StitchConfig": "featkit.stitching.config",
    "Stitched": "featkit.stitching.pipeline",
    "Subject": "featkit.local.subjects",
    "classify": "featkit.learning.pipeline",
    "extract": "featkit.extraction.pipeline",
    "load_model": "featkit.learning.model",
    "match": "featkit.local.pipeline",
    "match_pairs": "featkit.local.pipeline",
    "probe": "featkit.learning.probing",
    "read_features": "featkit.extraction.formats:read",
    "stitch": "featkit.stitching.pipeline",
    "stitch_all": "featkit.stitching.pipeline",
}

__all__ = [
    "Cache",
    "ClassifyConfig",
    "DecodeOptions",
    "Estimate",
    "ExtractConfig",
    "FeatkitError",
    "Features",
    "MatchConfig",
    "MatchResult",
    "Matches",
    "Model",
    "Panorama",
    "ProbeConfig",
    "Probed",
    "StitchConfig",
    "Stitched",
    "Subject",
    "__version__",
    "classify",
    "extract",
    "load_model",
    "match",
    "match_pairs",
    "probe",
    "read_features",
    "stitch",
    "stitch_all",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'featkit' has no attribute {name!r}")
    module, _, there = _HOME[name].partition(":")
    value = getattr(import_module(module), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
