"""Weights on the Hugging Face hub: in its cache, or downloaded to it."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from featkit.deep.weights import Progress, first_line, not_to_be_had
from featkit.errors import OutputError

_PATIENCE = 10  # seconds until the hub has answered
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """The first of those files that is here. repository: OWNER/NAME, or OWNER/NAME@REVISION."""
    from huggingface_hub import try_to_load_from_cache

    owner_name, _, revision = repository.partition("@")
    for name in names:
        found = try_to_load_from_cache(owner_name, name, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def fetched(repository: str, names: Sequence[str], progress: Progress | None = None) -> Path:
    """The first of those files that there is, downloaded where it is not here.

    HF_HUB_OFFLINE, HF_HOME and the like mean what they mean to that library. Raises DependencyError where there is
    neither the file nor a network, and OutputError for a cache that cannot be written.
    """
    here = cached(repository, names)
    if here is not None:
        return here
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    owner_name, _, revision = repository.partition("@")
    folder, reason, address = constants.HF_HUB_CACHE, "", ""
    for name in names:
        address = hf_hub_url(owner_name, name, revision=revision or None)
        try:
            with _silent():
                # Asked once: without a network the download itself asks for half a minute.
                get_hf_file_metadata(address, timeout=_PATIENCE)
                return Path(hf_hub_download(owner_name, name, revision=revision or None, tqdm_class=_telling(progress)))
        except EntryNotFoundError as error:
            reason = first_line(error)
        except Exception as error:  # What its network library raises is no public class of it.
            if isinstance(error, OSError) and error.errno in _UNWRITABLE:
                hint = "set HF_HOME to a folder that can be written to"
                raise OutputError(f"the weights cannot be kept: {error.strerror}", path=folder, hint=hint) from error
            reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else first_line(error)
            raise not_to_be_had(f"{name} of {repository}", folder, reason, address) from error
    raise not_to_be_had(f"{names[-1]} of {repository}", folder, reason, address)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What the library has to say about tokens and retries is not for users of featkit."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _telling(progress: Progress | None) -> Any:
    """A bar as the library wants one, which shows nothing and tells."""
    from huggingface_hub.utils.tqdm import tqdm

    class Telling(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that looks after it

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if progress is not None:
                progress(int(self.n), int(self.total or 0))
            return shown

        # With these it is one bar for what comes and what is put together of it.
        def update_transfer(self, n: float) -> None: ...

        def set_transfer_postfix_str(self, *args: Any, **kwargs: Any) -> None: ...

    return Telling
