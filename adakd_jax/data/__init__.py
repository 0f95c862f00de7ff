"""Instruction files to packed token batches: sources, templates, tokenization, packing, loading."""
