"""A small structured builder over llvmlite: static folding, loops, vectors, masked tails.

Kernels are written against `Emitter`. Indices are `int | ir.Value`: arithmetic on two Python
integers happens in Python, so static offsets fold before LLVM sees them. Pointers are opaque and
all addresses are in bytes. Registers are f32, i32, i8 or i1 vectors of `lanes` elements (lanes = 1:
a scalar). Memory is touched only through `load` and `store`, whose `active` count masks tails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import llvmlite.ir as ir

from addergraph.ir.types import DType, bool_, f32, i32

from ..targets.target import Target
from .hidden import hidden
from .indices import I64 as I64
from .indices import Index as Index
from .indices import Indices

I1, I8, I16, I32 = (ir.IntType(bits) for bits in (1, 8, 16, 32))
F32 = ir.FloatType()
F64 = ir.DoubleType()
POINTER = ir.PointerType()
Register = Any  # ir.Value holding a scalar or a vector
LINE = 64  # bytes of a cache line
wide = DType("f64", 8)  # sums in registers and workspaces; no tensor has it


def vector(element: Any, lanes: int) -> Any:
    """The register type of `lanes` elements."""
    return element if lanes == 1 else ir.VectorType(element, lanes)


def element_type(dtype: DType) -> Any:
    """The register element of a dtype (bool is one bit in registers, one byte in memory)."""
    if dtype in (f32, wide):
        return F32 if dtype == f32 else F64
    if dtype == bool_:
        return I1
    return I32 if dtype == i32 else I8


def constant(type: Any, value: float | int) -> Any:
    """A scalar or splatted vector constant."""
    if isinstance(type, ir.VectorType):
        return ir.Constant(type, [ir.Constant(type.element, value)] * type.count)
    return ir.Constant(type, value)


def attribute(function: Any, target: Target) -> None:
    """Gives a function the attributes of all: among them, no calls to memset of LLVM's invention,
    and the CPU that its instructions are ordered for."""
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    # llvmlite only lists the enum attributes; these are string attributes.
    set.add(function.attributes, '"no-builtins"')
    # A certificate follows no table. And whether LLVM makes some of a few cases, for any machine,
    # depends on whether this process has compiled for WebAssembly before.
    set.add(function.attributes, '"no-jump-tables"="true"')
    if target.format == "coff":  # frames of less than a page need no probe of the C library
        function.attributes.add("uwtable")  # without which Windows cannot walk the stack
        set.add(function.attributes, '"no-stack-arg-probe"')
    if target.beside_others:
        set.add(function.attributes, f'"target-cpu"="{target.cpu}"')
        set.add(function.attributes, f'"target-features"="{target.features}"')
    if target.tuned:
        set.add(function.attributes, f'"tune-cpu"="{target.tuned}"')


class Emitter(Indices):
    """Emits one function. `thread` and `threads` are its share in SPMD execution."""

    def __init__(self, function: Any, target: Target, barrier: Callable[[Emitter], None]) -> None:
        self.function = function
        self.target = target
        self.lanes = target.lanes
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.thread: Index = 0
        self.threads: Index = 1
        self._barrier = barrier

    def shared_by(self, thread: Any, threads: Any) -> None:
        """Sets this function's share to what its arguments say, where there may be threads."""
        if self.target.atomics:
            self.thread, self.threads = thread, threads

    # -- control ---------------------------------------------------------------------------------

    def share(self, count: Index) -> tuple[Index, Index]:
        """This thread's contiguous range of `count` items."""
        if isinstance(self.threads, int) and self.threads == 1:
            return 0, count
        if self.target.multiplier:
            return self._part(count)
        alone = self.b.icmp_signed("<=", self.index(self.threads), self.index(1))
        low, high = self.choose(
            alone, lambda: [self.index(0), self.index(count)], lambda: self._part(count)
        )
        return low, high

    def _part(self, count: Index) -> tuple[Index, Index]:
        """This thread's share of `count` items, where there may be several threads."""
        low = self.div(self.mul(count, self.thread), self.threads)
        high = self.div(self.mul(count, self.add(self.thread, 1)), self.threads)
        return low, high

    def barrier(self) -> None:
        """Waits until every thread has arrived; orders memory between phases of one kernel."""
        self._barrier(self)

    @contextmanager
    def loop(self, start: Index, stop: Index, step: int = 1) -> Iterator[Index]:
        """`for i in range(start, stop, step)`: the body is what the `with` block emits."""
        static = isinstance(start, int) and isinstance(stop, int)
        if static and start < stop <= start + step:
            yield start
            return
        with self._counted(start, stop, step, ("loop", "done")) as i:
            yield i

    @contextmanager
    def _counted(
        self, start: Index, stop: Index, step: int, labels: tuple[str, str]
    ) -> Iterator[Register]:
        """A loop as it stands in the code; `labels` are those of its body and of what follows."""
        before = self.b.block
        head, done = (self.function.append_basic_block(label) for label in labels)
        if isinstance(start, int) and isinstance(stop, int) and start < stop:
            self.b.branch(head)
        else:
            self.b.cbranch(self.less(start, stop), head, done)
        self.b.position_at_end(head)
        i = self.b.phi(self.word)
        i.add_incoming(self.index(start), before)
        yield i
        following = self.b.add(i, self.index(step), flags=("nsw",))
        i.add_incoming(following, self.b.block)
        fixed = isinstance(start, int) and isinstance(stop, int)
        if self.target.negates_by_product and not fixed:  # LLVM would count from -stop to 0
            following = hidden(self.b, following)
        self.b.cbranch(self.less(following, stop), head, done)
        self.b.position_at_end(done)

    def carry(
        self,
        start: Index,
        stop: Index,
        step: int,
        values: Sequence[Register],
        body: Callable[[Index, list[Register]], Sequence[Register]],
    ) -> list[Register]:
        """A loop that carries `values` through `body(i, values) -> values`; gives the last ones."""
        static = isinstance(start, int) and isinstance(stop, int)
        if static and start >= stop:
            return list(values)
        if static and stop <= start + step:
            return list(body(start, list(values)))
        before = self.b.block
        with self._counted(start, stop, step, ("carry", "carried")) as i:
            carried = [self.b.phi(v.type) for v in values]
            after = list(body(i, list(carried)))
            latch = self.b.block
            for phi, first, last in zip(carried, values, after, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(last, latch)
        if static:
            return after
        results = [self.b.phi(v.type) for v in values]
        for phi, first, last in zip(results, values, after, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, latch)
        return results

    def unrolled(
        self,
        count: int,
        unroll: int,
        values: Sequence[Register],
        update: Callable[[Index, int, list[Register]], list[Register]],
    ) -> list[Register]:
        """`count` steps of `update(base, offset, values)` in order, `unroll` in one loop body."""

        def several(base: Index, steps: int, carried: list[Register]) -> list[Register]:
            for u in range(steps):
                carried = update(base, u, carried)
            return carried

        whole = count - count % unroll
        after = self.carry(0, whole, unroll, values, lambda k, c: several(k, unroll, c))
        return several(whole, count % unroll, after)

    def partial(
        self, block: Index, full: int, rest: int, size: int
    ) -> list[tuple[int, AbstractContextManager[None]]]:
        """(active, context) for blocks of `size`: the first `full` are whole, one may hold `rest`.

        Blocks beyond those are empty: active is 0. The contexts emit under the matching condition.
        """
        cases = [(size, self.when(self.less(block, full)))] if full else []
        if rest:
            here = self.b.icmp_signed("==", self.index(block), self.index(full))
            cases.append((rest, self.when(here)))
        beyond = self.b.icmp_signed(">=", self.index(block), self.index(full + bool(rest)))
        return [*cases, (0, self.when(beyond))]

    def always(self) -> AbstractContextManager[None]:
        """The context that emits unconditionally, beside `when`."""
        return nullcontext()

    def choose(
        self,
        condition: Any,
        then: Callable[[], Sequence[Register]],
        otherwise: Callable[[], Sequence[Register]],
    ) -> list[Register]:
        """The registers that one of two branches gives."""
        with self.b.if_else(condition) as (one, other):
            with one:
                first = list(then())
                first_end = self.b.block
            with other:
                second = list(otherwise())
                second_end = self.b.block
        chosen = []
        for a, b in zip(first, second, strict=True):
            phi = self.b.phi(a.type)
            phi.add_incoming(a, first_end)
            phi.add_incoming(b, second_end)
            chosen.append(phi)
        return chosen

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """The `with` block runs where the i1 `condition` holds."""
        with self.b.if_then(condition):
            yield

    def shared(
        self, name: str, types: Sequence[Any], build: Callable[[Emitter, Sequence[Any]], None]
    ) -> Any:
        """The module's internal function `name`, built at its first use; it is never inlined.

        For code that kernels would otherwise repeat many times. `name` has to say everything that
        `build` depends on.
        """
        module = self.function.module
        if name in module.globals:
            return module.globals[name]
        made = ir.Function(module, ir.FunctionType(ir.VoidType(), types), name)
        made.linkage = "internal"
        attribute(made, self.target)
        inner = Emitter(made, self.target, self._barrier)
        build(inner, made.args)
        inner.b.ret_void()
        return made

    # -- memory ----------------------------------------------------------------------------------

    def at(self, pointer: Any, byte_offset: Index) -> Any:
        """`pointer` moved by bytes."""
        if isinstance(byte_offset, int) and byte_offset == 0:
            return pointer
        # WebAssembly adds a constant offset when it loads, where the sum is known not to wrap.
        inside = self.target.in_engine and isinstance(byte_offset, int) and byte_offset > 0
        return self.b.gep(pointer, [self.index(byte_offset)], inbounds=inside, source_etype=I8)

    def load_pointer(self, base: Any, byte_offset: Index) -> Any:
        """The pointer that stands `byte_offset` behind `base`."""
        at = self.at(base, byte_offset)
        return self.b.load(at, typ=POINTER, align=self.target.pointer_bytes)

    def load_index(self, pointer: Any) -> Register:
        """An i64 in memory as an index, which it fits: of a narrow one the lower half."""
        return self.b.load(pointer, typ=self.word, align=8)

    def load(
        self, pointer: Any, dtype: DType = f32, lanes: int = 1, active: int | None = None
    ) -> Register:
        """`lanes` contiguous elements; from `active` on they are 0 and memory is not read."""
        memory = vector(I8 if dtype == bool_ else element_type(dtype), lanes)
        if active is None or active >= lanes:
            value = self.b.load(pointer, typ=memory, align=dtype.itemsize)
        else:
            arguments = [POINTER, I32, ir.VectorType(I1, lanes), memory]
            call = self.intrinsic(f"llvm.masked.load.{type_suffix(memory)}.p0", memory, arguments)
            zero = ir.Constant(memory, None)
            align = ir.Constant(I32, dtype.itemsize)
            value = self.b.call(call, [pointer, align, self.mask(lanes, active), zero])
        return self.b.icmp_unsigned("!=", value, constant(memory, 0)) if dtype == bool_ else value

    def store(
        self, value: Register, pointer: Any, dtype: DType = f32, active: int | None = None
    ) -> None:
        """Stores a register; elements from `active` on are left untouched in memory."""
        lanes = value.type.count if isinstance(value.type, ir.VectorType) else 1
        if dtype == bool_:
            value = self.b.zext(value, vector(I8, lanes))
        if active is None or active >= lanes:
            self.b.store(value, pointer, align=dtype.itemsize)
            return
        if active == 1:
            # LLVM 22 stores 4 bytes where it makes a scalar of a masked store of i32 cut to i8.
            first = self.b.extract_element(value, ir.Constant(I32, 0))
            self.b.store(first, pointer, align=dtype.itemsize)
            return
        arguments = [value.type, POINTER, I32, ir.VectorType(I1, lanes)]
        name = f"llvm.masked.store.{type_suffix(value.type)}.p0"
        align = ir.Constant(I32, dtype.itemsize)
        call = self.intrinsic(name, ir.VoidType(), arguments)
        self.b.call(call, [value, pointer, align, self.mask(lanes, active)])

    def keep_order(self) -> None:
        """Keeps LLVM from moving loads and stores across this point. It costs no instruction."""
        type = ir.FunctionType(ir.VoidType(), [])
        self.b.call(ir.InlineAsm(type, "", "~{memory}", side_effect=True), [])

    def keep_value(self, value: Register) -> Register:
        """A full vector, hidden from LLVM: sums are not regrouped across this point."""
        if not self.target.register_class:
            return value
        return hidden(self.b, value, self.target.register_class)

    def prefetch(self, pointer: Any) -> None:
        """Asks for a cache line in L2, ahead of time. No access: any address will do."""
        call = self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [POINTER, I32, I32, I32])
        read, second_level, data = (ir.Constant(I32, k) for k in (0, 2, 1))
        self.b.call(call, [pointer, read, second_level, data])

    def mask(self, lanes: int, active: int) -> Any:
        """A constant i1 vector with the first `active` lanes set."""
        return ir.Constant(ir.VectorType(I1, lanes), [int(i < active) for i in range(lanes)])

    # -- arithmetic on registers -----------------------------------------------------------------

    def splat(self, scalar: Register, lanes: int) -> Register:
        """`lanes` copies of a scalar."""
        if lanes == 1:
            return scalar
        type = ir.VectorType(scalar.type, lanes)
        if isinstance(scalar, ir.Constant):
            return ir.Constant(type, [scalar] * lanes)
        undefined = ir.Constant(type, ir.Undefined)
        one = self.b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        every = ir.Constant(ir.VectorType(I32, lanes), None)
        copies = self.b.shuffle_vector(one, undefined, every)
        if self.target.in_engine and isinstance(scalar, ir.LoadInstr):
            # LLVM makes one instruction of both where a single one reads it.
            return self.keep_value(copies)
        return copies

    def broadcast_run(self, pointer: Any, count: int, type: Any) -> list[Register]:
        """`count` neighbours of 32 bits from memory, each in all lanes of a register of `type`."""
        name = f"{self.target.broadcast_run.format(count)}.{type_suffix(type)}.p0"
        made = self.intrinsic(name, ir.LiteralStructType([type] * count), [POINTER])
        loaded = self.b.call(made, [pointer])
        return [self.b.extract_value(loaded, i) for i in range(count)]

    def number(self, value: float, lanes: int) -> Register:
        """An f32 constant."""
        return constant(vector(F32, lanes), value)

    def intrinsic(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        module = self.function.module
        known = module.globals.get(name)
        return known or ir.Function(module, ir.FunctionType(result, arguments), name)

    def call(self, name: str, *values: Register) -> Register:
        """`llvm.<name>.<type of the values>` on values of one type, giving the same type."""
        type = values[0].type
        function = self.intrinsic(
            f"llvm.{name}.{type_suffix(type)}", type, [v.type for v in values]
        )
        return self.b.call(function, values)

    def converted(self, name: str, type: Any, *values: Register) -> Register:
        """`<name>.<type of the result>.<type of the last value>`, of values of any types."""
        whole = f"{name}.{type_suffix(type)}.{type_suffix(values[-1].type)}"
        return self.b.call(self.intrinsic(whole, type, [v.type for v in values]), values)

    def fma(self, a: Register, b: Register, c: Register) -> Register:
        """a * b + c: one rounding where the target has FMA, two where it has not."""
        if self.target.fma:
            return self.call("fma", a, b, c)
        return self.b.fadd(self.b.fmul(a, b), c)

    def opaque(self, value: float) -> Register:
        """An f32 scalar that LLVM cannot see through: it went through memory, atomically."""
        with self.b.goto_entry_block():  # elsewhere the stack would be moved at run time
            slot = self.b.alloca(I32)
        bits = ir.Constant(F32, value).bitcast(I32)
        self.b.store_atomic(bits, slot, "monotonic", 4)
        return self.b.bitcast(self.b.load_atomic(slot, "monotonic", 4, typ=I32), F32)

    def clip_unit(self, value: Register, *, keeps_nan: bool = False) -> Register:
        """clip(value, -1, 1) of a full register.

        NaN stays NaN; where the target has `least_magnitude`, which is faster, only if it has to:
        else it is 1 or -1.
        """
        one, minus_one = self.number(1.0, _lanes(value)), self.number(-1.0, _lanes(value))
        if self.target.least_magnitude and not keeps_nan:
            return self._smaller_magnitude(value, one)
        # The order of the comparisons decides what becomes of NaN.
        high = self.b.select(self.b.fcmp_ordered("<", one, value), one, value)
        return self.b.select(self.b.fcmp_ordered(">", minus_one, high), minus_one, high)

    def _smaller_magnitude(self, a: Register, b: Register) -> Register:
        """min(|a|, |b|) with the sign of a; the other one where one is NaN."""
        minimum_of_magnitudes, current_rounding = ir.Constant(I32, 2), ir.Constant(I32, 4)
        mask = ir.IntType(_lanes(a))
        arguments = [a.type, a.type, I32, a.type, mask, I32]
        function = self.intrinsic(self.target.least_magnitude, a.type, arguments)
        every = ir.Constant(mask, -1)
        return self.b.call(function, [a, b, minimum_of_magnitudes, a, every, current_rounding])

    def shift_left(self, value: Register, places: Register) -> Register:
        """value << places, each lane by its own; 0 where a lane's places are 32. Below 0 and above
        32 there is no result.

        Where there is no such instruction, LLVM would multiply by powers of two.
        """
        type, lanes = value.type, _lanes(value)
        if self.target.variable_shift and lanes == self.target.lanes:
            function = self.intrinsic(self.target.variable_shift, type, [type, type])
            return self.b.call(function, [value, places])
        beyond = self.b.icmp_unsigned(">=", places, constant(type, 32))
        places = self.b.and_(places, constant(type, 31))
        return self.b.select(beyond, constant(type, 0), self._shifted(value, places))

    def _shifted(self, value: Register, places: Register) -> Register:
        """value << places, below 32."""
        if _lanes(value) == 1 or self.target.lane_shifts:
            return self.b.shl(value, places)
        for lane in range(_lanes(value)):
            at = ir.Constant(I32, lane)
            one = self.b.shl(*(self.b.extract_element(v, at) for v in (value, places)))
            value = self.b.insert_element(value, one, at)
        return value

    def non_negative_min(self, a: Register, b: Register) -> Register:
        """min(a, b) of non-negative floats: by their bit patterns as signed integers, or as floats
        where the core has more ports for that.

        Of zeros it is either one, of a NaN anything: adders add what they get to sums that are at
        least +0.0, and to the sum of x, which a NaN reaches, too.
        """
        if self.target.rates.float_minima:
            return self.b.select(self.b.fcmp_ordered("<", a, b), a, b)
        lanes = a.type.count if isinstance(a.type, ir.VectorType) else 1
        bits = vector(I32, lanes)
        least = self.call("smin", self.b.bitcast(a, bits), self.b.bitcast(b, bits))
        return self.b.bitcast(least, a.type)

    def widen(self, value: Register) -> Register:
        """f32 as f64."""
        return self.b.fpext(value, vector(F64, _lanes(value)))

    def narrow(self, value: Register) -> Register:
        """f64 rounded to f32."""
        return self.b.fptrunc(value, vector(F32, _lanes(value)))

    def tree_sum(self, value: Register) -> Register:
        """Sum of a register's elements by a fixed tree: halves are added until one is left."""
        return self.tree(value, self.b.fadd)

    def tree(self, value: Register, combine: Callable[[Register, Register], Register]) -> Register:
        """The elements of a register combined to one, halves with halves."""
        count = _lanes(value)
        if count == 1:
            return value
        while count > 1:
            count //= 2
            low = list(range(count))
            high = list(range(count, 2 * count))
            value = combine(self._pick(value, low), self._pick(value, high))
        return self.b.extract_element(value, ir.Constant(I32, 0))

    def _pick(self, value: Register, lanes: list[int]) -> Register:
        undefined = ir.Constant(value.type, ir.Undefined)
        chosen = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
        return self.b.shuffle_vector(value, undefined, chosen)


def _lanes(value: Register) -> int:
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def type_suffix(type: Any) -> str:
    """`v16f32`, `f32`, `v8i32`: how intrinsics name types."""
    if isinstance(type, ir.VectorType):
        return f"v{type.count}{type_suffix(type.element)}"
    if isinstance(type, (ir.FloatType, ir.DoubleType)):
        return "f32" if isinstance(type, ir.FloatType) else "f64"
    return f"i{type.width}"
