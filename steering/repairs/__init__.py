"""Repair: fine-tune a model by LoRA on a few of its own thoughts, each followed by a refusal."""
