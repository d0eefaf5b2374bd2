"""A vector in other people's tools: plain transformers, TransformerLens, nnsight."""
