"""Sequences that the interpreter runs as one handler: what measured as most frequent.

A line is a sequence of forms; those with equal handlers stand for each other (``c_add`` is ``add``)
and every prefix becomes a handler too. ``@mask`` after a form says which of the registers that it
reads, by bit, is the one that the form before it has written. The list comes from sampling the
benchmarks and busybox (docs/decisions/0002-interpreter.md); it changes speed, never meaning.
"""

from __future__ import annotations

from typing import Final

_SEQUENCES: Final = """
add add sb bltu
add add@1 lbu@1 bne@1
add addi bne sd
add andi@1 c_beqz@1 addi
add bne xor lui
add c_ldsp c_ldsp c_ldsp
add lbu@1 addi c_bnez
add lbu@1 bne@1 lbu
add ld@1 c_mv c_jalr
add lhu@1 bgeu@1 addiw
add lw@1 addi addi
add lw@1 c_jr@1
add sb bltu c_j
add sd addi add
add sltu@1 add sd
add sltu@1 add sltu@1
addi add addi bne
addi add bne xor
addi addi blt addi
addi addi fmul_d_rm7 fadd_d_rm7@2
addi blt addi bge@1
addi blt addi slli
addi bltu slli add@1
addi bne fmul_s_rm7 fmul_s_rm7
addi bne sd addi
addi bne slli addi
addi c_bnez addi c_ldsp
addi c_mv lw@1 addi
addi c_sdsp c_sdsp c_addi4spn
addi fadd_d_rm7 fsgnj_d bne
addi fmul_d_rm7 fadd_d_rm7@2 addi
addi fmul_s_rm7 fadd_s_rm7@2 addi
addi sd@2 c_j
addi xor mul@1 bne
addiw bne@1 c_mv bgeu
addiw c_beqz@1 ld xor@1
addiw fadd_d_rm7 fmul_d_rm7 addi
and slli@1 add@1 lhu@1
andi c_beqz@1 addi sd@2
andi slli@1 add@1 ld@1
auipc jalr@1
bgeu addiw bne@1 c_mv
blt addi bge@1 sw
blt addi slli add@2
bltu add c_ldsp c_ldsp
bltu c_j
bltu slli add@1 lw@1
bne addiw bne@1 c_j
bne c_j
bne c_mv bgeu c_mv
bne fmul_s_rm7 fmul_s_rm7 fmul_s_rm7
bne lbu bne@1 lbu
bne sd addi addi
bne slli addi add
bne xor lui addi@1
c_addi16sp c_jr
c_addi16sp c_sdsp c_sdsp c_sdsp
c_addi4spn c_li c_mv c_li
c_beqz addi sd@2 c_j
c_beqz fsub_d_rm7 fadd_d_rm7 addiw
c_beqz ld xor@1 add@2
c_bnez addi c_ldsp c_ldsp
c_ldsp addi c_jr
c_ldsp c_addi16sp c_jr
c_ldsp c_ldsp addi c_jr
c_ldsp c_ldsp c_addi16sp c_jr
c_ldsp c_ldsp c_ldsp c_addi16sp
c_ldsp c_ldsp c_ldsp c_ldsp
c_li bltu c_li addi
c_li c_mv c_li bltu
c_mv c_li bltu c_li
c_mv c_mv c_mv c_mv
c_mv lw@1 addi bltu
c_sdsp c_addi4spn c_li c_mv
c_sdsp c_sdsp c_addi4spn c_li
c_sdsp c_sdsp c_sdsp c_addi4spn
c_sdsp c_sdsp c_sdsp c_sdsp
fadd_d_rm7 addi bne slli
fadd_d_rm7 addiw fadd_d_rm7 fmul_d_rm7
fadd_d_rm7 flt_d@1 c_beqz@1 fsub_d_rm7
fadd_d_rm7 fmul_d_rm7 addi fadd_d_rm7
fadd_d_rm7 fsgnj_d bne c_j
fadd_d_rm7 sd@2 ld fmul_d_rm7
fadd_s_rm7 addi bne fmul_s_rm7
flt_d c_beqz@1 fsub_d_rm7 fadd_d_rm7
flw addi fmul_s_rm7 fadd_s_rm7@2
flw flw addi fmul_s_rm7
fmul_d_rm7 addi fadd_d_rm7 fsgnj_d
fmul_d_rm7 fadd_d_rm7@2 addi bne
fmul_d_rm7 fadd_d_rm7@2 flt_d@1 c_beqz@1
fmul_d_rm7 fadd_d_rm7@2 sd@2 ld
fmul_d_rm7 fmul_d_rm7 fadd_d_rm7@2 flt_d@1
fmul_d_rm7 fmul_d_rm7@2 fadd_d_rm7@2 sd@2
fmul_d_rm7 fmul_d_rm7@2 fsub_d_rm7@2 sd@2
fmul_d_rm7 fsub_d_rm7@2 sd@2 ld
fmul_s_rm7 fadd_s_rm7@2 addi bne
fsgnj_d bne c_j
fsub_d_rm7 fadd_d_rm7 addiw fadd_d_rm7
fsub_d_rm7 sd@2 ld fmul_d_rm7
lbu addi c_bnez addi
lbu addi xor mul@1
lbu bne@1 lbu bne@1
lbu lbu
ld addi addi fmul_d_rm7
ld addiw c_beqz@1 ld
ld fmul_d_rm7 fmul_d_rm7@2 fadd_d_rm7@2
ld fmul_d_rm7 fmul_d_rm7@2 fsub_d_rm7@2
ld ld addi addi
ld ld ld
ld ld mulhu mul
ld mulhu mul add
ld xor@1 add@2 andi@1
lhu bgeu@1 addiw bne@1
lw addi addi blt
lw addi bltu slli
mul add sltu@1 add
mul addi add bne
mul bne addiw bne@1
mulhu mul add sltu@1
sb bltu c_j
sb sb sb sb
sd addi add addi
sd c_j
sd ld fmul_d_rm7 fmul_d_rm7@2
sd sd sd sd
slli add@1 ld@1 c_mv
slli add@1 lhu@1 bgeu@1
slli add@1 lw@1 c_jr@1
slli srli@1
sltu add sd addi
sltu add sltu@1 add
srli xor@1 andi@1 slli@1
srliw or slli or
xor add@2 andi@1 c_beqz@1
xor andi@1 slli@1 add@1
xor mul@1 bne addiw
"""

FUSED: Final = tuple(tuple(line.split()) for line in _SEQUENCES.split("\n") if line)
