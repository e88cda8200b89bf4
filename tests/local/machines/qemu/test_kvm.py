"""KVM is believed where a guest of it answers."""

from __future__ import annotations

import pytest

from imagepipe.local.machines.qemu import kvm


@pytest.fixture(autouse=True)
def _asked_again() -> None:
    kvm.why_not.cache_clear()


def test_the_probe_guest_answers_under_software_emulation() -> None:
    assert kvm.answers("tcg")


def test_a_guest_that_cannot_start_is_no_answer() -> None:
    assert not kvm.answers("no-such-accelerator")


def test_a_computer_whose_processor_cannot_is_not_even_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    device, cpuinfo = tmp_path / "kvm", tmp_path / "cpuinfo"
    monkeypatch.setattr(kvm, "DEVICE", device)
    monkeypatch.setattr(kvm, "CPUINFO", cpuinfo)
    assert "is not there" in kvm.why_not()
    kvm.why_not.cache_clear()
    device.touch()
    cpuinfo.write_text("flags : fpu sse2\n")
    assert "neither vmx nor svm" in kvm.why_not()
    kvm.why_not.cache_clear()
    cpuinfo.write_text("flags : fpu vmx sse2\n")  # and yet: the file is no device of KVM's
    assert kvm.why_not() == "" or "did not answer" in kvm.why_not()
