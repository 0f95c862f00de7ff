"""Hugging Face checkpoints, GGUF files and tokenizers, in and out."""
