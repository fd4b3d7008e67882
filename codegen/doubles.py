"""f64 arithmetic for cores whose float unit has f32 alone: the functions that LLVM calls there.

Sums are made in f64 on every machine, so that their bits are the same. A sum is added to once for
many terms of a layer, so that these functions need not be fast. They are of integers, round to
nearest with ties to even, keep subnormal numbers, and multiply by `umull` alone.
"""

from __future__ import annotations

import re

# s 2^(e - 1078) with a sign bit: bit 55 of s is the unit of a number of exponent field e, and its
# last bit is set where something is lost behind it.
_PACK = """
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.umin.i64(i64, i64)
declare i32 @llvm.smin.i32(i32, i32)
declare i32 @llvm.smax.i32(i32, i32)
define internal double @f64_packed(i64 %sign, i32 %e, i64 %s) noinline nounwind "no-builtins" {
  %none = icmp eq i64 %s, 0
  %some = select i1 %none, i64 1, i64 %s
  %zeros = call i64 @llvm.ctlz.i64(i64 %some, i1 true)
  %high = shl i64 %some, %zeros
  %zeros.32 = trunc i64 %zeros to i32
  %moved = sub i32 %e, %zeros.32
  %field = add i32 %moved, 8
  %least = call i32 @llvm.smax.i32(i32 %field, i32 1)
  %below = sub i32 %least, %field
  %drop = add i32 %below, 11
  %far = icmp sgt i32 %drop, 63
  %upper = lshr i64 %high, 32
  %lower = trunc i64 %high to i32
  %lost = icmp ne i32 %lower, 0
  %sticky = zext i1 %lost to i64
  %moved.far = or i64 %upper, %sticky
  %t = select i1 %far, i64 %moved.far, i64 %high
  %nearer = sub i32 %drop, 32
  %left = select i1 %far, i32 %nearer, i32 %drop
  %by = call i32 @llvm.smin.i32(i32 %left, i32 63)
  %by.64 = zext i32 %by to i64
  %q = lshr i64 %t, %by.64
  %over = sub i64 64, %by.64
  %rest = shl i64 %t, %over
  %more = icmp ugt i64 %rest, -9223372036854775808
  %half = icmp eq i64 %rest, -9223372036854775808
  %odd = trunc i64 %q to i1
  %tie = and i1 %half, %odd
  %up = or i1 %more, %tie
  %one = zext i1 %up to i64
  %rounded = add i64 %q, %one
  %exponent = sub i32 %least, 1
  %exponent.64 = zext i32 %exponent to i64
  %place = shl i64 %exponent.64, 52
  %number = add i64 %place, %rounded
  %huge = icmp sgt i32 %least, 2046
  %bounded = call i64 @llvm.umin.i64(i64 %number, i64 9218868437227405312)
  %finite = select i1 %huge, i64 9218868437227405312, i64 %bounded
  %magnitude = select i1 %none, i64 0, i64 %finite
  %bits = or i64 %sign, %magnitude
  %made = bitcast i64 %bits to double
  ret double %made
}
"""
_EXTEND = """
define weak hidden double @__extendsfdf2(float %x) nounwind "no-builtins" {
  %bits = bitcast float %x to i32
  %field = lshr i32 %bits, 23
  %e = and i32 %field, 255
  %m = and i32 %bits, 8388607
  %sign.32 = and i32 %bits, -2147483648
  %sign.64 = zext i32 %sign.32 to i64
  %sign = shl i64 %sign.64, 32
  %m.64 = zext i32 %m to i64
  %special = icmp eq i32 %e, 255
  br i1 %special, label %other, label %number
other:
  %whole = shl i64 %m.64, 29
  %nan = icmp ne i32 %m, 0
  %quiet = select i1 %nan, i64 9221120237041090560, i64 9218868437227405312
  %as = or i64 %quiet, %whole
  %signed = or i64 %as, %sign
  %made = bitcast i64 %signed to double
  ret double %made
number:
  %normal = icmp ne i32 %e, 0
  %unit = select i1 %normal, i64 8388608, i64 0
  %whole.m = or i64 %m.64, %unit
  %s = shl i64 %whole.m, 32
  %least = call i32 @llvm.smax.i32(i32 %e, i32 1)
  %e.64 = add i32 %least, 896
  %packed = call double @f64_packed(i64 %sign, i32 %e.64, i64 %s)
  ret double %packed
}
"""
_NARROW = """
define weak hidden float @__truncdfsf2(double %x) nounwind "no-builtins" {
  %bits = bitcast double %x to i64
  %upper = lshr i64 %bits, 32
  %high = trunc i64 %upper to i32
  %sign = and i32 %high, -2147483648
  %field = lshr i32 %high, 20
  %e = and i32 %field, 2047
  %fraction = and i64 %bits, 4503599627370495
  %special = icmp eq i32 %e, 2047
  br i1 %special, label %other, label %number
other:
  %nan = icmp ne i64 %fraction, 0
  %kept.64 = lshr i64 %fraction, 29
  %kept = trunc i64 %kept.64 to i32
  %quiet = or i32 %kept, 2143289344
  %as = select i1 %nan, i32 %quiet, i32 2139095040
  %signed = or i32 %as, %sign
  %made = bitcast i32 %signed to float
  ret float %made
number:
  %normal = icmp ne i32 %e, 0
  %unit = select i1 %normal, i64 4503599627370496, i64 0
  %m = or i64 %fraction, %unit
  %e.32 = sub i32 %e, 896
  %least = call i32 @llvm.smax.i32(i32 %e.32, i32 1)
  %below = sub i32 %least, %e.32
  %drop.all = add i32 %below, 29
  %drop = call i32 @llvm.smin.i32(i32 %drop.all, i32 63)
  %by = zext i32 %drop to i64
  %q.64 = lshr i64 %m, %by
  %q = trunc i64 %q.64 to i32
  %over = sub i64 64, %by
  %rest = shl i64 %m, %over
  %more = icmp ugt i64 %rest, -9223372036854775808
  %half = icmp eq i64 %rest, -9223372036854775808
  %odd = trunc i32 %q to i1
  %tie = and i1 %half, %odd
  %up = or i1 %more, %tie
  %one = zext i1 %up to i32
  %rounded = add i32 %q, %one
  %exponent.all = sub i32 %least, 1
  %exponent = call i32 @llvm.smin.i32(i32 %exponent.all, i32 254)
  %place = shl i32 %exponent, 23
  %number.bits = add i32 %place, %rounded
  %bounded = call i32 @llvm.smin.i32(i32 %number.bits, i32 2139095040)
  %result = or i32 %bounded, %sign
  %finite = bitcast i32 %result to float
  ret float %finite
}
"""
# The larger one by magnitude is a; b's bits below 2^-3 of a's last one are one sticky bit.
_ADD = """
define weak hidden double @__adddf3(double %x, double %y) nounwind "no-builtins" {
  %xs = bitcast double %x to i64
  %ys = bitcast double %y to i64
  %x.magnitude = and i64 %xs, 9223372036854775807
  %y.magnitude = and i64 %ys, 9223372036854775807
  %swap = icmp ult i64 %x.magnitude, %y.magnitude
  %a = select i1 %swap, i64 %ys, i64 %xs
  %b = select i1 %swap, i64 %xs, i64 %ys
  %sign = and i64 %a, -9223372036854775808
  %mixed = xor i64 %a, %b
  %unlike = icmp slt i64 %mixed, 0
  %a.magnitude = and i64 %a, 9223372036854775807
  %special = icmp uge i64 %a.magnitude, 9218868437227405312
  br i1 %special, label %other, label %number
other:
  %nan = icmp ugt i64 %a.magnitude, 9218868437227405312
  %difference = xor i64 %a, -9223372036854775808
  %infinities = icmp eq i64 %difference, %b
  %no.number = or i1 %nan, %infinities
  %quiet = or i64 %a, 2251799813685248
  %as = select i1 %no.number, i64 %quiet, i64 %a
  %made = bitcast i64 %as to double
  ret double %made
number:
  %a.field = lshr i64 %a.magnitude, 52
  %b.magnitude = and i64 %b, 9223372036854775807
  %b.field = lshr i64 %b.magnitude, 52
  %a.e = trunc i64 %a.field to i32
  %b.e = trunc i64 %b.field to i32
  %a.normal = icmp ne i32 %a.e, 0
  %b.normal = icmp ne i32 %b.e, 0
  %a.unit = select i1 %a.normal, i64 4503599627370496, i64 0
  %b.unit = select i1 %b.normal, i64 4503599627370496, i64 0
  %a.fraction = and i64 %a, 4503599627370495
  %b.fraction = and i64 %b, 4503599627370495
  %a.m = or i64 %a.fraction, %a.unit
  %b.m = or i64 %b.fraction, %b.unit
  %a.s = shl i64 %a.m, 3
  %b.s = shl i64 %b.m, 3
  %e = call i32 @llvm.smax.i32(i32 %a.e, i32 1)
  %b.least = call i32 @llvm.smax.i32(i32 %b.e, i32 1)
  %apart = sub i32 %e, %b.least
  %by.32 = call i32 @llvm.smin.i32(i32 %apart, i32 63)
  %by = zext i32 %by.32 to i64
  %b.kept = lshr i64 %b.s, %by
  %b.back = shl i64 %b.kept, %by
  %b.lost = icmp ne i64 %b.back, %b.s
  %b.sticky = zext i1 %b.lost to i64
  %b.near = or i64 %b.kept, %b.sticky
  %sum = add i64 %a.s, %b.near
  %distance = sub i64 %a.s, %b.near
  %s = select i1 %unlike, i64 %distance, i64 %sum
  %none = icmp eq i64 %distance, 0
  %cancelled = and i1 %none, %unlike
  %its.sign = select i1 %cancelled, i64 0, i64 %sign
  %packed = call double @f64_packed(i64 %its.sign, i32 %e, i64 %s)
  ret double %packed
}
"""
_SUBTRACT = """
define weak hidden double @__subdf3(double %x, double %y) nounwind "no-builtins" {
  %minus.y = fneg double %y
  %sum = call double @__adddf3(double %x, double %minus.y)
  ret double %sum
}
"""
# Field and fraction of an operand that is not special, its unit at bit 52 though it be subnormal.
_PARTS = """
define internal { i32, i64 } @f64_parts(i64 %x) noinline nounwind "no-builtins" {
  %upper = lshr i64 %x, 52
  %upper.32 = trunc i64 %upper to i32
  %field = and i32 %upper.32, 2047
  %fraction = and i64 %x, 4503599627370495
  %normal = icmp ne i32 %field, 0
  %unit = select i1 %normal, i64 4503599627370496, i64 0
  %m = or i64 %fraction, %unit
  %some = or i64 %m, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %some, i1 true)
  %by = sub i64 %zeros, 11
  %s = shl i64 %m, %by
  %by.32 = trunc i64 %by to i32
  %least = call i32 @llvm.smax.i32(i32 %field, i32 1)
  %e = sub i32 %least, %by.32
  %one = insertvalue { i32, i64 } poison, i32 %e, 0
  %two = insertvalue { i32, i64 } %one, i64 %s, 1
  ret { i32, i64 } %two
}
"""
# A product or quotient: what BIG is makes it infinite, what SMALL is makes it 0, both make it NaN.
_OPERANDS = """
define weak hidden double @NAME(double %x, double %y) nounwind "no-builtins" {
entry:
  %a = bitcast double %x to i64
  %b = bitcast double %y to i64
  %mixed = xor i64 %a, %b
  %sign = and i64 %mixed, -9223372036854775808
  %a.magnitude = and i64 %a, 9223372036854775807
  %b.magnitude = and i64 %b, 9223372036854775807
  %a.nan = icmp ugt i64 %a.magnitude, 9218868437227405312
  %b.nan = icmp ugt i64 %b.magnitude, 9218868437227405312
  %a.infinite = icmp eq i64 %a.magnitude, 9218868437227405312
  %b.infinite = icmp eq i64 %b.magnitude, 9218868437227405312
  %a.zero = icmp eq i64 %a.magnitude, 0
  %b.zero = icmp eq i64 %b.magnitude, 0
  %infinite = or i1 %a.infinite, %BIG
  %zero = or i1 %a.zero, %SMALL
  %both = and i1 %infinite, %zero
  %any.nan = or i1 %a.nan, %b.nan
  %nan = or i1 %any.nan, %both
  %bounds = select i1 %zero, i64 0, i64 9218868437227405312
  %signed = or i64 %bounds, %sign
  %as = select i1 %nan, i64 9221120237041090560, i64 %signed
  %bound = or i1 %infinite, %zero
  %special = or i1 %bound, %nan
  %made = bitcast i64 %as to double
  %a.parts = call { i32, i64 } @f64_parts(i64 %a)
  %b.parts = call { i32, i64 } @f64_parts(i64 %b)
  %a.e = extractvalue { i32, i64 } %a.parts, 0
  %b.e = extractvalue { i32, i64 } %b.parts, 0
  %a.m = extractvalue { i32, i64 } %a.parts, 1
  %b.m = extractvalue { i32, i64 } %b.parts, 1
  br i1 %special, label %other, label %number
other:
  ret double %made
number:
"""
_MULTIPLY = (
    _OPERANDS.replace("NAME", "__muldf3").replace("BIG", "b.infinite").replace("SMALL", "b.zero")
    + """
  %a.high = lshr i64 %a.m, 32
  %b.high = lshr i64 %b.m, 32
  %a.low = and i64 %a.m, 4294967295
  %b.low = and i64 %b.m, 4294967295
  %high = mul i64 %a.high, %b.high
  %inner = mul i64 %a.high, %b.low
  %outer = mul i64 %a.low, %b.high
  %low = mul i64 %a.low, %b.low
  %carried = lshr i64 %low, 32
  %mixed.sum = add i64 %inner, %outer
  %middle = add i64 %mixed.sum, %carried
  %high.s = shl i64 %high, 14
  %middle.s = lshr i64 %middle, 18
  %s = add i64 %high.s, %middle.s
  %below = and i64 %middle, 262143
  %below.low = and i64 %low, 4294967295
  %rest = or i64 %below, %below.low
  %lost = icmp ne i64 %rest, 0
  %sticky = zext i1 %lost to i64
  %all = or i64 %s, %sticky
  %fields = add i32 %a.e, %b.e
  %e = sub i32 %fields, 1022
  %packed = call double @f64_packed(i64 %sign, i32 %e, i64 %all)
  ret double %packed
}
"""
)
_DIVIDE = (
    _OPERANDS.replace("NAME", "__divdf3").replace("BIG", "b.zero").replace("SMALL", "b.infinite")
    + """
  br label %bit
bit:
  %i = phi i32 [ 0, %number ], [ %next, %bit ]
  %q = phi i64 [ 0, %number ], [ %q.next, %bit ]
  %r = phi i64 [ %a.m, %number ], [ %r.next, %bit ]
  %fits = icmp uge i64 %r, %b.m
  %taken = select i1 %fits, i64 %b.m, i64 0
  %left = sub i64 %r, %taken
  %r.next = shl i64 %left, 1
  %q.up = shl i64 %q, 1
  %digit = zext i1 %fits to i64
  %q.next = or i64 %q.up, %digit
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, 56
  br i1 %more, label %bit, label %done
done:
  %lost = icmp ne i64 %r.next, 0
  %sticky = zext i1 %lost to i64
  %all = or i64 %q.next, %sticky
  %apart = sub i32 %a.e, %b.e
  %e = add i32 %apart, 1023
  %packed = call double @f64_packed(i64 %sign, i32 %e, i64 %all)
  ret double %packed
}
"""
)
# -1, 0 or 1 as x is below y, equal or above; UNORDERED where one is NaN.
_COMPARE = """
define weak hidden i32 @NAME(double %x, double %y) nounwind "no-builtins" {
  %a = bitcast double %x to i64
  %b = bitcast double %y to i64
  %a.magnitude = and i64 %a, 9223372036854775807
  %b.magnitude = and i64 %b, 9223372036854775807
  %a.nan = icmp ugt i64 %a.magnitude, 9218868437227405312
  %b.nan = icmp ugt i64 %b.magnitude, 9218868437227405312
  %nan = or i1 %a.nan, %b.nan
  %a.minus = sub i64 0, %a.magnitude
  %b.minus = sub i64 0, %b.magnitude
  %a.negative = icmp slt i64 %a, 0
  %b.negative = icmp slt i64 %b, 0
  %a.place = select i1 %a.negative, i64 %a.minus, i64 %a.magnitude
  %b.place = select i1 %b.negative, i64 %b.minus, i64 %b.magnitude
  %above = icmp sgt i64 %a.place, %b.place
  %below = icmp slt i64 %a.place, %b.place
  %one = zext i1 %above to i32
  %order = select i1 %below, i32 -1, i32 %one
  %found = select i1 %nan, i32 UNORDERED, i32 %order
  ret i32 %found
}
"""
# What is in a module -> what LLVM then calls. A quotient by a power of two becomes a product.
_FUNCTIONS = (
    ("fpext float", _EXTEND), ("fptrunc double", _NARROW), ("f(?:add|sub) double", _ADD),
    ("fsub double", _SUBTRACT), ("f(?:mul|div) double", _PARTS),
    ("f(?:mul|div) double", _MULTIPLY), ("fdiv double", _DIVIDE),
    ("fcmp ole double", _COMPARE.replace("NAME", "__ledf2").replace("UNORDERED", "1")),
    ("fcmp oge double", _COMPARE.replace("NAME", "__gedf2").replace("UNORDERED", "-1")),
    # Of operands that are no NaN LLVM asks for the contrary.
    ("fcmp ole double", _COMPARE.replace("NAME", "__gtdf2").replace("UNORDERED", "-1")),
    ("fcmp oge double", _COMPARE.replace("NAME", "__ltdf2").replace("UNORDERED", "1")),
)  # fmt: skip


def defined(text: str) -> str:
    """The IR text of a module of scalars, with the functions that its operations on f64 become."""
    used = [function for mark, function in _FUNCTIONS if re.search(mark, text)]
    if not used:
        return text
    names = [f"ptr {name}" for name in re.findall(r"define weak.*(@__\w+)", "".join(used))]
    declared = set(re.findall(r'declare [^@]*@"?([\w.]+)"?\(', text))
    lines = "".join([_PACK, *used]).splitlines()
    known = re.compile(r"declare .*@({})\(.*".format("|".join(map(re.escape, declared or "-"))))
    kept = "\n".join(line for line in lines if not known.fullmatch(line))
    array = f"[{len(names)} x ptr] [{', '.join(names)}]"
    return f'{text}\n{kept}\n@llvm.used = appending global {array}, section "llvm.metadata"\n'
