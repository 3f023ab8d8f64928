"""The LLVM text of the builtins that launch kernels and call the driver (launcher.py).

A builtin is called as CPython calls one: `aa_gpu_prepared` without arguments, `aa_gpu_launch` with
an array of them and the names of keywords, `aa_gpu_call` with an array. All numbers that it needs
are in an array whose layout is `SLOTS`.
"""

from __future__ import annotations

from typing import Final

from anyarch.gpu.backends.launches import RING_ENTRIES

TYPE_OFFSET: Final = 8
BYTES_OFFSET: Final = 32
MAX_PARAMETERS: Final = 32
MAX_NBYTES: Final = 1024

# Numbers of an array, by what they are. The first are of every function, then those of a prepared
# launch, then those of a launcher.
SLOTS: Final = """
launch get_current push_current pop_current save_thread restore_thread context function_cell
ring kernel slow vectorcall none incref
grid_xy grid_z_block_x block_yz shared stream parameters
count kinds scalars as_integer as_real get_attribute decref clear_error
int_type float_type buffer_type array_type stream_type tuple_type
pointer_name driver_name handle_name stream_name shared_name driver tuple_item tuple_size
from_integer
""".split()
SLOT: Final = {name: number for number, name in enumerate(SLOTS)}

# Kinds of parameters that a launcher converts.
INTEGER, FLOAT, DOUBLE, WORD, POINTER, RAW = range(6)
KIND_NUMBERS: Final = 3  # kind, offset, bytes

# Kinds of NumPy scalars, and the most types of them that there are.
SIGNED, UNSIGNED, REAL = range(3)
SCALAR_NUMBERS: Final = 3  # type, kind, bytes
MAX_SCALARS: Final = 24
SCALAR_OFFSET: Final = 16

MAX_CALL: Final = 6  # arguments that x86-64 passes in registers


def launcher_text() -> str:
    """The LLVM text of the builtins."""

    def read(slot: str, into: str, type_: str = "ptr") -> str:
        return (
            f"  %{into}.at = getelementptr i64, ptr %data, i64 {SLOT[slot]}\n"
            f"  %{into} = load {type_}, ptr %{into}.at"
        )

    def read_half(slot: str, half: int, into: str) -> str:
        return (
            f"  %{into}.at = getelementptr i32, ptr %data, i64 {2 * SLOT[slot] + half}\n"
            f"  %{into} = load i32, ptr %{into}.at"
        )

    values = "\n".join(
        f"  %value{n}.at = getelementptr i64, ptr %values, i64 {n}\n"
        f"  %value{n} = load i64, ptr %value{n}.at"
        for n in range(MAX_CALL)
    )
    passed = ", ".join(f"i64 %value{n}" for n in range(MAX_CALL))
    return f"""
; The numbers of the object that a builtin is bound to.
define internal ptr @data(ptr %self) alwaysinline {{
  %at = getelementptr i8, ptr %self, i64 {BYTES_OFFSET}
  %data = load ptr, ptr %at
  ret ptr %data
}}

define internal ptr @type_of(ptr %object) alwaysinline {{
  %at = getelementptr i8, ptr %object, i64 {TYPE_OFFSET}
  %type = load ptr, ptr %at
  ret ptr %type
}}

; Launch with the GIL released and the context current; whether it worked.
define internal i1 @fire(ptr %data, i32 %gx, i32 %gy, i32 %gz, i32 %bx, i32 %by, i32 %bz,
                         i32 %shared, ptr %stream, ptr %parameters) {{
  %current = alloca ptr
{read("function_cell", "cell")}
  %function = load ptr, ptr %cell
  %gone = icmp eq ptr %function, null
  br i1 %gone, label %failed, label %there
failed:
  ret i1 false
there:
{read("ring", "ring")}
{read("kernel", "kernel", "i64")}
  %launches = load i64, ptr %ring
  %next = add i64 %launches, 1
  %entry = urem i64 %launches, {RING_ENTRIES}
  %pair = shl i64 %entry, 1
  %place = add i64 %pair, 1
  %kernel.place = getelementptr i64, ptr %ring, i64 %place
  store i64 %kernel, ptr %kernel.place
  %stream.place = getelementptr i64, ptr %kernel.place, i64 1
  store ptr %stream, ptr %stream.place
  store i64 %next, ptr %ring
{read("save_thread", "save")}
{read("restore_thread", "restore")}
{read("get_current", "get")}
{read("push_current", "push")}
{read("pop_current", "pop")}
{read("context", "context")}
{read("launch", "launch")}
  %thread = call ptr %save()
  store ptr null, ptr %current
  %got = call i32 %get(ptr %current)
  %found = load ptr, ptr %current
  %same = icmp eq ptr %found, %context
  br i1 %same, label %ready, label %switch
switch:
  %pushed = call i32 %push(ptr %context)
  br label %ready
ready:
  %result = call i32 %launch(ptr %function, i32 %gx, i32 %gy, i32 %gz, i32 %bx, i32 %by, i32 %bz,
                             i32 %shared, ptr %stream, ptr %parameters, ptr null)
  br i1 %same, label %done, label %back
back:
  %popped = call i32 %pop(ptr %current)
  br label %done
done:
  call void %restore(ptr %thread)
  %worked = icmp eq i32 %result, 0
  ret i1 %worked
}}

define internal ptr @succeed(ptr %data) alwaysinline {{
{read("none", "none")}
{read("incref", "incref")}
  call void %incref(ptr %none)
  ret ptr %none
}}

define ptr @aa_gpu_prepared(ptr %self, ptr %unused) {{
  %data = call ptr @data(ptr %self)
{read_half("grid_xy", 0, "gx")}
{read_half("grid_xy", 1, "gy")}
{read_half("grid_z_block_x", 0, "gz")}
{read_half("grid_z_block_x", 1, "bx")}
{read_half("block_yz", 0, "by")}
{read_half("block_yz", 1, "bz")}
{read_half("shared", 0, "shared")}
{read("stream", "stream")}
{read("parameters", "parameters")}
  %worked = call i1 @fire(ptr %data, i32 %gx, i32 %gy, i32 %gz, i32 %bx, i32 %by, i32 %bz,
                          i32 %shared, ptr %stream, ptr %parameters)
  br i1 %worked, label %good, label %bad
good:
  %none = call ptr @succeed(ptr %data)
  ret ptr %none
bad:
{read("slow", "slow")}
{read("vectorcall", "vectorcall")}
  %said = call ptr %vectorcall(ptr %slow, ptr null, i64 0, ptr null)
  ret ptr %said
}}

; An exact int as 64 bits; whether it was one.
define internal i1 @integer(ptr %data, ptr %object, ptr %out) {{
  %overflow = alloca i32
{read("int_type", "int_type")}
  %type = call ptr @type_of(ptr %object)
  %exact = icmp eq ptr %type, %int_type
  br i1 %exact, label %convert, label %other
other:
  ret i1 false
convert:
{read("as_integer", "as_integer")}
  %value = call i64 %as_integer(ptr %object, ptr %overflow)
  store i64 %value, ptr %out
  %over = load i32, ptr %overflow
  %fits = icmp eq i32 %over, 0
  ret i1 %fits
}}

; The entry of a NumPy scalar's type; null for other objects.
define internal ptr @scalar(ptr %data, ptr %object) {{
entry:
{read("scalars", "scalars")}
  %type = call ptr @type_of(ptr %object)
  br label %next
next:
  %at = phi ptr [ %scalars, %entry ], [ %after, %another ]
  %known = load ptr, ptr %at
  %same = icmp eq ptr %known, %type
  br i1 %same, label %found, label %different
different:
  %end = icmp eq ptr %known, null
  br i1 %end, label %none, label %another
another:
  %after = getelementptr i64, ptr %at, i64 {SCALAR_NUMBERS}
  br label %next
found:
  ret ptr %at
none:
  ret ptr null
}}

; An exact int, or a NumPy integer, as 64 bits.
define internal i1 @whole(ptr %data, ptr %object, ptr %out) {{
{read("int_type", "int_type")}
  %type = call ptr @type_of(ptr %object)
  %exact = icmp eq ptr %type, %int_type
  br i1 %exact, label %convert, label %look
convert:
  %fits = call i1 @integer(ptr %data, ptr %object, ptr %out)
  ret i1 %fits
look:
  %entry = call ptr @scalar(ptr %data, ptr %object)
  %absent = icmp eq ptr %entry, null
  br i1 %absent, label %other, label %found
found:
  %kind.at = getelementptr i64, ptr %entry, i64 1
  %kind = load i64, ptr %kind.at
  %nbytes.at = getelementptr i64, ptr %entry, i64 2
  %nbytes = load i64, ptr %nbytes.at
  %at = getelementptr i8, ptr %object, i64 {SCALAR_OFFSET}
  %real = icmp eq i64 %kind, {REAL}
  br i1 %real, label %other, label %sized
sized:
  %signed = icmp eq i64 %kind, {SIGNED}
  switch i64 %nbytes, label %eight [
    i64 1, label %one
    i64 2, label %two
    i64 4, label %four
  ]
one:
  %value1 = load i8, ptr %at
  %wide1 = sext i8 %value1 to i64
  %zero1 = zext i8 %value1 to i64
  %result1 = select i1 %signed, i64 %wide1, i64 %zero1
  store i64 %result1, ptr %out
  ret i1 true
two:
  %value2 = load i16, ptr %at
  %wide2 = sext i16 %value2 to i64
  %zero2 = zext i16 %value2 to i64
  %result2 = select i1 %signed, i64 %wide2, i64 %zero2
  store i64 %result2, ptr %out
  ret i1 true
four:
  %value4 = load i32, ptr %at
  %wide4 = sext i32 %value4 to i64
  %zero4 = zext i32 %value4 to i64
  %result4 = select i1 %signed, i64 %wide4, i64 %zero4
  store i64 %result4, ptr %out
  ret i1 true
eight:
  %value8 = load i64, ptr %at
  store i64 %value8, ptr %out
  %positive = icmp sge i64 %value8, 0
  %as.is = or i1 %signed, %positive
  ret i1 %as.is
other:
  ret i1 false
}}

; An exact float or int, or a NumPy scalar, as a double; an int only if it is exact.
define internal i1 @real(ptr %data, ptr %object, ptr %out) {{
  %value.at = alloca i64
{read("float_type", "float_type")}
  %type = call ptr @type_of(ptr %object)
  %exact = icmp eq ptr %type, %float_type
  br i1 %exact, label %convert, label %look
convert:
{read("as_real", "as_real")}
  %number = call double %as_real(ptr %object)
  store double %number, ptr %out
  ret i1 true
look:
  %whole = call i1 @whole(ptr %data, ptr %object, ptr %value.at)
  br i1 %whole, label %integral, label %scalar
integral:
  %value = load i64, ptr %value.at
  %shifted = add i64 %value, 9007199254740992
  %small = icmp ule i64 %shifted, 18014398509481984
  %floating = sitofp i64 %value to double
  store double %floating, ptr %out
  ret i1 %small
scalar:
  %entry = call ptr @scalar(ptr %data, ptr %object)
  %absent = icmp eq ptr %entry, null
  br i1 %absent, label %other, label %found
found:
  %kind.at = getelementptr i64, ptr %entry, i64 1
  %kind = load i64, ptr %kind.at
  %nbytes.at = getelementptr i64, ptr %entry, i64 2
  %nbytes = load i64, ptr %nbytes.at
  %at = getelementptr i8, ptr %object, i64 {SCALAR_OFFSET}
  %real = icmp eq i64 %kind, {REAL}
  br i1 %real, label %sized, label %other
sized:
  %is.single = icmp eq i64 %nbytes, 4
  br i1 %is.single, label %single, label %double
single:
  %value4 = load float, ptr %at
  %wide4 = fpext float %value4 to double
  store double %wide4, ptr %out
  ret i1 true
double:
  %value8 = load double, ptr %at
  store double %value8, ptr %out
  ret i1 true
other:
  ret i1 false
}}

; An exact int from 1 to 2^31-1 as 32 bits.
define internal i1 @extent(ptr %data, ptr %object, ptr %out) {{
  %value.at = alloca i64
  %whole = call i1 @integer(ptr %data, ptr %object, ptr %value.at)
  br i1 %whole, label %check, label %other
other:
  ret i1 false
check:
  %value = load i64, ptr %value.at
  %short = trunc i64 %value to i32
  store i32 %short, ptr %out
  %less = sub i64 %value, 1
  %fits = icmp ult i64 %less, 2147483647
  ret i1 %fits
}}

; A grid or a block: an int, or an exact tuple of up to three.
define internal i1 @extents(ptr %data, ptr %object, ptr %out) {{
entry:
  %second = getelementptr i32, ptr %out, i64 1
  %third = getelementptr i32, ptr %out, i64 2
  store i32 1, ptr %second
  store i32 1, ptr %third
{read("tuple_type", "tuple_type")}
  %type = call ptr @type_of(ptr %object)
  %tuple = icmp eq ptr %type, %tuple_type
  br i1 %tuple, label %several, label %one
one:
  %single = call i1 @extent(ptr %data, ptr %object, ptr %out)
  ret i1 %single
several:
{read("tuple_size", "tuple_size")}
{read("tuple_item", "tuple_item")}
  %count = call i64 %tuple_size(ptr %object)
  %less = sub i64 %count, 1
  %sized = icmp ult i64 %less, 3
  br i1 %sized, label %next, label %other
next:
  %number = phi i64 [ 0, %several ], [ %after, %good ]
  %item = call ptr %tuple_item(ptr %object, i64 %number)
  %place = getelementptr i32, ptr %out, i64 %number
  %fits = call i1 @extent(ptr %data, ptr %item, ptr %place)
  br i1 %fits, label %good, label %other
good:
  %after = add i64 %number, 1
  %done = icmp eq i64 %after, %count
  br i1 %done, label %all, label %next
all:
  ret i1 true
other:
  ret i1 false
}}

; An attribute that holds an exact int, of an object whose `_driver` is ours.
define internal i1 @ours(ptr %data, ptr %object, ptr %name, ptr %out) {{
{read("get_attribute", "get_attribute")}
{read("decref", "decref")}
{read("driver_name", "driver_name")}
{read("driver", "driver")}
  %owner = call ptr %get_attribute(ptr %object, ptr %driver_name)
  %absent = icmp eq ptr %owner, null
  br i1 %absent, label %failed, label %owned
owned:
  call void %decref(ptr %owner)
  %same = icmp eq ptr %owner, %driver
  br i1 %same, label %look, label %other
look:
  %value = call ptr %get_attribute(ptr %object, ptr %name)
  %missing = icmp eq ptr %value, null
  br i1 %missing, label %failed, label %found
found:
  %fits = call i1 @integer(ptr %data, ptr %value, ptr %out)
  call void %decref(ptr %value)
  ret i1 %fits
failed:
{read("clear_error", "clear_error")}
  call void %clear_error()
  br label %other
other:
  ret i1 false
}}

; One argument, converted and stored as its parameter.
define internal i1 @argument(ptr %data, ptr %object, ptr %kind.at, ptr %block) {{
entry:
  %value.at = alloca i64
  %kind = load i64, ptr %kind.at
  %offset.at = getelementptr i64, ptr %kind.at, i64 1
  %offset = load i64, ptr %offset.at
  %nbytes.at = getelementptr i64, ptr %kind.at, i64 2
  %nbytes = load i64, ptr %nbytes.at
  %place = getelementptr i8, ptr %block, i64 %offset
  %type = call ptr @type_of(ptr %object)
  switch i64 %kind, label %other [
    i64 {INTEGER}, label %small
    i64 {FLOAT}, label %real
    i64 {DOUBLE}, label %real
    i64 {WORD}, label %word
    i64 {POINTER}, label %pointer
    i64 {RAW}, label %raw
  ]
small:
  %whole = call i1 @whole(ptr %data, ptr %object, ptr %value.at)
  br i1 %whole, label %range, label %other
range:
  %value = load i64, ptr %value.at
  %size = shl i64 %nbytes, 3
  %range.size = shl i64 1, %size
  %half = lshr i64 %range.size, 1
  %shifted = add i64 %value, %half
  %spread = add i64 %range.size, %half
  %fits = icmp ult i64 %shifted, %spread
  br i1 %fits, label %store, label %other
store:
  switch i64 %nbytes, label %store4 [
    i64 1, label %store1
    i64 2, label %store2
  ]
store1:
  %value1 = trunc i64 %value to i8
  store i8 %value1, ptr %place
  ret i1 true
store2:
  %value2 = trunc i64 %value to i16
  store i16 %value2, ptr %place
  ret i1 true
store4:
  %value4 = trunc i64 %value to i32
  store i32 %value4, ptr %place
  ret i1 true
word:
  %integral = call i1 @whole(ptr %data, ptr %object, ptr %place)
  br i1 %integral, label %stored, label %pointer
pointer:
{read("buffer_type", "buffer_type")}
{read("array_type", "array_type")}
{read("pointer_name", "pointer_name")}
  %is.buffer = icmp eq ptr %type, %buffer_type
  %is.array = icmp eq ptr %type, %array_type
  %is.either = or i1 %is.buffer, %is.array
  br i1 %is.either, label %take, label %maybe.raw
take:
  %taken = call i1 @ours(ptr %data, ptr %object, ptr %pointer_name, ptr %place)
  ret i1 %taken
maybe.raw:
  %may.be.raw = icmp eq i64 %kind, {POINTER}
  br i1 %may.be.raw, label %raw, label %other
raw:
  ; The bits of a NumPy scalar of just that size.
  %raw.entry = call ptr @scalar(ptr %data, ptr %object)
  %no.scalar = icmp eq ptr %raw.entry, null
  br i1 %no.scalar, label %other, label %raw.size
raw.size:
  %raw.nbytes.at = getelementptr i64, ptr %raw.entry, i64 2
  %raw.nbytes = load i64, ptr %raw.nbytes.at
  %raw.fits = icmp eq i64 %raw.nbytes, %nbytes
  br i1 %raw.fits, label %raw.take, label %other
raw.take:
  %raw.at = getelementptr i8, ptr %object, i64 {SCALAR_OFFSET}
  switch i64 %nbytes, label %raw8 [
    i64 1, label %raw1
    i64 2, label %raw2
    i64 4, label %raw4
  ]
raw1:
  %bits1 = load i8, ptr %raw.at
  store i8 %bits1, ptr %place
  ret i1 true
raw2:
  %bits2 = load i16, ptr %raw.at
  store i16 %bits2, ptr %place
  ret i1 true
raw4:
  %bits4 = load i32, ptr %raw.at
  store i32 %bits4, ptr %place
  ret i1 true
raw8:
  %bits8 = load i64, ptr %raw.at
  store i64 %bits8, ptr %place
  ret i1 true
real:
  %is.real = call i1 @real(ptr %data, ptr %object, ptr %value.at)
  br i1 %is.real, label %convert, label %other
convert:
  %number = load double, ptr %value.at
  %is.double = icmp eq i64 %kind, {DOUBLE}
  br i1 %is.double, label %store.double, label %shorten
store.double:
  store double %number, ptr %place
  ret i1 true
shorten:
  ; What becomes infinite by it is an error, which Python words.
  %single = fptrunc double %number to float
  %magnitude = call float @llvm.fabs.f32(float %single)
  %infinite = fcmp oeq float %magnitude, 0x7FF0000000000000
  br i1 %infinite, label %other, label %store.single
store.single:
  store float %single, ptr %place
  ret i1 true
stored:
  ret i1 true
other:
  ret i1 false
}}

declare float @llvm.fabs.f32(float)

; A keyword argument: shared_memory or stream.
define internal i1 @keyword(ptr %data, ptr %name, ptr %value, ptr %shared, ptr %stream) {{
  %number = alloca i64
{read("stream_name", "stream_name")}
  %is.stream = icmp eq ptr %name, %stream_name
  br i1 %is.stream, label %a.stream, label %maybe
a.stream:
{read("none", "none")}
  %is.none = icmp eq ptr %value, %none
  br i1 %is.none, label %good, label %look
look:
{read("stream_type", "stream_type")}
{read("handle_name", "handle_name")}
  %type = call ptr @type_of(ptr %value)
  %exact = icmp eq ptr %type, %stream_type
  br i1 %exact, label %take, label %other
take:
  %taken = call i1 @ours(ptr %data, ptr %value, ptr %handle_name, ptr %stream)
  ret i1 %taken
maybe:
{read("shared_name", "shared_name")}
  %is.shared = icmp eq ptr %name, %shared_name
  br i1 %is.shared, label %a.size, label %other
a.size:
  %whole = call i1 @integer(ptr %data, ptr %value, ptr %number)
  br i1 %whole, label %check, label %other
check:
  %nbytes = load i64, ptr %number
  %short = trunc i64 %nbytes to i32
  store i32 %short, ptr %shared
  %fits = icmp ult i64 %nbytes, 2147483648
  ret i1 %fits
good:
  ret i1 true
other:
  ret i1 false
}}

define ptr @aa_gpu_launch(ptr %self, ptr %args, i64 %given, ptr %names) {{
entry:
  %grid = alloca [3 x i32]
  %block = alloca [3 x i32]
  %shared.at = alloca i32
  %stream.at = alloca ptr
  %values = alloca [{MAX_NBYTES} x i8], align 16
  %pointers = alloca [{MAX_PARAMETERS} x ptr]
  %data = call ptr @data(ptr %self)
  store i32 0, ptr %shared.at
  store ptr null, ptr %stream.at
{read("count", "count", "i64")}
{read("kinds", "kinds")}
  %wanted = add i64 %count, 2
  %complete = icmp eq i64 %given, %wanted
  br i1 %complete, label %take.grid, label %bail
take.grid:
  %grid.object = load ptr, ptr %args
  %grid.good = call i1 @extents(ptr %data, ptr %grid.object, ptr %grid)
  br i1 %grid.good, label %take.block, label %bail
take.block:
  %block.place = getelementptr ptr, ptr %args, i64 1
  %block.object = load ptr, ptr %block.place
  %block.good = call i1 @extents(ptr %data, ptr %block.object, ptr %block)
  br i1 %block.good, label %arguments, label %bail
arguments:
  %number = phi i64 [ 0, %take.block ], [ %after, %argument.good ]
  %last = icmp eq i64 %number, %count
  br i1 %last, label %keywords, label %argument
argument:
  %index = add i64 %number, 2
  %object.place = getelementptr ptr, ptr %args, i64 %index
  %object = load ptr, ptr %object.place
  %kind.index = mul i64 %number, {KIND_NUMBERS}
  %kind.at = getelementptr i64, ptr %kinds, i64 %kind.index
  %offset.at = getelementptr i64, ptr %kind.at, i64 1
  %offset = load i64, ptr %offset.at
  %value.place = getelementptr i8, ptr %values, i64 %offset
  %pointer.place = getelementptr ptr, ptr %pointers, i64 %number
  store ptr %value.place, ptr %pointer.place
  %converted = call i1 @argument(ptr %data, ptr %object, ptr %kind.at, ptr %values)
  br i1 %converted, label %argument.good, label %bail
argument.good:
  %after = add i64 %number, 1
  br label %arguments
keywords:
  %no.names = icmp eq ptr %names, null
  br i1 %no.names, label %go, label %named
named:
{read("tuple_size", "tuple_size")}
{read("tuple_item", "tuple_item")}
  %name.count = call i64 %tuple_size(ptr %names)
  br label %next.name
next.name:
  %name.number = phi i64 [ 0, %named ], [ %name.after, %name.good ]
  %name.last = icmp eq i64 %name.number, %name.count
  br i1 %name.last, label %go, label %a.name
a.name:
  %name = call ptr %tuple_item(ptr %names, i64 %name.number)
  %value.index = add i64 %given, %name.number
  %keyword.place = getelementptr ptr, ptr %args, i64 %value.index
  %keyword.value = load ptr, ptr %keyword.place
  %known = call i1 @keyword(ptr %data, ptr %name, ptr %keyword.value, ptr %shared.at,
                            ptr %stream.at)
  br i1 %known, label %name.good, label %bail
name.good:
  %name.after = add i64 %name.number, 1
  br label %next.name
go:
  %gx = load i32, ptr %grid
  %gy.at = getelementptr i32, ptr %grid, i64 1
  %gy = load i32, ptr %gy.at
  %gz.at = getelementptr i32, ptr %grid, i64 2
  %gz = load i32, ptr %gz.at
  %bx = load i32, ptr %block
  %by.at = getelementptr i32, ptr %block, i64 1
  %by = load i32, ptr %by.at
  %bz.at = getelementptr i32, ptr %block, i64 2
  %bz = load i32, ptr %bz.at
  %shared = load i32, ptr %shared.at
  %stream = load ptr, ptr %stream.at
  %worked = call i1 @fire(ptr %data, i32 %gx, i32 %gy, i32 %gz, i32 %bx, i32 %by, i32 %bz,
                          i32 %shared, ptr %stream, ptr %pointers)
  br i1 %worked, label %good, label %bail
good:
  %none = call ptr @succeed(ptr %data)
  ret ptr %none
bail:
{read("slow", "slow")}
{read("vectorcall", "vectorcall")}
  %said = call ptr %vectorcall(ptr %slow, ptr %args, i64 %given, ptr %names)
  ret ptr %said
}}

define ptr @aa_gpu_call(ptr %self, ptr %args, i64 %given) {{
entry:
  %values = alloca [{MAX_CALL} x i64]
  %current = alloca ptr
  %data = call ptr @data(ptr %self)
{read("count", "count", "i64")}
  %complete = icmp eq i64 %given, %count
  br i1 %complete, label %next, label %bail
next:
  %number = phi i64 [ 0, %entry ], [ %after, %good ]
  %last = icmp eq i64 %number, %count
  br i1 %last, label %go, label %argument
argument:
  %object.place = getelementptr ptr, ptr %args, i64 %number
  %object = load ptr, ptr %object.place
  %place = getelementptr i64, ptr %values, i64 %number
  %fits = call i1 @integer(ptr %data, ptr %object, ptr %place)
  br i1 %fits, label %good, label %bail
good:
  %after = add i64 %number, 1
  br label %next
go:
{read("save_thread", "save")}
{read("restore_thread", "restore")}
{read("get_current", "get")}
{read("push_current", "push")}
{read("pop_current", "pop")}
{read("context", "context")}
{read("launch", "function")}
{values}
  %thread = call ptr %save()
  store ptr null, ptr %current
  %got = call i32 %get(ptr %current)
  %found = load ptr, ptr %current
  %same = icmp eq ptr %found, %context
  br i1 %same, label %ready, label %switch
switch:
  %pushed = call i32 %push(ptr %context)
  br label %ready
ready:
  %result = call i32 %function({passed})
  br i1 %same, label %done, label %back
back:
  %popped = call i32 %pop(ptr %current)
  br label %done
done:
  call void %restore(ptr %thread)
{read("from_integer", "from_integer")}
  %wide = sext i32 %result to i64
  %made = call ptr %from_integer(i64 %wide)
  ret ptr %made
bail:
{read("slow", "slow")}
{read("vectorcall", "vectorcall")}
  %said = call ptr %vectorcall(ptr %slow, ptr %args, i64 %given, ptr null)
  ret ptr %said
}}
"""
