"""Random functions in LLVM's language: (i32 thread, i32 a, i64 b, float c, double d) -> i64.

LLVM itself compiles them twice, for the host and to PTX; both must compute the same.
"""

from __future__ import annotations

import random

INTEGERS = ("i8", "i16", "i32", "i64")
FLOATS = ("float", "double")
PARAMETERS = (("i32", "%t"), ("i32", "%a"), ("i64", "%b"), ("float", "%c"), ("double", "%d"))


class _Function:
    """Values are kept in slots, so that any control flow is valid."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.count = 0
        self.labels = 0
        self.slots: dict[str, list[str]] = {t: [] for t in (*INTEGERS, *FLOATS)}
        self.declarations: set[str] = set()
        self.entry: list[str] = []

    def let(self, text: str) -> str:
        self.count += 1
        self.lines.append(f"  %v{self.count} = {text}")
        return f"%v{self.count}"

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def slot(self, type_: str, value: str) -> None:
        name = f"%s{len(self.entry)}"
        self.entry.append(f"  {name} = alloca {type_}")
        self.entry.append(f"  store {type_} {value}, ptr {name}")
        self.slots[type_].append(name)

    def read(self, type_: str) -> str:
        if self.random.random() < 0.15:
            return self.constant(type_)
        return self.let(f"load {type_}, ptr {self.random.choice(self.slots[type_])}")

    def constant(self, type_: str) -> str:
        if type_ in FLOATS:
            return self.random.choice(("0.0", "1.0", "-2.5", "0.125", "1024.0"))
        size = int(type_[1:])
        choices = (0, 1, -1, self.random.randrange(-100, 100), 1 << size - 1, (1 << size - 1) - 1)
        value = self.random.choice(choices)
        return str(value - (1 << size) if value >= 1 << size - 1 else value)

    def write(self, type_: str, value: str) -> None:
        self.lines.append(f"  store {type_} {value}, ptr {self.random.choice(self.slots[type_])}")

    def call(self, name: str, type_: str, *operands: str, extra: str = "") -> str:
        suffix = {"float": "f32", "double": "f64"}.get(type_, type_)
        types = ", ".join([type_] * len(operands) + ([extra.split()[0]] if extra else []))
        self.declarations.add(f"declare {type_} @llvm.{name}.{suffix}({types})")
        listed = ", ".join([*(f"{type_} {o}" for o in operands), *([extra] if extra else [])])
        return self.let(f"call {type_} @llvm.{name}.{suffix}({listed})")

    def statement(self, depth: int) -> None:
        kind = self.random.random()
        if depth and kind < 0.16:
            self.branch(depth)
        elif depth and kind < 0.24:
            self.loop(depth)
        elif depth and kind < 0.28:
            self.switch(depth)
        elif kind < 0.72:
            self.integer()
        elif kind < 0.86:
            self.real()
        else:
            self.convert()

    def integer(self) -> None:
        pick = self.random.choice
        type_ = pick(INTEGERS)
        size = int(type_[1:])
        a, b = self.read(type_), self.read(type_)
        kind = self.random.randrange(9)
        if kind < 3:
            result = self.let(f"{pick(('add', 'sub', 'mul', 'and', 'or', 'xor'))} {type_} {a}, {b}")
        elif kind == 3:
            amount = self.let(f"and {type_} {b}, {size - 1}")
            result = self.let(f"{pick(('shl', 'lshr', 'ashr'))} {type_} {a}, {amount}")
        elif kind == 4:
            divisor = self.let(f"or {type_} {b}, 1")
            if self.random.random() < 0.5:
                result = self.let(f"{pick(('udiv', 'urem'))} {type_} {a}, {divisor}")
            else:
                positive = self.let(f"lshr {type_} {divisor}, 1")
                positive = self.let(f"or {type_} {positive}, 1")
                result = self.let(f"{pick(('sdiv', 'srem'))} {type_} {a}, {positive}")
        elif kind == 5:
            relation = pick(("eq", "ne", "slt", "sle", "ugt", "uge", "sgt", "ult"))
            condition = self.let(f"icmp {relation} {type_} {a}, {b}")
            other = self.read(type_)
            result = self.let(f"select i1 {condition}, {type_} {a}, {type_} {other}")
        elif kind == 6:
            result = self.call(pick(("smin", "smax", "umin", "umax")), type_, a, b)
        elif kind == 7:
            name = pick(("ctpop", "bitreverse", "ctlz", "cttz", "abs"))
            extra = "i1 false" if name in ("ctlz", "cttz", "abs") else ""
            result = self.call(name, type_, a, extra=extra)
        else:
            type_ = pick(("i32", "i64"))
            a, b, c = self.read(type_), self.read(type_), self.read(type_)
            result = self.call(pick(("fshl", "fshr")), type_, a, b, c)
        self.write(type_, result)

    def real(self) -> None:
        type_ = self.random.choice(FLOATS)
        a, b = self.read(type_), self.read(type_)
        kind = self.random.randrange(5)
        if kind < 2:
            name = self.random.choice(("fadd", "fsub", "fmul", "fdiv"))
            result = self.let(f"{name} {type_} {a}, {b}")
        elif kind == 2:
            result = self.call("fma", type_, a, b, self.read(type_))
        elif kind == 3:
            relation = self.random.choice(("oeq", "olt", "oge", "une", "ult", "uno", "ord"))
            condition = self.let(f"fcmp {relation} {type_} {a}, {b}")
            result = self.let(f"select i1 {condition}, {type_} {a}, {type_} {b}")
        else:
            name = self.random.choice(("fabs", "floor", "ceil", "trunc", "sqrt"))
            result = self.call(name, type_, a)
        self.write(type_, result)

    def convert(self) -> None:
        pick = self.random.choice
        if self.random.random() < 0.5:
            source, target = self.random.sample(INTEGERS, 2)
            value = self.read(source)
            name = pick(("zext", "sext")) if int(source[1:]) < int(target[1:]) else "trunc"
            self.write(target, self.let(f"{name} {source} {value} to {target}"))
            return
        if self.random.random() < 0.5:
            source, target = pick(INTEGERS[1:]), pick(FLOATS)
            name = pick(("sitofp", "uitofp"))
            value = self.read(source)
            self.write(target, self.let(f"{name} {source} {value} to {target}"))
            return
        source, target = self.random.sample(FLOATS, 2)
        name = "fpext" if target == "double" else "fptrunc"
        self.write(target, self.let(f"{name} {source} {self.read(source)} to {target}"))

    def condition(self) -> str:
        type_ = self.random.choice(INTEGERS)
        relation = self.random.choice(("eq", "slt", "ugt", "sge"))
        return self.let(f"icmp {relation} {type_} {self.read(type_)}, {self.read(type_)}")

    def body(self, depth: int, most: int) -> None:
        for _ in range(self.random.randrange(1, most)):
            self.statement(depth)

    def branch(self, depth: int) -> None:
        then, otherwise, after = self.label(), self.label(), self.label()
        self.lines.append(f"  br i1 {self.condition()}, label %{then}, label %{otherwise}")
        for name in (then, otherwise):
            self.lines.append(f"{name}:")
            self.body(depth - 1, 6)
            # Now and then one side goes on elsewhere: flow that no structured language has.
            self.lines.append(f"  br label %{after}")
        self.lines.append(f"{after}:")

    def loop(self, depth: int) -> None:
        head, inside, after = self.label(), self.label(), self.label()
        self.slot("i32", "0")
        counter = self.slots["i32"].pop()
        limit = self.let(f"and i32 {self.read('i32')}, 7")
        self.lines += [f"  store i32 0, ptr {counter}", f"  br label %{head}", f"{head}:"]
        now = self.let(f"load i32, ptr {counter}")
        more = self.let(f"icmp ult i32 {now}, {limit}")
        self.lines += [f"  br i1 {more}, label %{inside}, label %{after}", f"{inside}:"]
        self.body(depth - 1, 5)
        if self.random.random() < 0.5:
            on = self.label()
            self.lines.append(f"  br i1 {self.condition()}, label %{after}, label %{on}")
            self.lines.append(f"{on}:")
            self.body(depth - 1, 4)
        now = self.let(f"load i32, ptr {counter}")
        self.lines.append(f"  store i32 {self.let(f'add i32 {now}, 1')}, ptr {counter}")
        self.lines += [f"  br label %{head}", f"{after}:"]

    def switch(self, depth: int) -> None:
        labels = [self.label() for _ in range(5)]
        after = self.label()
        value = self.let(f"and i32 {self.read('i32')}, 7")
        cases = " ".join(f"i32 {n}, label %{label}" for n, label in enumerate(labels[:-1]))
        self.lines.append(f"  switch i32 {value}, label %{labels[-1]} [ {cases} ]")
        for n, label in enumerate(labels):
            self.lines.append(f"{label}:")
            self.body(depth - 1, 3)
            falls = n + 1 < len(labels) and self.random.random() < 0.3
            self.lines.append(f"  br label %{labels[n + 1] if falls else after}")
        self.lines.append(f"{after}:")

    def text(self, statements: int) -> str:
        for type_, name in PARAMETERS:
            self.slot(type_, name)
        for type_ in (*INTEGERS, *FLOATS):
            while len(self.slots[type_]) < 3:
                self.slot(type_, "0.0" if type_ in FLOATS else str(len(self.entry) % 5))
        for _ in range(statements):
            self.statement(3)
        result = "0"
        for type_ in INTEGERS:
            for name in self.slots[type_]:
                value = self.let(f"load {type_}, ptr {name}")
                if type_ != "i64":
                    value = self.let(f"zext {type_} {value} to i64")
                mixed = self.let(f"mul i64 {result}, 1099511628211")
                result = self.let(f"xor i64 {mixed}, {value}")
        for type_ in FLOATS:
            for name in self.slots[type_]:
                value = self.let(f"load {type_}, ptr {name}")
                bits = self.let(f"bitcast {type_} {value} to i{32 if type_ == 'float' else 64}")
                nan = self.let(f"fcmp uno {type_} {value}, 0.0")
                if type_ == "float":
                    bits = self.let(f"zext i32 {bits} to i64")
                bits = self.let(f"select i1 {nan}, i64 1, i64 {bits}")  # NaNs have any payload
                mixed = self.let(f"mul i64 {result}, 1099511628211")
                result = self.let(f"xor i64 {mixed}, {bits}")
        body = [*self.entry, *self.lines, f"  ret i64 {result}"]
        head = ", ".join(f"{type_} {name}" for type_, name in PARAMETERS)
        function = "\n".join([f"define i64 @compute({head}) alwaysinline {{", *body, "}"])
        return "\n".join([*sorted(self.declarations), function])


def random_function(seed: int, statements: int = 25) -> str:
    """LLVM text that defines @compute."""
    return _Function(seed).text(statements)


KERNEL = """
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
define ptx_kernel void @run(ptr addrspace(1) %out, ptr addrspace(1) %as, ptr addrspace(1) %bs,
                            ptr addrspace(1) %cs, ptr addrspace(1) %ds, i32 %n) {
  %tid = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %block = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %size = call i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
  %first = mul i32 %block, %size
  %t = add i32 %first, %tid
  %inside = icmp ult i32 %t, %n
  br i1 %inside, label %go, label %end
go:
  %w = zext i32 %t to i64
  %ap = getelementptr i32, ptr addrspace(1) %as, i64 %w
  %bp = getelementptr i64, ptr addrspace(1) %bs, i64 %w
  %cp = getelementptr float, ptr addrspace(1) %cs, i64 %w
  %dp = getelementptr double, ptr addrspace(1) %ds, i64 %w
  %a = load i32, ptr addrspace(1) %ap
  %b = load i64, ptr addrspace(1) %bp
  %c = load float, ptr addrspace(1) %cp
  %d = load double, ptr addrspace(1) %dp
  %r = call i64 @compute(i32 %t, i32 %a, i64 %b, float %c, double %d)
  %op = getelementptr i64, ptr addrspace(1) %out, i64 %w
  store i64 %r, ptr addrspace(1) %op
  br label %end
end:
  ret void
}
"""

HOST = """
define void @run(ptr %out, ptr %as, ptr %bs, ptr %cs, ptr %ds, i32 %n) {
entry:
  br label %head
head:
  %t = phi i32 [ 0, %entry ], [ %next, %go ]
  %inside = icmp ult i32 %t, %n
  br i1 %inside, label %go, label %end
go:
  %w = zext i32 %t to i64
  %ap = getelementptr i32, ptr %as, i64 %w
  %bp = getelementptr i64, ptr %bs, i64 %w
  %cp = getelementptr float, ptr %cs, i64 %w
  %dp = getelementptr double, ptr %ds, i64 %w
  %a = load i32, ptr %ap
  %b = load i64, ptr %bp
  %c = load float, ptr %cp
  %d = load double, ptr %dp
  %r = call i64 @compute(i32 %t, i32 %a, i64 %b, float %c, double %d)
  %op = getelementptr i64, ptr %out, i64 %w
  store i64 %r, ptr %op
  %next = add i32 %t, 1
  br label %head
end:
  ret void
}
"""
