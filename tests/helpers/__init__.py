"""Builders shared by the tests: tiny real models made from configs, with randomised norms, and tokenizers."""
