"""The textual IR: `print_graph` writes the canonical text of a graph, `parse` reads it back.

There is no code per op: `text_attributes.py` says how the fields of its dataclass are written and
read. Graphs are equal when their canonical texts are.

    graph = "graph" WORD "(" values ")" ["params" "(" parameters ")"] "{" nodes updates return "}"
    value = "%"NAME ":" type ["scale" "=" number ["zero_point" "=" integer]]
    type  = WORD "[" dims "]"
    parameter = value ["init" "=" init] ["eta" "=" number] ["fixed" | "frozen"]
    node  = names "=" WORD "(" names ")" {WORD "=" attribute} ":" types ["{" graph "}"]
    update = "update" "%"NAME "<-" "%"NAME      return = "return" names

Whitespace and line ends are free, `#` starts a comment. Text is data: parsing bounds its size and
nesting, builds ops from the closed table alone, and every failure is a ParseError at a line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from ..errors import AdderGraphError, ParseError, nearest
from .check import check, check_node, check_value, result_types
from .graph import Graph, Init, Node, Parameter, Update, Value
from .op import Op, op_named
from .quantization import Quantization
from .text_attributes import attributes, show_float, shown_attributes
from .types import Dim, DType, TensorType, dtype_named

MAX_CHARACTERS = 1 << 24
MAX_NESTING = 8  # bodies inside bodies
_MAX_DIGITS = 18  # every such integer fits in 64 bits
_LONGEST = 2000  # letters of a message: names may have as many as the text
_COLUMNS = 100  # a longer header is written with one value a line

T = TypeVar("T")
V = TypeVar("V", bound=Value)


# --- printing ---------------------------------------------------------------------------------


def print_graph(graph: Graph) -> str:
    """The canonical text of `graph`, without a final line end."""
    lines = [_header(graph)]
    lines += (textwrap.indent(_print_node(node), "  ") for node in graph.nodes)
    lines += (f"  update {u.parameter} <- {u.value}" for u in graph.updates)
    lines += [f"  return {', '.join(map(str, graph.outputs))}".rstrip(), "}"]
    return "\n".join(lines)


def _header(graph: Graph) -> str:
    inputs = [_print_declared(v) for v in graph.inputs]
    parameters = [_print_parameter(p) for p in graph.parameters]
    start, params = f"graph {graph.name}", " params" if parameters else ""

    def row(items: list[str], wrap: bool) -> str:
        return "(\n  " + ",\n  ".join(items) + "\n)" if wrap else f"({', '.join(items)})"

    line = start + row(inputs, False) + params + (row(parameters, False) if parameters else "")
    if len(line) + 2 <= _COLUMNS:
        return line + " {"
    first = start + row(inputs, False) + params
    first = start + row(inputs, len(first) + 3 > _COLUMNS) + params
    return first + (row(parameters, True) if parameters else "") + " {"


def _print_declared(value: Value) -> str:
    """An input or a parameter, with its scale and zero point."""
    declared, known = f"{value}: {value.type}", value.type.quantization
    if known is None:
        return declared
    zero = f" zero_point={known.zero_point}" if known.zero_point else ""
    return f"{declared} scale={show_float(known.scale)}{zero}"


def _print_parameter(parameter: Parameter) -> str:
    init, args = parameter.init, ",".join(map(show_float, parameter.init.args))
    parts = [f"{_print_declared(parameter)} init={init.kind}" + (f"({args})" if args else "")]
    if parameter.eta is not None:
        parts.append(f"eta={show_float(parameter.eta)}")
    if not parameter.trainable:
        parts.append("frozen" if parameter.frozen else "fixed")
    return " ".join(parts)


def _print_node(node: Node) -> str:
    line = "".join(
        (
            f"{', '.join(map(str, node.outputs))} = ",
            f"{node.op.name}({', '.join(map(str, node.inputs))})",
            *(f" {text}" for text in shown_attributes(node.op)),
            f" : {', '.join(str(v.type) for v in node.outputs)}",
        )
    )
    body = attributes(type(node.op))[1]
    if body is None:
        return line
    return f"{line} {{\n{textwrap.indent(print_graph(getattr(node.op, body)), '  ')}\n}}"


# --- parsing ----------------------------------------------------------------------------------


def parse(text: str) -> Graph:
    """The graph that `text` describes, checked.

    Raises ParseError (with line, column and caret) for text that is not a graph, that uses a value
    before its definition, repeats a name or states a wrong type, and GraphError for what `check`
    refuses in the graph as a whole.
    """
    if not isinstance(text, str):
        raise ParseError(f"expected the text of a graph, found {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise ParseError(f"the text has {len(text)} characters, at most {MAX_CHARACTERS} are read")
    parser = Parser(text)
    graph = parser.graph(0)
    if parser.peek.kind != "end":
        parser.fail(f"expected the end of the text, found {parser.peek}")
    check(graph)
    return graph


def _printable(text: str) -> str:
    """As wide, without what a terminal would obey and what no file can hold (half a surrogate)."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


class Token(NamedTuple):
    kind: str
    text: str
    start: int

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else f'"{self.text[:40]}"'


_SKIP = re.compile(r"(?:\s++|#[^\n]*+)*+")  # possessive: no memory for places to go back to
_TOKEN = re.compile(
    r"""(?P<name>%[\w.]+)
      | (?P<number>-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)(?![\w.]) | -(?:inf|nan)\b)
      | (?P<word>[^\W\d][\w.]*)
      | (?P<mark><-|[()\[\]{},:=])
      | (?P<end>\Z)""",
    re.VERBOSE,
)


def _tokens(text: str) -> Iterator[Token]:
    """The tokens of `text`, then "end" for ever; a character that starts none is "stray"."""
    at = 0
    while True:
        skipped = _SKIP.match(text, at)
        at = skipped.end() if skipped else at
        match = _TOKEN.match(text, at)
        token = Token(str(match.lastgroup), match[0], at) if match else Token("stray", text[at], at)
        yield token
        at += len(token.text)


class Parser:
    """Recursive descent with one token of look-ahead; recursion is bounded by MAX_NESTING."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.peek = next(self.tokens)

    def fail(self, message: str, at: Token | None = None) -> NoReturn:
        """ParseError that shows the line of `at` (by default the next token) with a caret."""
        start = (at or self.peek).start
        row = self.text.count("\n", 0, start) + 1
        begin = self.text.rfind("\n", 0, start) + 1
        end = self.text.find("\n", start)
        line, column = self.text[begin : end if end >= 0 else None].rstrip(), start - begin
        cut = max(0, column - _COLUMNS // 2)  # hostile text may be one endless line
        shown = _printable(line[cut : cut + _COLUMNS].replace("\t", " "))
        caret = " " * (column - cut) + "^"
        short = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
        what = _printable(short)
        raise ParseError(f"line {row}, column {column + 1}: {what}\n  {shown}\n  {caret}")

    def guarded(self, at: Token, function: Callable[..., T], *args: Any, **fields: Any) -> T:
        """`function(...)`, whose AdderGraphError becomes a ParseError at `at`."""
        try:
            return function(*args, **fields)
        except AdderGraphError as error:
            refusal = str(error)
        self.fail(refusal, at)  # here, so that a traceback shows one error

    def take(self) -> Token:
        token, self.peek = self.peek, next(self.tokens)
        return token

    def accept(self, text: str) -> bool:
        if self.peek.text != text:
            return False
        self.take()
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f'expected "{text}", found {self.peek}')

    def of_kind(self, kind: str, expected: str) -> Token:
        if self.peek.kind != kind:
            self.fail(f"expected {expected}, found {self.peek}")
        return self.take()

    def listed(self, opening: str, item: Callable[[], T], closing: str) -> list[T]:
        """Items between commas, between `opening` and `closing`; a last comma is allowed."""
        self.expect(opening)
        items: list[T] = []
        while not self.accept(closing):
            items.append(item())
            if self.peek.text != closing and not self.accept(","):
                self.fail(f'expected "," or "{closing}", found {self.peek}')
        return items

    def integer(self) -> int:
        token = self.of_kind("number", "an integer")
        digits = token.text.removeprefix("-")
        if not digits.isdecimal():
            self.fail(f"expected an integer, found {token}", token)
        if len(digits) > _MAX_DIGITS:
            self.fail(f"the integer {token} has more than {_MAX_DIGITS} digits", token)
        return int(token.text)

    def number(self) -> float:
        if self.peek.text in ("inf", "nan"):
            return float(self.take().text)
        return float(self.of_kind("number", "a number").text)

    def boolean(self) -> bool:
        if self.peek.text not in ("true", "false"):
            self.fail(f"expected true or false, found {self.peek}")
        return self.take().text == "true"

    def word(self) -> str:
        return self.of_kind("word", "a word").text

    def dim(self) -> Dim:
        return "N" if self.accept("N") else self.integer()

    def dtype(self) -> DType:
        token = self.of_kind("word", "a dtype")
        return self.guarded(token, dtype_named, token.text)

    def tensor_type(self) -> TensorType:
        start = self.peek
        dtype = self.dtype()
        return self.guarded(start, TensorType, dtype, tuple(self.listed("[", self.dim, "]")))

    def graph(self, depth: int) -> Graph:
        if depth > MAX_NESTING:
            self.fail(f"graphs are nested more than {MAX_NESTING} deep")
        self.expect("graph")
        name, scope = self.word(), _Scope(self)
        inputs = self.listed("(", scope.input, ")")
        parameters = self.listed("(", scope.parameter, ")") if self.accept("params") else []
        self.expect("{")
        nodes, updates = [], []
        while self.peek.kind == "name":
            nodes.append(self.node(scope, depth))
        while self.accept("update"):
            updates.append(scope.update())
        if not self.accept("return"):
            self.fail(f'expected a node, "update" or "return", in this order, found {self.peek}')
        outputs = [scope.operand()] if self.peek.kind == "name" else []
        while outputs and self.accept(","):
            outputs.append(scope.operand())
        self.expect("}")
        return Graph(
            name, tuple(inputs), tuple(parameters), tuple(nodes), tuple(outputs), tuple(updates)
        )

    def node(self, scope: _Scope, depth: int) -> Node:
        names = [self.of_kind("name", "a value")]
        while self.accept(","):
            names.append(self.of_kind("name", "a value"))
        self.expect("=")
        start = self.of_kind("word", "the name of an op")
        op_class = self.guarded(start, op_named, start.text)
        operands = tuple(self.listed("(", scope.operand, ")"))
        fields = self.fields(op_class)
        types = self.stated_types(start, op_class, operands, fields)
        if len(types) != len(names):
            self.fail(f"{len(names)} results are named, {len(types)} types stated", names[0])
        if body := attributes(op_class)[1]:
            self.expect("{")
            fields[body] = self.graph(depth + 1)
            self.expect("}")
        op = self.guarded(start, op_class, **fields)
        made = [Value(n.text[1:], t) for n, t in zip(names, types, strict=True)]
        node = Node(op, operands, tuple(map(scope.define, made, names)))
        self.guarded(start, check_node, node)
        return node

    def stated_types(
        self, start: Token, op: type[Op], operands: Sequence[Value], fields: dict[str, Any]
    ) -> list[TensorType]:
        """The types that a node states; where it states none, the error tells what they are."""
        if not self.accept(":"):
            expected = "the types of the results"
            if attributes(op)[1] is None:
                made = self.guarded(start, op, **fields)
                given = [v.type for v in operands]
                found = self.guarded(start, result_types, op.name, made, given)
                expected = f'": {", ".join(map(str, found))}"'
            self.fail(f"expected {expected} behind {op.name}(...), found {self.peek}")
        types = [self.tensor_type()]
        while self.accept(","):
            types.append(self.tensor_type())
        return types

    def fields(self, op: type[Op]) -> dict[str, Any]:
        """The attributes of a node, by name; each is read as its field's type says."""
        known = {a.name: a for a in attributes(op)[0]}
        found: dict[str, Any] = {}
        while self.peek.kind == "word" and self.peek.text not in ("update", "return"):
            token = self.take()
            if token.text not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                hint = nearest(token.text, known)
                self.fail(f'op "{op.name}" has no attribute "{token.text}"{hint}; {has}', token)
            if token.text in found:
                self.fail(f"attribute {token.text} is given twice", token)
            self.expect("=")
            found[token.text] = known[token.text].kind.read(self)
        missing = [a.name for a in known.values() if a.default is None and a.name not in found]
        if missing:
            self.fail(f'op "{op.name}" needs the attribute {" and ".join(missing)}')
        return found


class _Scope:
    """The values of one graph that are defined so far."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.values: dict[str, Value] = {}

    def define(self, value: V, at: Token) -> V:
        if value.name in self.values:
            self.parser.fail(f"{value} is defined twice; names must be unique", at)
        self.parser.guarded(at, check_value, value)
        self.values[value.name] = value
        return value

    def operand(self) -> Value:
        token = self.parser.of_kind("name", "a value such as %x")
        found = self.values.get(token.text[1:])
        if found is None:
            hint = nearest(token.text[1:], self.values)
            self.parser.fail(f"{token.text} is not defined above{hint}", token)
        return found

    def input(self) -> Value:
        token = self.parser.of_kind("name", "a value such as %x")
        self.parser.expect(":")
        return self.define(Value(token.text[1:], self.declared_type()), token)

    def declared_type(self) -> TensorType:
        """A type, with scale and zero point where they are stated."""
        parser, token = self.parser, self.parser.peek
        type = parser.tensor_type()
        if not parser.accept("scale"):
            return type
        parser.expect("=")
        scale, zero_point = parser.number(), 0
        if parser.accept("zero_point"):
            parser.expect("=")
            zero_point = parser.integer()
        known = parser.guarded(token, Quantization, scale, zero_point)
        return parser.guarded(token, TensorType, type.dtype, type.shape, known)

    def parameter(self) -> Parameter:
        parser = self.parser
        token = parser.of_kind("name", "a parameter such as %f")
        parser.expect(":")
        type, init, eta = self.declared_type(), Init(), None
        if parser.accept("init"):
            parser.expect("=")
            init = self.init()
        if parser.accept("eta"):
            parser.expect("=")
            eta = parser.number()
        fixed = parser.accept("fixed")
        made = Parameter(token.text[1:], type, init, not fixed, eta)
        return self.define(made.held(not fixed and parser.accept("frozen")), token)

    def init(self) -> Init:
        parser = self.parser
        token = parser.of_kind("word", "an initializer")
        args = parser.listed("(", parser.number, ")") if parser.peek.text == "(" else []
        return parser.guarded(token, Init, token.text, tuple(args))

    def update(self) -> Update:
        token = self.parser.peek
        target = self.operand()
        if not isinstance(target, Parameter):
            self.parser.fail(f"{target} is not a parameter, only parameters are updated", token)
        self.parser.expect("<-")
        return Update(target, self.operand())
