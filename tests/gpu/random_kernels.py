"""Random kernels as PTX: control flow that lanes do not agree on, barriers, shared memory.

What a thread writes to shared memory another reads only behind a barrier, so that a kernel has one
right result, however its threads are run.
"""

from __future__ import annotations

import random

WORDS = 4096  # of the input
RESULTS = 4  # words that each thread writes
_VALUES = 6
_HEAD = """.version 8.0
.target sm_75
.address_size 64
.visible .entry run(.param .u64 out, .param .u64 in, .param .u32 n)
{{
    .reg .pred %p<{predicates}>; .reg .b32 %r<{registers}>; .reg .b64 %d<{wide}>;
    .reg .b32 %v<{values}>; .reg .b32 %t; .reg .b32 %ty; .reg .b32 %n; .reg .b32 %gid;
    .reg .b64 %in; .reg .b64 %out;
    .shared .align 4 .b8 area[{area}];
    .local .align 4 .b8 array[64];
    .reg .b64 %array; .reg .b64 %generic;
    mov.u64 %array, array;
    ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; ld.param.u32 %n, [n];
    mov.u32 %t, %tid.x; mov.u32 %ty, %tid.y;
    {linear}
    mov.u32 %r0, %ctaid.x; mad.lo.s32 %gid, %r0, {threads}, %t;
"""


class _Writer:
    def __init__(self, seed: int, block: tuple[int, int]) -> None:
        self.random = random.Random(seed)
        self.block = block
        self.threads = block[0] * block[1]
        self.lines: list[str] = []
        self.counts = {"r": 1, "d": 0, "p": 0, "l": 0}
        self.loose = self.random.random() < 0.3  # whether threads may end early
        self.escapes = self.random.random() < 0.25  # the address of the local array
        self.budget = 60

    def new(self, kind: str) -> str:
        self.counts[kind] += 1
        number = self.counts[kind] - 1
        return f"$L{number}" if kind == "l" else f"%{kind}{number}"

    def put(self, *lines: str) -> None:
        self.lines += ["    " + line if line[-1] != ":" else line for line in lines]

    def value(self) -> str:
        return f"%v{self.random.randrange(_VALUES)}"

    def operand(self) -> str:
        return self.random.choice(
            [self.value(), self.value(), "%t", "%n", str(self.random.randrange(64))]
        )

    # Statements.

    def compute(self) -> None:
        d, a = self.value(), self.random.choice([self.value(), "%t", "%t"])
        match self.random.randrange(8):
            case 0:
                self.put(f"or.b32 {d}, {a}, {self.random.choice([1, 3, 32, 64])};")
            case 1:
                self.put(f"and.b32 {d}, {a}, {self.random.choice([1, 15, 31, 48, 255])};")
            case 2:
                self.put(f"shl.b32 {d}, {a}, {self.random.randrange(5)};")
            case 3:
                self.put(f"shr.u32 {d}, {a}, {self.random.randrange(7)};")
            case 4:
                self.put(f"mad.lo.s32 {d}, {a}, {self.random.choice([1, 2, 3, 4, 8])}, {d};")
            case 5:
                p = self.condition()
                self.put(f"@{p} add.s32 {d}, {a}, {self.operand()};")
            case 6:
                p = self.condition()
                self.put(f"selp.b32 {d}, {a}, {self.operand()}, {p};")
            case _:
                op = self.random.choice(["add.s32", "sub.s32", "xor.b32", "mul.lo.s32", "min.u32"])
                self.put(f"{op} {d}, {a}, {self.operand()};")

    def condition(self) -> str:
        p = self.new("p")
        name = self.random.choice(["lt", "le", "gt", "ge", "eq", "ne"])
        type_ = self.random.choice(["s32", "u32"])
        a = self.random.choice(["%t", "%t", self.value()])
        limit = self.random.choice([0, 1, 3, 7, 15, 31, 32, 63, self.random.randrange(128)])
        b = self.random.choice([str(limit), str(limit), self.value()])
        self.put(f"setp.{name}.{type_} {p}, {a}, {b};")
        return p

    def index(self, limit: int) -> str:
        """A word's number below a limit, of a kind that compilers write."""
        r = self.new("r")
        match self.random.randrange(4):
            case 0:
                factor = self.random.choice([1, 1, 2, 3, 4])
                start = self.random.randrange(8)
                assert self.threads * 4 + 8 <= limit
                self.put(f"mad.lo.s32 {r}, %t, {factor}, {start};")
            case 1:
                self.put(f"shl.b32 {r}, %t, 1;", f"or.b32 {r}, {r}, 1;")
            case _:
                self.put(f"and.b32 {r}, {self.value()}, {(1 << limit.bit_length() - 1) - 1};")
        return r

    def load(self) -> None:
        r = self.index(WORDS - 4)
        wide, place = self.new("d"), self.new("d")
        sign = self.random.choice("us")
        self.put(f"mul.wide.{sign}32 {wide}, {r}, 4;", f"add.s64 {place}, %in, {wide};")
        guard = f"@{self.condition()} " if self.random.random() < 0.2 else ""
        for n in self.random.sample(range(4), self.random.choice([1, 2, 4])):
            self.put(f"{guard}ld.global.u32 {self.value()}, [{place}+{4 * n}];")
            if self.random.random() < 0.3:
                self.compute()

    def wild(self) -> None:
        """A load that only some lanes may do: the place of the others is nowhere."""
        p, after = self.condition(), self.new("l")
        r, wide, place = self.new("r"), self.new("d"), self.new("d")
        self.put(
            f"selp.b32 {r}, 0x70000000, {self.random.randrange(64)}, {p};",
            f"add.s32 {r}, {r}, %t;",
            f"mul.wide.u32 {wide}, {r}, 4;",
            f"add.s64 {place}, %in, {wide};",
            f"@{p} bra {after};",
            f"ld.global.u32 {self.value()}, [{place}];",
            f"ld.global.u32 {self.value()}, [{place}+4];",
            f"{after}:",
        )

    def local(self) -> None:
        """An element of the thread's own array."""
        r, wide, place = self.new("r"), self.new("d"), self.new("d")
        source = self.random.choice(["%n", "%t", self.value()])
        self.put(
            f"and.b32 {r}, {source}, 15;",
            f"mul.wide.u32 {wide}, {r}, 4;",
            f"add.s64 {place}, %array, {wide};",
        )
        start = self.random.choice([f"[{place}]", f"[%array+{4 * self.random.randrange(16)}]"])
        if self.escapes and self.random.random() < 0.5:
            self.put(f"add.s64 {place}, %generic, {wide};")
            self.put(f"ld.u32 {self.value()}, [{place}];")
        elif self.random.random() < 0.5:
            self.put(f"st.local.u32 {start}, {self.value()};")
        elif self.random.random() < 0.2:
            self.put(f"ld.local.v2.u32 {{%v0, %v1}}, [%array+{8 * self.random.randrange(8)}];")
        else:
            self.put(f"ld.local.u32 {self.value()}, {start};")

    def exchange(self) -> None:
        """Through shared memory: each thread has places of its own."""
        stride = self.random.choice([1, 1, 2, 4, 5])
        shift = self.random.randrange(4) * 4
        place, r, other = self.new("r"), self.new("r"), self.new("r")
        self.put(
            f"mad.lo.s32 {place}, %t, {4 * stride}, {shift};",
            f"mov.u32 {r}, area;",
            f"add.s32 {place}, {place}, {r};",
        )
        if self.random.random() < 0.3:
            self.put(f"st.shared.u32 [{place}], 7;")
            self.put(f"@{self.condition()} st.shared.u32 [{place}], {self.value()};")
        else:
            self.put(f"st.shared.u32 [{place}], {self.value()};")
        self.put("bar.sync 0;")
        flip = self.random.choice([0, 1, 16, 32])
        # Of a thread that there is and has not ended.
        p = self.new("p")
        self.put(
            f"xor.b32 {other}, %t, {flip};",
            f"setp.ge.u32 {p}, {other}, {self.threads};",
            f"selp.b32 {other}, %t, {other}, {p};",
        )
        if self.loose:
            self.put(f"mov.u32 {other}, %t;")
        self.put(
            f"mad.lo.s32 {other}, {other}, {4 * stride}, {shift};",
            f"add.s32 {other}, {other}, {r};",
            f"ld.shared.u32 {self.value()}, [{other}];",
            "bar.sync 0;",
        )

    def branch(self, depth: int, waits: bool) -> None:
        alike = waits and self.random.random() < 0.4
        p, otherwise, after = self.new("p"), self.new("l"), self.new("l")
        if alike:
            a = self.random.choice(["%n", "%r0"])
            self.put(f"setp.gt.u32 {p}, {a}, {self.random.randrange(3)};")
        else:
            p = self.condition()
        self.put(f"@{self.random.choice(['', '!'])}{p} bra {otherwise};")
        self.block_of(depth, alike)
        if self.random.random() < 0.5:
            self.put(f"bra {after};", f"{otherwise}:")
            self.block_of(depth, alike)
            self.put(f"{after}:")
        else:
            self.put(f"{otherwise}:")

    def loop(self, depth: int, waits: bool) -> None:
        alike = waits and self.random.random() < 0.5
        r, p, again, after = self.new("r"), self.new("p"), self.new("l"), self.new("l")
        source = self.random.choice(["%n", "%r0"] if alike else ["%t", self.value()])
        self.put(f"and.b32 {r}, {source}, 3;", f"{again}:")
        self.block_of(depth, alike)
        if not alike and self.random.random() < 0.3:
            self.put(f"@{self.condition()} bra {after};")
        self.put(
            f"sub.s32 {r}, {r}, 1;", f"setp.ge.s32 {p}, {r}, 0;", f"@{p} bra {again};", f"{after}:"
        )

    def block_of(self, depth: int, waits: bool) -> None:
        for _ in range(self.random.randrange(1, 5)):
            self.budget -= 1
            kind = self.random.random()
            if depth and self.budget > 0 and kind < 0.16:
                self.branch(depth - 1, waits)
            elif depth and self.budget > 0 and kind < 0.3:
                self.loop(depth - 1, waits)
            elif waits and kind < 0.45:
                self.exchange()
            elif kind < 0.6:
                self.load()
            elif kind < 0.65:
                self.wild()
            elif kind > 0.9:
                self.local()
            elif self.loose and waits and depth and kind < 0.68:
                way = self.random.choice(["ret", "ret", "bra $END"])
                self.put(f"@{self.condition()} {way};")
            else:
                self.compute()

    def text(self) -> str:
        for n in range(_VALUES):
            self.put(f"mad.lo.s32 %v{n}, %gid, {2 * n + 1}, {n};")
        for n in range(16):
            self.put(f"st.local.u32 [array+{4 * n}], %v{n % _VALUES};")
        if self.escapes:
            self.put("cvta.local.u64 %generic, %array;")
        for _ in range(5):
            self.block_of(3, True)
        self.put("$END:")
        wide, place, r = self.new("d"), self.new("d"), self.new("r")
        self.put(
            f"mul.lo.s32 {r}, %gid, {RESULTS};",
            f"mul.wide.s32 {wide}, {r}, 4;",
            f"add.s64 {place}, %out, {wide};",
            "xor.b32 %v0, %v0, %v4;",
            "add.s32 %v1, %v1, %v5;",
        )
        for n in range(RESULTS):
            self.put(f"st.global.u32 [{place}+{4 * n}], %v{n};")
        self.put("ret;", "}")
        head = _HEAD.format(
            predicates=self.counts["p"] + 1,
            registers=self.counts["r"] + 1,
            wide=self.counts["d"] + 1,
            values=_VALUES,
            area=self.threads * 20 + 64,
            linear=f"mad.lo.s32 %t, %ty, {self.block[0]}, %t;" if self.block[1] > 1 else "",
            threads=self.threads,
        )
        return head + "\n".join(self.lines) + "\n"


def random_kernel(seed: int, block: tuple[int, int]) -> str:
    """PTX of `run(out, in, n)` for blocks of that size: `out` has RESULTS words for each thread,
    `in` WORDS words."""
    return _Writer(seed, block).text()
