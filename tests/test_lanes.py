"""Lane operations and AES steps: the evaluator against the host's vector instructions.

The guest has an instruction for each operation and shape; the interpreter runs LLVM's code for it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import cache
from typing import Final

import pytest

from anyarch.emit import llvm
from anyarch.errors import DefinitionError
from anyarch.ir.bits import Bits, Concrete
from anyarch.ir.lanes import Lanes, lookup, splat
from anyarch.ir.ops import OPS
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import InstructionSet, Kind
from anyarch.isa.machine import Machine
from anyarch.isa.registers import Layout, RegisterFile
from tests.vectors_format import CODE, PAGE, NativeMachine, ReferenceMachine

LAYOUT: Final = Layout((RegisterFile("v", 8, 128), RegisterFile("x", 2, 64)))
ALIKE: Final = (
    *("vadd", "vsub", "vmul", "vshl", "vshr", "vsar", "veq", "vult", "vule", "vslt", "vsle"),
    *("vumin", "vumax", "vsmin", "vsmax", "vuadds", "vusubs", "vsadds", "vssubs"),
)
UNARY: Final = ("vclz", "vpopcount", "vbitreverse")
AES: Final = ("aes_encrypt", "aes_decrypt", "aes_mix", "aes_unmix")

Function = Callable[[Bits, Bits], Bits]
CASES: Final[dict[str, Function]] = {}


def _alike(op: str, lane: int, size: int) -> Function:
    def function(a: Bits, b: Bits) -> Bits:
        operands = (a[:size],) if op in UNARY else (a[:size], b[:size])
        return a.apply(op, size, operands, (lane,))

    return function


for _size in (64, 128):
    for _lane in (8, 16, 32, 64):
        for _op in (*ALIKE, *UNARY):
            CASES[f"{_op} {_lane} of {_size}"] = _alike(_op, _lane, _size)
for _lane in (8, 16, 32):
    CASES[f"vwiden {_lane}"] = lambda a, b, n=_lane: Lanes(a[:64], n).widen(signed=False).bits
    CASES[f"vwiden_signed {_lane}"] = lambda a, b, n=_lane: Lanes(a[:64], n).widen(signed=True).bits
    CASES[f"vnarrow {_lane}"] = lambda a, b, n=_lane: Lanes(a, 2 * n).narrow().bits
CASES["clmul"] = lambda a, b: a.apply("clmul", 128, (a[:64], b[64:]))
for _kind in range(3):
    CASES[f"sha1_rounds {_kind}"] = lambda a, b, kind=_kind: a.sha1_rounds(kind, b)
CASES["sha256_rounds"] = lambda a, b: a.sha256_rounds(b, a ^ b)
for _lane in (8, 16, 32, 64):
    _count = 128 // _lane
    _indices = random.Random(_lane).choices(range(2 * _count), k=_count)
    CASES[f"vshuffle {_lane}"] = lambda a, b, n=_lane, i=tuple(_indices): (
        Lanes(a, n).shuffle(Lanes(b, n), i).bits
    )
    CASES[f"vsplat {_lane}"] = lambda a, b, n=_lane: splat(a[:n], 128 // n).bits
    CASES[f"velement {_lane}"] = lambda a, b, n=_lane: Lanes(a, n).element(b[:8]).zext(128)
    CASES[f"vinsert {_lane}"] = lambda a, b, n=_lane: Lanes(a, n).insert(b[:8], b[64 : 64 + n]).bits
    # An amount below the lane's size by its width: no test of it is emitted.
    CASES[f"vshl by few bits {_lane}"] = lambda a, b, n=_lane: (
        (Lanes(a, n) << (b[: n.bit_length() - 1]).zext(n)).bits
    )
CASES["vtable of 8"] = lambda a, b: lookup(a, b[:64])
CASES["vtable of 16"] = lookup
for _op in AES:
    CASES[_op] = lambda a, b, op=_op: a.aes(op)


def _definitions() -> InstructionSet:
    kinds = {name: Kind(3, file="v") for name in ("vd", "vn", "vm")}
    guest = InstructionSet("lanes", kinds)
    for number, (name, function) in enumerate(CASES.items()):

        def definition(
            m: Machine, vm: Bits, vn: Bits, vd: Bits, *, function: Function = function
        ) -> None:
            """Apply the operation."""
            m.v[vd] = function(m.v[vn], m.v[vm]).zext(128)

        row = f"{number + 1:023b} vm vn vd"
        guest.insn(row, f"op{number} {{vd}}, {{vn}}, {{vm}}", name=name)(definition)
    return guest


@cache
def guest() -> Architecture:
    return Architecture("lanes", _definitions, LAYOUT, ((0, 0, 4),), stack_pointer=("x", 0))


def interesting(source: random.Random) -> int:
    """Values whose lanes are at their limits more often than chance has them."""
    lane = source.choice((8, 16, 32, 64))
    limits = (
        0,
        1,
        2,
        lane - 1,
        lane,
        lane + 1,
        (1 << lane) - 1,
        1 << lane - 1,
        (1 << lane - 1) - 1,
    )
    lanes = (
        source.choice(limits) if source.random() < 0.6 else source.getrandbits(lane)
        for _ in range(128 // lane)
    )
    return sum(value << index * lane for index, value in enumerate(lanes))


@pytest.mark.parametrize("name", CASES)
def test_operation(name: str) -> None:
    source = random.Random(name)
    (instruction,) = (each for each in guest().isa.instructions if each.name == name)
    word = instruction.row.value | 2 << 6 | 1 << 3  # v0 from v1 and v2
    page = word.to_bytes(4, "little").ljust(PAGE, b"\0")
    reference = ReferenceMachine(guest(), {CODE: page})
    native = NativeMachine(guest(), {CODE: page})
    for _ in range(30):
        operands = interesting(source), interesting(source)
        found = []
        for machine in (reference, native):
            machine.state.set("v", 1, operands[0])
            machine.state.set("v", 2, operands[1])
            machine.state.pc = CODE
            machine.run(1)
            found.append(machine.state.get("v", 0))
        assert found[0] == found[1], f"{name} of {operands[0]:#x} and {operands[1]:#x}"


@pytest.mark.parametrize("name", [*AES, "sha1_rounds 0", "sha256_rounds", "clmul"])
def test_operation_that_the_host_lacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation in a guest of its own: code that is made without the host's instructions."""
    monkeypatch.setattr(llvm, "host_has", lambda feature: False)
    function = CASES[name]
    kinds = {each: Kind(3, file="v") for each in ("vd", "vn", "vm")}
    definitions = InstructionSet("plain", kinds)

    def definition(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
        """Apply the operation."""
        m.v[vd] = function(m.v[vn], m.v[vm]).zext(128)

    definitions.insn(f"{1:023b} vm vn vd", "op {vd}, {vn}, {vm}", name="op")(definition)
    plain = Architecture("plain", lambda: definitions, LAYOUT, ((0, 0, 4),), stack_pointer=("x", 0))
    word = 1 << 9 | 2 << 6 | 1 << 3
    machine = NativeMachine(plain, {CODE: word.to_bytes(4, "little").ljust(PAGE, b"\0")})
    source = random.Random(name)
    for _ in range(20):
        a, b = interesting(source), interesting(source)
        machine.state.set("v", 1, a)
        machine.state.set("v", 2, b)
        machine.state.pc = CODE
        machine.run(1)
        expected = function(Concrete(a, 128), Concrete(b, 128)).zext(128)
        assert machine.state.get("v", 0) == int(expected), f"{name} of {a:#x} and {b:#x}"


def test_every_operation_has_cases() -> None:
    shapes = {"lanes", "widen", "narrow", "shuffle", "splat", "table", "element", "insert"}
    wanted = {
        name
        for name, op in OPS.items()
        if op.shape in shapes or name.startswith(("aes", "sha", "clmul"))
    }
    assert wanted == {name.split()[0] for name in CASES}


def test_sha256_is_what_hashlib_says() -> None:
    roots = [_root(prime, 3) for prime in _primes(64)]
    state = [_root(prime, 2) for prime in _primes(8)]
    block = b"abc\x80" + bytes(59) + b"\x18"
    words = [int.from_bytes(block[at : at + 4], "big") for at in range(0, 64, 4)]
    for at in range(16, 64):
        low, high = words[at - 15], words[at - 2]
        first = _turn(low, 7) ^ _turn(low, 18) ^ low >> 3
        second = _turn(high, 17) ^ _turn(high, 19) ^ high >> 10
        words.append((words[at - 16] + first + words[at - 7] + second) % 2**32)
    a, b, c, d, e, f, g, h = state
    abef, cdgh = _words(f, e, b, a), _words(h, g, d, c)
    for at in range(0, 64, 2):
        pair = [(words[index] + roots[index]) % 2**32 for index in (at, at + 1)]
        abef, cdgh = cdgh.sha256_rounds(abef, _words(*pair, 0, 0)), abef
    f, e, b, a = (int.from_bytes(_bytes(abef)[at : at + 4], "little") for at in (0, 4, 8, 12))
    h, g, d, c = (int.from_bytes(_bytes(cdgh)[at : at + 4], "little") for at in (0, 4, 8, 12))
    total = [(x + y) % 2**32 for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True)]
    assert b"".join(x.to_bytes(4, "big") for x in total) == hashlib.sha256(b"abc").digest()


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _root(number: int, degree: int) -> int:
    """The first 32 bits behind the point of a square or cube root."""
    scaled, low, high = number << 32 * degree, 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**degree <= scaled else (low, middle)
    return low % 2**32


def _turn(value: int, amount: int) -> int:
    return (value >> amount | value << 32 - amount) % 2**32


def _words(*values: int) -> Concrete:
    return Concrete(sum(value << 32 * index for index, value in enumerate(values)), 128)


def test_known_values() -> None:
    """FIPS 197, appendix B: the state after the first round's steps."""
    state = Concrete(
        int.from_bytes(bytes.fromhex("193de3bea0f4e22b9ac68d2ae9f84808"), "little"), 128
    )
    shifted = bytes.fromhex("d4bf5d30e0b452aeb84111f11e2798e5")
    mixed = bytes.fromhex("046681e5e0cb199a48f8d37a2806264c")
    assert _bytes(state.aes("aes_encrypt")) == shifted
    assert _bytes(state.aes("aes_encrypt").aes("aes_mix")) == mixed
    assert _bytes(state.aes("aes_encrypt").aes("aes_decrypt")) == _bytes(state)
    assert _bytes(state.aes("aes_mix").aes("aes_unmix")) == _bytes(state)


def _bytes(value: Bits) -> bytes:
    assert isinstance(value, Concrete)
    return value.value.to_bytes(16, "little")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: Lanes(v, 24), "no whole number of lanes"),
        (lambda v: Lanes(v, 8) + Lanes(v, 16), "16 lanes of 8 bits and 8 of 16"),
        (lambda v: Lanes(v, 8).pick([32]), "vshuffle gives 8 bits"),
    ],
)
def test_message(make: Callable[[Bits], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make(Concrete(0, 128))
