"""Whether bfloat16 is there and fast: found out where it can do no harm."""

from __future__ import annotations

import pytest
import torch

from featkit.deep import bfloat16

_ENTRY = "onednn_verbose,v1,primitive,exec,cpu,convolution,{},forward_inference"
_DECLARES = "onednn_verbose,v1,info,cpu,isa:Intel AVX-512 with Intel AMX with bfloat16 support"


@pytest.fixture
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)


@pytest.mark.usefixtures("_declared")
@pytest.mark.parametrize(
    "trial",
    [
        "import os, signal; print('amx', flush=True); os.kill(os.getpid(), signal.SIGILL)",
        "print('amx', flush=True); raise RuntimeError",
        "import no_such_module",
    ],
)
def test_a_trial_that_does_not_end_well(trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "_TRIAL", trial)
    assert not bfloat16.works("cpu")
    assert not bfloat16.is_fast("cpu")


def test_a_trial_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "_TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(bfloat16, "_TRIAL_SECONDS", 0.1)
    assert not bfloat16.works("cpu")


def test_a_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert not bfloat16.works("cpu")


@pytest.mark.usefixtures("_declared")
@pytest.mark.parametrize(
    ("implementation", "fast"), [("brgconv:avx10_1_512_amx", True), ("brgconv:avx512_core_bf16", False)]
)
def test_it_is_fast_where_the_unit_for_it_was_used(
    implementation: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not where it is only declared."""
    log = [_DECLARES, _ENTRY.format(implementation)]
    asked = "import os; assert os.environ['ONEDNN_VERBOSE'] == '1'"
    monkeypatch.setattr(bfloat16, "_TRIAL", f"{asked}\nprint({chr(10).join(log)!r})")
    assert bfloat16.works("cpu")
    assert bfloat16.is_fast("cpu") == fast


@pytest.mark.parametrize("check", [lambda: False, None])
def test_what_is_not_declared_is_not_tried(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where torch cannot say so."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", check, raising=False)

    def tried() -> str:
        raise AssertionError("it was tried")

    monkeypatch.setattr(bfloat16, "_tried", tried)
    assert not bfloat16.is_fast("cpu")


def test_the_trial_itself() -> None:
    """It runs wherever torch does, or the process is killed: in either case there is an answer."""
    log = bfloat16._tried()
    assert log is None or "onednn_verbose" in log


def test_it_is_not_there_on_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bfloat16.works("mps")
    assert not bfloat16.is_fast("mps")


def test_a_card_that_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert bfloat16.works("cuda")
    assert not bfloat16.is_fast("cuda")
