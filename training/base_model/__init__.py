"""The embedded base model: a tiny Qwen3 that copies what people type, and its makers."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).resolve().parent / "weights"
"""The shipped model folder, loaded by `AutoModelForCausalLM.from_pretrained(PATH)`."""
