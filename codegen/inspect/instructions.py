"""What an instruction does, by its mnemonic: one table for each machine.

A table names the kinds of the instructions that the compiler is known to emit. What no pattern
matches is of unknown kind, so a table is an allow-list: the kinds in REFUSED, unknown among them,
are no part of a network without multiplications, and all others are.

Mnemonics are spelled as LLVM and capstone print them, for x86-64 in AT&T syntax. There data is
computed in vector registers, scalars included; integers in general registers are addresses and
loop counters, so their arithmetic is listed apart. (Integer tensors may be computed there too.)
The other machines use the same mnemonics for both. WebAssembly's are those of its specification.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

ADD, LOGIC, SHIFT, MOVE = "add/sub", "min/max/logic", "shift", "move"
MULTIPLY, FMA, DOT, DIVIDE = "multiply", "fma", "dot product", "divide/sqrt"
CONVERT, CONTROL, UNKNOWN = "convert", "control", "unknown"
ADDRESS, ADDRESS_MULTIPLY = "address", "address mul/div"
SHORT = {  # heads of narrow columns, where a kind is not called so
    ADD: "add", LOGIC: "logic", CONVERT: "conv", MULTIPLY: "mul", DOT: "dot", DIVIDE: "div",
    CONTROL: "jump", ADDRESS: "addr", ADDRESS_MULTIPLY: "amul", UNKNOWN: "?",
}  # fmt: skip
KINDS = (
    ADD, LOGIC, SHIFT, CONVERT, MULTIPLY, FMA, DOT, DIVIDE, MOVE, CONTROL, ADDRESS,
    ADDRESS_MULTIPLY, UNKNOWN,
)  # fmt: skip
PRODUCTS = (MULTIPLY, FMA, DOT, DIVIDE)
REFUSED = (*PRODUCTS, ADDRESS_MULTIPLY, UNKNOWN)

# Patterns in order: the first that matches all of a mnemonic gives its kind; blanks do not count.
_Table = tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)  # there is one of each
class Machine:
    """One instruction set.

    comment  what starts a comment in LLVM's assembly text
    stays    mnemonics of control after which the next instruction follows, or none at all

    Patterns of "mnemonic operands", for `flow.py`:

    writes   what goes elsewhere and is no control by its mnemonic
    direct   what goes to a place that stands in the instruction, group 1
    returns  what goes back to the caller
    ends     what the next instruction does not follow, but for returns
    links    what sets the place that a return goes to; a group where that comes from no call
    saves    what saves that place and may return to it, by groups: 1 saves it, 2 saves other
             registers, 3 reads it back
    """

    name: str
    table: _Table
    comment: str
    stays: str
    direct: str
    returns: str
    ends: str
    links: str
    writes: str = ""
    saves: str = ""

    def kind_of(self, mnemonic: str) -> str:
        """The kind of an instruction; prefixes, as in `lock xaddq`, and operands do not count."""
        return _kind(self, _word(mnemonic))

    def moves_control(self, mnemonic: str, operands: str) -> bool:
        """Whether an instruction may go elsewhere than to the next one."""
        if self.kind_of(mnemonic) == CONTROL:
            return not _stay(self, _word(mnemonic))
        return bool(self.writes and re.fullmatch(self.writes, f"{mnemonic} {operands}"))


# Control that stays: waits, fences, traps and what else only a system does. All other control goes
# somewhere.
_X86_STAYS = (
    r"pause | nop[lqw]? | vzeroupper | ud2 | [mls]fence | int3 | endbr64 | hlt | cli | sti"
    r" | cpuid | xgetbv"
)
_AARCH64_STAYS = (
    r"nop | hint | yield | bti | brk | udf | svc | hvc | smc | hlt | dmb | dsb | isb | sb | clrex"
    r" | paciasp | autiasp | wf[ei] | sevl? | csdb | mrs | msr | tlbi | at"
)
_THUMB_STAYS = (
    r"nop | yield | wf[ei] | sev | udf | bkpt | svc | dmb | dsb | isb | cps(id|ie)? | mrs | msr"
)
_RISCV_STAYS = (
    r"C nop | C ebreak | ecall | C unimp | fence(\.i|\.tso)? | pause | wfi | sfence\.vma | f?csr\w+"
)
# F stands for the four float suffixes, B for integer sizes, V for the optional v of three-operand
# forms.
_X86: _Table = (
    (FMA, r"V fn?m(add|sub|addsub|subadd)(132|213|231)?F"),
    (DOT, r"V dpp[sd] | vpdp\w+ | V pmadd\w+ | vdpbf16ps"),
    (MULTIPLY, r"V mulF | V pmul\w+ | vgetmant\w+ | vscalef\w+"),
    (DIVIDE, r"V (div|sqrt|rcp|rsqrt)(14|28)?F"),
    (CONVERT, r"V cvt\w+ | V round\w+ | vrndscale\w+ | V pack[us]s\w+ | V pmov[sz]x\w+"),
    (CONVERT, r"vpmov(us|s)?[wdq][bwd]"),
    (ADD, r"V (add|sub|addsub|hadd|hsub)F | V ph?(add|sub)u?s?B | V psadbw | V pavg[bw]"),
    (ADD, r"vdbpsadbw"),
    (LOGIC, r"V (min|max)F | V cmp\w*F | V u?comi(ss|sd) | V (and|andn|or|xor)p[sd] | vrange\w+"),
    (LOGIC, r"V p(min|max)[us]B | V pcmp\w+ | V p(and|andn|or|xor)[dq]? | vpternlog[dq]"),
    (LOGIC, r"V pabsB | V psignB | V ptest | vptestn?mB | vtestp[sd] | vfpclass\w+"),
    (LOGIC, r"k(and|andn|or|xor|xnor|not|ortest|test)B"),
    (SHIFT, r"V ps(ll|rl|ra)v?[wdq] | vpro[lr]v?[dq] | kshift[lr]B"),
    (MOVE, r"V movabs[lq]? | V mov\w* | V lddqu | V(p?broadcast|(p|mask)mov|pmaskmov|p?gather)\w+"),
    (MOVE, r"V (p?shuf|p?unpck|p?insert|pinsr|p?extract|pextr|p?blend|palign|ps[lr]ldq)\w*"),
    (MOVE, r"v(perm|align|p?expand|p?compress|p?scatter)\w*"),
    (MOVE, r"kmovB | kunpck\w+ | push[lq]? | pop[lq]? | xchgB | cltq | cqto | cltd | bswap[lq]"),
    (MOVE, r"prefetch\w+"),
    (CONTROL, r"j\w+ | callq? | retq?"),
    (CONTROL, _X86_STAYS),
    (ADDRESS_MULTIPLY, r"i?mulB | mulx[lq] | i?divB"),
    (ADDRESS, r"leaB | (add|sub|adc|sbb|and|or|xor|andn|cmp|test|inc|dec|neg|not)B"),
    (ADDRESS, r"(sh[lr]d?|sa[lr]|ro[lr])B | (shlx|shrx|sarx|rorx)[lq] | cmov\w+ | set\w+"),
    (ADDRESS, r"bt[src]?B? | bextr[lq] | bzhi[lq] | bls\w+ | (tz|lz|pop)cnt\w? | bs[fr]B | xaddB"),
)  # fmt: skip
_X86_LETTERS = {"V": "v?", "F": "(ps|pd|ss|sd)", "B": "[bwlqd]"}
_PREFIXES = frozenset({"lock", "rep", "repz", "repne", "notrack", "data16", "{vex}", "{evex}"})

_AARCH64: _Table = (
    (FMA, r"f?n?m(add|sub) | [us]m(add|sub)l | f?ml[as] | [us]ml[as]l2? | fml[as]l2?"),
    (FMA, r"fn?m(add|sub) | sqdml[as]l2? | sqrdml[as]h | fcmla"),
    (DOT, r"[us]dot | [us]{2}dot | [us]mmla | usmmla | bf(dot|mmla|mlal[bt]?)"),
    (MULTIPLY, r"mul | mneg | [us]mull2? | [us]mulh | [us]mnegl | f?n?mul | fmulx | pmull?2?"),
    (MULTIPLY, r"fn?mul | sqr?dmulh | sqdmull2?"),
    (DIVIDE, r"[us]div | fdiv | fsqrt | [uf]recp[exs] | [uf]rsqrt[es]"),
    (CONVERT, r"[us]cvtf | fcvt\w* | frint\w+ | xtn2? | [us]qxtn2? | sqxtun2? | [us]xtl2?"),
    (CONVERT, r"[us]xt[bhw]"),
    (ADD, r"(add|sub|adc|sbc|neg|ngc)s? | addp | addv | cmp | cmn | ccm[pn] | f?abs | fneg"),
    (ADD, r"fadd | fsub | faddp | fabd | [us]aba(l2?)? | [us]abd(l2?)? | [us](add|sub)[lw]2?"),
    (ADD, r"[us]addlv | [us]addlp | [us]adalp | [us]q(add|sub) | [us]r?hadd | [us]hsub"),
    (ADD, r"r?(add|sub)hn2? | sq(neg|abs) | suqadd | usqadd | adrp?"),
    (LOGIC, r"(and|bic)s? | orr | orn | eor | eon | mvn | not | tst | bsl | bi[tf] | cmtst"),
    (LOGIC, r"[us](min|max)[pv]? | f(min|max)(nm)?[pv]? | cm(eq|ge|gt|hi|hs|le|lt)"),
    (LOGIC, r"fcm(eq|ge|gt|le|lt) | fac(ge|gt) | fc?cmpe? | cl[zs] | cnt | rbit"),
    (LOGIC, r"csel | csinc | csinv | csneg | cset | csetm | cinc | cinv | cneg | fcsel"),
    (SHIFT, r"lsl | lsr | asr | ror | [us]shl | [us]r?shl | [us]r?shr | [us]r?sra | shl"),
    (SHIFT, r"r?shrn2? | shll2? | [us]shll2? | [us]qr?shl | [us]qr?shrn2? | sqr?shrun2?"),
    (SHIFT, r"sqshlu | s[lr]i | extr | [us]?bf(m|x|i|iz|xil|c) | [us]bf(x|iz|m)"),
    (MOVE, r"movi? | mov[zkn] | mvni | fmov | dup | ins | [us]mov | ext | tb[lx] | rev(16|32|64)?"),
    (MOVE, r"zip[12] | uzp[12] | trn[12] | ld[1-4]r? | st[1-4] | ld[nt]?p(sw)? | st[nt]?p"),
    (MOVE, r"ld[ut]?r(b|h|sb|sh|sw)? | st[ut]?r[bh]? | lda?x?r[bh]? | stl?r[bh]? | stl?xr[bh]?"),
    (MOVE, r"lda?p?r[bh]? | ldapu?rs?[bhw]? | stlu?r[bh]? | ldaxr[bh]? | prfu?m"),
    (MOVE, r"swp(a|l|al)?[bh]?"),
    (ADD, r"ldadd(a|l|al)?[bh]? | stadd(l)?[bh]?"),
    (CONTROL, r"b | b\.\w+ | bl | blr | br | e?ret | cbn?z | tbn?z"),
    (CONTROL, _AARCH64_STAYS),
)  # fmt: skip

# Armv6-M, and what Armv7E-M and Armv8-M with floats add. K stands for what may follow a mnemonic:
# that flags are set, a condition, the size of the encoding; C for the condition alone.
_THUMB: _Table = (
    (MULTIPLY, r"mulK | [us]mull\S* | [us]mmul\S* | sm[mu]\S+ | v\w*mul\S*"),
    (FMA, r"ml[as]K | [us]mlal\S* | sml\S+ | umaal\S* | vml[as]\S* | vfn?m[as]\S* | vnml[as]\S*"),
    (DIVIDE, r"[us]divK | vdiv\S* | vsqrt\S*"),
    (ADD, r"(add|sub|adc|sbc|rsb|neg|cmp|cmn|adr)K | (add|sub)wC | q(add|sub)C | usada?8C"),
    (ADD, r"[us]xta[bh]K | v(add|sub|abs|neg)C\.f32"),
    (LOGIC, r"(and|orr|eor|bic|mvn|tst|teq|orn)K | clzC | rbitC | [us]satC | it[te]{0,3}"),
    (LOGIC, r"vcmpe?C\.f32 | v(min|max)nm\.f32 | vsel(eq|ge|gt|vs)\.f32"),
    (SHIFT, r"(lsl|lsr|asr|ror|rrx)K | [us]bfxC | bf[ic]C"),
    (CONVERT, r"[us]xt(b|h|b16)K | vcvtr?C\.[su]32\.f32 | vcvtC\.f32\.[su]32"),
    (MOVE, r"mov[wt]?K | ldr(b|h|sb|sh|d)?K | str[bhd]?K | (ldm|stm)(ia|db)?K | (push|pop)K"),
    (MOVE, r"rev(16|sh)?K | pkh(bt|tb)C | vmovC(\.f32|\.32)? | v(ldr|str)C(\.32|\.64)? | vmrsC"),
    (MOVE, r"v(ldm|stm)(ia|db)C | v(push|pop)C"),
    (CONTROL, r"bC(\.[wn])? | blC | blxC | bxC | cbn?z | le | wls"),
    (CONTROL, _THUMB_STAYS),
    # Armv8.1-M: counts of loops, long shifts and choices; vectors of integers and floats. T stands
    # for what a vector instruction has where it is predicated.
    (MOVE, r"dls | vdupT\.\d+ | v(ldr|str)[bhwd]T\.[usf]?\d+ | vmsr | vpselT? | vrev\d+T\.\d+"),
    (MOVE, r"vmovT(\.[iusf]?\d+)? | v(q?movu?n|movl)[bt]?T\.[isu]\d+ | vld[24]\d"),
    (LOGIC, r"cs(el|inc|inv|neg|et|etm) | c(inc|inv|neg) | vcmpT\.[iusf]\d+ | vp(st|t|not)\w*"),
    (LOGIC, r"vpt\w*\.[iusf]\d+ | v(and|orr|eor|bic|orn|mvn)T(\.\w+)? | vctpT\.\d+"),
    (LOGIC, r"v(min|max)(nm)?(a|v|av)?T\.[usf]\d+ | vcl[sz]T\.\w+"),
    (ADD, r"v(add|sub|abs|neg|abd|qadd|qsub)T\.[iusf]\d+ | v(abav|addl?va?)T\.[us]\d+"),
    (SHIFT, r"v(shl|shr|shll[bt]|shrn[bt]|sli|sri)T\.[ius]?\d+ | lsll | asrl | lsrl"),
    # Armv7-A: Advanced SIMD, f64 and atomic loads and stores.
    (MOVE, r"v(ld|st)[1-4]\.\d+ | v(ext|trn|zip|uzp)\.\d+ | (ld|st)rexC | clrex"),
    (ADD, r"vp(addl|adal|add)\.[iusf]\d+ | vab[ad]l?\.[us]\d+ | v(add|sub)[lw]\.[us]\d+"),
    (ADD, r"v(add|sub|abs|neg)C\.f64"),
    (LOGIC, r"vb(it|if|sl) | vc(eq|ge|gt|le|lt)\.[iusf]\d+ | vcmpe?C\.f64 | vp(min|max)\.[usf]\d+"),
    (SHIFT, r"v[rs]?(sra|hrn)\.[ius]\d+"),
    (CONVERT, r"vcvtr?C\.([su]32\.f64|f64\.[su]32|f64\.f32|f32\.f64)"),
)  # fmt: skip
IF = "(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_THUMB_LETTERS = {"K": rf"s?{IF}(\.[wn])?", "C": IF, "T": "[te]?"}

# RV32I and RV64I with A, F and D; C stands for the prefix of compressed forms.
_RISCV_V: _Table = (  # the vector extension
    (MULTIPLY, r"v(f?w?|s)mul(h|hu|hsu|u|su)?\.\S+"),
    (FMA, r"vf?w?n?m(acc|sac|add|sub)(u|us|su)?\.\S+"),
    (DIVIDE, r"v(div|rem)u?\.\S+ | vfr?div\.\S+ | vf(sqrt|rsqrt7|rec7)\.\S+"),
    (ADD, r"v[wsa]?r?(add|sub)u?\.\S+ | vneg\.v | vf[rw]?(add|sub)\.\S+ | v(id|iota)\.\S+"),
    (ADD, r"v(adc|madc|sbc|msbc)\.\S+"),
    (LOGIC, r"vf?(min|max)u?\.\S+ | v(and|or|xor|not|merge|fmerge)\.\S+ | vm(s|f)\w+\.\S+"),
    (LOGIC, r"vm(and|or|xor|nand|nor|xnor|andn|orn|not|clr|set|mv)\.\S+ | v(cpop|first)\.m"),
    (LOGIC, r"vf(sgnj[nx]?|neg|abs|class)\.\S+"),
    (SHIFT, r"v(s|ns|ss)r[la]\.\S+ | vsll\.\S+"),
    (CONVERT, r"v[sz]ext\.\S+ | vf[nw]?cvt\.\S+ | vn?w?cvtu?\.\S+ | vnclipu?\.\S+"),
    (MOVE, r"v[ls](e|se|[ou]xei|seg\d\w*)\d*(ff)?\.v | v[ls][mr]\.v | v[ls]\d+r(e\d+)?\.v"),
    (MOVE, r"vf?mv\d?r?\.\S+ | vf?slide1?(up|down)\.\S+ | vrgather(ei16)?\.\S+ | vcompress\.vm"),
    (CONTROL, r"vsetv?i?vli?"),
)  # fmt: skip
_RISCV: _Table = (
    *_RISCV_V,
    (MULTIPLY, r"C mul(h|hu|hsu|w)? | fmul\.[sd]"),
    (FMA, r"fn?m(add|sub)\.[sd]"),
    (DIVIDE, r"(div|rem)u?w? | fdiv\.[sd] | fsqrt\.[sd]"),
    (ADD, r"C (add|sub|neg|addi)w? | C addi(16sp|4spn) | auipc | f(add|sub)\.[sd] | la | lla"),
    (LOGIC, r"C (and|or|xor|not)i? | slti?u? | seqz | snez | sltz | sgtz | f(min|max)\.[sd]"),
    (LOGIC, r"f(eq|lt|le|gt|ge)\.[sd] | fsgnj[nx]?\.[sd] | f(neg|abs)\.[sd] | fclass\.[sd]"),
    (SHIFT, r"C s(ll|rl|ra)i?w?"),
    (CONVERT, r"fcvt\.\S+ | sext\.[bhw] | zext\.[bhw]"),
    (MOVE, r"C (li|lui|mv) | C l[bhw]u? | C ld | C s[bhwd] | C f[ls][wd] | C [ls][wd]sp"),
    (MOVE, r"C f[ls][wd]sp | fmv\.\S+ | lr\.[wd]\S* | sc\.[wd]\S* | fs?[fr]\w*rm"),
    (MOVE, r"rd(cycle|time|instret)h?"),
    (ADD, r"amoadd\.[wd]\S*"),
    (LOGIC, r"amo(and|or|xor|minu?|maxu?|swap)\.[wd]\S*"),
    (CONTROL, r"C (beq|bne|blt|bge|bltu|bgeu|bgt|ble|bgtu|bleu)z? | C j(al|r|alr)? | ret | call"),
    (CONTROL, r"tail | [ms]ret"),
    (CONTROL, _RISCV_STAYS),
)  # fmt: skip
# WebAssembly 2.0, as its specification spells instructions, and LLVM's text the ends of blocks. N
# stands for the types of numbers and vectors.
_WASM: _Table = (
    (MULTIPLY, r"N mul | i16x8\.q15mulr_sat_s | N extmul_\w+"),
    (DOT, r"i32x4\.dot_i16x8_s"),
    (DIVIDE, r"N (div|rem)(_[su])? | N sqrt"),
    (ADD, r"N (add|sub)(_sat_[su])? | N (abs|neg|avgr_u) | N extadd_pairwise_\w+"),
    (LOGIC, r"N (and|or|xor|not|andnot|bitselect|any_true|all_true|bitmask|clz|ctz|popcnt)"),
    (LOGIC, r"N (eqz?|ne|[lg][te](_[su])?|p?min(_[su])?|p?max(_[su])?|copysign)"),
    (SHIFT, r"N (shl|shr_[su]|rot[lr])"),
    (CONVERT, r"N (wrap|extend|trunc|convert|demote|promote|narrow)_\w+ | N extend(8|16|32)_s"),
    (CONVERT, r"N (ceil|floor|trunc|nearest)"),
    (MOVE, r"N (const|load\w*|store\w*|reinterpret_\w+|splat|(extract|replace)_lane(_[su])?)"),
    (MOVE, r"N (shuffle|swizzle) | (local|global)\.(get|set|tee) | memory\.(size|grow|copy|fill)"),
    (MOVE, r"memory\.init | data\.drop | drop | (N)?select"),
    (CONTROL, r"block | loop | if | else | end(_\w+)? | br | br_if | br_table | return"),
    (CONTROL, r"call | call_indirect | unreachable | nop"),
)  # fmt: skip
_WASM_LETTERS = {"N": r"([if](32|64|8x16|16x8|32x4|64x2)|v128)\."}
_RISCV_LETTERS = {"C": r"(c\.)?"}
_LETTERS = {
    "x86-64": _X86_LETTERS, "riscv": _RISCV_LETTERS, "wasm": _WASM_LETTERS,
    "thumb": _THUMB_LETTERS,
}  # fmt: skip

_PLACE = r"(-?(?:0x[0-9a-f]+|\d+))"
X86_64 = Machine(
    "x86-64", _X86, "#", _X86_STAYS, r"(?:j\w+|callq?) " + _PLACE, r"(repz )?retq?( .*)?",
    r"jmpq? .*|ud2|int3", r"(push\w* .*|\S+ .*, \(%rsp\))|.*",
)  # fmt: skip
_ARM_PLACE = r"(?:.*, )?#" + _PLACE
AARCH64 = Machine(
    "aarch64", _AARCH64, "//", _AARCH64_STAYS, r"(?:b|bl|b\.\w+|cbn?z|tbn?z) " + _ARM_PLACE,
    r"e?ret", r"(b|br|udf|brk) .*",
    r"bl .*|ldp \w+, x30, \[sp.*|ldp x30, \w+, \[sp.*|ldr x30, \[sp.*"
    r"|((?!st|cb|tb|cmp)\S+ ([xw]30|\w+, x30, \[).*)",
)  # fmt: skip
THUMB = Machine(
    "thumb", _THUMB, "@", _THUMB_STAYS, rf"(?:bl?{IF}(?:\.[wn])?|cbn?z) {_ARM_PLACE}",
    rf"bx{IF} lr|pop{IF}(\.w)? \{{.*\bpc\}}", r"(b(\.[wn])?|bx|udf(\.w)?|(mov|add) pc,) .*",
    r"bl .*|(?!st|cmp|cmn|tst|teq|push|pop|bl|bx)\S+ (.*\blr\b.*)|st\S+ (.*\[lr\b.*(?:\]!|\], ).*)",
    r"\S+ pc\b.*|(?!push)\S+ .*\{.*\bpc\b.*|(?!push)\S+ \{.*\bpc\b.*",
    r"(push\S* .*\blr\b.*)|(push\S* .*)|(pop\S* .*\blr\b.*)",
)  # fmt: skip
RISCV = Machine(
    "riscv", _RISCV, "#", _RISCV_STAYS, r"(?:c\.)?(?:b\w+|j|jal) (?:.*, )?" + _PLACE,
    r"(c\.)?(ret|jr ra)|[ms]ret", r"(c\.)?((j|jr) .*|unimp)",
    r"(?:c\.)?(?:jalr? .*|l[wd](?:sp)? ra, .*\(sp\))|((?!(?:c\.)?(?:s[bhwd]|b))\S+ ra, .*)",
)  # fmt: skip
WASM = Machine("wasm", _WASM, "#", "", "", "", "", "")  # no instruction goes to an address
MACHINES = (X86_64, AARCH64, THUMB, RISCV, WASM)
_ARCHITECTURES = {
    "x86_64": X86_64, "aarch64": AARCH64, "thumbv6m": THUMB, "thumbv7": THUMB, "thumbv7em": THUMB,
    "thumbv8.1m.main": THUMB, "riscv32": RISCV, "riscv64": RISCV, "wasm32": WASM,
}  # fmt: skip


def machine_for(triple: str) -> Machine:
    """The instruction set of a target's triple."""
    return _ARCHITECTURES[triple.partition("-")[0]]


def _word(mnemonic: str) -> str:
    return next((word for word in mnemonic.split() if word not in _PREFIXES), "")


@functools.cache
def _kind(machine: Machine, word: str) -> str:
    if not word:
        return CONTROL  # a prefix on a line of its own
    return next((kind for kind, p in _patterns(machine) if p.fullmatch(word)), UNKNOWN)


@functools.cache
def _stay(machine: Machine, word: str) -> bool:
    return _compiled(machine, machine.stays).fullmatch(word) is not None


@functools.cache
def _patterns(machine: Machine) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((kind, _compiled(machine, pattern)) for kind, pattern in machine.table)


def _compiled(machine: Machine, pattern: str) -> re.Pattern[str]:
    for letter, meaning in _LETTERS.get(machine.name, {}).items():
        pattern = pattern.replace(letter, meaning)
    return re.compile(pattern.replace(" ", ""))
