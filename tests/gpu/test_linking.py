"""Several modules linked into one, on the cpu."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from anyarch import gpu

HEAD = ".version 8.0\n.target sm_75\n.address_size 64\n"
MAIN = f"""{HEAD}.file 1 "main.cu"
.extern .func (.param .b32 r) twice(.param .b32 x);
.extern .global .align 4 .u32 calls;
.extern .shared .align 4 .b8 room[];
.func (.param .b32 r) own(.param .b32 x) {{
    .reg .b32 %r;
    ld.param.u32 %r, [x];   add.u32 %r, %r, 1;   st.param.u32 [r], %r;   ret;
}}
.visible .entry run(.param .u64 out) {{
    .reg .b32 %r<4>; .reg .b64 %d<3>; .param .b32 a; .param .b32 b;
    ld.param.u64 %d0, [out];   mov.u32 %r0, %tid.x;
    st.param.u32 [a], %r0;
    call (b), twice, (a);
    ld.param.u32 %r1, [b];
    st.param.u32 [a], %r1;
    call (b), own, (a);
    ld.param.u32 %r1, [b];
    mul.wide.u32 %d1, %r0, 4;   add.u64 %d0, %d0, %d1;   st.global.u32 [%d0], %r1;
    atom.global.add.u32 %r2, [calls], 1;
    ret;
}}
"""
LIBRARY = f"""{HEAD}.file 1 "library.cu"
.visible .global .align 4 .u32 calls = 100;
.func (.param .b32 r) own(.param .b32 x) {{
    .reg .b32 %r;
    ld.param.u32 %r, [x];   mul.lo.u32 %r, %r, 2;   st.param.u32 [r], %r;   ret;
}}
.global .align 8 .u64 handler = own;
.visible .func (.param .b32 r) twice(.param .b32 x) {{
    .reg .b32 %r; .reg .b64 %d; .param .b32 a; .param .b32 b;
    shape: .callprototype (.param .b32 _) _ (.param .b32 _);
    .loc 1 7 0
    ld.param.u32 %r, [x];   st.param.b32 [a], %r;   ld.global.u64 %d, [handler];
    call (b), %d, (a), shape;
    ld.param.u32 %r, [b];
    st.param.u32 [r], %r;   ret;
}}
"""


@pytest.fixture
def home() -> gpu.Device:
    return gpu.Device("cpu")


def test_functions_and_variables_of_another_module(home: gpu.Device) -> None:
    for sources in ((MAIN, LIBRARY), (LIBRARY, MAIN)):
        module = home.load(sources)
        out = home.zeros(40, "i4")
        module["run"].launch(1, 40, out)
        # Each module has an `own` of its own.
        assert out.to_host().tolist() == [2 * n + 1 for n in range(40)]
        assert module.variable("calls").to_bytes() == (140).to_bytes(4, "little")
        assert list(module) == ["run"]


def test_what_is_not_defined(home: gpu.Device) -> None:
    with pytest.raises(gpu.PtxError, match="twice"):
        home.load(MAIN)["run"]
    with pytest.raises(gpu.ImageError, match="nothing to load"):
        home.load([])


def test_what_is_defined_twice(home: gpu.Device) -> None:
    with pytest.raises(gpu.PtxError, match="'twice' is defined twice") as caught:
        home.load([LIBRARY.replace("calls", "mine"), LIBRARY, MAIN])
    assert (caught.value.origin, caught.value.line) == ("PTX text 2", 11)
    with pytest.raises(gpu.PtxError, match="variable 'calls' is defined twice"):
        home.load([LIBRARY, LIBRARY])
    weak = LIBRARY.replace(".visible", ".weak").replace(", 2;", ", 3;")
    for sources in ((MAIN, weak, LIBRARY), (MAIN, LIBRARY, weak)):
        out = home.zeros(4, "i4")
        home.load(sources)["run"].launch(1, 4, out)
        assert out.to_host().tolist() == [1, 3, 5, 7]


def test_errors_name_the_text(home: gpu.Device, tmp_path: Path) -> None:
    bad = tmp_path / "bad.ptx"
    bad.write_text(LIBRARY.replace("ld.global.u64 %d", "nonsense.u64 %d"))
    with pytest.raises(gpu.PtxError, match=r"bad.ptx, PTX line 15, column \d+: .*nonsense"):
        home.load([MAIN, bad])["run"]
    bad.write_text(LIBRARY.replace("}", ""))
    with pytest.raises(gpu.PtxError, match=r"bad.ptx, PTX line"):
        home.load([MAIN, bad])
    bad.write_text(
        LIBRARY.replace("ld.global.u64 %d", "st.global.u32 [4096], %r; ld.global.u64 %d")
    )
    home.load([MAIN, bad])["run"].launch(1, 4, gpu.to_device(array("i", [0] * 4), home))
    with pytest.raises(gpu.KernelError, match=r"bad.ptx, PTX line 15, library.cu:7: 'st.global"):
        home.synchronize()
