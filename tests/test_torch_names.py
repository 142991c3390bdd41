"""Names that PyTorch programs use beside layers and operators: switches, old names, small helpers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.backends.cudnn as cudnn
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import DeviceError

NAN = math.nan


def test_a_preamble_for_repeatable_runs() -> None:
    cudnn.benchmark, cudnn.deterministic = False, True
    gf.backends.cuda.matmul.allow_tf32 = True
    gf.use_deterministic_algorithms(True)
    gf.set_float32_matmul_precision("high")
    gf.cuda.manual_seed_all(7)
    first = gf.rand(3)
    gf.cuda.manual_seed(7)
    assert gf.equal(first, gf.rand(3))
    gf.cuda.empty_cache()
    gf.cuda.synchronize()
    assert gf.cuda.memory_allocated() == gf.cuda.max_memory_allocated() == 0
    assert not gf.cuda.is_initialized()
    assert gf.are_deterministic_algorithms_enabled()
    assert gf.get_float32_matmul_precision() == "highest"
    assert not gf.backends.mps.is_available()
    with pytest.raises(ValueError, match="highest"):
        gf.set_float32_matmul_precision("low")


def test_the_default_device_is_the_cpu() -> None:
    gf.set_default_device("cpu")
    assert gf.get_default_device() == gf.device("cpu")
    with pytest.raises(DeviceError):
        gf.set_default_device("cuda:99")


def test_a_module_on_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError):
        nn.Linear(1, 1).cuda(99)


def test_variables_are_tensors() -> None:
    data = gf.ones(2)
    x = gf.autograd.Variable(data, requires_grad=True)
    (x * x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
    data.mul_(3)
    assert x.tolist() == [3.0, 3.0]
    with pytest.raises(TypeError, match="Variable"):
        gf.autograd.Variable([1.0])  # type: ignore[arg-type]


def test_parameters_and_shapes_print_and_add_as_in_pytorch() -> None:
    assert str(nn.Parameter(gf.ones(1))) == "Parameter containing:\ntensor([1.], requires_grad=True)"
    assert repr(gf.Size([1]) + gf.Size([2])) == "graphflow.Size([1, 2])"
    with pytest.raises(gf.errors.GradientError):
        gf.ones(1, requires_grad=True).numpy()
    assert gf.ones(1, requires_grad=True).numpy(force=True).tolist() == [1.0]
    assert gf.trace(gf.eye(3)).item() == 3.0  # type: ignore[arg-type, attr-defined]


def test_layers_functions_without_functional() -> None:
    x, w = gf.arange(16.0).reshape(1, 1, 4, 4), gf.ones(1, 1, 2, 2)
    assert gf.equal(gf.conv2d(x, w), nn.functional.conv2d(x, w))
    assert gf.equal(gf.max_pool2d(x, 2), nn.functional.max_pool2d(x, 2))


X = np.array([[1.0, NAN, 3.0], [NAN, NAN, 2.0]])


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("name", ["nansum", "nanmean"])
def test_statistics_without_nan(name: str, dim: int | None) -> None:
    function: Callable[..., Any] = getattr(gf, name)
    x = gf.tensor(X, requires_grad=True)
    rows = X if dim != 0 else np.where([[False, True, False]] * 2, 0.0, X)
    if dim == 0:
        x = gf.tensor(rows, requires_grad=True)
    expected = getattr(np, name)(rows, axis=dim)
    np.testing.assert_allclose(function(x, dim).detach().numpy(), expected, rtol=1e-12)
    compiled = gf.compile(lambda v: function(v, dim))(x)
    np.testing.assert_allclose(compiled.detach().numpy(), expected, rtol=1e-12)
    function(x, dim).sum().backward()
    assert x.grad is not None
    assert np.isfinite(x.grad.numpy()).all()
    assert (x.grad.numpy()[np.isnan(rows)] == 0).all()


def test_small_relatives() -> None:
    assert gf.argwhere(gf.tensor([[0, 1], [2, 0]])).tolist() == [[0, 1], [1, 0]]
    assert gf.dist(gf.tensor([3.0, 0.0]), gf.tensor([0.0, 4.0])).item() == 5.0
    np.testing.assert_allclose(gf.logspace(0, 2, 3).numpy(), [1, 10, 100], rtol=1e-6)
    assert gf.logspace(0, 4, 3, base=2, dtype=gf.int64).tolist() == [1, 4, 16]


def test_sequences_padded_to_the_longest() -> None:
    pad_sequence = nn.utils.rnn.pad_sequence
    a, b = gf.tensor([1.0], requires_grad=True), gf.tensor([2.0, 3.0])
    assert pad_sequence([a, b]).tolist() == [[1.0, 2.0], [0.0, 3.0]]
    assert pad_sequence([a, b], True, -1.0).tolist() == [[1.0, -1.0], [2.0, 3.0]]
    assert pad_sequence([a, b], True, padding_side="left").tolist() == [[0.0, 1.0], [2.0, 3.0]]
    (pad_sequence([a, b]) * 2).sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [2.0]
    for bad in ([], [gf.ones(1, 2), gf.ones(1, 3)]):
        with pytest.raises(ValueError, match="pad_sequence"):
            pad_sequence(bad)
    with pytest.raises(TypeError, match="pad_sequence"):
        pad_sequence([gf.tensor(1.0)])


@pytest.mark.parametrize("wrong", [
    lambda: gf.ones(2, 3) @ gf.ones(2, 3), lambda: gf.ones(2) + gf.ones(3), lambda: gf.ones(2).view(3),
    lambda: nn.Linear(3, 2)(gf.ones(2, 4)), lambda: gf.mm(gf.ones(2, 2), gf.ones(2, 2).double()),
    lambda: gf.tensor([1, 2]).mean(),
])  # fmt: skip
def test_what_pytorch_raises_as_runtime_errors_is_caught_as_such(wrong: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError):
        wrong()


def test_comparing_tensors_in_tests() -> None:
    close = gf.testing.assert_close
    x = gf.tensor([1.0, 2.0, 3.0])
    close(x, x + 1e-7)
    close(x.numpy(), x.numpy())
    close([1.0, x], [1.0 + 1e-9, x])
    close({"a": x, "b": 2}, {"a": x, "b": 2})
    close(gf.tensor([NAN]), gf.tensor([NAN]), equal_nan=True)
    close(gf.tensor([math.inf]), gf.tensor([math.inf]))
    with pytest.raises(AssertionError, match=r"Mismatched elements: 1 / 3 \(33.3%\)"):
        close(x, gf.tensor([1.0, 2.0, 3.5]))
    with pytest.raises(AssertionError, match=r"Greatest absolute difference: 0.5 at index \(2,\)"):
        close(x, gf.tensor([1.0, 2.0, 3.5]))
    for wrong, told in (
        (x.double(), "'dtype'"),
        (x[:2], "'shape'"),
        (gf.tensor([1.0, NAN, 3.0]), "not close"),
    ):
        with pytest.raises(AssertionError, match=told):
            close(x, wrong)
    close(x, x.double(), check_dtype=False)
    close(1, 1 + 1e-8)
    with pytest.raises(AssertionError, match="Scalars are not close"):
        close(1.0, 2.0)
    with pytest.raises(AssertionError, match=r"item \['a'\]\[1\]"):
        close({"a": [1, 2]}, {"a": [1, 3]})
    with pytest.raises(AssertionError, match="mine"):
        close(x, x + 1, msg="mine")
    with pytest.raises(ValueError, match="both"):
        close(x, x, rtol=0.1)


def test_what_a_tensor_is() -> None:
    x = gf.arange(6.0).reshape(2, 3)
    assert (x.layout, x.itemsize, x.nbytes, x.element_size()) == (gf.strided, 4, 24, 4)
    assert x.is_cpu
    assert not (
        x.is_sparse or x.is_quantized or x.is_meta or x.is_pinned() or x.is_complex() or x.is_inference()
    )
    assert x[1:].storage_offset() == 3
    assert x[1:].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert len(x.untyped_storage()) == 24
    assert x.get_device() == -1
    assert x.pin_memory() is x
    assert x.is_same_size(x + 1)
    assert gf.is_nonzero(gf.tensor([2.0]))
    assert x.new([1, 2]).dtype is gf.float32
    assert x.clone().apply_(lambda v: v * 2).tolist() == (x * 2).tolist()
    assert x.clone().map_(x, lambda a, b: a + b).tolist() == (x * 2).tolist()
    assert x.sum_to_size(1, 3).tolist() == [[3.0, 5.0, 7.0]]
    assert x.mH.shape == (3, 2)
    with pytest.raises(ValueError, match=r"resize_: .*reshape"):
        x.resize_(3, 2)
    assert gf.angle(gf.tensor([1.0, -1.0, 0.0])).tolist() == pytest.approx([0.0, math.pi, 0.0])
    assert x.conj() is x
    assert gf.fmax(gf.tensor([1.0, NAN, 3.0]), gf.tensor([NAN, 2.0, 4.0])).tolist() == [1.0, 2.0, 4.0]
    assert gf.fmin(gf.tensor([1.0, NAN, 3.0]), gf.tensor([NAN, 2.0, 4.0])).tolist() == [1.0, 2.0, 3.0]
    assert gf.isposinf(gf.tensor([math.inf, -math.inf])).tolist() == [True, False]
    assert gf.isneginf(gf.tensor([math.inf, -math.inf])).tolist() == [False, True]


def test_arguments_about_memory_have_no_effect() -> None:
    x = gf.zeros(2, 3, 4, 5, layout=gf.strided, pin_memory=False)
    assert gf.ones_like(x, memory_format=gf.preserve_format).shape == x.shape
    assert x.to(memory_format=gf.channels_last) is x
    assert x.contiguous(memory_format=gf.channels_last) is x
    assert gf.equal(x.clone(memory_format=gf.contiguous_format), x)
    with pytest.raises(TypeError, match="layout"):
        gf.zeros(2, layout="strided")
    with pytest.raises(TypeError, match="pin_memory"):
        gf.exp(x, pin_memory=True)  # type: ignore[call-arg]


def test_functions_that_change_their_argument() -> None:
    x = gf.tensor([-1.0, 4.0])
    assert gf.relu_(x) is x
    gf.sqrt_(x)
    assert x.tolist() == [0.0, 2.0]
    assert gf.fill_(x, 3.0).tolist() == [3.0, 3.0]
    assert gf.zero_(x).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("place", "name", "told"), [
    (gf, "tensro", "did you mean 'tensor'"), (gf, "complex64", "no complex dtypes"), (gf, "jit", "compile"),
    (gf, "gelu", "gf.nn.functional.gelu"), (gf, "sparse_coo_tensor", "no sparse"),
    (gf, "entr", "gf.special.entr"),
    (gf.fft, "fft", "no complex dtypes"), (gf.linalg, "eigvals", "eigvalsh"), (gf, "add_", "gf.Tensor.add_"),
])  # fmt: skip
def test_names_that_are_not_there_say_why(place: Any, name: str, told: str) -> None:
    with pytest.raises(AttributeError, match=told):
        getattr(place, name)
    assert not hasattr(place, name)


def test_frequencies_and_shifts() -> None:
    for n in (1, 4, 5):
        np.testing.assert_allclose(gf.fft.fftfreq(n, 0.5).numpy(), np.fft.fftfreq(n, 0.5), rtol=1e-6)
        np.testing.assert_allclose(gf.fft.rfftfreq(n, 0.5).numpy(), np.fft.rfftfreq(n, 0.5), rtol=1e-6)
    for shape in ((4,), (5, 4), (3, 5)):
        x = np.arange(math.prod(shape)).reshape(shape)
        assert gf.fft.fftshift(gf.tensor(x)).tolist() == np.fft.fftshift(x).tolist()
        assert gf.fft.ifftshift(gf.tensor(x), -1).tolist() == np.fft.ifftshift(x, -1).tolist()


def test_draws_inside_leave_the_generator_as_it_was() -> None:
    gf.manual_seed(1)
    expected = gf.rand(3)
    gf.manual_seed(1)
    with gf.random.fork_rng():
        gf.rand(5)
    assert gf.equal(gf.rand(3), expected)
    assert gf.newaxis is None
    assert gf.version.cuda is None
    assert gf.__version__ == gf.version.__version__
