"""Response planning: what hidden states foretell of an answer before it is written (Dong et al. 2025)."""
