"""The page of `addergraph demo`: its files, its server, and digits that are drawn in a browser."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, demo, layers, zoo
from addergraph.cli.commands import demo as command
from addergraph.data import digits
from addergraph.demo.server import Server
from addergraph.demo.site import PAGE, STATIC
from addergraph.errors import StorageError, UnsupportedError
from addergraph.ir.state import initial_weights
from addergraph.quantization import Quantized, load_quantized
from addergraph.training.recipes import find
from tests.addergraph.shell import Shell
from tests.browser import Reports

GRAPH = """
graph tiny(%x: u8[N,8,8,1] scale=0.0625) params(%f: u8[64,10] scale=0.0625) {
  %flat = flatten(%x) : u8[N,64]
  %y = adder_dense(%flat, %f) : i32[N,10]
  return %y
}"""
STROKES = (
    "50,10 35,15 25,35 25,60 33,82 50,90 66,82 75,60 75,35 65,15 50,10",
    "38,25 52,12 52,88",
    "28,30 34,16 50,11 66,17 71,32 62,50 44,68 28,86 74,86",
    "30,18 48,11 66,18 68,34 58,46 44,48 60,51 71,64 66,82 48,90 29,82",
    "58,10 28,60 76,60;58,38 58,90",
    "70,12 36,12 33,46 50,42 67,50 70,68 60,85 44,90 29,82",
    "62,11 44,25 32,48 30,70 40,87 57,88 68,75 65,59 52,53 38,59 31,70",
    "30,15 70,15 45,90;38,50 65,50",
    "62,20 50,11 36,18 36,34 50,46 64,60 66,78 50,89 34,79 36,62 50,47 64,34 62,20",
    "67,24 55,12 40,14 31,27 36,43 51,47 64,38 67,24 66,50 62,72 54,90",
)


def quantized(text: str) -> Quantized:
    graph = ag.parse(text)
    return Quantized(graph, initial_weights(graph), {"shift1": 0.0}, "shift1")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return demo.site(quantized(GRAPH))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"index.html": b"page", "net.wasm": b"\0asm"}) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.needs("wasm-ld")
def test_the_certificate_is_that_of_the_module(files: Mapping[str, bytes]) -> None:
    certificate = json.loads(files["certificate.json"])
    assert certificate["multiplication_free"] is True
    assert certificate["sha256"] == hashlib.sha256(files["net.wasm"]).hexdigest()
    assert json.loads(files["demo.json"]) == {"white": 16}
    made = {"net.js", "net.wasm", "layers.js", "layers.wasm", "certificate.json", "demo.json"}
    assert set(files) == {*STATIC, *made}


def test_the_page_asks_nobody_else_and_for_files_that_are_there() -> None:
    asked = set()
    for name in STATIC:
        text = (PAGE / name).read_text()
        assert "//" not in re.sub(r"(?m)(^|\s)//\s.*", "", text), name  # of an address
        asked |= set(re.findall(r'(?:href=|src=|from |got\()"(?!data:)(?:\./)?([\w.]+)"', text))
    assert asked == {
        "page.css", "page.js", "pixels.js", "net.js", "layers.js", "net.wasm",
        "certificate.json", "demo.json", "lesson.js", "learn.js",
    }  # fmt: skip
    assert 'import("./teach.js")' in (PAGE / "page.js").read_text()
    assert {path.name for path in PAGE.iterdir()} == set(STATIC)


def test_a_network_that_the_page_cannot_draw_for_is_refused() -> None:
    other = GRAPH.replace("8,8,1", "9,9,1").replace("64", "81")
    with pytest.raises(UnsupportedError, match=r"the page draws u8\[N,8,8,1\]: quantize a network"):
        demo.require_readable(quantized(other))
    several = GRAPH.replace("return %y", "return %y, %y")
    with pytest.raises(UnsupportedError, match="the page shows one output of 10 scores"):
        demo.require_readable(quantized(several))
    letters = GRAPH.replace("64,10]", "64,7]").replace("N,10]", "N,7]")
    with pytest.raises(UnsupportedError, match="10 scores, one for each digit: quantize a network"):
        demo.require_readable(quantized(letters))


@pytest.mark.needs("wasm-ld")
def test_a_network_that_multiplies_is_refused() -> None:
    dense = GRAPH.replace("adder_dense(", "dense(").replace("%f: u8", "%f: i8")
    with pytest.raises(UnsupportedError, match='multiplication-free.*\n  dense "y"'):
        demo.site(quantized(dense))


def test_a_page_of_somebody_else_stays(tmp_path: Path) -> None:
    page = {name: (PAGE / name).read_bytes() for name in STATIC}
    for _ in range(2):
        assert demo.write(page, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert (tmp_path / "new" / "folder" / "page.js").read_bytes() == page["page.js"]
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(StorageError, match=r'index\.html" is another page: choose another folder'):
        demo.write(page, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "page.js").write_text("mine")
    with pytest.raises(StorageError, match=r'page\.js" is of no page of this command'):
        demo.write(page, tmp_path / "other")
    assert (tmp_path / "other" / "page.js").read_text() == "mine"
    with pytest.raises(StorageError, match="cannot make"):
        demo.write(page, tmp_path / "index.html" / "folder")


# -- server ----------------------------------------------------------------------------------------


def test_the_server_has_its_files_and_nothing_else(server: Server) -> None:
    for path, kind in (("", "text/html; charset=utf-8"), ("net.wasm?1", "application/wasm")):
        with urllib.request.urlopen(server.url + path) as response:
            assert response.headers["Content-Type"] == kind
            assert response.read() in server.files.values()
    head = urllib.request.Request(server.url + "net.wasm", method="HEAD")
    with urllib.request.urlopen(head) as response:
        assert response.headers["Content-Length"] == "4" and response.read() == b""
    for path in ("page.py", "../../../etc/passwd", "%2e%2e/setup.py"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(server.url + path)


def test_a_port_that_is_taken_is_an_error_of_ours(server: Server) -> None:
    with pytest.raises(UnsupportedError, match="cannot serve on 127.0.0.1:.*leave out --port"):
        Server({}, server.server_port)


# -- command ---------------------------------------------------------------------------------------


@pytest.mark.needs("wasm-ld")
def test_the_command_writes_or_serves_until_ctrl_c(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized(GRAPH).save(tmp_path / "q.safetensors")
    out = shell.ok("demo", tmp_path / "q.safetensors", "--write", tmp_path / "page")
    assert "index.html, for any server" in out
    assert (tmp_path / "page" / "net.wasm").read_bytes().startswith(b"\0asm")

    def interrupted(server: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    assert re.search(r"http://127\.0\.0\.1:\d+/", shell.ok("demo", tmp_path / "q.safetensors"))


@pytest.mark.slow
@pytest.mark.needs("wasm-ld")
def test_without_a_model_one_is_trained_and_kept(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dataclasses.replace(find("digits"), epochs=3)
    monkeypatch.setattr(command, "find", lambda name: quick)
    shell.ok("demo", "--write", tmp_path)
    made = load_quantized(tmp_path / command.FILE)
    assert made.preprocessing is not None and made.preprocessing.classes is not None
    known = json.loads((tmp_path / "demo.json").read_bytes())
    assert known["white"] == 16 and known["teach"]["places"] == 4
    assert len(known["teach"]["images"]) == len(known["teach"]["labels"]) == 200
    assert Model.load(tmp_path / command.FLOAT_FILE).preprocessing == made.preprocessing
    data = digits.dataset()
    answers = ag.compile(made)(data.x_test)
    assert (np.asarray(answers).argmax(1) == data.y_test).mean() > 0.8
    shell.ok("demo", tmp_path / command.FLOAT_FILE, "--write", tmp_path / "again")
    for name in ("net.wasm", "learn.wasm", "demo.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_without_a_linker_nothing_is_trained(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "install LLVM's lld (Debian: apt-get install lld)" in shell.error("demo")


# -- drawing ---------------------------------------------------------------------------------------


@pytest.mark.needs("node")
def test_drawings_become_what_the_data_set_has(tmp_path: Path) -> None:
    """Full height, in the middle, a quarter of ink; wherever and however large it is drawn."""
    script = tmp_path / "counts.mjs"
    script.write_text(f"""
    import {{ counts }} from {json.dumps((PAGE / "pixels.js").as_uri())};
    const read = (text) => text.split(";").map(
      (line) => line.split(" ").map((point) => point.split(",").map((p) => p / 100)));
    const drawn = {json.dumps(STROKES)}.map(read);
    const smaller = drawn.map((strokes) => strokes.map(
      (line) => line.map((point) => point.map((p) => p / 4 + 0.5))));
    const all = [...drawn, ...smaller, [[[0.2, 0.7]]]].map(counts);
    console.log(JSON.stringify(all.map((one) => [...one])));
    """)
    done = subprocess.run(["node", script], capture_output=True, text=True, check=True)
    *made, dot = (np.array(one).reshape(8, 8) for one in json.loads(done.stdout))
    for image, smaller in zip(made[:10], made[10:], strict=True):
        assert image.max() <= 16 and 0.15 < image.sum() / 1024 < 0.32
        assert image[0].any() and image[7].any() and not image[:, [0, 7]].any()
        assert np.abs(image - smaller).max() <= 2
    assert dot[3:5, 3:5].all() and dot.sum() == dot[3:5, 3:5].sum()


def reported(files: Mapping[str, bytes], folder: Path) -> str:
    """What `test.js`, among the files of a site, reports from a page of its own."""
    with Reports() as reports:
        made = dict(files) | {
            "test.js": reports.script.encode() + files["test.js"],
            "test.html": b'<!doctype html><body><script type="module" src="test.js"></script>',
        }
        with Server(made) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                return reports.of(f"{server.url}test.html", folder / "profile")
            finally:
                server.shutdown()


@pytest.mark.slow
@pytest.mark.needs("chromium", "wasm-ld")
def test_digits_drawn_in_chromium_are_read(digits_of_adders: Model, tmp_path: Path) -> None:
    """Each drawing in a frame; by pointer, by keyboard, cleared, and in an engine without SIMD."""
    made = dict(demo.site(ag.quantize(digits_of_adders, digits.load().x_train[:64])))
    one = "ArrowUp*8 Space ArrowDown*16"
    cleared = f"Space ArrowRight*10 Space c ArrowLeft*10 {one}"
    asked = [*(f"strokes={strokes}" for strokes in STROKES), f"keys={one}", f"keys={cleared}"]
    pages = [*(f"index.html#{text}" for text in asked), f"old.html#keys={one}"]
    made["old.js"] = b"WebAssembly.validate = () => false;"
    made["old.html"] = made["index.html"].replace(
        b"</head>", b'<script src="old.js"></script></head>'
    )
    made["test.js"] = f"""
      const wait = () => new Promise((done) => setTimeout(done, 250));
      const said = [];
      for (const src of {json.dumps(pages)}) {{
        const frame = Object.assign(document.createElement("iframe"), {{ src, width: 400 }});
        document.body.replaceChildren(frame);
        const at = (id) => frame.contentDocument.getElementById(id);
        const over = () => at("answer")?.textContent
          || at("problem")?.textContent.includes("not run");
        for (let i = 0; i < 400 && !over(); i++) await wait();
        said.push(["answer", "multiplications", "layers", "problem"].map(
          (id) => at(id)?.textContent));
      }}
      report(JSON.stringify(said));
    """.encode()
    *drawn, old = json.loads(reported(made, tmp_path))
    assert [said[0] for said in drawn] == [*map(str, range(10)), "1", "1"]
    assert all(said[1].startswith("0, by the certificate of these very bytes") for said in drawn)
    assert all("act1: 16 maps of 8 \u00d7 8" in said[2] for said in drawn)
    assert "this engine has no WebAssembly with SIMD" in old[3] and old[0] == ""


# -- teaching --------------------------------------------------------------------------------------

STAR = "50,10 30,88 80,38 20,38 70,88 50,10"


def by_hand(strokes: str, rng: np.random.Generator) -> str:
    """A drawing as another hand, or the same another time, would make it."""
    turn, wide, high = rng.uniform(-0.15, 0.15), rng.uniform(0.8, 1.1), rng.uniform(0.8, 1.1)
    away = rng.uniform(-5, 5, 2)
    points = np.array([[float(v) for v in p.split(",")] for p in strokes.split(" ")]) - 50
    points = points * (wide, high) @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    points += rng.uniform(-3, 3, points.shape) + away + 50
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


@pytest.fixture(scope="module")
def taught_files(digits_of_adders: Model) -> dict[str, bytes]:
    data, model = digits.dataset(), copy.copy(digits_of_adders)
    model.preprocessing = data.preprocessing(find("digits").data.normalization(data))
    network = ag.quantize(model, data.x_train[:64])
    return demo.site(network, demo.teacher_of(model, data))


@pytest.mark.slow
@pytest.mark.needs("chromium", "wasm-ld")
def test_a_sign_is_taught_in_chromium(taught_files: dict[str, bytes], tmp_path: Path) -> None:
    """Five drawings; then ten of ten new ones are read, and the digits as before. Saved, forgotten,
    loaded; files of others are refused, and change nothing."""
    rng = np.random.default_rng(0)
    lessons, fresh = ([by_hand(STAR, rng) for _ in range(count)] for count in (5, 10))
    given = {"lessons": lessons, "fresh": fresh, "digits": STROKES}
    script = Path(__file__).with_name("teaching.js").read_text()
    made = taught_files | {"test.js": script.replace("GIVEN", json.dumps(given)).encode()}
    found = json.loads(reported(made, tmp_path))
    assert "error" not in found, found
    assert found["kept"] == 5 and "\u2605" not in found["before"] + found["forgotten"]
    assert found["fresh"] == ["\u2605"] * 10, found
    assert sum(a == str(n) for n, a in enumerate(found["digits"])) >= 9, found["digits"]
    assert "multiplies" in found["by"]
    for said, reason in zip(
        found["refused"],
        (
            "no file that this page wrote", "no file that this page wrote", "its version is 2",
            "its signs are damaged", "do not begin as a saved state", "bytes are missing",
            "that of another network", "its signs are damaged",
        ),
        strict=True,
    ):  # fmt: skip
        assert said.startswith("This file is refused: ") and reason in said
    assert "\u2605" not in found["still"]
    assert found["loaded"].startswith("loaded") and found["again"] == found["fresh"]


def test_networks_that_cannot_be_taught() -> None:
    data = digits.dataset()
    with pytest.raises(UnsupportedError, match="does not say what a pixel is"):
        demo.teacher_of(zoo.build("all-adder"), data)
    flat = Model(input_shape=(8, 8, 1), preprocessing=data.preprocessing(data.normalize()))
    flat.add(layers.Flatten())
    flat.add(layers.Dense(4))
    flat.add(layers.Flatten())
    with pytest.raises(UnsupportedError, match="ends in Flatten and its classes"):
        demo.teacher_of(flat, data)
