"""Build llama.cpp once, with its Python bindings, in a folder of its own: `.interop` (about 12 minutes on one core).

The bindings come as source from PyPI and carry llama.cpp. What stays is `.interop/venv`, which has them, and
`.interop/reader`, llama.cpp's own reader of control vectors behind one C function. A build that was interrupted goes on
where it stopped; one that is there is left as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "0.3.36"
TOOLS = ("scikit-build-core==1.1.2", "cmake==4.4.4", "ninja==1.13.2")
NEEDS = ("numpy", "typing-extensions", "diskcache", "jinja2")
# No images, no downloads over https, and no instructions of this very processor: the folder may be kept in a cache.
CMAKE = "-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DGGML_NATIVE=OFF"
ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".interop"
PYTHON = HOME / "venv" / "bin" / "python"
READER = HOME / "reader" / "control_vector_reader.so"
STAMP = HOME / "ready"
LOG = HOME / "build.log"
SOURCE = ROOT / "scripts" / "control_vector_reader.cpp"


def ready() -> bool:
    """Whether this version is built."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == _stamp()


def build() -> None:
    """Build what is not there yet; say what is done."""
    if ready():
        print(f"llama.cpp is built: {HOME} (llama-cpp-python {VERSION})")
        return
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        sys.exit("llama.cpp is built from source, and there is no C++ compiler here (c++, g++ or clang++): install one")
    HOME.mkdir(exist_ok=True)
    STAMP.unlink(missing_ok=True)
    if not PYTHON.exists():
        print(f"Making {PYTHON.parents[1]}")
        _run([sys.executable, "-m", "venv", str(PYTHON.parents[1])])
    print("Installing cmake, ninja and scikit-build-core there")
    _pip("install", *TOOLS, *NEEDS)
    source = _source()
    print(f"Building llama.cpp (llama-cpp-python {VERSION}): about 12 minutes on one core, once; log: {LOG}")
    made = HOME / "build"
    _pip(
        "wheel", "-v", "--no-deps", "--no-build-isolation", str(source), "--wheel-dir", str(HOME / "wheel"),
        f"--config-settings=build-dir={made}",
    )  # fmt: skip
    (wheel,) = (HOME / "wheel").glob(f"llama_cpp_python-{VERSION}-*.whl")
    print(f"Installing {wheel.name}")
    _pip("install", "--no-deps", "--force-reinstall", str(wheel))
    print("Building llama.cpp's reader of control vectors")
    _reader(compiler, source, made)
    _run([str(PYTHON), "-c", "import llama_cpp"])
    STAMP.write_text(_stamp(), encoding="utf-8")
    for folder in (source.parent, made):  # a gigabyte that nobody needs any more
        shutil.rmtree(folder, ignore_errors=True)
    print(f"llama.cpp is built: {HOME}")


def _stamp() -> str:
    return f"{VERSION}\n{CMAKE}\n{SOURCE.read_text(encoding='utf-8')}"


def _source() -> Path:
    """The bindings' source, unpacked."""
    folder = HOME / "source" / f"llama_cpp_python-{VERSION}"
    if not folder.is_dir():
        print(f"Fetching the source of llama-cpp-python {VERSION}")
        loaded = HOME / "source" / "partial"
        shutil.rmtree(loaded, ignore_errors=True)
        _pip(
            "download", "--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-python", "--dest", str(loaded),
            f"llama-cpp-python=={VERSION}",
        )  # fmt: skip
        (archive,) = loaded.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(loaded, filter="data")
        (loaded / folder.name).replace(folder)
        shutil.rmtree(loaded)
    return folder


def _reader(compiler: str, source: Path, made: Path) -> None:
    """Compile the reader against what was built, and keep it with the libraries it needs."""
    llama = source / "vendor" / "llama.cpp"
    shutil.rmtree(READER.parent, ignore_errors=True)
    READER.parent.mkdir()
    for library in made.rglob("lib*.so*"):
        shutil.copy2(library, READER.parent, follow_symlinks=True)
    _run([
        compiler, "-std=c++17", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(READER),
        *(f"-I{folder}" for folder in (llama / "common", llama / "include", llama / "ggml" / "include")),
        f"-L{READER.parent}", "-lllama-common", "-lllama", "-lggml", "-lggml-base", "-Wl,-rpath,$ORIGIN",
    ])  # fmt: skip


def _pip(*arguments: str) -> None:
    _run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments])


def _run(command: list[str]) -> None:
    """Run a command, with its output in the log and its progress on the screen; end with the log's end if it fails."""
    threads = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
    place = f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "CMAKE_ARGS": CMAKE, "CMAKE_BUILD_PARALLEL_LEVEL": threads, "PATH": place}
    told = 0
    with LOG.open("a", encoding="utf-8") as log:
        running = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
        )  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            log.write(line)
            step = re.match(r"\s*\[(\d+)/(\d+)\]", line)
            if step and (share := 10 * int(step[1]) // int(step[2])) > told:
                told = share
                print(f"  {step[1]} of {step[2]} files", flush=True)
    if running.wait():
        tail = "".join(LOG.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:])
        sys.exit(f"{tail}\nThis failed: {' '.join(command)}\nThe whole log: {LOG}")


if __name__ == "__main__":
    build()
