"""Random functions, by LLVM to PTX and from there by us to the host, against LLVM to the host."""

from __future__ import annotations

import ctypes

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")
from llvmlite import binding as llvm  # noqa: E402

from anyarch.emit.compile import compile_blob  # noqa: E402
from anyarch.host.code import load  # noqa: E402
from tests.gpu.cpu_kernels import launch, program  # noqa: E402
from tests.gpu.random_ir import HOST, KERNEL, random_function  # noqa: E402

COUNT = 200


def to_ptx(text: str) -> str:
    """LLVM's own NVPTX back end, after its usual passes."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("nvptx64-nvidia-cuda")
    machine = target.create_target_machine(cpu="sm_90", features="+ptx83", opt=2)
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    ptx: str = machine.emit_assembly(module)
    return ptx


def data() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    a = rng.integers(-(2**31), 2**31, COUNT).astype("i4")
    b = rng.integers(-(2**63), 2**63 - 1, COUNT)
    c = (rng.standard_normal(COUNT) * 100).astype("f4")
    d = rng.standard_normal(COUNT) * 1e4
    a[::3] = rng.integers(-5, 20, len(a[::3]))
    b[::5] = rng.integers(-5, 20, len(b[::5]))
    c[::7], c[::11], c[::17], d[::13] = np.nan, np.inf, 1e-42, -0.0
    return [a, b, c, d]


@pytest.mark.parametrize("seed", range(12))
def test_random_function(seed: int) -> None:
    function = random_function(seed)
    inputs = data()
    expected, got = np.zeros(COUNT, "i8"), np.zeros(COUNT, "i8")
    code = load(compile_blob(function + HOST, opt=1))
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_int)(code.address("run"))
    run(*[array.ctypes.data for array in (expected, *inputs)], COUNT)
    block = (64, 100, 48, 24)[seed % 4]
    loaded = program(to_ptx(function + KERNEL), threads=seed % 6 == 5)
    launch(loaded, "run", -(-COUNT // block), block, got, *inputs, COUNT)
    assert np.nonzero(got != expected)[0].tolist() == []
