from __future__ import annotations

import copy
import pickle

import pytest
from graphflow.errors import DeviceError
from graphflow.runtime import device
from graphflow.runtime.device import CPU, Device, as_device


def test_text_and_parts():
    cpu, cuda = Device("cpu"), Device("cuda:1")
    assert (cpu.type, cpu.index, str(cpu), repr(cpu)) == ("cpu", None, "cpu", "device(type='cpu')")
    assert (cuda.type, cuda.index, str(cuda)) == ("cuda", 1, "cuda:1")
    assert repr(cuda) == "device(type='cuda', index=1)"


def test_equality_and_hash():
    assert Device("cuda:1") == Device("cuda", 1) == Device(Device("cuda:1"))
    assert len({Device("cuda"), Device("cuda:0"), Device("cpu"), Device("cpu")}) == 3
    assert Device("cpu") != "cpu"
    assert as_device(None) is CPU and as_device("cpu") == CPU and as_device(CPU) is CPU


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:3"])
def test_copies(name):
    assert copy.deepcopy(Device(name)) == Device(name) == pickle.loads(pickle.dumps(Device(name)))


@pytest.mark.parametrize(
    "text", ["", "CPU", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:1", "cuda:0:1", 3, None]
)
def test_texts_that_are_no_device(text):
    with pytest.raises(DeviceError):
        Device(text)


def test_index_given_twice_or_wrong():
    for arguments in (("cuda:0", 1), ("cuda", -1), ("cpu", 1), (Device("cuda"), 0)):
        with pytest.raises(DeviceError):
            Device(*arguments)


def test_a_device_cannot_be_changed():
    with pytest.raises(AttributeError):
        CPU.type = "cuda"


def test_missing_devices_are_named(monkeypatch):
    device.check(CPU)
    monkeypatch.setattr(device, "cuda_device_count", lambda: 0)
    assert not device.cuda_is_available()
    with pytest.raises(DeviceError, match="no CUDA driver"):
        device.check(Device("cuda"))
    monkeypatch.setattr(device, "cuda_device_count", lambda: 2)
    device.check(Device("cuda:1"))
    with pytest.raises(DeviceError, match=r"has 2 CUDA device"):
        device.check(Device("cuda:2"))


def test_the_driver_may_be_asked():
    assert device.cuda_is_available() == (device.cuda_device_count() > 0)
